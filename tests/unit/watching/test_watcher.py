"""A watch that goes on: its pace, its failures, and what it says of them."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from batchwatch.domain.cadence import REFUSALS_TO_ALARM, SILENCE_TO_ALARM
from batchwatch.simulator import FileLife, Simulator, Switch, a_life
from batchwatch.simulator.life import JobLife, Step
from batchwatch.store import Watches
from batchwatch.store.errors import StoreFull
from batchwatch.watching.watcher import LOOK_EVERY, STALLED
from tests.support.clock import EPOCH, ManualClock
from tests.unit.watching.conftest import HOOK, Stand, Standing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


FILES = (FileLife(mapped_after=0),)


@asynccontextmanager
async def watching(at: Stand, *, asleep: int = 2) -> AsyncIterator[None]:
    """The watcher at work, cancelled at the end as by the daemon.

    Time goes by whenever so many sleep: discovery, and who looks after it.
    Answers that the simulator holds back sleep, too.
    """

    async def passing() -> None:
        while True:
            hung = at.sim.faults.injected["latency"]
            pause = await at.clock.next_sleeper(among=asleep + hung)
            at.clock.advance(min(pause, LOOK_EVERY))
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(at.watcher.run(asyncio.Event())), asyncio.create_task(passing())]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task


async def heard(at: Stand) -> list[dict[str, Any]]:
    """What is told next."""
    await at.outbox.signal(HOOK).wait()
    at.outbox.signal(HOOK).clear()
    return await at.told()


def seconds_to(event: dict[str, Any]) -> float:
    """When it was observed, from the beginning of time."""
    return (datetime.fromisoformat(event["data"]["observed_at"]) - EPOCH).total_seconds()


async def told(at: Stand, enough: Callable[[list[str]], bool]) -> list[str]:
    """The types of what is told, as soon as it is enough."""
    types: list[str] = []
    while not enough(types):
        types += [event["type"] for event in await heard(at)]
    return types


async def test_one_outage_is_one_alarm_and_one_all_clear(stand: Standing) -> None:
    """A failing upstream is asked ever less often, and told of once."""
    clock = ManualClock()
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
    clock = ManualClock()
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
    clock = ManualClock()
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
        # The third is whoever waits for the results.
        async with watching(at, asleep=3):
            await at.outbox.signal(HOOK).wait()
        (shown,) = await at.views.batch(batch.id)

    (owed,) = shown["deliveries"]
    assert "batch.completed" == owed["type"]
    assert 60 > (owed["due_at"] - shown["changed_at"]).total_seconds()


async def test_a_full_store_stops_nothing_for_good(
    stand: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pass fails, is tried again, and nothing was lost meanwhile."""
    clock = ManualClock()
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
    clock = ManualClock()
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


LIFE = (("RUNNING", 0.0), ("COMPLETED", 60.0))
FOR_EVER = 1e9  # seconds


def hang(path: str, *, requests: int | None = None) -> Switch:
    """A server that takes the question and does not answer."""
    return Switch(kind="latency", probability=1, seconds=FOR_EVER, path=path, for_requests=requests)


async def test_a_result_that_does_not_come_holds_up_no_other(stand: Standing) -> None:
    """What ends while one GET hangs is told with its results, long before that is given up."""
    clock = ManualClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock) as at:
        hung, soon = (sim.world.plant(a_life(*LIFE, files=FILES)) for _ in range(2))
        later = sim.world.plant(a_life(("RUNNING", 0), ("COMPLETED", 300), files=FILES))
        sim.faults.switch_on(hang(f"/api/v2/batches/{hung.id}"))

        async def results() -> list[str | None]:
            shown = [await at.views.batch(one.id) for one in (hung, soon, later)]
            return [rows[0]["results"] if rows else None for rows in shown]

        async with watching(at):
            # Time flies, so how long each takes is not the point; it is that they get there.
            while await results() != ["pending", "complete", "complete"]:
                pass
        told = [
            one["data"]["batch"]["id"]
            for one in await at.told()
            if one["type"] == "batch.completed"
        ]

    assert sorted([hung.id, soon.id, later.id]) == sorted(told)


async def test_jobs_that_run_on_are_followed_to_their_ends(stand: Standing) -> None:
    """Nothing else wakes the watch: no listing changes, and no results come."""
    clock = ManualClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock, interval=3600.0) as at:
        job = JobLife((Step("RUNNING", 1.0), Step("FAILED", 300.0)), "no pages")
        file = FileLife(mapped_after=1.0, job=job)
        sim.world.plant(a_life(("RUNNING", 0), ("COMPLETED", 5), files=(file,)))
        await at.watches.begin(at.watch.name, now=clock.now())
        clock.advance(6)
        async with watching(at, asleep=3):
            types = await told(at, lambda types: "batch.settled" in types)

    assert ["batch.completed", "batch.settled"] == types[-2:]
    assert 10 < sim.requests["GET /api/v2/parse"] < 20


async def test_jobs_that_cannot_be_had_are_an_alarm(stand: Standing) -> None:
    """Discovery and results go well, and still nobody knows what became of the files."""
    clock = ManualClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock) as at:
        job = JobLife((Step("RUNNING", 1.0), Step("COMPLETED", 2.0)))
        files = (FileLife(mapped_after=1.0, job=job),)
        sim.world.plant(a_life(("RUNNING", 0), ("COMPLETED", 5), files=files))
        await at.polls()
        sim.faults.switch_on(Switch(kind="status", status=403, path="/api/v2/parse"))
        async with watching(at):
            failing = await told(at, lambda types: "watch.failing" in types)
            assert [one for one in at.watcher.troubles() if one.startswith("settling")]
            sim.faults.clear()
            rest = await told(at, lambda types: "watch.recovered" in types)

    assert "batch.completed" in failing
    assert "batch.settled" in rest


