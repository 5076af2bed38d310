"""Keep one watch going: pass after pass, at the right pace, whatever goes wrong."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from batchwatch.domain.cadence import backoff, next_poll
from batchwatch.llamacloud.errors import CloudError
from batchwatch.log import get_logger
from batchwatch.store import StoreError

if TYPE_CHECKING:
    import asyncio

    from batchwatch.clock import Clock
    from batchwatch.metrics import Metrics
    from batchwatch.store import Batches, Watches
    from batchwatch.watch.poller import Pass, Poller

log = get_logger()


class Watcher:
    """Runs one watch's passes, and the results that fall due between two of them."""

    def __init__(
        self, poller: Poller, *, batches: Batches, watches: Watches, clock: Clock, metrics: Metrics
    ) -> None:
        self.watch = poller.watch
        self._poller = poller
        self._batches = batches
        self._watches = watches
        self._clock = clock
        self._metrics = metrics
        self.last_good: float | None = None  # monotonic, when the last whole pass ended
        self.trouble: str | None = None  # why the last pass failed, if it did

    async def run(self, stop: asyncio.Event) -> None:
        """Pass after pass until ``stop``; may be cancelled at any moment, all is in the store."""
        while not stop.is_set():
            next_pass = await self._pass() + self._clock.monotonic()
            while (left := next_pass - self._clock.monotonic()) > 0 and not stop.is_set():
                results_in = await self._until_results()
                if results_in is None or results_in >= left:
                    await self._clock.wait(stop, left)
                elif not await self._clock.wait(stop, results_in):
                    await self._complete()

    async def _pass(self) -> float:
        """Make a pass; seconds until the next one, whatever became of this one."""
        begun = self._clock.monotonic()
        try:
            this = await self._poller.poll()
        except CloudError as error:
            return await self._failed(str(error), error.retry_after)
        except StoreError as error:
            return self._store_failed(error)
        except Exception:
            # A bug, at the border of one pass: the other watches go on, and so does this one.
            log.exception("poll.broke", watch=self.watch.name)
            return await self._failed("a bug in batchwatch; its log has the traceback", None)
        self._passed(this, self._clock.monotonic() - begun)
        return next_poll(self.watch.interval, active=this.active)

    async def _complete(self) -> None:
        try:
            await self._poller.complete()
        except (CloudError, StoreError) as error:
            # The next pass meets the same trouble, and is the one to speak of it.
            log.debug("results.failed", watch=self.watch.name, reason=str(error))

    async def _until_results(self) -> float | None:
        """Seconds until missing results are due to be asked for, if any are missing."""
        try:
            due = await self._batches.next_results_due(self.watch.name)
        except StoreError:
            return None
        if due is None:
            return None
        return max(0.1, (due - self._clock.now()).total_seconds())

    def _passed(self, this: Pass, took: float) -> None:
        name = self.watch.name
        self._metrics.polls.labels(name, "good").inc()
        self._metrics.poll_duration.labels(name).observe(took)
        self._metrics.last_poll.labels(name).set(self._clock.now().timestamp())
        if self.trouble:
            log.info("watch.recovered", watch=name, was=self.trouble)
        self.trouble = None
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

    async def _failed(self, reason: str, retry_after: float | None) -> float:
        name = self.watch.name
        self._metrics.polls.labels(name, "failed").inc()
        try:
            # Even the first pass ever may fail, and a watch must begin before it can fail.
            await self._poller.begin()
            state = await self._watches.failed(name, reason, now=self._clock.now())
        except StoreError as error:
            return self._store_failed(error)
        pause = backoff(
            state.failures,
            interval=self.watch.interval,
            jitter=random.random(),
            at_least=retry_after,
        )
        # The first of a row is told, and each new reason; the others are counted.
        (log.debug if self.trouble == reason else log.warning)(
            "poll.failed",
            watch=name,
            failures=state.failures,
            retry_in_s=round(pause, 1),
            reason=reason,
        )
        self.trouble = reason
        return pause

    def _store_failed(self, error: StoreError) -> float:
        self._metrics.polls.labels(self.watch.name, "store_failed").inc()
        self.trouble = str(error)
        log.error("store.failed", watch=self.watch.name, reason=str(error))
        return backoff(2, interval=self.watch.interval, jitter=random.random())
