"""When a batch has been where it is for longer than it should, by which rule, and since when."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from batchwatch.domain.batch import PENDING, THROTTLED
from batchwatch.domain.event import rfc3339
from batchwatch.domain.expect import begun_at

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batchwatch.domain.batch import Batch, Status, Stuck
    from batchwatch.domain.expect import Expectation
    from batchwatch.domain.payload import StuckData

BY_STATUS: Final = "status"  # too long in the present status
BY_HISTORY: Final = "history"  # too long in all, by what like batches took
HOUR: Final = 3_600.0  # seconds
# A batch that has passed its limit is not told of at once, so that those which do so with it are
# told of with it: 5 % of the limit, five minutes at most.
GATHER: Final = timedelta(minutes=5)
_GATHER_SHARE: Final = 0.05
LOOK_AGAIN: Final = timedelta(hours=1)  # at the latest, for what is expected may have changed


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds that a batch may stay in each status, and between two words about it."""

    pending: float = 2 * HOUR
    throttled: float = 6 * HOUR
    running: float = 12 * HOUR
    reminder: float = 12 * HOUR

    def allowed(self, status: Status) -> float:
        """One without a rule of its own is like RUNNING."""
        return {PENDING: self.pending, THROTTLED: self.throttled}.get(status, self.running)


@dataclass(frozen=True, slots=True)
class Outage:
    """Time in which upstream could not be watched, and that counts for no limit."""

    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class Limit:
    """The moment at which a batch becomes stuck, or has become so, and by which rule."""

    since: datetime
    rule: str
    seconds: float  # that the rule allows

    @property
    def told_from(self) -> datetime:
        """When it is told of, if nothing has moved until then."""
        return self.since + min(GATHER, timedelta(seconds=_GATHER_SHARE * self.seconds))


def limit_of(
    batch: Batch,
    patience: Patience,
    expectation: Expectation | None,
    *,
    outages: Iterable[Outage] = (),
    now: datetime,
) -> Limit:
    """The first limit that an active batch comes to, if it goes on standing still."""
    seconds = patience.allowed(batch.status)
    since = _after(_entered(batch, now), seconds, outages)
    by_status = Limit(since, BY_STATUS, seconds)
    if expectation is None:
        return by_status
    since = _after(begun_at(batch.created_at, batch.first_seen_at), expectation.limit, outages)
    return min(by_status, Limit(since, BY_HISTORY, expectation.limit), key=lambda one: one.since)


def stuck_data(stuck: Stuck, status: Status, *, now: datetime) -> StuckData:
    """What an event says of it: what fired, and for how long it has been so.

    ``status`` is the one that it stood, or has stood, still in.
    """
    return {
        "rule": stuck.rule,
        "status": str(status),
        "since": rfc3339(stuck.since),
        "lasted": round(stuck.limit + max(0.0, (now - stuck.since).total_seconds()), 3),
        "limit": round(stuck.limit, 3),
        "reminder": max(0, stuck.told - 1),
    }


def _entered(batch: Batch, now: datetime) -> datetime:
    """When the present status began, as far as anybody knows.

    That of a batch that was found in it began before, by upstream's stamps.
    So it did if we say that it begins in the future: the clock was wrong then,
    and was set back since.
    """
    said = batch.updated_at or batch.created_at
    if said is not None and (batch.revision == 1 or batch.changed_at > now):
        return min(batch.changed_at, said)
    return batch.changed_at


def _after(start: datetime, seconds: float, outages: Iterable[Outage]) -> datetime:
    """The moment ``seconds`` after ``start``, not counting outages; these are in order."""
    moment = start + timedelta(seconds=seconds)
    for one in outages:
        if start < one.until and one.since < moment:
            moment += max(timedelta(0), one.until - max(one.since, start))
    return moment
