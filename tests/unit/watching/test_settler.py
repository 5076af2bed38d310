"""Follow jobs to their ends: exactly, with few requests, and whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from batchwatch.domain.batch import COMPLETED, FileOutcome
from batchwatch.domain.cadence import UNSHOWN_FOR
from batchwatch.domain.changes import Recorder
from batchwatch.llamacloud.budget import Budget
from batchwatch.llamacloud.errors import CloudError, ServerFault
from batchwatch.simulator import SCENARIOS, FileLife, Simulator, Switch, a_life
from batchwatch.simulator.history import history
from batchwatch.simulator.life import JobLife, Step
from tests.support.builders import a_sighting
from tests.support.clock import EPOCH, LeapClock, ManualClock

if TYPE_CHECKING:
    from tests.unit.watching.conftest import Stand, Standing

DAY = 24 * 3600.0
ENDS = {"COMPLETED": "succeeded", "FAILED": "failed", "CANCELLED": "cancelled"}


def a_file(ended: float, status: str = "COMPLETED", error: str | None = None) -> FileLife:
    """A file whose job ends so many seconds after its batch was created."""
    steps = (Step("PENDING", 1.0), Step("RUNNING", 1.5), Step(status, ended))
    return FileLife(mapped_after=1.0, job=JobLife(steps, error))


async def settled(at: Stand, *, seconds: float = 400, every: float = 15) -> list[dict[str, Any]]:
    """Poll and settle, as a daemon does, for a time; every ``batch.settled`` that is told."""
    end = at.clock.monotonic() + seconds
    next_poll = at.clock.monotonic()
    while at.clock.monotonic() < end:
        if at.clock.monotonic() >= next_poll:
            await at.polls(1, every=0, bad=True)
            next_poll = at.clock.monotonic() + every
        pause = await at.settler.until_settle()
        if pause is not None and pause <= 0:
            with contextlib.suppress(CloudError):  # it is due again
                await at.settler.settle()
            pause = await at.settler.until_settle()
        left = next_poll - at.clock.monotonic()
        at.clock.advance(max(0.1, left if pause is None else min(left, pause)))
    return [event for event in await at.told() if event["type"] == "batch.settled"]


def truth_of(sim: Simulator) -> dict[str, dict[str, tuple[str, str | None]]]:
    """By batch, by file: its fate and its mapping error, from the simulator's own history."""
    found: dict[str, dict[str, tuple[str, str | None]]] = {}
    for batch in history(sim.world):
        files = found[batch["id"]] = {}
        for file in batch["files"]:
            job, error = file["job"], file["error_message"]
            fate = "unmapped" if error else "jobless"
            if job is not None:
                fate = ENDS.get(job["history"][-1]["status"], "unknown")
            files[file["source_directory_file_id"]] = (fate, error)
    return found


def assert_true(event: dict[str, Any], files: dict[str, tuple[str, str | None]]) -> None:
    """What ``batch.settled`` says of the files is what truly became of each."""
    told = event["data"]["settled"]
    counts = Counter(fate for fate, _ in files.values())
    assert {"files": len(files), **counts} == {
        k: v for k, v in told["counts"].items() if v or k == "files"
    }
    wrong = {file for file, (fate, _) in files.items() if fate not in ("succeeded", "unknown")}
    assert wrong == set(told["retry"]["source_directory_file_ids"])
    assert len(wrong) == sum(group["count"] for group in told["groups"])
    assert min(len(wrong), 50) == len(told["failures"])
    for failure in told["failures"]:
        fate, error = files[failure["source_directory_file_id"]]
        assert fate == failure["fate"]
        if fate == "failed":
            assert "The document is encrypted" == failure["message"]
        else:
            assert error == failure["message"]


SCENES = {
    **{name: one for name, one in SCENARIOS.items() if name not in ("storm", "big")},
    "storm": replace(SCENARIOS["storm"], batches=25),
    "big": replace(SCENARIOS["big"], batches=1),
}
LONG = {"storm": (DAY, 3_600.0), "stuck": (1.5 * DAY, 7_200.0)}  # how long, and how often it polls


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", SCENES)
async def test_what_is_told_of_the_files_is_what_became_of_them(
    stand: Standing, name: str, seed: int
) -> None:
    """In every scenario: each count, each failure and its words, and each file to run again."""
    clock = LeapClock()
    async with (
        Simulator(scenario=SCENES[name], seed=seed, clock=clock) as sim,
        stand(sim, clock, notify_backlog=True, settle_deadline=timedelta(hours=2)) as at,
    ):
        seconds, every = LONG.get(name, (300.0, 15.0))
        told = await settled(at, seconds=seconds, every=every)
        ended = {
            one["id"]
            for one in history(sim.world)
            if one["history"][-1]["status"] in ("COMPLETED", "CANCELLED")
        }
        told += await settled(at, seconds=seconds / 2, every=every)  # what had ended by then
        truth = truth_of(sim)

    # A batch that failed has no results; that is told where its end was told without knowing.
    without = [one for one in told if one["data"]["settled"]["state"] == "no_results"]
    assert {"FAILED"} >= {event["data"]["batch"]["status"] for event in without}
    by_batch = {event["data"]["batch"]["id"]: event for event in told if event not in without}
    assert len(by_batch) == len(told) - len(without)  # each once
    assert ended <= by_batch.keys()
    for batch_id, event in by_batch.items():
        assert_true(event, truth[batch_id])


