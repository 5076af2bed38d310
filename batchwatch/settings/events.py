"""The types of events that a route can choose from."""

from __future__ import annotations

from fnmatch import fnmatchcase

from batchwatch.settings.kinds import Word
from batchwatch.settings.problems import Invalid, nearest

# The domain defines what they are; the settings may not import it, so they keep the names, and a
# test holds both together.
EVENT_TYPES = (
    "batch.discovered",
    "batch.pending",
    "batch.throttled",
    "batch.running",
    "batch.completed",
    "batch.failed",
    "batch.cancelled",
    "batch.unknown",
    "batch.settled",
    "batch.stuck",
    "batch.unstuck",
    "batch.vanished",
    "watch.failing",
    "watch.slow",
    "watch.gap",
    "watch.recovered",
    "endpoint.failing",
    "endpoint.disabled",
    "endpoint.recovered",
    "daemon.heartbeat",
    "endpoint.test",
)


class EventPattern(Word):
    """A type of event, all types of a group as in ``batch.*``, or ``*`` for all there are."""

    def __init__(self) -> None:
        super().__init__(
            r"\*|[a-z]+\.(?:\*|[a-z]+)",
            allowed="a type of event such as batch.completed, a group such as batch.*, or *",
            fix="See the list of event types in the documentation.",
        )

    def read(self, text: str) -> str:
        """Return the pattern, which fits at least one type: one that fits none is a slip."""
        try:
            pattern = super().read(text)
            if any(fnmatchcase(known, pattern) for known in EVENT_TYPES):
                return pattern
        except Invalid:
            pass
        groups = {f"{known.partition('.')[0]}.*" for known in EVENT_TYPES}
        near = nearest(text, (*EVENT_TYPES, *sorted(groups)))
        raise Invalid(fix=f"Did you mean {near}?" if near else "")
