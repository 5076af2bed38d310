"""What a plain client sees of lists, refusals and headers: the parts that the SDK hides."""

from __future__ import annotations

from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from batchwatch.simulator import SCENARIOS, Scenario, Simulator, a_life
from tests.simulator.asking import BATCHES, a_client, every_page, read, refused
from tests.support.clock import EPOCH

if TYPE_CHECKING:
    from tests.support.clock import ManualClock

A_LIFE = (("PENDING", 0), ("RUNNING", 5), ("COMPLETED", 20))


async def test_an_empty_list_has_no_next_page(http: aiohttp.ClientSession) -> None:
    """Null, as is the size that nobody can ask for."""
    empty: dict[str, Any] = {"items": [], "next_page_token": None, "total_size": None}

    assert empty == await read(http, BATCHES)


async def test_a_page_has_fifty_rows_unless_told_otherwise(
    sim: Simulator, http: aiohttp.ClientSession
) -> None:
    """And a full last page is followed by none."""
    for _ in range(100):
        sim.world.plant(a_life(*A_LIFE))

    assert [50, 50] == [len(page) for page in await every_page(http, BATCHES)]
    assert [100] == [len(page) for page in await every_page(http, BATCHES, page_size=1_000)]


async def test_rows_that_come_or_go_between_two_pages_move_no_others(
    sim: Simulator, http: aiohttp.ClientSession, clock: ManualClock
) -> None:
    """A token names a row, not a number of rows."""
    made = [sim.world.plant(a_life(*A_LIFE)) for _ in range(6)]
    listed = sorted(made, key=lambda batch: batch.key, reverse=True)
    page = await read(http, BATCHES, page_size=2)

    sim.world.vanish(listed[0])
    clock.advance(1)
    sim.world.plant(a_life(*A_LIFE))
    rest = await read(http, BATCHES, page_size=2, page_token=page["next_page_token"])

    assert [batch.id for batch in listed[2:4]] == [item["id"] for item in rest["items"]]


async def test_a_batch_looks_the_same_wherever_it_is_shown(
    sim: Simulator, http: aiohttp.ClientSession, clock: ManualClock
) -> None:
    """In a list and alone, with the documented fields and no others."""
    batch = sim.world.plant(a_life(*A_LIFE))
    clock.advance(5)
    expected = {
        "id": batch.id,
        "project_id": sim.world.project.id,
        "source_directory_id": batch.directory.id,
        "config": {"job": {"type": "parse_v2", "configuration_id": "cfg-PLANTED"}},
        "status": "RUNNING",
        "results": None,
        "created_at": "2026-11-24T08:00:00.000000Z",
        "updated_at": "2026-11-24T08:00:05.000000Z",
    }

    assert [expected] == (await read(http, BATCHES))["items"]
    assert expected == await read(http, f"{BATCHES}/{batch.id}")


@pytest.mark.parametrize(
    ("params", "kind"),
    [
        ({"page_size": "1001"}, "less_than_equal"),
        ({"page_size": "0"}, "greater_than_equal"),
        ({"page_size": "many"}, "int_parsing"),
        ({"page_token": "not one of ours"}, "value_error"),
        ({"status": "VALIDATING"}, "enum"),
        ({"created_at_on_or_after": "yesterday"}, "datetime_parsing"),
        ({"created_at_on_or_before": "2026-11-24T08:00:00 00:00"}, "datetime_parsing"),
    ],
)
async def test_a_wrong_parameter_is_named(
    http: aiohttp.ClientSession, params: dict[str, str], kind: str
) -> None:
    """422 with a list of problems, each in the shape that FastAPI gives it."""
    status, detail = await refused(http, BATCHES, **params)

    [(name, given)] = params.items()
    assert 422 == status
    assert [(kind, ["query", name], given)] == [
        (problem["type"], problem["loc"], problem["input"]) for problem in detail
    ]


@pytest.mark.parametrize(
    ("body", "kind", "where"),
    [
        ({}, "missing", ["body", "config"]),
        ({"config": {}}, "missing", ["body", "config", "job"]),
        ({"config": {"job": {"type": "chat"}}}, "value_error", ["body", "config", "job", "type"]),
        ("text", "value_error", ["body"]),
    ],
)
async def test_a_wrong_body_is_named(
    http: aiohttp.ClientSession, body: object, kind: str, where: list[str]
) -> None:
    """Down to the field, as far as the first problem."""
    async with http.post(BATCHES, json=body) as answer:
        problem = (await answer.json())["detail"][0]

    assert (422, kind, where) == (answer.status, problem["type"], problem["loc"])


