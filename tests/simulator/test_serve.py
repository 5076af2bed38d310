"""The simulator as a command runs it: on a port, until it is told to stop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from batchwatch.clock import Clock
from batchwatch.simulator import SCENARIO_NAMES, Simulator, serve
from tests.simulator.asking import BATCHES, a_client, read

if TYPE_CHECKING:
    from collections.abc import MutableMapping


async def served(stop: asyncio.Event, **options: Any) -> None:
    """Serve with these options and the usual ones for the rest."""
    usual: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": 0,
        "seed": 0,
        "speed": 1.0,
        "scenario": "calm",
        "api_key": "llx-simulator",
        "clock": Clock(),
    }
    await serve(stop=stop, **usual | options)


async def stopped_at_once(**options: Any) -> list[MutableMapping[str, Any]]:
    """What is logged by a simulator that was told to stop before it began."""
    stop = asyncio.Event()
    stop.set()
    with capture_logs() as logs:
        await served(stop, **options)
    return logs


async def test_it_says_where_it_listens_and_stops_when_told() -> None:
    """The URL, with what makes the run repeatable."""
    logs = await stopped_at_once(seed=7)

    assert ["simulator.started", "simulator.stopped"] == [log["event"] for log in logs]
    assert ("calm", 7) == (logs[0]["scenario"], logs[0]["seed"])
    assert logs[0]["url"].startswith("http://127.0.0.1:")


async def test_a_host_that_others_can_reach_is_warned_of() -> None:
    """It has no secret, so it is not refused."""
    logs = await stopped_at_once(host="0.0.0.0")  # noqa: S104  # what the test is about

    assert ("simulator.exposed", "warning") == (logs[0]["event"], logs[0]["log_level"])


async def test_a_port_that_is_taken_is_an_error() -> None:
    """Of the kind that names the port."""
    async with Simulator() as first:
        port = int(first.url.rpartition(":")[2])
        with pytest.raises(OSError, match=str(port)):
            await served(asyncio.Event(), port=port)


async def test_an_unknown_scenario_is_an_error_that_names_those_there_are() -> None:
    """So that the next try is right."""
    with pytest.raises(ValueError, match="calm, lively") as refusal:
        await served(asyncio.Event(), scenario="clam")

    assert all(name in str(refusal.value) for name in SCENARIO_NAMES)


async def test_another_key_is_the_only_one() -> None:
    """The default is not a second way in."""
    statuses = []
    async with Simulator(api_key="llx-mine") as sim:
        for key in ("llx-mine", "llx-simulator"):
            async with a_client(sim, key) as http, http.get(BATCHES) as answer:
                statuses.append(answer.status)

    assert [200, 401] == statuses


@pytest.mark.parametrize("scenario", SCENARIO_NAMES)
async def test_every_scenario_can_be_served(scenario: str) -> None:
    """And its truth read."""
    async with Simulator(scenario=scenario) as sim, aiohttp.ClientSession(sim.url) as http:
        answer = await read(http, "/sim/stats")

    assert {"requests", "faults", "webhooks"} == answer.keys()
