"""Lists, a page at a time: by an index, from where the last page ended, never further than so far.

A page looks at no more than ``SCANNED`` rows. One that has found less than
was asked for by then ends there, and says where to go on. So no list takes
longer because the table has grown, whatever it is filtered by.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from batchwatch.domain.delivery import State
from batchwatch.store.schema import (
    UNSETTLED,
    attempts,
    batches,
    deliveries,
    events,
    removed_events,
    to_micros,
)
from batchwatch.store.views import DELIVERIES, Row, batch_row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from datetime import datetime

    from batchwatch.store.engine import Database

    Key = tuple[int | str, ...]  # where a row stands in its list
    Columns = sa.ColumnCollection[str, sa.ColumnElement[Any]]
    Condition = Callable[[Columns], sa.ColumnElement[bool]]

SCANNED: Final = 2_000
_CANDIDATES: Final = 500  # batches that a text may be the beginning of, and all are looked at
_WHOLE: Final = sa.BigInteger()
_LOOKED_AT: Final = (  # what conditions may ask for besides those that an index leads by
    "id", "seq", "watch", "status", "type", "state", "endpoint", "event_seq",
    "source_directory_id", "configuration_id", "project_id",
)  # fmt: skip
_DEAD_OR_OPEN: Final = frozenset(State) - {State.DELIVERED}


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows of a list."""

    rows: list[Row]
    after: Key | None  # what the next page comes after; None: there is no more


@dataclass(frozen=True, slots=True)
class WantedBatches:
    """Which batches are meant: those that match all that is given; the last ones first."""

    watch: str | None = None
    status: str | None = None
    active: bool = False  # only those that are followed
    stuck: bool = False  # only those that are told of as stuck
    directory: str | None = None
    text: str | None = None  # see `Pages.batches`
    since: datetime | None = None  # of the moment that they are ordered by
    until: datetime | None = None
    by_creation: bool = False  # ordered by that, and not by their last change
    oldest_first: bool = False


@dataclass(frozen=True, slots=True)
class WantedDeliveries:
    """Which deliveries are meant: those that match all that is given; the newest first."""

    endpoint: str | None = None
    state: str | None = None
    type: str | None = None  # or all of a group, as in ``batch.*``
    watch: str | None = None
    batch: str | None = None
    event: str | None = None


@dataclass(frozen=True, slots=True)
class WantedEvents:
    """Which events are meant: those that match all that is given."""

    type: str | None = None  # or all of a group, as in ``batch.*``
    watch: str | None = None
    batch: str | None = None
    oldest_first: bool = False


@dataclass(frozen=True, slots=True)
class _List:
    """A table in an order: what is selected by an index first, and what then is left out."""

    table: sa.Table
    order: Sequence[sa.ColumnElement[Any]]  # unique together
    descending: bool
    within: Sequence[sa.ColumnElement[bool]]
    besides: Sequence[Condition] = ()


