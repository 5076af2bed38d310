"""Claim what is due, send it, settle it: a lane for each endpoint, one hand that writes.

Lanes share nothing, so that a slow endpoint delays only itself. What became
of the tries is written by one task for all lanes, as many as have gathered
to a commit.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Final

from batchwatch.domain.delivery import Attempt, Failure, Settled, State, settle
from batchwatch.log import get_logger
from batchwatch.store import StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchwatch.clock import Clock
    from batchwatch.deliver.endpoint import Endpoint
    from batchwatch.domain.delivery import Claimed
    from batchwatch.metrics import Metrics
    from batchwatch.store import Outbox

log = get_logger()

GROUP: Final = 200  # acknowledgements to a commit; more gains nothing
PAGE: Final = 200  # deliveries to a claim
UNWRITTEN_LIMIT: Final = 1_000  # tries that may be done and not yet written
RECHECK: Final = 60.0  # seconds; the safety net under the signal, and under a wall clock that jumps
STORE_PAUSE: Final = 1.0  # seconds before the store is tried again


class Dispatcher:
    """Delivers what the outbox owes to ``endpoints``."""

    def __init__(
        self, outbox: Outbox, endpoints: Sequence[Endpoint], *, clock: Clock, metrics: Metrics
    ) -> None:
        self.outbox = outbox
        self.clock = clock
        self.metrics = metrics
        self.is_stopping = False
        self._lanes = [_Lane(endpoint, self) for endpoint in endpoints]
        self._lanes_ended = False
        self._settled: list[Settled] = []
        self._something = asyncio.Event()  # there is something to write, or nothing more will come
        self._room = asyncio.Event()  # there is not too much to write
        self._room.set()

    async def run(self) -> None:
        """Deliver until :meth:`stop`; then finish what is being sent, write it, and return."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._write(), name="deliver.settle")
            async with asyncio.TaskGroup() as lanes:
                for lane in self._lanes:
                    lanes.create_task(lane.run(), name=f"deliver.{lane.endpoint.name}")
            self._lanes_ended = True
            self._something.set()

    def stop(self) -> None:
        """Claim and send nothing more."""
        self.is_stopping = True
        for lane in self._lanes:
            lane.stop()

    async def done(self, settled: Settled) -> None:
        """Hand over what became of a try; waits while too much is unwritten."""
        self._settled.append(settled)
        self._something.set()
        if len(self._settled) >= UNWRITTEN_LIMIT:
            self._room.clear()
        await self._room.wait()

    async def _write(self) -> None:
        while self._settled or not self._lanes_ended:
            if not self._settled:
                self._something.clear()
                await self._something.wait()
                continue
            group = self._settled[:GROUP]
            try:
                await self.outbox.settle(group, now=self.clock.now())
            except StoreError as error:
                # They stay in hand: to send them again would be the worse answer to a full disk.
                log.error("deliveries.unwritten", count=len(self._settled), reason=str(error))
                await self.clock.sleep(STORE_PAUSE)
                continue
            del self._settled[: len(group)]
            if len(self._settled) < UNWRITTEN_LIMIT:
                self._room.set()


