"""From batches that stand still to what is told of them: one cause, one alarm."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta  # the store reads what is slow by its types
from typing import TYPE_CHECKING, Final

from batchwatch.domain.batch import Stuck
from batchwatch.domain.changes import Changes
from batchwatch.domain.event import (
    BATCH_STUCK,
    WATCH_RECOVERED,
    WATCH_SLOW,
    Details,
    Event,
    batch_event,
    event_id,
    rfc3339,
    watch_event,
)
from batchwatch.domain.expect import expected_data
from batchwatch.domain.stuck import LOOK_AGAIN, Limit, limit_of, stuck_data

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from batchwatch.domain.batch import Batch, BatchId, WatchName
    from batchwatch.domain.expect import Expectation
    from batchwatch.domain.payload import WatchSlowData
    from batchwatch.domain.stuck import Outage, Patience

MANY: Final = 5  # batches that are stuck at once have one cause
FEW: Final = 2  # while so many still are, it is not over
LISTED: Final = 100  # batches that `watch.slow` lists


@dataclass(frozen=True, slots=True)
class Slow:
    """That many batches are stuck at once, and when that was told."""

    since: datetime
    told_at: datetime  # the last time
    told: int  # how often


@dataclass(frozen=True, slots=True)
class Docket:
    """How a watch stands before a judgement."""

    slow: Slow | None = None
    stuck: int = 0  # batches that are known to be
    longest: Sequence[Batch] = ()  # the first of them, those longest in their status


@dataclass(frozen=True, slots=True)
class Judged:
    """What a judgement writes, and how the watch stands after it."""

    changes: Changes
    slow: Slow | None
    stuck: int


@dataclass(frozen=True, slots=True)
class Court:
    """The rules by which one watch's batches are judged.

    Whoever calls it has just looked at the batches, and found each in the
    status that is known; ``now`` is when that look began, so that each stood
    still until after its limit had passed.
    """

    watch: WatchName
    base_url: str
    patience: Patience
    outages: Sequence[Outage] = ()
    expectation_of: Callable[[Batch], Expectation | None] = field(default=lambda _: None)

    def schedule(self, known: Mapping[BatchId, Batch], *, now: datetime) -> Changes:
        """Say when each is due, and tell nobody: the rules may have changed, or the batch."""
        changes = Changes()
        for batch in known.values():
            due_at = None
            if batch.is_active and batch.stuck is not None:
                due_at = batch.stuck.told_at + timedelta(seconds=self.patience.reminder)
            elif batch.is_active:
                due_at = min(self._limit(batch, now).told_from, now + LOOK_AGAIN)
            if due_at != batch.judge_at:
                changes.batches[batch.id] = replace(batch, judge_at=due_at)
        return changes

    def judge(self, known: Mapping[BatchId, Batch], docket: Docket, *, now: datetime) -> Judged:
        """Tell which are stuck, each once, and again when a reminder is due.

        With the first that is due, all that have passed their limits are told.
        Of many at once the watch tells, and goes on doing so until nearly none
        is left: whatever becomes stuck meanwhile is only added to its list.
        """
        changes = self.schedule(known, now=now)
        present = {**known, **changes.batches}
        limits = {
            one.id: self._limit(one, now)
            for one in present.values()
            if one.stuck is None and _may_be_judged(one)
        }
        fresh = {one: limit for one, limit in limits.items() if limit.since <= now}
        if all(limit.told_from > now for limit in fresh.values()):
            fresh = {}
        stuck = docket.stuck + len(fresh)
        slow = docket.slow
        begins = slow is None and bool(fresh) and stuck >= MANY
        if begins:
            slow = Slow(since=now, told_at=now, told=1)
        for batch_id, limit in fresh.items():
            self._stand(present[batch_id], limit, changes, alone=slow is None, now=now)
        if slow is not None:
            joined = [changes.batches[one] for one in fresh]
            slow = self._tell_slow(slow, begins, [*docket.longest, *joined], stuck, changes, now)
        for batch in present.values():
            if batch.stuck is not None and _may_be_judged(batch):
                self._remind(batch, batch.stuck, changes, silent=slow is not None, now=now)
        return Judged(changes, slow, stuck)

    def _limit(self, batch: Batch, now: datetime) -> Limit:
        expectation = self.expectation_of(batch)
        return limit_of(batch, self.patience, expectation, outages=self.outages, now=now)

    def _stand(
        self, batch: Batch, limit: Limit, changes: Changes, *, alone: bool, now: datetime
    ) -> None:
        stuck = Stuck(
            since=limit.since,
            rule=limit.rule,
            limit=limit.seconds,
            told_at=now,
            told=1,
            alone=alone,
        )
        self._keep(batch, stuck, changes, tell=alone, now=now)

    def _remind(
        self, batch: Batch, stuck: Stuck, changes: Changes, *, silent: bool, now: datetime
    ) -> None:
        """Tell of one again, if that is due; what was told in the future starts anew."""
        if stuck.told_at > now:
            self._keep(batch, replace(stuck, told_at=now), changes, tell=False, now=now)
        elif not self._is_due(stuck.told_at, now):
            return
        elif silent:
            changes.batches[batch.id] = replace(batch, judge_at=now + self._reminder)
        else:
            again = replace(stuck, told_at=now, told=stuck.told + 1, alone=True)
            self._keep(batch, again, changes, tell=True, now=now)

    def _keep(
        self, batch: Batch, stuck: Stuck, changes: Changes, *, tell: bool, now: datetime
    ) -> None:
        batch = replace(batch, stuck=stuck, judge_at=now + self._reminder)
        if tell:
            event = batch_event(
                batch,
                BATCH_STUCK,
                occurred_at=now,
                link=f"{self.base_url}/api/v2/batches/{batch.id}?expand=results",
                details=Details(
                    expected_data(batch, self.expectation_of(batch), now=now),
                    stuck_data(stuck, batch.status, now=now),
                ),
            )
            changes.events.append(event)
            batch = replace(batch, last_event_id=event.id)
        changes.batches[batch.id] = batch

    def _tell_slow(
        self,
        slow: Slow,
        begins: bool,  # noqa: FBT001  # one of our own
        batches: Sequence[Batch],
        count: int,
        changes: Changes,
        now: datetime,
    ) -> Slow | None:
        """Tell that many are stuck, that they still are, or that it is over."""
        if count < FEW:
            changes.events.append(
                watch_event(
                    self.watch,
                    WATCH_RECOVERED,
                    occurred_at=now,
                    since=slow.since,
                    reason="many batches stood still at once",
                    about="slow",
                )
            )
            return None
        if slow.told_at > now:
            return replace(slow, told_at=now)
        if not begins:
            if not self._is_due(slow.told_at, now):
                return slow
            slow = replace(slow, told_at=now, told=slow.told + 1)
        changes.events.append(slow_event(self.watch, slow, batches, count=count, now=now))
        return slow

    @property
    def _reminder(self) -> timedelta:
        return timedelta(seconds=self.patience.reminder)

    def _is_due(self, told_at: datetime, now: datetime) -> bool:
        return now - told_at >= self._reminder


def slow_event(
    watch: WatchName, slow: Slow, batches: Iterable[Batch], *, count: int, now: datetime
) -> Event:
    """``watch.slow``: how many batches are stuck, and those that have been for longest."""
    found = [(one.stuck, one) for one in batches if one.stuck is not None]
    found.sort(key=lambda pair: (pair[0].since, pair[1].id))
    statuses = Counter(str(one.status) for _, one in found)
    said = ", ".join(f"{number} {status}" for status, number in statuses.most_common())
    data: WatchSlowData = {
        "watch": watch,
        "since": rfc3339(slow.since),
        "observed_at": rfc3339(now),
        "reason": f"{count} batches stand still at once; of the first {len(found)}: {said}"
        if count > len(found)
        else f"{count} batches stand still at once: {said}",
        "reminder": slow.told - 1,
        "count": count,
        "batches": [
            {
                "id": one.id,
                "status": str(one.status),
                "since": rfc3339(stuck.since),
                "rule": stuck.rule,
            }
            for stuck, one in found[:LISTED]
        ],
    }
    return Event(
        id=event_id(watch, None, f"{rfc3339(slow.since)}#{slow.told}", WATCH_SLOW),
        type=WATCH_SLOW,
        watch=watch,
        occurred_at=now,
        data=data,
    )


def _may_be_judged(batch: Batch) -> bool:
    """Whether what is known of it is what upstream shows: nothing else, and no 404."""
    return batch.is_active and batch.doubt is None and not batch.misses
