"""A simulated month at a steady rate, with what is old removed: whether the store stops growing.

Everything is done by the store's own methods, at the moments of a clock that
is moved by hand; nothing is sent, and a delivery is taken at once. PostgreSQL
is vacuumed once a day of it, as its own autovacuum does in true days.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from batchwatch.clock import Clock
from batchwatch.domain.batch import COMPLETED, RUNNING, BatchId, EventId, FileOutcome, Observation
from batchwatch.domain.changes import Recorder
from batchwatch.domain.coverage import Gap, Kind, Look
from batchwatch.domain.delivery import Attempt, Settled, State
from batchwatch.domain.event import DAEMON_HEARTBEAT, Event
from batchwatch.domain.jobs import JobRecorder, JobSeen
from batchwatch.domain.routing import FOR_PROGRAMS, Router
from batchwatch.store import Database, Store
from batchwatch.store.retention import Retention
from batchwatch.store.schema import metadata
from benchmarks.pipe import ENDPOINT, WATCH
from benchmarks.results import Column, Finding, Goal
from tests.support.postgres import a_database, a_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from benchmarks.progress import Progress
    from benchmarks.results import Cell

DAYS: Final = 30
KEPT: Final = 5  # days
BATCHES: Final = 300  # a day
QUICK_BATCHES: Final = 100
FILES: Final = 5  # of each batch
A_DAY: Final = 4  # looks
STEADY: Final = 1.05  # times what it was: that is no growth
UPSTREAM: Final = "https://llamacloud.test"
BEGUN: Final = datetime(2026, 11, 1, tzinfo=UTC)

COLUMNS: Final = (
    Column("engine", "engine"),
    Column("day", "day", ",.0f"),
    Column("batches", "batches", ",.0f"),
    Column("rows", "rows in all", ",.0f"),
    Column("megabytes", "MB", ",.1f"),
    Column("removed", "removed by then", ",.0f"),
    Column("slowest", "slowest step, ms", ",.0f"),
)


@dataclass(frozen=True, slots=True)
class Day:
    """How large the store is at the end of a simulated day."""

    number: int
    batches: int
    rows: int
    bytes: int
    removed: int  # rows, so far
    slowest: float  # seconds of the longest step that removed something


async def run(progress: Progress, *, quick: bool) -> list[Finding]:
    """A month on each engine."""
    a_day = QUICK_BATCHES if quick else BATCHES
    rows: list[dict[str, Cell]] = []
    goals: list[Goal] = []
    async with AsyncExitStack() as stack:
        place = stack.enter_context(tempfile.TemporaryDirectory())
        server = stack.enter_context(a_server())
        shared = await stack.enter_async_context(aclosing(a_database(server)))  # type: ignore[type-var]  # a generator
        urls = {
            "SQLite": f"sqlite+aiosqlite:///{place}/batchwatch.db",
            "PostgreSQL": await anext(shared),
        }
        for engine, url in urls.items():
            progress.stage(f"soak: {DAYS} days of {a_day:,} batches on {engine}", steps=DAYS)
            days = await month(url, a_day=a_day, kept=KEPT, tell=lambda _: progress.step())
            rows += [_row(engine, one) for one in days if one.number % 5 == 0]
            grown = growth(days, kept=KEPT)
            text = (
                f"does not grow once {KEPT} days are kept: {grown:.2f} times as large on {engine}"
            )
            goals.append(Goal(text, grown <= STEADY))
    return [
        Finding(
            title=f"A simulated month of {a_day:,} batches a day, kept for {KEPT} days",
            columns=COLUMNS,
            rows=rows,
            goals=goals,
            notes=[
                f"Each batch has {FILES} files, four events and three deliveries.",
                "SQLite's file keeps its size: what is removed from it is used again.",
            ],
        )
    ]


async def month(
    url: str,
    *,
    a_day: int,
    kept: int,
    days: int = DAYS,
    tell: Callable[[Day], None] = lambda _: None,
) -> list[Day]:
    """Live so many days in the store at ``url``, of which the last ``kept`` are kept."""
    clock = _Simulated()
    database = await Database.open(url)
    found: list[Day] = []
    try:
        life = _Life(database, clock, each=a_day // A_DAY)
        removed, slowest = 0, 0.0
        for number in range(1, days + 1):
            for _ in range(A_DAY):
                clock.elapsed += 86_400 / A_DAY
                await life.look()
                begun = time.perf_counter()
                steps = Retention(database).remove(now=clock.now(), older_than=timedelta(days=kept))
                async for some in steps:
                    slowest = max(slowest, time.perf_counter() - begun)
                    removed += sum(some.values())
                    begun = time.perf_counter()
            found.append(await _measured(database, number, removed, slowest))
            tell(found[-1])
    finally:
        await database.close()
    return found


def growth(days: Sequence[Day], *, kept: int) -> float:
    """The largest size since a while after as much as is kept was there, against that before.

    The while is as long again: pages and tuples that are free must be found first.
    """
    before = max(one.bytes for one in days if one.number <= 2 * kept)
    return max(one.bytes for one in days if one.number > 2 * kept) / before


class _Simulated(Clock):
    """Stands still unless it is moved."""

    def __init__(self) -> None:
        self.elapsed = 0.0  # seconds
        super().__init__()

    def now(self) -> datetime:
        return BEGUN + timedelta(seconds=self.elapsed)

    def monotonic(self) -> float:
        return self.elapsed


class _Life:
    """What comes to be in a store: at each look some batches begin, and those before end."""

    def __init__(self, database: Database, clock: _Simulated, *, each: int) -> None:
        heard = FOR_PROGRAMS | {DAEMON_HEARTBEAT}
        self._store = Store(database, Router({ENDPOINT: heard}), clock)
        self._clock = clock
        self._each = each
        self._looks = 0

    async def look(self) -> None:
        """One look: what is new, what has ended, what is settled, and all that is owed for it."""
        now = self._clock.now()
        if not self._looks:
            await self._store.watches.begin(WATCH, now=now)
        self._looks += 1
        begun = [self._seen(self._looks, number) for number in range(self._each)]
        await self._change(begun)
        if self._looks > 1:
            over = [self._seen(self._looks - 1, number, over=True) for number in range(self._each)]
            await self._change(over)
            jobs = {one.job_id: JobSeen("COMPLETED") for one in _FILES if one.job_id}
            rules = JobRecorder(WATCH, UPSTREAM, deadline=timedelta(days=1))
            follow = partial(rules.follow, seen=jobs, over={}, now=now)
            await self._store.batches.follow(WATCH, [one.id for one in over], follow)
            names = {f"dfl-{one.id}": "report.pdf" for one in over}
            await self._store.names.add(WATCH, names, now=now)
        gap = Gap(now - timedelta(minutes=1), now, Kind.STOPPED, closed_at=now)
        look = Look(now - timedelta(minutes=10), now, now, self._clock.elapsed)
        await self._store.watches.passed(WATCH, look, newest=now, now=now, gaps=[gap])
        heartbeat = Event(EventId(f"evt_{self._looks}"), DAEMON_HEARTBEAT, None, now, {})
        await self._store.outbox.announce(heartbeat)
        await self._deliver()

    async def _change(self, seen: Iterable[Observation]) -> None:
        rules = Recorder(WATCH, UPSTREAM)
        seen = list(seen)
        await self._store.batches.change(
            WATCH,
            [one.id for one in seen],
            partial(rules.record, seen=seen, now=self._clock.now()),
        )

    async def _deliver(self) -> None:
        outbox = self._store.outbox
        attempt = Attempt(self._clock.now(), 0.1, status_code=204)
        while claimed := await outbox.claim(ENDPOINT, limit=400):
            await outbox.settle([Settled(one, attempt, State.DELIVERED) for one in claimed])

    def _seen(self, look: int, number: int, *, over: bool = False) -> Observation:
        now = self._clock.now()
        created_at = now - timedelta(days=1 / A_DAY if over else 0)
        return Observation(
            id=BatchId(f"bat-{look:08}-0000-4000-8000-{number:012}"),
            status=COMPLETED if over else RUNNING,
            seen_at=now,
            fingerprint=f"{over} {now}",
            created_at=created_at,
            updated_at=now,
            source_directory_id=f"dir-{number % 7}",
            job_type="parse_v2",
            configuration_id="cfg-PARSE_AGENTIC",
            asked_results=over,
            results=_FILES if over else None,
        )


_FILES: Final = tuple(FileOutcome(f"dfl-{one}", "parse_v2", f"pjb-{one}") for one in range(FILES))


async def _measured(database: Database, number: int, removed: int, slowest: float) -> Day:
    counts = {}
    async with database.read() as connection:
        for table in metadata.sorted_tables:
            query = sa.select(sa.func.count()).select_from(table)
            counts[table.name] = await connection.scalar(query) or 0
    size = await _size(database)
    return Day(number, counts["batches"], sum(counts.values()), size, removed, slowest)


async def _size(database: Database) -> int:
    """Bytes of the file, or of the tables with their indices."""
    if not database.is_shared:
        await database.tidy()
        return Path(database.where).stat().st_size  # noqa: ASYNC240  # nobody else waits
    async with database._hasty.connect() as connection:  # noqa: SLF001  # outside of transactions
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.exec_driver_sql("VACUUM")
        total = 0
        for table in metadata.sorted_tables:
            query = sa.select(sa.func.pg_total_relation_size(table.name))
            total += await connection.scalar(query) or 0
        return total


def _row(engine: str, day: Day) -> dict[str, Cell]:
    return {
        "engine": engine,
        "day": day.number,
        "batches": day.batches,
        "rows": day.rows,
        "megabytes": day.bytes / 1e6,
        "removed": day.removed,
        "slowest": day.slowest * 1_000,
    }
