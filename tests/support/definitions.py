"""All that defines the tables of a database, to be compared with that of another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from batchwatch.store import Database

_OF_POSTGRESQL = (
    """
    SELECT table_name, column_name, data_type, is_nullable, column_default
    FROM information_schema.columns
    WHERE table_schema = 'public' AND table_name <> 'alembic_version'
    """,
    """
    SELECT indexdef FROM pg_indexes
    WHERE schemaname = 'public' AND tablename <> 'alembic_version'
    """,
    """
    SELECT conrelid::regclass::text, pg_get_constraintdef(oid) FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace
    """,
)


async def definitions(database: Database, connection: AsyncConnection) -> set[tuple[object, ...]]:
    """Tables by their columns and keys, for a migration appends; indices as they were defined."""
    if database.dialect == "sqlite":
        return await connection.run_sync(_of_sqlite)
    found: set[tuple[object, ...]] = set()
    for query in _OF_POSTGRESQL:
        found.update(tuple(row) for row in await connection.execute(sa.text(query)))
    return found


def _of_sqlite(connection: sa.Connection) -> set[tuple[object, ...]]:
    found: set[tuple[object, ...]] = set()
    for name, kind, sql in connection.execute(
        sa.text("SELECT name, type, sql FROM sqlite_master WHERE tbl_name <> 'alembic_version'")
    ).all():
        if kind == "table":
            for pragma in ("table_info", "foreign_key_list"):
                rows = connection.execute(sa.text(f"PRAGMA {pragma}({name})"))
                found.update((name, pragma, *row[1:]) for row in rows)
        else:
            found.add((name, kind, sql and " ".join(sql.split())))
    return found
