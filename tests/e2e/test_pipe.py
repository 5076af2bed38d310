"""The whole pipe, as it is run: LlamaCloud on one side, receivers on the other."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from aiohttp import web
from jsonschema import Draft202012Validator

from batchwatch.simulator import FileLife, Simulator, a_life
from batchwatch.simulator.history import history
from batchwatch.simulator.life import JobLife, Step
from tests.support.daemon import ROOT, environment, running
from tests.support.receiver import Received, Receiver, says

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LIFE = (("PENDING", 0.0), ("RUNNING", 0.4), ("COMPLETED", 1.0))
FILES = (FileLife(mapped_after=0.5), FileLife(mapped_after=0.6, error_message="no pages"))
ENDS = {"batch.completed", "batch.failed", "batch.cancelled"}


def ended(count: int, path: str = "/hook") -> Callable[[list[Received]], bool]:
    """Whether so many batches were told to have ended."""

    def enough(received: list[Received]) -> bool:
        ends = [one for one in received if one.path == path and one.event.get("type") in ENDS]
        return count <= len({one.batch_id for one in ends})

    return enough


async def test_a_lively_project_is_told_whole_and_in_order(tmp_path: Path) -> None:
    """Every message verified, valid by its schema, a part of the truth and its end."""
    async with Simulator(scenario="lively", seed=4, speed=3) as sim, Receiver() as receiver:
        environ = environment(
            sim,
            receiver,
            tmp_path,
            BATCHWATCH_ENDPOINTS__CHAT__URL=f"{receiver.url}/chat",
            BATCHWATCH_ENDPOINTS__CHAT__TYPE="slack",
            BATCHWATCH_ENDPOINTS__CHAT__RATE_LIMIT="1000/s",
        )
        async with running(environ):
            await receiver.until(ended(24))
            await receiver.until(lambda got: 24 <= sum(one.path == "/chat" for one in got))
        truth = {
            one["id"]: [step["status"] for step in one["history"]] for one in history(sim.world)
        }

    told = receiver.statuses()
    assert truth.keys() == told.keys()
    for batch_id, statuses in told.items():
        rest = iter(truth[batch_id])
        assert all(status in rest for status in statuses)
        assert truth[batch_id][-1] == statuses[-1]
    for one in receiver.on("/hook"):
        schema = json.loads((ROOT / "docs" / "schemas" / f"{one.event['type']}.json").read_text())
        Draft202012Validator(schema).validate(one.event)
        assert one.headers["webhook-signature"].startswith("v1,")
    for one in receiver.on("/chat"):
        assert {"text", "blocks"} == set(one.event)


async def test_a_batch_is_told_to_its_last_file(tmp_path: Path) -> None:
    """Its end first, then what became of each file, by name and with its job's own words."""
    jobs = [
        JobLife((Step("RUNNING", 0.6), Step("COMPLETED", 1.5))),
        JobLife((Step("RUNNING", 0.6), Step("FAILED", 1.2)), "page 3 is encrypted"),
    ]
    files = (*(FileLife(mapped_after=0.5, job=job) for job in jobs), FILES[1])
    async with Simulator() as sim, Receiver() as receiver:
        environ = environment(
            sim,
            receiver,
            tmp_path,
            BATCHWATCH_FILE_NAMES="true",
            BATCHWATCH_ENDPOINTS__CHAT__URL=f"{receiver.url}/chat",
            BATCHWATCH_ENDPOINTS__CHAT__TYPE="slack",
            BATCHWATCH_ENDPOINTS__CHAT__RATE_LIMIT="1000/s",
        )
        async with running(environ):
            await sim.asked(2)
            batch = sim.world.plant(a_life(*LIFE, files=files))
            await receiver.until(lambda got: "Batch settled" in str([one.body for one in got]))
            await receiver.until(lambda got: "batch.settled" in str([one.body for one in got]))

    end, settled = (one.event for one in receiver.on("/hook")[-2:])
    assert ["batch.completed", "batch.settled"] == [end["type"], settled["type"]]
    assert receiver.on("/hook")[-2].id == settled["data"]["previous_event_id"]
    schema = json.loads((ROOT / "docs" / "schemas" / "batch.settled.json").read_text())
    Draft202012Validator(schema).validate(settled)
    told = settled["data"]["settled"]
    assert ("complete", 1, 1, 1) == (
        told["state"],
        *(told["counts"][fate] for fate in ("succeeded", "failed", "unmapped")),
    )
    assert [one.source.id for one in batch.files[1:]] == told["retry"]["source_directory_file_ids"]
    assert [
        ("planted-00001-0002.pdf", "page 3 is encrypted"),
        ("planted-00001-0003.pdf", "no pages"),
    ] == [(one["name"], one["message"]) for one in told["failures"]]


async def test_a_receiver_that_was_down_gets_everything_in_order(tmp_path: Path) -> None:
    """Errors, a dropped connection and an answer that hangs: tried again, nothing passed over."""

    async def drop(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    async def hang(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "10"})
        await response.prepare(request)
        await asyncio.Event().wait()  # until the client gives up
        return response

    async with Simulator() as sim, Receiver() as receiver:
        receiver.answers = [says(503), drop, hang, says(404), says(302, Location="/elsewhere")]
        environ = environment(sim, receiver, tmp_path, BATCHWATCH_ENDPOINTS__HOOK__TIMEOUT="300ms")
        async with running(environ):
            await sim.asked(2)
            sim.world.plant(a_life(*LIFE, files=FILES))
            await receiver.until(
                lambda got: bool(got) and got[-1].event["type"] == "batch.completed"
            )

    first = receiver.received[0]
    assert [first.id] * 5 == [one.id for one in receiver.received[:5]]
    (told,) = receiver.statuses().values()
    assert "COMPLETED" == told[-1]
    assert not receiver.on("/elsewhere")


async def test_a_batch_that_came_and_went_while_the_daemon_was_stopped_is_told(
    tmp_path: Path,
) -> None:
    """After its next start, with the outcome of each file."""
    async with Simulator(speed=1000) as sim, Receiver() as receiver:
        environ = environment(sim, receiver, tmp_path)
        async with running(environ):
            await sim.asked(2)
        batch = sim.world.plant(a_life(("PENDING", 0), ("COMPLETED", 10), files=FILES))
        async with running(environ):
            await receiver.until(ended(1))

    assert {batch.id: ["COMPLETED"]} == receiver.statuses()
    (told,) = receiver.on("/hook")
    assert 2 == told.event["data"]["results"]["counts"]["files"]


async def test_routes_decide_who_hears_of_what(tmp_path: Path) -> None:
    """An endpoint that a route names gets what its routes send; the other keeps its defaults."""
    async with Simulator(speed=100) as sim, Receiver() as receiver:
        environ = environment(
            sim,
            receiver,
            tmp_path,
            BATCHWATCH_ENDPOINTS__NEW__URL=f"{receiver.url}/new",
            BATCHWATCH_ROUTES__BIRTHS__EVENTS="batch.discovered",
            BATCHWATCH_ROUTES__BIRTHS__ENDPOINTS="new",
        )
        async with running(environ):
            await sim.asked(2)
            sim.world.plant(a_life(("PENDING", 0), ("COMPLETED", 5), files=FILES))
            await receiver.until(ended(1))
            await receiver.until(lambda got: any(one.path == "/new" for one in got))

    assert ["batch.discovered"] == [one.event["type"] for one in receiver.on("/new")]
    assert "batch.discovered" not in [one.event["type"] for one in receiver.on("/hook")]
