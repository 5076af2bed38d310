"""One pass of one watch: discover, refresh, complete, and have what was seen recorded."""

from __future__ import annotations

from collections import Counter
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

from batchwatch.domain.batch import NON_TERMINAL, TERMINAL, BatchId, Results
from batchwatch.domain.cadence import (
    RESULTS_PATIENCE,
    VANISHED_AGAIN,
    VANISHED_FOR_GOOD,
    window_start,
)
from batchwatch.domain.changes import Recorder
from batchwatch.domain.reconcile import Oddity
from batchwatch.domain.refresh import plan_refresh
from batchwatch.llamacloud.budget import Priority
from batchwatch.llamacloud.client import PAGE_SIZE
from batchwatch.llamacloud.errors import CloudError, PagingLoop, is_systemic
from batchwatch.log import get_logger
from batchwatch.watch.outcomes import CHUNK, Fetched, Tally, fetch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from batchwatch.clock import Clock
    from batchwatch.domain.changes import Changes
    from batchwatch.domain.watch import Watch, WatchState, Work
    from batchwatch.llamacloud.client import LlamaCloud
    from batchwatch.llamacloud.wire import Page
    from batchwatch.metrics import Metrics
    from batchwatch.store import Batches, Watches

log = get_logger()

LEDGER_EVERY: Final = 60.0  # seconds between two entries that say nothing but "still watching"
KNOWN_LIMIT: Final = 50_000  # fingerprints that are remembered, some 15 MB
_SAME_CLOCK: Final = timedelta(seconds=2)  # HTTP's Date has whole seconds: nearer is no news


