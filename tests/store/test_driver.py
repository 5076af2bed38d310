"""The driver under the store: one crossing to its thread for a statement, and nothing is lost."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from batchwatch.store import Database, driver
from batchwatch.store.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


Opened = Any  # aiosqlite's, but that its cursors are there at once


class Crossings:
    """Counts how often a connection goes over to its thread."""

    def __init__(self, connection: Opened, patch: pytest.MonkeyPatch) -> None:
        self.count = 0
        cross = connection._execute  # noqa: SLF001  # the only way over

        async def counted(*args: Any, **more: Any) -> Any:
            self.count += 1
            return await cross(*args, **more)

        patch.setattr(connection, "_execute", counted)


@pytest.fixture
async def connection(tmp_path: Path) -> AsyncIterator[Opened]:
    opened: Opened = await driver.connect(str(tmp_path / "some.db"), isolation_level=None)
    cursor = opened.cursor()
    await cursor.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, word TEXT UNIQUE)")
    yield opened
    await opened.close()


async def test_a_statement_is_one_crossing(
    connection: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To open a cursor, to execute, to fetch and to close: all of it."""
    crossings = Crossings(connection, monkeypatch)
    cursor = connection.cursor()
    await cursor.execute("SELECT 1 UNION ALL SELECT 2")
    rows = await cursor.fetchall()
    await cursor.close()

    assert (1, [(1,), (2,)]) == (crossings.count, rows)


async def test_what_is_known_of_a_statement_is_kept(connection: Opened) -> None:
    """Its columns, how many rows it changed, and the number of the last one."""
    cursor = connection.cursor()
    await cursor.execute("INSERT INTO t (word) VALUES (?), (?)", ("a", "b"))
    assert (2, 2, None) == (cursor.rowcount, cursor.lastrowid, cursor.description)

    await cursor.execute("SELECT id, word FROM t WHERE word = ?", ("b",))
    assert ["id", "word"] == [one[0] for one in cursor.description]
    assert [(2, "b")] == list(await cursor.fetchall())

    await cursor.execute("UPDATE t SET word = word || '!' RETURNING id")
    assert [(1,), (2,)] == sorted(await cursor.fetchall())

    await cursor.execute("SELECT id FROM t WHERE 0")
    assert (True, []) == (cursor.description is not None, list(await cursor.fetchall()))


async def test_many_rows_are_one_crossing_too(
    connection: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And are counted."""
    crossings = Crossings(connection, monkeypatch)
    cursor = connection.cursor()
    await cursor.executemany("INSERT INTO t (word) VALUES (?)", [(str(n),) for n in range(50)])

    assert (1, 50, None) == (crossings.count, cursor.rowcount, cursor.description)


async def test_to_end_what_has_not_begun_is_no_crossing(
    connection: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLAlchemy asks for it after each question; where there is a transaction, it ends."""
    crossings = Crossings(connection, monkeypatch)
    await connection.commit()
    await connection.rollback()
    assert 0 == crossings.count

    cursor = connection.cursor()
    for end, kept in ((connection.rollback, 0), (connection.commit, 1)):
        await cursor.execute("BEGIN IMMEDIATE")
        await cursor.execute("INSERT INTO t (word) VALUES ('a')")
        await end()
        assert not connection.in_transaction
        await cursor.execute("SELECT count(*) FROM t")
        assert [(kept,)] == list(await cursor.fetchall())
    assert 2 * 4 == crossings.count


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("SELEC 1", sqlite3.OperationalError),
        ("SELECT * FROM absent", sqlite3.OperationalError),
        ("INSERT INTO t (id, word) VALUES (1, 'a'), (1, 'b')", sqlite3.IntegrityError),
    ],
)
async def test_an_error_is_sqlites_own_and_leaves_the_connection_usable(
    sql: str, kind: type[Exception], connection: Opened
) -> None:
    """SQLAlchemy knows them by their types."""
    cursor = connection.cursor()
    with pytest.raises(kind):
        await cursor.execute(sql)
    await cursor.execute("SELECT count(*) FROM t")

    assert [(0,)] == list(await cursor.fetchall())


async def test_the_stores_errors_are_made_of_them(file_url: str) -> None:
    """So that a command can tell them in a line."""
    database = await Database.open(file_url)
    with pytest.raises(StoreError, match="no such table: absent") as caught:
        async with database.write() as connection:
            await connection.execute(sa.text("DELETE FROM absent"))
    assert isinstance(caught.value.__cause__, sa.exc.OperationalError)
    async with database.write():
        pass
    await database.close()


async def test_statements_at_once_do_not_take_each_others_rows(
    connection: Opened,
) -> None:
    """Each cursor keeps what its own statement brought."""

    async def ask(number: int) -> list[Any]:
        cursor = connection.cursor()
        await cursor.execute("SELECT ?", (number,))
        return list(await cursor.fetchall())

    assert [[(n,)] for n in range(200)] == await asyncio.gather(*map(ask, range(200)))


async def test_a_caller_that_is_cancelled_leaves_the_connection_usable(
    connection: Opened,
) -> None:
    """Its statement runs to its end in the thread; the next one waits for it."""
    slow = """
        WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 300000)
        SELECT max(x) FROM n
    """
    asking = asyncio.create_task(connection.cursor().execute(slow))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)

    cursor = connection.cursor()
    await cursor.execute("SELECT 7")
    assert [(7,)] == list(await cursor.fetchall())


async def test_a_connection_that_is_closed_ends_its_thread(tmp_path: Path) -> None:
    """And until then it must not keep the process alive."""
    connection: Opened = await driver.connect(str(tmp_path / "some.db"))
    thread = connection._thread  # noqa: SLF001  # nobody else needs it
    assert (True, True) == (thread.is_alive(), thread.daemon)
    await connection.close()
    await asyncio.to_thread(thread.join, 5)

    assert not thread.is_alive()
    with pytest.raises(ValueError, match="no active connection"):
        await connection.cursor().execute("SELECT 1")


async def test_a_store_that_is_closed_leaves_no_thread(file_url: str) -> None:
    """Of neither engine, however many connections there were."""
    before = set(threading.enumerate())
    database = await Database.open(file_url)
    async with database.read() as one, database.read() as two, database.write(durable=False):
        for connection in (one, two):
            await connection.execute(sa.text("SELECT 1"))
    ours = set(threading.enumerate()) - before
    await database.close()
    for thread in ours:
        await asyncio.to_thread(thread.join, 5)

    assert 3 <= len(ours)
    assert not [one for one in ours if one.is_alive() and "asyncio" not in one.name]


def test_the_daemon_carries_no_orm_and_others_can_have_it() -> None:
    """It would be 6 MB, and 60 ms at each start."""
    script = (
        "import sys, batchwatch.daemon\n"
        "assert 'sqlalchemy.orm' not in sys.modules\n"
        "from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine\n"
        "from batchwatch.store.driver import create_async_engine as ours\n"
        "assert ours is create_async_engine\n"
    )

    subprocess.run([sys.executable, "-c", script], check=True)
