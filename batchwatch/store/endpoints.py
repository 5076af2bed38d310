"""What is remembered of each endpoint's health."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from batchwatch.domain.batch import EndpointName
from batchwatch.domain.health import Record
from batchwatch.store.engine import unbroken
from batchwatch.store.schema import endpoints

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection

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
    async def keep(
        self, record: Record, events: Sequence[Event], *, base: Record, now: datetime
    ) -> Record:
        """Write what the daemon knows of an endpoint, and made of ``base``; what then holds.

        See :meth:`~batchwatch.domain.health.Record.joined` for what a command
        or another replica has written meanwhile. The other replicas are told.
        """
        async with self._database.write() as connection:
            stored = await self._read(connection, record.name)
            record, events = record.joined(stored, events, base=base, now=now)
            if record != stored:
                await self._write(connection, record)
                await self._outbox.enqueue(connection, events)
                if self._database.is_shared:
                    await self._database.nudge(connection)
        self._outbox.committed(events)
        return record

    @unbroken
    async def change(
        self, name: EndpointName, decide: Callable[[Record], tuple[Record, Event | None]]
    ) -> bool:
        """For a command beside a daemon, which is told; whether that changes anything."""
        async with self._database.write() as connection:
            stored = await self._read(connection, name)
            record, event = decide(stored)
            if record != stored:
                await self._write(connection, record)
                await self._outbox.enqueue(connection, [event] if event else [])
                await self._database.nudge(connection)
        return record != stored

    async def _read(self, connection: AsyncConnection, name: EndpointName) -> Record:
        query = sa.select(endpoints).where(endpoints.c.name == name).with_for_update()
        row = (await connection.execute(query)).one_or_none()
        return Record(name) if row is None else _record(row)

    async def _write(self, connection: AsyncConnection, record: Record) -> None:
        row = _row(record)
        upsert = self._database.insert(endpoints)
        statement = upsert.on_conflict_do_update(
            index_elements=["name"],
            set_={name: upsert.excluded[name] for name in row if name != "name"},
        )
        await connection.execute(statement, row)


def _record(row: sa.Row[Any]) -> Record:
    return Record(
        name=EndpointName(row.name),
        failing_since=row.failing_since,
        failing_for=row.failing_for,
        told=row.told,
        alarm_since=row.alarm_since,
        reason=row.reason,
        disabled_at=row.disabled_at,
    )


def _row(record: Record) -> dict[str, Any]:
    return {
        "name": record.name,
        "failing_since": record.failing_since,
        "failing_for": record.failing_for,
        "told": record.told,
        "alarm_since": record.alarm_since,
        "reason": record.reason,
        "disabled_at": record.disabled_at,
    }
