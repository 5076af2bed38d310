"""A store that changes under its daemons, or moves: nothing is lost, and nothing told anew."""

from __future__ import annotations

import signal
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import sqlalchemy as sa

from batchwatch.simulator import Simulator, a_life
from batchwatch.store import Database
from batchwatch.store.copying import opened
from batchwatch.store.schema import HEAD, deliveries, events
from tests.support.daemon import environment, running, spawned
from tests.support.newer import VERSION, make_newer
from tests.support.receiver import Receiver

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.receiver import Received

LIFE = (("PENDING", 0.0), ("RUNNING", 0.4), ("COMPLETED", 1.2))
BATCHES = 5


def plant(sim: Simulator) -> None:
    for _ in range(BATCHES):
        sim.world.plant(a_life(*LIFE))


def settled(count: int) -> Callable[[list[Received]], bool]:
    """Whether so many batches were told to their last file."""

    def enough(got: list[Received]) -> bool:
        return count <= len({one.batch_id for one in got if one.event["type"] == "batch.settled"})

    return enough


def assert_each_was_told_whole_and_in_order(received: list[Received], count: int) -> None:
    told: dict[str, list[tuple[int, str]]] = defaultdict(list)
    seen: set[str] = set()
    for one in received:
        if one.id not in seen:
            seen.add(one.id)
            told[one.batch_id].append((one.event["data"]["transition"], one.event["type"]))
    assert count == len(told)
    for steps in told.values():
        *changes, (_, last) = steps
        assert "batch.settled" == last
        assert [*range(1, len(changes) + 1)] == [number for number, _ in changes]
        assert "batch.completed" == changes[-1][1]


async def test_daemons_go_on_while_a_newer_version_migrates(tmp_path: Path, shared: str) -> None:
    """The one that runs meanwhile, and one of the same version that starts afterwards."""
    async with Simulator() as sim, Receiver() as receiver:
        environ = environment(sim, receiver, tmp_path, BATCHWATCH_DATABASE_URL=shared)
        newer = await Database.open(shared)
        async with running(environ):
            await sim.asked(2)
            plant(sim)
            await receiver.until(lambda got: len(got) >= BATCHES)
            async with newer.write() as connection:
                await make_newer(connection, oldest=HEAD)
            await receiver.until(settled(BATCHES))
            plant(sim)
            await receiver.until(settled(2 * BATCHES))
        async with running(environ):
            plant(sim)
            await receiver.until(settled(3 * BATCHES))
        assert VERSION == await newer.version()
        await newer.close()

    assert_each_was_told_whole_and_in_order(receiver.received, 3 * BATCHES)


async def owed(folder: Path) -> dict[str, str]:
    """What is still to be delivered, and whether it is in flight: states by event ids."""
    database = await Database.open(f"sqlite+aiosqlite:///{folder}/batchwatch.db", exclusive=False)
    async with database.read() as connection:
        rows = await connection.execute(
            sa.select(events.c.id, deliveries.c.state)
            .join_from(deliveries, events)
            .where(deliveries.c.state.in_(("waiting", "pending", "in_flight")))
        )
        found = {row.id: row.state for row in rows}
    await database.close()
    return found


async def test_a_store_that_was_moved_owes_what_it_owed_and_watches_on(
    tmp_path: Path, shared: str
) -> None:
    """After a kill -9, from SQLite to PostgreSQL: under the same ids, and nothing else twice."""
    async with Simulator() as sim, Receiver() as receiver:
        environ = environment(sim, receiver, tmp_path)
        async with running(environ):
            await sim.asked(2)
        plant(sim)
        async with spawned(environ, kill_at="send:before:8") as process:
            assert -signal.SIGKILL == await process.wait()
        before = {one.id for one in receiver.received}
        left = await owed(tmp_path)

        async with opened(f"sqlite+aiosqlite:///{tmp_path}/batchwatch.db", shared) as job:
            async for _ in job.run():
                pass
        first = len(receiver.received)
        async with running(environ | {"BATCHWATCH_DATABASE_URL": shared}):
            await receiver.until(settled(BATCHES))

    after = Counter(one.id for one in receiver.received[first:])
    flying = {event_id for event_id, state in left.items() if state == "in_flight"}
    assert flying
    assert left.keys() <= after.keys()
    assert {1} == set(after.values())
    assert before & after.keys() <= flying
    assert_each_was_told_whole_and_in_order(receiver.received, BATCHES)
