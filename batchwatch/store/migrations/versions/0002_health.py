"""The health of watches and endpoints; what is not believed yet; deliveries that are replayed.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# As they were when this was written: a migration must not change when the code does.
MOMENT: Final = sa.BigInteger()
ALARMED: Final = 3  # failures after which `watch.failing` had been told


def _where(condition: str) -> dict[str, Any]:
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def upgrade() -> None:
    """Keep what is known of each watch's trouble, in its new form."""
    op.add_column("watches", sa.Column("troubles", sa.Text(), nullable=False, server_default="{}"))
    op.add_column("watches", sa.Column("alarm", sa.Text(), nullable=True))
    _carry_over()
    for column in ("failures", "failing_since", "failing_reason"):
        op.drop_column("watches", column)

    op.add_column("batches", sa.Column("doubt", sa.Text(), nullable=True))
    op.drop_index("ix_batches_active", "batches")
    op.create_index(
        "ix_batches_active",
        "batches",
        ["watch", "active", "status", "created_at"],
        **_where("active"),
    )
    op.create_index(
        "ix_batches_vanished",
        "batches",
        ["watch", "vanished_at"],
        **_where("vanished_at IS NOT NULL"),
    )
    op.create_index("ix_batches_id", "batches", ["id"], postgresql_ops={"id": "text_pattern_ops"})

    op.create_table(
        "endpoints",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("failing_since", MOMENT, nullable=True),
        sa.Column("failing_for", sa.Float(), nullable=False),
        sa.Column("told", sa.Float(), nullable=True),
        sa.Column("alarm_since", MOMENT, nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("disabled_at", MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("name", name="pk_endpoints"),
    )
    op.add_column(
        "deliveries",
        sa.Column("uncounted", sa.Integer(), nullable=False, server_default="0"),
    )
    op.add_column(
        "deliveries",
        sa.Column("paused_for", sa.Float(), nullable=False, server_default="0"),
    )
    op.drop_index("ix_deliveries_dead", "deliveries")
    op.create_index(
        "ix_deliveries_dead",
        "deliveries",
        ["endpoint", "created_at"],
        **_where("state = 'dead'"),
    )


def _carry_over() -> None:
    watches = sa.table(
        "watches",
        *map(sa.column, ("name", "troubles", "alarm", "failures", "failing_since")),
        sa.column("failing_reason"),
    )
    connection = op.get_bind()
    for row in connection.execute(sa.select(watches).where(watches.c.failures > 0)).all():
        since = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=row.failing_since or 0)
        trouble = {
            "since": since.isoformat(),
            "failures": row.failures,
            "reason": row.failing_reason or "",
        }
        connection.execute(
            sa.update(watches)
            .where(watches.c.name == row.name)
            .values(
                troubles=json.dumps({"discovery": trouble}),
                alarm=json.dumps(trouble) if row.failures >= ALARMED else None,
            )
        )
