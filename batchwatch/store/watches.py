"""What is remembered of each watch: its cursor, its health, and the time it covered."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec
import sqlalchemy as sa

from batchwatch.domain.event import gap_event
from batchwatch.domain.stuck import Outage
from batchwatch.domain.watch import Trouble, WatchState, Work
from batchwatch.store import coverage
from batchwatch.store.engine import unbroken
from batchwatch.store.schema import watches

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection

    from batchwatch.domain.batch import WatchName
    from batchwatch.domain.coverage import Gap, Look
    from batchwatch.domain.event import Event
    from batchwatch.store.engine import Database
    from batchwatch.store.outbox import Outbox

_TROUBLE: Final = msgspec.json.Decoder(Trouble)
_SCOPE: Final = msgspec.json.Decoder(dict[str, str])
_TROUBLES: Final = msgspec.json.Decoder(dict[Work, Trouble])
_OUTAGES: Final = msgspec.json.Decoder(tuple[Outage, ...])


class Watches:
    """The state of the watches, and the ledger of the windows they covered."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    @unbroken
    async def begin(
        self, name: WatchName, *, now: datetime, scope: Mapping[str, str] | None = None
    ) -> WatchState:
        """The state of the watch; a new one begins ``now``, and so does one of another scope."""
        async with self._database.write_for(name) as connection:
            await connection.execute(
                self._database.insert(watches).on_conflict_do_nothing(),
                _row(WatchState(name, started_at=now, scope=scope)),
            )
            known = await self._state(connection, name)
            state = known.scoped(scope, now=now)
            if state != known:
                await self._write(connection, state, [])
            return state

    async def state(self, name: WatchName) -> WatchState | None:
        """The state of the watch, or None if it never began."""
        async with self._database.read() as connection:
            query = sa.select(watches).where(watches.c.name == name)
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else _state(row)

    async def covered(self, name: WatchName) -> tuple[datetime | None, Gap | None]:
        """The last moment that was covered, and the unreadable entries that were listed then."""
        async with self._database.read() as connection:
            return await coverage.last(connection, name)

    @unbroken
    async def passed(
        self,
        name: WatchName,
        look: Look,
        *,
        newest: datetime | None,
        now: datetime,
        passes: int = 1,
        gaps: Sequence[Gap] = (),
    ) -> WatchState:
        """Close a pass that listed every page of its window.

        ``newest`` is the largest ``created_at`` that counts as seen. The
        window joins the ledger, with the ``gaps`` that it ends or has; those
        that are open are told.
        """
        async with self._database.write_for(name) as connection:
            before = await self._state(connection, name)
            state, recovered = before.passed(newest, now=now)
            anew = not before.baseline_done
            await coverage.extend(connection, name, look, passes=passes, anew=anew)
            new = await coverage.note(connection, name, gaps)
            events = [gap_event(name, gap, occurred_at=now) for gap in new if gap.is_open]
            events += [recovered] if recovered else []
            await self._write(connection, state, events)
        self._outbox.committed(events)
        return state

    @unbroken
    async def touch(self) -> None:
        """Write what is there already, to see whether the store still takes anything.

        Raises :class:`~batchwatch.store.StoreError`.
        """
        one = sa.select(sa.func.min(watches.c.name)).scalar_subquery()
        again = sa.update(watches).where(watches.c.name == one)
        async with self._database.write(durable=False) as connection:
            await connection.execute(again.values(started_at=watches.c.started_at))

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
        async with self._database.write_for(name) as connection:
            state, event = judge(await self._state(connection, name))
            await self._write(connection, state, [event] if event else [])
        self._outbox.committed([event] if event else ())
        return state

    async def _state(self, connection: AsyncConnection, name: WatchName) -> WatchState:
        query = sa.select(watches).where(watches.c.name == name)
        return _state((await connection.execute(query)).one())

    async def _write(
        self, connection: AsyncConnection, state: WatchState, events: Sequence[Event]
    ) -> None:
        await connection.execute(
            sa.update(watches).where(watches.c.name == state.name).values(_row(state))
        )
        await self._outbox.enqueue(connection, events)


def _state(row: sa.Row[Any]) -> WatchState:
    return WatchState(
        name=row.name,
        started_at=row.started_at,
        cursor=row.cursor,
        baseline_done=row.baseline_done,
        troubles=_TROUBLES.decode(row.troubles),
        alarm=_TROUBLE.decode(row.alarm) if row.alarm else None,
        scope=_SCOPE.decode(row.scope) if row.scope else None,
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
        "scope": None if state.scope is None else msgspec.json.encode(state.scope).decode(),
        "outages": msgspec.json.encode(state.outages).decode(),
    }
