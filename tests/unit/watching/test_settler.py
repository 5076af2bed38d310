"""Follow jobs to their ends: exactly, with few requests, and whatever happens meanwhile."""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from batchwatch.llamacloud.errors import CloudError
from batchwatch.simulator import SCENARIOS, FileLife, Simulator, a_life
from batchwatch.simulator.history import history
from batchwatch.simulator.life import JobLife, Step
from tests.support.clock import LeapClock

if TYPE_CHECKING:
    from tests.unit.watching.conftest import Stand, Standing

DAY = 24 * 3600.0
ENDS = {"COMPLETED": "succeeded", "FAILED": "failed", "CANCELLED": "cancelled"}
ASKED = {"/api/v2/batches/{id}", "/api/v2/parse", "/api/v2/extract"}


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


POLLS = {"GET /api/v2/batches"}
