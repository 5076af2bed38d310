"""How long pages and lists take with a large store, beside one of half its size.

A daemon for each, and one request after another, in turns: what slows a
whole turn down slows both. What does not depend on the size of the tables
takes the same time of both; what counts is named.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

import aiohttp
from aiohttp.test_utils import unused_port

from batchwatch.simulator import Simulator
from benchmarks.daemon import PATIENCE, daemon, environment
from benchmarks.filled import ENDPOINTS, NEWEST, TYPES, WATCHES, fill, the_moment
from benchmarks.pipe import url_in
from benchmarks.results import Column, Finding, Goal
from benchmarks.rounds import ratio

if TYPE_CHECKING:
    from benchmarks.progress import Progress
    from benchmarks.results import Cell

BATCHES: Final = 100_000  # and five events for each
SMALL: Final = BATCHES // 2
ROUNDS: Final = 25
QUICK_ROUNDS: Final = 7
GOAL: Final = 50.0  # ms at the median, the most that was promised
CONSTANT: Final = 1.4  # times as long with twice the rows: that is still noise
COUNTS: Final = (
    "/", "/batches?text=nothing-like-it", "/endpoints", "/api/v1/stats", "/api/v1/endpoints",
)  # fmt: skip

_BATCH: Final = f"/batches/{WATCHES[0]}/{NEWEST}"
_EVENT: Final = f"evt_{1:032x}"
PAGES: Final = (
    "/", "/batches", "/batches?status=FAILED", "/batches?text=nothing-like-it",
    "/batches?sort=created", _BATCH, "/deliveries", "/deliveries?state=dead", "/deliveries/1",
    "/events", "/events?type=batch.settled", f"/events/{_EVENT}", "/endpoints", "/watches", "/api",
)  # fmt: skip
API: Final = (
    "/stats", "/batches", "/batches?limit=200", "/batches?status=FAILED",
    "/batches?status=FAILED&watch=eu", "/batches?directory=dir-7", "/batches?active=true",
    "/batches?stuck=true", "/batches?sort=-created&status=FAILED", "/batches?text=bat-000000",
    "/batches?text=nothing-like-it&status=COMPLETED", _BATCH, f"{_BATCH}/files?limit=1000",
    "/events", "/events?after=1&limit=200", f"/events?type={TYPES[3]}", "/events?type=watch.*",
    f"/events/{_EVENT}", "/deliveries", "/deliveries?state=dead", "/deliveries?state=pending",
    f"/deliveries?endpoint={ENDPOINTS[2]}&state=dead", "/deliveries?type=watch.gap",
    "/deliveries/1", "/endpoints", "/watches",
)  # fmt: skip
COLUMNS: Final = (
    Column("path", "path"),
    Column("small", "ms, half", ",.1f"),
    Column("large", "ms", ",.1f"),
    Column("slowest", "slowest", ",.1f"),
    Column("ratio", "ratio", ",.2f"),
)


async def run(progress: Progress, *, quick: bool) -> list[Finding]:
    """Fill both stores, start both daemons, and ask them in turns."""
    rounds = QUICK_ROUNDS if quick else ROUNDS
    paths = [*PAGES, *(f"/api/v1{one}" for one in API)]
    progress.stage(f"web: stores of {BATCHES:,} and {SMALL:,} batches", steps=2 + rounds + 1)
    async with AsyncExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        simulator = await stack.enter_async_context(Simulator())
        sites = []
        for name, count in (("small", SMALL), ("large", BATCHES)):
            sites.append(await _site(stack, place, name, count, simulator.url))
            progress.step()
        measured: dict[str, tuple[list[float], list[float]]] = {path: ([], []) for path in paths}
        for number in range(rounds + 1):
            for path, series in measured.items():
                for site, found in zip(sites, series, strict=True):
                    took = await _asked(site, path)
                    if number:  # the first one opens connections and fills caches
                        found.append(took)
            progress.step()
    rows: list[dict[str, Cell]] = [
        {
            "path": path,
            "small": median(small),
            "large": median(large),
            "slowest": max(large),
            "ratio": ratio(large, small).middle,
        }
        for path, (small, large) in measured.items()
    ]
    slow = [row for row in rows if _number(row["large"]) > GOAL]
    growing = [
        row for row in rows if _number(row["ratio"]) > CONSTANT and row["path"] not in COUNTS
    ]
    return [
        Finding(
            title=f"Pages and lists with {BATCHES:,} batches and {5 * BATCHES:,} events",
            columns=COLUMNS,
            rows=rows,
            goals=[
                Goal(
                    f"each below {GOAL:.0f} ms at the median"
                    + "".join(f"; {row['path']} is not" for row in slow),
                    met=not slow,
                ),
                Goal(
                    f"twice the rows take at most {CONSTANT} times as long, counts aside"
                    + "".join(f"; {row['path']} does not" for row in growing),
                    met=not growing,
                ),
            ],
            notes=[
                f"{rounds} requests each, one after another, each answer read to its end.",
                "The ratio is the median of those of the single turns.",
                f"{', '.join(COUNTS)} count all batches by status, or all that is owed or dead.",
            ],
        )
    ]


async def _site(
    stack: AsyncExitStack, place: Path, name: str, count: int, upstream: str
) -> aiohttp.ClientSession:
    """A daemon with such a store, that looks at LlamaCloud once and then sends nothing."""
    (place / name).mkdir()
    await fill(url_in(place / name), count=count, now=the_moment())
    url = f"http://127.0.0.1:{unused_port()}"
    environ = environment(place, name, upstream) | {
        "BATCHWATCH_LISTEN": url.removeprefix("http://"),
        "BATCHWATCH_POLL_INTERVAL": "1h",
    }
    for watch in WATCHES:
        environ[f"BATCHWATCH_WATCHES__{watch.upper()}__LOOKBACK"] = "1h"
    for endpoint in ENDPOINTS:
        environ[f"BATCHWATCH_ENDPOINTS__{endpoint.upper()}__URL"] = "http://127.0.0.1:9/"
    await stack.enter_async_context(daemon(environ))
    site = await stack.enter_async_context(aiohttp.ClientSession(url))
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            async with site.get("/livez") as answer:
                assert answer.status == 200
                return site
        except aiohttp.ClientConnectorError:
            if time.monotonic() > deadline:
                raise


async def _asked(site: aiohttp.ClientSession, path: str) -> float:
    """Ask for ``path`` as a browser or a program does; milliseconds until all of it is there."""
    accept = "application/json" if path.startswith("/api/") else "text/html"
    begun = time.perf_counter()
    async with site.get(path, headers={"Accept": accept}) as answer:
        await answer.read()
    took = (time.perf_counter() - begun) * 1000
    assert answer.status == 200, f"{path} was answered {answer.status}"
    return took


def _number(cell: Cell) -> float:
    assert isinstance(cell, float)
    return cell
