"""Who polls what: a share for each, nothing for nobody, and all at once from one that ends."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
import sqlalchemy as sa

from batchwatch.domain.batch import WatchName
from batchwatch.metrics import Metrics
from batchwatch.store import Database
from batchwatch.store.leases import Leases
from batchwatch.store.schema import leases, replicas
from batchwatch.watching.health import WatchHealth
from batchwatch.watching.holder import LOOK, UNWANTED, Holder
from tests.support.clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from batchwatch.watching.watcher import Watcher

ended_in_peace: set[WatchName] = set()
ALL = ("w1", "w2", "w3", "w4", "w5", "w6")
LONG = timedelta(hours=1)


def polling(name: WatchName) -> Callable[[], Watcher]:
    """What polls a watch, as far as its holder sees it."""

    async def run(stop: asyncio.Event) -> None:
        await stop.wait()
        ended_in_peace.add(name)

    def make() -> Watcher:
        watch = SimpleNamespace(name=name)
        found = SimpleNamespace(watch=watch, health=WatchHealth(), follower=None, run=run)
        return cast("Watcher", found)

    return make


class Replica:
    """One of several, with the watches that are set there."""

    def __init__(self, database: Database, clock: ManualClock, name: str, *watches: str) -> None:
        self.leases = Leases(database, clock, replica=name, life=LONG)
        made = {WatchName(one): polling(WatchName(one)) for one in watches}
        self.holder = Holder(made, leases=self.leases, clock=clock, metrics=Metrics())

    @property
    def polls(self) -> list[str]:
        return [one.watch.name for one in self.holder.watchers]


class Fleet:
    """Replicas over one store, which take their turns one after another."""

    def __init__(self, stack: AsyncExitStack, database: Database) -> None:
        self.database = database
        self.clock = ManualClock()
        self._stack = stack
        self._running: dict[Replica, asyncio.Task[None]] = {}

    async def start(self, name: str, *watches: str) -> Replica:
        replica = Replica(self.database, self.clock, name, *watches)
        await replica.leases.beat()
        self._running[replica] = asyncio.create_task(replica.holder.run(asyncio.Event()))
        self._stack.push_async_callback(self.stop, replica)
        await self.turns(0)
        return replica

    async def turns(self, seconds: float = LOOK) -> None:
        """Let time go by, and each have its turn meanwhile."""
        for _ in range(round(seconds / LOOK) or 1):
            await self.clock.next_sleeper(among=len(self._running))
            self.clock.advance(LOOK if seconds else 0)
            await self.clock.next_sleeper(among=len(self._running))

    async def stop(self, replica: Replica) -> None:
        """As a daemon does that still has deliveries to end: it polls no more, and is seen."""
        if task := self._running.pop(replica, None):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    database = await Database.open(f"sqlite+aiosqlite:///{tmp_path / 'batchwatch.db'}")
    async with AsyncExitStack() as stack:
        yield Fleet(stack, database)
    await database.close()


@asynccontextmanager
async def over(fleet: Fleet) -> AsyncIterator[None]:
    """Nobody reached the database for so long that all that was held is over."""
    ago = 2 * LONG // timedelta(microseconds=1)
    async with fleet.database.write() as connection:
        for table, column in ((replicas, "seen_at"), (leases, "held_until")):
            before = sa.type_coerce(table.c[column], sa.BigInteger) - ago
            await connection.execute(sa.update(table).values({column: before}))
    yield


async def test_each_has_its_share(fleet: Fleet) -> None:
    """Whoever comes gets some of those that were there."""
    first = await fleet.start("first", *ALL)
    assert list(ALL) == first.polls

    second = await fleet.start("second", *ALL)
    await fleet.turns(2 * LOOK)

    assert (3, 3) == (len(first.polls), len(second.polls))
    assert sorted(ALL) == sorted(first.polls + second.polls)


async def test_one_that_ends_leaves_all_to_the_others_at_once(fleet: Fleet) -> None:
    """Though it is seen until its deliveries are done, it is counted no longer."""
    first, second = await fleet.start("first", *ALL), await fleet.start("second", *ALL)
    await fleet.turns(2 * LOOK)

    ended_in_peace.clear()
    polled = set(first.polls)
    await fleet.stop(first)
    await fleet.turns(LOOK)

    assert ([], list(ALL)) == (first.polls, second.polls)
    assert polled == ended_in_peace, "what is just coming in is recorded first"


async def test_a_watch_that_only_one_knows_is_polled_by_that_one(fleet: Fleet) -> None:
    """Beyond its share, and steadily: as while it is added to one replica after another."""
    old, new = (
        await fleet.start("old", "w1", "w2"),
        await fleet.start("new", "w1", "w2", "w3", "w4"),
    )
    await fleet.turns(UNWANTED + 2 * LOOK)
    assert {"w1", "w2", "w3", "w4"} == {*old.polls, *new.polls}

    polled = old.polls, new.polls
    await fleet.turns(2 * UNWANTED)
    assert polled == (old.polls, new.polls)


async def test_whoever_is_back_first_leaves_the_others_their_share(fleet: Fleet) -> None:
    """After time in which nobody reached the database, nobody is taken for dead by his silence."""
    first, second = await fleet.start("first", *ALL), await fleet.start("second", *ALL)
    await fleet.turns(2 * LOOK)
    async with over(fleet):
        first.leases._beaten_at = second.leases._beaten_at = float("-inf")  # noqa: SLF001  # so long
    await first.leases.beat()
    assert (2, False) == (await first.leases.count(), first.leases.may_judge)
    await second.leases.beat()
    await fleet.turns(3 * LOOK)

    assert (3, 3) == (len(first.polls), len(second.polls))
