"""Batches, their transitions and their files; the one way in which they change."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec
import sqlalchemy as sa

from batchwatch.domain.batch import (
    Batch,
    BatchId,
    Doubt,
    EventId,
    Results,
    Settling,
    Status,
    Stuck,
    WatchName,
)
from batchwatch.domain.cadence import (
    RESULTS_PAUSE,
    SETTLE_PAUSE,
    VANISHED_AGAIN,
    VANISHED_FOR_GOOD,
    VANISHED_LATELY,
)
from batchwatch.domain.judging import Docket
from batchwatch.domain.refresh import Share
from batchwatch.store.engine import unbroken
from batchwatch.store.judgements import (
    Judgements,
    count_stuck,
    longest_stuck,
    read_slow,
    write_slow,
)
from batchwatch.store.outcomes import Outcomes
from batchwatch.store.schema import batches, transitions

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from batchwatch.domain.batch import FileOutcome, Transition
    from batchwatch.domain.changes import Changes
    from batchwatch.domain.judging import Judged
    from batchwatch.store.engine import Database
    from batchwatch.store.outbox import Outbox

_KEY: Final = ("watch", "id")
_DOUBT: Final = msgspec.json.Decoder(Doubt)
_STUCK: Final = msgspec.json.Decoder(Stuck)
_EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
# Said twice: once as the index has it, once as a value that is looked up in it.
_ACTIVE: Final = (sa.text("active"), batches.c.active == sa.true())


class Batches:
    """All batches of all watches."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox
        self.judgements = Judgements(database)
        pairs = database.pairs("seen")
        of_the_watch = batches.c.watch == sa.bindparam("watch")
        as_known = sa.select(
            (batches.c.fingerprint == pairs.c.value)
            & (batches.c.misses == 0)  # else it is news that it is there
            & batches.c.doubt.is_(None)  # else any word counts, for or against it
        ).where(of_the_watch, batches.c.id == pairs.c.key)
        # Looked up one by one: PostgreSQL would make a join of EXISTS, through all of the watch.
        self._news = sa.select(pairs.c.key).where(
            sa.func.coalesce(as_known.scalar_subquery(), sa.false()) == sa.false()
        )
        # Lists of ids are always subqueries: joined, SQLite may choose to scan them for each batch.
        self._known = sa.select(batches).where(
            of_the_watch, database.among(batches.c.id, sa.select(database.values("ids").c.value))
        )
        unseen = batches.c.id.not_in(sa.select(database.values("seen").c.value))
        self._unseen = sa.select(batches.c.id).where(of_the_watch, *_ACTIVE, unseen)
        self._shares = (
            sa.select(
                batches.c.status,
                sa.func.count().label("due"),
                (sa.func.count() - sa.func.count(batches.c.created_at)).label("undated"),
                sa.func.min(batches.c.created_at).label("oldest"),
                sa.func.max(batches.c.created_at).label("newest"),
            )
            .where(of_the_watch, *_ACTIVE, unseen)
            .group_by(batches.c.status)
        )
        vanished_at, missed_at = batches.c.vanished_at, batches.c.missed_at
        self._vanished = sa.select(batches.c.id).where(
            of_the_watch,
            vanished_at.is_not(None),
            vanished_at > sa.bindparam("long_ago"),
            missed_at <= sa.bindparam("asked_soon"),
            (vanished_at > sa.bindparam("lately")) | (missed_at <= sa.bindparam("asked_late")),
        )
        self._outcomes = Outcomes(database)
        self._awaiting, self._next_due = _due(database, batches.c.results_due_at)
        self._settling, self._next_settling = _due(database, batches.c.settle_due_at)
        upsert = database.insert(batches)
        self._upsert = upsert.on_conflict_do_update(
            index_elements=list(_KEY),
            set_={
                column.name: upsert.excluded[column.name]
                for column in batches.columns
                if column.name not in _KEY
            },
        )

    async def news(self, watch: WatchName, seen: Mapping[str, str]) -> set[BatchId]:
        """Which of the batches in ``seen`` (id to fingerprint) differ from what is stored.

        The comparison is the database's work: of a page of which nothing
        changed, nothing comes back, and nothing is built in Python.
        """
        async with self._database.read() as connection:
            found = await connection.scalars(
                self._news, {"watch": watch, "seen": msgspec.json.encode(seen).decode()}
            )
            return {BatchId(one) for one in found}

    @unbroken
    async def change(
        self,
        watch: WatchName,
        ids: Collection[BatchId],
        decide: Callable[[Mapping[BatchId, Batch]], Changes],
    ) -> Changes:
        """Change batches, all of it or nothing; the other ways only give ``decide`` more to go by.

        ``decide`` is given those of ``ids`` that are known, as they are in
        this transaction, and must be pure. Batches, transitions, files,
        events and their deliveries are written together; then whoever waits
        for deliveries is woken.
        """
        async with self._database.write() as connection:
            changes = decide(await self._read(connection, watch, ids))
            await self._database.hold(connection, watch)
            await self._write(connection, watch, changes)
        self._outbox.committed(changes.events)
        return changes

    @unbroken
    async def follow(
        self,
        watch: WatchName,
        ids: Collection[BatchId],
        decide: Callable[
            [Mapping[BatchId, Batch], Mapping[BatchId, Sequence[FileOutcome]]], Changes
        ],
    ) -> Changes:
        """Change batches by what is known of their files: as :meth:`change`, with those given."""
        async with self._database.write() as connection:
            known = await self._read(connection, watch, ids)
            changes = decide(known, await self._outcomes.read(connection, watch, ids))
            await self._database.hold(connection, watch)
            await self._write(connection, watch, changes)
        self._outbox.committed(changes.events)
        return changes

    async def outcomes(
        self, watch: WatchName, ids: Collection[BatchId]
    ) -> dict[BatchId, list[FileOutcome]]:
        """The files of these batches, as the results have them, and what is known of their jobs."""
        async with self._database.read() as connection:
            return await self._outcomes.read(connection, watch, ids)

    @unbroken
    async def judge(
        self,
        watch: WatchName,
        ids: Collection[BatchId],
        decide: Callable[[Mapping[BatchId, Batch], Docket], Judged],
    ) -> Judged:
        """Change batches by a judgement of these and of their watch, as :meth:`change` does."""
        async with self._database.write() as connection:
            longest = await longest_stuck(connection, watch)
            known = await self._read(connection, watch, {*ids, *map(BatchId, longest)})
            docket = Docket(
                slow=await read_slow(connection, watch),
                stuck=await count_stuck(connection, watch),
                longest=[known[BatchId(one)] for one in longest],
            )
            judged = decide({one: known[one] for one in ids if one in known}, docket)
            await self._database.hold(connection, watch)
            if judged.slow != docket.slow:  # first the watch, then events: as all who write both
                await write_slow(connection, watch, judged.slow)
            await self._write(connection, watch, judged.changes)
        self._outbox.committed(judged.changes.events)
        return judged

    async def known(self, watch: WatchName, ids: Collection[BatchId]) -> dict[BatchId, Batch]:
        """Those of ``ids`` that are known, as they are now."""
        async with self._database.read() as connection:
            return await self._read(connection, watch, ids)

    async def due(self, watch: WatchName, *, seen: Collection[str]) -> list[Share]:
        """The active batches that are not among ``seen``, by status.

        Counted by the database: of ten thousand, a handful of rows comes back.
        """
        async with self._database.read() as connection:
            rows = await connection.execute(self._shares, {"watch": watch, "seen": _json(seen)})
            return [
                Share(
                    status=Status(row.status),
                    due=row.due,
                    undated=row.undated,
                    oldest=row.oldest,
                    newest=row.newest,
                )
                for row in rows
            ]

    async def unseen(self, watch: WatchName, *, seen: Collection[str]) -> list[BatchId]:
        """The active batches that are not among ``seen``."""
        async with self._database.read() as connection:
            rows = await connection.scalars(self._unseen, {"watch": watch, "seen": _json(seen)})
            return [BatchId(one) for one in rows]

    async def vanished(self, watch: WatchName, *, now: datetime) -> list[BatchId]:
        """Those that vanished, and it is time to look whether they have come back."""
        soon, late = VANISHED_AGAIN
        moments = {
            "lately": now - VANISHED_LATELY,
            "asked_soon": now - soon,
            "long_ago": now - VANISHED_FOR_GOOD,
            "asked_late": now - late,
        }
        async with self._database.read() as connection:
            rows = await connection.scalars(self._vanished, {"watch": watch, **moments})
            return [BatchId(one) for one in rows]

    async def awaiting_results(
        self, watch: WatchName, *, now: datetime, besides: Collection[BatchId] = (), limit: int
    ) -> list[BatchId]:
        """Terminal batches whose results are due to be asked for, the longest due first.

        Further away than the longest pause is a time that a clock gave
        which has been set back since: that is due, too.
        """
        given = {"now": now, "never": now + RESULTS_PAUSE, "limit": limit}
        async with self._database.read() as connection:
            rows = await connection.scalars(
                self._awaiting, {"watch": watch, "besides": _json(besides), **given}
            )
            return [BatchId(one) for one in rows]

    async def overdue(
        self, watch: WatchName, *, ended_before: datetime, now: datetime
    ) -> list[BatchId]:
        """Terminal batches whose end is untold, because their results are still awaited.

        One that ended after ``now`` did so by a clock that was set back.
        """
        query = sa.select(batches.c.id).where(
            batches.c.watch == watch,
            # Where there is one at all; said as a range, or SQLite goes through all of the watch.
            batches.c.results_due_at >= _EARLIEST,
            batches.c.results == Results.AWAITED.value,
            sa.or_(batches.c.changed_at <= ended_before, batches.c.changed_at > now),
        )
        async with self._database.read() as connection:
            return [BatchId(one) for one in await connection.scalars(query)]

    async def next_results_due(
        self, watch: WatchName, *, besides: Collection[BatchId] = ()
    ) -> datetime | None:
        """When the next results are due to be asked for, if any are missing."""
        async with self._database.read() as connection:
            due: datetime | None = await connection.scalar(
                self._next_due, {"watch": watch, "besides": _json(besides)}
            )
            return due

    async def settling(
        self, watch: WatchName, *, now: datetime, besides: Collection[BatchId] = (), limit: int
    ) -> list[BatchId]:
        """Batches whose jobs are due to be asked for, as :meth:`awaiting_results`."""
        given = {"now": now, "never": now + SETTLE_PAUSE, "limit": limit}
        async with self._database.read() as connection:
            rows = await connection.scalars(
                self._settling, {"watch": watch, "besides": _json(besides), **given}
            )
            return [BatchId(one) for one in rows]

    async def next_settling_due(
        self, watch: WatchName, *, besides: Collection[BatchId] = ()
    ) -> datetime | None:
        """When the next jobs are due to be asked for, if any are followed."""
        async with self._database.read() as connection:
            due: datetime | None = await connection.scalar(
                self._next_settling, {"watch": watch, "besides": _json(besides)}
            )
            return due

    async def _read(
        self, connection: AsyncConnection, watch: WatchName, ids: Collection[BatchId]
    ) -> dict[BatchId, Batch]:
        rows = await connection.execute(self._known, {"watch": watch, "ids": _json(ids)})
        return {BatchId(row.id): _batch(row) for row in rows}

    async def _write(self, connection: AsyncConnection, watch: WatchName, changes: Changes) -> None:
        """Write a change and all that it owes; its commit is for the caller to report."""
        if changes.batches:
            rows = [_row(batch) for batch in changes.batches.values()]
            await connection.execute(self._upsert, rows)
        if changes.transitions:
            await connection.execute(
                sa.insert(transitions), [_transition_row(one) for one in changes.transitions]
            )
        await self._outcomes.write(connection, watch, changes)
        await self._outbox.enqueue(connection, changes.events)


