"""Open the store: the engine, its transactions, and what differs between the two databases."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
from contextlib import asynccontextmanager, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Self, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from batchwatch.store import driver, schema
from batchwatch.store.driver import create_async_engine
from batchwatch.store.errors import StoreError, StoreUnusable, translate
from batchwatch.store.file import (
    check_writable,
    file_of,
    identity,
    make_private,
    read_only,
    take_lock,
)
from batchwatch.store.server import engines, explain, listen, place_of
from batchwatch.store.version import bring_up_to_date, found

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterator,
        Awaitable,
        Callable,
        Coroutine,
        Mapping,
        Sequence,
    )
    from contextlib import AbstractContextManager
    from datetime import datetime
    from pathlib import Path

    from sqlalchemy.dialects import postgresql, sqlite
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from batchwatch.domain.batch import WatchName

P = ParamSpec("P")
T = TypeVar("T")

CHANNEL: Final = "batchwatch"  # of PostgreSQL's notifications
_TURN: Final = 0x62617463  # the lock of whoever writes events
_SCHEMA: Final = 0x62617464  # and of whoever changes the tables
_LINES: Final = 0x62617466  # and of whoever moves lines, with a number
_LINE_LOCKS: Final = 1_024  # a power of two
_NOTICE: Final = 7_999  # bytes that a notification may have
_LOCK_TIMEOUT: Final = 1_000  # ms to wait for a table that is to be changed
_LONG: Final = 86_400.0  # seconds that an index may take
_REMOVAL: Final = 0x62617465  # and of whoever removes what is old
_BUSY_TIMEOUT: Final = 5_000  # ms to wait for another process, such as a backup

_PRAGMAS: Final = (
    # Readers never block the writer, nor the writer them.
    "PRAGMA journal_mode = WAL",
    "PRAGMA foreign_keys = ON",
    f"PRAGMA busy_timeout = {_BUSY_TIMEOUT}",
    "PRAGMA temp_store = MEMORY",
    # Pages; 32 MB. To write the log back takes some milliseconds, in which all wait, and it is
    # mostly the same pages: eight times as rarely is hardly more each time.
    "PRAGMA wal_autocheckpoint = 8000",
    "PRAGMA cache_size = -8192",  # KiB for each connection
)


def unbroken(
    method: Callable[P, Coroutine[Any, Any, T]],
) -> Callable[P, Coroutine[Any, Any, T]]:
    """Make a method that writes end its transaction even if its caller is cancelled.

    The driver works in a thread of its own. A caller that is cancelled while
    BEGIN or COMMIT is under way there would leave the transaction open, and
    with it the whole store locked. So it waits for the end, and is cancelled
    then.
    """

    @functools.wraps(method)
    async def run(*args: P.args, **kwargs: P.kwargs) -> T:
        writing = asyncio.ensure_future(method(*args, **kwargs))
        try:
            return await asyncio.shield(writing)
        except asyncio.CancelledError:
            while not writing.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([writing])
            if not writing.cancelled():
                writing.exception()  # looked at, or asyncio would complain of it
            raise

    return run


def _nothing() -> None:
    pass


class Database:
    """A store that is open.

    :meth:`read` and :meth:`write` give a connection inside a transaction.
    There is one writer at a time, which SQLite demands and which makes
    read-compare-write safe without retries.
    """

    def __init__(self, engine: AsyncEngine, hasty: AsyncEngine, *, url: sa.URL, where: str) -> None:
        self.where = where  # for messages: a path, or a URL without login
        self._url = url
        self._engine = engine
        self._hasty = hasty  # for commits that do not wait for the disk
        self._writer = asyncio.Lock()
        # Where several share the database: refuses what is written for a watch of another.
        self.guard: Callable[[AsyncConnection, WatchName], Awaitable[None]] | None = None
        self.found: str | None = None  # the schema's version when it was opened; None: it was new
        self._lock: int | None = None
        self._file: tuple[Path, tuple[int, int] | None] | None = None
        # Where several share the database: told when it did not take what was written.
        self.failed: Callable[[], None] = _nothing
        # Held around each use, with its kind: `read`, or `write` with the wait for its turn.
        self.timed: Callable[[str], AbstractContextManager[object]] = nullcontext

    @classmethod
    async def open(cls, url: str, *, exclusive: bool = True, writes: bool = False) -> Self:
        """Open the store at ``url``, and bring its schema up to date.

        ``exclusive`` is for the daemon: it takes the file's lock for as long
        as the store is open. Without it the store is for reading only, beside
        a running daemon, and nothing is written: no file is made, and rights
        to read are enough. With ``writes`` a command may change what is
        there, beside a daemon or without one.

        Raises :class:`~batchwatch.store.errors.StoreError` with what to do.
        """
        database = await cls.attach(url, lock=exclusive, writes=exclusive or writes)
        try:
            database.found = await bring_up_to_date(database, may_write=exclusive)
        except BaseException:
            await database.close()
            raise
        return database

    @classmethod
    async def attach(cls, url: str, *, lock: bool, writes: bool) -> Self:
        """Open whatever is at ``url``, with the lock of its file or without.

        Only who locks it and writes makes a file. Raises
        :class:`~batchwatch.store.errors.StoreError`.
        """
        parsed = sa.make_url(url)
        path = file_of(url)
        where = place_of(parsed) if path is None else str(path)
        held = None
        if path is not None:
            if lock and writes:
                held = take_lock(path)
                make_private(path)
            elif not writes:
                parsed = read_only(parsed, path)
                held = take_lock(path) if lock else None
            elif not check_writable(path):
                raise StoreUnusable(f"{path}: there is no store yet; has the daemon ever run?")
        database = cls(*_engines(parsed), url=parsed, where=where)
        database._lock = held
        if path is not None:
            database._file = (path, identity(path))
        return database

    async def version(self) -> str | None:
        """The version of the schema that is there; None if nothing is. Raises StoreError."""
        async with self.read() as connection:
            return await found(connection, self.where)

    async def close(self) -> None:
        """Close every connection, then let go of the file."""
        await self._engine.dispose()
        await self._hasty.dispose()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def _failures(self) -> tuple[type[Exception], ...]:
        """What a question may raise: of a server also that it is not there."""
        of_all = (DBAPIError, sa.exc.TimeoutError)
        if not self.is_shared:
            return of_all
        import asyncpg  # noqa: PLC0415  # not for SQLite

        # Before there is a connection the driver's errors come as they are.
        return (*of_all, OSError, asyncpg.PostgresError, asyncpg.InterfaceError)

    def _translated(self, error: Exception) -> StoreError:
        found = explain(error, self.where) if self.is_shared else None
        return found or translate(error, self.where)

    @property
    def is_shared(self) -> bool:
        """Whether other daemons may use it at the same time."""
        return self.dialect != "sqlite"

    @property
    def dialect(self) -> str:
        """``sqlite`` or ``postgresql``."""
        return self._engine.dialect.name

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection to ask with; each question by itself sees a consistent store."""
        self._look_for_the_file()
        try:
            with self.timed("read"):
                async with self._engine.connect() as connection:
                    await self._begin_nothing(connection)
                    yield connection
        except self._failures as error:
            raise self._translated(error) from error

    @asynccontextmanager
    async def write(
        self, *, durable: bool = True, waits: bool = True
    ) -> AsyncIterator[AsyncConnection]:
        """A transaction: committed at the end, or rolled back and nothing of it written.

        An outbox is a promise: once a transition is committed, its
        notifications will go out, even if the power fails in that moment. So
        a ``durable`` commit waits for the disk. One that is not may be
        forgotten if the power fails, and by nothing less: enough for claims
        and acknowledgements, for what is forgotten of them is sent again
        under the same id.

        Of what we write, one ``waits`` for the other; on a server what must
        not be late need not.

        To be used in methods that are :func:`unbroken`.
        """
        try:
            engine = self._engine if durable else self._hasty
            with self.timed("write"):
                async with self._turn(engine, waits=waits) as connection:
                    await connection.execution_options(writes=True)
                    async with connection.begin():
                        yield connection
        except self._failures as error:
            self.failed()
            raise self._translated(error) from error

    @asynccontextmanager
    async def write_for(self, watch: WatchName) -> AsyncIterator[AsyncConnection]:
        """A transaction for what was seen of ``watch``; refused unless it may be polled from here.

        Raises :class:`~batchwatch.store.errors.LeaseLost` before anything is read.
        """
        async with self.write() as connection:
            await self.hold(connection, watch)
            yield connection

    async def hold(self, connection: AsyncConnection, watch: WatchName) -> None:
        """Until the end of the transaction: nobody else takes ``watch``, if it is ours to poll.

        After much was read, and not before: a replica that is frozen while it
        reads would hold up whoever is to take over. The token says that
        nobody wrote meanwhile. Raises :class:`~batchwatch.store.errors.LeaseLost`.
        """
        if self.guard is not None:
            await self.guard(connection, watch)

    @asynccontextmanager
    async def write_one(self) -> AsyncIterator[AsyncConnection]:
        """A connection for one statement that writes, a transaction by itself and not durable.

        To be used as :meth:`write` is.
        """
        try:
            with self.timed("write"):
                async with self._turn(self._hasty) as connection:
                    await self._begin_nothing(connection)
                    yield connection
        except self._failures as error:
            self.failed()
            raise self._translated(error) from error

    @asynccontextmanager
    async def _turn(
        self, engine: AsyncEngine, *, waits: bool = True
    ) -> AsyncIterator[AsyncConnection]:
        """A connection of the one writer that there is at a time."""
        async with self._writer if waits or not self.is_shared else nullcontext():
            self._look_for_the_file()
            async with engine.connect() as connection:
                yield connection

    async def nudge(self, connection: AsyncConnection) -> None:
        """In a transaction of a command: let the daemon that is running know of it."""
        upsert = self.insert(schema.nudges)
        one_more = {"count": schema.nudges.c.count + 1}
        await connection.execute(
            upsert.on_conflict_do_update(index_elements=["id"], set_=one_more),
            {"id": 1, "count": 1},
        )

    async def nudges(self) -> int:
        """How often a command has changed something; a daemon compares it with the last answer."""
        async with self.read() as connection:
            return await connection.scalar(sa.select(schema.nudges.c.count)) or 0

    def _look_for_the_file(self) -> None:
        """Refuse a file that nobody will find again.

        SQLite goes on with one that was deleted or replaced, and all that it
        writes is gone with the process. To be asked before there is a
        connection: a new one would make another file in its place, and throw
        away the log with what was committed last.
        """
        if self._file is None:
            return
        path, opened = self._file
        if identity(path) != opened:
            raise StoreUnusable(
                f"{path}: the file was removed or replaced while batchwatch uses it; "
                "put it back, or restart batchwatch to begin a new one"
            )

    # What differs between the two databases stands below, and only there.

    def now(self, *, ahead: timedelta = timedelta(0)) -> sa.ColumnElement[datetime]:
        """The database's own time in a statement, or one ``ahead`` of it: one clock for all."""
        micros: sa.ColumnElement[Any]
        if self.dialect == "sqlite":
            micros = (sa.func.julianday("now") - 2440587.5) * 86_400_000_000
        else:
            micros = sa.func.extract("epoch", sa.func.clock_timestamp()) * 1_000_000
        whole = sa.cast(micros, sa.BigInteger) + round(ahead.total_seconds() * 1e6)
        return sa.type_coerce(whole, schema.Moment)

    async def hold_schema(self, connection: AsyncConnection) -> None:
        """Until the end of the transaction: whoever else changes the tables waits.

        A change of a table waits for all who read it, and all who come later
        wait behind it: so not for long. Raises StoreBusy from the statement
        that would.
        """
        if self.dialect != "sqlite":
            await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_SCHEMA)))
            await connection.execute(sa.text(f"SET LOCAL lock_timeout = {_LOCK_TIMEOUT}"))

    async def _begin_nothing(self, connection: AsyncConnection) -> None:
        """Let each statement be a transaction by itself: with SQLite it is, if nobody begins one.

        For PostgreSQL that is two round trips less for a question.
        """
        if self.dialect != "sqlite":
            await connection.execution_options(isolation_level="AUTOCOMMIT")

    async def take_turns(self, connection: AsyncConnection) -> None:
        """Until the end of the transaction: whoever else writes events waits.

        So the order of events is that of their commits, and whoever follows
        them by their place misses none. SQLite has one writer anyway.
        """
        if self.dialect != "sqlite":
            await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_TURN)))

    async def hold_lines(
        self, connection: AsyncConnection, lines: Sequence[Mapping[str, str]]
    ) -> None:
        """Until the end of the transaction: whoever else moves these lines waits.

        Else one that ends the head of a line and one that adds to it, at the
        same time, see nothing of each other, and nobody moves it up. In one
        order, so that two never wait for each other. Lines share locks, for
        a server has room for some thousands, and there may be more lines.
        """
        if self.dialect == "sqlite" or not lines:
            return
        keys = sorted({f"{one['endpoint']} {one['subject']}" for one in lines})
        key = self.values("keys").c.value
        number = sa.func.hashtext(key).op("&")(_LINE_LOCKS - 1).label("number")
        numbers = sa.select(number).distinct().order_by("number").subquery("numbers")
        lock = sa.func.pg_advisory_xact_lock(_LINES, numbers.c.number)
        await connection.execute(
            sa.select(sa.func.count()).select_from(sa.select(lock).subquery()),
            {"keys": msgspec.json.encode(keys).decode()},
        )

    async def is_alone(self, connection: AsyncConnection) -> bool:
        """Until the end of the transaction: whether nobody else removes what is old."""
        if self.dialect == "sqlite":
            return True
        return bool(await connection.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(_REMOVAL))))

    async def tell(self, connection: AsyncConnection, *texts: str) -> None:
        """With the commit: let all replicas hear these; see `notices`.

        One that PostgreSQL would not carry is heard as an empty one: that something was missed.
        """
        if self.dialect == "sqlite" or not texts:
            return
        bounded = [text if len(text.encode()) <= _NOTICE else "" for text in texts]
        text = self.values("texts").c.value
        await connection.execute(
            sa.select(sa.func.count(sa.func.pg_notify(CHANNEL, text))),
            {"texts": msgspec.json.encode(bounded).decode()},
        )

    @unbroken
    async def tell_now(self, texts: Sequence[str]) -> None:
        """Let all replicas hear these, as :meth:`tell` does."""
        async with self.write_one() as connection:
            await self.tell(connection, *texts)

    async def hear(self, heard: Callable[[str], None]) -> None:
        """Call ``heard`` with what others :meth:`tell`, until the connection breaks.

        At its beginning with nothing: until then it was not heard what was
        told. Raises :class:`~batchwatch.store.errors.StoreError` where there is no connection.
        """
        try:
            await listen(self._url, CHANNEL, heard)
        except self._failures as error:
            raise self._translated(error) from error

    async def fill(
        self, connection: AsyncConnection, table: sa.Table, rows: Sequence[tuple[Any, ...]]
    ) -> None:
        """Write many rows, in the order of the columns; moments are numbers in them already.

        Inside a transaction that has begun with another statement.
        """
        names = [column.name for column in table.columns]
        if self.dialect == "sqlite":
            insert = sa.insert(sa.table(table.name, *map(sa.column, names)))
            statement = str(insert.compile(dialect=self._engine.dialect))
            await connection.exec_driver_sql(statement, list(rows))
            return
        own = (await connection.get_raw_connection()).driver_connection
        assert own is not None  # noqa: S101  # it is in a transaction
        await own.copy_records_to_table(table.name, records=rows, columns=names)

    async def build(self, connection: AsyncConnection, index: sa.Index) -> None:
        """Make an index of a table that is filled, unless it is there; however long it takes.

        Inside a transaction.
        """
        statement = sa.schema.CreateIndex(index, if_not_exists=True)
        if self.dialect == "sqlite":
            await connection.execute(statement)
            return
        await connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
        own = (await connection.get_raw_connection()).driver_connection
        assert own is not None  # noqa: S101  # it is in a transaction
        text = str(statement.compile(dialect=self._engine.dialect))
        await own.execute(text, timeout=_LONG)

    async def last_number(self, connection: AsyncConnection, column: sa.Column[int]) -> int:
        """The last number that the database gave to a row by itself; 0 if there is none."""
        if self.dialect == "sqlite":
            query = sa.text("SELECT seq FROM sqlite_sequence WHERE name = :name")
            given = await connection.scalar(query, {"name": column.table.name})
        else:
            query = sa.text("SELECT pg_sequence_last_value(pg_get_serial_sequence(:t, :c))")
            given = await connection.scalar(query, {"t": column.table.name, "c": column.name})
        return max(given or 0, await connection.scalar(sa.select(sa.func.max(column))) or 0)

    async def number_after(
        self, connection: AsyncConnection, column: sa.Column[int], last: int
    ) -> None:
        """Have the next row that is numbered by the database come after ``last``."""
        if not last:
            return
        if self.dialect == "sqlite":
            row = {"name": column.table.name, "last": last}
            for statement in (
                "DELETE FROM sqlite_sequence WHERE name = :name",
                "INSERT INTO sqlite_sequence (name, seq) VALUES (:name, :last)",
            ):
                await connection.execute(sa.text(statement), row)
            return
        query = sa.text("SELECT setval(pg_get_serial_sequence(:t, :c), :last)")
        await connection.execute(query, {"t": column.table.name, "c": column.name, "last": last})

    async def tidy(self) -> None:
        """Refresh the planner's statistics and shorten the log; PostgreSQL does so itself."""
        if self.dialect != "sqlite":
            return
        try:
            async with self._turn(self._engine) as connection:
                # Neither runs inside a transaction; and both give way to readers.
                # The number asks for statistics of tables that were never analysed, too.
                for pragma in (
                    "PRAGMA analysis_limit = 1000",
                    "PRAGMA optimize = 0x10012",
                    "PRAGMA wal_checkpoint(TRUNCATE)",
                ):
                    await connection.exec_driver_sql(pragma)
        except self._failures as error:
            raise self._translated(error) from error

    def insert(self, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
        """An INSERT that knows ``on_conflict_do_update`` and ``on_conflict_do_nothing``."""
        # Either dialect takes long to import, and only one is needed.
        if self.dialect == "sqlite":
            from sqlalchemy.dialects.sqlite import insert  # noqa: PLC0415
        else:
            from sqlalchemy.dialects.postgresql import insert  # type: ignore[assignment]  # noqa: PLC0415
        return insert(table)

    def begins(self, column: sa.ColumnElement[str], text: str) -> sa.ColumnElement[bool]:
        """That ``column`` begins with ``text``, in a way that an index of it helps with.

        No index helps with LIKE: SQLite's knows no case, and PostgreSQL's
        needs to know the text when it plans. PostgreSQL's texts may be in the
        order of any language; these operators, and that index, go by bytes.
        """
        last = text + chr(0x10FFFF)
        if self.dialect == "sqlite":
            return sa.and_(column >= text, column < last)
        return sa.and_(column.bool_op("~>=~")(text), column.bool_op("~<~")(last))

    def pairs(self, name: str) -> sa.TableValuedAlias:
        """The parameter ``name``, a JSON object, as rows of (key, value)."""
        argument = sa.bindparam(name, type_=sa.Text)
        if self.dialect == "sqlite":
            return sa.func.json_each(argument).table_valued("key", "value", name="pairs")
        as_json = sa.cast(argument, sa.JSON)
        return sa.func.json_each_text(as_json).table_valued("key", "value", name="pairs")

    def values(self, name: str) -> sa.TableValuedAlias:
        """The parameter ``name``, a JSON array of strings, as rows of (value)."""
        argument = sa.bindparam(name, type_=sa.Text)
        if self.dialect == "sqlite":
            return sa.func.json_each(argument).table_valued("value", name=name)
        as_json = sa.cast(argument, sa.JSON)
        return sa.func.json_array_elements_text(as_json).table_valued("value", name=name)

    def among(self, column: sa.ColumnElement[Any], some: sa.Select[Any]) -> sa.ColumnElement[bool]:
        """That ``column`` is one of ``some`` few: these first, then the rows by its index.

        PostgreSQL has no idea how many rows a function or a subquery gives,
        and goes through a table for what it takes for many; an array is few.
        """
        if self.dialect == "sqlite":  # which joins nothing that is said so
            return column.in_(some)
        return column == sa.func.any(sa.func.array(some.scalar_subquery()))

    def rows(self, name: str, **columns: sa.types.TypeEngine[Any]) -> sa.FromClause:
        """The parameter ``name``, a JSON array of objects, as rows with these columns.

        One statement for many rows: it halves the time to commit a group of
        acknowledgements against executemany.
        """
        argument = sa.bindparam(name, type_=sa.Text)
        if self.dialect == "sqlite":
            each = sa.func.json_each(argument).table_valued("value")
            return sa.select(
                *(
                    sa.func.json_extract(each.c.value, f"$.{column}", type_=type_).label(column)
                    for column, type_ in columns.items()
                )
            ).subquery("rows")
        record = sa.func.json_to_recordset(sa.cast(argument, sa.JSON))
        return record.table_valued(
            *(sa.column(column, type_) for column, type_ in columns.items()), name="rows"
        ).render_derived(with_types=True)


def _engines(url: sa.URL) -> tuple[AsyncEngine, AsyncEngine]:
    """What waits for the disk at each commit, and what does not."""
    if url.get_backend_name() != "sqlite":
        schema.for_postgresql()
        return engines(url)
    # The one that waits also asks; the other is for those who take turns anyway.
    return _sqlite(url, "FULL", size=4), _sqlite(url, "NORMAL", size=1)


def _sqlite(url: sa.URL, synchronous: str, *, size: int) -> AsyncEngine:
    engine = create_async_engine(
        url,
        connect_args={"async_creator_fn": driver.connect},
        pool_size=size,
        max_overflow=size,
        pool_use_lifo=True,  # a connection that was just used has its pages at hand
        pool_reset_on_return=None,  # readers hold no transaction, and writers end theirs themselves
    )
    # The way to keep a journal is written in the file, and a reader may not write.
    pragmas = _PRAGMAS[1:] if "mode" in url.query else _PRAGMAS

    @sa.event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        try:
            # The driver must not begin transactions by itself; see `begin` below.
            connection.isolation_level = None
            cursor = connection.cursor()
            for pragma in (*pragmas, f"PRAGMA synchronous = {synchronous}"):
                cursor.execute(pragma)
            cursor.close()
        except BaseException:
            connection.close()  # the pool does not know it yet
            raise

    @sa.event.listens_for(engine.sync_engine, "begin")
    def begin(connection: sa.Connection) -> None:
        # A writer that begins as a reader may find at its first write that another was faster,
        # and then has to start over; so it says at once that it will write. A reader asks one
        # question at a time, and each is a consistent view by itself.
        if connection.get_execution_options().get("writes", False):
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine
