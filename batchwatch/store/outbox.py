"""The outbox: events and the deliveries they owe, from the commit to the acknowledgement.

The deliveries of one endpoint and one subject form a line. Only the head of
a line can be claimed; the others wait behind it. So order needs no memory,
and claiming reads an index and never passes over what must not go yet.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec
import sqlalchemy as sa

from batchwatch.domain.batch import BatchId, EndpointName, EventId
from batchwatch.domain.delivery import JITTER, Claimed, DeliveryId, State
from batchwatch.domain.delivery import OPEN as STILL_OPEN
from batchwatch.store.engine import unbroken
from batchwatch.store.notices import Owed, written
from batchwatch.store.replicas import LIFE
from batchwatch.store.schema import OPEN, attempts, deliveries, events, replicas, to_micros
from batchwatch.traces import OFF

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection
    from sqlalchemy.sql.selectable import NamedFromClause

    from batchwatch.clock import Clock
    from batchwatch.domain.delivery import Settled
    from batchwatch.domain.event import Event
    from batchwatch.domain.routing import Router
    from batchwatch.store.engine import Database
    from batchwatch.traces import Traces

LEASE: Final = timedelta(minutes=5)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Outbox:
    """Every event, and what became of its deliveries.

    Its times are steady: a wall clock that is set forward or back makes
    nothing due at once, and holds nothing up.
    """

    def __init__(
        self,
        database: Database,
        router: Router,
        clock: Clock,
        *,
        beside: bool = False,
        traces: Traces = OFF,
    ) -> None:
        self._database = database
        self._router = router
        self._clock = clock
        self._beside = beside  # a daemon, by a command: what it makes due is due by any clock
        self._signals: defaultdict[EndpointName, asyncio.Event] = defaultdict(asyncio.Event)
        self.replica: str | None = None  # that claims, where there are several
        self.held: set[DeliveryId] = set()  # claimed here, and neither settled nor given back
        self._listeners: set[asyncio.Event] = set()
        self.traces = traces
        self._statements = _Statements(database, traced=traces.is_on)

    def signal(self, endpoint: EndpointName) -> asyncio.Event:
        """Set whenever there may be something new to claim for ``endpoint``."""
        return self._signals[endpoint]

    @contextmanager
    def listening(self) -> Iterator[asyncio.Event]:
        """An event that is set after each commit by this process, for as long as it is held."""
        heard = asyncio.Event()
        self._listeners.add(heard)
        try:
            yield heard
        finally:
            self._listeners.discard(heard)

    def signal_all(self) -> None:
        """Wake all who deliver, and all who listen."""
        for signal in self._signals.values():
            signal.set()
        self._tell_listeners()

    async def enqueue(
        self,
        connection: AsyncConnection,
        new: Sequence[Event],
        *,
        besides: Collection[EndpointName] = (),
    ) -> None:
        """Write events and their deliveries inside the caller's transaction, ``besides`` these.

        An event that is there already, by its id, is the same fact and is not
        written again. The caller reports the commit with :meth:`committed`.
        """
        if not new:
            return
        # What made them; their deliveries belong to its trace, be they sent after a restart.
        trace = self.traces.here(otherwise=new[0].type)
        rows = [_event_row(one, trace) for one in new]
        owed = [
            {"event_id": event.id, "endpoint": endpoint, "subject": event.subject}
            for event in new
            for endpoint in self._router.endpoints_for(event)
            if endpoint not in besides
        ]
        lines = [{"endpoint": one["endpoint"], "subject": one["subject"]} for one in owed]
        # All that can be before it comes before the turn, for which all others wait.
        await self._database.hold_lines(connection, lines)
        if owed:
            notice = Owed(sorted({EndpointName(one["endpoint"]) for one in owed}))
            await self._database.tell(connection, written(notice))
        await self._database.take_turns(connection)
        await connection.execute(self._statements.add_events, rows)
        if not owed:
            return
        times = {"now": self._due_now(), "created": self._clock.now()}
        await connection.execute(self._statements.add_deliveries, {"owed": _json(owed), **times})
        await self._move_up(connection, lines)

    def committed(self, new: Iterable[Event]) -> None:
        """Wake those who deliver, now that these events are in the store."""
        new = list(new)
        for endpoint in {name for event in new for name in self._router.endpoints_for(event)}:
            self._signals[endpoint].set()
        if new:
            self._tell_listeners()

    def heard(self, endpoints: Iterable[EndpointName]) -> None:
        """Wake those who deliver for these: another replica has committed something for them."""
        for endpoint in endpoints:
            self._signals[endpoint].set()
        self._tell_listeners()

    def _tell_listeners(self) -> None:
        for heard in self._listeners:
            heard.set()

    @unbroken
    async def announce(self, event: Event) -> None:
        """Write an event that is worth something only while it is fresh.

        Endpoints that are still owed an older one of its line are left out,
        and without anybody to be sent it, it is not written.
        """
        heard = set(self._router.endpoints_for(event))
        if not heard:
            return
        async with self._database.write() as connection:
            query = sa.select(deliveries.c.endpoint).where(
                deliveries.c.endpoint.in_(heard),
                deliveries.c.subject == event.subject,
                sa.text(OPEN),
            )
            owed = {EndpointName(one) for one in await connection.scalars(query)}
            if heard - owed:
                await self.enqueue(connection, [event], besides=owed)
        self.committed([event])

    @unbroken
    async def claim(
        self, endpoint: EndpointName, *, limit: int, lease: timedelta = LEASE
    ) -> list[Claimed]:
        """Take up to ``limit`` due deliveries of ``endpoint``, and hold them under a lease.

        The claim is committed before anything is sent, so that a crash leaves
        a trace: what was in flight is tried again once its lease is over.
        """
        now = self._clock.steady()
        parameters = {
            "whose": endpoint,
            "now": now,
            "limit": limit,
            "until": now + lease,
            "replica": self.replica,
        }
        async with self._database.write_one() as connection:
            found = (await connection.execute(self._statements.claim, parameters)).all()
            self.held.update(row.id for row in found)  # before anybody else has the turn
        found = sorted(found, key=lambda row: (row.due_at, row.id))  # they come in any order
        if self._database.is_shared:
            found = await self._with_events(found)
        return [
            Claimed(
                id=DeliveryId(id_),
                event_id=EventId(event_id),
                endpoint=endpoint,
                subject=subject,
                type=type_,
                batch_id=batch_id and BatchId(batch_id),
                attempt=attempts + 1,
                turn=attempts + 1 - uncounted,
                occurred_at=occurred_at,
                payload=payload.encode(),
                trace=trace[0] if trace else None,
            )
            for (
                id_, _, subject, attempts, uncounted,
                event_id, type_, batch_id, occurred_at, payload, *trace,
            ) in found
        ]  # fmt: skip

    async def _with_events(self, found: Sequence[sa.Row[Any]]) -> list[Any]:
        """What was claimed with what is to be sent.

        Read once the claim is committed: a replica that is frozen while much
        comes in would hold all of it, and nobody could say whose it is.
        """
        seqs = {"seqs": _json([row.event_seq for row in found])}
        try:
            async with self._database.read() as connection:
                rows = (await connection.execute(self._statements.told, seqs)).all()
        except BaseException:
            self.held.difference_update(row.id for row in found)  # so that they are released soon
            raise
        told = {row[0]: row[1:] for row in rows}
        return [(*row[:5], *told[row.event_seq]) for row in found]

    @unbroken
    async def settle(self, settled: Collection[Settled]) -> None:
        """Write what became of tried deliveries, with their attempts; let the next in line go."""
        now, at = to_micros(self._clock.steady()), to_micros(self._clock.now())
        states = [
            {
                "id": one.delivery.id,
                "state": one.state.value,
                "due_at": now + round(one.due_in * 1e6),
                "paused_for": one.due_in,
                "settled_at": None if one.state is State.PENDING else at,
                "attempts": one.delivery.attempt,
                "uncounted": one.uncounted,
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
        ended: list[dict[str, str]] = []
        again: list[dict[str, str]] = []
        for one in settled:
            line = {"endpoint": one.delivery.endpoint, "subject": one.delivery.subject}
            (again if one.state.is_open else ended).append(line)
        given = {"states": _json(states), "replica": self.replica}
        async with self._database.write(durable=False) as connection:
            await connection.execute(self._statements.settle, given)
            await connection.execute(self._statements.add_attempts, {"tries": _json(tries)})
            await self._database.hold_lines(connection, ended + again)
            if again:
                await self._step_back(connection, again)
            moved = await self._move_up(connection, ended + again)
        self.held.difference_update(one.delivery.id for one in settled)
        # Only where another may go now, or the same one again: most often there is none.
        waiting = settled if moved else [one for one in settled if one.state is State.PENDING]
        for endpoint in {one.delivery.endpoint for one in waiting}:
            self._signals[endpoint].set()
        self._tell_listeners()

    @unbroken
    async def give_back(self, ids: Collection[DeliveryId]) -> None:
        """Undo the claim of deliveries that were not tried; they keep their places."""
        if not ids:
            return
        some = {"ids": _json(list(ids))}
        async with self._database.write(durable=False) as connection:
            await connection.execute(self._statements.give_back, some | {"replica": self.replica})
            await self._put_in_order(connection, some)
        self.held.difference_update(ids)

    @unbroken
    async def release(self, *, judges: bool = True) -> int:
        """Give back what is in flight and in nobody's hands; how many.

        That is what has a lease that is over, and where several share the
        store what a replica had that is gone, and what was claimed for this
        one and never reached it, for the answer was lost. What is
        :attr:`held` stays, however old its lease, and what others have unless
        this one ``judges``; see `Leases.may_judge`.
        """
        async with self._database.write(durable=False) as connection:
            parameters: dict[str, Any] = {"ids": _json(list(self.held))}
            parameters["now"] = self._clock.steady()
            if self._database.is_shared:
                parameters |= {"replica": self.replica, "judges": judges}
            lost = list(await connection.scalars(self._statements.release, parameters))
            if lost:
                await self._put_in_order(connection, {"ids": _json(lost)})
        if lost:
            self.signal_all()
        return len(lost)

    @unbroken
    async def recover(self) -> int:
        """Take over from the daemon before, which is gone: all that was in flight; how many.

        Nothing is due later than its last pause from now: the clock that it
        was written by may have been set since.
        """
        async with self._database.write() as connection:
            taken = list(await connection.scalars(self._statements.take_back))
            if taken:
                await self._put_in_order(connection, {"ids": _json(taken)})
            await self._hasten(connection)
        return len(taken)

    @unbroken
    async def hasten(self) -> None:
        """Have nothing due later than its last pause from now: the clock has been set."""
        async with self._database.write(durable=False) as connection:
            await self._hasten(connection)
        self.signal_all()

    async def _hasten(self, connection: AsyncConnection) -> None:
        now = to_micros(self._clock.steady())
        await connection.execute(self._statements.hasten, {"now_micros": now})

    @unbroken
    async def replay(self, ids: Sequence[DeliveryId]) -> int:
        """Have deliveries that have ended sent again, from the start of their schedule; how many.

        At most a thousand at once, for the daemon waits meanwhile. Each keeps
        its event's id, so that a receiver can tell it from news, and takes its
        old place in its line: before what came later and is still owed. A
        daemon beside us is told.
        """
        some = {"ids": _json(list(ids))}
        async with self._database.write() as connection:
            done = (await connection.execute(self._statements.replay, some)).rowcount
            await self._put_in_order(connection, some)
            await self._database.nudge(connection)
        return done

    async def due_in(self, endpoint: EndpointName) -> float | None:
        """Seconds until the next delivery of ``endpoint`` is due, if one is pending."""
        query = sa.select(sa.func.min(deliveries.c.due_at)).where(
            deliveries.c.endpoint == endpoint, sa.text("state = 'pending'")
        )
        async with self._database.read() as connection:
            due: datetime | None = await connection.scalar(query)
        return None if due is None else (due - self._clock.steady()).total_seconds()

    def _due_now(self) -> datetime:
        return _EPOCH if self._beside else self._clock.steady()

    async def _put_in_order(self, connection: AsyncConnection, some: dict[str, str]) -> None:
        """Let only the heads go in the lines of these deliveries."""
        rows = await connection.execute(self._statements.lines_of, some)
        lines = [{"endpoint": row.endpoint, "subject": row.subject} for row in rows]
        await self._database.hold_lines(connection, lines)
        await self._step_back(connection, lines)
        await self._move_up(connection, lines)

    async def _step_back(
        self, connection: AsyncConnection, lines: Sequence[dict[str, str]]
    ) -> None:
        """Have those wait that stand behind one that is replayed."""
        await connection.execute(self._statements.step_back, {"lines": _json(lines)})

    async def _move_up(self, connection: AsyncConnection, lines: Sequence[dict[str, str]]) -> int:
        """Let the heads of ``lines`` go, if nothing of these is under way; how many.

        The lines are held; see `Database.hold_lines`.
        """
        if not lines:
            return 0
        parameters = {"lines": _json(lines), "now": self._due_now()}
        return (await connection.execute(self._statements.move_up, parameters)).rowcount


class _Statements:
    """The outbox's SQL, built once: building it takes longer than running it."""

    def __init__(self, database: Database, *, traced: bool) -> None:
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
                    sa.bindparam("created", type_=deliveries.c.created_at.type),
                )
                .join_from(owed, events, events.c.id == owed.c.event_id)
                .where(sa.true())  # SQLite needs it to tell an upsert from a join
                .order_by(events.c.seq),
            )
            .on_conflict_do_nothing()
        )

        # Each line's row is looked up by a subquery of its own, never joined: by statistics of a
        # quiet hour PostgreSQL believes that nothing is open, and goes through all that is.
        lines = database.rows("lines", endpoint=sa.Text(), subject=sa.Text())
        ahead, busy = deliveries.alias("ahead"), deliveries.alias("busy")
        head = _first(ahead, lines).scalar_subquery()
        under_way = _first(busy, deliveries).where(busy.c.state != State.WAITING.value)
        self.move_up = (
            sa.update(deliveries)
            .where(
                database.among(deliveries.c.id, sa.select(head).select_from(lines)),
                # Nor the head itself. One that is replayed may stand before one that is under way.
                under_way.scalar_subquery().is_(None),
                deliveries.c.state + "" == State.WAITING.value,
            )
            .values(state=State.PENDING.value, due_at=now)
        )

        standing, older = deliveries.alias("standing"), deliveries.alias("older")
        let_go = _first(standing, lines).where(standing.c.state == State.PENDING.value)
        self.step_back = (
            sa.update(deliveries)
            .where(
                database.among(
                    deliveries.c.id, sa.select(let_go.scalar_subquery()).select_from(lines)
                ),
                _first(older, deliveries).scalar_subquery() < deliveries.c.id,
                # Asked of the row itself, too: a claim may have been faster.
                deliveries.c.state + "" == State.PENDING.value,
            )
            .values(state=State.WAITING.value)
        )

        candidate = deliveries.alias("candidate")
        due = (
            sa.select(candidate.c.id)
            .where(
                candidate.c.endpoint == sa.bindparam("whose"),
                sa.text("candidate.state = 'pending'"),
                candidate.c.due_at <= now,
            )
            .order_by(candidate.c.due_at, candidate.c.id)
            .limit(sa.bindparam("limit", type_=sa.Integer))
            .with_for_update(skip_locked=True)  # of what others are just claiming; not in SQLite
        )
        sent = [events.c.id, events.c.type, events.c.batch_id, events.c.occurred_at]
        sent += [events.c.payload, *([events.c.trace] if traced else [])]  # 6,000 times a second
        of_its_event = events.c.seq == deliveries.c.event_seq
        at_once = [
            sa.select(column).where(of_its_event).scalar_subquery().label(f"event_{column.name}")
            for column in sent
        ]
        self.claim = (
            sa.update(deliveries)
            .where(database.among(deliveries.c.id, due))
            .values(
                state=State.IN_FLIGHT.value,
                leased_until=sa.bindparam("until", type_=deliveries.c.leased_until.type),
                holder=sa.bindparam("replica", type_=sa.Text),
            )
            .returning(
                deliveries.c.id,
                deliveries.c.due_at,
                deliveries.c.subject,
                deliveries.c.attempts,
                deliveries.c.uncounted,
                *([deliveries.c.event_seq] if database.is_shared else at_once),
            )
        )
        seqs = sa.select(sa.cast(database.values("seqs").c.value, events.c.seq.type))
        self.told = sa.select(events.c.seq, *sent).where(database.among(events.c.seq, seqs))

        held = sa.select(sa.cast(database.values("ids").c.value, deliveries.c.id.type))
        among_ids = database.among(deliveries.c.id, held)
        pending = {"state": State.PENDING.value, "leased_until": None}
        self.take_back = (
            sa.update(deliveries)
            .where(sa.text("state = 'in_flight'"))
            .values(pending)
            .returning(deliveries.c.id)
        )
        # A result, or a change of mind, that comes late must not undo what another has claimed.
        ours = deliveries.c.holder.is_not_distinct_from(sa.bindparam("replica", type_=sa.Text))
        lost = deliveries.c.leased_until < now
        if database.is_shared:
            alive = sa.select(replicas.c.id).where(replicas.c.seen_at >= database.now(ahead=-LIFE))
            lost |= deliveries.c.holder.is_not(None) & deliveries.c.holder.not_in(alive)
            lost &= sa.bindparam("judges", type_=sa.Boolean)
            lost |= deliveries.c.holder == sa.bindparam("replica", type_=sa.Text)
        self.release = self.take_back.where(lost, deliveries.c.id.not_in(held))
        latest = sa.bindparam("now_micros", type_=sa.BigInteger) + sa.cast(
            deliveries.c.paused_for * (1_000_000 * (1 + JITTER)), sa.BigInteger
        )
        due_at = sa.type_coerce(deliveries.c.due_at, sa.BigInteger)
        self.hasten = (
            sa.update(deliveries)
            .where(sa.text("state = 'pending'"), due_at > latest)
            .values(due_at=sa.type_coerce(latest, deliveries.c.due_at.type))
        )
        self.give_back = (
            sa.update(deliveries)
            .where(among_ids, deliveries.c.state == State.IN_FLIGHT.value, ours)
            .values(pending)
        )
        self.replay = (
            sa.update(deliveries)
            .where(among_ids, deliveries.c.state.not_in([one.value for one in STILL_OPEN]))
            .values(
                state=State.WAITING.value,
                uncounted=deliveries.c.attempts,
                paused_for=0.0,
                settled_at=None,
                reason=None,
            )
        )
        self.lines_of = (
            sa.select(deliveries.c.endpoint, deliveries.c.subject).where(among_ids).distinct()
        )

        whole = sa.BigInteger()
        states = database.rows(
            "states",
            id=whole,
            state=sa.Text(),
            due_at=whole,
            paused_for=sa.Float(),
            settled_at=whole,
            attempts=sa.Integer(),
            uncounted=sa.Integer(),
            reason=sa.Text(),
        )
        self.settle = (
            sa.update(deliveries)
            .where(
                deliveries.c.id == states.c.id,
                # Said so that it is found by the key: the indices of what is in flight are full of
                # what was.
                deliveries.c.state + "" == State.IN_FLIGHT.value,
                # Nor what was written already, and its answer lost, and it was claimed again.
                deliveries.c.attempts < states.c.attempts,
                ours,
            )
            .values(
                state=states.c.state,
                due_at=states.c.due_at,
                paused_for=states.c.paused_for,
                settled_at=states.c.settled_at,
                attempts=states.c.attempts,
                uncounted=states.c.uncounted,
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


def _first(one: NamedFromClause, line: sa.FromClause) -> sa.Select[tuple[int]]:
    """The first that is open in a line; its index begins with it."""
    return sa.select(sa.func.min(one.c.id)).where(
        one.c.endpoint == line.c.endpoint,
        one.c.subject == line.c.subject,
        sa.text(f"{one.name}.{OPEN}"),
    )


def _event_row(event: Event, trace: str | None) -> dict[str, Any]:
    return {
        "id": event.id,
        "type": event.type,
        "watch": event.watch or "",
        "batch_id": event.batch_id,
        "subject": event.subject,
        "transition": event.transition,
        "occurred_at": event.occurred_at,
        "payload": _json(event.payload),
        "trace": trace,
    }


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