class _Lane:
    """One endpoint: its claims, and the requests that are open to it."""

    def __init__(self, endpoint: Endpoint, dispatcher: Dispatcher) -> None:
        self.endpoint = endpoint
        self._dispatcher = dispatcher
        self._clock = dispatcher.clock
        self._claimed: asyncio.Queue[Claimed | None] = asyncio.Queue()
        self._signal = dispatcher.outbox.signal(endpoint.name)
        self._hungry = asyncio.Event()
        self._hungry.set()
        self._paused_until = 0.0  # monotonic; the receiver asked for it
        self._failing = False
        metrics = dispatcher.metrics
        self._delivered = metrics.attempts.labels(endpoint.name, "delivered")
        self._latency = metrics.delivery_latency.labels(endpoint.name)

    def stop(self) -> None:
        self._signal.set()
        self._hungry.set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as workers:
            for number in range(self.endpoint.concurrency):
                workers.create_task(self._work(), name=f"deliver.{self.endpoint.name}.{number}")
            await self._claim()
            for _ in range(self.endpoint.concurrency):
                self._claimed.put_nowait(None)

    async def _claim(self) -> None:
        """Keep the workers fed: claim a page whenever the last one is nearly used up."""
        outbox = self._dispatcher.outbox
        while not self._dispatcher.is_stopping:
            await self._hungry.wait()
            self._signal.clear()
            try:
                page = await outbox.claim(self.endpoint.name, limit=PAGE, now=self._clock.now())
                due = None if page else await outbox.next_due(self.endpoint.name)
            except StoreError as error:
                log.error("claim.failed", endpoint=self.endpoint.name, reason=str(error))
                await self._clock.sleep(STORE_PAUSE)
                continue
            for delivery in page:
                self._claimed.put_nowait(delivery)
            if page:
                self._feed()
                continue
            pause = RECHECK
            if due is not None:
                pause = min(pause, max(0.0, (due - self._clock.now()).total_seconds()))
            if not self._dispatcher.is_stopping:
                await self._clock.wait(self._signal, pause)

    def _feed(self) -> None:
        if self._claimed.qsize() > self.endpoint.concurrency and not self._dispatcher.is_stopping:
            self._hungry.clear()
        else:
            self._hungry.set()

    async def _work(self) -> None:
        while (delivery := await self._claimed.get()) is not None:
            self._feed()
            while (pause := self._paused_until - self._clock.monotonic()) > 0:
                if self._dispatcher.is_stopping:
                    break
                await self._clock.sleep(min(pause, STORE_PAUSE))
            if self._dispatcher.is_stopping:
                continue  # it stays claimed, and is given back when the store is closed or opened
            try:
                attempt = await self.endpoint.send(delivery)
            except Exception:
                # A bug, at the border of one delivery: it must not stop the others.
                log.exception("delivery.broke", delivery_id=delivery.id, event_id=delivery.event_id)
                attempt = Attempt(self._clock.now(), 0.0, Failure.UNUSABLE, detail="a bug; see log")
            settled = settle(
                delivery, attempt, self.endpoint.schedule, jitter=random.uniform(-1.0, 1.0)
            )
            self._note(settled)
            await self._dispatcher.done(settled)

    def _note(self, settled: Settled) -> None:
        attempt, delivery = settled.attempt, settled.delivery
        if attempt.failure is Failure.RATE_LIMITED and attempt.retry_after:
            # The limit is the receiver's, not this delivery's: the others wait as well.
            self._paused_until = self._clock.monotonic() + min(attempt.retry_after, RECHECK * 60)
        if attempt.failure is None:
            self._delivered.inc()
            now = self._clock.now()
            self._latency.observe(max(0.0, (now - delivery.occurred_at).total_seconds()))
        else:
            self._dispatcher.metrics.attempts.labels(
                self.endpoint.name, attempt.failure.value
            ).inc()
        if settled.state is State.DEAD:
            self._dispatcher.metrics.dead.labels(self.endpoint.name).inc()
        recovered = self._failing and attempt.failure is None
        if settled.state is State.DEAD:
            level = "error"
        elif attempt.failure is not None and not self._failing:
            level = "warning"  # the first of a row; the others are counted
        elif recovered:
            level = "info"
        else:
            level = "debug"
        self._failing = attempt.failure is not None
        getattr(log, level)(
            "delivery.attempted",
            endpoint=self.endpoint.name,
            type=delivery.type,
            batch_id=delivery.batch_id,
            event_id=delivery.event_id,
            delivery_id=delivery.id,
            attempt=delivery.attempt,
            state=settled.state.value,
            status_code=attempt.status_code,
            duration_ms=round(attempt.duration * 1000, 1),
            reason=settled.reason or attempt.detail,
            retry_in_s=round(settled.due_in, 1) if settled.state is State.PENDING else None,
            recovered=recovered or None,
        )
