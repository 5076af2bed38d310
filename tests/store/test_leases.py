"""Who may poll a watch: one at a time, and nothing is written by who only thinks so."""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from batchwatch.domain.batch import WatchName
from batchwatch.store import Database
from batchwatch.store.errors import LeaseLost, StoreUnreachable
from batchwatch.store.leases import Leases
from batchwatch.store.replicas import LIFE
from batchwatch.store.schema import leases, replicas
from tests.store.conftest import empty
from tests.support.builders import at
from tests.support.clock import ManualClock
from tests.support.postgres import a_database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection

ONE, TWO, THREE = (WatchName(name) for name in ("one", "two", "three"))
LONG = timedelta(hours=1)
LONG_AGO = at(-(10**9))


@pytest.fixture
async def database(made_url: str) -> AsyncIterator[Database]:
    found = await Database.open(made_url)
    yield found
    await found.close()


def of(database: Database, replica: str) -> Leases:
    return Leases(database, ManualClock(), replica=replica, life=LONG)


async def end(database: Database, watch: WatchName) -> None:
    """Let its time be over."""
    async with database.write() as connection:
        ended = sa.update(leases).where(leases.c.watch == watch)
        await connection.execute(ended.values(held_until=LONG_AGO))


async def may_write(database: Database, leases: Leases, watch: WatchName) -> bool:
    async with database.write() as connection:
        try:
            await leases.guard(connection, watch)
        except LeaseLost:
            return False
    return True


async def test_a_watch_is_held_by_one(database: Database) -> None:
    """Who comes second gets what is left."""
    first, second = of(database, "first"), of(database, "second")

    assert {ONE: 1} == await first.take([ONE])
    assert {TWO: 1} == await second.take([ONE, TWO])
    assert {ONE: 1} == await first.take([ONE]), "to renew one changes nothing"
    assert [(ONE, "first"), (TWO, "second")] == [
        (held.watch, held.holder) for held in await first.holdings()
    ]


async def test_what_is_over_is_taken_over_with_a_larger_token(database: Database) -> None:
    """And whoever held it before writes nothing any more, though it does not know it."""
    first, second = of(database, "first"), of(database, "second")
    await first.take([ONE])
    assert await may_write(database, first, ONE)

    await end(database, ONE)
    assert not await may_write(database, first, ONE), "its time is over, whoever comes next"
    assert {ONE: 2} == await second.take([ONE])

    assert not await may_write(database, first, ONE)
    assert await may_write(database, second, ONE)
    assert {} == await first.take([ONE])


async def test_who_takes_its_own_again_after_its_time_has_a_new_token(database: Database) -> None:
    """Another may have held it in between and have been forgotten."""
    first = of(database, "first")
    await first.take([ONE])
    await end(database, ONE)

    assert {ONE: 2} == await first.take([ONE])


async def test_what_is_given_back_is_free_at_once(database: Database) -> None:
    """A stop costs nobody the life of a lease."""
    first, second = of(database, "first"), of(database, "second")
    await first.take([ONE, TWO])
    await first.give_back([ONE])

    assert not await may_write(database, first, ONE)
    assert {ONE: 2} == await second.take([ONE, TWO])
    assert await may_write(database, first, TWO)


async def test_who_is_alive_is_counted(database: Database) -> None:
    """By the database's clock; who is long gone is forgotten."""
    first, second = of(database, "first"), of(database, "second")
    assert 1 == await first.beat()
    assert 2 == await second.beat()
    async with database.write() as connection:
        gone = sa.update(replicas).where(replicas.c.id == "first").values(seen_at=LONG_AGO)
        await connection.execute(gone)

    assert 1 == await second.beat()
    assert [("second", True)] == [(one.id, one.is_alive) for one in (await second.fleet()).replicas]


async def test_what_is_said_of_a_watch_goes_with_its_lease(database: Database) -> None:
    """The last word of whoever holds it, and since when; whoever takes it over begins anew."""
    first, second = of(database, "first"), of(database, "second")
    await first.take([ONE, TWO], {ONE: '"early"'})
    await first.take([ONE, TWO], {ONE: '"late"', TWO: '"well"'})
    assert {} == await second.take([ONE], {ONE: '"mine"'})
    (one, two) = await second.holdings()
    assert ['"late"', '"well"'] == [one.said, two.said]
    assert one.said_at is not None
    assert one.taken_at <= one.said_at <= one.now

    await end(database, ONE)
    (one, _) = await second.holdings()
    assert (None, '"late"') == (one.holder, one.said)
    await second.take([ONE])
    (one, two) = await first.holdings()
    assert [("second", None), ("first", '"well"')] == [
        (one.holder, one.said),
        (two.holder, two.said),
    ]


async def test_nobody_takes_over_in_the_middle_of_a_write(postgres: str) -> None:
    """Whoever would waits until it is committed; a file has one writer anyway."""
    async for url in a_database(postgres, made=True):
        mine, other = await Database.open(url), await Database.open(url)
        first, second = of(mine, "first"), of(other, "second")
        await first.take([ONE])
        async with mine.write() as connection:
            await first.guard(connection, ONE)
            ending = asyncio.create_task(end(other, ONE))
            done, _ = await asyncio.wait([ending], timeout=0.2)
            assert not done
        await ending
        assert {ONE: 2} == await second.take([ONE])
        await mine.close()
        await other.close()


