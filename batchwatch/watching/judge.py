"""After batches were looked at: judge which of them are stuck, and have it told."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

from batchwatch.domain.event import WATCH_RECOVERED
from batchwatch.domain.judging import Court
from batchwatch.domain.stuck import GATHER, LOOK_AGAIN
from batchwatch.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from batchwatch.domain.batch import BatchId
    from batchwatch.domain.judging import Judged
    from batchwatch.domain.watch import Watch, WatchState
    from batchwatch.metrics import Metrics
    from batchwatch.store import Batches
    from batchwatch.watching.history import History

log = get_logger()

AT_ONCE: Final = 500  # batches that are scheduled in one transaction


class Judge:
    """Judges one watch's batches, each when it is due; until then it costs nothing."""

    def __init__(
        self,
        watch: Watch,
        *,
        batches: Batches,
        history: History,
        metrics: Metrics,
    ) -> None:
        self._watch = watch
        self._batches = batches
        self._judgements = batches.judgements
        self._history = history
        self._metrics = metrics
        self._scheduled = False  # whether all were, by the present settings
        self._is_slow = True  # whether `watch.slow` was told and lasts; until known, it may be

    async def judge(
        self, seen: Collection[BatchId], state: WatchState | None, *, now: datetime
    ) -> None:
        """Judge those of ``seen`` that are due: all were just looked at, since ``now``.

        Nobody is judged while anything fails: that has an alarm of its own,
        and batches that cannot be looked at are not to blame for it.
        """
        if state is None or state.troubles or state.alarm is not None:
            return
        name = self._watch.name
        if not self._scheduled:
            active = await self._batches.unseen(name, seen=())
            await self._schedule([one for one in active if one in seen], state, now)
            self._scheduled = True
        due = await self._due(seen, now)
        if len(due) > AT_ONCE:
            await self._schedule(due, state, now)
            due = await self._due(seen, now)
        if not due and not self._is_slow:
            self._metrics.stuck.labels(name).set(await self._judgements.stuck(name))
            return
        await self._learn(due)
        court = self._court(state)
        judged = await self._batches.judge(name, due, partial(court.judge, now=now))
        self._is_slow = judged.slow is not None
        self._metrics.stuck.labels(name).set(judged.stuck)
        self._tell(judged)

    async def _due(self, seen: Collection[BatchId], now: datetime) -> list[BatchId]:
        longest = max(LOOK_AGAIN, timedelta(seconds=self._watch.patience.reminder))
        due = await self._judgements.due(self._watch.name, now=now, longest=longest, soon=GATHER)
        return [one for one in due if one in seen]

    async def _schedule(self, ids: Sequence[BatchId], state: WatchState, now: datetime) -> None:
        """Find out when each is due, a few at a time."""
        for start in range(0, len(ids), AT_ONCE):
            some = ids[start : start + AT_ONCE]
            await self._learn(some)
            court = self._court(state)
            await self._batches.change(self._watch.name, some, partial(court.schedule, now=now))

    async def _learn(self, ids: Collection[BatchId]) -> None:
        known = await self._batches.known(self._watch.name, ids)
        await self._history.learn(known.values())

    def _court(self, state: WatchState) -> Court:
        return Court(
            self._watch.name,
            self._watch.base_url,
            self._watch.patience,
            outages=state.outages,
            expectation_of=self._history.expectation_of,
        )

    def _tell(self, judged: Judged) -> None:
        for event in judged.changes.events:
            (log.info if event.type == WATCH_RECOVERED else log.warning)(
                event.type,
                watch=self._watch.name,
                batch_id=event.batch_id,
                reason=event.data.get("reason"),
                **{
                    key: value
                    for key, value in (event.data.get("stuck") or {}).items()
                    if key in ("rule", "status", "lasted", "limit")
                },
            )
