"""Bring an older schema up to date, with Alembic.

A store that is new gets its tables at once and never comes here. A new
migration is a file in ``versions/`` and the new head in ``schema.HEAD``.
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
