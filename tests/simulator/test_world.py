"""The world: a function of seed and time, whoever looks at it and when."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchwatch.simulator import SCENARIOS, Simulator, a_life
from batchwatch.simulator.directory import DirectoryWish
from batchwatch.simulator.history import history, seen
from batchwatch.simulator.job import JobConfig
from batchwatch.simulator.timeline import Timeline
from batchwatch.simulator.world import World
from tests.simulator.asking import BATCHES, every_page, ids, read
from tests.support.clock import EPOCH, ManualClock

if TYPE_CHECKING:
    import aiohttp

A_LIFE = (("PENDING", 0), ("RUNNING", 5), ("COMPLETED", 20))
small_scenarios = st.sampled_from(sorted(SCENARIOS.keys() - {"storm", "big"}))


def a_world(name: str, *, seed: int = 0, speed: float = 1, clock: ManualClock) -> World:
    """A world without a server."""
    return World(SCENARIOS[name], seed=seed, timeline=Timeline(clock, speed=speed))


@given(small_scenarios, st.integers(0, 1_000), st.lists(st.floats(0.01, 20), max_size=5))
def test_it_does_not_matter_when_somebody_looks(name: str, seed: int, looks: list[float]) -> None:
    """Seen often or once, by the end the same has happened in two worlds of one seed."""
    clock = ManualClock()
    watched, alone = (a_world(name, seed=seed, clock=clock) for _ in range(2))
    for pause in looks:
        clock.advance(pause)
        history(watched)
    clock.advance(100)

    assert history(alone) == history(watched)


def test_another_seed_is_another_world() -> None:
    """With other ids and other lives."""
    clock = ManualClock()
    one, other = (a_world("lively", seed=seed, clock=clock) for seed in (1, 2))
    clock.advance(100)

    ids_of_both = {batch["id"] for world in (one, other) for batch in history(world)}
    assert 48 == len(ids_of_both)


def test_what_clients_create_changes_no_other_life() -> None:
    """Batches that appear by themselves have lives of their own."""
    clock = ManualClock()
    crowded, quiet = (a_world("lively", clock=clock) for _ in range(2))
    directory = crowded.make_directory(DirectoryWish(name="mine"))
    for _ in range(3):
        clock.advance(1)
        crowded.make_batch(directory, JobConfig("parse_v2", "cfg-X"))
    clock.advance(100)

    mine = [batch.id for batch in crowded.ever if batch.directory is directory]
    others = [batch for batch in history(crowded) if batch["id"] not in mine]
    assert history(quiet) == others


def test_speed_shortens_lives_but_not_the_calendar() -> None:
    """A simulated minute in a second, and timestamps that a client's window is right about."""
    clock = ManualClock()
    world = a_world("calm", speed=60, clock=clock)
    clock.advance(10)
    batch = world.plant(a_life(("PENDING", 0), ("RUNNING", 60)))
    clock.advance(1)

    [one] = history(world)

    assert [
        {"status": "PENDING", "at": "2026-11-24T08:00:10.000000Z"},
        {"status": "RUNNING", "at": "2026-11-24T08:00:11.000000Z"},
    ] == one["history"]
    assert "RUNNING" == batch.status(world.now())


def test_a_wall_that_is_set_back_makes_nothing_unhappen() -> None:
    """The server's calendar follows the monotonic clock."""
    clock = ManualClock()
    world = a_world("lively", clock=clock)
    clock.advance(100)
    before = history(world)
    clock.jump(-3_600)

    assert before == history(world)


@pytest.mark.parametrize("speed", [0, -1, float("inf"), float("nan")])
def test_an_impossible_speed_is_refused(speed: float) -> None:
    """By name and value."""
    with pytest.raises(ValueError, match="speed"):
        Timeline(ManualClock(), speed=speed)


