"""What must be known to remove what is old, and to say honestly that it was removed.

Revision ID: 0008
Revises: 0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

MOMENT = sa.BigInteger()


def upgrade() -> None:
    """Add it; nothing was removed before."""
    op.add_column("watches", sa.Column("kept_from", MOMENT, nullable=True))
    op.add_column("file_names", sa.Column("needed_at", MOMENT, nullable=True))
    op.create_index("ix_file_names_needed", "file_names", ["needed_at"])
    op.create_table(
        "removed_events",
        sa.Column("watch", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("watch", "type", name="pk_removed_events"),
        sqlite_with_rowid=False,
    )
