"""A real store in a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batchwatch import store as real
from batchwatch.domain.batch import BatchId, EndpointName, Observation
from batchwatch.domain.routing import FOR_PROGRAMS, Router
from batchwatch.store import Database
from tests.support.builders import WATCH, a_recorder, at
from tests.support.clock import ManualClock
from tests.support.postgres import a_database, a_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

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


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    with a_server() as url:
        yield url


@pytest.fixture
def file_url(tmp_path: Path) -> str:
    """A store of its own in a file, for what is about files."""
    return f"sqlite+aiosqlite:///{tmp_path / 'batchwatch.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
async def store_url(request: pytest.FixtureRequest, file_url: str) -> AsyncIterator[str]:
    """A store of its own, on each of the two engines."""
    if request.param == "sqlite":
        yield file_url
        return
    async for url in a_database(request.getfixturevalue("postgres")):
        yield url


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    database = await Database.open(store_url)
    parts = Store(database)
    await parts.watches.begin(WATCH, now=at(0))
    yield parts
    await database.close()
