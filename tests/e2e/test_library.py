"""The library in a program: the daemon's rules, with a loop in place of receivers."""

from __future__ import annotations

import subprocess
import sys
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any

import pytest

import batchwatch
from batchwatch.simulator import Simulator
from batchwatch.simulator.history import history
from batchwatch.simulator.scenarios import SCENARIOS

if TYPE_CHECKING:
    from pathlib import Path

ENDS = {"batch.completed", "batch.failed", "batch.cancelled"}


def watched(sim: Simulator, **more: Any) -> Any:
    given = {"api_key": "llx-simulator", "base_url": sim.url, "interval": "100ms", **more}
    return aclosing(batchwatch.watch(**given))


async def until_ended(sim: Simulator, count: int, **more: Any) -> list[batchwatch.Event]:
    """What was yielded until so many batches had ended; the loop is left at the last end."""
    told: list[batchwatch.Event] = []
    ended: set[str | None] = set()
    async with watched(sim, **more) as events:
        async for event in events:
            told.append(event)
            if event.type in ENDS:
                ended.add(event.batch_id)
            if len(ended) == count:
                break
    return told


def statuses(told: list[batchwatch.Event]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for event in told:
        if event.batch_id is not None:
            status = event.data["batch"]["status"]
            steps = found.setdefault(event.batch_id, [])
            if steps[-1:] != [status]:
                steps.append(status)
    return found


async def test_a_loop_is_given_what_truly_happened() -> None:
    """Each batch of a lively project, in order, to its true end."""
    async with Simulator(scenario="lively", seed=3, speed=4) as sim:
        count = SCENARIOS["lively"].batches
        told = statuses(await until_ended(sim, count))
        truth = {one["id"]: one["history"] for one in history(sim.world)}
    assert truth.keys() == told.keys()
    for batch_id, steps in told.items():
        true = iter(step["status"] for step in truth[batch_id])
        assert all(step in true for step in steps)
        assert truth[batch_id][-1]["status"] == steps[-1]


async def test_what_a_loop_was_in_the_midst_of_is_given_again(tmp_path: Path) -> None:
    """With a store, an event is taken when the next is asked for; a repeat keeps its id."""
    store = tmp_path / "batches.db"
    async with Simulator(scenario="lively", seed=5, speed=4) as sim:
        first: list[batchwatch.Event] = []
        async with watched(sim, store=store) as events:
            async for event in events:
                first.append(event)
                if len(first) == 3:
                    break
        rest = await until_ended(sim, SCENARIOS["lively"].batches, store=store)
    assert first[-1] == rest[0]
    ids = [event.id for event in [*first[:-1], *rest]]
    assert len(ids) == len(set(ids))


async def test_an_error_in_the_loop_leaves_its_event_owed(tmp_path: Path) -> None:
    """The body of the loop is the receiver: what it broke over, it has not taken."""
    store = tmp_path / "batches.db"
    broke_over = None
    async with Simulator(scenario="lively", seed=6, speed=4) as sim:
        with suppress(ZeroDivisionError):
            async with watched(sim, store=store) as events:
                async for event in events:
                    broke_over = event
                    raise ZeroDivisionError
        assert broke_over is not None
        async with watched(sim, store=store) as events:
            assert broke_over == await anext(events)


async def test_only_the_types_that_were_asked_for_are_yielded() -> None:
    """By name or by group, and one that is not asked for by default can be had."""
    async with Simulator(scenario="lively", seed=7, speed=4) as sim:
        told = await until_ended(
            sim, 5, events=["batch.discovered", "batch.completed", "batch.failed"]
        )
    assert {"batch.discovered", "batch.completed"} <= {one.type for one in told}
    assert {one.type for one in told} <= {"batch.discovered", "batch.completed", "batch.failed"}


async def test_a_key_that_is_refused_is_told(recwarn: pytest.WarningsRecorder) -> None:
    """The loop does not wait in silence for a key that will never be taken."""
    async with Simulator(scenario="calm", seed=1) as sim, watched(sim, api_key="llx-no") as events:
        event = await anext(events)
    assert event.type == "watch.failing"
    assert event.batch_id is None
    assert "api_key" in event.data["reason"]
    assert "llx-no" not in str(event)
    assert not recwarn.list


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"interval": "often"}, "interval"),
        ({"base_url": "ftp://x"}, "base_url"),
        ({"events": ["batch.complete"]}, "events"),
        ({"project_id": "no such thing"}, "project_id"),
        ({"api_key": None}, "api_key"),
    ],
)
async def test_a_wrong_parameter_is_named(
    wrong: dict[str, Any], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the name that it has here, whatever the daemon calls it."""
    for variable in ("LLAMA_CLOUD_API_KEY", "LLAMA_PARSE_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    given = {"api_key": "llx-any", **wrong}
    with pytest.raises(batchwatch.SettingsError) as caught:
        await anext(batchwatch.watch(**given))
    assert [one.name for one in caught.value.problems] == [named]


async def test_a_store_that_somebody_has_is_refused(tmp_path: Path) -> None:
    """Two loops over one store would each be given half."""
    store = tmp_path / "batches.db"
    async with (
        Simulator(scenario="lively", seed=8, speed=4) as sim,
        watched(sim, store=store) as events,
    ):
        await anext(events)
        with pytest.raises(batchwatch.StoreError, match="uses this store"):
            await anext(batchwatch.watch(api_key="llx-x", base_url=sim.url, store=store))


def test_the_package_alone_imports_nothing_heavy() -> None:
    """A command that needs none of it must not wait for it; what it lends is there all the same."""
    script = (
        "import sys, batchwatch; assert 'aiohttp' not in sys.modules; "
        "batchwatch.watch; assert 'aiohttp' in sys.modules; print(batchwatch.__version__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == batchwatch.__version__
