"""The first schema.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# As they were when this was written: a migration must not change when the code does.
MOMENT: Final = sa.BigInteger()
SERIAL: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _where(condition: str) -> dict[str, Any]:
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def upgrade() -> None:
    """Make every table."""
    op.create_table(
        "events",
        sa.Column("seq", SERIAL, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("watch", sa.Text(), nullable=False),
        sa.Column("batch_id", sa.Text(), nullable=True),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("transition", sa.Integer(), nullable=True),
        sa.Column("occurred_at", MOMENT, nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_events"),
        sa.UniqueConstraint("id", name="uq_events_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_events_subject", "events", ["subject", "seq"], unique=False)
    op.create_table(
        "watches",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("started_at", MOMENT, nullable=False),
        sa.Column("cursor", MOMENT, nullable=True),
        sa.Column("baseline_done", sa.Boolean(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("failing_since", MOMENT, nullable=True),
        sa.Column("failing_reason", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("name", name="pk_watches"),
    )
    op.create_table(
        "batches",
        sa.Column("watch", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("previous_status", sa.Text(), nullable=True),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=True),
        sa.Column("source_directory_id", sa.Text(), nullable=True),
        sa.Column("job_type", sa.Text(), nullable=True),
        sa.Column("configuration_id", sa.Text(), nullable=True),
        sa.Column("created_at", MOMENT, nullable=True),
        sa.Column("updated_at", MOMENT, nullable=True),
        sa.Column("first_seen_at", MOMENT, nullable=False),
        sa.Column("changed_at", MOMENT, nullable=False),
        sa.Column("lasted", sa.Text(), nullable=False),
        sa.Column("misses", sa.Integer(), nullable=False),
        sa.Column("missed_at", MOMENT, nullable=True),
        sa.Column("vanished_at", MOMENT, nullable=True),
        sa.Column("last_event_id", sa.Text(), nullable=True),
        sa.Column("results", sa.Text(), nullable=True),
        sa.Column("results_asks", sa.Integer(), nullable=False),
        sa.Column("results_due_at", MOMENT, nullable=True),
        sa.ForeignKeyConstraint(["watch"], ["watches.name"], name="fk_batches_watches"),
        sa.PrimaryKeyConstraint("watch", "id", name="pk_batches"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_batches_active", "batches", ["watch", "created_at"], unique=False, **_where("active")
    )
    op.create_index("ix_batches_changed", "batches", ["changed_at"], unique=False)
    op.create_index(
        "ix_batches_results_due",
        "batches",
        ["watch", "results_due_at"],
        unique=False,
        **_where("results_due_at IS NOT NULL"),
    )
    op.create_table(
        "coverage",
        sa.Column("id", SERIAL, nullable=False),
        sa.Column("watch", sa.Text(), nullable=False),
        sa.Column("covered_from", MOMENT, nullable=False),
        sa.Column("covered_to", MOMENT, nullable=False),
        sa.Column("passes", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["watch"], ["watches.name"], name="fk_coverage_watches"),
        sa.PrimaryKeyConstraint("id", name="pk_coverage"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_coverage_watch_covered_to", "coverage", ["watch", "covered_to"], unique=False
    )
    op.create_table(
        "deliveries",
        sa.Column("id", SERIAL, nullable=False),
        sa.Column("event_seq", SERIAL, nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due_at", MOMENT, nullable=False),
        sa.Column("leased_until", MOMENT, nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("settled_at", MOMENT, nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_deliveries"),
        sa.UniqueConstraint("event_seq", "endpoint", name="uq_deliveries_event_seq_endpoint"),
        sa.ForeignKeyConstraint(["event_seq"], ["events.seq"], name="fk_deliveries_events"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_deliveries_dead",
        "deliveries",
        ["endpoint", "settled_at"],
        unique=False,
        **_where("state = 'dead'"),
    )
    op.create_index(
        "ix_deliveries_due",
        "deliveries",
        ["endpoint", "due_at", "id"],
        unique=False,
        **_where("state = 'pending'"),
    )
    op.create_index(
        "ix_deliveries_leased",
        "deliveries",
        ["leased_until"],
        unique=False,
        **_where("state = 'in_flight'"),
    )
    op.create_index(
        "ix_deliveries_line",
        "deliveries",
        ["endpoint", "subject", "id"],
        unique=False,
        **_where("state IN ('waiting', 'pending', 'in_flight')"),
    )
    op.create_table(
        "attempts",
        sa.Column("delivery_id", SERIAL, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("started_at", MOMENT, nullable=False),
        sa.Column("duration_ms", sa.Float(), nullable=False),
        sa.Column("status_code", sa.Integer(), nullable=True),
        sa.Column("failure", sa.Text(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("response", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["delivery_id"], ["deliveries.id"], name="fk_attempts_deliveries"),
        sa.PrimaryKeyConstraint("delivery_id", "number", name="pk_attempts"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "file_outcomes",
        sa.Column("watch", sa.Text(), nullable=False),
        sa.Column("batch_id", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("source_directory_file_id", sa.Text(), nullable=False),
        sa.Column("job_type", sa.Text(), nullable=True),
        sa.Column("job_id", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["watch", "batch_id"], ["batches.watch", "batches.id"], name="fk_file_outcomes_batches"
        ),
        sa.PrimaryKeyConstraint("watch", "batch_id", "position", name="pk_file_outcomes"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "transitions",
        sa.Column("watch", sa.Text(), nullable=False),
        sa.Column("batch_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("from_status", sa.Text(), nullable=True),
        sa.Column("to_status", sa.Text(), nullable=False),
        sa.Column("observed_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=True),
        sa.ForeignKeyConstraint(
            ["watch", "batch_id"], ["batches.watch", "batches.id"], name="fk_transitions_batches"
        ),
        sa.PrimaryKeyConstraint("watch", "batch_id", "number", name="pk_transitions"),
        sqlite_with_rowid=False,
    )
