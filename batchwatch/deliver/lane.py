"""One endpoint's lane: what is claimed for it, what is being sent, and when to hold back."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from batchwatch.domain.delivery import (
    BLAMELESS_FAILURES,
    Attempt,
    Failure,
    Ours,
    Settled,
    State,
    settle,
)
from batchwatch.domain.health import PROBE_AFTER, Breaker, Record
from batchwatch.log import get_logger
from batchwatch.store import StoreError
from batchwatch.store.notices import HeldBack, Paused, Resumed

if TYPE_CHECKING:
    from batchwatch.deliver.dispatcher import Dispatcher
    from batchwatch.deliver.endpoint import Endpoint
    from batchwatch.domain.delivery import Claimed

log = get_logger()

PAGE: Final = 400  # deliveries to a claim
LEASE_MARGIN: Final = 60.0  # seconds beyond the tries that a claim may have to wait for
TICK: Final = 0.001  # seconds later than need be, lest it be a moment too early
RECHECK: Final = 60.0  # seconds; the safety net under the signal
PAUSE_LIMIT: Final = 600.0  # seconds that one answer may hold back a whole endpoint
STORE_PAUSE: Final = 1.0  # seconds before the store is tried again
REMEMBER: Final = 60.0  # seconds of failure after which its record is written again


class Lane:
    """Claims for one endpoint, sends with so many requests at once, and minds its health.

    It claims no more than it can try while the lease lasts. What it has
    claimed and must not send, for the endpoint is to be left alone, it gives
    back in one go, and it keeps its place.
    """

    def __init__(self, endpoint: Endpoint, dispatcher: Dispatcher) -> None:
        self.endpoint = endpoint
        self._dispatcher = dispatcher
        self._outbox = dispatcher.outbox
        self._clock = dispatcher.clock
        self._signal = dispatcher.outbox.signal(endpoint.name)
        self._queue: asyncio.Queue[tuple[Claimed, int] | None] = asyncio.Queue()  # and its epoch
        self._at_hand = 0  # claimed, and neither tried nor given back
        self._sending = 0
        self._unsent: list[Claimed] = []  # to be given back
        self._enough = 0  # at hand; with more, nothing is claimed
        self._freed = asyncio.Event()
        self._lease = LEASE_MARGIN + 3 * endpoint.timeout
        self._takes = endpoint.timeout  # seconds that a try takes, on average of the last ones
        self._next_due: float | None = 0.0  # monotonic; past: the store knows; None: there is none
        self._next_slot = 0.0  # monotonic; when the rate limit lets the next one go
        self._paused_until = 0.0  # monotonic; the receiver asked for it
        self._breaker = Breaker()
        self._record = self._well = Record(endpoint.name)
        self._stored = self._well  # its record as it stood in the store when it was seen there
        self._failed_at: float | None = None  # monotonic, the last failure in a row
        self._written_for = 0.0  # seconds of failure, when its record was written
        self._takes_some = False  # since the start, or since it was held back
        self._taken_at = -math.inf  # monotonic, the last time that it took something
        self._held_for: str | None = None  # why it is held back, if it is
        self._failing = False
        self._traces = dispatcher.outbox.traces
        self._tells_all = log.is_enabled_for(logging.DEBUG)
        metrics = dispatcher.metrics
        self._delivered = metrics.attempts.labels(endpoint.name, "delivered")
        self._latency = metrics.delivery_latency.labels(endpoint.name)
        self._state = metrics.endpoint_state.labels(endpoint.name)
        metrics.dead.labels(endpoint.name)  # shown from the beginning, for alarms on its increase

    @property
    def is_sending(self) -> bool:
        """Whether a request is open."""
        return self._sending > 0

    def wake(self) -> None:
        """Look again at what there is to do."""
        self._signal.set()
        self._freed.set()

    def is_to_retry(self, due_in: float) -> None:
        """It stands in the store that a delivery is due again in so many seconds."""
        self._is_due(self._clock.monotonic() + due_in)
        self._signal.set()

    def look_again(self) -> None:
        """A command may have made something due."""
        self._next_due = 0.0
        self.wake()

    def trouble(self) -> str | None:
        """Why the endpoint is not well, if it is not."""
        record = self._record
        if record.disabled_at is not None:
            return f"disabled: {record.reason}; batchwatch enable {record.name}"
        if self._breaker.is_offline:
            return "nobody can be reached from here; it is tried every few seconds"
        if self._breaker.is_open:
            return f"held back, and probed every half minute: {record.reason or self._held_for}"
        pause = self._paused_until - self._clock.monotonic()
        if pause > 0:
            return f"it asked to be left alone for another {pause:.0f} s (Retry-After)"
        return f"failing: {record.reason}" if record.told is not None and self._failing else None

    def take_over(self, record: Record | None) -> None:
        """Take note of what the store says of the endpoint; a command may have changed it."""
        record = record or Record(self.endpoint.name)
        if self._failed_at is not None and record.disabled_at is None is self._record.disabled_at:
            return  # we know more of it
        self._adopt(record)

    def kept(self, record: Record, *, of: Record) -> None:
        """What stands in the store since ``of`` was to be written; it may have known better."""
        self._stored = record
        if record != of:
            self._adopt(record)

    def _adopt(self, record: Record) -> None:
        if self._record.disabled_at is not None and record.disabled_at is None:
            self._breaker = Breaker()
            self._paused_until = 0.0  # whoever enables it knows that it may be sent to
        self._record = self._stored = record
        self._failed_at = None
        self._written_for = record.failing_for
        self._show()

    def heard(self, notice: HeldBack | Resumed | Paused) -> None:
        """Another replica tells how the endpoint is."""
        now = self._clock.monotonic()
        if isinstance(notice, Paused):
            self._pause(now + min(notice.seconds, PAUSE_LIMIT))
        elif isinstance(notice, Resumed):
            self._breaker.hurry(now)
        # Where it takes what we send, it is the other's way to it that is broken.
        elif not self._breaker.is_offline and now - self._taken_at > PROBE_AFTER:
            was_open = self._breaker.is_open
            self._breaker.follow(now)
            self._held_back(notice.reason, was_open=was_open)
        self.wake()

    async def run(self) -> None:
        """Deliver until the dispatcher stops."""
        self._show()
        async with asyncio.TaskGroup() as workers:
            for number in range(self.endpoint.concurrency):
                workers.create_task(self._work(), name=f"deliver.{self.endpoint.name}.{number}")
            await self._claim()
            for _ in range(self.endpoint.concurrency):
                self._queue.put_nowait(None)
        await self._give_back()

    async def _claim(self) -> None:
        """Keep the workers fed until told to stop."""
        while not self._dispatcher.is_stopping:
            self._signal.clear()
            self._freed.clear()
            await self._give_back()
            pause = self._hold()
            if pause <= 0:
                room = self._room()
                if room <= 0:
                    await self._freed.wait()
                    continue
                pause = await self._claim_page(room)
            if pause > 0 and not self._dispatcher.is_stopping:
                await self._clock.wait(self._signal, min(pause, RECHECK))

    def _room(self) -> int:
        """How many to claim now; 0 as long as there is enough at hand."""
        if self._breaker.is_open:
            return 0 if self._at_hand else 1
        # What can be tried in half of the lease: some of it is being sent, some is at hand then.
        pace = self.endpoint.concurrency / max(self._takes, 0.001)
        if (rate := self._rate) is not None:
            pace = min(pace, rate)
        triable = max(1, int(pace * self._lease / 2))
        sent = min(self.endpoint.concurrency, triable)
        # Nothing at hand for one that has taken nothing yet: it would only have to go back.
        ahead = min(PAGE, triable) if self._takes_some else 0
        # To claim again for each that is done would cost more than to send it.
        self._enough = sent - 1 + ahead // 2
        return sent + ahead - self._at_hand if self._lacks else 0

    @property
    def _rate(self) -> float | None:
        """Our share of what the endpoint may be sent each second."""
        rate = self.endpoint.rate
        return None if rate is None else rate / self._dispatcher.replicas

    @property
    def _we(self) -> str:
        return self._outbox.replica or ""

    @property
    def _lacks(self) -> bool:
        return self._at_hand <= self._enough

    async def _claim_page(self, limit: int) -> float:
        """Claim what is due; seconds until there may be more, unless the signal comes first."""
        epoch = self._dispatcher.epoch
        try:
            page = await self._outbox.claim(
                self.endpoint.name, limit=limit, lease=timedelta(seconds=self._lease)
            )
            self._at_hand += len(page)
            for delivery in page:
                self._queue.put_nowait((delivery, epoch))
            if len(page) == limit:
                return 0.0
            return await self._until_due()
        except StoreError as error:
            self._next_due = 0.0
            self._dispatcher.store_failed("claim.failed", error, endpoint=self.endpoint.name)
            return STORE_PAUSE
        except Exception:
            self._next_due = 0.0
            log.exception("claim.broke", endpoint=self.endpoint.name)
            return RECHECK

    async def _until_due(self) -> float:
        """Seconds until a delivery is due that is not due now; the store is asked if need be."""
        now = self._clock.monotonic()
        if self._next_due is not None and self._next_due <= now:
            self._next_due = None
            due_in = await self._outbox.due_in(self.endpoint.name)
            if due_in is not None:
                self._is_due(now + max(0.0, due_in))
        return RECHECK if self._next_due is None else max(0.0, self._next_due - now)

    def _is_due(self, moment: float) -> None:
        moment += TICK
        self._next_due = moment if self._next_due is None else min(moment, self._next_due)

    async def _give_back(self) -> None:
        """Undo the claims of what is not to be sent now."""
        unsent, self._unsent = self._unsent, []
        if not unsent:
            return
        ids = [one.id for one in unsent]
        try:
            await self._outbox.give_back(ids)
        except StoreError as error:
            self._dispatcher.store_failed("deliveries.held", error, endpoint=self.endpoint.name)
            self._outbox.held.difference_update(ids)  # so that they are released soon
        self._at_hand -= len(unsent)

    async def _work(self) -> None:
        while (item := await self._queue.get()) is not None:
            delivery, epoch = item
            if self._dispatcher.is_stopping or not await self._may_send(epoch):
                self._unsent.append(delivery)
                if self._queue.empty():
                    self.wake()
                continue
            probe = self._breaker.began()
            self._sending += 1
            begun = self._clock.monotonic()
            settled = await self._try(delivery)
            self._takes += (self._clock.monotonic() - begun - self._takes) / 8
            self._sending -= 1
            self._judge(settled.attempt, probe=probe)
            self._tell(settled)
            await self._dispatcher.done(settled)
            self._at_hand -= 1
            if self._lacks:
                self._freed.set()

    async def _may_send(self, epoch: int) -> bool:
        """Whether what was claimed in ``epoch`` may go now; waits for its turn by the rate."""
        if self._hold() > 0 or epoch != self._dispatcher.epoch:
            return False
        if (rate := self._rate) is None:
            return True
        now = self._clock.monotonic()
        slot = max(now, self._next_slot)
        self._next_slot = slot + 1.0 / rate
        if slot > now:
            await self._clock.wait(self._dispatcher.stopping, slot - now)
        may_go = self._hold() <= 0 and epoch == self._dispatcher.epoch
        return may_go and not self._dispatcher.is_stopping

    def _hold(self) -> float:
        """Seconds that the endpoint is to be left alone; 0 if it may be sent to."""
        if self._record.disabled_at is not None:
            return math.inf
        if self._dispatcher.is_cut_off:
            return STORE_PAUSE
        now = self._clock.monotonic()
        return max(self._paused_until - now, self._breaker.wait(now))

    async def _try(self, delivery: Claimed) -> Settled:
        try:
            send = self._send_told if self._traces.is_on else self.endpoint.send
            attempt = await send(delivery)
        except Exception:
            # A bug, at the border of one delivery: it must not stop the others.
            log.exception("delivery.broke", delivery_id=delivery.id, event_id=delivery.event_id)
            attempt = Attempt(
                self._clock.now(), 0.0, Failure.BROKE, detail="a bug in batchwatch; see its log"
            )
        if attempt.status_code is not None:
            self._dispatcher.heard()
        elif attempt.ours is Ours.SURELY or (
            attempt.ours is Ours.PERHAPS and not self._dispatcher.has_heard()
        ):
            detail = f"nobody can be reached from here: {attempt.detail}"
            attempt = replace(attempt, failure=Failure.OFFLINE, detail=detail)
        return settle(
            delivery,
            attempt,
            self.endpoint.schedule,
            jitter=random.uniform(-1.0, 1.0),
            final_statuses=self.endpoint.final_statuses,
        )

    async def _send_told(self, delivery: Claimed) -> Attempt:
        """Send within a span of the trace that made the event, and let the receiver join it."""
        about = {
            "batchwatch.endpoint": delivery.endpoint,
            "batchwatch.event_id": delivery.event_id,
            "batchwatch.event_type": delivery.type,
            "batchwatch.batch_id": delivery.batch_id,
            "batchwatch.attempt": delivery.attempt,
            "http.request.method": "POST",
        }
        name = f"deliver {delivery.endpoint}"
        with self._traces.span(name, about, parent=delivery.trace, is_request=True) as span:
            attempt = await self.endpoint.send(replace(delivery, trace=self._traces.here()))
            failure = attempt.failure
            span.note({
                "batchwatch.outcome": "delivered" if failure is None else failure.value,
                "http.response.status_code": attempt.status_code,
            })  # fmt: skip
            if failure is not None:
                span.failed(f"{failure}: {attempt.detail or 'no detail'}")
        return attempt

    def _judge(self, attempt: Attempt, *, probe: int) -> None:
        """Draw from a try what it says of the endpoint."""
        now = self._clock.monotonic()
        failure = attempt.failure
        if failure is None:
            self._taken_at = now
        if failure is Failure.RATE_LIMITED and attempt.retry_after:
            # The limit is the receiver's, not this delivery's: the others wait as well.
            seconds = min(attempt.retry_after, PAUSE_LIMIT)
            if self._pause(now + seconds):
                self._dispatcher.tell_others(Paused(self.endpoint.name, seconds, by=self._we))
        self._mind_breaker(attempt, now, probe=probe)
        if failure in BLAMELESS_FAILURES:
            return
        if failure is None and self._record == self._well:
            self._failed_at = None
            return  # as most often: it was well, and is
        self._remember(attempt, now)

    def _mind_breaker(self, attempt: Attempt, now: float, *, probe: int) -> None:
        """Have the breaker know of a try, and the other replicas where that changed something."""
        failure, was_open = attempt.failure, self._breaker.is_open
        if failure is Failure.OFFLINE:
            self._breaker.offline(now, probe=probe)
        elif failure in BLAMELESS_FAILURES or (
            failure is Failure.RATE_LIMITED and attempt.retry_after
        ):
            self._breaker.abandoned(probe=probe)
        else:
            self._breaker.ended(now, failed=failure is not None, probe=probe)
        is_open = self._breaker.is_open
        self._takes_some = not is_open and (self._takes_some or failure is None)
        reason = f"{failure}: {attempt.detail or 'no detail'}"
        self._held_back(reason, was_open=was_open)
        if was_open and not is_open:
            self._dispatcher.tell_others(Resumed(self.endpoint.name, by=self._we))
        elif is_open and not self._breaker.is_offline and (probe or not was_open):
            self._dispatcher.tell_others(HeldBack(self.endpoint.name, reason, by=self._we))
        if was_open:
            self.wake()  # the probe is back

    def _pause(self, until: float) -> bool:
        """Leave it alone until this monotonic moment; whether that is longer than before."""
        seconds = until - self._clock.monotonic()
        is_longer = until > self._paused_until + TICK
        if is_longer:
            self._paused_until = until
            log.warning("endpoint.paused", endpoint=self.endpoint.name, seconds=round(seconds))
        return is_longer

    def _held_back(self, reason: str, *, was_open: bool) -> None:
        """Say so if it is held back now, or no longer."""
        is_open = self._breaker.is_open
        if is_open is was_open:
            return
        self._held_for = reason if is_open else None
        what = "endpoint.held_back" if is_open else "endpoint.resumed"
        log.warning(what, endpoint=self.endpoint.name, reason=self._held_for)
        self._show()

    def _remember(self, attempt: Attempt, now: float) -> None:
        """Keep the record of the endpoint, and have it written when it says something new."""
        before = self._record
        wall = self._clock.now()
        reason = f"{attempt.failure}: {attempt.detail or 'no detail'}"
        if attempt.failure is None:
            self._record, event = before.succeeded(now=wall)
        elif attempt.failure is Failure.GONE:
            self._record, event = before.disabled("it answered 410 Gone", now=wall)
        else:
            after = 0.0 if self._failed_at is None else now - self._failed_at
            self._record, event = before.failed(reason, after=after, now=wall)
        self._failed_at = None if attempt.failure is None else now
        record = self._record
        if event is not None:
            level = log.info if attempt.failure is None else log.error
            level(event.type, endpoint=record.name, reason=record.reason or before.reason)
        # Not each time, for it may fail and be well again many times a second.
        if event or abs(record.failing_for - self._written_for) >= REMEMBER:
            self._written_for = record.failing_for
            self._dispatcher.note(record, event, base=self._stored)
            self._show()

    def _show(self) -> None:
        disabled = self._record.disabled_at is not None
        self._state.set(2 if disabled else 1 if self._breaker.is_open else 0)

    def _tell(self, settled: Settled) -> None:
        attempt, delivery = settled.attempt, settled.delivery
        if attempt.failure is None:
            self._delivered.inc()
            now = self._clock.now()
            self._latency.observe(max(0.0, (now - delivery.occurred_at).total_seconds()))
        else:
            self._dispatcher.metrics.attempts.labels(
                self.endpoint.name, attempt.failure.value
            ).inc()
        recovered = self._failing and attempt.failure is None
        if settled.state is State.DEAD:
            self._dispatcher.metrics.dead.labels(self.endpoint.name).inc()
            level = "error"
        elif attempt.failure is not None and not self._failing:
            level = "warning"  # the first of a row; the others are counted
        elif recovered:
            level = "info"
        elif self._tells_all:
            level = "debug"
        else:
            return  # as most often; to say nothing is what costs nothing
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
