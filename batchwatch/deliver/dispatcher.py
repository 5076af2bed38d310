"""Claim what is due, send it, settle it: a lane for each endpoint, one hand that writes.

Lanes share nothing, so that a slow endpoint delays only itself. What became
of the tries is written by one task for all lanes, as many as have gathered
to a commit.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from batchwatch.deliver.lane import STORE_PAUSE, Lane
from batchwatch.domain.delivery import Attempt, Failure, Settled, State
from batchwatch.log import get_logger
from batchwatch.store import StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from batchwatch.clock import Clock
    from batchwatch.deliver.endpoint import Endpoint
    from batchwatch.domain.batch import EndpointName
    from batchwatch.domain.event import Event
    from batchwatch.domain.health import Record
    from batchwatch.metrics import Metrics
    from batchwatch.store import Endpoints, Outbox
    from batchwatch.store.leases import Leases
    from batchwatch.store.notices import HeldBack, Paused, Resumed

log = get_logger()

GROUP: Final = 400  # acknowledgements to a commit; more gains nothing
GATHER: Final = 0.02  # seconds that a commit waits for more, while more is under way
UNWRITTEN_LIMIT: Final = 1_000  # tries that may be done and not yet written
STALLED: Final = 60.0  # seconds that a commit may take; it takes milliseconds
SILENCE: Final = 120.0  # seconds; LlamaCloud alone is heard more often


class Dispatcher:
    """Delivers what the outbox owes to ``endpoints``."""

    def __init__(  # noqa: PLR0913  # what it works with, each by its name
        self,
        outbox: Outbox,
        endpoints: Sequence[Endpoint],
        *,
        records: Endpoints,
        clock: Clock,
        metrics: Metrics,
        leases: Leases | None = None,
        silence: float = SILENCE,
    ) -> None:
        """With ``leases`` where other replicas send to the same endpoints."""
        self.outbox = outbox
        self.clock = clock
        self.metrics = metrics
        self.stopping = asyncio.Event()
        self._records = records
        self._leases = leases
        self._lanes = {endpoint.name: Lane(endpoint, self) for endpoint in endpoints}
        self._lanes_ended = False
        self._silence = silence  # seconds without an answer from anybody: it may be our network
        self._heard_at: float | None = None  # monotonic, when anybody answered us
        self._settled: list[Settled] = []
        self._group = GROUP  # how many of them go into the next commit
        self._noted: dict[EndpointName, tuple[Record, list[Event], Record]] = {}  # health to write
        self._reloading = asyncio.Lock()  # or the answer that was read first might be taken last
        self._newer: set[EndpointName] = set()  # whose health was noted since that was asked
        self._something = asyncio.Event()  # there is something to write, or nothing more will come
        self._room = asyncio.Event()  # there is not too much to write
        self._room.set()
        self.store_trouble: str | None = None  # why the last write failed, if it did
        self._writing_since: float | None = None  # monotonic; the present write

    async def run(self) -> None:
        """Deliver until :meth:`stop`; then finish what is being sent, write it, and return."""
        while not await self.reload() and not self.is_stopping:
            await self.clock.wait(self.stopping, STORE_PAUSE)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._write(), name="deliver.settle")
            async with asyncio.TaskGroup() as lanes:
                for name, lane in self._lanes.items():
                    lanes.create_task(lane.run(), name=f"deliver.{name}")
            self._lanes_ended = True
            self._something.set()

    def stop(self) -> None:
        """Claim and send nothing more."""
        self.stopping.set()
        for lane in self._lanes.values():
            lane.wake()

    @property
    def is_stopping(self) -> bool:
        """Whether nothing more is to be claimed or sent."""
        return self.stopping.is_set()

    async def reload(self) -> bool:
        """Read which endpoints are disabled, and look for what a command made due; if it could."""
        async with self._reloading:
            self._newer = set(self._noted)
            try:
                records = await self._records.records()
            except StoreError as error:
                log.warning("endpoints.unread", reason=str(error))
                return False
            for name, lane in self._lanes.items():
                if name not in self._newer:  # else it may have been written after it was read
                    lane.take_over(records.get(name))
                lane.look_again()
        return True

    @property
    def replicas(self) -> int:
        """How many send to the endpoints, and share their rate limits."""
        return self._leases.alive if self._leases else 1

    @property
    def is_cut_off(self) -> bool:
        """Whether others may have taken over what we have claimed: nothing of it is to be sent."""
        return self._leases is not None and not self._leases.is_seen

    @property
    def epoch(self) -> int:
        """Which of the times it is that the others have seen us without a break."""
        return self._leases.epoch if self._leases else 0

    def tell_others(self, notice: HeldBack | Resumed | Paused) -> None:
        """Let the other replicas hear how an endpoint is."""
        if self._leases is not None:
            self._leases.notices.tell(notice)

    def heard_of(self, notice: HeldBack | Resumed | Paused) -> None:
        """Another replica, or this one, has found how an endpoint is."""
        lane = self._lanes.get(notice.endpoint)
        if lane is not None and notice.by != self.outbox.replica:
            lane.heard(notice)

    async def release(self) -> int:
        """Give back what is in flight and in nobody's hands."""
        return await self.outbox.release(judges=self._leases is None or self._leases.may_judge)

    def troubles(self) -> Mapping[EndpointName, str]:
        """Why endpoints are not well, where they are not."""
        found = {name: lane.trouble() for name, lane in self._lanes.items()}
        return {name: trouble for name, trouble in found.items() if trouble}

    def stall(self) -> str | None:
        """Why nothing more is acknowledged, if the store neither writes nor says why not."""
        if self._writing_since is None:
            return None
        seconds = self.clock.monotonic() - self._writing_since
        count = len(self._settled)
        return f"a write of {count} tries has lasted {seconds:.0f} s" if seconds > STALLED else None

    def heard(self) -> None:
        """Somebody answered, whatever the answer was: the network is there."""
        self._heard_at = self.clock.monotonic()

    def has_heard(self) -> bool:
        """Whether somebody answered lately."""
        return (
            self._heard_at is not None and self.clock.monotonic() - self._heard_at < self._silence
        )

    def note(self, record: Record, event: Event | None, *, base: Record) -> None:
        """Have an endpoint's health written down, and the others told; it was made of ``base``."""
        self._newer.add(record.name)
        _, events, _ = self._noted.get(record.name, (record, [], base))
        self._noted[record.name] = (record, [*events, *([event] if event else [])], base)
        self._something.set()

    async def done(self, settled: Settled) -> None:
        """Hand over what became of a try; waits while too much is unwritten."""
        self._settled.append(settled)
        self._something.set()
        if len(self._settled) >= UNWRITTEN_LIMIT:
            self._room.clear()
        await self._room.wait()

    async def _write(self) -> None:
        while self._settled or self._noted or not self._lanes_ended:
            self._something.clear()
            if not self._settled and not self._noted:
                await self._something.wait()
                continue
            if len(self._settled) < GROUP and any(one.is_sending for one in self._lanes.values()):
                # In true time, for it decides on nothing but how much goes into a commit.
                await asyncio.sleep(GATHER)
            self._writing_since = self.clock.monotonic()
            try:
                await self._write_settled()
                await self._write_noted()
            except StoreError as error:
                # They stay in hand: to send them again would be the worse answer to a full disk.
                self.store_failed("deliveries.unwritten", error, count=len(self._settled))
                await self.clock.sleep(STORE_PAUSE)
            else:
                self.store_works()
            finally:
                self._writing_since = None

    async def _write_settled(self) -> None:
        group = self._settled[: self._group]
        if not group:
            return
        try:
            await self.outbox.settle(group)
        except StoreError:
            raise
        except Exception:
            # A bug, over one of them: it must not keep the others from being written.
            if len(group) > 1:
                self._group = 1
                return
            log.exception("delivery.unwritable", delivery_id=group[0].delivery.id)
            await self._give_up(group[0])
        else:
            for one in group:
                if one.state is State.PENDING:
                    self._lanes[one.delivery.endpoint].is_to_retry(one.due_in)
        self._group = min(GROUP, self._group * 2)
        del self._settled[: len(group)]
        if len(self._settled) < UNWRITTEN_LIMIT:
            self._room.set()

    async def _give_up(self, settled: Settled) -> None:
        """Write a dead letter in place of what cannot be written, lest it be sent for ever."""
        reason = "what came of it cannot be written; see the log"
        attempt = Attempt(self.clock.now(), 0.0, Failure.BROKE, detail=reason)
        try:
            await self.outbox.settle(
                [Settled(settled.delivery, attempt, State.DEAD, reason=reason)]
            )
        except StoreError:
            raise
        except Exception:
            log.exception("delivery.lost", delivery_id=settled.delivery.id)
            self.outbox.held.discard(settled.delivery.id)  # it comes back when its lease is over

    async def _write_noted(self) -> None:
        while self._noted:
            name, (record, events, base) = next(iter(self._noted.items()))
            try:
                kept = await self._records.keep(record, events, base=base, now=self.clock.now())
            except StoreError:
                raise
            except Exception:
                log.exception("endpoint.unwritable", endpoint=name)
                kept = record
            newest, all_events, _ = self._noted[name]
            if (newest, all_events) == (record, events):  # nothing was noted meanwhile
                del self._noted[name]
            else:
                self._noted[name] = (newest, all_events[len(events) :], kept)
            self._lanes[name].kept(kept, of=record)

    def store_failed(self, event: str, error: StoreError, **more: object) -> None:
        """Say so; the first of a row is an error, the others are counted."""
        (log.debug if self.store_trouble else log.error)(event, reason=str(error), **more)
        self.store_trouble = str(error)
        self.metrics.store_failures.labels(event).inc()

    def store_works(self) -> None:
        """Say so, if it did not before."""
        if self.store_trouble:
            log.info("store.recovered")
        self.store_trouble = None
