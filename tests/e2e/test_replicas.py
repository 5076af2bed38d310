"""Three daemons on one PostgreSQL, whatever befalls them: nothing is lost, and order is kept."""

from __future__ import annotations

import signal
import time
from collections import defaultdict
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from batchwatch.simulator import Simulator
from batchwatch.simulator.history import history
from batchwatch.simulator.scenarios import SCENARIOS
from batchwatch.store.replicas import LIFE
from tests.e2e.gate import Gate
from tests.support.daemon import environment, spawned
from tests.support.postgres import Wheel, a_database, a_wheel
from tests.support.receiver import Receiver

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.support.receiver import Received

WATCHES = ("a", "b", "c")
BATCHES = 16  # of each watch
TOLERANCE = 2.0  # seconds beyond the life of a lease
SCENARIO = replace(SCENARIOS["lively"], batches=BATCHES, over=26.0)
ENDS = {"batch.completed", "batch.failed", "batch.cancelled"}


@pytest.fixture
def wheel() -> Iterator[Wheel]:
    with a_wheel() as server:
        yield server


@pytest.fixture
async def shared(wheel: Wheel) -> AsyncIterator[str]:
    async for url in a_database(wheel.url):
        yield url


class Replicas:
    """As many daemons as are started, by their names."""

    def __init__(self, stack: AsyncExitStack, gate: Gate, receiver: Receiver, folder: Path) -> None:
        self._stack = stack
        self._gate = gate
        self._receiver = receiver
        self._folder = folder
        self.running: dict[str, asyncio.subprocess.Process] = {}
        self.pids: dict[int, str] = {}

    async def start(self, url: str) -> None:
        name = f"replica-{len(self.pids)}"
        folder = self._folder / name
        folder.mkdir()
        environ = environment(self._gate.url, self._receiver, folder)
        del environ["BATCHWATCH_WATCHES__DEFAULT__REQUESTS_PER_MINUTE"]
        environ |= {"BATCHWATCH_DATABASE_URL": url, "LLAMA_CLOUD_API_KEY": name}
        for watch in WATCHES:
            setting = f"BATCHWATCH_WATCHES__{watch.upper()}"
            environ[f"{setting}__BASE_URL"] = f"{self._gate.url}/{watch}"
            environ[f"{setting}__REQUESTS_PER_MINUTE"] = "60000"
        process = await self._stack.enter_async_context(spawned(environ))
        self.running[name] = process
        self.pids[process.pid] = name

    async def end(self, name: str, how: signal.Signals) -> float:
        """When it was, by the monotonic clock."""
        process = self.running.pop(name)
        process.send_signal(how)
        at = time.monotonic()
        await process.wait()
        return at

    def name_of(self, holder: str) -> str:
        """Its host and its process are in what it calls itself."""
        return self.pids[int(holder.split("-")[-2])]


def told_to_their_ends(count: int, got: list[Received]) -> bool:
    return count <= len({one.batch_id for one in got if one.event["type"] in ENDS})


@pytest.mark.timeout(150)
async def test_replicas_lose_nothing_whatever_befalls_them(
    tmp_path: Path, wheel: Wheel, shared: str
) -> None:
    """PostgreSQL comes late, one is killed, one sleeps, PostgreSQL crashes, one is stopped."""
    plain = sa.make_url(shared).set(drivername="postgresql").render_as_string(hide_password=False)
    async with AsyncExitStack() as stack:
        simulators = {
            watch: await stack.enter_async_context(Simulator(scenario=SCENARIO, seed=number))
            for number, watch in enumerate(WATCHES)
        }
        receiver = await stack.enter_async_context(Receiver())
        gate = await stack.enter_async_context(Gate(simulators, plain))
        replicas = Replicas(stack, gate, receiver, tmp_path)
        wheel.crash()  # a server that is started with them is waited for
        for _ in WATCHES:
            await replicas.start(shared)
        wheel.start()
        # Each has its share; the first to come gives back what is more.
        while len({(await gate.until(one, after=time.monotonic())).replica for one in WATCHES}) < 3:
            pass

        killed, paused = [
            (await gate.until(watch, after=time.monotonic())).replica for watch in WATCHES[:2]
        ]
        sleeper = replicas.running[paused]
        sleeper.send_signal(signal.SIGSTOP)
        stopped_at = time.monotonic()
        killed_at = await replicas.end(killed, signal.SIGKILL)
        await replicas.start(shared)
        takeovers = [
            (await gate.until("a", not_by=killed, after=killed_at)).at - killed_at,
            (await gate.until("b", not_by=paused, after=stopped_at)).at - stopped_at,
        ]
        sleeper.send_signal(signal.SIGCONT)
        woken_at = time.monotonic()
        await gate.until("c", after=woken_at)

        wheel.crash()
        wheel.start()
        up_at = time.monotonic()
        for watch in WATCHES:
            await gate.until(watch, after=up_at)

        leaving = (await gate.until("c", after=up_at)).replica
        left_at = await replicas.end(leaving, signal.SIGTERM)
        handed_over = (await gate.until("c", not_by=leaving, after=left_at)).at - left_at
        await receiver.until(lambda got: told_to_their_ends(len(WATCHES) * BATCHES, got))
        truth = {
            one["id"]: [step["status"] for step in one["history"]]
            for simulator in simulators.values()
            for one in history(simulator.world)
        }

    told = receiver.statuses()
    assert truth.keys() == told.keys()
    for batch_id, statuses in told.items():
        rest = iter(truth[batch_id])
        assert all(status in rest for status in statuses), "in the order in which they were"
        assert truth[batch_id][-1] == statuses[-1]
    facts = {
        (
            one.event["data"].get("batch", {}).get("id"),
            one.event["type"],
            one.event["data"].get("transition"),
        ): one.id
        for one in receiver.received
    }
    assert len(facts) == len({one.id for one in receiver.received}), "one id for each fact"
    assert {"batch"} == {one.event["type"].split(".")[0] for one in receiver.received}, "no alarm"

    assert max(takeovers) < LIFE.total_seconds() + TOLERANCE
    assert handed_over < TOLERANCE
    epochs = defaultdict(set)
    for one in gate.asked:
        if one.holder is not None:
            assert one.replica == replicas.name_of(one.holder), "who asks is who holds the watch"
            epochs[one.watch, one.token].add(one.replica)
    assert all(len(askers) == 1 for askers in epochs.values())
    assert len(epochs) > len(WATCHES)