def test_a_batch_may_be_older_than_anybody_looks_back() -> None:
    """Tests set such scenes; the batch is where its age puts it."""
    clock = ManualClock()
    world = a_world("calm", clock=clock)
    world.plant(a_life(*A_LIFE))
    days_ago = EPOCH - timedelta(days=3)
    old = world.plant(
        a_life(("PENDING", 0), ("RUNNING", 60), ("COMPLETED", 300_000)), created=days_ago
    )

    assert old is world.batches[0]
    assert "RUNNING" == old.status(world.now())


def test_a_storm_is_ten_thousand_batches_that_are_active() -> None:
    """From the first moment, and some hundred of them change in the next ten seconds."""
    clock = ManualClock()
    world = a_world("storm", clock=clock)
    before = [batch.status(world.now()) for batch in world.batches]
    clock.advance(10)
    after = [batch.status(world.now()) for batch in world.batches]

    assert {"PENDING"} == set(before)
    assert 10_000 == len(before)
    assert 70 < sum(one != other for one, other in zip(before, after, strict=True)) < 130


async def test_the_history_is_what_could_be_seen(
    sim: Simulator, http: aiohttp.ClientSession, clock: ManualClock
) -> None:
    """A client that looks at every change sees just what the history tells."""
    sim.world.plant(a_life(*A_LIFE), files=2)
    observed: list[dict[str, str]] = []
    for _ in range(30):
        [item] = (await read(http, BATCHES))["items"]
        sighting = {"status": item["status"], "at": item["updated_at"]}
        if sighting not in observed:
            observed.append(sighting)
        clock.advance(1)

    [truth] = (await read(http, "/sim/history"))["batches"]
    [item] = (await read(http, BATCHES))["items"]
    batch = await read(http, f"{BATCHES}/{item['id']}", expand="results")
    jobs = await every_page(http, "/api/v2/parse")
    assert observed == truth["history"]
    assert [one["source_directory_file_id"] for one in batch["results"]] == [
        file["source_directory_file_id"] for file in truth["files"]
    ]
    assert sorted(ids(jobs)) == sorted(file["job"]["id"] for file in truth["files"])
    assert {"id", "history", "files"} == truth.keys()
    assert {"source_directory_file_id", "error_message", "job"} == truth["files"][0].keys()
    assert {"type", "id", "history"} == truth["files"][0]["job"].keys()


async def test_the_future_is_not_in_the_history(sim: Simulator, clock: ManualClock) -> None:
    """Statuses, errors and jobs are told from when they happen."""
    sim.world.plant(a_life(*A_LIFE), files=1)
    clock.advance(4)

    [truth] = history(sim.world)

    assert ["PENDING"] == [step["status"] for step in truth["history"]]
    assert [(None, None)] == [(file["error_message"], file["job"]) for file in truth["files"]]


async def test_what_was_seen_is_what_answers_have_shown(
    sim: Simulator, http: aiohttp.ClientSession, clock: ManualClock
) -> None:
    """RUNNING fell between two looks; nobody can be blamed for not having told of it."""
    batch = sim.world.plant(a_life(*A_LIFE))
    await read(http, BATCHES)
    clock.advance(20)
    await read(http, f"{BATCHES}/{batch.id}")

    shown: dict[str, Any] = await read(http, "/sim/seen")

    assert {"batches": [{"id": batch.id, "statuses": ["PENDING", "COMPLETED"]}]} == shown
    assert shown["batches"] == seen(sim.world)


async def test_a_vanished_batch_is_found_nowhere_but_in_the_history(
    sim: Simulator, http: aiohttp.ClientSession
) -> None:
    """As if somebody had deleted it."""
    batch = sim.world.plant(a_life(*A_LIFE))

    async with http.delete(f"/sim/batches/{batch.id}") as answer:
        assert 204 == answer.status

    assert [[]] == await every_page(http, BATCHES)
    async with http.get(f"{BATCHES}/{batch.id}") as answer:
        assert 404 == answer.status
    assert [batch.id] == [one["id"] for one in history(sim.world)]
