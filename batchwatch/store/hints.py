"""Upstream webhooks that came: noted once each, read by the audit, and forgotten after a month."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from batchwatch.domain.audit import Came, Course, Step
from batchwatch.domain.batch import BatchId, Status, WatchName
from batchwatch.store.engine import unbroken
from batchwatch.store.schema import batches, hints, transitions, watches

if TYPE_CHECKING:
    from datetime import datetime

    from batchwatch.domain.hint import Hint
    from batchwatch.store.engine import Database

AT_ONCE: Final = 500  # that are removed in one transaction
_BEFORE_THE_FIRST: Final = timedelta(seconds=30)  # the status that the first hint ever told of


class Hints:
    """Every hint with a good signature."""

    def __init__(self, database: Database) -> None:
        self._database = database
        insert = database.insert(hints)
        self._note = insert.on_conflict_do_update(
            index_elements=["watch", "event_id"], set_={"repeats": hints.c.repeats + 1}
        ).returning(hints.c.repeats)
        oldest = sa.select(hints.c.id, hints.c.received_at).order_by(hints.c.id).limit(AT_ONCE)
        first = oldest.subquery()
        self._forget = sa.delete(hints).where(
            hints.c.id.in_(
                sa.select(first.c.id).where(first.c.received_at < sa.bindparam("before"))
            )
        )

    @unbroken
    async def note(self, watch: WatchName, hint: Hint, *, now: datetime) -> bool:
        """Note a hint that came ``now``; whether it is the first of its id. A repeat only counts.

        Does not wait for the disk: what a power failure forgets is a line of
        the audit.
        """
        row = {
            "watch": watch,
            "event_id": hint.event_id,
            "type": hint.type,
            "batch_id": hint.batch_id,
            "status": hint.claims,
            "sent_at": hint.sent_at,
            "received_at": now,
            "repeats": 0,
        }
        async with self._database.write_one() as connection:
            return not (await connection.execute(self._note, row)).scalar_one()

    @unbroken
    async def forget(self, *, before: datetime) -> int:
        """Remove the oldest of those that came ``before``, a few at a time; how many."""
        async with self._database.write_one() as connection:
            return (await connection.execute(self._forget, {"before": before})).rowcount

    async def courses(
        self, *, since: datetime, watch: str | None = None, every: bool = False
    ) -> list[Course]:
        """The batches that have changed ``since`` and have a hint, with both; to be audited.

        With ``every`` those without a hint, too. Judged is what changed
        ``since``; at the earliest from the first hint of the watch on, for
        before that nobody listened, or with ``every`` from its first pass on.
        """
        from_when = await self._judged_from(every=every)
        changed = [batches.c.changed_at >= since]
        if watch is not None:
            changed.append(batches.c.watch == watch)
        some = hints.alias("some")
        of_them = changed if every else [*changed, sa.exists().where(_same_batch(some))]
        steps = await self._by_batch(
            sa.select(
                transitions.c.watch,
                transitions.c.batch_id,
                transitions.c.to_status,
                transitions.c.observed_at,
                transitions.c.updated_at,
            )
            .join(batches, _same_batch(transitions))
            .where(*of_them)
            .order_by(
                batches.c.changed_at,
                transitions.c.watch,
                transitions.c.batch_id,
                transitions.c.number,
            )
        )
        came = await self._by_batch(
            sa.select(
                hints.c.watch, hints.c.batch_id, hints.c.type, hints.c.received_at, hints.c.repeats
            )
            .join(batches, _same_batch(hints))
            .where(*changed)
            .order_by(hints.c.received_at, hints.c.id)
        )
        return [
            Course(
                watch=WatchName(name),
                batch_id=BatchId(batch_id),
                steps=[Step(Status(one[0]), one[1], one[2]) for one in of_batch],
                came=[Came(*one) for one in came.get((name, batch_id), ())],
                judged_from=max(since, from_when.get(name, since)),
            )
            for (name, batch_id), of_batch in steps.items()
        ]

    async def _judged_from(self, *, every: bool) -> dict[str, datetime]:
        if every:
            query = sa.select(watches.c.name, watches.c.started_at)
        else:
            first = sa.func.min(hints.c.received_at)
            query = sa.select(hints.c.watch, first).group_by(hints.c.watch)
        earlier = timedelta(0) if every else _BEFORE_THE_FIRST
        async with self._database.read() as connection:
            return {name: moment - earlier for name, moment in await connection.execute(query)}

    async def _by_batch(self, query: sa.Select[Any]) -> dict[tuple[str, str], list[list[Any]]]:
        """What is left of each row behind its watch and its batch, by these two."""
        found: defaultdict[tuple[str, str], list[list[Any]]] = defaultdict(list)
        async with self._database.read() as connection:
            for watch, batch_id, *rest in await connection.execute(query):
                found[watch, batch_id].append(rest)
        return found


def _same_batch(table: sa.FromClause) -> sa.ColumnElement[bool]:
    return (table.c.watch == batches.c.watch) & (table.c.batch_id == batches.c.id)
