"""What is remembered of each watch: its cursor, its health, and the time it covered."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec
import sqlalchemy as sa

from batchwatch.domain.stuck import Outage
from batchwatch.domain.watch import Trouble, WatchState, Work
from batchwatch.store.engine import unbroken
from batchwatch.store.schema import coverage, watches

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection

    from batchwatch.domain.batch import WatchName
    from batchwatch.domain.event import Event
    from batchwatch.store.engine import Database
    from batchwatch.store.outbox import Outbox

_TROUBLE: Final = msgspec.json.Decoder(Trouble)
_TROUBLES: Final = msgspec.json.Decoder(dict[Work, Trouble])
_OUTAGES: Final = msgspec.json.Decoder(tuple[Outage, ...])


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
                _row(WatchState(name, started_at=now)),
            )
            return await self._state(connection, name)

    async def state(self, name: WatchName) -> WatchState | None:
        """The state of the watch, or None if it never began."""
        async with self._database.read() as connection:
            query = sa.select(watches).where(watches.c.name == name)
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else _state(row)

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
            await self._write(connection, state, recovered)
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

    async def failed(
        self,
        name: WatchName,
        work: Work,
        reason: str,
        *,
        now: datetime,
        may_pass: bool,
        lasted: timedelta = timedelta(0),
    ) -> WatchState:
        """Note work that upstream did not let through, for as long as ``lasted``."""
        return await self._judge(
            name,
            lambda state: state.failed(work, reason, now=now, may_pass=may_pass, lasted=lasted),
        )

    async def went_well(self, name: WatchName, work: Work, *, now: datetime) -> WatchState:
        """Note that work goes well again."""
        return await self._judge(name, lambda state: state.went_well(work, now=now))

    @unbroken
    async def _judge(
        self,
        name: WatchName,
        judge: Callable[[WatchState], tuple[WatchState, Event | None]],
    ) -> WatchState:
        async with self._database.write() as connection:
            state, event = judge(await self._state(connection, name))
            await self._write(connection, state, event)
        self._outbox.committed([event] if event else ())
        return state

    async def _state(self, connection: AsyncConnection, name: WatchName) -> WatchState:
        query = sa.select(watches).where(watches.c.name == name)
        return _state((await connection.execute(query)).one())

    async def _write(
        self, connection: AsyncConnection, state: WatchState, event: Event | None
    ) -> None:
        await connection.execute(
            sa.update(watches).where(watches.c.name == state.name).values(_row(state))
        )
        if event is not None:
            await self._outbox.enqueue(connection, [event])


def _state(row: sa.Row[Any]) -> WatchState:
    return WatchState(
        name=row.name,
        started_at=row.started_at,
        cursor=row.cursor,
        baseline_done=row.baseline_done,
        troubles=_TROUBLES.decode(row.troubles),
        alarm=_TROUBLE.decode(row.alarm) if row.alarm else None,
        outages=_OUTAGES.decode(row.outages),
    )


def _row(state: WatchState) -> dict[str, Any]:
    return {
        "name": state.name,
        "started_at": state.started_at,
        "cursor": state.cursor,
        "baseline_done": state.baseline_done,
        "troubles": msgspec.json.encode(state.troubles).decode(),
        "alarm": msgspec.json.encode(state.alarm).decode() if state.alarm else None,
        "outages": msgspec.json.encode(state.outages).decode(),
    }
