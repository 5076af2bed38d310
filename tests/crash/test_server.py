"""PostgreSQL itself crashes amid writes: what was promised is there when it has recovered."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from batchwatch.clock import Clock
from batchwatch.domain.batch import EndpointName, EventId, WatchName
from batchwatch.domain.delivery import Attempt, Claimed, Settled, State
from batchwatch.domain.event import Event
from batchwatch.domain.routing import FOR_PROGRAMS, Router
from batchwatch.simulator import Simulator
from batchwatch.store import Database, Store, StoreError
from batchwatch.store.schema import events
from tests.crash.test_pipe import (
    BATCHES,
    all_ended,
    assert_nothing_lost_and_nothing_wrong,
    plant,
)
from tests.support.builders import at
from tests.support.daemon import environment, running
from tests.support.postgres import Wheel, a_database, a_wheel
from tests.support.receiver import Received, Receiver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

HOOK = EndpointName("hook")
TAKEN = Attempt(at(0), 0.01, status_code=204)
MANY = 40


@pytest.fixture(scope="module")
def wheel() -> Iterator[Wheel]:
    """One that crashes; what need not wait for the disk is not written for as long as can be."""
    with a_wheel("wal_writer_delay = 10000") as server:
        yield server


@pytest.fixture
async def url(wheel: Wheel) -> AsyncIterator[str]:
    async for place in a_database(wheel.url, made=True):
        yield place


def store_of(database: Database) -> Store:
    return Store(database, Router({HOOK: FOR_PROGRAMS}), Clock())


def an_event(number: int) -> Event:
    return Event(
        id=EventId(f"evt_{number}"),
        type="watch.failing",
        watch=WatchName(f"watch-{number}"),
        occurred_at=at(number),
        data={},
    )


async def put(store: Store, *new: Event) -> None:
    async with store.database.write() as connection:
        await store.outbox.enqueue(connection, new)


async def owed(store: Store) -> list[Claimed]:
    """All that is still to be delivered."""
    await store.outbox.recover()
    return await store.outbox.claim(HOOK, limit=10_000)


async def test_what_was_committed_is_there_when_the_server_has_recovered(
    wheel: Wheel, url: str
) -> None:
    """Each event with its delivery; at most one more, whose commit nobody heard of."""
    database = await Database.open(url)
    store, committed, enough = store_of(database), list[str](), asyncio.Event()

    async def write() -> None:
        for number in range(10**6):
            await put(store, an_event(number))
            committed.append(f"evt_{number}")
            if number == MANY:
                enough.set()

    writing = asyncio.create_task(write())
    await enough.wait()
    await asyncio.to_thread(wheel.crash)
    with pytest.raises(StoreError):
        await writing
    await asyncio.to_thread(wheel.start)

    async with database.read() as connection:
        found = list(await connection.scalars(sa.select(events.c.id).order_by(events.c.seq)))
    sent = [one.event_id for one in await owed(store)]
    await database.close()

    assert committed == found[: len(committed)]
    assert len(found) <= len(committed) + 1
    assert sorted(found) == sorted(sent)


async def test_what_the_server_forgets_is_sent_again_under_the_same_id(
    wheel: Wheel, url: str
) -> None:
    """Claims and acknowledgements do not wait for the disk; the events that they are of do."""
    database = await Database.open(url)
    store = store_of(database)
    await put(store, *map(an_event, range(MANY)))
    acknowledged = []
    for _ in range(MANY // 2):
        claimed = await store.outbox.claim(HOOK, limit=1)
        await store.outbox.settle([Settled(one, TAKEN, State.DELIVERED) for one in claimed])
        acknowledged += [one.event_id for one in claimed]

    await asyncio.to_thread(wheel.crash)
    await asyncio.to_thread(wheel.start)
    sent = [one.event_id for one in await owed(store)]
    await database.close()

    assert {f"evt_{number}" for number in range(MANY)} == {*acknowledged, *sent}
    assert len(sent) == len(set(sent))
    assert set(acknowledged) & set(sent), "else nothing was forgotten, and this shows nothing"


def all_run(batches: int) -> Callable[[list[Received]], bool]:
    return lambda received: (
        batches == len({one.batch_id for one in received if one.event["type"] == "batch.running"})
    )


async def test_a_daemon_outlives_its_server_and_loses_nothing(
    wheel: Wheel, url: str, tmp_path: Path
) -> None:
    """Twice, while batches live and are told of; it goes on by itself."""
    async with Simulator() as sim, Receiver() as receiver:
        environ = environment(sim, receiver, tmp_path, BATCHWATCH_DATABASE_URL=url)
        async with running(environ):
            await sim.asked(2)
            for times in (1, 2):
                plant(sim)
                await receiver.until(all_run(times * BATCHES))
                await asyncio.to_thread(wheel.crash)
                await asyncio.to_thread(wheel.start)
            await receiver.until(all_ended(2 * BATCHES))

    assert_nothing_lost_and_nothing_wrong(receiver, 2 * BATCHES)
