"""One pass of one watch: discover, complete, refresh, and have what was seen recorded."""

from __future__ import annotations

from collections import Counter
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from batchwatch.domain.batch import NON_TERMINAL, BatchId
from batchwatch.domain.cadence import window_start
from batchwatch.domain.changes import Recorder
from batchwatch.domain.reconcile import Oddity
from batchwatch.domain.refresh import plan_refresh
from batchwatch.llamacloud.budget import Priority
from batchwatch.llamacloud.errors import CloudError, PagingLoop, is_systemic
from batchwatch.log import get_logger
from batchwatch.watch.outcomes import CHUNK, Fetched, fetch

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from batchwatch.clock import Clock
    from batchwatch.domain.changes import Changes
    from batchwatch.domain.refresh import Due
    from batchwatch.domain.watch import Watch, WatchState
    from batchwatch.llamacloud.client import LlamaCloud
    from batchwatch.llamacloud.wire import Page
    from batchwatch.metrics import Metrics
    from batchwatch.store import Batches, Watches

log = get_logger()

_SAME_CLOCK: Final = timedelta(seconds=2)  # HTTP's Date has whole seconds: nearer is no news


@dataclass(slots=True)
class Pass:
    """What one pass saw and changed."""

    window_start: datetime
    seen: set[BatchId] = field(default_factory=set)
    newest: datetime | None = None  # the largest created_at in the window
    pages: int = 0
    page_size: int = 0  # the most items that one page held
    transitions: int = 0
    oddities: Counter[Oddity] = field(default_factory=Counter)
    unreadable: int = 0  # items that could not be understood at all
    active: int = 0
    requests: int = 0
    incomplete: CloudError | None = None  # why the window was not listed to its end


