"""Write what changed and what was acknowledged, on both engines; and how writers take turns."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from batchwatch.clock import Clock
from batchwatch.domain.batch import RUNNING, THROTTLED
from batchwatch.domain.delivery import Attempt, Settled, State
from benchmarks.changes import commit
from benchmarks.pipe import ENDPOINT, WATCH, open_store, url_in
from benchmarks.postgres import analyse, connected, database, server
from benchmarks.results import Column, Finding
from benchmarks.rounds import ratio, steps, take_turns

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    import asyncpg

    from batchwatch.store import Store
    from benchmarks.progress import Progress
    from benchmarks.results import Cell

PAGE: Final = 500  # batches to a commit, as a page of upstream's
COUNT: Final = 4_000  # batches a turn
SINGLES: Final = 200  # commits of one batch each
GROUP: Final = 400  # acknowledgements to a commit
ROUNDS: Final = 5
QUICK_COUNT: Final = 1_000
QUICK_ROUNDS: Final = 3
SPAN: Final = 0.7  # seconds for which writers take turns
WRITERS: Final = (1, 2, 4, 8)
ENGINES: Final = ("SQLite", "PostgreSQL")
FIRST, CHANGED, SINGLE, SETTLED = WORK = (
    f"seen first, {PAGE} a page",
    f"changed, {PAGE} a page",
    "changed, each alone",
    f"acknowledged, {GROUP} a commit",
)
# One event as a replica writes it, in a single round trip, and as it would without its turn.
_EVENT: Final = """
INSERT INTO events (id, type, watch, batch_id, subject, transition, occurred_at, payload)
VALUES (
    gen_random_uuid(), 'batch.running', 'bench', 'bat-1', 'bench/bat-1', 1, 0, repeat('x', 640)
);
SELECT pg_notify('bench', '["hook"]');
COMMIT;
"""
_ALONE: Final = "BEGIN;" + _EVENT
_IN_TURN: Final = "BEGIN; SELECT pg_advisory_xact_lock(1);" + _EVENT
_SILENT: Final = _ALONE.replace("SELECT pg_notify('bench', '[\"hook\"]');", "")

RATES: Final = (
    Column("work", "written"),
    Column("engine", "engine"),
    Column("per_second", "per second", ",.0f"),
    Column("ratio", "of SQLite", ".2f"),
    Column("lowest", "lowest", ".2f"),
    Column("highest", "highest", ".2f"),
    Column("cpu", "CPU ms/1,000", ",.0f"),
    Column("backend", "backends'", ",.0f"),
    Column("wal", "WAL, bytes each", ",.0f"),
)
TURNS: Final = (
    Column("writers", "writers at once", ",.0f"),
    Column("in_turn", "commits/s in turns", ",.0f"),
    Column("alone", "without turns", ",.0f"),
    Column("silent", "without notices", ",.0f"),
)


async def run(progress: Progress, *, quick: bool) -> list[Finding]:
    """Write the same on both engines in turns; then only what orders the writers of PostgreSQL."""
    count, rounds = (QUICK_COUNT, QUICK_ROUNDS) if quick else (COUNT, ROUNDS)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = await stack.enter_async_context(database(stack.enter_context(server())))
        stores = [await stack.enter_async_context(open_store(one)) for one in (url_in(folder), url)]
        works = [_Work(store, count) for store in stores]
        contestants: dict[str, Callable[[], Awaitable[float]]] = {}
        for name in WORK:
            for engine, work in zip(ENGINES, works, strict=True):
                contestants[f"{name} {engine}"] = partial(work.do, name)
        progress.stage(f"write: {count:,} batches each", steps=steps(len(contestants), rounds))
        for work in works:
            await work.begin()
        await analyse(url)
        measured = await take_turns(contestants, rounds=rounds, progress=progress)
        progress.stage("write: turns", steps=len(WRITERS))
        turns = [await _turns(url, writers, progress) for writers in WRITERS]
    return [
        Finding(
            title="Written on both engines, by one daemon",
            columns=RATES,
            rows=_rates(measured, works),
            notes=[
                f"Medians of {rounds} turns of {count:,} batches, {SINGLES} where each is alone.",
                "What is seen first is a transition, two events and a delivery; what changed is",
                "one of each. Their commits wait for the disk, those of acknowledgements do not.",
                "Backends: PostgreSQL's processes for our connections, where they are here.",
            ],
        ),
        Finding(
            title="How many commits of one event PostgreSQL takes, a round trip each",
            columns=TURNS,
            rows=turns,
            notes=[
                "In turns, as replicas write events, which are in the order of their commits so.",
                f"Medians of three times {SPAN} s. Each waits for the disk; in turns one by one.",
            ],
        ),
    ]


class _Work:
    """What a daemon writes into one store, again and again."""

    def __init__(self, store: Store, count: int) -> None:
        self.cpu: dict[str, list[float]] = {name: [] for name in WORK}  # seconds for each
        self.backend: dict[str, list[float]] = {name: [] for name in WORK}
        self.wal: dict[str, list[float]] = {name: [] for name in WORK}  # bytes for each
        self._store = store
        self._count = count
        self._made = 0
        self._status = self._of_singles = RUNNING

    async def begin(self) -> None:
        """Make a store that has lived for a while: statements are planned by what is in it."""
        await self._store.watches.begin(WATCH, now=Clock().now())
        await self._first()
        await self._settled()

    async def do(self, name: str) -> float:
        """Do one kind of work; how many a second."""
        kinds = {
            FIRST: self._first,
            CHANGED: self._changed,
            SINGLE: self._single,
            SETTLED: self._settled,
        }
        spent, log = await _backends(self._store), await _wal(self._store)
        cpu, begun = time.process_time(), time.perf_counter()
        done = await kinds[name]()
        took, cpu = time.perf_counter() - begun, time.process_time() - cpu
        self.cpu[name].append(cpu / done)
        self.backend[name].append((await _backends(self._store) - spent) / done)
        self.wal[name].append((await _wal(self._store) - log) / done)
        return done / took

    async def _first(self) -> int:
        for start in range(self._made, self._made + self._count, PAGE):
            await commit(self._store, range(start, start + PAGE))
        self._made += self._count
        return self._count

    async def _changed(self) -> int:
        self._status = THROTTLED if self._status == RUNNING else RUNNING
        for start in range(self._made - self._count, self._made, PAGE):
            await commit(self._store, range(start, start + PAGE), self._status)
        return self._count

    async def _single(self) -> int:
        self._of_singles = THROTTLED if self._of_singles == RUNNING else RUNNING
        for number in range(SINGLES):
            await commit(self._store, [number], self._of_singles)
        return SINGLES

    async def _settled(self) -> int:
        attempt = Attempt(Clock().now(), 0.01, status_code=204)
        done = 0
        while claimed := await self._store.outbox.claim(ENDPOINT, limit=GROUP):
            await self._store.outbox.settle(
                [Settled(one, attempt, State.DELIVERED) for one in claimed]
            )
            done += len(claimed)
        return done


async def _backends(store: Store) -> float:
    """CPU seconds that PostgreSQL's processes for us have used, if they are on this machine."""
    if store.database.dialect == "sqlite":
        return 0.0
    query = sa.text("SELECT pid FROM pg_stat_activity WHERE datname = current_database()")
    async with store.database.read() as connection:
        pids = list(await connection.scalars(query))
    ticks = 0
    for pid in pids:
        with suppress(OSError):  # it ended, or is another machine's
            ticks += _ticks(pid)
    return ticks / os.sysconf("SC_CLK_TCK")


