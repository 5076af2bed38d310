"""Which endpoints hear of an event."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from batchwatch.domain import event as events
from batchwatch.domain.batch import NON_TERMINAL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from batchwatch.domain.batch import EndpointName, WatchName
    from batchwatch.domain.event import Event

# What an endpoint that no route names is sent. One event for each transition: the discovery of
# a batch is told by its first status, so `batch.discovered` would say the same thing twice.
ON_REQUEST: Final = frozenset(
    {events.BATCH_DISCOVERED, events.DAEMON_HEARTBEAT, events.ENDPOINT_TEST}
)
FOR_PROGRAMS: Final = frozenset(events.EVENT_TYPES) - ON_REQUEST
# People want the end of a story and its troubles, not each step on the way.
FOR_PEOPLE: Final = FOR_PROGRAMS - {events.STATUS_TYPES[status] for status in NON_TERMINAL}


@dataclass(frozen=True, slots=True)
class Route:
    """A rule that sends events that match it to endpoints.

    ``events`` and ``watches`` are shell patterns: ``batch.*``, ``*``.
    """

    endpoints: Sequence[EndpointName]
    events: Sequence[str] = ("*",)
    watches: Sequence[str] = ("*",)

    def matches(self, type_: str, watch: WatchName | None) -> bool:
        """Whether an event of this type, from this watch, takes this route.

        What is of no watch takes those that are for all of them.
        """
        return any(fnmatchcase(type_, pattern) for pattern in self.events) and any(
            fnmatchcase(watch or "", pattern) for pattern in self.watches
        )


@dataclass(frozen=True, slots=True)
class Router:
    """All routes, and what the endpoints that no route names get by default."""

    defaults: Mapping[EndpointName, frozenset[str]]  # for every endpoint, the types it gets unasked
    routes: Sequence[Route] = ()
    _known: dict[tuple[str | None, ...], tuple[EndpointName, ...]] = field(default_factory=dict)

    def endpoints_for(self, event: Event) -> tuple[EndpointName, ...]:
        """The endpoints that hear of ``event``, each once, in the order of the settings.

        An endpoint that a route names gets what its routes send and nothing
        else. None is told about itself.
        """
        key = (event.type, event.watch, event.endpoint)
        if key not in self._known:  # there are few types and watches, and many events
            chosen = self._route(event.type, event.watch)
            self._known[key] = tuple(one for one in chosen if one != event.endpoint)
        return self._known[key]

    def _route(self, type_: str, watch: WatchName | None) -> tuple[EndpointName, ...]:
        named = {name for route in self.routes for name in route.endpoints}
        chosen = {
            name for route in self.routes if route.matches(type_, watch) for name in route.endpoints
        }
        return tuple(
            name
            for name, types in self.defaults.items()
            if (name in chosen if name in named else type_ in types)
        )