async def test_who_freezes_in_the_middle_of_a_write_holds_up_nobody_for_long(
    shared_url: str,
) -> None:
    """The server ends its transaction, sooner than its lease does."""
    setting = "idle_in_transaction_session_timeout"
    soon = sa.make_url(shared_url).update_query_dict({setting: "100ms"})
    frozen = await Database.open(soon.render_as_string(hide_password=False))
    other = await Database.open(shared_url)
    first, second = of(frozen, "first"), of(other, "second")
    await first.take([ONE])

    async def write() -> None:
        async with frozen.write() as connection:
            await first.guard(connection, ONE)
            await end(other, ONE)  # waits for it, and then it is over
            assert {ONE: 2} == await second.take([ONE])
            await connection.execute(sa.select(1))  # awake again

    with pytest.raises(StoreUnreachable):
        await write()
    async with other.read() as connection:
        usual = (await connection.execute(sa.text(f"SHOW {setting}"))).scalar_one()
    for one in (frozen, other):
        await one.close()

    assert "5s" == usual
    assert LIFE > 2 * timedelta(seconds=5), "it may have been renewed a third of its life before"


async def test_all_that_come_at_once_share_what_there_is(postgres: str) -> None:
    """Nothing is held twice, and nothing is left."""
    watches = [WatchName(f"watch-{number}") for number in range(20)]
    async for url in a_database(postgres, made=True):
        databases = [await Database.open(url) for _ in range(4)]
        everyone = [of(one, f"replica-{number}") for number, one in enumerate(databases)]
        held = await asyncio.gather(*(one.take(watches) for one in everyone))
        for one in databases:
            await one.close()

    assert sorted(watches) == sorted(watch for one in held for watch in one)


# ------------------------------------------------------------------------------- any order

REPLICAS, WATCHES = ("first", "second", "third"), (ONE, TWO)
STEPS = ("take", "take", "write", "write", "expire", "give back", "overtake")


@dataclass
class Held:
    """What is said of a watch in the store, if anything was."""

    holder: str = ""
    token: int = 0
    is_over: bool = True


class Truth:
    """What the leases are to be, said plainly."""

    def __init__(self) -> None:
        self.held = {watch: Held() for watch in WATCHES}
        self.believed: dict[str, dict[WatchName, int]] = {one: {} for one in REPLICAS}

    def take(self, replica: str, watches: Collection[WatchName]) -> dict[WatchName, int]:
        taken = {}
        for watch in watches:
            held = self.held[watch]
            if held.is_over:
                held = self.held[watch] = Held(replica, held.token + 1, is_over=False)
            if held.holder == replica:
                taken[watch] = held.token
            self.believed[replica].pop(watch, None)
        self.believed[replica].update(taken)
        return taken

    def give_back(self, replica: str, watch: WatchName) -> None:
        self.believed[replica].pop(watch, None)
        if self.held[watch].holder == replica:
            self.held[watch].is_over = True

    def may_write(self, replica: str, watch: WatchName) -> bool:
        held = self.held[watch]
        is_held = held.holder == replica and not held.is_over
        return is_held and self.believed[replica].get(watch) == held.token


@pytest.fixture
async def everywhere(made_url: str) -> AsyncIterator[dict[str, Database]]:
    """The store as each replica has it open; a file can be opened only once."""
    opened = [await Database.open(made_url)]
    if opened[0].is_shared:
        opened += [await Database.open(made_url) for _ in REPLICAS[1:]]
    yield dict(zip(REPLICAS, itertools.cycle(opened), strict=False))
    for database in opened:
        await database.close()


@hypothesis(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), count=st.integers(1, 15))
async def test_in_whatever_order_they_come_one_writes_at_a_time_and_tokens_only_grow(
    everywhere: dict[str, Database], data: st.DataObject, count: int
) -> None:
    """Takes, renewals, writes, ends and returns, and takeovers in the middle of a write."""
    await empty(everywhere["first"])
    holders = {name: of(database, name) for name, database in everywhere.items()}
    truth, written = Truth(), defaultdict[WatchName, list[int]](list)

    for _ in range(count):
        step = data.draw(st.sampled_from(STEPS))
        name, watch = data.draw(st.sampled_from(REPLICAS)), data.draw(st.sampled_from(WATCHES))
        database, mine = everywhere[name], holders[name]
        if step == "take":
            some = data.draw(st.sampled_from([{ONE}, {TWO}, {ONE, TWO}]))
            assert truth.take(name, some) == await mine.take(some)
        elif step == "expire":
            truth.held[watch].is_over = True
            await end(database, watch)
        elif step == "give back":
            truth.give_back(name, watch)
            await mine.give_back([watch])
        elif step == "overtake" and truth.may_write(name, watch):
            other = data.draw(st.sampled_from([one for one in REPLICAS if one != name]))
            async with database.write() as connection:
                await mine.guard(connection, watch)
                written[watch].append(truth.held[watch].token)
                ending = asyncio.create_task(end(everywhere[other], watch))
                await asyncio.sleep(0)  # it has begun
            await ending
            truth.held[watch].is_over = True
            assert truth.take(other, {watch}) == await holders[other].take({watch})
        else:
            assert truth.may_write(name, watch) == await may_write(database, mine, watch)
            if truth.may_write(name, watch):
                written[watch].append(truth.held[watch].token)

    for watch in WATCHES:
        who = [one for one in REPLICAS if await may_write(everywhere[one], holders[one], watch)]
        assert [one for one in REPLICAS if truth.may_write(one, watch)] == who
        assert len(who) <= 1
        assert sorted(written[watch]) == written[watch]