class Pages:
    """Read-only lists of what the store holds."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def batches(self, wanted: WantedBatches, *, after: Key | None = None, limit: int) -> Page:
        """Batches, as ``Views.batches`` gives them.

        A text that begins the ids of some batches, with or without their
        ``bat-``, means these. Any other is looked for within the ids of the
        directory, the configuration and the project.
        """
        named = await self._named(wanted.text) if wanted.text else None
        listed = _list_of_batches(wanted, named)
        keys, after = await self._keys(listed, after, limit)
        names = [(watch, id_) for _, watch, id_ in keys]
        # By ids alone, for which there is an index: hardly ever do two watches see the same batch.
        query = sa.select(batches).where(batches.c.id.in_([id_ for _, id_ in names]))
        rows = {(row["watch"], row["id"]): batch_row(row) for row in await self._all(query)}
        return Page([rows[name] for name in names if name in rows], after)

    async def batch(self, watch: str, id_: str) -> Row | None:
        """One batch; None if that watch knows no such one."""
        query = sa.select(batches).where(batches.c.watch == watch, batches.c.id == id_)
        rows = await self._all(query)
        return batch_row(rows[0]) if rows else None

    async def deliveries(
        self, wanted: WantedDeliveries, *, after: Key | None = None, limit: int
    ) -> Page:
        """Deliveries, each with its event's name and the last of its tries."""
        id_: sa.ColumnElement[Any] = deliveries.c.id
        within: list[sa.ColumnElement[bool]] = []
        besides: list[Condition] = []
        of_event = _of_event(wanted)
        if of_event is not None:
            within.append(deliveries.c.event_seq.in_(of_event))
            id_ = sa.type_coerce(id_, _WHOLE) + 0
        if wanted.state is not None:
            if not within and wanted.state in _DEAD_OR_OPEN:
                within.append(sa.text(UNSETTLED))  # type: ignore[arg-type]  # as its index has it
                within.append(deliveries.c.state == wanted.state)
            else:
                besides.append(_equal("state", wanted.state))
        if wanted.endpoint is not None:
            if within:
                besides.append(_equal("endpoint", wanted.endpoint))
            else:
                within.append(deliveries.c.endpoint == wanted.endpoint)
        if wanted.type is not None:
            besides.append(_event_is(wanted.type))
        if wanted.watch is not None and wanted.batch is None:
            besides.append(_event_of(wanted.watch))
        listed = _List(deliveries, (id_,), descending=True, within=within, besides=besides)
        keys, after = await self._keys(listed, after, limit)
        return Page(await self._deliveries([key[0] for key in keys]), after)

    async def delivery(self, id_: int) -> Row | None:
        """One delivery with every try of it; None if there is none."""
        rows = await self._deliveries([id_])
        if not rows:
            return None
        tried = sa.select(attempts).where(attempts.c.delivery_id == id_)
        return rows[0] | {"tries": await self._all(tried.order_by(attempts.c.number))}

    async def events(
        self, wanted: WantedEvents, *, after: Key | None = None, limit: int, whole: bool = True
    ) -> Page:
        """Events in their order; with ``whole`` their payloads, too, as JSON."""
        within: list[sa.ColumnElement[bool]] = []
        besides: list[Condition] = []
        if wanted.batch is not None:
            within.append(events.c.subject.in_(_subjects(wanted.batch, wanted.watch)))
        elif wanted.watch is not None:
            besides.append(_equal("watch", wanted.watch))
        if wanted.type is not None:
            if within or wanted.type.endswith("*"):
                besides.append(_type_is(wanted.type))
            else:
                within.append(events.c.type == wanted.type)
        listed = _List(
            events,
            (events.c.seq,),
            descending=not wanted.oldest_first,
            within=within,
            besides=besides,
        )
        keys, after = await self._keys(listed, after, limit)
        columns = [column for column in events.c if whole or column.name != "payload"]
        query = sa.select(*columns).where(events.c.seq.in_([key[0] for key in keys]))
        rows = {row["seq"]: row for row in await self._all(query)}
        return Page([rows[key[0]] for key in keys if key[0] in rows], after)

    async def event(self, id_: str) -> Row | None:
        """One event with its payload and its deliveries; None if there is none."""
        found = await self._all(sa.select(events).where(events.c.id == id_))
        if not found:
            return None
        sent = sa.select(deliveries.c.id).where(deliveries.c.event_seq == found[0]["seq"])
        async with self._database.read() as connection:
            ids = list(await connection.scalars(sent.order_by(deliveries.c.id)))
        return found[0] | {"deliveries": await self._deliveries(ids)}

    async def last_event(self) -> int:
        """The place of the newest event; 0 if there is none."""
        async with self._database.read() as connection:
            return await connection.scalar(sa.select(sa.func.max(events.c.seq))) or 0

    async def removed_after(self, wanted: WantedEvents, seq: int) -> int | None:
        """The place up to which events were removed that came after ``seq``; None: none were.

        Only of those that are ``wanted``, by watch and type. A batch is removed
        with all its events, and so is its name.
        """
        if wanted.batch is not None:
            return None
        conditions = [removed_events.c.seq > seq]
        if wanted.watch is not None:
            conditions.append(removed_events.c.watch == wanted.watch)
        if wanted.type is not None:
            conditions.append(_type_is(wanted.type)(removed_events.c))
        query = sa.select(sa.func.max(removed_events.c.seq)).where(*conditions)
        async with self._database.read() as connection:
            last: int | None = await connection.scalar(query)
            return last

    async def _named(self, text: str) -> list[str] | None:
        """The batches whose ids begin so; None if they are none, or too many to be meant."""
        found: list[str] = []
        async with self._database.read() as connection:
            for beginning in (text, f"bat-{text}"):
                query = sa.select(batches.c.id).where(
                    self._database.begins(batches.c.id, beginning)
                )
                found += await connection.scalars(query.limit(_CANDIDATES + 1))
        return found if 0 < len(found) <= _CANDIDATES else None

    async def _deliveries(self, ids: Sequence[Any]) -> list[Row]:
        """These, in that order."""
        query = DELIVERIES.add_columns(events.c.occurred_at).where(deliveries.c.id.in_(ids))
        rows = {row["id"]: row for row in await self._all(query)}
        return [rows[one] for one in ids if one in rows]

    async def _keys(
        self, listed: _List, after: Key | None, limit: int
    ) -> tuple[list[tuple[Any, ...]], Key | None]:
        """The keys of a page's rows, and what the next one comes after."""
        table = sa.select(listed.table).where(*listed.within)
        if after is not None:
            here = sa.tuple_(*listed.order)
            there = sa.tuple_(*(sa.literal(one) for one in after))
            table = table.where(here < there if listed.descending else here > there)
        names = [f"key_{number}" for number in range(len(listed.order))]
        keys = [one.label(name) for one, name in zip(listed.order, names, strict=True)]
        ordered = table.with_only_columns(*keys).order_by(*_in_order(listed, listed.order))
        if not listed.besides:
            async with self._database.read() as connection:
                rows = (await connection.execute(ordered.limit(limit + 1))).all()
            some = [tuple(row) for row in rows]
        else:
            query = _looked_through(listed, ordered, names, limit)
            async with self._database.read() as connection:
                rows = (await connection.execute(query)).all()
            some = [tuple(row[:-1]) for row in rows if not row.is_end]
            end = next((tuple(row[:-1]) for row in rows if row.is_end), None)
            if len(some) <= limit:
                return some, end
        return some[:limit], some[limit - 1] if len(some) > limit else None

    async def _all(self, query: sa.Select[Any]) -> list[Row]:
        async with self._database.read() as connection:
            return [dict(row._mapping) for row in await connection.execute(query)]


