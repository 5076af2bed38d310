"""The tables, once, for both databases.

Times are whole microseconds since 1970 in UTC: exact, ordered, and the same
in SQLite and PostgreSQL. JSON is text: it is written once and read whole.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

HEAD: Final = "0008"  # the newest migration; a test holds it against the folder
# The oldest one whose code may go on using a store of HEAD: replicas are upgraded one after
# another. It is the HEAD of the last release, or older; what would raise it beyond that waits for
# the next one. See `migrations` for what may be done to tables meanwhile.
OLDEST: Final = "0005"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def to_micros(moment: datetime) -> int:
    """``moment`` as the store keeps it; exact, where a float's timestamp is not."""
    return (moment - _EPOCH) // _MICROSECOND


class Moment(sa.TypeDecorator[datetime]):
    """An aware datetime, kept as microseconds since 1970."""

    impl = sa.BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> int | None:
        """Refuse naive times by arithmetic: they cannot be subtracted from the epoch."""
        del dialect
        return None if value is None else to_micros(value)

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> datetime | None:
        """Give the moment back in UTC."""
        del dialect
        return None if value is None else _EPOCH + timedelta(microseconds=value)


# SQLite numbers rows by itself only in a column of exactly the type INTEGER.
_Serial: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

metadata: Final = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def for_postgresql() -> None:
    """Give PostgreSQL the conditions of the partial indices, and ids by how they begin.

    Not with the indices themselves: naming a dialect there imports it, which
    costs a daemon on SQLite 25 ms and 2 MB.
    """
    for table in metadata.tables.values():
        for index in table.indexes:
            condition = index.dialect_options["sqlite"]["where"]
            index.dialect_options["postgresql"]["where"] = condition
            if index.name == "ix_batches_id":  # see `Database.begins`
                index.dialect_options["postgresql"]["ops"] = {"id": "text_pattern_ops"}


watches: Final = sa.Table(
    "watches",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("started_at", Moment, nullable=False),
    sa.Column("cursor", Moment),
    sa.Column("baseline_done", sa.Boolean, nullable=False),
    sa.Column("troubles", sa.Text, nullable=False, server_default="{}"),  # JSON: by work
    sa.Column("alarm", sa.Text),  # JSON
    sa.Column("scope", sa.Text),  # JSON: what its key is asked for
    sa.Column("slow", sa.Text),  # JSON: what `watch.slow` told of
    sa.Column("outages", sa.Text, nullable=False, server_default="[]"),  # JSON: those that are over
    sa.Column("kept_from", Moment),  # of its ledger: what was before is removed; null: all is there
)

# The ledger of time that was watched: passes that follow each other without a gap are one row.
coverage: Final = sa.Table(
    "coverage",
    metadata,
    sa.Column("id", _Serial, primary_key=True),
    sa.Column("watch", sa.Text, sa.ForeignKey("watches.name"), nullable=False),
    sa.Column("covered_from", Moment, nullable=False),
    sa.Column("covered_to", Moment, nullable=False),
    sa.Column("passes", sa.Integer, nullable=False),
    sa.Column("skew", sa.Float, nullable=False, server_default="0"),  # seconds; see `Look`
    sa.Index(None, "watch", "covered_to"),
    sqlite_autoincrement=True,
)