def _due(database: Database, due_at: sa.Column[datetime]) -> tuple[sa.Select[Any], sa.Select[Any]]:
    """What is due by a column with an index, the longest due first; and when something is next."""
    meant = (
        batches.c.watch == sa.bindparam("watch"),
        due_at.is_not(None),
        batches.c.id.not_in(sa.select(database.values("besides").c.value)),
    )
    due = (
        sa.select(batches.c.id)
        .where(*meant, (due_at <= sa.bindparam("now")) | (due_at > sa.bindparam("never")))
        .order_by(due_at)
        .limit(sa.bindparam("limit", type_=sa.Integer))
    )
    return due, sa.select(sa.func.min(due_at)).where(*meant)


def _json(ids: Collection[str]) -> str:
    return msgspec.json.encode(list(ids)).decode()


def _batch(row: sa.Row[Any]) -> Batch:
    return Batch(
        watch=WatchName(row.watch),
        id=BatchId(row.id),
        status=Status(row.status),
        previous_status=None if row.previous_status is None else Status(row.previous_status),
        fingerprint=row.fingerprint,
        revision=row.revision,
        first_seen_at=row.first_seen_at,
        changed_at=row.changed_at,
        created_at=row.created_at,
        updated_at=row.updated_at,
        project_id=row.project_id,
        source_directory_id=row.source_directory_id,
        job_type=row.job_type,
        configuration_id=row.configuration_id,
        lasted=msgspec.json.decode(row.lasted),
        misses=row.misses,
        missed_at=row.missed_at,
        vanished_at=row.vanished_at,
        last_event_id=None if row.last_event_id is None else EventId(row.last_event_id),
        results=None if row.results is None else Results(row.results),
        results_asks=row.results_asks,
        results_due_at=row.results_due_at,
        doubt=None if row.doubt is None else _DOUBT.decode(row.doubt),
        file_count=row.file_count,
        settling=None if row.settling is None else Settling(row.settling),
        settle_asks=row.settle_asks,
        settle_due_at=row.settle_due_at,
        judge_at=row.judge_at,
        stuck=None if row.stuck is None else _STUCK.decode(row.stuck),
    )


