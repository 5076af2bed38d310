"""What people and dashboards read: nothing here changes anything."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec
import sqlalchemy as sa

from batchwatch.domain.batch import BatchId, FileOutcome, Results, Settling, Status, Stuck
from batchwatch.domain.coverage import Ledger
from batchwatch.domain.delivery import OPEN as STILL_OPEN
from batchwatch.domain.delivery import State
from batchwatch.domain.settle import Fate, fate_of
from batchwatch.domain.standing import Standing
from batchwatch.store import coverage as of_time
from batchwatch.store.judgements import Judgements
from batchwatch.store.schema import (
    OPEN,
    attempts,
    batches,
    coverage,
    deliveries,
    events,
    file_names,
    file_outcomes,
    transitions,
    watches,
)

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from batchwatch.store.engine import Database

Row = dict[str, Any]

_STUCK = msgspec.json.Decoder(Stuck)

_LAST = attempts.alias("last")
DELIVERIES: Final = (  # with the event of each, and its last try
    sa.select(
        deliveries.c.id,
        events.c.id.label("event_id"),
        events.c.type,
        events.c.watch,
        events.c.batch_id,
        deliveries.c.endpoint,
        deliveries.c.state,
        deliveries.c.attempts,
        deliveries.c.created_at,
        deliveries.c.due_at,
        deliveries.c.settled_at,
        deliveries.c.reason,
        _LAST.c.started_at.label("tried_at"),
        _LAST.c.status_code,
        _LAST.c.failure,
        _LAST.c.detail,
        _LAST.c.duration_ms,
    )
    .join(events, events.c.seq == deliveries.c.event_seq)
    .outerjoin(
        _LAST,
        (_LAST.c.delivery_id == deliveries.c.id) & (_LAST.c.number == deliveries.c.attempts),
    )
)


@dataclass(frozen=True, slots=True)
class OutboxDepth:
    """How much waits for one endpoint."""

    endpoint: str
    state: str
    count: int
    oldest: datetime | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which deliveries are meant: those that match all that is given."""

    ids: tuple[int, ...] = ()
    endpoint: str | None = None
    type: str | None = None  # or all of a group, as in ``batch.*``
    batch: str | None = None
    state: str | None = None
    since: datetime | None = None  # when they came to be owed
    until: datetime | None = None

    def conditions(self) -> list[sa.ColumnElement[bool]]:
        """The same for the database."""
        found: list[sa.ColumnElement[bool]] = []
        if self.ids:
            found.append(deliveries.c.id.in_(self.ids))
        if self.endpoint is not None:
            found.append(deliveries.c.endpoint == self.endpoint)
        if self.type is not None and self.type.endswith("*"):
            found.append(events.c.type.startswith(self.type[:-1], autoescape=True))
        elif self.type is not None:
            found.append(events.c.type == self.type)
        if self.batch is not None:
            found.append(events.c.batch_id == self.batch)
        if self.state == State.DEAD:  # as its index has it
            found.append(sa.text("state = 'dead'"))  # type: ignore[arg-type]  # a condition, too
        elif self.state is not None:
            found.append(deliveries.c.state == self.state)
        if self.since is not None:
            found.append(deliveries.c.created_at >= self.since)
        if self.until is not None:
            found.append(deliveries.c.created_at < self.until)
        return found


