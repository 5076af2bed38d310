"""The jobs behind files, what is stuck, time that was not watched, and upstream's own webhooks.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# As they were when this was written: a migration must not change when the code does.
MOMENT: Final = sa.BigInteger()
SERIAL: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _where(condition: str) -> dict[str, Any]:
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def upgrade() -> None:
    """Add what is new; what is active is judged at once, and nothing old is settled."""
    for column in (
        sa.Column("file_count", sa.Integer(), nullable=True),
        sa.Column("settling", sa.Text(), nullable=True),
        sa.Column("settle_asks", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("settle_due_at", MOMENT, nullable=True),
        sa.Column("judge_at", MOMENT, nullable=True),
        sa.Column("stuck", sa.Text(), nullable=True),
    ):
        op.add_column("batches", column)
    for name, due in (("settle_due", "settle_due_at"), ("judged", "judge_at")):
        op.create_index(
            f"ix_batches_{name}", "batches", ["watch", due], **_where(f"{due} IS NOT NULL")
        )
    op.create_index(
        "ix_batches_stuck", "batches", ["watch", "changed_at"], **_where("stuck IS NOT NULL")
    )
    op.create_index(
        "ix_batches_completed",
        "batches",
        ["watch", "job_type", "configuration_id", "changed_at"],
        **_where("status = 'COMPLETED'"),
    )
    op.execute("UPDATE batches SET judge_at = changed_at WHERE active")
    for name in ("job_status", "job_error"):
        op.add_column("file_outcomes", sa.Column(name, sa.Text(), nullable=True))
    for name in ("scope", "slow"):
        op.add_column("watches", sa.Column(name, sa.Text(), nullable=True))
    op.add_column("coverage", sa.Column("skew", sa.Float(), nullable=False, server_default="0"))
    op.add_column("watches", sa.Column("outages", sa.Text(), nullable=False, server_default="[]"))
    _new_tables()


def _new_tables() -> None:
    op.create_table(
        "gaps",
        sa.Column("id", SERIAL, nullable=False),
        sa.Column("watch", sa.Text(), nullable=False),
        sa.Column("gap_from", MOMENT, nullable=False),
        sa.Column("gap_to", MOMENT, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("closed_at", MOMENT, nullable=True),
        sa.Column("listed_from", MOMENT, nullable=True),
        sa.Column("found", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["watch"], ["watches.name"], name="fk_gaps_watches_watch"),
        sa.PrimaryKeyConstraint("id", name="pk_gaps"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_gaps_watch_gap_to", "gaps", ["watch", "gap_to"])
    op.create_table(
        "file_names",
        sa.Column("watch", sa.Text(), nullable=False),
        sa.Column("source_directory_file_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("watch", "source_directory_file_id", name="pk_file_names"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "hints",
        sa.Column("id", SERIAL, nullable=False),
        sa.Column("watch", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("batch_id", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), nullable=True),
        sa.Column("sent_at", MOMENT, nullable=True),
        sa.Column("received_at", MOMENT, nullable=False),
        sa.Column("repeats", sa.Integer(), nullable=False, server_default="0"),
        sa.UniqueConstraint("watch", "event_id", name="uq_hints_watch_event_id"),
        sa.PrimaryKeyConstraint("id", name="pk_hints"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_hints_watch_received_at", "hints", ["watch", "received_at"])
    op.create_index("ix_hints_watch_batch_id", "hints", ["watch", "batch_id"])
