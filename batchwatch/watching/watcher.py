"""Keep one watch going: pass after pass, at the right pace, whatever goes wrong."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from batchwatch.domain.cadence import backoff, next_poll, silence_allowed
from batchwatch.domain.coverage import Kind
from batchwatch.domain.watch import Work
from batchwatch.llamacloud.errors import CloudError, is_systemic
from batchwatch.log import get_logger
from batchwatch.store import StoreError
from batchwatch.watching.health import WatchHealth

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from batchwatch.clock import Clock
    from batchwatch.llamacloud.budget import Allowance
    from batchwatch.metrics import Metrics
    from batchwatch.traces import Span
    from batchwatch.watching.hints import Follower
    from batchwatch.watching.poller import Pass, Poller
    from batchwatch.watching.settler import Settler

log = get_logger()

SHORTEST: Final = 0.1  # seconds between two looks at what is due
LOOK_EVERY: Final = 5.0  # seconds between two looks at whether passes still end
STALLED: Final = 60.0  # seconds without such a look: a store that hangs, or a bug
LONG: Final = 60.0  # seconds that a pass, or a pause that upstream asks for, may last unsaid
UNREFRESHED: Final = 90.0  # seconds, or four intervals: then a refresh waits for no pass
RETRY: Final = 5.0  # seconds until a store that failed is asked again
A_BUG: Final = "a bug in batchwatch; its log has the traceback"


class Watcher:
    """Runs one watch: discovery at its pace, and what must not delay it beside it.

    A refresh or a fetch of results may have to wait long for its share of the
    request budget; the next discovery goes first there, and so it must not
    stand behind them here. Nor must they stand behind a discovery that hangs,
    or behind those of their own kind that are slow to be answered.
    """

    def __init__(
        self,
        poller: Poller,
        *,
        settler: Settler,
        follower: Follower | None = None,
        clock: Clock,
        metrics: Metrics,
        first_after: float = 0.0,
    ) -> None:
        """``first_after`` is how many seconds its first pass waits, so that many do not collide."""
        self.watch = poller.watch
        self._first_after = first_after
        self._poller = poller
        self._settler = settler
        self.follower = follower  # of hints, if any can come
        self._clock = clock
        self._metrics = metrics
        self._show_from_the_start()
        self._awaited = poller.recorded  # there may be results to ask for
        self._unsettled = poller.unsettled  # there are jobs to follow
        self._beside: set[asyncio.Task[None]] = set()
        self._refreshing: asyncio.Task[None] | None = None
        self._began_at = self._refreshed_at = clock.monotonic()
        self._pass_began_at: float | None = None  # of the present one
        self._asked = asyncio.Event()  # not to wait for the next pass
        self.last_good: float | None = None  # monotonic, when the last whole pass ended
        self._turned_at = clock.monotonic()  # when it last looked whether passes still end
        self._silence_told: float | None = None  # the last good pass whose absence was told
        self._ailing: dict[Work, str] = {}  # why work failed the last time, if it did

    def _show_from_the_start(self) -> None:
        """Have what alarms go by be there before anything happens, or they would see nothing."""
        name, budget = self.watch.name, self._poller.cloud.budget
        self._metrics.last_poll.labels(name).set(0)
        # Asked when it is scraped, for it changes with each moment.
        self._metrics.budget.labels(name).set_function(lambda: budget.left)
        self._metrics.budget_rate.labels(name).set_function(lambda: budget.rate)

    async def run(self, stop: asyncio.Event) -> None:
        """Pass after pass until ``stop``; may be cancelled at any moment, all is in the store."""
        self._began_at = self._refreshed_at = self._clock.monotonic()
        async with asyncio.TaskGroup() as group:
            for forever in (
                self._complete_for_ever(group),
                self._settle_for_ever(group),
                self._look_after(group),
                self._heed(stop),
            ):
                self._go(group, forever)
            if self.follower is not None:
                self._go(group, self.follower.run())
            if self._first_after:
                await self._clock.wait(stop, self._first_after)
            while not stop.is_set():
                self._asked.clear()
                pause = await self._pass(group)
                await self._clock.wait(self._asked, pause)
            for task in self._beside:
                task.cancel()

    def poll_now(self) -> None:
        """Begin the next pass at once; when one is under way, another after it."""
        self._asked.set()

    @property
    def allowance(self) -> Allowance:
        """What LlamaCloud lets it ask at present."""
        return self._poller.cloud.budget.allowance

    @property
    def health(self) -> WatchHealth:
        """How it goes at this moment."""
        good = self.last_good
        return WatchHealth(
            silence=None if good is None else self._clock.monotonic() - good,
            allowance=self.allowance,
            troubles=tuple(self.troubles()),
            is_stalled=self.is_stalled,
        )

    @property
    def is_stalled(self) -> bool:
        """Whether it no longer even looks whether its passes end; upstream cannot do that."""
        return self._clock.monotonic() - self._turned_at > STALLED

    def troubles(self) -> list[str]:
        """Why this watch is not well, if it is not."""
        now = self._clock.monotonic()
        found = [f"{work}: {reason}" for work, reason in self._ailing.items()]
        pause = self._poller.cloud.paused_for
        if pause > LONG:
            found.append(f"LlamaCloud has asked for another {pause:.0f} s without requests")
        if self._pass_began_at is not None and now - self._pass_began_at > LONG:
            found.append(f"the present pass has lasted {now - self._pass_began_at:.0f} s")
        if self.is_stalled:
            found.append(f"it has not gone round for {now - self._turned_at:.0f} s")
        if self.last_good is None:
            return found or ["its first poll is not done yet"]
        if now - self.last_good > silence_allowed(self.watch.interval):
            found.append(f"its last good poll was {now - self.last_good:.0f} s ago")
        return found

    async def _pass(self, group: asyncio.TaskGroup) -> float:
        """Make a pass; seconds until the next one, whatever became of this one."""
        about = {"batchwatch.watch": self.watch.name}
        with self._poller.cloud.traces.span("poll", about) as span:
            return await self._discover(group, span)

    async def _discover(self, group: asyncio.TaskGroup, span: Span) -> float:
        self._pass_began_at = begun = self._clock.monotonic()
        try:
            this = await self._poller.discover()
        except CloudError as error:
            self._awaited.set()  # what its pages showed
            if not is_systemic(error):
                self._refresh(group, self._poller.present)
            span.failed(str(error))
            return await self._discovery_failed(str(error), error)
        except StoreError as error:
            span.failed(str(error))
            return self._store_failed(error)
        except Exception:
            # A bug, at the border of one pass: the other watches go on, and so does this one.
            log.exception("poll.broke", watch=self.watch.name)
            span.failed(A_BUG)
            return await self._discovery_failed(A_BUG, None)
        finally:
            self._pass_began_at = None
        self._awaited.set()
        span.note({
            "batchwatch.pages": this.pages,
            "batchwatch.seen": len(this.seen),
            "batchwatch.transitions": this.transitions,
        })  # fmt: skip
        self._passed(this, self._clock.monotonic() - begun)
        self._refresh(group, this)
        return next_poll(self.watch.interval, active=this.active or 0)

    async def _heed(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._asked.set()

    async def _look_after(self, group: asyncio.TaskGroup) -> None:
        """Refresh, and tell, when passes do not end; until cancelled."""
        interval = self.watch.interval
        while True:
            await self._clock.sleep(LOOK_EVERY)
            self._turned_at = now = self._clock.monotonic()
            if now - self._refreshed_at > max(UNREFRESHED, 4 * interval):
                self._refresh(group, None)
            good = self._began_at if self.last_good is None else self.last_good
            if now - good > silence_allowed(interval) and self._silence_told != good:
                await self._tell_silence(now - good, good)

    async def _tell_silence(self, seconds: float, good: float) -> None:
        reason = "; ".join(self.troubles())
        lasted = timedelta(seconds=seconds)
        try:
            await self._poller.failed(Work.DISCOVERY, reason, may_pass=True, lasted=lasted)
        except StoreError as error:
            log.debug("store.failed", watch=self.watch.name, reason=str(error))
            return  # until the store is well again
        self._silence_told = good
        log.warning("poll.missed", watch=self.watch.name, seconds=round(seconds), reason=reason)

    def _refresh(self, group: asyncio.TaskGroup, this: Pass | None) -> None:
        """Begin a refresh, unless one has not asked for all its batches yet."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshed_at = self._clock.monotonic()
            refresh = partial(self._poller.refresh, this)
            self._refreshing = self._go(group, self._begin(group, Work.REFRESH, refresh))

    async def _complete_for_ever(self, group: asyncio.TaskGroup) -> None:
        """Ask for results whenever some are due, until cancelled."""
        while True:
            self._awaited.clear()
            await self._begin(group, Work.RESULTS, self._poller.complete)
            if Work.RESULTS in self._ailing:
                await self._clock.sleep(RETRY)  # what was not written down is still due
            await self._clock.wait(self._awaited, await self._until(self._poller.until_results))

    async def _settle_for_ever(self, group: asyncio.TaskGroup) -> None:
        """Follow jobs whenever some are due to be asked for, until cancelled."""
        while True:
            self._unsettled.clear()
            await self._begin(group, Work.SETTLING, self._settler.settle)
            if Work.SETTLING in self._ailing:
                await self._clock.sleep(RETRY)
            await self._clock.wait(self._unsettled, await self._until(self._settler.until_settle))

    async def _begin(
        self,
        group: asyncio.TaskGroup,
        work: Work,
        do: Callable[[asyncio.Event], Awaitable[bool]],
    ) -> None:
        """Begin what goes on beside discovery; return when all that it asks for is under way.

        What is slow to be answered holds up nothing but itself.
        """
        begun = asyncio.Event()
        task = self._go(group, self._do(work, partial(do, begun)))
        task.add_done_callback(lambda _: begun.set())
        await begun.wait()

    def _go(self, group: asyncio.TaskGroup, doing: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = group.create_task(doing)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)
        return task

    async def _do(self, work: Work, do: Callable[[], Awaitable[bool]]) -> None:
        """Do what goes on beside discovery; its troubles are told, and end nothing."""
        name = self.watch.name
        try:
            if await do():
                await self._poller.went_well(work)
                if work in self._ailing:
                    log.info("work.recovered", work=work, watch=name, was=self._ailing.pop(work))
        except CloudError as error:
            told = self._ailing.get(work) == str(error)
            (log.debug if told else log.warning)(
                "work.failed", work=work, watch=name, reason=str(error)
            )
            await self._failed(work, str(error), error)
        except StoreError as error:
            told = self._ailing.get(work) == str(error)
            (log.debug if told else log.error)(
                "store.failed", work=work, watch=name, reason=str(error)
            )
            self._ailing[work] = str(error)
        except Exception:
            log.exception("work.broke", work=work, watch=name)
            await self._failed(work, A_BUG, None)

    async def _failed(self, work: Work, reason: str, error: CloudError | None) -> int:
        """Remember that ``work`` failed; the how manieth time in a row."""
        self._ailing[work] = reason
        try:
            state = await self._poller.failed(
                work, reason, may_pass=error is not None and error.transient
            )
        except StoreError as failure:
            log.error("store.failed", work=work, watch=self.watch.name, reason=str(failure))
            return 1
        return state.troubles[work].failures

    async def _until(self, due: Callable[[], Awaitable[float | None]]) -> float | None:
        """Seconds until something is due to be asked for, if anything is."""
        try:
            pause = await due()
        except StoreError:
            return RETRY
        return None if pause is None else max(SHORTEST, pause)

    def _passed(self, this: Pass, took: float) -> None:
        name = self.watch.name
        self._metrics.polls.labels(name, "good").inc()
        self._metrics.poll_duration.labels(name).observe(took)
        self._metrics.last_poll.labels(name).set(self._clock.now().timestamp())
        if was := self._ailing.pop(Work.DISCOVERY, None):
            log.info("work.recovered", work=Work.DISCOVERY, watch=name, was=was)
        self.last_good = self._clock.monotonic()
        (log.info if this.transitions or this.oddities else log.debug)(
            "poll.done",
            watch=name,
            pages=this.pages,
            seen=len(this.seen),
            active=this.active,
            transitions=this.transitions,
            oddities={kind.value: count for kind, count in this.oddities.items()} or None,
            requests=this.requests,
            duration_ms=round(took * 1000, 1),
        )

    async def _discovery_failed(self, reason: str, error: CloudError | None) -> float:
        name = self.watch.name
        self._metrics.polls.labels(name, "failed").inc()
        told = self._ailing.get(Work.DISCOVERY) == reason
        failures = await self._failed(Work.DISCOVERY, reason, error)
        pause = backoff(
            failures,
            interval=self.watch.interval,
            jitter=random.random(),
            at_least=error.retry_after if error else None,
        )
        # The first of a row is told, and each new reason; the others are counted.
        (log.debug if told else log.warning)(
            "poll.failed",
            watch=name,
            failures=failures,
            retry_in_s=round(pause, 1),
            reason=reason,
        )
        return pause

    def _store_failed(self, error: StoreError) -> float:
        name = self.watch.name
        self._metrics.polls.labels(name, "store_failed").inc()
        told = self._ailing.get(Work.DISCOVERY) == str(error)
        (log.debug if told else log.error)("store.failed", watch=name, reason=str(error))
        self._ailing[Work.DISCOVERY] = str(error)
        self._poller.ledger.held_up(Kind.SLOW, str(error))
        return backoff(3, interval=self.watch.interval, jitter=random.random())
