"""A real store in a file, with everything that reads and writes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from batchwatch.domain.batch import BatchId, EndpointName, Observation
from batchwatch.domain.routing import FOR_PROGRAMS, Router
from batchwatch.store import Batches, Database, Endpoints, Outbox, Views, Watches
from tests.support.builders import WATCH, a_recorder, at
from tests.support.clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from batchwatch.domain.changes import Changes, Recorder

HOOK = EndpointName("hook")


@dataclass(frozen=True)
class Store:
    """Every part of the store, over one database."""

    database: Database
    outbox: Outbox
    batches: Batches
    watches: Watches
    views: Views
    endpoints: Endpoints
    clock: ManualClock

    def at(self, second: float) -> Store:
        """The same at another time."""
        self.clock.set(second)
        return self

    async def see(
        self, *seen: Observation, recorder: Recorder | None = None, second: float = 0
    ) -> Changes:
        """Record observations, as a pass does."""
        rules = recorder or a_recorder()
        self.clock.set(second)
        return await self.batches.change(
            WATCH,
            {BatchId(one.id) for one in seen},
            lambda known: rules.record(known, seen, now=at(second)),
        )


def over(database: Database, *endpoints: EndpointName) -> Store:
    """The store's parts over a database that is open."""
    clock = ManualClock()
    router = Router(dict.fromkeys(endpoints or (HOOK,), FOR_PROGRAMS))
    outbox = Outbox(database, router, clock)
    return Store(
        database=database,
        outbox=outbox,
        batches=Batches(database, outbox),
        watches=Watches(database, outbox),
        views=Views(database),
        endpoints=Endpoints(database, outbox),
        clock=clock,
    )


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path / 'batchwatch.db'}"


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    database = await Database.open(store_url)
    parts = over(database)
    await parts.watches.begin(WATCH, now=at(0))
    yield parts
    await database.close()
