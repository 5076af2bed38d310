"""Remove what is older than it has to be kept, a few rows at a time.

A batch goes with its whole story: transitions, files, events, deliveries and
tries. It goes once it has ended, or vanished, for so long; was settled; has
told nothing since, and owes nobody anything; and unless a listing of its
watch may show it again, for then it would be told as news. Windows begin an
overlap before the cursor (`window_start`). They begin earlier only where a
watch is asked for another scope: by its lookback, than which nothing is kept
for less, as the settings see to. So what was created before the window, and
ended before all that is kept, is not listed again. What other listings may
show of it, `Recorder` passes over.

Never removed: active batches, however old; what is owed, with its event and
its batch; the last window of each ledger. Hints have a rule of their own.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import msgspec
import sqlalchemy as sa

from batchwatch.domain.cadence import OVERLAP, VANISHED_FOR_GOOD
from batchwatch.domain.event import EVENT_TYPES
from batchwatch.store.engine import unbroken
from batchwatch.store.outcomes import NOTED_EVERY
from batchwatch.store.schema import (
    OPEN,
    attempts,
    batches,
    coverage,
    deliveries,
    events,
    file_names,
    file_outcomes,
    gaps,
    removed_events,
    transitions,
    watches,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Collection, Iterator, Mapping, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from batchwatch.store.engine import Database

    Removed = Mapping[str, int]  # rows, by table

AT_ONCE: Final = 500  # rows that one step looks at
FILES_AT_ONCE: Final = 5_000  # that one step removes; a batch has up to a thousand
OF_NO_BATCH: Final = tuple(one for one in EVENT_TYPES if not one.startswith("batch."))
_WHOLE: Final = sa.BigInteger()
_MICROSECOND: Final = timedelta(microseconds=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Retention:
    """Removes what is old. With several replicas, one of them at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @cached_property
    def _statements(self) -> _Statements:
        return _Statements(self._database)

    async def remove(self, *, now: datetime, older_than: timedelta) -> AsyncGenerator[Removed]:
        """Remove what is older, in steps: each a short transaction, and how many rows it took.

        Whoever asks pauses between them, so that others come by. It ends when
        there is no more, or when another replica is at it.
        """
        before = now - older_than
        given = {
            "before": before,
            "vanished_before": min(before, now - VANISHED_FOR_GOOD),
            "kept": older_than // _MICROSECOND,
        }
        steps = (
            self._batches(given),
            self._events(before),
            self._one_by_one(before, now),
        )
        for some in steps:
            async for removed in some:
                if removed is None:
                    return
                yield removed

    async def _batches(self, given: Mapping[str, Any]) -> AsyncGenerator[Removed | None]:
        """All that has ended by then, the longest ago first: what may go of it, and then the rest.

        What must stay is looked at each time, for nobody notes why it does.
        """
        place = {"changed_at": _EPOCH, "watch": "", "id": ""}
        while True:
            async with self._database.read() as connection:
                rows = (await connection.execute(self._statements.ended, {**given, **place})).all()
            removed: Removed | None = {}
            for some in _portions([row for row in rows if row.may_go]):
                removed = await self._remove_batches(given, some)
                yield removed
                if removed is None:
                    return
            if len(rows) < AT_ONCE:
                return
            if not removed:
                yield {}
            last = rows[-1]
            place = {"changed_at": last.changed_at, "watch": last.watch, "id": last.id}

    async def _events(self, before: datetime) -> AsyncGenerator[Removed | None]:
        """Those of watches, endpoints and the daemon, type by type."""
        for type_ in OF_NO_BATCH:
            place = 0
            while True:
                given = {"type_": type_, "place": place, "before": before}
                async with self._database.read() as connection:
                    rows = (await connection.execute(self._statements.told, given)).all()
                if going := [row.seq for row in rows if row.may_go]:
                    yield await self._remove_events(going)
                # Their order is nearly that of their times: the rest is younger.
                if len(rows) < AT_ONCE or not any(row.is_old for row in rows):
                    break
                place = rows[-1].seq

    async def _one_by_one(self, before: datetime, now: datetime) -> AsyncGenerator[Removed | None]:
        """What stands for itself: the ledger's rows, and names that nobody has needed since."""
        # Those from before it was noted when a name is needed count from now on.
        while noted := await self._note_names(now):
            yield {}
        if noted is None:
            yield None
            return
        for remove in (self._remove_ledger, self._remove_names):
            while True:
                removed = await remove(before)
                if not removed and removed is not None:
                    break
                yield removed

    @unbroken
    async def _remove_batches(
        self, given: Mapping[str, Any], names: Sequence[tuple[str, str]]
    ) -> Removed | None:
        keys = {"keys": _json([{"watch": watch, "id": id_} for watch, id_ in names])}
        # Not durable: what a power failure brings back is removed again.
        async with self._database.write(durable=False) as connection:
            if not await self._database.is_alone(connection):
                return None
            rows = await connection.execute(self._statements.hold, {**given, **keys})
            keys = {"keys": _json([{"watch": row.watch, "id": row.id} for row in rows])}
            told = await connection.scalars(self._statements.events_of, keys)
            removed = await self._forget(connection, list(told))
            if removed is None:
                return {}
            for table, delete in self._statements.of_batches.items():
                removed[table] += (await connection.execute(delete, keys)).rowcount
        return +removed

    @unbroken
    async def _remove_events(self, seqs: Sequence[int]) -> Removed | None:
        async with self._database.write(durable=False) as connection:
            if not await self._database.is_alone(connection):
                return None
            return +(await self._forget(connection, seqs) or Counter())

    async def _forget(
        self, connection: AsyncConnection, seqs: Collection[int]
    ) -> Counter[str] | None:
        """Remove events with their deliveries and tries, and note how far; None: one is owed.

        One that somebody has just had sent again is owed. Whoever is about to do
        so holds it, and is not waited for.
        """
        statements = self._statements
        seqs_given = {"seqs": _json(list(seqs))}
        ids = list(await connection.scalars(statements.over, seqs_given))
        ids_given = {"ids": _json(ids)}
        if await connection.scalar(statements.others, seqs_given | ids_given):
            return None
        removed: Counter[str] = Counter()
        last = [
            {"watch": row.watch, "type": row.type, "seq": row.seq}
            for row in await connection.execute(statements.last, seqs_given)
        ]
        if last:
            await connection.execute(statements.note, last)
        for table, delete, given in (
            (attempts, statements.attempts, ids_given),
            (deliveries, statements.deliveries, ids_given),
            (events, statements.events, seqs_given),
        ):
            removed[table.name] += (await connection.execute(delete, given)).rowcount
        return removed

    @unbroken
    async def _remove_ledger(self, before: datetime) -> Removed | None:
        """Windows and gaps that ended by then; the ledger says from when on it is kept.

        But for the last window of each watch, and for the gaps that may go on after it.
        """
        async with self._database.write(durable=False) as connection:
            if not await self._database.is_alone(connection):
                return None
            removed: Counter[str] = Counter()
            for table, ended in self._statements.ended_by.items():
                rows = (await connection.execute(ended, {"before": before})).all()
                if not rows:
                    continue
                names = {row.watch for row in rows}
                later = watches.c.kept_from.is_(None) | (watches.c.kept_from < before)
                kept = sa.update(watches).where(watches.c.name.in_(names), later)
                await connection.execute(kept.values(kept_from=before))
                ids = [row.id for row in rows]
                delete = sa.delete(table).where(table.c.id.in_(ids))
                removed[table.name] += (await connection.execute(delete)).rowcount
        return +removed

    @unbroken
    async def _note_names(self, now: datetime) -> int | None:
        """How many had no such moment, and have this one now; None: another replica is at it."""
        async with self._database.write(durable=False) as connection:
            if not await self._database.is_alone(connection):
                return None
            return (await connection.execute(self._statements.unnoted, {"now": now})).rowcount

    @unbroken
    async def _remove_names(self, before: datetime) -> Removed | None:
        async with self._database.write(durable=False) as connection:
            if not await self._database.is_alone(connection):
                return None
            given = {"before": before - NOTED_EVERY}
            rows = await connection.execute(self._statements.unneeded, given)
            return +Counter({file_names.name: rows.rowcount})


