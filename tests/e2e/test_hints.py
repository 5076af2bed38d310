"""From upstream's change to the receiver, by upstream's own webhook and long before any poll."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp.test_utils import unused_port
from llama_cloud import AsyncLlamaCloud

from batchwatch.domain.audit import Fault, audit
from batchwatch.simulator import Simulator, Switch
from batchwatch.simulator.history import history
from batchwatch.store import Database, Hints
from tests.support.clock import ManualClock
from tests.support.daemon import environment, running
from tests.support.hints import HINT_SECRET, a_body, an_envelope, signed
from tests.support.receiver import Received, Receiver

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LISTS = "GET /api/v2/batches"
MANY = 12


class Scene:
    """An upstream whose time stands still, so that only the test makes anything happen there."""

    def __init__(self, sim: Simulator, receiver: Receiver, clock: ManualClock) -> None:
        self.sim = sim
        self.receiver = receiver
        self.clock = clock
        self.url = f"http://127.0.0.1:{unused_port()}"
        self.hook = f"{self.url}/hooks/llamacloud/default"

    async def creates(self, name: str, **webhook: Any) -> str:
        """A batch that somebody makes by the official SDK, with a webhook to batchwatch."""
        configuration = {
            "webhook_url": self.hook,
            "webhook_signing_secret": HINT_SECRET,
            "webhook_output_format": "json",
        } | webhook
        async with AsyncLlamaCloud(api_key=self.sim.api_key, base_url=self.sim.url) as cloud:
            directory = await cloud.beta.directories.create(name=name, type="user")
            await cloud.beta.directories.files.upload(directory.id, upload_file=("a.pdf", b"%PDF-"))
            job = {"type": "parse_v2", "configuration_id": "cfg-PARSE_AGENTIC"}
            batch = await cloud.batches.create(
                config={"job": job},  # type: ignore[typeddict-item]  # a dict is not yet one
                source_directory_id=directory.id,
                webhook_configurations=[configuration],  # type: ignore[list-item]  # likewise
            )
        return batch.id

    async def lives(self, count: int) -> None:
        """Let time go by until so many batches are told to have completed.

        It stands still until all that has changed is told, however long that
        takes: no status can fall between two looks.
        """
        for status in ("RUNNING", "COMPLETED"):
            reached = 0
            while reached < count:
                self.clock.advance(1)
                reached = sum(
                    any(step["status"] == status for step in one["history"])
                    for one in history(self.sim.world)
                )
                await self.receiver.until(told(reached, status))

    async def until_ready(self) -> None:
        """Wait until the daemon's first pass is done."""
        await self.sim.asked(1)
        async with aiohttp.ClientSession(self.url) as http:
            status = 0
            while status != 200:
                async with http.get("/readyz") as answer:
                    status = answer.status

    def environ(self, folder: Path, *, polls: str = "60s") -> dict[str, str]:
        return environment(
            self.sim,
            self.receiver,
            folder,
            BATCHWATCH_POLL_INTERVAL=polls,
            BATCHWATCH_LISTEN=self.url.removeprefix("http://"),
            BATCHWATCH_HINT_SECRET=HINT_SECRET,
        )


def a_clock() -> ManualClock:
    """At the present, for hints of the past are not followed."""
    return ManualClock(datetime.now(UTC))


def told(count: int, status: str) -> Callable[[list[Received]], bool]:
    """Whether so many batches were told to be ``status``."""

    def enough(received: list[Received]) -> bool:
        events = [one for one in received if "batch" in one.event["data"]]
        found = {one.batch_id for one in events if one.event["data"]["batch"]["status"] == status}
        return len(found) >= count

    return enough


async def test_each_change_is_told_when_upstream_tells_of_it_and_not_when_it_is_polled(
    tmp_path: Path,
) -> None:
    """Each batch's whole life, though the one listing there was came before any of them."""
    clock = a_clock()
    async with Simulator(clock=clock) as sim, Receiver() as receiver:
        scene = Scene(sim, receiver, clock)
        async with running(scene.environ(tmp_path)):
            await scene.until_ready()
            for number in range(MANY):
                await scene.creates(f"directory-{number}")
            await receiver.until(told(MANY, "PENDING"))
            await scene.lives(MANY)
        truth = {
            one["id"]: [step["status"] for step in one["history"]] for one in history(sim.world)
        }

    assert 1 == sim.requests[LISTS]
    # An end may be followed by another event in the same status: what became of its jobs.
    steps = {
        one: [status for status, _ in groupby(those)] for one, those in receiver.statuses().items()
    }
    assert truth == steps


async def test_whatever_is_sent_to_its_door_nothing_is_told_that_did_not_happen(
    tmp_path: Path,
) -> None:
    """A signed lie, a forged truth, a replay, a batch of nobody's."""
    clock = a_clock()
    async with Simulator(clock=clock) as sim, Receiver() as receiver:
        scene = Scene(sim, receiver, clock)
        async with running(scene.environ(tmp_path)), aiohttp.ClientSession() as http:

            async def sent(body: bytes, headers: dict[str, str]) -> int:
                async with http.post(scene.hook, data=body, headers=headers) as answer:
                    return answer.status

            await scene.until_ready()
            batch_id = await scene.creates("lied-about")
            await receiver.until(told(1, "PENDING"))
            now = clock.now().timestamp()
            lie = a_body("batch.success", batch_id, timestamp=now)
            nobodys = a_body("batch.success", "bat-nobodys", timestamp=now)
            forged = json.dumps(an_envelope("batch.running", batch_id, timestamp=now)).encode()
            answers = [
                await sent(lie, signed(lie)),
                await sent(lie, signed(lie)),
                await sent(nobodys, signed(nobodys)),
                await sent(forged, signed(forged, "another-s3cret-0123456789")),
            ]
            metrics = ""
            while 'hint_looks_total{outcome="behind"' not in metrics:
                async with http.get(f"{scene.url}/metrics") as answer:
                    metrics = await answer.text()
            alive = await scene.creates("another")
            await receiver.until(told(2, "PENDING"))

    assert [202, 202, 202, 401] == answers
    assert {batch_id: ["PENDING"], alive: ["PENDING"]} == receiver.statuses()


async def test_the_audit_finds_what_upstream_did_not_deliver(tmp_path: Path) -> None:
    """One that was never sent, for it was not among the events; one that came twice."""
    clock = a_clock()
    async with Simulator(clock=clock) as sim, Receiver() as receiver:
        scene = Scene(sim, receiver, clock)
        async with running(scene.environ(tmp_path, polls="200ms")):
            await scene.until_ready()
            sim.faults.switch_on(Switch(kind="webhook-repeated", for_requests=1))
            well = await scene.creates("well")
            silent = await scene.creates(
                "silent", webhook_events=["batch.pending", "batch.success"]
            )
            await receiver.until(told(2, "PENDING"))
            await scene.lives(2)
            await sim.webhooks.idle()
        database = await Database.open(f"sqlite+aiosqlite:///{tmp_path}/batchwatch.db")
        since = clock.now() - timedelta(hours=1)
        courses = await Hints(database).courses(since=since)
        await database.close()

    found = audit(courses, now=clock.now() + timedelta(hours=1))
    assert {well, silent} == {one.batch_id for one in courses}
    missed = [(one.batch_id, one.type) for one in found.amiss if Fault.MISSED in one.faults]
    assert [(silent, "batch.running")] == missed
    assert 1 == found.repeated
    assert (5, 6) == (found.came, len(found.judged))
