"""Who may use a store that a newer version has migrated, while replicas are upgraded.

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table, whose row is for whoever migrates, and what a replica says of itself."""
    op.create_table(
        "compatibility",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("oldest", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_compatibility"),
    )
    op.add_column("replicas", sa.Column("schema", sa.Text(), nullable=True))
    if op.get_context().dialect.name == "postgresql":
        # By bytes, for whoever asks how an id begins; PostgreSQL was tried out before, and little
        # is in these stores.
        op.drop_index("ix_batches_id", "batches")
        op.create_index(
            "ix_batches_id", "batches", ["id"], postgresql_ops={"id": "text_pattern_ops"}
        )
