"""Claim what is due, send it, settle it: a lane for each endpoint, one hand that writes.

Lanes share nothing, so that a slow endpoint delays only itself. What became
of the tries is written by one task for all lanes, as many as have gathered
to a commit.
"""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from batchwatch.domain.delivery import Attempt, Failure, Settled, State, settle
from batchwatch.log import get_logger
from batchwatch.store import StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchwatch.clock import Clock
    from batchwatch.deliver.endpoint import Endpoint
    from batchwatch.domain.delivery import Claimed, DeliveryId
    from batchwatch.metrics import Metrics
    from batchwatch.store import Outbox

log = get_logger()

GROUP: Final = 200  # acknowledgements to a commit; more gains nothing
PAGE: Final = 200  # deliveries to a claim
UNWRITTEN_LIMIT: Final = 1_000  # tries that may be done and not yet written
LEASE_MARGIN: Final = 60.0  # seconds beyond the tries that a claim may have to wait for
RECHECK: Final = 60.0  # seconds; the safety net under the signal, and under a wall clock that jumps
PAUSE_LIMIT: Final = 3600.0  # seconds that one answer may hold back a whole endpoint
STORE_PAUSE: Final = 1.0  # seconds before the store is tried again


class Dispatcher:
    """Delivers what the outbox owes to ``endpoints``."""

    def __init__(
        self, outbox: Outbox, endpoints: Sequence[Endpoint], *, clock: Clock, metrics: Metrics
    ) -> None:
        self.outbox = outbox
        self.clock = clock
        self.metrics = metrics
        self.held: set[DeliveryId] = set()  # claimed, and not yet written or given back
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
        size = GROUP
        while self._settled or not self._lanes_ended:
            if not self._settled:
                self._something.clear()
                await self._something.wait()
                continue
            group = self._settled[:size]
            try:
                await self.outbox.settle(group, now=self.clock.now())
            except StoreError as error:
                # They stay in hand: to send them again would be the worse answer to a full disk.
                log.error("deliveries.unwritten", count=len(self._settled), reason=str(error))
                await self.clock.sleep(STORE_PAUSE)
                continue
            except Exception:
                # A bug, over one of them: it must not keep the others from being written.
                if len(group) > 1:
                    size = 1
                    continue
                log.exception("delivery.unwritable", delivery_id=group[0].delivery.id)
            size = GROUP if size == GROUP else min(GROUP, size * 2)
            del self._settled[: len(group)]
            self.held.difference_update(one.delivery.id for one in group)
            if len(self._settled) < UNWRITTEN_LIMIT:
                self._room.set()


class _Lane:
    """One endpoint: what is claimed for it, and the requests that are open to it.

    It claims no more than it can try before the lease is over: half of that
    is being sent, the other half is at hand when a request ends.
    """

    def __init__(self, endpoint: Endpoint, dispatcher: Dispatcher) -> None:
        self.endpoint = endpoint
        self._dispatcher = dispatcher
        self._outbox = dispatcher.outbox
        self._clock = dispatcher.clock
        self._signal = dispatcher.outbox.signal(endpoint.name)
        self._claimed: asyncio.Queue[Claimed | None] = asyncio.Queue()
        self._at_hand = 0  # claimed, and neither tried nor given back
        self._freed = asyncio.Event()
        self._lease = timedelta(seconds=LEASE_MARGIN + 3 * endpoint.timeout)
        self._paused_until = 0.0  # monotonic; the receiver asked for it
        self._failing = False
        metrics = dispatcher.metrics
        self._delivered = metrics.attempts.labels(endpoint.name, "delivered")
        self._latency = metrics.delivery_latency.labels(endpoint.name)

    def stop(self) -> None:
        self._signal.set()
        self._freed.set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as workers:
            for number in range(self.endpoint.concurrency):
                workers.create_task(self._work(), name=f"deliver.{self.endpoint.name}.{number}")
            await self._claim()
            for _ in range(self.endpoint.concurrency):
                self._claimed.put_nowait(None)

    async def _claim(self) -> None:
        """Keep the workers fed until told to stop."""
        concurrency = self.endpoint.concurrency
        while not self._dispatcher.is_stopping:
            if self._at_hand > concurrency:
                self._freed.clear()
                await self._freed.wait()
                continue
            self._signal.clear()
            pause = self._pause()
            if pause <= 0:
                pause = await self._claim_page(min(PAGE, 2 * concurrency - self._at_hand))
            if pause > 0 and not self._dispatcher.is_stopping:
                await self._clock.wait(self._signal, pause)

    async def _claim_page(self, limit: int) -> float:
        """Claim what is due; seconds until there may be more, unless the signal comes first."""
        now = self._clock.now()
        try:
            page = await self._outbox.claim(
                self.endpoint.name, limit=limit, lease=self._lease, now=now
            )
            due = None if page else await self._outbox.next_due(self.endpoint.name)
        except StoreError as error:
            log.error("claim.failed", endpoint=self.endpoint.name, reason=str(error))
            return STORE_PAUSE
        except Exception:
            log.exception("claim.broke", endpoint=self.endpoint.name)
            return RECHECK
        self._at_hand += len(page)
        for delivery in page:
            self._dispatcher.held.add(delivery.id)
            self._claimed.put_nowait(delivery)
        if page:
            return 0.0
        if due is None:
            return RECHECK
        return min(RECHECK, max(0.001, (due - now).total_seconds()))

    async def _work(self) -> None:
        while (delivery := await self._claimed.get()) is not None:
            if self._dispatcher.is_stopping or self._pause() > 0:
                await self._give_back(delivery)
            else:
                settled = await self._try(delivery)
                self._note(settled)
                await self._dispatcher.done(settled)
            self._at_hand -= 1
            self._freed.set()

    async def _try(self, delivery: Claimed) -> Settled:
        try:
            attempt = await self.endpoint.send(delivery)
        except Exception:
            # A bug, at the border of one delivery: it must not stop the others.
            log.exception("delivery.broke", delivery_id=delivery.id, event_id=delivery.event_id)
            attempt = Attempt(
                self._clock.now(), 0.0, Failure.UNUSABLE, detail="a bug in batchwatch; see its log"
            )
        jitter = random.uniform(-1.0, 1.0)
        return settle(delivery, attempt, self.endpoint.schedule, jitter=jitter)

    async def _give_back(self, delivery: Claimed) -> None:
        due_at = self._clock.now() + timedelta(seconds=max(0.0, self._pause()))
        try:
            await self._outbox.give_back(delivery.id, due_at=due_at)
        except StoreError as error:
            # Then it comes back when its lease is over, or at the next start.
            log.warning("delivery.held", delivery_id=delivery.id, reason=str(error))
        self._dispatcher.held.discard(delivery.id)

    def _pause(self) -> float:
        return self._paused_until - self._clock.monotonic()

    def _note(self, settled: Settled) -> None:
        attempt, delivery = settled.attempt, settled.delivery
        if attempt.failure is Failure.RATE_LIMITED and attempt.retry_after:
            # The limit is the receiver's, not this delivery's: the others wait as well.
            until = self._clock.monotonic() + min(attempt.retry_after, PAUSE_LIMIT)
            self._paused_until = max(self._paused_until, until)
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