class _Statements:
    """Its SQL, built once; each goes by an index."""

    def __init__(self, database: Database) -> None:
        before = sa.bindparam("before", type_=batches.c.changed_at.type)
        keys = database.rows("keys", watch=sa.Text(), id=sa.Text())
        among = sa.tuple_(batches.c.watch, batches.c.id).in_(sa.select(keys.c.watch, keys.c.id))
        may_go = _may_go(before)
        place = sa.tuple_(
            sa.bindparam("changed_at", type_=batches.c.changed_at.type),
            sa.bindparam("watch", type_=sa.Text),
            sa.bindparam("id", type_=sa.Text),
        )
        key = (batches.c.changed_at, batches.c.watch, batches.c.id)
        self.ended = (
            sa.select(*key, batches.c.file_count, may_go.label("may_go"))
            .where(batches.c.changed_at < before, sa.tuple_(*key) > place)
            .order_by(*key)
            .limit(AT_ONCE)
        )
        self.hold = (
            sa.select(batches.c.watch, batches.c.id)
            .where(among, may_go)
            .with_for_update(of=batches, skip_locked=True)
        )
        self.events_of = sa.select(events.c.seq).where(
            events.c.subject.in_(sa.select(keys.c.watch + "/" + keys.c.id))
        )
        self.of_batches = {
            table.name: sa.delete(table).where(
                sa.tuple_(*columns).in_(sa.select(keys.c.watch, keys.c.id))
            )
            for table, columns in (
                (file_outcomes, (file_outcomes.c.watch, file_outcomes.c.batch_id)),
                (transitions, (transitions.c.watch, transitions.c.batch_id)),
                (batches, (batches.c.watch, batches.c.id)),
            )
        }

        is_old = events.c.occurred_at < before
        self.told = (
            sa.select(
                events.c.seq,
                is_old.label("is_old"),
                (is_old & ~_owed(events.c.seq)).label("may_go"),
            )
            .where(events.c.type == sa.bindparam("type_"), events.c.seq > sa.bindparam("place"))
            .order_by(events.c.seq)
            .limit(AT_ONCE)
        )
        seqs = sa.select(sa.cast(database.values("seqs").c.value, _WHOLE))
        ids = sa.select(sa.cast(database.values("ids").c.value, _WHOLE))
        of_them = deliveries.c.event_seq.in_(seqs)
        self.over = (
            sa.select(deliveries.c.id)
            .where(of_them, sa.text(f"NOT ({OPEN})"))
            .with_for_update(skip_locked=True)
        )
        self.others = (
            sa.select(deliveries.c.id).where(of_them, deliveries.c.id.not_in(ids)).limit(1)
        )
        self.attempts = sa.delete(attempts).where(attempts.c.delivery_id.in_(ids))
        self.deliveries = sa.delete(deliveries).where(deliveries.c.id.in_(ids))
        self.events = sa.delete(events).where(events.c.seq.in_(seqs))
        self.last = (
            sa.select(events.c.watch, events.c.type, sa.func.max(events.c.seq).label("seq"))
            .where(events.c.seq.in_(seqs))
            .group_by(events.c.watch, events.c.type)
        )
        upsert = database.insert(removed_events)
        self.note = upsert.on_conflict_do_update(
            index_elements=["watch", "type"],
            set_={"seq": upsert.excluded.seq},
            where=upsert.excluded.seq > removed_events.c.seq,
        )

        newest = sa.select(sa.func.max(coverage.c.id)).group_by(coverage.c.watch)
        covered_to = (
            sa.select(sa.func.max(coverage.c.covered_to))
            .where(coverage.c.watch == watches.c.name)
            .scalar_subquery()
        )
        self.ended_by = {
            coverage: _of_each_watch(coverage, coverage.c.covered_to < before).where(
                coverage.c.id.not_in(newest)
            ),
            gaps: _of_each_watch(gaps, gaps.c.gap_to < before).where(gaps.c.gap_to < covered_to),
        }

        names = (file_names.c.watch, file_names.c.source_directory_file_id)
        unnoted = sa.select(*names).where(file_names.c.needed_at.is_(None)).limit(AT_ONCE)
        self.unnoted = (
            sa.update(file_names)
            .where(sa.tuple_(*names).in_(unnoted))
            .values(needed_at=sa.bindparam("now", type_=file_names.c.needed_at.type))
        )
        unneeded = sa.select(*names).where(file_names.c.needed_at < before).limit(AT_ONCE)
        self.unneeded = sa.delete(file_names).where(sa.tuple_(*names).in_(unneeded))


