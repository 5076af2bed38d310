"""Time each change from upstream to the receiver, when upstream's own webhooks are the hints."""

from __future__ import annotations

import asyncio
import random
import socket
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from statistics import quantiles
from typing import TYPE_CHECKING, Any, Final

from aiohttp import ClientError, ClientSession, web

from batchwatch.clock import Clock
from batchwatch.simulator import Simulator, Switch, a_life
from batchwatch.simulator.api.forms import WebhookForm
from batchwatch.simulator.history import history
from batchwatch.simulator.webhooks import EVENT_TYPES
from benchmarks.daemon import PATIENCE, daemon, environment
from benchmarks.results import Column, Finding, Goal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from benchmarks.progress import Progress
    from benchmarks.results import Cell

COUNT: Final = 150  # batches
QUICK_COUNT: Final = 40
PACE: Final = 5  # batches that are created in a second; each changes three times
PENDING: Final = (1.0, 2.0)  # seconds, the least and the most
RUNNING: Final = (2.0, 4.0)
STALE: Final = Switch(kind="stale", probability=0.2, seconds=0.5, path="/api/v2/batches/bat-")
CASES: Final = {"every GET is answered as it is": None, "a fifth by a replica 0.5 s behind": STALE}
GOAL: Final = 1.0  # seconds, p95 with polling at a minute
SECRET: Final = "hint-s3cret-0123456789"  # noqa: S105  # guards nothing

DELAY: Final = (
    Column("case", "upstream"),
    Column("changes", "changes", ",.0f"),
    Column("untold", "not told", ",.0f"),
    Column("p50_ms", "p50, ms", ",.0f"),
    Column("p95_ms", "p95, ms", ",.0f"),
    Column("p99_ms", "p99, ms", ",.0f"),
    Column("lists", "lists", ",.0f"),
    Column("gets", "GETs", ",.0f"),
)

Change = tuple[str, str]  # a batch and its status


@dataclass
class _Receiver:
    """Takes what the daemon tells, and remembers when each change came."""

    clock: Clock
    came: dict[Change, datetime] = field(default_factory=dict)
    url: str = ""
    news: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Listen for as long as the context is held."""
        app = web.Application()
        app.router.add_post("/hook", self._take)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
            yield
        finally:
            await runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        batch: dict[str, Any] = (await request.json())["data"].get("batch", {})
        self.came.setdefault((batch.get("id", ""), batch.get("status", "")), self.clock.now())
        self.news.set()
        return web.Response()


async def run(progress: Progress, *, quick: bool) -> list[Finding]:
    """Let batches live under a daemon that polls each minute, and compare with what was true."""
    count = QUICK_COUNT if quick else COUNT
    progress.stage(f"hints: {count} batches, {PACE} a second", steps=len(CASES) * count)
    rows: list[dict[str, Cell]] = []
    for case, fault in CASES.items():
        rows.append({"case": case, **await _measure(count, fault, progress)})
    slowest = max(float(row["p95_ms"] or 0) for row in rows) / 1000
    untold = sum(int(row["untold"] or 0) for row in rows)
    return [
        Finding(
            title="From upstream's change to the receiver's receipt, with hints, polling at 60 s",
            columns=DELAY,
            rows=rows,
            goals=[
                Goal(f"p95 below {GOAL:.0f} s, and is {slowest:.3f}", slowest < GOAL),
                Goal("every change is told", not untold),
            ],
            notes=[
                f"{count} batches each, {PACE} created a second; PENDING, RUNNING, COMPLETED.",
                "Simulator and receiver share a process, the daemon has its own.",
            ],
        )
    ]


async def _measure(count: int, fault: Switch | None, progress: Progress) -> dict[str, Cell]:
    clock = Clock()
    port = _unused_port()
    with tempfile.TemporaryDirectory() as folder:
        async with Simulator(clock=clock) as simulator:
            receiver = _Receiver(clock)
            async with receiver.listening():
                environ = environment(Path(folder), "store", simulator.url) | {
                    "BATCHWATCH_WEBHOOK_URL": receiver.url,
                    "BATCHWATCH_POLL_INTERVAL": "60s",
                    "BATCHWATCH_HINT_SECRET": SECRET,
                    "BATCHWATCH_LISTEN": f"127.0.0.1:{port}",
                }
                async with daemon(environ):
                    await _ready(port)
                    if fault is not None:
                        simulator.faults.switch_on(fault)
                    await _live(simulator, count, port, progress)
                    await _settled(receiver, count)
            truth = _truth(simulator)
            requests = simulator.requests
    delays = sorted(
        (receiver.came[change] - moment).total_seconds() * 1000
        for change, moment in truth.items()
        if change in receiver.came
    )
    cuts = quantiles(delays, n=100)
    return {
        "changes": len(truth),
        "untold": len(truth) - len(delays),
        "p50_ms": cuts[49],
        "p95_ms": cuts[94],
        "p99_ms": cuts[98],
        "lists": requests["GET /api/v2/batches"],
        "gets": requests["GET /api/v2/batches/{id}"],
    }


async def _live(simulator: Simulator, count: int, port: int, progress: Progress) -> None:
    """Create the batches, each with a webhook to the daemon, as a client names it at creation."""
    dice = random.Random(1)
    hook = WebhookForm(
        webhook_url=f"http://127.0.0.1:{port}/hooks/llamacloud/default",
        webhook_signing_secret=SECRET,
    )
    for _ in range(count):
        runs = dice.uniform(*PENDING)
        ends = runs + dice.uniform(*RUNNING)
        life = a_life(("PENDING", 0.0), ("RUNNING", runs), ("COMPLETED", ends))
        simulator.webhooks.follow(simulator.world.plant(life, files=3), [hook])
        progress.step()
        await asyncio.sleep(1 / PACE)


async def _settled(receiver: _Receiver, count: int) -> None:
    """Wait until every end is told."""
    async with asyncio.timeout(PATIENCE):
        while count > sum(status == "COMPLETED" for _, status in receiver.came):
            receiver.news.clear()
            await receiver.news.wait()


def _truth(simulator: Simulator) -> dict[Change, datetime]:
    return {
        (one["id"], step["status"]): datetime.fromisoformat(step["at"])
        for one in history(simulator.world)
        for step in one["history"]
        if step["status"] in EVENT_TYPES
    }


async def _ready(port: int) -> None:
    async with asyncio.timeout(PATIENCE), ClientSession(f"http://127.0.0.1:{port}") as http:
        while True:
            try:
                async with http.get("/readyz") as answer:
                    if answer.ok:
                        return
            except ClientError:
                pass
            await asyncio.sleep(0.05)


def _unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
