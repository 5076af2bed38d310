"""One pass of one watch: discover, refresh, complete, and have what was seen recorded."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

from batchwatch.domain.batch import NON_TERMINAL, TERMINAL, BatchId
from batchwatch.domain.cadence import (
    RESULTS_PATIENCE,
    RESULTS_PAUSE,
    window_start,
)
from batchwatch.domain.changes import Recorder, is_lost
from batchwatch.domain.coverage import Kind, Look, on_upstreams_clock
from batchwatch.domain.refresh import MARGIN, plan_refresh
from batchwatch.domain.watch import Work
from batchwatch.llamacloud.budget import Priority
from batchwatch.llamacloud.client import PAGE_SIZE, can_be_asked
from batchwatch.llamacloud.errors import CloudError, Unreachable, is_systemic
from batchwatch.log import get_logger
from batchwatch.watching.fetcher import Fetched, Fetcher, Tally, UnderWay
from batchwatch.watching.history import History
from batchwatch.watching.judge import Judge
from batchwatch.watching.ledger import Ledger
from batchwatch.watching.report import Reporter

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from datetime import datetime

    from batchwatch.clock import Clock
    from batchwatch.domain.changes import Changes
    from batchwatch.domain.reconcile import Oddity
    from batchwatch.domain.refresh import Share
    from batchwatch.domain.watch import Watch, WatchState
    from batchwatch.llamacloud.client import LlamaCloud
    from batchwatch.llamacloud.wire import Page
    from batchwatch.metrics import Metrics
    from batchwatch.store import Batches, Watches

log = get_logger()

KNOWN_LIMIT: Final = 50_000  # fingerprints that are remembered, some 15 MB
ROUND: Final = 1_000  # batches that are asked for singly in one round
ELSEWHERE_LIMIT: Final = 10_000  # batches of other directories that are remembered, some 1 MB
_SAME_CLOCK: Final = timedelta(seconds=2)  # HTTP's Date has whole seconds: nearer is no news


@dataclass(slots=True)
class Pass:
    """What one pass saw and changed."""

    window_start: datetime
    begun_at: datetime
    not_after: datetime  # the same by the earlier of the two clocks
    seen: set[BatchId] = field(default_factory=set)
    newest: datetime | None = None  # the largest created_at in the window
    covered_to: datetime | None = None  # when it began, on upstream's clock
    pages: int = 0
    unreadable: int = 0  # entries
    transitions: int = 0
    oddities: Counter[Oddity] = field(default_factory=Counter)
    requests: int = 0
    active: int | None = None  # batches that are followed, when they were counted
    shares: Sequence[Share] = ()  # of the active batches, when they were counted
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
        self.ledger = Ledger(watch, watches=watches, clock=clock, metrics=metrics)
        self._state: WatchState | None = None
        self._full_page = 0  # the most items on a page that had a next one; 0: none was seen yet
        self._known: dict[str, str] = {}  # by id, fingerprints that the store is known to hold
        self._forgotten = 0  # how often GETs made fingerprints doubtful
        self._listed = False  # whether a listing has shown anything yet
        self._steady: tuple[datetime, timedelta] | None = None  # since when, and how far ahead
        self._traces = cloud.traces
        self.cause: str | None = None  # the trace in which something changed last
        self._reporter = Reporter(watch.name, metrics=metrics, traces=cloud.traces)
        self._ahead = timedelta(0)  # upstream's clock before ours, when the last pass began
        self._garbled = 0  # the most entries that no page made sense of, and that was said
        self._sweep_failed: str | None = None  # why, the last time that it did
        self._history = History(watch.name, judgements=batches.judgements, clock=clock)
        self._judge = Judge(watch, batches=batches, history=self._history, metrics=metrics)
        self._unreadable: set[BatchId] = set()  # batches whose GETs fail, and that was said
        self._lost: set[BatchId] = set()  # by their GETs; a listing is to be asked
        self._under_way: UnderWay = {}  # asked for singly, and not recorded yet
        self._refresher = Fetcher(cloud, priority=Priority.REFRESH, under_way=self._under_way)
        self._completer = Fetcher(cloud, priority=Priority.COMPLETE, under_way=self._under_way)
        self._looker = Fetcher(cloud, priority=Priority.COMPLETE, under_way=self._under_way)
        self._elsewhere: set[BatchId] = set()  # asked for, and of another directory
        self.baseline = asyncio.Event()  # the first pass ever has ended
        self.recorded = asyncio.Event()  # answers of GETs were: other results may be due
        self.unsettled = asyncio.Event()  # there may be jobs to ask for that there were not
        self.present: Pass | None = None  # under way, or the last one

    async def poll(self) -> Pass:
        """Discover, refresh and complete, one after the other: a whole pass.

        The three also stand alone, for each must go on while another waits
        for its share of the request budget.
        """
        try:
            this = await self.discover()
        except CloudError as error:
            if not is_systemic(error):
                await self.refresh(self.present)
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
        begun_at, begun = self._clock.now(), self._clock.monotonic()
        asked = self.cloud.requests
        self._state = self._state or await self._remembered()
        self._note_baseline()
        self.present = this = Pass(self._window_start(begun_at), begun_at, begun_at)
        await self._tell_overdue()
        pages = self.cloud.list_batches(
            created_on_or_after=this.window_start, priority=Priority.DISCOVER
        )
        try:
            async with aclosing(pages):
                async for page in pages:
                    await self._begun(page)
                    if page.date is not None and not this.pages:
                        this.not_after = min(begun_at, page.date)
                        elapsed = self._clock.monotonic() - begun
                        this.covered_to = on_upstreams_clock(begun_at, page.date, elapsed=elapsed)
                        self._ahead = this.covered_to - begun_at
                    this.unreadable += page.unreadable
                    await self._take(page, this)
                    newest = page.newest()
                    if newest is not None:
                        this.newest = newest if this.newest is None else max(this.newest, newest)
        finally:
            self._listed = self._listed or bool(this.pages)
        await self._close(this, begun_at, begun)
        await self._count_active(this)
        this.requests = self.cloud.requests - asked
        return this

    async def _tell_overdue(self) -> None:
        now = self._clock.now()
        ids = await self._batches.overdue(
            self.watch.name, ended_before=now - RESULTS_PATIENCE, now=now
        )
        if ids:
            recorder = self._recorder()
            await self._batches.change(
                self.watch.name, ids, lambda known: recorder.overdue(known, now=now)
            )

    async def _close(self, this: Pass, begun_at: datetime, begun: float) -> None:
        """Remember that the window was listed to its end."""
        look = Look(
            this.window_start,
            this.covered_to or begun_at,
            begun_at,
            monotonic=begun,
            found=this.transitions,
            unreadable=this.unreadable,
        )
        # No newer than the pass is old: what was created meanwhile may stand on a page read before.
        newest = this.newest and min(this.newest, this.not_after)
        before = await self._begun(None)
        self._state = await self.ledger.close(before, look, newest=newest)
        self._note_baseline()
        if not this.unreadable:
            self._garbled = 0
        if self._state is not before and len(self._known) > KNOWN_LIMIT:
            self._known.clear()  # it fills again with what is listed now

    async def failed(
        self, work: Work, reason: str, *, may_pass: bool, lasted: timedelta = timedelta(0)
    ) -> WatchState:
        """Note work that upstream did not let through, for as long as ``lasted``."""
        if work is Work.DISCOVERY:  # what has lasted for long has not failed yet
            self.ledger.held_up(Kind.SLOW if lasted else Kind.FAILING, reason)
        await self._begun(None)  # even the first pass ever may fail
        self._state = await self._watches.failed(
            self.watch.name,
            work,
            reason,
            now=self._clock.now(),
            may_pass=may_pass,
            lasted=lasted,
        )
        return self._state

    async def went_well(self, work: Work) -> None:
        """Note work that goes well, if it did not before."""
        if self._state is not None and work in self._state.troubles:
            self._state = await self._watches.went_well(
                self.watch.name, work, now=self._clock.now()
            )

    async def refresh(self, this: Pass | None, begun: asyncio.Event | None = None) -> bool:
        """Look at every active batch that the pass did not show; at all of them without a pass.

        Now and then also at those that vanished: upstream may have been wrong.
        Then whatever it has shown is judged: this is when that is known best.
        Whether that shows that batches can be looked at: not if all that there
        are to ask for are still under way. Raises as :meth:`discover`, and
        where no batch could be looked at. ``begun`` as for :class:`Fetcher`.
        """
        if this is None:
            now = self._clock.now()
            this = Pass(now, now, now)
        with self._traces.span("refresh", {"batchwatch.watch": self.watch.name}):
            return await self._refresh(this, begun)

    async def _refresh(self, this: Pass, begun: asyncio.Event | None) -> bool:
        asked = self.cloud.requests
        if this.active is None:
            await self._count_active(this)
        if not this.has_shown_all():
            await self._sweep(this)
        singles: list[BatchId] = []
        if not this.has_shown_all():
            singles += await self._batches.unseen(self.watch.name, seen=this.seen)
        singles += await self._batches.vanished(self.watch.name, now=self._clock.now())
        if unaskable := [one for one in singles if not can_be_asked(one)]:
            await self._look_up(unaskable, this)
            singles = [one for one in singles if can_be_asked(one)]
        # Any of them, so that those which fail again and again do not come first for ever.
        chosen = random.sample(singles, min(len(singles), ROUND))
        tally = await self._fetch(self._refresher, chosen, this, begun)
        await self._tell_lost(this)
        tally.raise_for_none()
        this.requests += self.cloud.requests - asked
        went_well = bool(tally.answered) or not singles
        if went_well:
            await self._judge.judge(this.seen, self._state, now=this.begun_at)
        return went_well

    async def _look_up(self, ids: Collection[BatchId], this: Pass) -> list[BatchId]:
        """List the time when ``ids`` were created; which of them that does not show."""
        known = await self._batches.known(self.watch.name, ids)
        times = [one.created_at for one in known.values() if one.created_at is not None]
        if times:
            pages = self.cloud.list_batches(
                created_on_or_after=min(times) - MARGIN,
                created_on_or_before=max(times) + MARGIN,
                priority=Priority.REFRESH,
            )
            async with aclosing(pages):
                async for page in pages:
                    await self._take(page, this)
        return [one for one in ids if one not in this.seen]

    async def _tell_lost(self, this: Pass) -> None:
        """Call vanished what no GET has found for long, unless a listing shows it.

        A gateway that has lost one of its routes answers 404 for every batch.
        """
        if not self._lost:
            return
        lost, self._lost = self._lost, set()
        lost_for_all = await self._look_up(lost, this)
        now = self._clock.now()
        recorder = self._recorder()
        changes = await self._batches.change(
            self.watch.name, lost_for_all, lambda known: recorder.vanish(known, now=now)
        )
        for event in changes.events:
            log.warning("batch.vanished", watch=self.watch.name, batch_id=event.batch_id)

    async def _sweep(self, this: Pass) -> None:
        """List the active batches by status, where that is cheaper than a GET for each."""
        shares = this.shares  # of all that are active; where the pass has shown none, the same
        if this.seen_active:
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
                told = self._sweep_failed == str(error)
                (log.debug if told else log.warning)(
                    "sweep.failed", watch=self.watch.name, reason=str(error)
                )
                self._sweep_failed = str(error)
                if isinstance(error, Unreachable):
                    break  # it has taken long enough

    async def complete(self, begun: asyncio.Event | None = None) -> bool:
        """Ask for the results that are due; the terminal events wait for them.

        Whether that shows that results can be had: not if none came while
        some are missing. Raises, and sets ``begun``, as :meth:`refresh`.
        """
        ids = await self._batches.awaiting_results(
            self.watch.name, now=self._clock.now(), besides=self._under_way, limit=ROUND
        )
        tally = Tally()
        if ids:
            with self._traces.span(
                "results",
                {"batchwatch.watch": self.watch.name, "batchwatch.batches": len(ids)},
                parent=self.cause,
            ):
                tally = await self._fetch(self._completer, ids, None, begun)
        tally.raise_for_none()
        return bool(tally.answered) or await self._batches.next_results_due(self.watch.name) is None

    async def look_at(self, ids: Collection[BatchId]) -> Tally:
        """GET each of ``ids`` now, and record the answers as any others.

        One that is being asked for already is asked for again afterwards, for
        that answer may be from before. What is not of this watch is not
        recorded, nor is a 404 for a batch that nobody knows; what ended before
        the watch began is recorded and not told, as in its first pass. Raises
        :class:`CloudError` where upstream as a whole could not be had, and
        StoreError.
        """
        await self._begun(None)
        wanted = {one for one in ids if can_be_asked(one)} - self._elsewhere
        tally = Tally()
        while wanted:
            if free := wanted - self._under_way.keys():
                with self._traces.span("look", {"batchwatch.watch": self.watch.name}):
                    tally += await self._looker.fetch(list(free), record=self._record_look)
                wanted -= free
            else:
                await self._under_way[next(iter(wanted))].wait()
        return tally

    async def _record_look(self, fetched: Fetched) -> None:
        seen = [one for one in fetched.seen if self.cloud.covers(one)]
        if len(self._elsewhere) > ELSEWHERE_LIMIT:
            self._elsewhere.clear()
        self._elsewhere.update({one.id for one in fetched.seen} - {one.id for one in seen})
        try:
            await self._record(replace(fetched, seen=seen), None, self._recorder(by_listing=False))
        finally:
            self.recorded.set()

    def is_elsewhere(self, batch_id: BatchId) -> bool:
        """Whether a look has shown that this batch is not of this watch."""
        return batch_id in self._elsewhere

    async def until_results(self) -> float | None:
        """Seconds until results are due that are not being asked for; None if there are none."""
        due = await self._batches.next_results_due(self.watch.name, besides=self._under_way)
        if due is None:
            return None
        pause = due - self._clock.now()
        # Further away than the longest pause: the clock was set back since.
        return 0.0 if pause > RESULTS_PAUSE else max(0.0, pause.total_seconds())

    async def _take(self, page: Page, this: Pass) -> None:
        """Compare a page with the store, and record what is new on it."""
        seen = page.fingerprints()
        this.pages += 1
        this.seen_active.update(item.id for item in page.items if item.status not in TERMINAL)
        if page.next_page_token and page.items:
            # A full page: so many upstream gives. The largest counts, for some come short.
            self._full_page = max(self._full_page, len(page.items))
        if page.unreadable > self._garbled:
            self._garbled = page.unreadable
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
        observations = [
            item.observation(now, asked_at=page.asked_at) for item in page.items if item.id in news
        ]
        await self._history.learn(observations)
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
        self,
        fetcher: Fetcher,
        ids: Sequence[BatchId],
        this: Pass | None,
        begun: asyncio.Event | None,
    ) -> Tally:
        """GET each of ``ids``, and record the answers as they come."""

        async def record(fetched: Fetched) -> None:
            try:
                await self._record(fetched, this)
            finally:
                self.recorded.set()

        return await fetcher.fetch(ids, record=record, begun=begun)

    async def _record(
        self, fetched: Fetched, this: Pass | None, recorder: Recorder | None = None
    ) -> None:
        """Record what single GETs brought, the 404s and the failures among it."""
        now = self._clock.now()
        name = self.watch.name
        recorder = recorder or self._recorder()
        if fetched.seen:
            await self._history.learn(fetched.seen)
            if this is not None:
                this.seen.update(one.id for one in fetched.seen)
            changes = await self._batches.change(
                name,
                [one.id for one in fetched.seen],
                lambda known: recorder.record(known, fetched.seen, now=now),
            )
            self._unreadable.difference_update(one.id for one in fetched.seen)
            # It is no longer as a page showed it.
            self._forget(one.id for one in fetched.seen)
            self._report(changes, this)
            if changes.outcomes:
                self.unsettled.set()
        if fetched.missing:
            self._forget(fetched.missing)  # should they come back, they are news
            changes = await self._batches.change(
                name,
                fetched.missing,
                lambda known: recorder.miss(known, now=now),
            )
            self._lost.update(one.id for one in changes.batches.values() if is_lost(one, now=now))
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
            self._state = await self._watches.begin(
                self.watch.name, now=now, scope=self.watch.scope
            )
        return self._state

    async def _remembered(self) -> WatchState | None:
        """The watch's state, unless it is of another scope: then it begins anew."""
        state = await self._watches.state(self.watch.name)
        scope = self.watch.scope
        if state is None or state.scope == scope:
            return state
        if state.scope is None:  # from an older version, which asked for the same
            return await self._watches.begin(self.watch.name, now=self._clock.now(), scope=scope)
        log.warning(
            "watch.rescoped",
            watch=self.watch.name,
            before=state.scope,
            now=scope,
            reason="it begins anew there: batches that have ended already are told to nobody",
        )
        return None

    def _window_start(self, now: datetime) -> datetime:
        state = self._state
        return window_start(
            state.cursor if state else None,
            started_at=state.started_at if state else now,
            lookback=self.watch.lookback,
        )

    def _note_baseline(self) -> None:
        if self._state is not None and self._state.baseline_done:
            self.baseline.set()

    def _recorder(self, *, by_listing: bool = True) -> Recorder:
        """The rules as they are now; silent about the backlog while the first pass ever lasts.

        Whoever names a batch may name one that no window shows, however long
        ago it ended: about those it is silent for ever.
        """
        state = self._state
        lasts = not by_listing or (state and not state.baseline_done)
        silent = lasts and not self.watch.notify_backlog
        window_start = None if lasts or state is None else self._window_start(self._clock.now())
        return Recorder(
            self.watch.name,
            self.watch.base_url,
            backlog_before=state.started_at if state and silent else None,
            first_listing=not self._listed,
            window_start=window_start,
            file_names=self.watch.file_names,
            expectation_of=self._history.expectation_of,
            steady_since=self._steady_since(),
        )

    def _steady_since(self) -> datetime:
        """Since when the wall clock goes as the monotonic one; before, it was not us who looked."""
        now = self._clock.now()
        ahead = now - self._clock.steady()
        if self._steady is None or abs(ahead - self._steady[1]) > _SAME_CLOCK:
            self._steady = now, ahead
        return self._steady[0]

    def _report(self, changes: Changes, this: Pass | None) -> None:
        if changes.transitions:
            self.cause = self._traces.here()
        began_at = self._state.started_at if self._state else None
        self._reporter.tell(changes, began_at=began_at, ahead=self._ahead)
        if this is not None:
            this.transitions += len(changes.transitions)
            this.oddities.update(changes.oddities)

    async def _count_active(self, this: Pass) -> None:
        this.shares = await self._batches.due(self.watch.name, seen=())
        this.active = sum(share.due for share in this.shares)
        counts = {str(share.status): share.due for share in this.shares if share.status.is_known}
        counts["other"] = this.active - sum(counts.values())
        for status in (*map(str, NON_TERMINAL), "other"):
            self._metrics.batches.labels(self.watch.name, status).set(counts.get(status, 0))
