"""Compare the webhooks that upstream should have sent with those that came."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from batchwatch.domain.batch import CANCELLED, NON_TERMINAL, RUNNING
from batchwatch.domain.hint import CLAIMS, WEBHOOKS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from batchwatch.domain.batch import BatchId, Status, WatchName

LATE: Final = timedelta(seconds=30)  # upstream's own tries are over within seconds
YOUNG: Final = timedelta(minutes=1)  # it may still come
UNCONFIRMED: Final = WEBHOOKS[CANCELLED]  # upstream lists it, and does not say that it sends it


class Fault(StrEnum):
    """What is amiss with one webhook."""

    MISSED = "missed"
    LATE = "late"
    REORDERED = "reordered"  # it came after one of a later status
    UNCONFIRMED = "unconfirmed"  # missed, and nobody knows whether upstream sends such at all


@dataclass(frozen=True, slots=True)
class Step:
    """A status that was observed."""

    status: Status
    observed_at: datetime
    updated_at: datetime | None  # upstream's word for when

    @property
    def changed_at(self) -> datetime:
        """When it had come to that at the latest.

        By upstream's word, which errs in upstream's favour where more than
        the status was updated; but what we have seen was so by then, whatever
        upstream's clock says.
        """
        return min(self.updated_at or self.observed_at, self.observed_at)


@dataclass(frozen=True, slots=True)
class Came:
    """A webhook that came."""

    type: str
    received_at: datetime
    repeats: int = 0  # under the same id


@dataclass(frozen=True, slots=True)
class Course:
    """One batch as it was observed, and as webhooks told it."""

    watch: WatchName
    batch_id: BatchId
    steps: Sequence[Step]  # in order
    came: Sequence[Came]  # in order of receipt
    judged_from: datetime  # what changed before is not demanded


@dataclass(frozen=True, slots=True)
class Judged:
    """One webhook that upstream should have sent."""

    watch: WatchName
    batch_id: BatchId
    type: str
    changed_at: datetime
    received_at: datetime | None
    faults: tuple[Fault, ...] = ()
    behind: str | None = None  # the type of a later status that came before it


@dataclass(frozen=True, slots=True)
class Audit:
    """All that was judged, and what came beside it."""

    judged: tuple[Judged, ...]
    batches: int
    repeated: int  # webhooks that came again
    unseen: int  # webhooks of statuses that were not observed

    @property
    def amiss(self) -> tuple[Judged, ...]:
        """Those with a fault."""
        return tuple(one for one in self.judged if one.faults)

    @property
    def came(self) -> int:
        """How many of those that were expected came, however late."""
        return sum(one.received_at is not None for one in self.judged)

    def count(self, fault: Fault) -> int:
        """How many have this fault."""
        return sum(fault in one.faults for one in self.judged)

    @property
    def silent(self) -> tuple[str, ...]:
        """Types of which none came: their batches may have been made without them."""
        expected = {one.type for one in self.judged if Fault.UNCONFIRMED not in one.faults}
        heard = {one.type for one in self.judged if one.received_at is not None}
        return tuple(type_ for type_ in CLAIMS if type_ in expected - heard)


def audit(courses: Sequence[Course], *, now: datetime) -> Audit:
    """Judge each status that has a webhook, was observed, and is not too young.

    Only the first time in each status counts: "batch.running once processing
    starts". A status that fell between two polls is not demanded, for nobody
    saw it. A missed ``batch.cancelled`` is a fault of its own kind until one
    of these batches has had one.
    """
    sends_cancelled = any(one.type == UNCONFIRMED for course in courses for one in course.came)
    judged: list[Judged] = []
    repeated = unseen = 0
    for course in courses:
        judged += _judged(course, now=now, missed_cancelled=_missed(sends=sends_cancelled))
        observed = {WEBHOOKS.get(step.status) for step in course.steps}
        types = Counter(one.type for one in course.came)
        repeated += sum(one.repeats for one in course.came) + types.total() - len(types)
        unseen += len(types.keys() - observed)
    return Audit(tuple(judged), batches=len(courses), repeated=repeated, unseen=unseen)


def _missed(*, sends: bool) -> Fault:
    return Fault.MISSED if sends else Fault.UNCONFIRMED


def _judged(course: Course, *, now: datetime, missed_cancelled: Fault) -> Iterator[Judged]:
    first: dict[str, Came] = {}
    for came in course.came:
        first.setdefault(came.type, came)
    met: set[str] = set()
    for step in course.steps:
        type_ = WEBHOOKS.get(step.status)
        if type_ is None or type_ in met:
            continue
        met.add(type_)
        changed = step.changed_at
        if not course.judged_from <= changed <= now - YOUNG:
            continue
        receipt = first.get(type_)
        if receipt is None:
            fault = missed_cancelled if type_ == UNCONFIRMED else Fault.MISSED
            yield Judged(course.watch, course.batch_id, type_, changed, None, (fault,))
            continue
        behind = next((one for one in first if _overtakes(one, type_, first)), None)
        faults = {
            Fault.LATE: receipt.received_at - changed > LATE,
            Fault.REORDERED: behind is not None,
        }
        yield Judged(
            course.watch,
            course.batch_id,
            type_,
            changed,
            receipt.received_at,
            tuple(fault for fault, is_so in faults.items() if is_so),
            behind,
        )


def _overtakes(other: str, type_: str, first: dict[str, Came]) -> bool:
    return (
        other in CLAIMS
        and _rank(CLAIMS[other]) > _rank(CLAIMS[type_])
        and first[other].received_at < first[type_].received_at
    )


def _rank(status: Status) -> int:
    return (status == RUNNING) + 2 * (status not in NON_TERMINAL)
