"""Bring an older schema up to date, with Alembic.

A store that is new gets its tables at once and never comes here. A new
migration is a file in ``versions/`` and the new head in ``schema.HEAD``.

Replicas are upgraded one after another: the first new one migrates while
those of the last release read and write on. So from ``schema.OLDEST`` to
``schema.HEAD`` migrations only add:

- A new column of a table that there was is nullable or has a default of the
  server, for older code does not name it.
- Nothing is dropped, renamed, given another type or made unique, and a value
  keeps its meaning. What older code leaves empty, newer code can do without.

What older code cannot live with waits for the release after: first one that
no longer needs it, then one that removes it, and raises ``OLDEST`` to the
head of the first. A test holds tables, columns and indices to this; whether a
value keeps its meaning, no test can tell.

On PostgreSQL all of it is one transaction. A change waits for the readers of
its table for a moment at most, else all is tried again; once it is made, the
table is held until the end. So a migration is short, and rewrites or scans no
large table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory

if TYPE_CHECKING:
    import sqlalchemy as sa

from batchwatch.store import schema


def scripts() -> ScriptDirectory:
    """The migrations that ship with this version."""
    return ScriptDirectory(__path__[0])


def upgrade(connection: sa.Connection, *, to: str = schema.HEAD) -> None:
    """Run the migrations that are missing, in the caller's transaction: all of them or none."""
    known = scripts()

    def missing(revision: Any, _context: MigrationContext) -> list[Any]:
        return list(known._upgrade_revs(to, revision))  # noqa: SLF001  # as Alembic's own env.py does

    context = MigrationContext.configure(connection, opts={"fn": missing})
    with Operations.context(context):
        context.run_migrations()