async def test_an_old_batch_that_does_not_answer_holds_up_no_other(stand: Standing) -> None:
    """Each pass asks for those that are not being asked for already."""
    clock = ManualClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock) as at:
        hung = sim.world.plant(a_life(("RUNNING", 0), ("COMPLETED", FOR_EVER)))
        steps = (("RUNNING", 0), ("THROTTLED", 90_000), ("RUNNING", 91_000), ("COMPLETED", 92_000))
        other = sim.world.plant(a_life(*steps))
        await at.polls()
        clock.advance(24 * 3600)
        sim.world.plant(a_life(("RUNNING", 0), ("COMPLETED", FOR_EVER)))
        await at.polls()
        await at.told()
        sim.faults.switch_on(hang(f"/api/v2/batches/{hung.id}"))
        statuses: list[str] = []
        async with watching(at):
            while statuses[-1:] != ["COMPLETED"]:
                statuses += [
                    one["data"]["batch"]["status"]
                    for one in await heard(at)
                    if one["type"] != "batch.settled"
                ]
        gets = sim.requests["GET /api/v2/batches/{id}"]

    assert ["THROTTLED", "RUNNING", "COMPLETED"] == statuses
    assert other.id != hung.id
    assert gets > 3


async def test_a_pass_that_does_not_end_is_an_alarm(stand: Standing) -> None:
    """A listing that hangs fails nothing, and still nobody watches."""
    clock = ManualClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock) as at:
        sim.faults.switch_on(hang("/api/v2/batches"))
        async with watching(at, asleep=1):
            (event,) = await heard(at)
            troubles = at.watcher.troubles()

    assert "watch.failing" == event["type"]
    assert 0 < seconds_to(event) - SILENCE_TO_ALARM < 3 * LOOK_EVERY
    assert "the present pass has lasted" in event["data"]["reason"]
    assert "the present pass has lasted" in "; ".join(troubles)


async def test_a_long_pause_that_upstream_asks_for_is_seen_and_told(stand: Standing) -> None:
    """A 429 counts for the whole account: it is obeyed, and it is no secret."""
    clock = ManualClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock) as at:
        pause = Switch(kind="429-retry-after", probability=1, seconds=600, for_requests=1)
        sim.faults.switch_on(pause)
        async with watching(at):
            events = await heard(at)
            while len(events) < 2:
                events += await heard(at)

    assert ["watch.failing", "watch.recovered"] == [event["type"] for event in events]
    assert seconds_to(events[0]) < SILENCE_TO_ALARM + 3 * LOOK_EVERY
    assert 600 <= seconds_to(events[1])
    assert "LlamaCloud has asked for another" in events[0]["data"]["reason"]  # as in troubles()


@pytest.mark.parametrize("fault", ["looped", "hangs"])
async def test_old_batches_are_looked_at_though_no_listing_ends(
    stand: Standing, fault: str
) -> None:
    """Discovery goes in circles, or waits for an answer; the batches that are known go on."""
    clock = ManualClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock) as at:
        old = sim.world.plant(
            a_life(("RUNNING", 0), ("THROTTLED", 12 * 3600 + 60), ("COMPLETED", FOR_EVER))
        )
        await at.polls()
        clock.advance(12 * 3600)
        sim.world.plant(a_life(("RUNNING", 0), ("COMPLETED", FOR_EVER)))
        await at.polls()
        await at.told()
        at.outbox.signal(HOOK).clear()
        clock.advance(60)
        loop = Switch(kind="looped", probability=1)
        sim.faults.switch_on(loop if fault == "looped" else hang("/api/v2/batches", requests=1))
        found: list[dict[str, Any]] = []
        async with watching(at, asleep=2 if fault == "looped" else 1):
            while not found:  # that the watch fails may be told before it
                found = [one for one in await heard(at) if one["type"] != "watch.failing"]

    (event,) = found
    assert ("batch.throttled", old.id) == (event["type"], event["data"]["batch"]["id"])


async def test_a_watch_that_no_longer_goes_round_is_stalled(stand: Standing) -> None:
    """Whatever LlamaCloud does, it looks every few seconds whether its passes end."""
    clock = ManualClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock) as at:
        sim.faults.switch_on(hang("/api/v2/batches"))
        async with watching(at, asleep=1):
            await heard(at)
            assert not at.watcher.is_stalled
        clock.advance(STALLED + 1)

        assert at.watcher.is_stalled


async def test_what_alarms_go_by_is_there_before_the_first_pass(stand: Standing) -> None:
    """A watch that never had a good pass would be no series, and no alarm would see it."""
    clock = ManualClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock) as at:
        shown = {
            name: at.metrics.registry.get_sample_value(
                f"batchwatch_{name}", {"watch": at.watch.name}
            )
            for name in (
                "last_good_poll_timestamp_seconds",
                "budget_requests",
                "budget_requests_per_second",
            )
        }

    assert [0.0, 1000.0, 1000.0] == list(shown.values())
