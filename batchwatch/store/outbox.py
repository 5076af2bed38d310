"""The outbox: events and the deliveries they owe, from the commit to the acknowledgement.

The deliveries of one endpoint and one subject form a line. Only the head of
a line can be claimed; the others wait behind it. So order needs no memory,
and claiming reads an index and never passes over what must not go yet.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec
import sqlalchemy as sa

from batchwatch.domain.batch import BatchId, EndpointName, EventId
from batchwatch.domain.delivery import Claimed, DeliveryId, State
from batchwatch.store.engine import unbroken
from batchwatch.store.schema import OPEN, attempts, deliveries, events, to_micros

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection

    from batchwatch.domain.delivery import Settled
    from batchwatch.domain.event import Event
    from batchwatch.domain.routing import Router
    from batchwatch.store.engine import Database

LEASE: Final = timedelta(minutes=5)


class Outbox:
    """Every event, and what became of its deliveries."""

    def __init__(self, database: Database, router: Router) -> None:
        self._database = database
        self._router = router
        self._signals: defaultdict[EndpointName, asyncio.Event] = defaultdict(asyncio.Event)
        self._statements = _Statements(database)

    def signal(self, endpoint: EndpointName) -> asyncio.Event:
        """Set whenever there may be something new to claim for ``endpoint``."""
        return self._signals[endpoint]

    async def enqueue(
        self, connection: AsyncConnection, new: Sequence[Event], *, now: datetime
    ) -> None:
        """Write events and their deliveries inside the caller's transaction.

        An event that is there already, by its id, is the same fact and is not
        written again. The caller reports the commit with :meth:`committed`.
        """
        if not new:
            return
        await connection.execute(self._statements.add_events, [_event_row(one) for one in new])
        owed = [
            {"event_id": event.id, "endpoint": endpoint, "subject": event.subject}
            for event in new
            for endpoint in self._router.endpoints_for(event)
        ]
        if not owed:
            return
        await connection.execute(self._statements.add_deliveries, {"owed": _json(owed), "now": now})
        lines = [{"endpoint": one["endpoint"], "subject": one["subject"]} for one in owed]
        await self._move_up(connection, lines, now=now)

    def committed(self, new: Iterable[Event]) -> None:
        """Wake those who deliver, now that these events are in the store."""
        for endpoint in {name for event in new for name in self._router.endpoints_for(event)}:
            self._signals[endpoint].set()

    @unbroken
    async def claim(
        self, endpoint: EndpointName, *, limit: int, lease: timedelta = LEASE, now: datetime
    ) -> list[Claimed]:
        """Take up to ``limit`` due deliveries of ``endpoint``, and hold them under a lease.

        The claim is committed before anything is sent, so that a crash leaves
        a trace: what was in flight is tried again once its lease is over.
        """
        async with self._database.write() as connection:
            found = (
                await connection.execute(
                    self._statements.due, {"endpoint": endpoint, "now": now, "limit": limit}
                )
            ).all()
            if found:
                await connection.execute(
                    self._statements.lease,
                    {"ids": _json([{"id": row.id} for row in found]), "until": now + lease},
                )
        return [
            Claimed(
                id=DeliveryId(row.id),
                event_id=EventId(row.event_id),
                endpoint=endpoint,
                subject=row.subject,
                type=row.type,
                batch_id=None if row.batch_id is None else BatchId(row.batch_id),
                attempt=row.attempts + 1,
                occurred_at=row.occurred_at,
                payload=row.payload.encode(),
            )
            for row in found
        ]

    @unbroken
    async def settle(self, settled: Collection[Settled], *, now: datetime) -> None:
        """Write what became of tried deliveries, with their attempts; let the next in line go."""
        states = [
            {
                "id": one.delivery.id,
                "state": one.state.value,
                "due_at": to_micros(now + timedelta(seconds=one.due_in)),
                "settled_at": None if one.state is State.PENDING else to_micros(now),
                "attempts": one.delivery.attempt,
                "reason": one.reason,
            }
            for one in settled
        ]
        tries = [
            {
                "delivery_id": one.delivery.id,
                "number": one.delivery.attempt,
                "started_at": to_micros(one.attempt.started_at),
                "duration_ms": round(one.attempt.duration * 1000, 3),
                "status_code": one.attempt.status_code,
                "failure": one.attempt.failure,
                "detail": one.attempt.detail,
                "response": one.attempt.response,
            }
            for one in settled
        ]
        lines = [
            {"endpoint": one.delivery.endpoint, "subject": one.delivery.subject}
            for one in settled
            if not one.state.is_open
        ]
        async with self._database.write() as connection:
            await connection.execute(self._statements.settle, {"states": _json(states)})
            await connection.execute(self._statements.add_attempts, {"tries": _json(tries)})
            if lines:
                await self._move_up(connection, lines, now=now)
        for one in settled:
            self._signals[one.delivery.endpoint].set()

    @unbroken
    async def give_back(self, delivery_id: DeliveryId, *, due_at: datetime) -> None:
        """Undo the claim of a delivery that was not tried; it is due again at ``due_at``."""
        query = (
            sa.update(deliveries)
            .where(deliveries.c.id == delivery_id, sa.text("state = 'in_flight'"))
            .values(state=State.PENDING.value, leased_until=None, due_at=due_at)
        )
        async with self._database.write() as connection:
            await connection.execute(query)

    @unbroken
    async def release(
        self, *, now: datetime | None = None, held: Collection[DeliveryId] = ()
    ) -> int:
        """Give back what is in flight: all of it, or what was leased until before ``now``.

        All of it is for the start of a daemon that has the store to itself:
        whoever held those deliveries is gone. ``held`` are those that the
        caller still has in hand, however old their lease.
        """
        query = (
            sa.update(deliveries)
            .where(sa.text("state = 'in_flight'"))
            .values(state=State.PENDING.value, leased_until=None)
        )
        if now is not None:
            query = query.where(deliveries.c.leased_until < now, deliveries.c.id.not_in(held))
        async with self._database.write() as connection:
            released = (await connection.execute(query)).rowcount
        if released:
            for signal in self._signals.values():
                signal.set()
        return released

    async def next_due(self, endpoint: EndpointName) -> datetime | None:
        """When the next delivery of ``endpoint`` is due, if one is pending."""
        query = sa.select(sa.func.min(deliveries.c.due_at)).where(
            deliveries.c.endpoint == endpoint, sa.text("state = 'pending'")
        )
        async with self._database.read() as connection:
            due: datetime | None = await connection.scalar(query)
            return due

    async def _move_up(
        self, connection: AsyncConnection, lines: Sequence[dict[str, str]], *, now: datetime
    ) -> None:
        await connection.execute(self._statements.move_up, {"lines": _json(lines), "now": now})


class _Statements:
    """The outbox's SQL, built once: building it takes longer than running it."""

    def __init__(self, database: Database) -> None:
        self.add_events = database.insert(events).on_conflict_do_nothing()

        owed = database.rows("owed", event_id=sa.Text(), endpoint=sa.Text(), subject=sa.Text())
        now = sa.bindparam("now", type_=deliveries.c.due_at.type)
        self.add_deliveries = (
            database.insert(deliveries)
            .from_select(
                ["event_seq", "endpoint", "subject", "state", "attempts", "due_at", "created_at"],
                sa.select(
                    events.c.seq,
                    owed.c.endpoint,
                    owed.c.subject,
                    sa.literal(State.WAITING.value),
                    sa.literal(0),
                    now,
                    now,
                )
                .join_from(owed, events, events.c.id == owed.c.event_id)
                .where(sa.true())  # SQLite needs it to tell an upsert from a join
                .order_by(events.c.seq),
            )
            .on_conflict_do_nothing()
        )

        lines = database.rows("lines", endpoint=sa.Text(), subject=sa.Text())
        ahead = deliveries.alias("ahead")
        head = (
            sa.select(sa.func.min(ahead.c.id))
            .where(
                ahead.c.endpoint == lines.c.endpoint,
                ahead.c.subject == lines.c.subject,
                sa.text(f"ahead.{OPEN}"),
            )
            .scalar_subquery()
        )
        self.move_up = (
            sa.update(deliveries)
            .where(deliveries.c.id.in_(sa.select(head).select_from(lines)))
            .where(deliveries.c.state == State.WAITING.value)
            .values(state=State.PENDING.value, due_at=now)
        )

        self.due = (
            sa.select(
                deliveries.c.id,
                deliveries.c.subject,
                deliveries.c.attempts,
                events.c.id.label("event_id"),
                events.c.type,
                events.c.batch_id,
                events.c.occurred_at,
                events.c.payload,
            )
            .join(events, events.c.seq == deliveries.c.event_seq)
            .where(
                deliveries.c.endpoint == sa.bindparam("endpoint"),
                sa.text("state = 'pending'"),
                deliveries.c.due_at <= now,
            )
            .order_by(deliveries.c.due_at, deliveries.c.id)
            .limit(sa.bindparam("limit", type_=sa.Integer))
        )

        ids = database.rows("ids", id=deliveries.c.id.type)
        self.lease = (
            sa.update(deliveries)
            .where(deliveries.c.id.in_(sa.select(ids.c.id)))
            .values(
                state=State.IN_FLIGHT.value,
                leased_until=sa.bindparam("until", type_=deliveries.c.leased_until.type),
            )
        )

        whole = sa.BigInteger()
        states = database.rows(
            "states",
            id=whole,
            state=sa.Text(),
            due_at=whole,
            settled_at=whole,
            attempts=sa.Integer(),
            reason=sa.Text(),
        )
        self.settle = (
            sa.update(deliveries)
            # Only what is still in flight: a result that comes late must not undo another.
            .where(deliveries.c.id == states.c.id, deliveries.c.state == State.IN_FLIGHT.value)
            .values(
                state=states.c.state,
                due_at=states.c.due_at,
                settled_at=states.c.settled_at,
                attempts=states.c.attempts,
                reason=states.c.reason,
                leased_until=None,
            )
        )

        columns: dict[str, sa.types.TypeEngine[Any]] = {
            "delivery_id": whole,
            "number": sa.Integer(),
            "started_at": whole,
            "duration_ms": sa.Float(),
            "status_code": sa.Integer(),
            "failure": sa.Text(),
            "detail": sa.Text(),
            "response": sa.Text(),
        }
        tries = database.rows("tries", **columns)
        self.add_attempts = (
            database.insert(attempts)
            .from_select(list(columns), sa.select(*tries.c).where(sa.true()))
            .on_conflict_do_nothing()
        )


def _event_row(event: Event) -> dict[str, Any]:
    return {
        "id": event.id,
        "type": event.type,
        "watch": event.watch,
        "batch_id": event.batch_id,
        "subject": event.subject,
        "transition": event.transition,
        "occurred_at": event.occurred_at,
        "payload": _json(event.payload),
    }


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