def a_thousand(first: float, last: float) -> tuple[FileLife, ...]:
    """A thousand files whose jobs end in this time after COMPLETED, in no order."""
    dice = random.Random(20261126)
    files = [a_file(END + dice.uniform(first, last)) for _ in range(990)]
    files += [a_file(END + dice.uniform(first, last), "FAILED", "no pages") for _ in range(6)]
    files += [FileLife(mapped_after=2.0)] * 2  # neither a job nor an error
    files += [FileLife(mapped_after=2.0, error_message="not a PDF")] * 2
    dice.shuffle(files)
    return tuple(files)


END = 30.0
POLLS = {"GET /api/v2/batches"}
SOON = (("PENDING", 0.0), ("RUNNING", 1.0), ("COMPLETED", END))


@pytest.mark.parametrize(
    ("first", "last"),
    [(-20, -1), (1, 20), (120, 300), (0, 600), (60, 1800)],
)
async def test_a_batch_of_a_thousand_files_costs_twenty_five_requests(
    stand: Standing, first: float, last: float
) -> None:
    """From its creation until it is settled, but for the polls; with the files' names, too."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock, file_names=True) as at:
        await at.polls()
        sim.world.plant(a_life(*SOON, files=a_thousand(first, last)))
        (told,) = await settled(at, seconds=END + 2 * last + 100, every=30)
        spent = {route: n for route, n in sim.requests.items() if route not in POLLS}

    counts = told["data"]["settled"]["counts"]
    assert {"files": 1000, "succeeded": 990, "failed": 6, "jobless": 2, "unmapped": 2} == {
        fate: count for fate, count in counts.items() if count
    }
    assert 25 >= sum(spent.values()), spent


async def test_small_batches_share_their_questions(stand: Standing) -> None:
    """Thirty batches of three files are one question, each time; not thirty."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock) as at:
        await at.polls()
        files = (a_file(20.0), a_file(25.0), a_file(28.0, "FAILED", "no pages"))
        for _ in range(30):
            sim.world.plant(a_life(*SOON, files=files))
        told = await settled(at, seconds=60)

    assert 30 == len(told)
    assert {("complete", 2, 1)} == {
        (data["state"], data["counts"]["succeeded"], data["counts"]["failed"])
        for data in (event["data"]["settled"] for event in told)
    }
    assert 1 == sim.requests["GET /api/v2/parse"]


async def test_jobs_that_end_soon_are_told_soon(stand: Standing) -> None:
    """A small batch whose jobs end seconds after it is settled seconds after that."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock) as at:
        await at.polls()
        last = END + 7.5
        sim.world.plant(a_life(*SOON, files=(a_file(END + 4), a_file(last))))
        (told,) = await settled(at, seconds=90, every=1)

    settled_at = (datetime.fromisoformat(told["data"]["observed_at"]) - EPOCH).total_seconds()
    assert 0 <= settled_at - last <= 5


async def test_names_cost_one_question_and_none_where_they_are_known(stand: Standing) -> None:
    """Failures are told by name; a second batch over the same files asks for nothing."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock, file_names=True) as at:
        await at.polls()
        life = a_life(*SOON, files=(a_file(20.0), a_file(21.0, "FAILED", "no pages")))
        first = sim.world.plant(life)
        sim.world._add(  # noqa: SLF001  # a second batch over one directory, which no client makes here
            type(first)(
                first.directory, ("again", 1), sim.world.now(), config=first.config, life=life
            )
        )
        told = await settled(at, seconds=60)
        (shown,) = await at.views.batch(first.id)

    assert 2 == len(told)
    for event in told:
        (failure,) = event["data"]["settled"]["failures"]
        assert failure["name"].endswith("-0002.pdf")
        assert [failure["name"]] == [
            one["name"] for group in event["data"]["settled"]["groups"] for one in group["examples"]
        ]
    assert 1 == sim.requests["GET /api/v1/beta/directories/{id}/files"]
    assert ["succeeded", "failed"] == [one["fate"] for one in shown["files"]]
    assert all(one["name"] for one in shown["files"])


