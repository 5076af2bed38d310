"""Figures for an overview: what ended when, how long it took, how fast it was told.

All but :meth:`Figures.by_status` look at a span of time, or at the last so many.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from batchwatch.domain.batch import COMPLETED, TERMINAL
from batchwatch.domain.expect import took
from batchwatch.store.schema import attempts, batches, deliveries, events

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from batchwatch.store.engine import Database

LAST: Final = 200  # batches, or tries, that durations are taken from
HOUR: Final = timedelta(hours=1)
_HOUR: Final = 3_600_000_000  # microseconds
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_WHOLE: Final = sa.BigInteger()


# Built once: to build one takes longer than most of them take to run.
_BY_STATUS: Final = sa.select(batches.c.status, sa.func.count()).group_by(batches.c.status)
_ACTIVE: Final = (
    sa.select(batches.c.watch, batches.c.status, sa.func.count())
    .where(sa.text("active"))
    .group_by(batches.c.watch, batches.c.status)
    .order_by(batches.c.watch, batches.c.status)
)
_STUCK: Final = sa.select(sa.func.count()).select_from(batches).where(sa.text("stuck IS NOT NULL"))
_SINCE: Final = (
    batches.c.status.in_(TERMINAL),
    batches.c.changed_at >= sa.bindparam("since", type_=batches.c.changed_at.type),
)
_ENDED: Final = (
    sa.select(batches.c.status, sa.func.count()).where(*_SINCE).group_by(batches.c.status)
)
_MICROS: Final = sa.type_coerce(batches.c.changed_at, _WHOLE)
_WHICH_HOUR: Final = sa.cast((_MICROS - _MICROS % _HOUR) / _HOUR, _WHOLE).label("hour")
_BY_HOUR: Final = (
    sa.select(batches.c.status, _WHICH_HOUR, sa.func.count())
    .where(*_SINCE)
    .group_by(batches.c.status, _WHICH_HOUR)
)
_LIMIT: Final = sa.bindparam("limit", type_=sa.Integer)
_DURATIONS: Final = (
    sa.select(
        batches.c.watch,
        batches.c.id,
        batches.c.created_at,
        batches.c.updated_at,
        batches.c.first_seen_at,
        batches.c.changed_at,
        batches.c.revision,
    )
    .where(batches.c.status == COMPLETED)
    .order_by(batches.c.changed_at.desc())
    .limit(_LIMIT)
)


@dataclass(frozen=True, slots=True)
class Duration:
    """How long one thing took, and when it was over."""

    name: str
    watch: str
    ended_at: datetime
    seconds: float


@dataclass(frozen=True, slots=True)
class Tries:
    """How the last tries of one endpoint went, the newest first."""

    tried: int
    taken: int  # of these
    seconds: Sequence[float]  # of those that were taken


class Figures:
    """Read-only questions whose answers are counts and durations."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def by_status(self) -> dict[str, int]:
        """How many batches there are in each status; this alone takes longer as they grow."""
        async with self._database.read() as connection:
            return {row[0]: row[1] for row in await connection.execute(_BY_STATUS)}

    async def active(self) -> list[tuple[str, str, int]]:
        """Watch, status and count of the batches that are followed."""
        async with self._database.read() as connection:
            return [(row[0], row[1], row[2]) for row in await connection.execute(_ACTIVE)]

    async def stuck(self) -> int:
        """How many batches are told of as stuck."""
        async with self._database.read() as connection:
            return await connection.scalar(_STUCK) or 0

    async def ended(self, *, since: datetime) -> Mapping[str, int]:
        """How many batches have ended since then, by status."""
        async with self._database.read() as connection:
            rows = await connection.execute(_ENDED, {"since": since})
            return {row[0]: row[1] for row in rows}

    async def by_hour(self, *, now: datetime, hours: int) -> list[tuple[datetime, dict[str, int]]]:
        """The same for each of the last ``hours`` full hours and the present one, in order."""
        last = (now - _EPOCH) // HOUR
        first = last - hours
        found: dict[int, dict[str, int]] = {}
        async with self._database.read() as connection:
            rows = await connection.execute(_BY_HOUR, {"since": _EPOCH + first * HOUR})
            for status, at, count in rows:
                found.setdefault(at, {})[status] = count
        return [(_EPOCH + one * HOUR, found.get(one, {})) for one in range(first, last + 1)]

    async def durations(self, *, limit: int = LAST) -> list[Duration]:
        """What the last completed batches took, the newest first."""
        async with self._database.read() as connection:
            rows = (await connection.execute(_DURATIONS, {"limit": limit})).all()
        return [
            Duration(row.id, row.watch, row.changed_at, seconds)
            for row in rows
            if (seconds := _took(row)) is not None
        ]

    async def latencies(self, *, limit: int = LAST) -> list[Duration]:
        """From the observation of a fact to its receipt, of the last deliveries."""
        last = (
            sa.select(
                deliveries.c.event_seq,
                deliveries.c.endpoint,
                deliveries.c.state,
                deliveries.c.settled_at,
            )
            .order_by(deliveries.c.id.desc())
            .limit(limit)
            .subquery()
        )
        query = (
            sa.select(last.c.endpoint, events.c.watch, events.c.occurred_at, last.c.settled_at)
            .join(events, events.c.seq == last.c.event_seq)
            .where(last.c.state == "delivered", last.c.settled_at.is_not(None))
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        found = [
            Duration(
                row.endpoint,
                row.watch,
                row.settled_at,
                max(0.0, (row.settled_at - row.occurred_at).total_seconds()),
            )
            for row in rows
        ]
        return sorted(found, key=lambda one: one.ended_at, reverse=True)

    async def tries(self, endpoint: str, *, limit: int = LAST) -> Tries:
        """The last try of each of the last deliveries of ``endpoint``."""
        last = (
            sa.select(deliveries.c.id, deliveries.c.attempts)
            .where(deliveries.c.endpoint == endpoint)
            .order_by(deliveries.c.id.desc())
            .limit(limit)
            .subquery()
        )
        query = sa.select(attempts.c.failure, attempts.c.duration_ms).join(
            last,
            (attempts.c.delivery_id == last.c.id) & (attempts.c.number == last.c.attempts),
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        taken = [row.duration_ms / 1000 for row in rows if row.failure is None]
        return Tries(tried=len(rows), taken=len(taken), seconds=taken)


def _took(row: Any) -> float | None:
    return took(
        created_at=row.created_at,
        updated_at=row.updated_at,
        first_seen_at=row.first_seen_at,
        changed_at=row.changed_at,
        followed=row.revision > 1,
    )
