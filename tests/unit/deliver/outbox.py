"""A real store to deliver from, and endpoints that answer as they are told."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from batchwatch import store as real
from batchwatch.deliver.dispatcher import Dispatcher
from batchwatch.domain.batch import PENDING, EndpointName
from batchwatch.domain.delivery import Attempt, Failure
from batchwatch.domain.routing import FOR_PROGRAMS, Router
from batchwatch.metrics import Metrics
from batchwatch.store import Batches, Database, Endpoints, Outbox
from batchwatch.store.errors import StoreFull
from tests.support.builders import WATCH, a_recorder, a_sighting, at

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Sequence

    from batchwatch.clock import Clock
    from batchwatch.domain.batch import Status
    from batchwatch.domain.delivery import Claimed, DeliveryId, Settled
    from batchwatch.store.leases import Leases
    from tests.support.clock import ManualClock

HOOK = EndpointName("hook")
OTHER = EndpointName("other")

# Beyond every pause that is waited for in these tests, and short of the dispatcher's safety net.
SOON = 59.0  # seconds


class WatchedOutbox(Outbox):
    """An outbox that tells when something is done with it, and whose disk can be full."""

    def __init__(self, database: Database, router: Router, clock: Clock) -> None:
        super().__init__(database, router, clock)
        self.is_full = False  # nothing can be written
        self.is_full_for_results = False  # only what became of tries cannot be
        self.refused = 0  # how often something could not be written
        self.due: list[float | None] = []  # in how many seconds something was due, each time
        self.written: list[Settled] = []
        self.given_back: list[DeliveryId] = []
        self._changed = asyncio.Condition()

    async def claim(self, endpoint: EndpointName, **more: Any) -> list[Claimed]:
        await self._check(full=self.is_full)
        return await super().claim(endpoint, **more)

    async def settle(self, settled: Collection[Settled]) -> None:
        await self._check(full=self.is_full or self.is_full_for_results)
        await super().settle(settled)
        async with self._changed:
            self.written += settled
            self._changed.notify_all()

    async def give_back(self, ids: Collection[DeliveryId]) -> None:
        await self._check(full=self.is_full)
        await super().give_back(ids)
        async with self._changed:
            self.given_back += ids
            self._changed.notify_all()

    async def due_in(self, endpoint: EndpointName) -> float | None:
        due = await super().due_in(endpoint)
        async with self._changed:
            self.due.append(due)
            self._changed.notify_all()
        return due

    async def _check(self, *, full: bool) -> None:
        if full:
            async with self._changed:
                self.refused += 1
                self._changed.notify_all()
            raise StoreFull("the disk is full: make room on it")

    async def until_written(self, count: int) -> None:
        """Wait until what became of so many tries is in the store."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.written) >= count)

    async def until_given_back(self, count: int) -> None:
        """Wait until so many were given back without a try."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.given_back) >= count)

    async def until_refused(self, count: int) -> None:
        """Wait until so many writes have failed."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.refused >= count)


class Store(real.Store):
    """A store that some batches are told from, and whose outbox is watched."""

    outbox: WatchedOutbox

    def __init__(self, database: Database, router: Router, clock: Clock) -> None:
        super().__init__(database, router, clock)
        self.clock = clock
        self.outbox = WatchedOutbox(database, router, clock)
        self.batches = Batches(database, self.outbox)
        self.endpoints = Endpoints(database, self.outbox)

    def beside(self) -> Outbox:
        """The outbox as another process has it, which holds nothing of what is held here."""
        return Outbox(self.database, Router({}), self.clock)

    async def see(self, *batch_ids: str, status: Status = PENDING, updated: float = 0) -> None:
        """Note that each of these batches has this status; what that owes is due at once."""
        seen = [a_sighting(status, batch_id=one, updated=updated) for one in batch_ids]
        await self.batches.change(
            WATCH,
            {one.id for one in seen},
            lambda known: a_recorder().record(known, seen, now=at(0)),
        )

    async def states(self) -> list[str]:
        """How each delivery stands, in the order in which they were owed."""
        found = []
        for row in reversed(await self.views.batches(limit=1000)):
            (batch,) = await self.views.batch(row["id"])
            found += [(one["id"], one["state"]) for one in batch["deliveries"]]
        return [state for _, state in sorted(found)]


