"""What is asked all the time reads few rows on PostgreSQL, too, whatever it believes of its tables.

Its plans go by statistics, and so does which index it takes: what is promised is what is read.
It is counted for what was really sent, in the place where it was sent.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
import sqlalchemy as sa

from batchwatch.store import Database
from batchwatch.store.schema import metadata
from tests.store.conftest import HOOK, Store
from tests.store.test_plans import LISTS, OTHER, QUESTIONS, Ask, Plan, fill
from tests.support.postgres import a_database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

FEW = 400  # rows, of tables with 3,000 to 12,000: for what is asked for some hundreds
PAGE = 2_100  # for a list that looks through 2,000
OF_MANY = {  # what is open, what ended today, and as many tries as there are of these tables
    "outbox", "recover", "what ended when", "how an endpoint does",
}  # fmt: skip
EXPLAIN = "EXPLAIN (ANALYZE, FORMAT JSON, TIMING OFF, BUFFERS OFF)"
OPEN = "state IN ('waiting', 'pending', 'in_flight')"
QUIET = (  # statistics from a time when nothing was open, and then much is
    "CREATE TABLE were AS SELECT id, state FROM deliveries WHERE " + OPEN,
    "UPDATE deliveries SET state = 'delivered' WHERE " + OPEN,
    "VACUUM ANALYZE",
    "UPDATE deliveries SET state = were.state FROM were WHERE were.id = deliveries.id",
)


async def run(url: str, *statements: str) -> None:
    """As an administrator does: each is a transaction by itself."""
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


async def make(url: str) -> None:
    """A store as that of the other plans, of which PostgreSQL learns only what it is told to."""
    database = await Database.open(url)
    tables = [table.name for table in metadata.sorted_tables]
    await run(url, *(f"ALTER TABLE {one} SET (autovacuum_enabled = off)" for one in tables))
    await fill(Store(database, HOOK, OTHER))
    await database.close()
    await run(url, "UPDATE batches SET changed_at = created_at")  # as they do: not all at once


@pytest.fixture(scope="module")
def filled(postgres: str) -> Iterator[str]:
    """Filled once, and only copied."""
    databases = a_database(postgres)

    async def following() -> str:
        return await anext(databases, "")

    with asyncio.Runner() as runner:
        url = runner.run(following())
        runner.run(make(url))
        yield url
        runner.run(following())


@pytest.fixture(params=["with statistics", "with statistics of a quiet hour"])
async def full(postgres: str, filled: str, request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    """A copy of such a store."""
    async for url in a_database(postgres, like=filled):
        await run(url, *(QUIET if "quiet" in request.param else ("VACUUM ANALYZE",)))
        name = sa.make_url(url).database
        # Tables as small as these it would read whole.
        await run(url, f"ALTER DATABASE {name} SET enable_seqscan = off")
        database = await Database.open(url)
        yield Store(database, HOOK, OTHER)
        await database.close()


@contextmanager
def counting(database: Database) -> Iterator[dict[str, int]]:
    """How many rows each statement has read, that is sent meanwhile."""
    read: dict[str, int] = {}

    def count(_c: Any, cursor: Any, sql: str, parameters: Any, _x: Any, many: bool) -> None:  # noqa: FBT001  # as it is called
        if sql.split(maxsplit=1)[0] not in ("SELECT", "UPDATE", "INSERT", "DELETE"):
            return
        alone = cursor._adapt_connection.isolation_level == "autocommit"  # noqa: SLF001
        beside = cursor._adapt_connection.cursor()  # noqa: SLF001  # in the same transaction
        beside.execute("BEGIN" if alone else "SAVEPOINT counting", ())
        beside.execute(f"{EXPLAIN} {sql}", parameters[0] if many else parameters)
        ((plan,),) = beside.fetchall()
        beside.execute("ROLLBACK" if alone else "ROLLBACK TO SAVEPOINT counting", ())
        read[sql] = max(read.get(sql, 0), _read(plan[0]["Plan"]))

    engines = [database._engine.sync_engine, database._hasty.sync_engine]  # noqa: SLF001  # nobody else listens
    for engine in engines:
        sa.event.listen(engine, "before_cursor_execute", count)
    yield read
    for engine in engines:
        sa.event.remove(engine, "before_cursor_execute", count)


def _read(node: dict[str, Any]) -> int:
    """The most rows that a plan has read at one place, those that it had no use for, too."""
    rows = 0
    if "Relation Name" in node:  # not what an index tells of, which is then read there
        useless = (name for name in node if name.startswith("Rows Removed by"))
        rows = (node["Actual Rows"] + sum(node[one] for one in useless)) * node["Actual Loops"]
    return max(round(rows), *map(_read, node.get("Plans", ())), 0)


async def much_of(
    full: Store, questions: dict[str, tuple[Ask, Plan]], limit: int
) -> dict[str, list[str]]:
    """The questions that read more than ``limit`` rows, with the statements and how many."""
    found: dict[str, list[str]] = {}
    for question in (one for one in questions if one not in OF_MANY):
        ask, _ = questions[question]
        with counting(full.database) as read:
            await ask(full)
        if much := [f"{rows}: {sql}" for sql, rows in read.items() if rows > limit]:
            found[question] = much
    return found


async def test_what_is_asked_all_the_time_reads_few_rows(full: Store) -> None:
    """And never a table, or all that was ever open."""
    assert {} == await much_of(full, QUESTIONS, FEW)


async def test_a_page_of_a_list_reads_few_rows(full: Store) -> None:
    """So that it costs the same however many there are."""
    assert {} == await much_of(full, LISTS, PAGE)
