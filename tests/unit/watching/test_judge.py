"""A watch whose batches stand still: what is told of them, and what is not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from batchwatch.domain.judging import MANY
from batchwatch.domain.stuck import HOUR, Patience
from batchwatch.domain.watch import Work
from batchwatch.simulator import FileLife, Simulator, Switch, a_life
from batchwatch.watching import judge
from tests.support.clock import LeapClock

if TYPE_CHECKING:
    from tests.unit.watching.conftest import Stand, Standing

FOR_EVER = 1e9  # seconds
STILL = a_life(("RUNNING", 0), ("COMPLETED", FOR_EVER))
PATIENCE = Patience()


def stuck(at: Stand) -> float | None:
    """What the metric says."""
    return at.metrics.registry.get_sample_value(
        "batchwatch_stuck_batches", {"watch": at.watch.name}
    )


async def test_a_batch_that_stands_still_is_told_at_its_limit(stand: Standing) -> None:
    """And by reminders, until it moves; then both are told."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock, patience=PATIENCE) as at:
        sim.world.plant(a_life(("RUNNING", 0), ("THROTTLED", 30 * HOUR), ("COMPLETED", FOR_EVER)))
        sim.world.plant(a_life(("RUNNING", 0), ("COMPLETED", 9 * HOUR)))
        told: list[tuple[int, str]] = []
        for hour in range(32):
            await at.poller.poll()
            told += [(hour, event["type"]) for event in await at.told()]
            if hour in (13, 31):
                assert {13: 1, 31: 0}[hour] == stuck(at)
            clock.advance(HOUR)

    assert [
        (0, "batch.running"),
        (0, "batch.running"),
        (9, "batch.completed"),
        (9, "batch.settled"),
        (13, "batch.stuck"),  # at 12 h and 5 min, and nobody looked then
        (25, "batch.stuck"),
        (30, "batch.unstuck"),
        (30, "batch.throttled"),
    ] == told


async def test_a_daemon_that_was_stopped_looks_first_and_then_judges(stand: Standing) -> None:
    """What has moved meanwhile is not stuck, and what has not is: the time counts."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim:
        async with stand(sim, clock, patience=PATIENCE) as at:
            still = sim.world.plant(STILL)
            moved = sim.world.plant(a_life(("RUNNING", 0), ("COMPLETED", 14 * HOUR)))
            await at.polls(2)
            await at.told()
        clock.advance(20 * HOUR)
        async with stand(sim, clock, patience=PATIENCE) as at:
            await at.polls()
            told = await at.told()

    assert {
        ("batch.stuck", still.id),
        ("batch.completed", moved.id),
        ("batch.settled", moved.id),
    } == {(event["type"], event["data"]["batch"]["id"]) for event in told}


async def test_other_settings_hold_from_the_next_start_on(stand: Standing) -> None:
    """Also for batches whose limits were known."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim:
        async with stand(sim, clock, patience=PATIENCE) as at:
            sim.world.plant(STILL)
            await at.polls(2, every=HOUR)
            await at.told()
        async with stand(sim, clock, patience=Patience(running=HOUR)) as at:
            await at.polls()
            assert ["batch.stuck"] == await at.told_types()


async def test_nobody_is_judged_while_anything_fails(stand: Standing) -> None:
    """That has an alarm of its own; and its time does not count."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock, patience=PATIENCE) as at:
        sim.world.plant(STILL)
        await at.polls(2)
        for _ in range(3):
            await at.poller.failed(Work.RESULTS, "HTTP 401", may_pass=False)
        await at.polls(2, every=10 * HOUR)
        await at.poller.went_well(Work.RESULTS)
        await at.polls()
        assert ["batch.running", "watch.failing", "watch.recovered"] == await at.told_types()

        await at.polls(every=11 * HOUR)
        assert [] == await at.told()
        await at.polls(every=1.1 * HOUR)
        assert ["batch.stuck"] == await at.told_types()


async def test_who_was_not_looked_at_is_not_judged(stand: Standing) -> None:
    """The others are; it is when it can be looked at again."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock, patience=PATIENCE) as at:
        hidden, seen = sim.world.plant(STILL), sim.world.plant(STILL)
        await at.polls()
        clock.advance(HOUR)
        sim.world.plant(a_life(("PENDING", 0), ("COMPLETED", 60)))  # the window moves on
        await at.polls()
        clock.advance(12 * HOUR)
        path = f"/api/v2/batches/{hidden.id}"
        sim.faults.switch_on(Switch(kind="status", status=500, path=path))
        await at.polls(2)
        told = [one["data"]["batch"]["id"] for one in await at.told() if is_stuck(one)]
        assert [seen.id] == told
        sim.faults.clear()
        await at.polls()
        assert [hidden.id] == [one["data"]["batch"]["id"] for one in await at.told()]


def is_stuck(event: dict[str, Any]) -> bool:
    return bool(event["type"] == "batch.stuck")


async def test_what_like_batches_took_is_learned(stand: Standing) -> None:
    """The first sentence about a batch says when it should end; far beyond that it is stuck."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock, patience=PATIENCE) as at:
        for _ in range(6):
            sim.world.plant(
                a_life(("RUNNING", 0), ("COMPLETED", 600), files=(FileLife(mapped_after=0),))
            )
        await at.polls(every=0)
        await at.polls(2, every=700)
        first = await at.told()
        sim.world.plant(STILL)
        clock.advance(300)
        await at.polls(130, every=15)
        running, late = await at.told()

    assert {None} == {one["data"]["expected"] for one in first}
    expected = running["data"]["expected"]
    assert (600.0, 6, False) == (expected["median"], expected["samples"], expected["overdue"])
    assert ("batch.stuck", "history", 1800.0) == (
        late["type"], late["data"]["stuck"]["rule"], late["data"]["stuck"]["limit"],
    )  # fmt: skip
    assert 1890 <= late["data"]["stuck"]["lasted"] < 1920
    assert late["data"]["expected"]["overdue"]


async def test_the_history_from_before_the_first_start_counts(stand: Standing) -> None:
    """The baseline is told to nobody, and tells us what to expect."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock, patience=PATIENCE) as at:
        for _ in range(6):
            sim.world.plant(a_life(("RUNNING", 0), ("COMPLETED", 600)))
        clock.advance(2 * HOUR)
        await at.polls()
        sim.world.plant(STILL)
        await at.polls(every=60)
        (running,) = await at.told()

    assert 600.0 == running["data"]["expected"]["median"]


@pytest.mark.parametrize("at_once", [2, 500])
async def test_a_project_that_stands_still_is_one_alarm(
    stand: Standing, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many they are, and however few are scheduled at a time."""
    monkeypatch.setattr(judge, "AT_ONCE", at_once)
    clock = LeapClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock, patience=PATIENCE) as at:
        for _ in range(3 * MANY):
            sim.world.plant(a_life(("PENDING", 0), ("RUNNING", 5 * HOUR), ("COMPLETED", FOR_EVER)))
        await at.polls(2)
        await at.told()
        await at.polls(2, every=2.2 * HOUR)
        (slow,) = await at.told()
        await at.polls(2, every=0.5 * HOUR)
        told = await at.told()

    assert ("watch.slow", 3 * MANY) == (slow["type"], slow["data"]["count"])
    assert [*["batch.running"] * 3 * MANY, "watch.recovered"] == [one["type"] for one in told]
    assert "slow" == told[-1]["data"]["about"]