class Poller:
    """Asks upstream about one watch, and has what it saw recorded."""

    def __init__(
        self,
        watch: Watch,
        *,
        cloud: LlamaCloud,
        batches: Batches,
        watches: Watches,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self.watch = watch
        self.cloud = cloud
        self._batches = batches
        self._watches = watches
        self._clock = clock
        self._metrics = metrics
        self._state: WatchState | None = None
        self._page_size = 1  # until upstream shows a larger one
        self._warned: set[str] = set()

    async def poll(self) -> Pass:
        """Make one pass.

        Raises :class:`CloudError` where upstream could not be had. Whatever
        was seen until then is recorded; the cursor stays, so that the next
        pass lists the same window again.
        """
        begun_at = self._clock.now()
        asked = self.cloud.requests
        self._state = self._state or await self._watches.state(self.watch.name)
        this = Pass(self._window_start(begun_at))
        await self._discover(this)
        recorder = self._recorder(await self._begun(None))
        await self._complete(recorder)
        await self._refresh(this, recorder)
        if this.incomplete is not None:
            raise this.incomplete
        self._state = await self._watches.passed(
            self.watch.name,
            newest=this.newest,
            covered_from=this.window_start,
            covered_to=begun_at,
            now=self._clock.now(),
        )
        this.requests = self.cloud.requests - asked
        return this

    async def _discover(self, this: Pass) -> None:
        pages = self.cloud.list_batches(
            created_on_or_after=this.window_start, priority=Priority.DISCOVER
        )
        try:
            async with aclosing(pages):
                async for page in pages:
                    recorder = self._recorder(await self._begun(page))
                    await self._take(page, this, recorder)
                    newest = page.newest()
                    if newest is not None:
                        this.newest = newest if this.newest is None else max(this.newest, newest)
        except PagingLoop as error:
            # What the pages showed is kept, and batches that are known must not suffer for it.
            this.incomplete = error

    async def _refresh(self, this: Pass, recorder: Recorder) -> None:
        """Look at every active batch that the window did not show."""
        active = await self._batches.active(self.watch.name)
        self._count_active(active)
        this.active = len(active)
        due = [one for one in active if one.id not in this.seen]
        plan = plan_refresh(due, page_size=self._page_size)
        for sweep in plan.sweeps:
            pages = self.cloud.list_batches(
                status=sweep.status,
                created_on_or_after=sweep.created_on_or_after,
                created_on_or_before=sweep.created_on_or_before,
                priority=Priority.REFRESH,
            )
            try:
                async with aclosing(pages):
                    async for page in pages:
                        await self._take(page, this, recorder)
            except PagingLoop:
                continue  # what it did not show is fetched singly
        singles = [one.id for one in due if one.id not in this.seen]
        async with aclosing(fetch(self.cloud, singles, priority=Priority.REFRESH)) as chunks:
            async for fetched in chunks:
                await self._record(fetched, this, recorder)
        if plan.sweeps or singles:
            await self._complete(recorder)

    async def _take(self, page: Page, this: Pass, recorder: Recorder) -> None:
        """Compare a page with the store, and record what is new on it."""
        seen = page.fingerprints()
        this.pages += 1
        this.page_size = max(this.page_size, len(page.items))
        this.unreadable += page.unreadable
        self._page_size = max(self._page_size, len(page.items))
        if page.unreadable:
            log.error("page.unreadable", watch=self.watch.name, items=page.unreadable)
        news = await self._batches.news(self.watch.name, seen)
        this.seen.update(BatchId(one) for one in seen)
        if not news:
            return
        now = self._clock.now()
        observations = [item.observation(now) for item in page.items if item.id in news]
        changes = await self._batches.change(
            self.watch.name,
            news,
            lambda known: recorder.record(known, observations, now=now),
            now=now,
        )
        self._report(changes, this)

    async def _record(self, fetched: Fetched, this: Pass | None, recorder: Recorder) -> None:
        """Record what single GETs brought, the 404s and the failures among it."""
        now = self._clock.now()
        name = self.watch.name
        if fetched.seen:
            changes = await self._batches.change(
                name,
                [one.id for one in fetched.seen],
                lambda known: recorder.record(known, fetched.seen, now=now),
                now=now,
            )
            self._report(changes, this)
        if fetched.missing:
            changes = await self._batches.change(
                name,
                fetched.missing,
                lambda known: recorder.miss(known, now=now),
                now=now,
            )
            for event in changes.events:
                log.warning("batch.vanished", watch=name, batch_id=event.batch_id)
        if fetched.failed:
            await self._batches.change(
                name,
                list(fetched.failed),
                lambda known: recorder.ask_again(known, now=now),
                now=now,
            )
            batch_id, error = next(iter(fetched.failed.items()))
            if any(is_systemic(one) for one in fetched.failed.values()):
                raise error
            log.warning(
                "batch.unreadable",
                watch=name,
                batch_id=batch_id,
                count=len(fetched.failed),
                reason=str(error),
            )

    async def complete(self) -> None:
        """Ask for the results that are due between two passes. Raises as :meth:`poll`."""
        if self._state is not None:
            await self._complete(self._recorder(self._state))

    async def begin(self) -> WatchState:
        """The watch's state, which begins now if it never did."""
        return await self._begun(None)

    async def _complete(self, recorder: Recorder) -> None:
        """Ask for the results that are due; the terminal events wait for them."""
        now = self._clock.now()
        while ids := await self._batches.awaiting_results(self.watch.name, now=now, limit=CHUNK):
            async with aclosing(fetch(self.cloud, ids, priority=Priority.COMPLETE)) as chunks:
                async for fetched in chunks:
                    await self._record(fetched, None, recorder)

    async def _begun(self, page: Page | None) -> WatchState:
        """The watch's state; the first pass ever begins it, on upstream's clock if it shows one.

        What counts as backlog is decided by ``created_at``, which is upstream's.
        """
        if self._state is None:
            now = self._clock.now()
            if page is not None and page.date is not None and abs(page.date - now) > _SAME_CLOCK:
                now = page.date
            self._state = await self._watches.begin(self.watch.name, now=now)
        return self._state

    def _window_start(self, now: datetime) -> datetime:
        state = self._state
        return window_start(
            state.cursor if state else None,
            started_at=state.started_at if state else now,
            lookback=self.watch.lookback,
        )

    def _recorder(self, state: WatchState) -> Recorder:
        silent = not state.baseline_done and not self.watch.notify_backlog
        return Recorder(
            self.watch.name,
            self.watch.base_url,
            backlog_before=state.started_at if silent else None,
        )

    def _report(self, changes: Changes, this: Pass | None) -> None:
        name = self.watch.name
        for transition in changes.transitions:
            status = transition.to_status
            label = str(status) if status.is_known else "other"
            self._metrics.transitions.labels(name, label).inc()
            log.info(
                "batch.changed",
                watch=name,
                batch_id=transition.batch_id,
                transition=transition.number,
                previous=transition.from_status,
                status=status,
            )
            if not status.is_known and status not in self._warned:
                self._warned.add(status)
                log.warning(
                    "status.unknown", watch=name, batch_id=transition.batch_id, status=status
                )
        for oddity, count in changes.oddities.items():
            self._metrics.oddities.labels(name, oddity.value).inc(count)
            if oddity is Oddity.CONTRADICTION and oddity not in self._warned:
                self._warned.add(oddity)
                log.warning("status.contradicted", watch=name, count=count)
        if this is not None:
            this.transitions += len(changes.transitions)
            this.oddities.update(changes.oddities)

    def _count_active(self, active: Sequence[Due]) -> None:
        counts = Counter(one.status if one.status.is_known else "other" for one in active)
        for status in (*NON_TERMINAL, "other"):
            self._metrics.batches.labels(self.watch.name, str(status)).set(counts[status])
