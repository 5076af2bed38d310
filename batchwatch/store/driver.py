"""SQLAlchemy on aiosqlite, as lean as it can be had.

With one crossing to the connection's thread for a statement instead of three
or four: a crossing costs some 80 µs, several times what most of our statements
take. The driver makes one to open a cursor, one to execute, one to fetch and
one to close; rows are fetched whole here, so all of that can be done in one go.
"""

from __future__ import annotations

import importlib.util
import sqlite3
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self

import aiosqlite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sqlalchemy.ext.asyncio import AsyncEngine


def _create_async_engine() -> Callable[..., AsyncEngine]:
    """SQLAlchemy's own, without the ORM that its package imports: 6 MB, and 60 ms at each start.

    What imports that package later gets it whole.
    """
    name = "sqlalchemy.ext.asyncio"
    spec = importlib.util.find_spec(name)
    if spec is None:
        raise ImportError(name)
    package = sys.modules.get(name)
    sys.modules[name] = package or importlib.util.module_from_spec(spec)  # but for its contents
    try:
        engine = importlib.import_module(f"{name}.engine")
    finally:
        if package is None:
            del sys.modules[name]
    made: Callable[..., AsyncEngine] = engine.create_async_engine
    return made


create_async_engine: Final = _create_async_engine()


def connect(database: str, **more: Any) -> aiosqlite.Connection:
    """A connection for SQLAlchemy's ``async_creator_fn``, to be awaited."""
    connection = _Connection(partial(sqlite3.connect, database, **more), iter_chunk_size=64)
    # As SQLAlchemy does: it must not keep the process alive.
    connection._thread.daemon = True  # noqa: SLF001
    return connection


class _Connection(aiosqlite.Connection):
    def cursor(self, *_: Any) -> _Cursor:  # type: ignore[override]  # what SQLAlchemy needs of it
        return _Cursor(self._once)

    async def commit(self) -> None:
        if self.in_transaction:
            await super().commit()

    async def rollback(self) -> None:
        if self.in_transaction:  # after a question there is none, and SQLAlchemy asks for it
            await super().rollback()

    async def _once(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """Do ``work`` in the connection's thread."""
        result: _Result = await self._execute(work, self._conn)  # type: ignore[no-untyped-call]
        return result


_Result = tuple[Any, int, int | None, list[Any]]


class _Cursor:
    """What came of the last statement: all of it is here already."""

    arraysize = 1

    def __init__(self, once: Callable[..., Any]) -> None:
        self._once = once
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None
        self._rows: list[Any] = []

    async def __aenter__(self) -> Self:
        return self

    async def execute(self, sql: str, parameters: Sequence[Any] = ()) -> _Cursor:
        return await self._run(lambda cursor: cursor.execute(sql, parameters))

    async def executemany(self, sql: str, parameters: Iterable[Sequence[Any]]) -> _Cursor:
        return await self._run(lambda cursor: cursor.executemany(sql, parameters))

    async def fetchall(self) -> list[Any]:
        return self._rows

    async def close(self) -> None:
        pass

    async def _run(self, statement: Callable[[sqlite3.Cursor], object]) -> _Cursor:
        def work(connection: sqlite3.Connection) -> _Result:
            cursor = connection.cursor()
            try:
                statement(cursor)
                rows = cursor.fetchall() if cursor.description else []
                return cursor.description, cursor.rowcount, cursor.lastrowid, rows
            finally:
                cursor.close()

        self.description, self.rowcount, self.lastrowid, self._rows = await self._once(work)
        return self
