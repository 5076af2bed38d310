"""One pass of a watch: what it finds, what it asks for, and what it makes of the answers."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from batchwatch.domain.cadence import MISSED_TO_VANISH, MISSES_TO_VANISH
from batchwatch.llamacloud.errors import Denied, PagingLoop
from batchwatch.simulator import FileLife, JobLife, Simulator, Step, Switch, a_life
from batchwatch.simulator.history import history
from tests.support.clock import LeapClock

if TYPE_CHECKING:
    from tests.unit.watching.conftest import Stand, Standing

LIFE = (("PENDING", 0.0), ("RUNNING", 10.0), ("COMPLETED", 60.0))
FILES = (
    FileLife(mapped_after=20, job=JobLife(steps=(Step("PENDING", 20), Step("COMPLETED", 25)))),
    FileLife(mapped_after=30, error_message="no pages"),
    FileLife(mapped_after=40),
)


async def test_a_batch_is_told_from_its_first_status_to_its_last(stand: Standing) -> None:
    """Each status that a pass saw, and with the end the outcome of each file."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock) as at:
        await at.polls()
        sim.world.plant(a_life(*LIFE, files=FILES))
        await at.polls(every=0)
        await at.polls(8, every=10)
        told = await at.told()

    assert ["batch.pending", "batch.running", "batch.completed"] == [e["type"] for e in told]
    results = told[-1]["data"]["results"]
    assert "complete" == results["state"]
    assert {"files": 3, "with_job": 1, "failed": 1, "without_job": 1} == results["counts"]
    assert {"PENDING": 10.0, "RUNNING": 50.0} == told[-1]["data"]["durations"]


async def test_what_ended_before_the_first_pass_is_told_to_nobody(stand: Standing) -> None:
    """It is the baseline: recorded, not notified, and not asked for its results."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock) as at:
        sim.world.plant(a_life(*LIFE), created=clock.now() - timedelta(hours=2))
        sim.world.plant(a_life(("PENDING", 0), ("RUNNING", 5), ("COMPLETED", 1e6)))
        await at.polls(2)

        assert ["batch.pending"] == await at.told_types()
        assert 2 == len(await at.views.batches())
        assert 0 == sim.requests["GET /api/v2/batches/{id}"]


async def test_the_backlog_is_told_to_those_who_ask_for_it(stand: Standing) -> None:
    """With `notify_backlog`, the first pass is like any other."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock, notify_backlog=True) as at:
        sim.world.plant(a_life(*LIFE, files=FILES), created=clock.now() - timedelta(hours=2))
        await at.polls()

        assert ["batch.completed"] == await at.told_types()


async def test_a_clock_that_is_ahead_does_not_make_the_backlog_news(stand: Standing) -> None:
    """What is backlog is decided by upstream's clock alone."""
    clock = LeapClock()
    async with Simulator(scenario="hostile", clock=clock, seed=3) as sim, stand(sim, clock) as at:
        sim.faults.clear()
        assert sim.world.scenario.skew
        sim.world.plant(a_life(*LIFE), created=clock.now() - timedelta(seconds=70))
        await at.poller.poll()

        assert "batch.completed" not in await at.told_types()


async def test_a_batch_that_came_and_went_while_the_daemon_was_down_is_told(
    stand: Standing,
) -> None:
    """The window reaches back to the last batch that was seen, however long the pause was."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim:
        async with stand(sim, clock) as at:
            sim.world.plant(a_life(*LIFE), created=clock.now() - timedelta(hours=1))
            await at.polls()
            assert [] == await at.told()
        clock.advance(3 * 24 * 3600)
        missed = sim.world.plant(
            a_life(*LIFE, files=FILES), created=clock.now() - timedelta(days=2)
        )
        async with stand(sim, clock) as at:
            await at.polls()
            told = await at.told()

    assert [("batch.completed", missed.id)] == [
        (event["type"], event["data"]["batch"]["id"]) for event in told
    ]
    assert 3 == told[0]["data"]["results"]["counts"]["files"]


async def test_a_batch_that_outlives_the_lookback_is_followed_to_its_end(stand: Standing) -> None:
    """No window shows it any more; it is looked at by itself."""
    clock = LeapClock()
    days = 24 * 3600.0
    async with Simulator(clock=clock) as sim, stand(sim, clock) as at:
        life = (("PENDING", 0), ("RUNNING", 60), ("THROTTLED", 3 * days), ("COMPLETED", 9 * days))
        sim.world.plant(a_life(*life, files=FILES))
        await at.polls()
        for _ in range(10):
            clock.advance(days)
            # Others come, and move the window on.
            sim.world.plant(a_life(("PENDING", 0), ("COMPLETED", 1e9)))
            await at.poller.poll()
        told = [
            e["data"]["batch"]["status"] for e in await at.told() if e["data"]["transition"] > 1
        ]

    assert ["RUNNING", "THROTTLED", "COMPLETED"] == told


async def test_many_old_batches_are_swept_and_not_fetched(stand: Standing) -> None:
    """A request for each would be a hundred times as many."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock) as at:
        for _ in range(300):
            sim.world.plant(a_life(("PENDING", 0), ("RUNNING", 5), ("COMPLETED", 1e6)))
        await at.polls()
        clock.advance(12 * 3600)
        sim.world.plant(a_life(("PENDING", 0), ("COMPLETED", 1e9)))
        await at.polls()
        (this,) = await at.polls()

    assert 1 + 3 == this.requests
    assert 301 == len(this.seen)


