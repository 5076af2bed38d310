"""Read batches and compare them with the store, beside a loop that only reads them."""

from __future__ import annotations

import asyncio
import tempfile
import time
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import orjson
from llama_cloud import LlamaCloud as Sdk

from batchwatch.clock import Clock
from batchwatch.llamacloud.client import BATCHES, PAGE_SIZE
from batchwatch.parts import upstream_session
from batchwatch.simulator import Simulator, a_life
from benchmarks import recorded
from benchmarks.child import started
from benchmarks.pipe import API_KEY, cloud_at, open_store, poller_of
from benchmarks.results import Column, Finding, Goal
from benchmarks.rounds import compared, ratio, steps, take_turns

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from batchwatch.watching.poller import Poller
    from benchmarks.progress import Progress
    from benchmarks.results import Cell

COUNT: Final = 10_000  # batches, all active: a pass looks at each of them, wherever it finds it
STATUSES: Final = ("PENDING", "THROTTLED", "RUNNING")
STAYS: Final = (*["RUNNING"] * 8, "PENDING", "THROTTLED")
SPAN: Final = timedelta(minutes=5)  # from the oldest to the youngest: the window holds them all
ROUNDS: Final = 9
QUICK_ROUNDS: Final = 3
GOAL: Final = 0.5  # of the bare loop

# Two upstreams. In the first the window shows every batch; in the second all have become too old
# for it, and the listing of each status shows them.
WINDOW: Final = "window"
SWEEPS: Final = "sweeps"
NAMES: Final = {WINDOW: "in the window", SWEEPS: "older, by sweeps"}
LISTINGS: Final = {WINDOW: ("",), SWEEPS: ("", *STATUSES)}  # by status; none is the window's own

COLUMNS: Final = (
    Column("where", "batches are"),
    Column("reader", "reader"),
    Column("per_second", "batches/s", ",.0f"),
    Column("ratio", "of bare", ".2f"),
    Column("lowest", "lowest", ".2f"),
    Column("highest", "highest", ".2f"),
)


async def run(progress: Progress, *, quick: bool) -> list[Finding]:
    """Let batchwatch, the bare loop and the official SDK read the same pages in turns."""
    rounds = QUICK_ROUNDS if quick else ROUNDS
    progress.stage("read: record pages from the simulator")
    rows: list[dict[str, Cell]] = []
    goals: list[Goal] = []
    clock = Clock()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        recorded.save(await _record(), folder / "pages")
        url = await stack.enter_async_context(started("benchmarks.recorded", str(folder / "pages")))
        store = await stack.enter_async_context(open_store(folder))
        session = await stack.enter_async_context(upstream_session())
        # One poller for both, as in a daemon: when its batches grow old it knows them, and knows
        # how large upstream's pages are.
        poller = poller_of(store, cloud_at(f"{url}/{WINDOW}", session, clock), clock)
        for where, name in NAMES.items():
            poller.cloud = cloud_at(f"{url}/{where}", session, clock)
            sdk = Sdk(api_key=API_KEY, base_url=f"{url}/{where}", max_retries=0)
            stack.callback(sdk.close)
            contestants = {
                "batchwatch": _batchwatch(poller),
                "bare": _bare(session, f"{url}/{where}", LISTINGS[where]),
                "SDK": _sdk(sdk, LISTINGS[where]),
            }
            progress.stage(f"read: {name}", steps=steps(len(contestants), rounds))
            measured = await take_turns(contestants, rounds=rounds, progress=progress)
            found = compared(measured, to="bare", name="reader")
            rows += [{"where": name, **row} for row in found]
            ours = ratio(measured["batchwatch"], measured["bare"]).middle
            goals.append(Goal(f"{name}: at least {GOAL} of bare, and is {ours:.2f}", ours >= GOAL))
    return [
        Finding(
            title=f"Batches read and compared with the store: {COUNT:,}, of which none has changed",
            columns=COLUMNS,
            rows=rows,
            goals=goals,
            notes=[
                f"Medians of {rounds} turns; the process with the pages only sends them.",
                "batchwatch: a whole pass. bare: aiohttp and orjson, page after page.",
                "SDK: llama-cloud, synchronous.",
            ],
        )
    ]


async def _record() -> dict[recorded.Key, bytes]:
    """Every page of both upstreams, as the simulator gives them."""
    recording: dict[recorded.Key, bytes] = {}
    async with (
        Simulator() as simulator,
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {API_KEY}"}) as session,
    ):
        now = Clock().now()
        for number in range(COUNT):
            status = STAYS[number % len(STAYS)]
            simulator.world.plant(
                a_life((status, 0.0)), files=1, created=now - SPAN * (number + 1) / COUNT
            )
        for status in ("", *STATUSES):
            token = ""
            while True:
                params = {"page_size": str(PAGE_SIZE)} | _given(status=status, page_token=token)
                async with session.get(simulator.url + BATCHES, params=params) as response:
                    body = await response.read()
                recording[SWEEPS if status else WINDOW, status, token] = body
                token = orjson.loads(body)["next_page_token"]
                if not token:
                    break
    recording[SWEEPS, "", ""] = b'{"items":[],"next_page_token":null,"total_size":null}'
    return recording


def _batchwatch(poller: Poller) -> Callable[[], Awaitable[float]]:
    async def run() -> float:
        begun = time.perf_counter()
        this = await poller.poll()
        took = time.perf_counter() - begun
        assert len(this.seen) == this.active == COUNT
        return COUNT / took

    return run


def _bare(
    session: aiohttp.ClientSession, base_url: str, listings: Iterable[str]
) -> Callable[[], Awaitable[float]]:
    headers = {"Authorization": f"Bearer {API_KEY}", "Accept": "application/json"}

    async def run() -> float:
        begun = time.perf_counter()
        read = 0
        for status in listings:
            token = ""
            while True:
                params = {"page_size": str(PAGE_SIZE)} | _given(status=status, page_token=token)
                async with session.get(
                    base_url + BATCHES, params=params, headers=headers
                ) as response:
                    page: dict[str, Any] = orjson.loads(await response.read())
                read += len(page["items"])
                token = page["next_page_token"]
                if not token:
                    break
        took = time.perf_counter() - begun
        assert read == COUNT
        return COUNT / took

    return run


def _sdk(sdk: Sdk, listings: Iterable[str]) -> Callable[[], Awaitable[float]]:
    def read() -> float:
        begun = time.perf_counter()
        seen = 0
        for status in listings:
            filters: Any = _given(status=status)
            for _batch in sdk.batches.list(page_size=PAGE_SIZE, **filters):
                seen += 1
        took = time.perf_counter() - begun
        assert seen == COUNT
        return COUNT / took

    async def run() -> float:
        return await asyncio.to_thread(read)

    return run


def _given(**params: str) -> dict[str, str]:
    return {name: value for name, value in params.items() if value}