@asynccontextmanager
async def opened(url: str, clock: Clock, *endpoints: EndpointName) -> AsyncIterator[Store]:
    """The store at ``url``, whose events go to each of ``endpoints``."""
    database = await Database.open(url)
    router = Router(dict.fromkeys(endpoints or (HOOK,), FOR_PROGRAMS))
    store = Store(database, router, clock)
    await store.watches.begin(WATCH, now=at(0))
    yield store
    await database.close()


TAKEN = Attempt(at(0), 0.01, status_code=204)


def refused(
    failure: Failure = Failure.SERVER_ERROR, *, retry_after: float | None = None
) -> Attempt:
    """A try that failed."""
    return Attempt(at(0), 0.01, failure, detail="no", retry_after=retry_after)


class Desk:
    """An endpoint that keeps what it is sent, and answers as it is told.

    ``answers`` are used up one by one; then it is ``always`` the same.
    """

    def __init__(
        self,
        name: EndpointName = HOOK,
        *,
        concurrency: int = 4,
        schedule: Sequence[float] = (5.0, 30.0),
        timeout: float = 15.0,  # seconds, as an endpoint has it
        rate: float | None = None,
    ) -> None:
        self.name = name
        self.concurrency = concurrency
        self.schedule = schedule
        self.timeout = timeout
        self.rate = rate
        self.final_statuses: frozenset[int] = frozenset()
        self.sent: list[Claimed] = []
        self.open: list[Claimed] = []
        self.most_open = 0
        self.answers: list[Attempt] = []
        self.always = TAKEN
        self.is_free = asyncio.Event()  # while it is not, whatever comes waits for its answer
        self.is_free.set()
        self._arrived = asyncio.Condition()

    async def send(self, delivery: Claimed) -> Attempt:
        assert delivery.subject not in {one.subject for one in self.open}  # the promise of order
        self.open.append(delivery)
        self.most_open = max(self.most_open, len(self.open))
        async with self._arrived:
            self.sent.append(delivery)
            self._arrived.notify_all()
        try:
            await self.is_free.wait()
            return await self.answer(delivery)
        finally:
            self.open.remove(delivery)

    async def answer(self, _delivery: Claimed) -> Attempt:
        return self.answers.pop(0) if self.answers else self.always

    async def until(self, count: int) -> None:
        """Wait until so many deliveries have arrived."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: len(self.sent) >= count)

    @property
    def told(self) -> list[str]:
        """The batches that were told of, in the order of arrival."""
        return [str(one.batch_id) for one in self.sent]


@asynccontextmanager
async def dispatching(
    store: Store,
    clock: Clock,
    *desks: Desk,
    metrics: Metrics | None = None,
    leases: Leases | None = None,
) -> AsyncIterator[Dispatcher]:
    """A dispatcher at work; at the end it is stopped, and ends by itself."""
    dispatcher = Dispatcher(
        store.outbox,
        desks,
        records=store.endpoints,
        clock=clock,
        metrics=metrics or Metrics(),
        leases=leases,
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(dispatcher.run())
        yield dispatcher
        dispatcher.stop()


async def asleep(clock: ManualClock, *, at_most: float = SOON) -> float:
    """Wait until somebody waits for no longer than ``at_most``; how long that is, in seconds.

    Whoever waits for longer is the safety net, or has been woken and has not noticed yet.
    """
    while True:
        left = await clock.next_sleeper()
        if left <= at_most:
            return left
        await asyncio.sleep(0)