async def test_missing_results_are_waited_for_and_then_told_as_pending(stand: Standing) -> None:
    """Half a minute; then the event goes out, and they are stored when they come."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock) as at:
        await at.polls()
        batch = sim.world.plant(a_life(*LIFE, files=FILES, results_late=300))
        await at.polls(every=0)
        await at.polls(6, every=10)
        assert ["batch.pending", "batch.running"] == await at.told_types()
        await at.polls(3, every=10)
        (told,) = await at.told()
        assert ("batch.completed", "pending") == (told["type"], told["data"]["results"]["state"])
        await at.polls(60, every=10)
        assert [] == await at.told()
        (shown,) = await at.views.batch(batch.id)

    assert ("complete", 3) == (shown["results"], len(shown["files"]))


async def test_an_end_is_told_though_nobody_came_to_ask_for_its_results(stand: Standing) -> None:
    """Discovery goes on at its pace, and tells what has waited long enough."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock) as at:
        await at.polls()
        sim.world.plant(a_life(*LIFE, files=FILES))
        clock.advance(70)
        await at.poller.discover()
        clock.advance(31)
        await at.poller.discover()
        (told,) = await at.told()
        await at.poller.complete()
        (shown,) = await at.views.batches()

    assert ("batch.completed", "pending") == (told["type"], told["data"]["results"]["state"])
    assert "complete" == shown["results"]


async def test_a_restart_goes_on_waiting_for_results(stand: Standing) -> None:
    """What is awaited stands in the store."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim:
        async with stand(sim, clock) as at:
            await at.polls()
            sim.world.plant(a_life(*LIFE, files=FILES, results_late=15))
            await at.polls(7, every=10)
        clock.advance(10)
        async with stand(sim, clock) as at:
            await at.polls()
            told = await at.told()

    assert "complete" == told[-1]["data"]["results"]["state"]


async def test_a_batch_that_answers_404_has_vanished_after_several(stand: Standing) -> None:
    """One 404 may be a key that is just being changed."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock) as at:
        batch = sim.world.plant(a_life(("PENDING", 0), ("COMPLETED", 1e6)))
        await at.polls()
        await at.told()
        sim.world.vanish(batch)
        await at.polls(MISSES_TO_VANISH + 2)
        assert [] == await at.told()
        await at.polls(3, every=MISSED_TO_VANISH.total_seconds())

        assert ["batch.vanished"] == await at.told_types()
        assert [] == await at.batches.unseen(at.watch.name, seen=[])


async def test_a_batch_that_ends_and_is_gone_does_not_spin(stand: Standing) -> None:
    """A 404 for its results is asked again with backoff, and its end is told."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock) as at:
        await at.polls()
        batch = sim.world.plant(a_life(*LIFE, files=FILES))
        await at.polls(every=0)
        clock.advance(70)
        await at.poller.discover()
        sim.world.vanish(batch)
        await at.polls(12, every=10)

        assert ["batch.pending", "batch.completed"] == await at.told_types()
        assert 30 > sim.requests["GET /api/v2/batches/{id}"]


async def test_rows_that_become_visible_late_are_found(stand: Standing) -> None:
    """The windows overlap by more than upstream takes to show a row."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock) as at:
        late = sim.world.plant(a_life(("PENDING", 0), ("COMPLETED", 1e6), listed_after=120))
        sim.world.plant(a_life(("PENDING", 0), ("COMPLETED", 1e6)))
        await at.polls(14, every=10)
        told = {event["data"]["batch"]["id"] for event in await at.told()}

    assert late.id in told


async def test_a_listing_that_loops_keeps_the_cursor_where_it_was(stand: Standing) -> None:
    """What it showed is recorded; the window is asked for again, and known batches go on."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock) as at:
        sim.world.plant(a_life(*LIFE, files=FILES))
        await at.polls()
        before = await at.watches.state(at.watch.name)
        sim.faults.switch_on(Switch(kind="looped", probability=1, for_requests=2))
        clock.advance(100)
        with pytest.raises(PagingLoop):
            await at.poller.poll()

        assert before == await at.watches.state(at.watch.name)
        assert ["batch.pending", "batch.completed"] == await at.told_types()


async def test_one_batch_that_cannot_be_read_stops_no_other(stand: Standing) -> None:
    """A 500 for one is not an outage."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock) as at:
        await at.polls()
        bad, good = (sim.world.plant(a_life(*LIFE, files=FILES)) for _ in range(2))
        sim.faults.switch_on(Switch(kind="5xx", probability=1, path=f"/api/v2/batches/{bad.id}"))
        await at.polls(12, every=10, bad=True)
        told = {
            event["data"]["batch"]["id"]: event["data"]["results"]["state"]
            for event in await at.told()
            if event["type"] == "batch.completed"
        }

    assert {bad.id: "pending", good.id: "complete"} == told


