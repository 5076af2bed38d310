"""What is remembered of each watch: its cursor, its health, and the time it covered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from batchwatch.domain.watch import WatchState
from batchwatch.store.engine import unbroken
from batchwatch.store.schema import coverage, watches

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection

    from batchwatch.domain.batch import WatchName
    from batchwatch.domain.event import Event
    from batchwatch.store.engine import Database
    from batchwatch.store.outbox import Outbox

_FIELDS: Final = tuple(column.name for column in watches.columns)


class Watches:
    """The state of the watches, and the ledger of the windows they covered."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    @unbroken
    async def begin(self, name: WatchName, *, now: datetime) -> WatchState:
        """The state of the watch; a new one begins ``now``."""
        async with self._database.write() as connection:
            await connection.execute(
                self._database.insert(watches).on_conflict_do_nothing(),
                {"name": name, "started_at": now, "baseline_done": False, "failures": 0},
            )
            return await self._state(connection, name)

    async def state(self, name: WatchName) -> WatchState | None:
        """The state of the watch, or None if it never began."""
        async with self._database.read() as connection:
            query = sa.select(watches).where(watches.c.name == name)
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else WatchState(**row._mapping)

    @unbroken
    async def passed(
        self,
        name: WatchName,
        *,
        newest: datetime | None,
        covered_from: datetime,
        covered_to: datetime,
        now: datetime,
    ) -> WatchState:
        """Close a pass that listed every page of its window.

        ``newest`` is the largest ``created_at`` it saw. The window joins the
        ledger; where it reaches back to the last one, the two become one.
        """
        async with self._database.write() as connection:
            state, recovered = (await self._state(connection, name)).passed(newest, now=now)
            await self._write(connection, state, recovered, now)
            last = (
                sa.select(sa.func.max(coverage.c.id))
                .where(coverage.c.watch == name)
                .scalar_subquery()
            )
            extended = await connection.execute(
                sa.update(coverage)
                .where(coverage.c.id == last, coverage.c.covered_to >= covered_from)
                .values(
                    covered_from=sa.case(
                        (coverage.c.covered_from < covered_from, coverage.c.covered_from),
                        else_=sa.literal(covered_from, coverage.c.covered_from.type),
                    ),
                    covered_to=covered_to,
                    passes=coverage.c.passes + 1,
                )
            )
            if not extended.rowcount:
                await connection.execute(
                    sa.insert(coverage).values(
                        watch=name, covered_from=covered_from, covered_to=covered_to, passes=1
                    )
                )
        self._outbox.committed([recovered] if recovered else ())
        return state

    @unbroken
    async def failed(self, name: WatchName, reason: str, *, now: datetime) -> WatchState:
        """Note a pass that upstream did not let through."""
        async with self._database.write() as connection:
            state, alarm = (await self._state(connection, name)).failed(reason, now=now)
            await self._write(connection, state, alarm, now)
        self._outbox.committed([alarm] if alarm else ())
        return state

    async def _state(self, connection: AsyncConnection, name: WatchName) -> WatchState:
        query = sa.select(watches).where(watches.c.name == name)
        row = (await connection.execute(query)).one()
        return WatchState(**row._mapping)

    async def _write(
        self, connection: AsyncConnection, state: WatchState, event: Event | None, now: datetime
    ) -> None:
        values = {field: getattr(state, field) for field in _FIELDS}
        await connection.execute(
            sa.update(watches).where(watches.c.name == state.name).values(values)
        )
        if event is not None:
            await self._outbox.enqueue(connection, [event], now=now)
