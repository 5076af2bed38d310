"""Each kind of fault, shown to a plain client; and that none of them touches the truth."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from batchwatch.simulator import SCENARIOS, Scenario, Simulator, Switch, a_life
from batchwatch.simulator.faults import MISLEADING, REFUSING, SPOILING
from batchwatch.simulator.history import history, seen
from batchwatch.simulator.timeline import Timeline
from batchwatch.simulator.trouble import LONGEST_STREAK, Faults
from tests.simulator.asking import BATCHES, a_client, every_page, ids, raw, read
from tests.support.clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable

A_LIFE = (("PENDING", 0), ("RUNNING", 5), ("COMPLETED", 20))
BREAKING = REFUSING.keys() | SPOILING.keys()


async def switch(http: aiohttp.ClientSession, kind: str, **more: Any) -> None:
    """Switch a fault on over HTTP."""
    async with http.post("/sim/faults", json={"kind": kind} | more) as answer:
        assert 200 == answer.status, await answer.text()


@pytest.mark.parametrize(
    ("fault", "statuses", "retry_after"),
    [
        ({"kind": "status", "status": 403}, {403}, None),
        ({"kind": "429"}, {429}, None),
        ({"kind": "429-retry-after", "seconds": 7}, {429}, "7"),
        ({"kind": "5xx"}, {500, 502, 503, 504}, None),
    ],
)
async def test_a_request_is_refused_with_a_detail(
    http: aiohttp.ClientSession,
    fault: dict[str, Any],
    statuses: set[int],
    retry_after: str | None,
) -> None:
    """In JSON, with Retry-After only where the kind says so."""
    await switch(http, **fault)

    async with http.get(BATCHES) as answer:
        assert answer.status in statuses
        assert retry_after == answer.headers.get("Retry-After")
        assert isinstance((await answer.json())["detail"], str)


async def test_a_gateway_answers_in_html(http: aiohttp.ClientSession) -> None:
    """With a status and a page of its own."""
    await switch(http, "html")

    async with http.get(BATCHES) as answer:
        assert answer.status in {502, 503}
        assert "text/html" == answer.content_type
        assert "<h1>" in await answer.text()


@pytest.mark.parametrize("kind", ["truncated", "invalid-json"])
async def test_a_body_is_no_json(http: aiohttp.ClientSession, kind: str) -> None:
    """Though the status is 200 and the header says so."""
    await switch(http, kind)

    async with http.get(BATCHES) as answer:
        body = await answer.read()

    assert (200, "application/json") == (answer.status, answer.content_type)
    with pytest.raises(ValueError, match=r"."):
        json.loads(body.decode(errors="replace"))


async def test_a_connection_is_reset(sim: Simulator) -> None:
    """Before the answer or in the midst of it, never after the whole."""
    whole = await raw(sim, BATCHES)
    assert whole is not None
    sim.faults.switch_on(Switch(kind="reset"))

    received = [await raw(sim, BATCHES) for _ in range(12)]

    assert {"reset": 12} == sim.faults.injected
    assert None in received
    assert all(one is None or len(one) < len(whole) for one in received)


async def test_an_answer_takes_its_time(http: aiohttp.ClientSession, clock: ManualClock) -> None:
    """By the injected clock, so that no test has to wait for it."""
    await switch(http, "latency", seconds=30, for_requests=1)

    answer = asyncio.create_task(read(http, BATCHES))
    assert 30 == await clock.next_sleeper()
    clock.advance(30)

    assert [] == (await answer)["items"]


async def test_an_answer_is_from_the_past(
    sim: Simulator, http: aiohttp.ClientSession, clock: ManualClock
) -> None:
    """With the status and the updated_at of then; what did not exist is not listed."""
    old = sim.world.plant(a_life(*A_LIFE))
    clock.advance(6)
    new = sim.world.plant(a_life(*A_LIFE))
    await switch(http, "stale", seconds=4)

    [item] = (await read(http, BATCHES))["items"]
    single = await read(http, f"{BATCHES}/{new.id}")

    assert (old.id, "PENDING", item["created_at"]) == (
        item["id"],
        item["status"],
        item["updated_at"],
    )
    assert "PENDING" == single["status"]


async def test_a_list_comes_in_another_order_and_is_still_whole(
    sim: Simulator, http: aiohttp.ClientSession, clock: ManualClock
) -> None:
    """Each row once, in an order that no client may rely on."""
    made = []
    for _ in range(10):
        made.append(sim.world.plant(a_life(*A_LIFE)).id)
        clock.advance(1)
    await switch(http, "reordered")

    listed = [ids(await every_page(http, BATCHES, page_size=3)) for _ in range(5)]

    assert made[::-1] not in listed
    assert [sorted(made)] * 5 == [sorted(one) for one in listed]


async def test_rows_are_repeated_and_none_is_missing(
    sim: Simulator, http: aiohttp.ClientSession
) -> None:
    """Twice on a page and once more on the next, within the size that was asked for."""
    made = {sim.world.plant(a_life(*A_LIFE)).id for _ in range(10)}
    await switch(http, "repeated")

    pages = await every_page(http, BATCHES, page_size=4)

    first, second = pages[0], pages[1]
    assert made == set(ids(pages))
    assert any(first.count(item) == 2 and item in second for item in first)
    assert 4 == max(map(len, pages))


async def test_a_token_leads_back_to_its_own_page(
    sim: Simulator, http: aiohttp.ClientSession
) -> None:
    """A client that follows tokens blindly would ask for ever."""
    for _ in range(4):
        sim.world.plant(a_life(*A_LIFE))
    first = await read(http, BATCHES, page_size=2)
    await switch(http, "looped")

    second = await read(http, BATCHES, page_size=2, page_token=first["next_page_token"])

    assert first["next_page_token"] == second["next_page_token"]


async def test_results_are_null_though_the_batch_has_ended(
    sim: Simulator, http: aiohttp.ClientSession, clock: ManualClock
) -> None:
    """For as long as the fault lasts."""
    batch = sim.world.plant(a_life(*A_LIFE))
    clock.advance(20)
    await switch(http, "null-results", for_requests=1)

    answers = [await read(http, f"{BATCHES}/{batch.id}", expand="results") for _ in range(2)]

    assert [("COMPLETED", True), ("COMPLETED", False)] == [
        (answer["status"], answer["results"] is None) for answer in answers
    ]


def has_null_time(item: dict[str, Any]) -> bool:
    """Whether a timestamp is missing."""
    return None in (item["created_at"], item["updated_at"])


def has_odd_time(item: dict[str, Any]) -> bool:
    """Whether timestamps are in other forms than usual, and still the same."""
    same = {datetime.fromisoformat(item[name]) for name in ("created_at", "updated_at")}
    return len(same) == 1 and any(len(item[name]) != 27 for name in ("created_at", "updated_at"))


def has_more(item: dict[str, Any]) -> bool:
    """Whether there are fields that nobody knows."""
    return "progress" in item


@pytest.mark.parametrize(
    ("kind", "is_so"),
    [
        ("null-timestamps", has_null_time),
        ("odd-timestamps", has_odd_time),
        ("unknown-fields", has_more),
    ],
)
async def test_rows_are_disfigured(
    sim: Simulator, http: aiohttp.ClientSession, kind: str, is_so: Callable[[Any], bool]
) -> None:
    """In lists and alone, for batches and jobs alike."""
    batch = sim.world.plant(a_life(("PENDING", 0), ("COMPLETED", 0)))
    await switch(http, kind)

    assert is_so((await read(http, BATCHES))["items"][0])
    assert is_so(await read(http, f"{BATCHES}/{batch.id}"))


async def test_an_outage_answers_nothing_until_it_ends() -> None:
    """And comes back in each period, by the clock."""
    clock = ManualClock()
    async with (
        Simulator(scenario="outage", clock=clock) as sim,
        a_client(sim) as http,
    ):
        statuses = []
        for _ in range(12):
            async with http.get(BATCHES) as answer:
                statuses.append(answer.status)
            clock.advance(2)

    period = [200, 200, 200, 200, 503, 503]
    assert period * 2 == statuses


async def test_a_row_shows_late_in_lists_but_is_found_by_its_id(
    sim: Simulator, http: aiohttp.ClientSession, clock: ManualClock
) -> None:
    """With the created_at that it had all along."""
    batch = sim.world.plant(a_life(*A_LIFE, listed_after=2.5))
    assert "PENDING" == (await read(http, f"{BATCHES}/{batch.id}"))["status"]
    assert [] == (await read(http, BATCHES))["items"]

    clock.advance(2.5)

    [item] = (await read(http, BATCHES))["items"]
    assert "2026-11-24T08:00:00.000000Z" == item["created_at"]


async def test_a_status_that_nobody_documents_is_in_the_history_too() -> None:
    """It is no fault of an answer, the batch truly has it."""
    clock = ManualClock()
    async with Simulator(scenario="hostile", clock=clock) as sim:
        clock.advance(60)
        statuses = {s["status"] for batch in history(sim.world) for s in batch["history"]}

    assert "VALIDATING" in statuses


async def test_a_switch_is_over_after_its_requests_or_its_time(
    http: aiohttp.ClientSession, clock: ManualClock
) -> None:
    """And strikes only paths that it names."""

    async def status(path: str = BATCHES) -> int:
        async with http.get(path) as answer:
            return answer.status

    await switch(http, "429", for_requests=2, path=BATCHES)
    assert [200, 429, 429, 200] == [
        await status("/api/v2/parse"),
        *[await status() for _ in range(3)],
    ]

    await switch(http, "5xx", for_seconds=10)
    before = await status()
    clock.advance(10)
    assert (True, 200) == (before >= 500, await status())

    await switch(http, "429")
    assert 429 == await status()
    async with http.delete("/sim/faults") as answer:
        assert {"faults": []} == await answer.json()
    assert 200 == await status()


@pytest.mark.parametrize(
    "body", [{"kind": "flood"}, {"kind": "429", "probability": 2}, {"kind": "429", "typo": 1}]
)
async def test_a_fault_that_does_not_exist_is_refused(
    http: aiohttp.ClientSession, body: dict[str, Any]
) -> None:
    """A test that misspells a fault must not pass for want of it."""
    async with http.post("/sim/faults", json=body) as answer:
        assert 422 == answer.status


async def test_no_fault_touches_the_truth(
    sim: Simulator, http: aiohttp.ClientSession, clock: ManualClock
) -> None:
    """Nor is a status counted as seen that only a broken answer held."""
    sim.world.plant(a_life(*A_LIFE), files=2)
    clock.advance(20)
    untouched = history(sim.world)
    for kind in [*sorted(BREAKING), *MISLEADING]:
        sim.faults.switch_on(Switch(kind=kind, for_requests=1))
        await raw(sim, BATCHES)
        if kind in BREAKING:
            assert [] == seen(sim.world)[0]["statuses"]

    assert untouched == history(sim.world)
    assert untouched == (await read(http, "/sim/history"))["batches"]


def test_faults_are_the_same_for_the_same_requests() -> None:
    """Drawn by the seed and the number of the request."""
    timeline = Timeline(ManualClock())

    def drawn(seed: int) -> list[set[str]]:
        faults = Faults(SCENARIOS["hostile"], seed=seed, timeline=timeline)
        return [set(faults.for_request(BATCHES, writes=False).drawn) for _ in range(200)]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_a_patient_client_always_gets_through() -> None:
    """However bad the luck, on one path at most so many answers in a row are broken."""
    bad_luck = Scenario(name="bad-luck", description="", faults={"5xx": 0.9, "reset": 0.9})
    faults = Faults(bad_luck, seed=0, timeline=Timeline(ManualClock()))

    streak, longest = 0, 0
    for _ in range(500):
        broken = not BREAKING.isdisjoint(faults.for_request(BATCHES, writes=False).drawn)
        streak = streak + 1 if broken else 0
        longest = max(longest, streak)

    assert LONGEST_STREAK == longest


async def test_a_write_is_only_broken_before_it_took_effect() -> None:
    """A client that tries again creates nothing twice."""
    worst = Scenario(
        name="worst", description="", faults={"reset": 0.5, "truncated": 0.4, "5xx": 0.3}
    )
    async with (
        Simulator(scenario=worst, clock=ManualClock()) as sim,
        a_client(sim) as http,
    ):
        created = 0
        for nth in range(40):
            try:
                body = {"name": f"directory {nth}"}
                async with http.post("/api/v1/beta/directories", json=body) as answer:
                    created += answer.status == 200
            except aiohttp.ClientError:
                pass

    assert 0 < created < 40
    assert created == len(sim.world.directories)