@pytest.mark.parametrize("status", [404, 500])
async def test_trouble_with_names_holds_nothing_up(stand: Standing, status: int) -> None:
    """They are asked for once; then the batch is settled without them."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock, file_names=True) as at:
        await at.polls()
        sim.faults.switch_on(Switch(kind="status", status=status, path="/api/v1/beta"))
        sim.world.plant(a_life(*SOON, files=(a_file(END + 60, "FAILED", "no pages"),)))
        (told,) = await settled(at, seconds=400)

    assert [None] == [one["name"] for one in told["data"]["settled"]["failures"]]
    assert sim.requests["GET /api/v1/beta/directories/{id}/files"] in (
        1,
        4,
    )  # tries of one question


async def test_a_job_that_no_answer_shows_is_unknown_after_an_hour(stand: Standing) -> None:
    """And is not among the files to run again; the others of its batch are told as they are."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock) as at:
        await at.polls()
        lost, other = a_file(20.0), a_file(21.0, "CANCELLED")
        batch = sim.world.plant(a_life(*SOON, files=(lost, other)))
        sim.world.jobs()
        sim.world._forget_jobs(batch)  # noqa: SLF001  # upstream loses them; one comes back
        job = batch.files[1].job
        assert job is not None
        sim.world._jobs[job.id] = job  # noqa: SLF001
        told = await settled(at, seconds=UNSHOWN_FOR.total_seconds() - 60)
        assert [] == told
        (event,) = await settled(at, seconds=1_800)

    data = event["data"]["settled"]
    assert ("given_up", 1, 1) == (
        data["state"], data["counts"]["unknown"], data["counts"]["cancelled"],
    )  # fmt: skip
    assert [batch.files[1].source.id] == data["retry"]["source_directory_file_ids"]


async def test_a_file_that_gets_its_job_late_is_followed(stand: Standing) -> None:
    """It had none when the results were taken; the second look finds it."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock) as at:
        await at.polls()
        late = FileLife(mapped_after=END + 20, job=JobLife((Step("COMPLETED", END + 20),)))
        sim.world.plant(a_life(*SOON, files=(a_file(20.0), late)))
        (told,) = await settled(at, seconds=120)

    assert 2 == told["data"]["settled"]["counts"]["succeeded"]
    assert 2 == sim.requests["GET /api/v2/batches/{id}"]
    assert 2 == sim.requests["GET /api/v2/parse"]


async def test_a_restart_goes_on_where_it_was(stand: Standing) -> None:
    """All that matters is in the store: what was asked for already is not asked for again."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim:
        files = tuple(a_file(20.0 if n < 240 else END + 60) for n in range(250))
        async with stand(sim, clock) as at:
            await at.polls()
            sim.world.plant(a_life(*SOON, files=files))
            assert [] == await settled(at, seconds=36)
            asked = sim.requests["GET /api/v2/parse"]
        async with stand(sim, clock) as at:
            (told,) = await settled(at, seconds=200)

    assert 250 == told["data"]["settled"]["counts"]["succeeded"]
    assert 3 == asked  # all of it, for few of the last chunk still run
    rounds = sim.requests["GET /api/v2/parse"] - asked
    assert rounds < 8  # the ten that are open, and no other


async def test_one_batch_whose_jobs_cannot_be_had_holds_up_no_other(
    stand: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They share a question; when that fails, each has its own."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock) as at:
        await at.polls()
        good = sim.world.plant(a_life(*SOON, files=(a_file(20.0),)))
        bad = sim.world.plant(a_life(*SOON, files=(a_file(20.0),)))
        poison = bad.files[0].job
        assert poison is not None
        original = at.cloud.jobs

        async def jobs(job_type: str, ids: list[str], **more: Any) -> Any:
            if poison.id in ids:
                raise ServerFault("a fault", where="GET /jobs", what_to_do="", status=500)
            return await original(job_type, ids, **more)

        monkeypatch.setattr(at.cloud, "jobs", jobs)
        (told,) = await settled(at, seconds=100)

    assert good.id == told["data"]["batch"]["id"]


async def test_a_hundred_large_batches_starve_no_discovery(stand: Standing) -> None:
    """With a small budget, each listing goes out with the very next request, however many wait."""
    clock = ManualClock()
    budget = Budget(rate=20 / 60, burst=5, clock=clock)
    async with Simulator(clock=clock) as sim, stand(sim, clock, budget=budget) as at:
        await at.watches.begin(at.watch.name, now=clock.now())
        recorder = Recorder(at.watch.name, sim.url)
        for batch in range(100):
            files = tuple(
                FileOutcome(f"dfl-{batch}-{n}", "parse_v2", f"pjb-{batch}-{n}") for n in range(1000)
            )
            seen = a_sighting(COMPLETED, batch_id=f"bat-{batch}", asked_results=True, results=files)
            decide = partial(recorder.record, seen=[seen], now=clock.now())
            await at.batches.change(at.watch.name, [seen.id], decide)
        await at.told()
        settling = asyncio.create_task(at.settler.settle())
        await sim.asked(5)  # the burst is spent, and whoever is next waits
        await clock.next_sleeper()
        found = []
        for turn in range(3):
            new = sim.world.plant(a_life(("PENDING", 0), ("COMPLETED", 1e9)))
            discovery = asyncio.create_task(at.poller.discover())
            await clock.next_sleeper(among=2)  # it is first in the queue now
            listed = sim.requests["GET /api/v2/batches"]
            clock.advance(3.0)  # one request
            await discovery
            assert listed + 1 == sim.requests["GET /api/v2/batches"]
            assert 5 + turn == sim.requests["GET /api/v2/parse"]
            found += [event["data"]["batch"]["id"] for event in await at.told()]
            assert new.id == found[-1]
            clock.advance(3.0)  # and one for those that wait
            await sim.asked(5 + 2 * (turn + 1))
        settling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await settling
