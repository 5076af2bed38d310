"""Deliver what one PostgreSQL owes by one replica and by two, beside a daemon with SQLite."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

from batchwatch.clock import Clock
from batchwatch.deliver.sender import new_session
from benchmarks.changes import commit
from benchmarks.child import started
from benchmarks.deliver import Hook
from benchmarks.pipe import CONCURRENCY, WATCH, open_store, url_in
from benchmarks.postgres import analyse, database, server
from benchmarks.replica import replica
from benchmarks.results import Column, Finding
from benchmarks.rounds import compared, steps, take_turns

if TYPE_CHECKING:
    from benchmarks.progress import Progress

COUNT: Final = 6_000  # notifications a turn, each of a batch of its own
ROUNDS: Final = 5
QUICK_COUNT: Final = 2_000
QUICK_ROUNDS: Final = 3
PAGE: Final = 500  # batches to a commit when a store is filled
LOOK: Final = 0.01  # seconds between two looks at what has arrived
ONE: Final = "PostgreSQL, one replica"
TWO: Final = "PostgreSQL, two replicas"
SQLITE: Final = "SQLite, one daemon"

COLUMNS: Final = (
    Column("who", "who delivers"),
    Column("per_second", "per second", ",.0f"),
    Column("ratio", "of one replica", ".2f"),
    Column("lowest", "lowest", ".2f"),
    Column("highest", "highest", ".2f"),
    Column("cpu", "CPU ms/1,000", ",.0f"),
)


async def run(progress: Progress, *, quick: bool) -> list[Finding]:
    """Have the same deliveries made from copies of the same stores, in turns."""
    count, rounds = (QUICK_COUNT, QUICK_ROUNDS) if quick else (COUNT, ROUNDS)
    progress.stage(f"replicas: stores that owe {count:,}")
    costs: dict[str, list[float]] = {ONE: [], TWO: [], SQLITE: []}  # CPU seconds of each turn
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        postgres = stack.enter_context(server())
        url = await stack.enter_async_context(started("benchmarks.receiver"))
        hook = Hook(url, await stack.enter_async_context(new_session()))
        filled = await stack.enter_async_context(database(postgres))
        for store_url in (filled, url_in(folder)):
            await fill(store_url, count)

        async def shared(number: int, cost: list[float]) -> float:
            async with database(postgres, like=filled) as store_url:
                return await _delivered([store_url] * number, hook, count, cost)

        async def alone(cost: list[float]) -> float:
            with tempfile.TemporaryDirectory() as copied:
                shutil.copy(folder / "batchwatch.db", copied)
                return await _delivered([url_in(Path(copied))], hook, count, cost)

        contestants = {
            ONE: partial(shared, 1, costs[ONE]),
            TWO: partial(shared, 2, costs[TWO]),
            SQLITE: partial(alone, costs[SQLITE]),
        }
        progress.stage(f"replicas: {count:,} each", steps=steps(len(contestants), rounds))
        measured = await take_turns(contestants, rounds=rounds, progress=progress)
    rows = compared(measured, to=ONE, name="who")
    for row in rows:
        row["cpu"] = median(costs[str(row["who"])]) * 1e6
    return [
        Finding(
            title=f"Notifications of a full outbox by replicas of {CONCURRENCY} requests at once",
            columns=COLUMNS,
            rows=rows,
            notes=[
                f"Medians of {rounds} turns of {count:,}; a process for each replica and one for",
                f"the receiver, which share {os.cpu_count()} cores with PostgreSQL's own: what two",
                "replicas gain on machines of their own is more.",
                "From the first claim to the commit of the last acknowledgement.",
            ],
        )
    ]


async def fill(store_url: str, count: int) -> None:
    """Have it owe so many, and let PostgreSQL look at it, as it does within a minute by itself."""
    async with open_store(store_url) as store:
        await store.watches.begin(WATCH, now=Clock().now())
        for start in range(0, count, PAGE):
            await commit(store, range(start, min(start + PAGE, count)))
        await store.database.tidy()
    if store_url.startswith("postgresql"):
        await analyse(store_url)


async def _delivered(stores: list[str], hook: Hook, count: int, cost: list[float]) -> float:
    """Have a replica for each of ``stores`` deliver; notifications a second, and what it cost."""
    async with AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(replica(one, hook.url)) for one in stores]
        begun = time.monotonic()
        for one in replicas:
            one.begin()
        arrived = 0
        while arrived < count:
            await asyncio.sleep(LOOK)
            arrived += (await hook.arrivals()).count
        reports = [await one.end() for one in replicas]
    assert arrived == count
    cost.append(sum(one.cpu for one in reports) / count)
    return count / (max(one.ended for one in reports) - begun)
