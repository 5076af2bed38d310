"""Three daemons on one PostgreSQL, of which some are killed: nothing is lost, and order is kept."""

from __future__ import annotations

import random
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from batchwatch.simulator import Simulator
from batchwatch.simulator.history import history
from tests.support.daemon import environment, spawned
from tests.support.postgres import a_database
from tests.support.receiver import Receiver

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tests.support.receiver import Received

ENDS = {"batch.completed", "batch.failed", "batch.cancelled"}


@pytest.fixture
async def shared(postgres: str) -> AsyncIterator[str]:
    async for url in a_database(postgres):
        yield url


def at_least(count: int) -> Callable[[list[Received]], bool]:
    return lambda got: len(got) >= count


@pytest.mark.timeout(120)
async def test_replicas_that_are_killed_lose_nothing(tmp_path: Path, shared: str) -> None:
    """Every batch is told to its true end, in order; repeats carry the same id."""
    dice = random.Random(5)
    async with (
        Simulator(scenario="lively", seed=4, speed=1) as sim,
        Receiver() as receiver,
        AsyncExitStack() as stack,
    ):

        async def start(number: int) -> asyncio.subprocess.Process:
            folder = tmp_path / str(number)
            folder.mkdir()
            environ = environment(sim, receiver, folder, BATCHWATCH_DATABASE_URL=shared)
            return await stack.enter_async_context(spawned(environ))

        running = [await start(number) for number in range(3)]
        for number in range(3, 6):
            await receiver.until(at_least(12 * (number - 2)))
            victim = running.pop(dice.randrange(len(running)))
            victim.kill()
            running.append(await start(number))
        await receiver.until(
            lambda got: 24 <= len({one.batch_id for one in got if one.event["type"] in ENDS})
        )
        truth = {
            one["id"]: [step["status"] for step in one["history"]] for one in history(sim.world)
        }

    told = receiver.statuses()
    assert truth.keys() == told.keys()
    for batch_id, statuses in told.items():
        rest = iter(truth[batch_id])
        assert all(status in rest for status in statuses)
        assert truth[batch_id][-1] == statuses[-1]
