"""Several daemons on one PostgreSQL: what one does never undoes what another does."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from batchwatch.clock import Clock
from batchwatch.domain.batch import EndpointName, EventId, WatchName
from batchwatch.domain.delivery import Attempt, Settled, State
from batchwatch.domain.event import Event
from batchwatch.store import Database
from batchwatch.store.notices import Notice, Notices, Owed
from batchwatch.store.schema import deliveries, events
from tests.store.conftest import HOOK, Store
from tests.support.builders import at
from tests.support.postgres import a_database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    Sent = defaultdict[tuple[str, str], list[str]]

REPLICAS = 3
OPS = EndpointName("ops")
LINES = 4
EVENTS = 40  # of each line
TAKEN = Attempt(at(0), 0.01, status_code=204)


@pytest.fixture
async def replicas(postgres: str) -> AsyncIterator[list[Store]]:
    """As many stores over one database."""
    async for url in a_database(postgres, made=True):
        databases = [await Database.open(url) for _ in range(REPLICAS)]
        stores = [Store(one, HOOK, OPS) for one in databases]
        heeding = [asyncio.create_task(heed(one)) for one in stores]
        yield stores
        for task in heeding:
            task.cancel()
        await asyncio.gather(*heeding, return_exceptions=True)
        for one in databases:
            await one.close()


async def heed(store: Store) -> None:
    def heard(notice: Notice | None) -> None:
        if isinstance(notice, Owed):
            store.outbox.heard(notice.endpoints)
        else:
            store.outbox.signal_all()

    await Notices(store.database, Clock()).run(heard)


def an_event(line: int, number: int) -> Event:
    return Event(
        id=EventId(f"evt_{line}_{number}"),
        type="watch.failing",
        watch=WatchName(f"watch-{line}"),
        occurred_at=at(number),
        data={},
    )


async def put(store: Store, *new: Event) -> None:
    async with store.database.write() as connection:
        await store.outbox.enqueue(connection, new)
    store.outbox.committed(new)


async def write(store: Store, lines: Iterable[int]) -> None:
    for number in range(EVENTS):
        await put(store, *(an_event(line, number) for line in lines))


async def send(store: Store, endpoint: EndpointName, sent: Sent) -> None:
    """Until all that there will be is sent."""
    dice = random.Random(3)
    while sum(len(one) for one in sent.values()) < 2 * LINES * EVENTS:
        claimed = await store.outbox.claim(endpoint, limit=dice.randint(1, 5))
        for one in claimed:
            sent[endpoint, one.subject].append(one.event_id)
        await store.outbox.settle([Settled(one, TAKEN, State.DELIVERED) for one in claimed])
        if not claimed:
            await asyncio.sleep(0)


async def test_whoever_writes_and_whoever_sends_each_line_is_sent_in_order_and_to_its_end(
    replicas: list[Store],
) -> None:
    """Three write and three send, all at once: nothing is twice, out of order or left behind."""
    sent: Sent = defaultdict(list)

    async with asyncio.timeout(50), asyncio.TaskGroup() as group:
        for store in replicas:
            for endpoint in (HOOK, OPS):
                group.create_task(send(store, endpoint, sent))
        # Two of them write the same lines, which happens when one takes over from the other.
        for store, lines in zip(replicas, (range(LINES), range(LINES), range(2)), strict=True):
            group.create_task(write(store, lines))

    for line in range(LINES):
        expected = [f"evt_{line}_{number}" for number in range(EVENTS)]
        for endpoint in (HOOK, OPS):
            assert expected == sent[endpoint, f"watch-{line}"]


async def test_the_order_of_events_is_the_order_of_their_commits(replicas: list[Store]) -> None:
    """Who follows them by their place misses none: a lower one never appears later."""
    seen: list[int] = []

    async def follow(store: Store) -> None:
        while len(seen) < LINES * EVENTS:
            after = seen[-1] if seen else 0
            async with store.database.read() as connection:
                query = sa.select(events.c.seq).where(events.c.seq > after).order_by(events.c.seq)
                seen.extend(await connection.scalars(query))

    async with asyncio.timeout(50), asyncio.TaskGroup() as group:
        group.create_task(follow(replicas[0]))
        for line in range(LINES):
            group.create_task(write(replicas[line % REPLICAS], [line]))

    assert LINES * EVENTS == len(set(seen))


async def test_a_commit_wakes_the_lanes_of_all(replicas: list[Store]) -> None:
    """By a notification: nobody has to look for it."""
    first, second, _ = replicas
    signal = second.outbox.signal(HOOK)
    async with asyncio.timeout(5):
        await signal.wait()  # it hears from now on
    signal.clear()

    await put(first, an_event(0, 0))

    async with asyncio.timeout(5):
        await signal.wait()
    assert 1 == len(await second.outbox.claim(HOOK, limit=9))


async def test_what_one_has_claimed_no_other_claims(replicas: list[Store]) -> None:
    """However close together they come."""
    await put(replicas[0], *(an_event(line, 0) for line in range(30)))

    claims = await asyncio.gather(*(store.outbox.claim(HOOK, limit=20) for store in replicas))

    ids = [one.id for claimed in claims for one in claimed]
    assert 30 == len(ids) == len(set(ids))
    async with replicas[0].database.read() as connection:
        left = await connection.scalar(
            sa.select(sa.func.count()).where(
                deliveries.c.endpoint == HOOK, deliveries.c.state == "pending"
            )
        )
    assert 0 == left
