"""Which schema a store has, and what comes of it: made, migrated, used as it is, or refused."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from batchwatch.log import get_logger
from batchwatch.store import schema
from batchwatch.store.errors import (
    SchemaInUse,
    SchemaTooNew,
    SchemaTooOld,
    StoreBusy,
    StoreUnusable,
)
from batchwatch.store.replicas import LIFE

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from batchwatch.store.engine import Database

log = get_logger()

# Seconds between two tries to change tables that somebody reads for long; about a minute in all.
PAUSES: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0)
_TABLE: Final = sa.table("alembic_version", sa.column("version_num"))
_REPLICAS_SAY: Final = "0006"  # the first schema in which a replica says which it knows


async def found(connection: AsyncConnection, where: str) -> str | None:
    """The version of the schema that is there, be it newer; None if nothing is.

    Raises SchemaTooNew if it cannot be used, StoreUnusable for what is no store, or not yet.
    """
    tables = set(await connection.run_sync(lambda sync: sa.inspect(sync).get_table_names()))
    if schema.copying.name in tables:
        raise StoreUnusable(
            f"{where}: batchwatch copy has not filled it yet; say the same copy again, which goes "
            "on where it was, or remove what is there"
        )
    version: str | None = None
    if _TABLE.name in tables:
        version = await connection.scalar(sa.select(_TABLE.c.version_num))
    if version is None and tables:
        raise StoreUnusable(f"{where}: this is a database of something else; name another one")
    if version is not None and version > schema.HEAD:
        oldest = version  # of one that does not say it, too
        if schema.compatibility.name in tables:
            oldest = await connection.scalar(sa.select(schema.compatibility.c.oldest)) or version
        if oldest > schema.HEAD:
            raise SchemaTooNew(
                f"{where}: its schema is {version}, for versions that know {oldest} or newer; this "
                f"batchwatch knows {schema.HEAD}: a newer version has been here; run that one"
            )
    return version


async def bring_up_to_date(database: Database, *, may_write: bool) -> str | None:
    """Make the tables of an empty store, migrate an older one; the version that was there.

    A newer one is used as it is, if it allows that. Raises StoreError.
    """
    version = await database.version()
    if version is not None and version >= schema.HEAD:
        if version > schema.HEAD and may_write:
            log.warning("schema.newer", store=database.where, found=version, known=schema.HEAD)
        return version
    if not may_write:
        what = f"its schema is {version}" if version else "there is nothing in it yet"
        raise SchemaTooOld(
            f"{database.where}: {what}; start the daemon once, or run batchwatch migrate, to "
            f"have it at {schema.HEAD}"
        )
    for pause in PAUSES if database.is_shared else ():
        try:
            return await _migrate(database)
        except StoreBusy as error:
            log.warning("schema.waits", reason=str(error), retry_in=pause)
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))
    return await _migrate(database)


async def _migrate(database: Database) -> str | None:
    """Make or migrate the tables, in one transaction.

    Alembic is imported only where there is something to migrate: that takes
    longer than all else at the start.
    """
    async with database.write() as connection:
        await database.hold_schema(connection)
        version = await found(connection, database.where)
        if version is None:
            await connection.run_sync(schema.metadata.create_all)
            await set_version(database, connection)
        elif version < schema.HEAD:
            if database.is_shared:
                await _refuse_those_left_behind(database, connection, version)
            from batchwatch.store.migrations import upgrade  # noqa: PLC0415  # slow to import, and rare

            await connection.run_sync(upgrade)
            await _set_oldest(database, connection)
    return version


async def set_version(database: Database, connection: AsyncConnection) -> None:
    """Let it be a store of this version, now that its tables are there."""
    await connection.execute(
        sa.text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
    )
    await connection.execute(sa.insert(_TABLE), {"version_num": schema.HEAD})
    await _set_oldest(database, connection)


async def unset_version(connection: AsyncConnection) -> None:
    """Let it be no store any longer; its tables are gone."""
    await connection.execute(sa.text("DROP TABLE alembic_version"))


async def _set_oldest(database: Database, connection: AsyncConnection) -> None:
    row: dict[str, Any] = {"id": 1, "oldest": schema.OLDEST}
    upsert = database.insert(schema.compatibility).values(row)
    await connection.execute(upsert.on_conflict_do_update(index_elements=["id"], set_=row))


async def _refuse_those_left_behind(
    database: Database, connection: AsyncConnection, version: str
) -> None:
    """Refuse to migrate while a replica runs that could not use what would come of it."""
    table = schema.replicas.c
    known: sa.ColumnElement[str] = sa.literal(version)
    if version >= _REPLICAS_SAY:
        known = sa.func.coalesce(table.schema, sa.literal(schema.OLDEST))
    rows = await connection.execute(
        sa.select(table.id, table.version, known.label("known"))
        .where(table.seen_at >= database.now(ahead=-LIFE), known < schema.OLDEST)
        .order_by(table.id)
    )
    if behind := [f"{row.id} ({row.version}, schema {row.known})" for row in rows]:
        raise SchemaInUse(
            f"{database.where}: schema {schema.HEAD} is for versions that know {schema.OLDEST} or "
            f"newer, and an older one runs: {', '.join(behind)}; stop it first, or upgrade by way "
            "of the version between"
        )