def _row(batch: Batch) -> dict[str, Any]:
    return {
        "watch": batch.watch,
        "id": batch.id,
        "status": str(batch.status),
        "previous_status": batch.previous_status,
        "fingerprint": batch.fingerprint,
        "revision": batch.revision,
        "active": batch.is_active,
        "first_seen_at": batch.first_seen_at,
        "changed_at": batch.changed_at,
        "created_at": batch.created_at,
        "updated_at": batch.updated_at,
        "project_id": batch.project_id,
        "source_directory_id": batch.source_directory_id,
        "job_type": batch.job_type,
        "configuration_id": batch.configuration_id,
        "lasted": msgspec.json.encode(batch.lasted).decode(),
        "misses": batch.misses,
        "missed_at": batch.missed_at,
        "vanished_at": batch.vanished_at,
        "last_event_id": batch.last_event_id,
        "results": None if batch.results is None else batch.results.value,
        "results_asks": batch.results_asks,
        "results_due_at": batch.results_due_at,
        "doubt": _optional(batch.doubt),
        "file_count": batch.file_count,
        "settling": None if batch.settling is None else batch.settling.value,
        "settle_asks": batch.settle_asks,
        "settle_due_at": batch.settle_due_at,
        "judge_at": batch.judge_at,
        "stuck": _optional(batch.stuck),
    }


def _optional(value: Doubt | Stuck | None) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()


def _transition_row(transition: Transition) -> dict[str, Any]:
    return {
        "watch": transition.watch,
        "batch_id": transition.batch_id,
        "number": transition.number,
        "from_status": transition.from_status,
        "to_status": transition.to_status,
        "observed_at": transition.observed_at,
        "updated_at": transition.updated_at,
    }