async def test_a_key_that_is_refused_is_said_with_its_variable(stand: Standing) -> None:
    """Whoever reads the log knows what to mend."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock, api_key="llx-wrong") as at:
        with pytest.raises(Denied, match="LLAMA_CLOUD_API_KEY"):
            await at.poller.poll()


@pytest.mark.parametrize("seed", range(4))
async def test_a_hostile_upstream_is_told_as_it_was(stand: Standing, seed: int) -> None:
    """Every fault there is: what is told is part of what happened, in order, to the true end."""
    clock = LeapClock()
    async with (
        Simulator(scenario="hostile", seed=seed, clock=clock) as sim,
        stand(sim, clock) as at,
    ):
        await at.polls(150, every=0.5, bad=True)  # the next pass looks again
        told: dict[str, list[str]] = {}
        numbers: dict[str, list[int]] = {}
        for event in await at.told():
            data = event["data"]
            if "batch" in data and event["type"] != "batch.settled":
                told.setdefault(data["batch"]["id"], []).append(data["batch"]["status"])
                numbers.setdefault(data["batch"]["id"], []).append(data["transition"])
        truth = {
            one["id"]: [step["status"] for step in one["history"]] for one in history(sim.world)
        }

    assert truth.keys() == told.keys()
    for batch_id, statuses in told.items():
        rest = iter(truth[batch_id])
        assert all(status in rest for status in statuses), (statuses, truth[batch_id])
        assert truth[batch_id][-1] == statuses[-1]
        assert list(range(1, len(statuses) + 1)) == numbers[batch_id]


async def test_one_batch_that_is_refused_stops_no_other(stand: Standing) -> None:
    """A 403 for one is not a revoked key, which the listing would have met."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock) as at:
        old = [sim.world.plant(a_life(*LIFE, files=FILES)) for _ in range(2)]
        await at.polls(every=0)
        clock.advance(12 * 3600)
        sim.world.plant(a_life(("PENDING", 0), ("COMPLETED", 1e9)))
        refused = Switch(
            kind="status", status=403, probability=1, path=f"/api/v2/batches/{old[0].id}"
        )
        sim.faults.switch_on(refused)
        await at.polls(3, bad=True)
        told = {e["data"]["batch"]["id"] for e in await at.told() if e["type"] == "batch.completed"}

    assert {old[1].id} == told


def lags(at: Stand) -> list[float]:
    """How late changes were seen: how many, and in all."""
    return [
        at.metrics.registry.get_sample_value(
            f"batchwatch_detection_lag_seconds_{what}", {"watch": at.watch.name}
        )
        or 0.0
        for what in ("count", "sum")
    ]


async def test_it_is_measured_how_late_a_change_is_seen(stand: Standing) -> None:
    """From the moment that LlamaCloud names to the answer that shows it."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock) as at:
        await at.polls()
        sim.world.plant(a_life(*LIFE, files=FILES))
        await at.polls(every=4)
        assert [1, 4.0] == lags(at)

        await at.polls(every=9)  # it runs since the tenth second
        assert [2, 7.0] == lags(at)


async def test_what_changed_before_the_watch_began_was_not_seen_late(stand: Standing) -> None:
    """Nobody looked: a first look at a project of months would drown all others."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock) as at:
        sim.world.plant(a_life(*LIFE), created=clock.now() - timedelta(hours=2))
        sim.world.plant(a_life(("RUNNING", 0), ("COMPLETED", 1e6)))
        await at.polls(2)

        assert 2 == len(await at.views.batches())
        assert [0, 0.0] == lags(at)


@pytest.mark.parametrize("ahead", [-600, 600])
async def test_a_clock_of_ours_that_is_wrong_makes_no_lag(stand: Standing, ahead: float) -> None:
    """Upstream's own word for the time is compared with upstream's own."""
    theirs, ours = LeapClock(), LeapClock()
    async with Simulator(clock=theirs) as sim, stand(sim, ours) as at:
        ours.jump(ahead)
        await at.polls()
        sim.world.plant(a_life(*LIFE, files=FILES))
        theirs.advance(4)
        await at.polls(every=4)
        count, total = lags(at)

    assert 1 == count
    assert 2 <= total <= 6  # HTTP's Date has whole seconds
