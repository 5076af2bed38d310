"""Copy a store into another, of the same engine or the other one.

Page by page, each in one transaction with a note in the target of how far it
is: whoever is killed goes on there. Only when both hold the same does the
target get its version, and until then no daemon takes it.
"""

from __future__ import annotations

import hashlib
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec
import sqlalchemy as sa

from batchwatch.store import schema
from batchwatch.store.engine import Database, unbroken
from batchwatch.store.errors import (
    SchemaTooNew,
    SchemaTooOld,
    StoreBusy,
    StoreError,
    StoreInUse,
    StoreUnusable,
)
from batchwatch.store.replicas import LIFE
from batchwatch.store.schema import (
    compatibility,
    copying,
    coverage,
    deliveries,
    metadata,
    nudges,
    replicas,
)
from batchwatch.store.version import found, set_version, unset_version

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncConnection

    Row = tuple[Any, ...]

FIRST_ROWS: Final = 100  # on the first page of a table
MOST_ROWS: Final = 2_000  # and on the others, which are twice as long as the one before at most
SIZE: Final = 4 << 20  # characters of text that a page should have; the next one is cut by it
LEFT_BEHIND: Final = "copied"  # the holder of what was in flight: none that will come back
_NUL: Final = "\x00"
_INSTEAD: Final = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a part of the work is."""

    work: str  # copy, index or verify
    about: str  # the table
    done: int
    total: int


class _Done(msgspec.Struct, array_like=True):
    """How far a table is."""

    rows: int = 0
    after: list[Any] | None = None  # the last key


class _State(msgspec.Struct):
    """What a target that is being filled says of itself."""

    step: int
    done: dict[str, _Done]


@asynccontextmanager
async def opened(source: str, target: str) -> AsyncIterator[Copy]:
    """Both stores, by their URLs, each locked where it is a file. Raises StoreError."""
    async with AsyncExitStack() as stack:
        databases = []
        for url, writes in ((source, False), (target, True)):
            database = await Database.attach(url, lock=True, writes=writes)
            stack.push_async_callback(database.close)
            databases.append(database)
        yield Copy(*databases)


class Copy:
    """One store, and the one that is to become it."""

    def __init__(self, source: Database, target: Database) -> None:
        self.source = source
        self.target = target
        self.rows: dict[str, int] = {}  # by table, once they are verified
        self.replaced = 0  # NULs, which not every database takes in a text

    async def run(self) -> AsyncGenerator[Progress]:
        """Do what is left to do; may be broken off after any step, and begun again.

        Raises StoreError: for a source that is used, is not of this version's
        schema or has changed since the copy began, for a target that holds
        something else, and where both do not hold the same in the end.
        """
        source = await self._look_at_the_source()
        state = await self._begin(source)
        counts: dict[str, int] = source["rows"]
        total = sum(counts.values())
        for table in metadata.sorted_tables:
            so_far = state.done.setdefault(table.name, _Done())
            async for rows in _pages(self.source, table, so_far.after):
                so_far.rows += len(rows)
                so_far.after = [rows[-1][place] for place in _key_places(table)]
                await self._put(table, rows, state)
                done = sum(one.rows for one in state.done.values())
                yield Progress("copy", table.name, done, total)
        tables = metadata.sorted_tables
        for number, table in enumerate(tables, 1):
            await self._index(table)
            yield Progress("index", table.name, number, len(tables))
        async for progress in self._verify(2 * total):
            yield progress
        if await self._look_at_the_source() != source:
            raise self._changed()
        await self._finish()

    async def _look_at_the_source(self) -> dict[str, Any]:
        """What tells it from another, and from what it was before a daemon ran on it."""
        async with self.source.read() as connection:
            where = self.source.where
            version = await found(connection, where)
            if version is None or version < schema.HEAD:
                raise SchemaTooOld(
                    f"{where}: its schema is {version or 'not there'}, and that of this version "
                    f"{schema.HEAD}; bring it up to date first, with batchwatch migrate"
                )
            if version > schema.HEAD:
                raise SchemaTooNew(
                    f"{where}: its schema is {version}, and this batchwatch knows {schema.HEAD}; "
                    "copy it with the newer version"
                )
            alive = sa.select(replicas.c.id).where(
                replicas.c.seen_at >= self.source.now(ahead=-LIFE)
            )
            if names := list(await connection.scalars(alive)):
                raise StoreInUse(
                    f"{where}: it is used by {', '.join(names)}; stop them first, and wait "
                    f"{LIFE.seconds} seconds"
                )
            rows = {
                table.name: await connection.scalar(sa.select(sa.func.count()).select_from(table))
                for table in metadata.sorted_tables
            }
            marks = [
                await connection.scalar(sa.select(sa.func.sum(one)))
                for one in (coverage.c.passes, nudges.c.count)
            ]
        return {"where": where, "rows": rows, "marks": [int(one or 0) for one in marks]}

    @unbroken
    async def _begin(self, source: dict[str, Any]) -> _State:
        """The state of the target, made to be filled if there is nothing in it."""
        where = self.target.where
        async with self.target.write() as connection:
            await self.target.hold_schema(connection)
            tables = await connection.run_sync(lambda sync: sa.inspect(sync).get_table_names())
            if tables and copying.name not in tables:
                await self._clear(connection)
                tables = []
            if not tables:
                # Without their indices, which take half the time when all is there.
                for table in (*metadata.sorted_tables, copying):
                    await connection.execute(sa.schema.CreateTable(table))
                row = {"id": 1, "schema": schema.HEAD, "source": _json(source)}
                await connection.execute(sa.insert(copying), {**row, "step": 0, "done": "{}"})
                return _State(0, {})
            begun = (await connection.execute(sa.select(copying))).one()
        if begun.schema != schema.HEAD:
            raise StoreUnusable(
                f"{where}: a copy was begun here by another version, with the schema "
                f"{begun.schema}; go on with that one, or remove what is there"
            )
        if msgspec.json.decode(begun.source) != source:
            raise self._changed()
        done = msgspec.json.decode(begun.done, type=dict[str, _Done])
        return _State(begun.step, done)

    async def _clear(self, connection: AsyncConnection) -> None:
        """Remove the tables of a store that was only made, and hold nothing; refuse any other."""
        where = self.target.where
        version = await found(connection, where)
        for table in metadata.sorted_tables if version == schema.HEAD else ():
            if table is compatibility:
                continue
            if await connection.scalar(sa.select(sa.literal(1)).select_from(table).limit(1)):
                raise StoreUnusable(
                    f"{where}: there is a store already, with rows in {table.name}; name an empty "
                    "one. If a copy has ended here, nothing is left to do"
                )
        if version != schema.HEAD:
            raise StoreUnusable(
                f"{where}: there is a store already, with the schema {version}; name an empty one"
            )
        await connection.run_sync(metadata.drop_all)
        await unset_version(connection)

    @unbroken
    async def _put(self, table: sa.Table, rows: list[Row], state: _State) -> None:
        """Write a page, and how far the target is with it."""
        # Not durable: what a power failure forgets of the one it forgets of the other.
        async with self.target.write(durable=False) as connection:
            await self._step(connection, state)
            await self.target.fill(connection, table, [_clean(row) for row in rows])

    async def _step(self, connection: AsyncConnection, state: _State) -> None:
        stepped = await connection.execute(
            sa.update(copying)
            .where(copying.c.step == state.step)
            .values(step=state.step + 1, done=_json(state.done))
        )
        if not stepped.rowcount:
            raise StoreBusy(f"{self.target.where}: another copy fills it; end one of the two")
        state.step += 1

    @unbroken
    async def _index(self, table: sa.Table) -> None:
        """Make the indices of a table, and have the planner know it before a daemon asks."""
        async with self.target.write(durable=False) as connection:
            for index in sorted(table.indexes, key=lambda one: str(one.name)):
                await self.target.build(connection, index)
            await connection.execute(sa.text(f"ANALYZE {table.name}"))

    async def _verify(self, total: int) -> AsyncIterator[Progress]:
        """Read both and compare what is in their tables, in whatever order each has it."""
        done = 0
        for table in metadata.sorted_tables:
            sums: list[tuple[int, int]] = []
            for database in (self.source, self.target):
                count, checksum = 0, 0
                async for rows in _pages(database, table, None):
                    cleaned = [_clean(row) for row in rows]
                    self.replaced += sum(map(_differing, rows, cleaned))
                    count += len(rows)
                    checksum = (checksum + sum(map(_digest, cleaned))) % (1 << 128)
                    done += len(rows)
                    yield Progress("verify", table.name, done, total)
                sums.append((count, checksum))
            ours, theirs = sums
            if ours != theirs:
                raise StoreError(
                    f"{self.target.where}: {table.name} is not what {self.source.where} has "
                    f"({theirs[0]:,} rows, and there {ours[0]:,}): was one of the two changed "
                    "meanwhile? Remove what is in the target, and copy again"
                )
            self.rows[table.name] = ours[0]

    @unbroken
    async def _finish(self) -> None:
        """Make a store of it."""
        numbers = []
        async with self.source.read() as connection:
            for table in metadata.sorted_tables:
                column = table.autoincrement_column
                if column is not None:
                    numbers.append((column, await self.source.last_number(connection, column)))
        async with self.target.write() as connection:
            await self.target.hold_schema(connection)
            for column, last in numbers:
                await self.target.number_after(connection, column, last)
            await connection.execute(
                sa.update(deliveries)
                .where(sa.text("state = 'in_flight'"))
                .values(holder=LEFT_BEHIND)
            )
            await connection.execute(sa.schema.DropTable(copying))
            await set_version(self.target, connection)

    def _changed(self) -> StoreUnusable:
        return StoreUnusable(
            f"{self.target.where}: a copy was begun here from another store, or "
            f"{self.source.where} was used since; remove what is in the target, and copy again"
        )


async def _pages(
    database: Database, table: sa.Table, after: list[Any] | None
) -> AsyncIterator[list[Row]]:
    """All rows behind a key, in the order of keys, and so many at once that they fit."""
    plain = _plain(table)
    key = [plain.c[column.name] for column in table.primary_key]
    places = _key_places(table)
    limit = FIRST_ROWS
    while True:
        query = sa.select(*plain.c).order_by(*key).limit(limit)
        if after is not None:
            query = query.where(sa.tuple_(*key) > sa.tuple_(*map(_bound, key, after)))
        async with database.read() as connection:
            rows: list[Row] = [tuple(row) for row in await connection.execute(query)]
        if not rows:
            return
        yield rows
        after = [rows[-1][place] for place in places]
        size = sum(len(one) for row in rows for one in row if type(one) is str) or 1
        limit = max(1, min(MOST_ROWS, limit * 2, len(rows) * SIZE // size))


def _bound(column: sa.ColumnClause[Any], value: object) -> sa.BindParameter[Any]:
    return sa.bindparam(None, value, type_=column.type)


def _key_places(table: sa.Table) -> list[int]:
    return [list(table.columns).index(column) for column in table.primary_key]


def _plain(table: sa.Table) -> sa.TableClause:
    """The table with moments as the numbers that they are kept as."""
    number = sa.BigInteger()
    return sa.table(
        table.name,
        *(
            sa.column(one.name, number if isinstance(one.type, schema.Moment) else one.type)
            for one in table.columns
        ),
    )


def _clean(row: Row) -> Row:
    """A row as every database takes it: with nothing in its texts that PostgreSQL refuses."""
    if any(type(one) is str and _NUL in one for one in row):
        return tuple(one.replace(_NUL, _INSTEAD) if type(one) is str else one for one in row)
    return row


def _differing(row: Row, cleaned: Row) -> int:
    return 0 if row is cleaned else sum(map(object.__ne__, row, cleaned))


def _digest(row: Row) -> int:
    """A number that another row does not have."""
    encoded = msgspec.json.encode(row)
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=16).digest(), "big")


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