@dataclass(slots=True)
class Pass:
    """What one pass saw and changed."""

    window_start: datetime
    seen: set[BatchId] = field(default_factory=set)
    newest: datetime | None = None  # the largest created_at in the window
    pages: int = 0
    transitions: int = 0
    oddities: Counter[Oddity] = field(default_factory=Counter)
    requests: int = 0
    active: int = 0  # batches that are followed, when the window was listed
    seen_active: set[str] = field(default_factory=set)  # of those seen, the ones not terminal

    def has_shown_all(self) -> bool:
        """Whether each active batch was shown, so that there is nothing to refresh.

        Whatever was shown as active is active in the store, unless something
        was not obeyed; so the two numbers tell.
        """
        return len(self.seen_active) == self.active and not self.oddities


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
        self._closed_at = -LEDGER_EVERY  # monotonic; when the ledger was written
        self._full_page = 0  # the most items on a page that had a next one; 0: none was seen yet
        self._known: dict[str, str] = {}  # by id, fingerprints that the store is known to hold
        self._forgotten = 0  # how often GETs made fingerprints doubtful
        self._warned: set[str] = set()
        self._unreadable: set[BatchId] = set()  # batches whose GETs fail, and that was said

    async def poll(self) -> Pass:
        """Discover, refresh and complete, one after the other: a whole pass.

        The three also stand alone, for each must go on while another waits
        for its share of the request budget.
        """
        try:
            this = await self.discover()
        except PagingLoop:
            await self.complete()
            raise
        await self.refresh(this)
        await self.complete()
        return this

    async def discover(self) -> Pass:
        """List the window, every page, and record what is new.

        Raises :class:`CloudError` where upstream could not be had. Whatever
        was seen until then is recorded; the cursor stays, so that the next
        pass lists the same window again.
        """
        begun_at = self._clock.now()
        asked = self.cloud.requests
        self._state = self._state or await self._watches.state(self.watch.name)
        await self._tell_overdue()
        this = Pass(self._window_start(begun_at))
        pages = self.cloud.list_batches(
            created_on_or_after=this.window_start, priority=Priority.DISCOVER
        )
        async with aclosing(pages):
            async for page in pages:
                await self._begun(page)
                await self._take(page, this)
                newest = page.newest()
                if newest is not None:
                    this.newest = newest if this.newest is None else max(this.newest, newest)
        await self._close(this, begun_at)
        await self._count_active(this)
        this.requests = self.cloud.requests - asked
        return this

    async def _tell_overdue(self) -> None:
        now = self._clock.now()
        ids = await self._batches.overdue(self.watch.name, ended_before=now - RESULTS_PATIENCE)
        if ids:
            recorder = self._recorder()
            await self._batches.change(
                self.watch.name, ids, lambda known: recorder.overdue(known, now=now)
            )

    async def _close(self, this: Pass, begun_at: datetime) -> None:
        """Remember that the window was listed to its end.

        Where that changes nothing but the ledger's last moment, it is written
        once a minute: what a crash forgets of it, the next window covers.
        """
        state = await self._begun(None)
        now = self._clock.now()
        # No newer than the pass is old: what was created meanwhile may stand on a page read before.
        newest = this.newest and min(this.newest, begun_at)
        unchanged = state.passed(newest, now=now)[0] == state
        if unchanged and self._clock.monotonic() - self._closed_at < LEDGER_EVERY:
            return
        self._state = await self._watches.passed(
            self.watch.name,
            newest=newest,
            covered_from=this.window_start,
            covered_to=begun_at,
            now=now,
        )
        self._closed_at = self._clock.monotonic()
        if len(self._known) > KNOWN_LIMIT:
            self._known.clear()  # it fills again with what is listed now

    async def failed(self, work: Work, reason: str, *, may_pass: bool) -> WatchState:
        """Note work that upstream did not let through."""
        await self._begun(None)  # even the first pass ever may fail
        self._state = await self._watches.failed(
            self.watch.name, work, reason, now=self._clock.now(), may_pass=may_pass
        )
        return self._state

    async def went_well(self, work: Work) -> None:
        """Note work that goes well, if it did not before."""
        if self._state is not None and work in self._state.troubles:
            self._state = await self._watches.went_well(
                self.watch.name, work, now=self._clock.now()
            )

    async def refresh(self, this: Pass) -> bool:
        """Look at every active batch that the pass did not show.

        Now and then also at those that vanished: upstream may have been wrong.
        Always True; raises as :meth:`discover`, and where no batch could be
        looked at.
        """
        asked = self.cloud.requests
        if not this.has_shown_all():
            await self._sweep(this)
        singles: list[BatchId] = []
        if not this.has_shown_all():
            singles += await self._batches.unseen(self.watch.name, seen=this.seen)
        now = self._clock.now()
        singles += await self._batches.vanished(
            self.watch.name, since=now - VANISHED_FOR_GOOD, asked_before=now - VANISHED_AGAIN
        )
        tally = await self._fetch(singles, this, priority=Priority.REFRESH)
        tally.raise_for_none()
        this.requests += self.cloud.requests - asked
        return True

    async def _sweep(self, this: Pass) -> None:
        """List the active batches by status, where that is cheaper than a GET for each."""
        shares = await self._batches.due(self.watch.name, seen=this.seen)
        for sweep in plan_refresh(shares, page_size=self._full_page or PAGE_SIZE):
            pages = self.cloud.list_batches(
                status=sweep.status,
                created_on_or_after=sweep.created_on_or_after,
                created_on_or_before=sweep.created_on_or_before,
                priority=Priority.REFRESH,
            )
            try:
                async with aclosing(pages):
                    async for page in pages:
                        await self._take(page, this)
            except CloudError as error:
                if is_systemic(error):
                    raise
                # What it did not show is fetched singly: more requests, and nothing is missed.
                log.warning("sweep.failed", watch=self.watch.name, reason=str(error))

    async def complete(self) -> bool:
        """Ask for the results that are due; the terminal events wait for them.

        Whether that shows that results can be had: not if none was due while
        some are missing. Raises as :meth:`refresh`.
        """
        now = self._clock.now()
        name = self.watch.name
        asked: set[BatchId] = set()  # each once: what stays due for whatever reason must not spin
        tally = Tally()
        while ids := await self._batches.awaiting_results(name, now=now, limit=CHUNK):
            if asked.issuperset(ids):
                break
            asked.update(ids)
            tally += await self._fetch(ids, None, priority=Priority.COMPLETE)
        tally.raise_for_none()
        return bool(asked) or await self._batches.next_results_due(name) is None

    async def _take(self, page: Page, this: Pass) -> None:
        """Compare a page with the store, and record what is new on it."""
        seen = page.fingerprints()
        this.pages += 1
        this.seen_active.update(item.id for item in page.items if item.status not in TERMINAL)
        if page.next_page_token and page.items:
            # A full page: so many upstream gives. The largest counts, for some come short.
            self._full_page = max(self._full_page, len(page.items))
        if page.unreadable:
            log.error("page.unreadable", watch=self.watch.name, items=page.unreadable)
        this.seen.update(BatchId(one) for one in seen)
        # What the store is known to hold needs no question; it is asked about all else.
        doubtful = {one: print_ for one, print_ in seen.items() if self._known.get(one) != print_}
        if not doubtful:
            return
        forgotten = self._forgotten
        news = await self._batches.news(self.watch.name, doubtful)
        if forgotten == self._forgotten:  # else a GET may have changed what the store just said
            self._known.update((one, print_) for one, print_ in doubtful.items() if one not in news)
        if not news:
            return
        now = self._clock.now()
        recorder = self._recorder()
        observations = [item.observation(now) for item in page.items if item.id in news]
        changes = await self._batches.change(
            self.watch.name,
            news,
            lambda known: recorder.record(known, observations, now=now),
        )
        for one in news:
            batch = changes.batches.get(one)
            sure = forgotten == self._forgotten
            if sure and batch is not None and batch.fingerprint == seen[one]:
                self._known[one] = batch.fingerprint
            else:
                self._known.pop(one, None)  # not obeyed: to be judged again when it is seen again
        self._report(changes, this)

    async def _fetch(
        self, ids: Sequence[BatchId], this: Pass | None, *, priority: Priority
    ) -> Tally:
        """GET each of ``ids``, and record the answers as they come."""
        tally = Tally()

        async def record(fetched: Fetched) -> None:
            nonlocal tally
            tally += fetched.tally
            await self._record(fetched, this)

        await fetch(self.cloud, ids, priority=priority, record=record)
        return tally

    async def _record(self, fetched: Fetched, this: Pass | None) -> None:
        """Record what single GETs brought, the 404s and the failures among it."""
        now = self._clock.now()
        name = self.watch.name
        recorder = self._recorder()
        if fetched.seen:
            changes = await self._batches.change(
                name,
                [one.id for one in fetched.seen],
                lambda known: recorder.record(known, fetched.seen, now=now),
            )
            self._unreadable.difference_update(one.id for one in fetched.seen)
            # It is no longer as a page showed it.
            self._forget(one.id for one in fetched.seen)
            self._report(changes, this)
        if fetched.missing:
            self._forget(fetched.missing)  # should they come back, they are news
            changes = await self._batches.change(
                name,
                fetched.missing,
                lambda known: recorder.miss(known, now=now),
            )
            for event in changes.events:
                log.warning("batch.vanished", watch=name, batch_id=event.batch_id)
        for outage, failed in fetched.failures():
            unanswered = partial(recorder.unanswered, outage=outage, now=now)
            await self._batches.change(name, list(failed), unanswered)
            batch_id, error = next(iter(failed.items()))
            if outage:
                raise error
            (log.debug if self._unreadable.issuperset(failed) else log.warning)(
                "batch.unreadable",
                watch=name,
                batch_id=batch_id,
                count=len(failed),
                reason=str(error),
            )
            self._unreadable.update(failed)

    def _forget(self, ids: Iterable[BatchId]) -> None:
        """Ask the store again about these when a page shows them, whatever it shows."""
        self._forgotten += 1
        for one in ids:
            self._known.pop(one, None)

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

    def _recorder(self) -> Recorder:
        """The rules as they are now; silent about the backlog while the first pass ever lasts."""
        state = self._state
        silent = state and not state.baseline_done and not self.watch.notify_backlog
        return Recorder(
            self.watch.name,
            self.watch.base_url,
            backlog_before=state.started_at if state and silent else None,
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
        for batch in changes.batches.values():
            if batch.results is Results.GIVEN_UP:
                log.warning(
                    "results.given_up", watch=name, batch_id=batch.id, asks=batch.results_asks
                )
        for oddity, count in changes.oddities.items():
            self._metrics.oddities.labels(name, oddity.value).inc(count)
            if oddity is Oddity.CONTRADICTION and oddity not in self._warned:
                self._warned.add(oddity)
                log.warning("status.contradicted", watch=name, count=count)
        if this is not None:
            this.transitions += len(changes.transitions)
            this.oddities.update(changes.oddities)

    async def _count_active(self, this: Pass) -> None:
        active = await self._batches.active(self.watch.name)
        this.active = sum(active.values())
        counts = {str(status): count for status, count in active.items() if status.is_known}
        counts["other"] = this.active - sum(counts.values())
        for status in (*map(str, NON_TERMINAL), "other"):
            self._metrics.batches.labels(self.watch.name, status).set(counts.get(status, 0))
