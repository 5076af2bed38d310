"""Kill -9 amid a full outbox: every event arrives, in order, repeats under the same id."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from batchwatch.clock import Clock
from batchwatch.domain.batch import COMPLETED, PENDING, RUNNING, BatchId, EndpointName
from batchwatch.domain.routing import FOR_PROGRAMS, Router
from batchwatch.simulator import Simulator
from batchwatch.store import Batches, Database, Outbox, Watches
from tests.support.builders import WATCH, a_recorder, a_sighting, at
from tests.support.daemon import environment, running, spawned
from tests.support.postgres import let_time_pass
from tests.support.receiver import Receiver, says

if TYPE_CHECKING:
    from pathlib import Path

    from aiohttp import web

BATCHES = 150
LIFE = (PENDING, RUNNING, COMPLETED)
KILLS = 5


async def fill(url: str) -> list[str]:
    """A store that owes the whole lives of many batches; the ids of its events."""
    database = await Database.open(url)
    router = Router({EndpointName("hook"): FOR_PROGRAMS})
    outbox = Outbox(database, router, Clock())
    batches, watches = Batches(database, outbox), Watches(database, outbox)
    await watches.begin(WATCH, now=at(0))
    owed: list[str] = []
    for updated, status in enumerate(LIFE):
        seen = [
            a_sighting(status, batch_id=f"bat-{n}", updated=updated, asked_results=True, results=())
            for n in range(BATCHES)
        ]
        changes = await batches.change(
            WATCH,
            [BatchId(f"bat-{n}") for n in range(BATCHES)],
            lambda known, seen=seen: a_recorder().record(known, seen, now=at(0)),  # type: ignore[misc]
        )
        owed += [one.id for one in changes.events if one.type in FOR_PROGRAMS]
    await database.close()
    return owed


async def test_kills_amid_deliveries_lose_none_and_reorder_none(
    tmp_path: Path, made_url: str
) -> None:
    """At moments that nobody chose, with a receiver that fails now and then."""
    dice = random.Random(42)
    owed = await fill(made_url)

    async def moody(request: web.Request) -> web.StreamResponse:
        return await says(dice.choice([200, 200, 200, 200, 503]))(request)

    async with Simulator() as sim, Receiver() as receiver:
        receiver.always = moody
        environ = environment(
            sim,
            receiver,
            tmp_path,
            BATCHWATCH_DATABASE_URL=made_url,
            BATCHWATCH_ENDPOINTS__HOOK__RETRY_SCHEDULE="10ms," * 40 + "1s",
        )
        for _ in range(KILLS):
            more = len(receiver.received) + dice.randint(1, 60)
            async with spawned(environ):
                await receiver.until(lambda got, more=more: len(got) >= more)  # type: ignore[misc]
            await let_time_pass(made_url)
        taken: set[str] = set()
        async with running(environ):
            await receiver.until(lambda got: set(owed) <= {one.id for one in got if one.taken})

    assert set(owed) == {one.id for one in receiver.received}
    first: dict[str, list[int]] = {}
    bodies: dict[str, bytes] = {}
    for one in receiver.received:
        assert bodies.setdefault(one.id, one.body) == one.body
        if one.taken and one.id not in taken:
            taken.add(one.id)
            first.setdefault(one.batch_id, []).append(one.event["data"]["transition"])
    # Settled, with its end: there were no files.
    assert {tuple(numbers) for numbers in first.values()} == {(1, 2, 3, 3)}
    twice = [one.id for one in receiver.received if one.taken]
    assert len(twice) > len(set(twice))  # a kill between a receipt and its acknowledgement