async def _wal(store: Store) -> float:
    """Bytes that PostgreSQL has logged so far."""
    if store.database.dialect == "sqlite":
        return 0.0
    query = sa.text("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')")
    async with store.database.read() as connection:
        return float(await connection.scalar(query) or 0)


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _rates(
    measured: Mapping[str, Sequence[float]], works: Sequence[_Work]
) -> list[dict[str, Cell]]:
    rows: list[dict[str, Cell]] = []
    for name in WORK:
        for engine, work in zip(ENGINES, works, strict=True):
            rates = measured[f"{name} {engine}"]
            beside = ratio(rates, measured[f"{name} {ENGINES[0]}"])
            rows.append(
                {
                    "work": name,
                    "engine": engine,
                    "per_second": median(rates),
                    "ratio": beside.middle,
                    "lowest": beside.low,
                    "highest": beside.high,
                    "cpu": median(work.cpu[name]) * 1e6,
                    "backend": median(work.backend[name]) * 1e6 or None,
                    "wal": median(work.wal[name]) or None,
                }
            )
    return rows


async def _turns(url: str, writers: int, progress: Progress) -> dict[str, Cell]:
    """Commits a second by so many connections at once, each way; medians of three."""
    found: dict[str, list[float]] = {_IN_TURN: [], _ALONE: [], _SILENT: []}
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(connected(url)) for _ in range(writers)]
        for _ in range(3):
            for sql, rates in found.items():
                end = time.perf_counter() + SPAN
                done = await asyncio.gather(*(_until(end, one, sql) for one in connections))
                rates.append(sum(done) / SPAN)
    progress.step()
    return {
        "writers": writers,
        "in_turn": median(found[_IN_TURN]),
        "alone": median(found[_ALONE]),
        "silent": median(found[_SILENT]),
    }


async def _until(end: float, connection: asyncpg.Connection[Any], sql: str) -> int:
    done = 0
    while time.perf_counter() < end:
        await connection.execute(sql)
        done += 1
    return done
