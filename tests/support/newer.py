"""What a newer version may do to a store while this one runs: add, and say who may go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from batchwatch.store.schema import compatibility, metadata

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

VERSION = "9999"


async def make_newer(connection: AsyncConnection, *, oldest: str | None) -> None:
    """Migrate to a schema of the future: columns in every table, a table, and an index.

    With ``oldest`` it says who may use it.
    """
    for table in metadata.tables:
        for column in ("may_be TEXT", "is_there TEXT NOT NULL DEFAULT 'yes'"):
            await connection.execute(sa.text(f"ALTER TABLE {table} ADD COLUMN {column}"))
    for statement in (
        "CREATE TABLE wonders (id INTEGER PRIMARY KEY)",
        "CREATE INDEX ix_batches_wonders ON batches (is_there, changed_at)",
        f"UPDATE alembic_version SET version_num = '{VERSION}'",
    ):
        await connection.execute(sa.text(statement))
    await connection.execute(sa.delete(compatibility))
    if oldest is not None:
        await connection.execute(sa.insert(compatibility), {"id": 1, "oldest": oldest})