class Views:
    """Read-only questions about the store; a running daemon is not disturbed."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.judgements = Judgements(database)

    @property
    def where(self) -> str:
        """Which store it is, for people."""
        return self._database.where

    async def batches(
        self, *, watch: str | None = None, status: str | None = None, limit: int = 50
    ) -> list[Row]:
        """Batches, the last changed first."""
        query = sa.select(batches).order_by(batches.c.changed_at.desc()).limit(limit)
        if watch is not None:
            query = query.where(batches.c.watch == watch)
        if status is not None:
            query = query.where(batches.c.status == status)
        return [batch_row(row) for row in await self._all(query)]

    async def batch(self, batch_id: str, *, watch: str | None = None) -> list[Row]:
        """One batch with its transitions, files, events and deliveries.

        A list, for two watches may see the same batch. Empty if none does.
        """
        query = sa.select(batches).where(batches.c.id == batch_id)
        if watch is not None:
            query = query.where(batches.c.watch == watch)
        return [batch_row(row) | await self._story(row, batch_id) for row in await self._all(query)]

    async def named(self, beginning: str, *, limit: int = 11) -> list[str]:
        """The ids that begin so, with or without the ``bat-`` before it; an exact one is first."""
        beginnings = [
            self._database.begins(batches.c.id, one) for one in (beginning, f"bat-{beginning}")
        ]
        # Grouped, and not DISTINCT: PostgreSQL orders that by nothing but what is selected.
        query = sa.select(batches.c.id).where(sa.or_(*beginnings)).group_by(batches.c.id)
        rows = await self._all(query.order_by(batches.c.id != beginning, batches.c.id).limit(limit))
        return [row["id"] for row in rows]

    async def standings(self, ids: Collection[str]) -> list[Standing]:
        """Where each of these batches stands; those that are not known are left out."""
        values = sa.select(self._database.values("ids").c.value)
        among = self._database.among(batches.c.id, values)
        given = {"ids": msgspec.json.encode(list(ids)).decode()}
        files = file_outcomes.c
        kinds = (
            files.watch,
            files.batch_id,
            files.job_type,
            files.job_status,
            sa.case((files.job_id.is_(None), None), else_="").label("job_id"),
            sa.case((files.error_message.is_(None), None), else_="").label("error_message"),
        )
        async with self._database.read() as connection:
            known = await connection.execute(sa.select(batches).where(among), given)
            counted = await connection.execute(
                sa.select(*kinds, sa.func.count().label("alike"))
                # By way of their batches: an id alone is no beginning of the files' key.
                .join(batches, (batches.c.watch == files.watch) & (batches.c.id == files.batch_id))
                .where(among)
                .group_by(*kinds),
                given,
            )
        fates: dict[tuple[str, str], Counter[Fate | None]] = defaultdict(Counter)
        for row in counted:
            one = FileOutcome(
                "",
                job_type=row.job_type,
                job_id=row.job_id,
                error_message=row.error_message,
                job_status=row.job_status,
            )
            fates[row.watch, row.batch_id][fate_of(one)] += row.alike
        return [
            Standing(
                watch=row.watch,
                id=BatchId(row.id),
                status=Status(row.status),
                results=None if row.results is None else Results(row.results),
                settling=None if row.settling is None else Settling(row.settling),
                vanished=row.vanished_at is not None,
                fates=fates[row.watch, row.id],
            )
            for row in known
        ]

    async def statuses(self) -> list[Row]:
        """How many batches each watch has in each status."""
        return await self._all(
            sa.select(batches.c.watch, batches.c.status, sa.func.count().label("count"))
            .group_by(batches.c.watch, batches.c.status)
            .order_by(batches.c.watch, batches.c.status)
        )

    async def active(self) -> dict[str, int]:
        """How many batches each watch follows, where there are any."""
        query = (
            sa.select(batches.c.watch, sa.func.count().label("count"))
            .where(sa.text("active"))
            .group_by(batches.c.watch)
        )
        return {row["watch"]: row["count"] for row in await self._all(query)}

    async def watches(self) -> list[Row]:
        """Each watch with its cursor, its health, and when it was last covered."""
        covered = (
            sa.select(coverage.c.watch, sa.func.max(coverage.c.covered_to).label("covered_to"))
            .group_by(coverage.c.watch)
            .subquery()
        )
        return await self._all(
            sa.select(watches, covered.c.covered_to)
            .outerjoin(covered, covered.c.watch == watches.c.name)
            .order_by(watches.c.name)
        )

    async def ledgers(self, since: datetime) -> list[Row]:
        """Each watch with its ledger from ``since`` on.

        And how far upstream's clock is ahead, and why discovery fails, if it does.
        """
        async with self._database.read() as connection:
            found = await of_time.since(connection, since)
        rows = []
        for row in await self._all(sa.select(watches).order_by(watches.c.name)):
            windows, gaps, skew = found.get(row["name"], ([], [], 0.0))
            trouble = msgspec.json.decode(row["troubles"]).get("discovery")
            rows.append(
                row
                | {"ledger": Ledger(row["started_at"], windows, gaps, row["kept_from"])}
                | {"skew": skew}
                | {"trouble": trouble and trouble["reason"]}
            )
        return rows

    async def outbox(self) -> list[OutboxDepth]:
        """What is still owed, and what is dead, by endpoint and state."""
        rows: list[Row] = []
        # Two questions, each with an index of its own: the delivered ones are never read for it,
        # and of the dead ones, which may be many, nothing but the index.
        dead = sa.literal(State.DEAD.value).label("state")
        for which, state in ((OPEN, deliveries.c.state), ("state = 'dead'", dead)):
            rows += await self._all(
                sa.select(
                    deliveries.c.endpoint,
                    state,
                    sa.func.count().label("count"),
                    sa.func.min(deliveries.c.created_at).label("oldest"),
                )
                .where(sa.text(which))
                .group_by(deliveries.c.endpoint, state)
            )
        return [OutboxDepth(**row) for row in rows]

    async def deliveries(self, wanted: Wanted, *, limit: int) -> list[Row]:
        """Deliveries with the last try of each, the newest first."""
        return await self._all(
            DELIVERIES.where(*wanted.conditions()).order_by(deliveries.c.id.desc()).limit(limit)
        )

    async def replayable(self, wanted: Wanted, *, limit: int | None = None) -> list[int]:
        """The ids of the deliveries that are meant and have ended, in the order they were owed."""
        query = (
            sa.select(deliveries.c.id)
            .join(events, events.c.seq == deliveries.c.event_seq)
            .where(
                *wanted.conditions(),
                deliveries.c.state.not_in([one.value for one in STILL_OPEN]),
            )
            .order_by(deliveries.c.id)
            .limit(limit)
        )
        async with self._database.read() as connection:
            return list(await connection.scalars(query))

    async def transitions(self, watch: str, batch_id: str) -> list[Row]:
        """The recorded changes of a batch's status, in order."""
        return await self._all(
            sa.select(
                transitions.c.number,
                transitions.c.from_status,
                transitions.c.to_status,
                transitions.c.observed_at,
                transitions.c.updated_at,
            )
            .where(transitions.c.watch == watch, transitions.c.batch_id == batch_id)
            .order_by(transitions.c.number)
        )

    async def files(self, batch: Row) -> list[Row]:
        """The files of a row of batches with what became of each; None while that is open."""
        names = (file_names.c.watch == file_outcomes.c.watch) & (
            file_names.c.source_directory_file_id == file_outcomes.c.source_directory_file_id
        )
        rows = await self._all(
            sa.select(
                file_outcomes.c.source_directory_file_id,
                file_outcomes.c.job_type,
                file_outcomes.c.job_id,
                file_outcomes.c.error_message,
                file_outcomes.c.job_status,
                file_outcomes.c.job_error,
                file_names.c.name,
            )
            .outerjoin(file_names, names)
            .where(file_outcomes.c.watch == batch["watch"], file_outcomes.c.batch_id == batch["id"])
            .order_by(file_outcomes.c.position)
        )
        over = Fate.UNKNOWN if batch["settling"] == Settling.GIVEN_UP else None
        for row in rows:
            known = {name: value for name, value in row.items() if name != "name"}
            row["fate"] = fate_of(FileOutcome(**known)) or over
        return rows

    async def _story(self, batch: Row, batch_id: str) -> Row:
        watch: str = batch["watch"]

        told = await self._all(
            sa.select(events.c.id, events.c.type, events.c.transition, events.c.occurred_at)
            .where(events.c.subject == f"{watch}/{batch_id}")
            .order_by(events.c.seq)
        )
        sent = await self._all(
            sa.select(
                deliveries.c.id,
                events.c.id.label("event_id"),
                events.c.type,
                deliveries.c.endpoint,
                deliveries.c.state,
                deliveries.c.attempts,
                deliveries.c.due_at,
                deliveries.c.settled_at,
                deliveries.c.reason,
            )
            .join(events, events.c.seq == deliveries.c.event_seq)
            .where(events.c.subject == f"{watch}/{batch_id}")
            .order_by(deliveries.c.id)
        )
        tried = await self._all(
            sa.select(attempts)
            .join(deliveries, deliveries.c.id == attempts.c.delivery_id)
            .join(events, events.c.seq == deliveries.c.event_seq)
            .where(events.c.subject == f"{watch}/{batch_id}")
            .order_by(attempts.c.delivery_id, attempts.c.number)
        )
        return {
            "transitions": await self.transitions(watch, batch_id),
            "files": await self.files(batch),
            "events": told,
            "deliveries": [
                one | {"tries": [t for t in tried if t["delivery_id"] == one["id"]]} for one in sent
            ],
        }

    async def _all(self, query: sa.Select[Any]) -> list[Row]:
        async with self._database.read() as connection:
            return [dict(row._mapping) for row in await connection.execute(query)]


def batch_row(row: Row) -> Row:
    """A row of batches, with what is JSON in it read."""
    stuck = row["stuck"] and _STUCK.decode(row["stuck"])
    return row | {
        "lasted": msgspec.json.decode(row["lasted"]),
        "stuck": None if stuck is None else asdict(stuck),
    }
