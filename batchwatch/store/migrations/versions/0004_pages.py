"""Indices for lists by pages, the trace that an event belongs to, and what commands have changed.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def _where(condition: str) -> dict[str, Any]:
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def upgrade() -> None:
    """Add them; events of before belong to no trace."""
    for name, column in (
        ("of_status", "status"),
        ("of_directory", "source_directory_id"),
        ("of_watch", "watch"),
    ):
        op.create_index(f"ix_batches_{name}", "batches", [column, "changed_at"])
    op.create_index("ix_batches_born", "batches", [sa.text("coalesce(created_at, first_seen_at)")])
    op.create_index("ix_events_type", "events", ["type", "seq"])
    op.create_index("ix_deliveries_of_endpoint", "deliveries", ["endpoint", "id"])
    op.create_index(
        "ix_deliveries_unsettled", "deliveries", ["state", "id"], **_where("state <> 'delivered'")
    )
    op.add_column("events", sa.Column("trace", sa.Text(), nullable=True))
    op.create_table(
        "nudges",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_nudges"),
    )