def _may_go(before: sa.BindParameter[datetime]) -> sa.ColumnElement[bool]:
    """The rule for a batch, as the head of this module says it."""
    gone_before = sa.bindparam("vanished_before", type_=batches.c.vanished_at.type)
    window = (
        sa.select(
            sa.func.coalesce(
                sa.type_coerce(watches.c.cursor, _WHOLE) - OVERLAP // _MICROSECOND,
                # Nothing was seen in this scope: the window is a lookback before its start.
                sa.type_coerce(watches.c.started_at, _WHOLE) - sa.bindparam("kept", type_=_WHOLE),
            )
        )
        .where(watches.c.name == batches.c.watch)
        .scalar_subquery()
    )
    born = sa.func.coalesce(batches.c.created_at, batches.c.first_seen_at)
    told_since_or_owed = sa.exists().where(
        events.c.subject == batches.c.watch + "/" + batches.c.id,
        (events.c.occurred_at >= before) | _owed(events.c.seq),
    )
    return sa.and_(
        batches.c.changed_at < before,
        batches.c.active == sa.false(),
        batches.c.vanished_at.is_(None) | (batches.c.vanished_at < gone_before),
        batches.c.results_due_at.is_(None),
        batches.c.settle_due_at.is_(None),
        sa.type_coerce(born, _WHOLE) < window,
        ~told_since_or_owed,
    )


def _owed(seq: sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
    return sa.exists().where(deliveries.c.event_seq == seq, sa.text(OPEN))


def _of_each_watch(table: sa.Table, condition: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """Rows of ``table`` by the watches, for that is how its index begins."""
    return (
        sa.select(table.c.id, table.c.watch)
        .join_from(watches, table, table.c.watch == watches.c.name)
        .where(condition)
        .limit(AT_ONCE)
    )


def _portions(rows: Sequence[sa.Row[Any]]) -> Iterator[list[tuple[str, str]]]:
    """The names of these batches, no more together than have so many files."""
    portion: list[tuple[str, str]] = []
    files = 0
    for row in rows:
        count = row.file_count or 0
        if portion and files + count > FILES_AT_ONCE:
            yield portion
            portion, files = [], 0
        portion.append((row.watch, row.id))
        files += count
    if portion:
        yield portion


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