# Time without a whole pass, and what became of it.
gaps: Final = sa.Table(
    "gaps",
    metadata,
    sa.Column("id", _Serial, primary_key=True),
    sa.Column("watch", sa.Text, sa.ForeignKey("watches.name"), nullable=False),
    sa.Column("gap_from", Moment, nullable=False),
    sa.Column("gap_to", Moment, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("closed_at", Moment),  # when a pass listed it after all
    sa.Column("listed_from", Moment),  # where the window of that pass began
    sa.Column("found", sa.Integer),  # changes that this pass showed
    sa.Index(None, "watch", "gap_to"),
    sqlite_autoincrement=True,
)

batches: Final = sa.Table(
    "batches",
    metadata,
    sa.Column("watch", sa.Text, sa.ForeignKey("watches.name"), primary_key=True),
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("previous_status", sa.Text),
    sa.Column("fingerprint", sa.Text, nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("active", sa.Boolean, nullable=False),
    sa.Column("project_id", sa.Text),
    sa.Column("source_directory_id", sa.Text),
    sa.Column("job_type", sa.Text),
    sa.Column("configuration_id", sa.Text),
    sa.Column("created_at", Moment),
    sa.Column("updated_at", Moment),
    sa.Column("first_seen_at", Moment, nullable=False),
    sa.Column("changed_at", Moment, nullable=False),
    sa.Column("lasted", sa.Text, nullable=False),  # JSON: seconds by status
    sa.Column("misses", sa.Integer, nullable=False),
    sa.Column("missed_at", Moment),
    sa.Column("vanished_at", Moment),
    sa.Column("last_event_id", sa.Text),
    sa.Column("results", sa.Text),
    sa.Column("results_asks", sa.Integer, nullable=False),
    sa.Column("results_due_at", Moment),
    sa.Column("doubt", sa.Text),  # JSON
    sa.Column("file_count", sa.Integer),
    sa.Column("settling", sa.Text),
    sa.Column("settle_asks", sa.Integer, nullable=False, server_default="0"),
    sa.Column("settle_due_at", Moment),
    sa.Column("judge_at", Moment),
    sa.Column("stuck", sa.Text),  # JSON
    sa.Index(
        "ix_batches_active",
        "watch",
        "active",  # in vain, but that two columns are given makes SQLite prefer it to the key
        "status",
        "created_at",
        sqlite_where=sa.text("active"),
    ),
    sa.Index(
        "ix_batches_results_due",
        "watch",
        "results_due_at",
        sqlite_where=sa.text("results_due_at IS NOT NULL"),
    ),
    sa.Index(
        "ix_batches_vanished",
        "watch",
        "vanished_at",
        sqlite_where=sa.text("vanished_at IS NOT NULL"),
    ),
    sa.Index(
        "ix_batches_settle_due",
        "watch",
        "settle_due_at",
        sqlite_where=sa.text("settle_due_at IS NOT NULL"),
    ),
    sa.Index(
        "ix_batches_judged",
        "watch",
        "judge_at",
        sqlite_where=sa.text("judge_at IS NOT NULL"),
    ),
    sa.Index(
        "ix_batches_stuck",
        "watch",
        "changed_at",
        sqlite_where=sa.text("stuck IS NOT NULL"),
    ),
    # What like batches took.
    sa.Index(
        "ix_batches_completed",
        "watch",
        "job_type",
        "configuration_id",
        "changed_at",
        sqlite_where=sa.text("status = 'COMPLETED'"),
    ),
    sa.Index("ix_batches_changed", "changed_at"),
    # Lists, the last changed first, or the last created.
    sa.Index("ix_batches_of_status", "status", "changed_at"),
    sa.Index("ix_batches_of_directory", "source_directory_id", "changed_at"),
    sa.Index("ix_batches_of_watch", "watch", "changed_at"),
    sa.Index("ix_batches_born", sa.text("coalesce(created_at, first_seen_at)")),
    sa.Index("ix_batches_id", "id"),
    sqlite_with_rowid=False,
)


def _of_a_batch() -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["watch", "batch_id"], ["batches.watch", "batches.id"])


transitions: Final = sa.Table(
    "transitions",
    metadata,
    sa.Column("watch", sa.Text, primary_key=True),
    sa.Column("batch_id", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("from_status", sa.Text),
    sa.Column("to_status", sa.Text, nullable=False),
    sa.Column("observed_at", Moment, nullable=False),
    sa.Column("updated_at", Moment),
    _of_a_batch(),
    sqlite_with_rowid=False,
)

# By position, not by file: results come as a list, and nothing forbids upstream to repeat a file.
file_outcomes: Final = sa.Table(
    "file_outcomes",
    metadata,
    sa.Column("watch", sa.Text, primary_key=True),
    sa.Column("batch_id", sa.Text, primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True),
    sa.Column("source_directory_file_id", sa.Text, nullable=False),
    sa.Column("job_type", sa.Text),
    sa.Column("job_id", sa.Text),
    sa.Column("error_message", sa.Text),
    sa.Column("job_status", sa.Text),
    sa.Column("job_error", sa.Text),
    _of_a_batch(),
    sqlite_with_rowid=False,
)

# As their directories call them; asked for once, for those watches that want it.
file_names: Final = sa.Table(
    "file_names",
    metadata,
    sa.Column("watch", sa.Text, primary_key=True),
    sa.Column("source_directory_file_id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("needed_at", Moment),  # by the last batch, to a day; null: not noted yet
    sa.Index("ix_file_names_needed", "needed_at"),
    sqlite_with_rowid=False,
)

# Upstream webhooks that came, with a good signature: each event once.
hints: Final = sa.Table(
    "hints",
    metadata,
    sa.Column("id", _Serial, primary_key=True),
    sa.Column("watch", sa.Text, nullable=False),
    sa.Column("event_id", sa.Text, nullable=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("batch_id", sa.Text),
    sa.Column("status", sa.Text),  # as it claims
    sa.Column("sent_at", Moment),  # as it claims
    sa.Column("received_at", Moment, nullable=False),
    sa.Column("repeats", sa.Integer, nullable=False, server_default="0"),
    sa.UniqueConstraint("watch", "event_id"),
    sa.Index(None, "watch", "received_at"),
    sa.Index(None, "watch", "batch_id"),
    sqlite_autoincrement=True,
)

events: Final = sa.Table(
    "events",
    metadata,
    sa.Column("seq", _Serial, primary_key=True),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("watch", sa.Text, nullable=False),  # empty: of none
    sa.Column("batch_id", sa.Text),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("transition", sa.Integer),
    sa.Column("occurred_at", Moment, nullable=False),
    sa.Column("payload", sa.Text, nullable=False),  # JSON: the envelope, as it is sent
    sa.Column("trace", sa.Text),  # the W3C traceparent of what made it, if traces are kept
    sa.Index("ix_events_subject", "subject", "seq"),
    sa.Index("ix_events_type", "type", "seq"),
    sqlite_autoincrement=True,
)

# How far events were removed: the last one of each watch and type that is no longer kept.
removed_events: Final = sa.Table(
    "removed_events",
    metadata,
    sa.Column("watch", sa.Text, primary_key=True),  # empty: of none
    sa.Column("type", sa.Text, primary_key=True),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

OPEN: Final = "state IN ('waiting', 'pending', 'in_flight')"
UNSETTLED: Final = "state <> 'delivered'"  # what people look for among many that are delivered

# The outbox.
deliveries: Final = sa.Table(
    "deliveries",
    metadata,
    sa.Column("id", _Serial, primary_key=True),
    sa.Column("event_seq", _Serial, sa.ForeignKey("events.seq"), nullable=False),
    sa.Column("endpoint", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("uncounted", sa.Integer, nullable=False, server_default="0"),  # of them
    sa.Column("due_at", Moment, nullable=False),  # steady, as are the next two
    sa.Column("paused_for", sa.Float, nullable=False, server_default="0"),  # seconds, until due_at
    sa.Column("leased_until", Moment),
    sa.Column("holder", sa.Text),  # the replica that has it in flight, where there are several
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("settled_at", Moment),
    sa.Column("reason", sa.Text),
    sa.UniqueConstraint("event_seq", "endpoint"),
    sa.Index(
        "ix_deliveries_due",
        "endpoint",
        "due_at",
        "id",
        sqlite_where=sa.text("state = 'pending'"),
    ),
    sa.Index(
        "ix_deliveries_line",
        "endpoint",
        "subject",
        "id",
        sqlite_where=sa.text(OPEN),
    ),
    sa.Index(
        "ix_deliveries_leased",
        "leased_until",
        sqlite_where=sa.text("state = 'in_flight'"),
    ),
    sa.Index(
        "ix_deliveries_dead",
        "endpoint",
        "created_at",
        sqlite_where=sa.text("state = 'dead'"),
    ),
    sa.Index("ix_deliveries_of_endpoint", "endpoint", "id"),
    sa.Index("ix_deliveries_unsettled", "state", "id", sqlite_where=sa.text(UNSETTLED)),
    sqlite_autoincrement=True,
)

# The daemons that share this database, and when each of them was last seen by its clock.
replicas: Final = sa.Table(
    "replicas",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("started_at", Moment, nullable=False),
    sa.Column("seen_at", Moment, nullable=False),
    sa.Column("schema", sa.Text),  # that its code knows; null: of before there was a choice
    sa.Column("leaving_at", Moment),  # since when it polls nothing more, and ends what it sends
)

# Who may poll a watch, and until when. Each holder has a larger token than the one before.
leases: Final = sa.Table(
    "leases",
    metadata,
    sa.Column("watch", sa.Text, primary_key=True),
    sa.Column("holder", sa.Text, nullable=False),
    sa.Column("token", sa.BigInteger, nullable=False),
    sa.Column("held_until", Moment, nullable=False),
    sa.Column("taken_at", Moment, nullable=False),
    sa.Column("said", sa.Text),  # JSON: how the watch goes, as its holder said it
    sa.Column("said_at", Moment),
)

# One row: the oldest schema whose code may use this store; who migrates it says so.
compatibility: Final = sa.Table(
    "compatibility",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("oldest", sa.Text, nullable=False),
)

# One row, and only in a store that a copy has not filled yet: how far it is.
copying: Final = sa.Table(
    "copying",
    sa.MetaData(),
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("schema", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),  # JSON: what tells it from another
    sa.Column("step", sa.Integer, nullable=False),  # counted, so that two notice each other
    sa.Column("done", sa.Text, nullable=False),  # JSON: by table
)

# One row: how often a command has changed something that a daemon should look at.
nudges: Final = sa.Table(
    "nudges",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("count", sa.BigInteger, nullable=False),
)

# An endpoint without a row is well.
endpoints: Final = sa.Table(
    "endpoints",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("failing_since", Moment),
    sa.Column("failing_for", sa.Float, nullable=False),  # seconds
    sa.Column("told", sa.Float),
    sa.Column("alarm_since", Moment),
    sa.Column("reason", sa.Text),
    sa.Column("disabled_at", Moment),
)

attempts: Final = sa.Table(
    "attempts",
    metadata,
    sa.Column("delivery_id", _Serial, sa.ForeignKey("deliveries.id"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("started_at", Moment, nullable=False),
    sa.Column("duration_ms", sa.Float, nullable=False),
    sa.Column("status_code", sa.Integer),
    sa.Column("failure", sa.Text),
    sa.Column("detail", sa.Text),
    sa.Column("response", sa.Text),
    sqlite_with_rowid=False,
)
