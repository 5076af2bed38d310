"""What is remembered of each endpoint's health."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from batchwatch.domain.batch import EndpointName
from batchwatch.domain.health import Record
from batchwatch.store.engine import unbroken
from batchwatch.store.schema import endpoints

if TYPE_CHECKING:
    from batchwatch.domain.event import Event
    from batchwatch.store.engine import Database
    from batchwatch.store.outbox import Outbox


class Endpoints:
    """The records of all endpoints that are, or were, unwell."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    async def records(self) -> dict[EndpointName, Record]:
        """Every record there is."""
        async with self._database.read() as connection:
            rows = await connection.execute(sa.select(endpoints))
            return {EndpointName(row.name): _record(row) for row in rows}

    @unbroken
    async def write(self, record: Record, event: Event | None, *, nudge: bool = False) -> None:
        """Write a record, and the event about it, or neither.

        ``nudge`` is for a command beside a daemon, which then reads the
        records again. A daemon enables nothing by itself: what it writes
        before it has read that a command disabled an endpoint is left out.
        """
        row = _row(record)
        upsert = self._database.insert(endpoints)
        statement = upsert.on_conflict_do_update(
            index_elements=["name"],
            set_={name: upsert.excluded[name] for name in row if name != "name"},
            where=None if nudge else endpoints.c.disabled_at.is_(None),
        )
        async with self._database.write() as connection:
            await connection.execute(statement, row)
            if event is not None:
                await self._outbox.enqueue(connection, [event])
            if nudge:
                await self._database.nudge(connection)
        self._outbox.committed([event] if event else ())


def _record(row: sa.Row[Any]) -> Record:
    return Record(
        name=EndpointName(row.name),
        failing_since=row.failing_since,
        failing_for=row.failing_for,
        told=row.told,
        reason=row.reason,
        disabled_at=row.disabled_at,
    )


def _row(record: Record) -> dict[str, Any]:
    return {
        "name": record.name,
        "failing_since": record.failing_since,
        "failing_for": record.failing_for,
        "told": record.told,
        "reason": record.reason,
        "disabled_at": record.disabled_at,
    }
