"""Keep one watch going: pass after pass, at the right pace, whatever goes wrong."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Final

from batchwatch.domain.cadence import backoff, next_poll
from batchwatch.domain.watch import Work
from batchwatch.llamacloud.errors import CloudError
from batchwatch.log import get_logger
from batchwatch.store import StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from batchwatch.clock import Clock
    from batchwatch.metrics import Metrics
    from batchwatch.store import Batches
    from batchwatch.watch.poller import Pass, Poller

log = get_logger()

SHORTEST: Final = 0.1  # seconds between two looks at what is due
STALE: Final = 300.0  # seconds without a good pass, or ten intervals: no longer well
RETRY: Final = 5.0  # seconds until a store that failed is asked again
A_BUG: Final = "a bug in batchwatch; its log has the traceback"


class Watcher:
    """Runs one watch: discovery at its pace, and what must not delay it beside it.

    A refresh or a fetch of results may have to wait long for its share of the
    request budget; the next discovery goes first there, and so it must not
    stand behind them here.
    """

    def __init__(self, poller: Poller, *, batches: Batches, clock: Clock, metrics: Metrics) -> None:
        self.watch = poller.watch
        self._poller = poller
        self._batches = batches
        self._clock = clock
        self._metrics = metrics
        self._awaited = asyncio.Event()  # there may be results to ask for
        self._refreshing: asyncio.Task[None] | None = None
        self.last_good: float | None = None  # monotonic, when the last whole pass ended
        self._ailing: dict[Work, str] = {}  # why work failed the last time, if it did

    async def run(self, stop: asyncio.Event) -> None:
        """Pass after pass until ``stop``; may be cancelled at any moment, all is in the store."""
        async with asyncio.TaskGroup() as group:
            completing = group.create_task(self._complete_for_ever())
            while not stop.is_set():
                pause = await self._pass(group)
                await self._clock.wait(stop, pause)
            completing.cancel()
            if self._refreshing is not None:
                self._refreshing.cancel()

    def troubles(self) -> list[str]:
        """Why this watch is not well, if it is not."""
        found = [f"{work}: {reason}" for work, reason in self._ailing.items()]
        if self.last_good is None:
            return found or ["its first poll is not done yet"]
        age = self._clock.monotonic() - self.last_good
        if not found and age > max(STALE, 10 * self.watch.interval):
            found.append(f"its last good poll was {age:.0f} s ago")
        return found

    async def _pass(self, group: asyncio.TaskGroup) -> float:
        """Make a pass; seconds until the next one, whatever became of this one."""
        begun = self._clock.monotonic()
        try:
            this = await self._poller.discover()
        except CloudError as error:
            self._awaited.set()  # what its pages showed
            return await self._discovery_failed(str(error), error)
        except StoreError as error:
            return self._store_failed(error)
        except Exception:
            # A bug, at the border of one pass: the other watches go on, and so does this one.
            log.exception("poll.broke", watch=self.watch.name)
            return await self._discovery_failed(A_BUG, None)
        self._awaited.set()
        self._passed(this, self._clock.monotonic() - begun)
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = group.create_task(self._refresh(this))
        return next_poll(self.watch.interval, active=this.active)

    async def _refresh(self, this: Pass) -> None:
        await self._beside(Work.REFRESH, self._poller.refresh(this))
        self._awaited.set()

    async def _complete_for_ever(self) -> None:
        """Ask for results whenever some are due, until cancelled."""
        while True:
            self._awaited.clear()
            await self._beside(Work.RESULTS, self._poller.complete())
            if Work.RESULTS in self._ailing:
                await self._clock.sleep(RETRY)  # what was not written down is still due
            await self._clock.wait(self._awaited, await self._until_results())

    async def _beside(self, work: Work, doing: Awaitable[bool]) -> None:
        """Do what goes on beside discovery; its troubles are told, and end nothing."""
        name = self.watch.name
        try:
            if await doing:
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

    async def _until_results(self) -> float | None:
        """Seconds until missing results are due to be asked for, if any are missing."""
        try:
            due = await self._batches.next_results_due(self.watch.name)
        except StoreError:
            return RETRY
        if due is None:
            return None
        return max(SHORTEST, (due - self._clock.now()).total_seconds())

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
        return backoff(3, interval=self.watch.interval, jitter=random.random())
