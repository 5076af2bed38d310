"""A watch that goes on: its pace, its failures, and what it says of them."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from batchwatch.domain.cadence import REFUSALS_TO_ALARM
from batchwatch.simulator import FileLife, Simulator, Switch, a_life
from batchwatch.store import Watches
from batchwatch.store.errors import StoreFull
from tests.support.clock import LeapClock, ManualClock
from tests.unit.watch.conftest import HOOK, Stand, Standing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


@asynccontextmanager
async def watching(at: Stand) -> AsyncIterator[None]:
    """The watcher at work, cancelled at the end as by the daemon."""
    task = asyncio.create_task(at.watcher.run(asyncio.Event()))
    try:
        yield
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def told(at: Stand, enough: Callable[[list[str]], bool]) -> list[str]:
    """The types of what is told, as soon as it is enough."""
    types: list[str] = []
    while not enough(types):
        await at.outbox.signal(HOOK).wait()
        at.outbox.signal(HOOK).clear()
        types += await at.told_types()
    return types


async def test_one_outage_is_one_alarm_and_one_all_clear(stand: Standing) -> None:
    """A failing upstream is asked ever less often, and told of once."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock) as at:
        async with watching(at):
            await sim.asked(1)
            sim.faults.switch_on(Switch(kind="outage", probability=1))
            assert ["watch.failing"] == await told(at, lambda types: len(types) == 1)
            sim.faults.clear()
            assert ["watch.recovered"] == await told(at, lambda types: len(types) == 1)
        await at.polls()
        assert [] == await at.told()


async def test_a_refused_key_is_an_alarm_that_names_the_variable(stand: Standing) -> None:
    """Nothing is silent: whoever gets the webhook knows what to mend."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock, api_key="llx-wrong") as at:
        async with watching(at):
            await at.outbox.signal(HOOK).wait()
        (event,) = await at.told()

    assert "watch.failing" == event["type"]
    assert "LLAMA_CLOUD_API_KEY" in event["data"]["reason"]
    assert "llx-wrong" not in event["data"]["reason"]
    assert REFUSALS_TO_ALARM <= sim.requests["GET /api/v2/batches"]


@pytest.mark.parametrize(("status", "reason"), [(403, "may not see this"), (500, "500")])
async def test_batches_that_cannot_be_looked_at_are_an_alarm(
    stand: Standing, status: int, reason: str
) -> None:
    """Discovery goes well, and still nobody knows how the old batches are."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock) as at:
        batch = sim.world.plant(a_life(("RUNNING", 0), ("COMPLETED", 1e9)))
        await at.polls()
        clock.advance(12 * 3600)
        sim.world.plant(a_life(("RUNNING", 0), ("COMPLETED", 1e9)))
        await at.polls()
        await at.told()
        at.outbox.signal(HOOK).clear()
        path = f"/api/v2/batches/{batch.id}"
        sim.faults.switch_on(Switch(kind="status", status=status, probability=1, path=path))
        async with watching(at):
            await at.outbox.signal(HOOK).wait()
            (event,) = await at.told()
            assert at.watcher.troubles()
            sim.faults.clear()
            at.outbox.signal(HOOK).clear()
            assert ["watch.recovered"] == await told(at, lambda types: len(types) == 1)

    assert "watch.failing" == event["type"]
    assert reason in event["data"]["reason"]


async def test_results_that_fall_due_are_asked_for_between_two_passes(stand: Standing) -> None:
    """A long interval must not make a completed batch wait for its event."""
    clock = ManualClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock, interval=3600.0) as at:
        life = a_life(
            ("PENDING", 0), ("COMPLETED", 1), files=(FileLife(mapped_after=0),), results_late=9
        )
        batch = sim.world.plant(life)
        await at.watches.begin(at.watch.name, now=clock.now())
        clock.advance(2)
        async with watching(at):
            told = asyncio.create_task(at.outbox.signal(HOOK).wait())
            while not told.done():
                # Two sleep: discovery for an hour, and whoever waits for the results.
                asleep = asyncio.create_task(clock.next_sleeper(among=2))
                await asyncio.wait([told, asleep], return_when=asyncio.FIRST_COMPLETED)
                if asleep.done():
                    clock.advance(asleep.result())
                asleep.cancel()
        (shown,) = await at.views.batch(batch.id)

    (owed,) = shown["deliveries"]
    assert "batch.completed" == owed["type"]
    assert 60 > (owed["due_at"] - shown["changed_at"]).total_seconds()


async def test_a_full_store_stops_nothing_for_good(
    stand: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pass fails, is tried again, and nothing was lost meanwhile."""
    clock = LeapClock()
    failed = asyncio.Event()
    original = Watches.passed

    async def full(self: Watches, *args: object, **kwargs: object) -> object:
        if not failed.is_set():
            failed.set()
            raise StoreFull("no room")
        return await original(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Watches, "passed", full)
    async with Simulator(clock=clock) as sim, stand(sim, clock) as at:
        sim.world.plant(a_life(("PENDING", 0), ("COMPLETED", 1e9)))
        async with watching(at):
            await failed.wait()
            while at.watcher.last_good is None:
                await sim.asked(sim.requests.total() + 1)

        assert [] == at.watcher.troubles()
        assert ["batch.pending"] == await at.told_types()


async def test_a_bug_in_one_pass_does_not_end_the_watch(
    stand: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is logged with its traceback, counted as a failure, and the next pass comes."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock) as at:
        broke = asyncio.Event()
        original = at.poller.discover

        async def discover() -> object:
            if not broke.is_set():
                broke.set()
                raise ZeroDivisionError
            return await original()

        monkeypatch.setattr(at.poller, "discover", discover)
        async with watching(at):
            await sim.asked(1)

        assert broke.is_set()
