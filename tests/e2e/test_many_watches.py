"""Tens of watches in one daemon: those that are broken slow none of the others."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import aiohttp
import structlog
from aiohttp import web

from batchwatch.simulator import FileLife, Simulator, a_life
from tests.support.daemon import environment, running
from tests.support.receiver import Receiver
from tests.unit.llamacloud.upstream import Reply, raw, serving

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.receiver import Received

SIMULATORS = 4
WATCHES_OF_EACH = 6
BATCHES_OF_EACH = 2
PASSES = 5
LIFE = (("PENDING", 0.0), ("RUNNING", 0.2), ("COMPLETED", 0.4))
GARBAGE = b'{"items":[' + b"0," * (8 * 2**20 - 10) + b"0]}"
GOOD = re.compile(r'batchwatch_polls_total\{outcome="good",watch="([a-z0-9-]+)"\} ([0-9.]+)')


def watch(name: str, url: str, **more: str) -> dict[str, str]:
    """The variables of one watch."""
    given = {"BASE_URL": url, "POLL_INTERVAL": "100ms", "REQUESTS_PER_MINUTE": "6000", **more}
    return {f"BATCHWATCH_WATCHES__{name.upper()}__{key}": value for key, value in given.items()}


async def broken(stack: AsyncExitStack) -> dict[str, str]:
    """Servers that stand in for LlamaCloud on its worst days, by what they do."""

    async def garbage(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=GARBAGE, content_type="application/json")

    async def enter(*replies: Reply) -> str:
        return (await stack.enter_async_context(serving(*replies))).url

    return {
        "hangs": (await stack.enter_async_context(raw(b"", then="hang"))).url,
        "fails": await enter(Reply({"detail": "no"}, 500)),
        "throttles": await enter(Reply({"detail": "slow"}, 429, {"Retry-After": "300"})),
        "garbles": (await stack.enter_async_context(serving(handler=garbage))).url,
        "refuses": await enter(Reply({"detail": "who?"}, 401)),
        "nowhere": "http://nobody.invalid",
    }


async def test_broken_watches_slow_no_other(tmp_path: Path) -> None:
    """Each of the others finds and tells its batches and goes on; /readyz names the broken ones."""
    async with AsyncExitStack() as stack:
        receiver = await stack.enter_async_context(Receiver())
        sims = [
            await stack.enter_async_context(Simulator(seed=number)) for number in range(SIMULATORS)
        ]
        ill = await broken(stack)
        healthy = {f"w{n}": sims[n % SIMULATORS] for n in range(SIMULATORS * WATCHES_OF_EACH)}
        environ = environment(sims[0], receiver, tmp_path)
        environ = {name: value for name, value in environ.items() if "__DEFAULT__" not in name}
        for name, url in ill.items():
            environ |= watch(name, url)
        for name, sim in healthy.items():
            environ |= watch(name, sim.url)
        logs = stack.enter_context(structlog.testing.capture_logs())
        await stack.enter_async_context(running(environ))
        await asyncio.gather(*(sim.asked(1) for sim in sims))  # by then it listens
        session = await stack.enter_async_context(aiohttp.ClientSession())
        (listen,) = [one["listen"] for one in logs if one["event"] == "daemon.started"]
        while not healthy.keys() <= (await passes(session, listen)).keys():
            pass
        planted = [
            [sim.world.plant(a_life(*LIFE, files=(FileLife(mapped_after=0.1),))) for sim in sims]
            for _ in range(BATCHES_OF_EACH)
        ]
        await receiver.until(lambda got: len(ends(got)) == len(healthy) * BATCHES_OF_EACH)
        before = await passes(session, listen)
        while not all(
            count >= before[name] + PASSES
            for name, count in (await passes(session, listen)).items()
            if name in healthy
        ):
            pass
        async with session.get(f"{listen}/readyz") as answer:
            troubles = json.loads(await answer.text())["troubles"]

    expected = {
        (name, batch.id)
        for number, sim in enumerate(sims)
        for name, its in healthy.items()
        for batch in (row[number] for row in planted)
        if its is sim
    }
    assert expected == ends(receiver.received)
    assert {f"watch {name}" for name in ill} == set(troubles)


def ends(received: list[Received]) -> set[tuple[str, str]]:
    """Which watch has told which batch as completed."""
    return {
        (one.event["data"]["watch"], one.batch_id)
        for one in received
        if one.event["type"] == "batch.completed"
    }


async def passes(session: aiohttp.ClientSession, listen: str) -> dict[str, float]:
    """How many whole passes each watch has made."""
    async with session.get(f"{listen}/metrics") as answer:
        return {name: float(count) for name, count in GOOD.findall(await answer.text())}
