"""Who shares the database, and who may poll which watch.

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

MOMENT = sa.BigInteger()


def upgrade() -> None:
    """Add the tables; nobody holds anything yet."""
    op.create_table(
        "replicas",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("started_at", MOMENT, nullable=False),
        sa.Column("seen_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_replicas"),
    )
    op.add_column("deliveries", sa.Column("holder", sa.Text(), nullable=True))
    op.create_table(
        "leases",
        sa.Column("watch", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("held_until", MOMENT, nullable=False),
        sa.Column("taken_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("watch", name="pk_leases"),
    )
