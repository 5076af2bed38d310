"""The promise of the outbox: kill -9 between any two steps of the pipe loses nothing."""

from __future__ import annotations

import asyncio
import random
import signal
from typing import TYPE_CHECKING

import pytest

from batchwatch.simulator import FileLife, Simulator, a_life
from batchwatch.simulator.life import JobLife, Step
from tests.support.crashing import POINTS, SHARED_POINTS
from tests.support.daemon import environment, running, spawned
from tests.support.postgres import let_time_pass
from tests.support.receiver import Received, Receiver

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LIFE = (("PENDING", 0.0), ("RUNNING", 0.3), ("COMPLETED", 1.2))
JOB = JobLife((Step("PENDING", 0.5), Step("COMPLETED", 1.4)))  # which is after the batch's end
FILES = (FileLife(mapped_after=0.5, job=JOB), FileLife(mapped_after=0.9, error_message="no pages"))
BATCHES = 5


def plant(sim: Simulator) -> list[str]:
    """A few batches that live while the daemon dies and comes back."""
    return [sim.world.plant(a_life(*LIFE, files=FILES)).id for _ in range(BATCHES)]


def more_than(seen: int) -> Callable[[list[Received]], bool]:
    """Whether something came since, or nothing more is to come."""
    return lambda received: len(received) > seen or all_ended(BATCHES)(received)


def all_ended(batches: int) -> Callable[[list[Received]], bool]:
    """Whether so many batches were settled, which is told after their ends."""
    return lambda received: (
        batches == len({one.batch_id for one in received if one.event["type"] == "batch.settled"})
    )


def assert_nothing_lost_and_nothing_wrong(receiver: Receiver, batches: int = BATCHES) -> None:
    """Every transition once and in order; repeats only under the same id, with the same body."""
    bodies: dict[str, bytes] = {}
    numbers: dict[str, list[int]] = {}
    settled: list[str] = []  # each once
    for one in receiver.on("/hook"):
        if one.id in bodies:
            assert bodies[one.id] == one.body
            continue
        bodies[one.id] = one.body
        if one.event["type"] == "batch.settled":
            settled.append(one.batch_id)
            counts = one.event["data"]["settled"]["counts"]
            assert (2, 1, 1) == (counts["files"], counts["succeeded"], counts["unmapped"])
            continue
        assert one.batch_id not in settled
        numbers.setdefault(one.batch_id, []).append(one.event["data"]["transition"])
    assert batches == len(numbers) == len(settled)
    for batch_id, seen in numbers.items():
        assert list(range(1, len(seen) + 1)) == seen, batch_id
    for batch_id, told in receiver.statuses().items():
        rest = iter(["PENDING", "RUNNING", "COMPLETED"])
        assert all(status in rest for status in told), (batch_id, told)
        assert "COMPLETED" == told[-1]


@pytest.mark.parametrize("point", POINTS)
async def test_a_kill_at_any_step_loses_nothing(point: str, tmp_path: Path, made_url: str) -> None:
    """The next start goes on from the store, and the receiver can tell repeats from news."""
    await kill_around(point, tmp_path, made_url)


@pytest.mark.parametrize("point", SHARED_POINTS)
async def test_a_kill_at_any_step_of_the_leases_loses_nothing(
    point: str, tmp_path: Path, shared_url: str
) -> None:
    """Whoever comes next takes over."""
    await kill_around(point, tmp_path, shared_url)


async def kill_around(point: str, folder: Path, url: str) -> None:
    """Have it die before the step, the next one after it, and see what came of it all."""
    # On a slow machine much is done at once: some points are surely passed only once.
    once = point not in {"claim", "send", "get"}  # small batches share their questions for jobs
    dice = random.Random(point)
    async with Simulator() as sim, Receiver() as receiver:
        environ = environment(sim, receiver, folder, BATCHWATCH_DATABASE_URL=url)
        if point in {"begin", "beat", "take"}:
            # What ended before the watch began would rightly be told to nobody.
            environ["BATCHWATCH_NOTIFY_BACKLOG"] = "true"
        else:
            async with running(environ):
                await receiver_ready(sim)
        for when in ("before", "after"):
            plant(sim)
            count = 1 if once else dice.randint(1, 3)
            async with spawned(environ, kill_at=f"{point}:{when}:{count}") as process:
                assert -signal.SIGKILL == await process.wait()
            await let_time_pass(url)

        async with running(environ):
            await receiver.until(all_ended(2 * BATCHES))

    assert_nothing_lost_and_nothing_wrong(receiver, 2 * BATCHES)


async def receiver_ready(sim: Simulator) -> None:
    """Wait until the simulator was asked, so that the daemon's first pass is done."""
    await sim.asked(2)


async def test_kills_at_random_moments_lose_nothing(tmp_path: Path, made_url: str) -> None:
    """Not only between the steps that we thought of."""
    dice = random.Random(20261124)
    async with Simulator() as sim, Receiver() as receiver:
        environ = environment(sim, receiver, tmp_path, BATCHWATCH_DATABASE_URL=made_url)
        async with running(environ):
            await receiver_ready(sim)
        plant(sim)
        for _ in range(4):
            point = dice.choice(["change", "claim", "send", "settle", "passed"])
            # Some points are not reached again once all is told; then the end is as good.
            async with spawned(environ, kill_at=f"{point}:after:{dice.randint(1, 6)}") as process:
                told = asyncio.create_task(receiver.until(more_than(len(receiver.received))))
                died = asyncio.create_task(process.wait())
                await asyncio.wait([told, died], return_when=asyncio.FIRST_COMPLETED)
                told.cancel()
                died.cancel()
            await let_time_pass(made_url)
        async with running(environ):
            await receiver.until(all_ended(BATCHES))

    assert_nothing_lost_and_nothing_wrong(receiver)