def _looked_through(
    listed: _List, ordered: sa.Select[Any], names: Sequence[str], limit: int
) -> sa.Select[Any]:
    """The keys of those that match among the first ``SCANNED``, and of the last of these.

    By one statement, which sees one state of the store: with one for the
    rows and one for the end, whatever comes to be between them would be in
    both pages, or in none.
    """
    narrow = [listed.table.c[name] for name in _LOOKED_AT if name in listed.table.c]
    within = ordered.add_columns(*narrow).limit(SCANNED).subquery("within")
    found = (
        sa.select(*(within.c[name] for name in names), sa.false().label("is_end"))
        .where(*(one(within.c) for one in listed.besides))
        .order_by(*_in_order(listed, (within.c[name] for name in names)))
        .limit(limit + 1)
        .subquery("found")
    )
    end = (
        ordered.add_columns(sa.true().label("is_end"))
        .offset(SCANNED - 1)
        .limit(1)
        .subquery("end_of_them")
    )
    both = sa.union_all(sa.select(found), sa.select(end)).subquery("both")
    return sa.select(both).order_by(*_in_order(listed, (both.c[name] for name in names)))


def _in_order(
    listed: _List, columns: Iterable[sa.ColumnElement[Any]]
) -> list[sa.ColumnElement[Any]]:
    return [one.desc() if listed.descending else one.asc() for one in columns]


def _list_of_batches(wanted: WantedBatches, named: list[str] | None) -> _List:
    """``named`` are the batches that the text means, if it means any by name."""
    moment: sa.ColumnElement[Any] = sa.type_coerce(batches.c.changed_at, _WHOLE)
    if wanted.by_creation:
        born = sa.func.coalesce(batches.c.created_at, batches.c.first_seen_at)  # as its index
        moment = sa.type_coerce(born, _WHOLE)
    within = list(_few(wanted, named))
    if within:
        moment += 0  # few enough to be sorted; else SQLite would prefer the index with the order
    besides = [_mentions(wanted.text)] if wanted.text and not named else []
    for column, value in (
        ("source_directory_id", wanted.directory),
        ("status", wanted.status),
        ("watch", wanted.watch),
    ):
        if value is None:
            continue
        if within or wanted.by_creation:
            besides.append(_equal(column, value))
        else:
            within.append(batches.c[column] == value)
    if wanted.since is not None:
        within.append(moment >= to_micros(wanted.since))
    if wanted.until is not None:
        within.append(moment < to_micros(wanted.until))
    return _List(
        batches,
        (moment, batches.c.watch, batches.c.id),
        descending=not wanted.oldest_first,
        within=within,
        besides=besides,
    )


def _few(wanted: WantedBatches, named: list[str] | None) -> Iterator[sa.ColumnElement[bool]]:
    """Conditions that leave few batches, whatever the table holds."""
    if named:
        yield batches.c.id.in_(named)
    if wanted.active:
        yield sa.text("active")  # type: ignore[misc]  # a condition, too
    if wanted.stuck:
        yield sa.text("stuck IS NOT NULL")  # type: ignore[misc]  # likewise


def _equal(column: str, value: str) -> Condition:
    return lambda c: c[column] == value


def _type_is(type_: str) -> Condition:
    if type_.endswith("*"):
        return lambda c: c["type"].startswith(type_[:-1], autoescape=True)
    return _equal("type", type_)


def _event_is(type_: str) -> Condition:
    named = _type_is(type_)
    return lambda c: sa.exists().where(events.c.seq == c["event_seq"], named(events.c))


def _event_of(watch: str) -> Condition:
    return lambda c: sa.exists().where(events.c.seq == c["event_seq"], events.c.watch == watch)


def _mentions(text: str) -> Condition:
    def anywhere(c: Columns) -> sa.ColumnElement[bool]:
        columns = ("id", "source_directory_id", "configuration_id", "project_id")
        return sa.or_(*(c[one].icontains(text, autoescape=True) for one in columns))

    return anywhere


def _subjects(batch: str, watch: str | None) -> sa.Select[Any] | list[str]:
    if watch is not None:
        return [f"{watch}/{batch}"]
    return sa.select(batches.c.watch + "/" + batches.c.id).where(batches.c.id == batch)


def _of_event(wanted: WantedDeliveries) -> sa.Select[Any] | None:
    """The few events that are meant, if it is few."""
    if wanted.event is not None:
        return sa.select(events.c.seq).where(events.c.id == wanted.event)
    if wanted.batch is not None:
        subjects = _subjects(wanted.batch, wanted.watch)
        return sa.select(events.c.seq).where(events.c.subject.in_(subjects))
    return None
