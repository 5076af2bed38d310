"""A real store in a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from batchwatch import store as real
from batchwatch.domain.batch import BatchId, EndpointName, Observation
from batchwatch.domain.routing import FOR_PROGRAMS, Router
from batchwatch.store import Database
from batchwatch.store.schema import metadata
from tests.support.builders import WATCH, a_recorder, at
from tests.support.clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from batchwatch.domain.changes import Changes, Recorder

HOOK = EndpointName("hook")


class Store(real.Store):
    """The store, with a clock that is moved by hand."""

    def __init__(self, database: Database, *endpoints: EndpointName) -> None:
        self.clock = ManualClock()
        router = Router(dict.fromkeys(endpoints or (HOOK,), FOR_PROGRAMS))
        super().__init__(database, router, self.clock)

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


@pytest.fixture
async def store(made_url: str) -> AsyncIterator[Store]:
    database = await Database.open(made_url)
    parts = Store(database)
    await parts.watches.begin(WATCH, now=at(0))
    yield parts
    await database.close()


async def empty(database: Database) -> None:
    """Remove whatever is in it, for the next example: sooner done than another database is made."""
    async with database.write() as connection:
        for table in reversed(metadata.sorted_tables):
            await connection.execute(sa.delete(table))