async def test_what_is_no_json_is_refused(http: aiohttp.ClientSession) -> None:
    """As is an upload without a file."""
    async with http.post(BATCHES, data=b"{") as answer:
        assert (422, "json_invalid") == (answer.status, (await answer.json())["detail"][0]["type"])
    async with http.post("/api/v1/beta/directories", json={"name": "a"}) as answer:
        directory = await answer.json()
    upload = f"/api/v1/beta/directories/{directory['id']}/files/upload"
    async with http.post(upload, data={"display_name": "a"}) as answer:
        assert ["body", "upload_file"] == (await answer.json())["detail"][0]["loc"]


async def test_a_directory_beyond_a_thousand_files_makes_no_batch(
    sim: Simulator, http: aiohttp.ClientSession
) -> None:
    """Upstream takes 1,000; what it answers to more is not documented."""
    directory = sim.world.plant(a_life(*A_LIFE), files=1_001).directory
    job = {"type": "parse_v2", "configuration_id": "cfg-X"}
    body = {"config": {"job": job}, "source_directory_id": directory.id}

    async with http.post(BATCHES, json=body) as answer:
        assert 400 == answer.status
        assert "1000" in (await answer.json())["detail"]


async def test_unknown_paths_and_methods_are_refused_in_the_same_shape(
    http: aiohttp.ClientSession,
) -> None:
    """A detail that is a text."""
    assert (404, "Not Found") == await refused(http, "/api/v2/nothing")
    async with http.delete(BATCHES) as answer:
        assert {"detail": "Method Not Allowed"} == await answer.json()


async def test_without_a_key_nothing_is_shown_but_the_truth(sim: Simulator) -> None:
    """Tests and demos that read /sim need none."""
    async with aiohttp.ClientSession(sim.url) as stranger:
        assert (401, "Invalid API key") == await refused(stranger, BATCHES)
        assert {"batches": []} == await read(stranger, "/sim/history")


async def test_a_skewed_server_is_skewed_everywhere_but_in_its_history(clock: ManualClock) -> None:
    """Timestamps, windows and the Date header go by its calendar, the truth by ours."""
    ahead = Scenario(name="ahead", description="", skew=90.0)
    async with (
        Simulator(scenario=ahead, clock=clock) as sim,
        a_client(sim) as http,
    ):
        sim.world.plant(a_life(*A_LIFE))
        theirs = (EPOCH + timedelta(seconds=90)).isoformat()
        async with http.get(BATCHES, params={"created_at_on_or_after": theirs}) as answer:
            [item] = (await answer.json())["items"]
            date = parsedate_to_datetime(answer.headers["Date"])
        truth = await read(http, "/sim/history")

    assert "2026-11-24T08:01:30.000000Z" == item["created_at"]
    assert EPOCH + timedelta(seconds=90) == date
    assert "2026-11-24T08:00:00.000000Z" == truth["batches"][0]["history"][0]["at"]


async def test_the_free_tier_allows_twenty_requests_a_minute(clock: ManualClock) -> None:
    """Then 429 until the minute is over, with how long that is."""
    async with (
        Simulator(scenario="free-tier", clock=clock) as sim,
        a_client(sim) as http,
    ):
        clock.advance(48.5)
        for _ in range(20):
            await read(http, BATCHES)
        async with http.get(BATCHES) as answer:
            refusal = answer.status, answer.headers["Retry-After"]
        clock.advance(11.5)
        await read(http, BATCHES)

    assert (429, "12") == refusal


async def test_requests_are_counted_by_route(sim: Simulator, http: aiohttp.ClientSession) -> None:
    """What a client costs upstream, for benchmarks and demos."""
    batch = sim.world.plant(a_life(*A_LIFE))
    for _ in range(2):
        await read(http, f"{BATCHES}/{batch.id}")

    stats: dict[str, Any] = await read(http, "/sim/stats")

    assert 2 == stats["requests"]["GET /api/v2/batches/{id}"]
    assert {} == stats["faults"]


def test_every_scenario_has_its_description() -> None:
    """For the help of the command."""
    assert all(scenario.description for scenario in SCENARIOS.values())
