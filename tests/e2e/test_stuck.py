"""One cause, one alarm: exactly what receivers hear of a bad day, by the whole daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

from batchwatch.domain.judging import MANY
from batchwatch.simulator import Simulator, Switch, a_life
from tests.support.clock import FastClock
from tests.support.daemon import environment, running
from tests.support.receiver import Received, Receiver

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SPEED: Final = 60.0  # a minute is a second, and so no signature of it verifies
STILL: Final = a_life(("RUNNING", 0), ("COMPLETED", 1e9))
SETTINGS: Final = {
    "BATCHWATCH_POLL_INTERVAL": "5s",
    "BATCHWATCH_STUCK_AFTER_RUNNING": "5m",
    "BATCHWATCH_STUCK_REMINDER": "5m",
}


def alarms(received: list[Received]) -> list[dict[str, Any]]:
    """What wakes somebody, each once, in the order in which it came."""
    once = {one.id: one.event for one in received}
    wanted = ("batch.stuck", "batch.unstuck", "watch.")
    return [event for event in once.values() if event["type"].startswith(wanted)]


def types(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


def so_many(count: int) -> Callable[[list[Received]], bool]:
    return lambda received: len(alarms(received)) >= count


def saying(type_: str, count: int = 1) -> Callable[[list[Received]], bool]:
    return lambda received: count <= sum(one.event["type"] == type_ for one in received)


async def test_a_stuck_batch_is_told_and_reminded_of_until_it_moves(tmp_path: Path) -> None:
    """By itself, with the rule that fired; the batch beside it is not."""
    clock = FastClock(SPEED)
    async with (
        Simulator(clock=clock) as sim,
        Receiver(secret=None) as receiver,
        running(environment(sim, receiver, tmp_path, **SETTINGS), clock=clock),
    ):
        await sim.asked(2)
        still = sim.world.plant(STILL)
        sim.world.plant(a_life(("RUNNING", 0), ("COMPLETED", 60)))
        await receiver.until(so_many(2))
        sim.world.cancel(still)
        await receiver.until(saying("batch.cancelled"))

    first, again, moved = alarms(receiver.received)
    assert ["batch.stuck", "batch.stuck", "batch.unstuck"] == types([first, again, moved])
    assert {still.id} == {one["data"]["batch"]["id"] for one in (first, again, moved)}
    assert [("status", "RUNNING", 300.0, 0), ("status", "RUNNING", 300.0, 1)] == [
        tuple(one["data"]["stuck"][name] for name in ("rule", "status", "limit", "reminder"))
        for one in (first, again)
    ]
    assert first["data"]["stuck"]["lasted"] >= 300
    assert again["data"]["stuck"]["lasted"] >= first["data"]["stuck"]["lasted"] + 300
    told = [one.event["type"] for one in receiver.received if one.batch_id == still.id]
    assert ["batch.unstuck", "batch.cancelled"] == told[-2:]


@pytest.mark.parametrize("cause", ["a revoked key", "an outage"])
async def test_while_upstream_cannot_be_watched_nothing_is_stuck(
    cause: str, tmp_path: Path
) -> None:
    """The limit passes meanwhile, and one alarm speaks; what was lost of it does not count."""
    clock = FastClock(SPEED)
    switch = {
        "a revoked key": Switch(kind="status", status=401, for_seconds=480),
        "an outage": Switch(kind="5xx", for_seconds=480),
    }[cause]
    async with (
        Simulator(clock=clock) as sim,
        Receiver(secret=None) as receiver,
        running(environment(sim, receiver, tmp_path, **SETTINGS), clock=clock),
    ):
        await sim.asked(2)
        still = sim.world.plant(STILL)
        await receiver.until(saying("batch.running"))
        sim.faults.switch_on(switch)
        await receiver.until(saying("watch.recovered"))
        sim.world.cancel(still)
        await receiver.until(saying("batch.cancelled"))

    failing, recovered = alarms(receiver.received)
    assert ["watch.failing", "watch.recovered"] == types([failing, recovered])
    assert {"failing"} == {one["data"]["about"] for one in (failing, recovered)}
    assert failing["data"]["since"] == recovered["data"]["since"]


async def test_many_stuck_batches_are_one_alarm(tmp_path: Path) -> None:
    """With their list, and one all-clear when they move."""
    clock = FastClock(SPEED)
    async with Simulator(clock=clock) as sim, Receiver(secret=None) as receiver:
        patient = SETTINGS | {"BATCHWATCH_STUCK_REMINDER": "12h"}
        async with running(environment(sim, receiver, tmp_path, **patient), clock=clock):
            await sim.asked(2)
            still = [sim.world.plant(STILL) for _ in range(MANY + 2)]
            await receiver.until(so_many(1))
            for one in still:
                sim.world.cancel(one)
            await receiver.until(saying("batch.cancelled", len(still)))
            await receiver.until(so_many(2))

    slow, recovered = alarms(receiver.received)
    assert ["watch.slow", "watch.recovered"] == types([slow, recovered])
    assert len(still) == slow["data"]["count"]
    assert {one.id for one in still} == {one["id"] for one in slow["data"]["batches"]}
    assert ("slow", slow["data"]["since"]) == (
        recovered["data"]["about"],
        recovered["data"]["since"],
    )
