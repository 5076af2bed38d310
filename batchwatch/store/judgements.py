"""Which batches are due to be judged, what is known to be stuck, and what like batches took."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec
import sqlalchemy as sa

from batchwatch.domain.batch import BatchId, Status, WatchName
from batchwatch.domain.expect import Experience, Past, begun_at, expected_by, took
from batchwatch.domain.judging import LISTED, Slow
from batchwatch.store.schema import batches, watches

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from batchwatch.store.engine import Database

    Row = dict[str, Any]
    Kind = tuple[str, str, str]  # watch, type and configuration of the job

REMEMBERED: Final = 200  # ended batches of a kind that tell what to expect: the last ones
RELEARNT: Final = timedelta(minutes=2)  # until what a kind took is read again, to be shown
KINDS_LIMIT: Final = 500  # kinds that are remembered for that, some 20 kB each
_EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SLOW: Final = msgspec.json.Decoder(Slow)
# Said as their indices have them.
_STUCK: Final = sa.text("stuck IS NOT NULL")
_COMPLETED: Final = sa.text("status = 'COMPLETED'")


class Judgements:
    """What there is to judge, and by what; all of it goes by indices."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._learnt: dict[Kind, tuple[Experience, datetime]] = {}  # for those who show it

    async def due(
        self, watch: WatchName, *, now: datetime, longest: timedelta, soon: timedelta
    ) -> list[BatchId]:
        """The batches to be judged: if any is due, those that are within ``soon``, too.

        None is due later than after ``longest``: whatever says so was written
        by a clock that has been set back since.
        """
        judge_at = batches.c.judge_at
        query = sa.select(batches.c.id).where(
            batches.c.watch == watch, judge_at.is_not(None), judge_at <= sa.bindparam("until")
        )
        misdated = sa.select(batches.c.id).where(batches.c.watch == watch, judge_at > now + longest)
        async with self._database.read() as connection:
            due = list(await connection.scalars(query, {"until": now}))
            if due:
                due = list(await connection.scalars(query, {"until": now + soon}))
            due += await connection.scalars(misdated)
        return [BatchId(one) for one in due]

    async def stuck(self, watch: WatchName) -> int:
        """How many batches are known to be stuck."""
        async with self._database.read() as connection:
            return await count_stuck(connection, watch)

    async def past(self, watch: str, job_type: str, configuration_id: str) -> list[Past]:
        """What the last completed batches of a kind took, the newest first."""
        query = (
            sa.select(
                batches.c.created_at,
                batches.c.first_seen_at,
                batches.c.updated_at,
                batches.c.changed_at,
                batches.c.revision,
                batches.c.file_count,
                batches.c.source_directory_id,
            )
            .where(
                batches.c.watch == watch,
                batches.c.job_type == job_type,
                batches.c.configuration_id == configuration_id,
                _COMPLETED,
            )
            .order_by(batches.c.changed_at.desc())
            .limit(REMEMBERED)
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        return [
            Past(seconds, row.file_count, row.source_directory_id)
            for row in rows
            if (
                seconds := took(
                    created_at=row.created_at,
                    updated_at=row.updated_at,
                    first_seen_at=row.first_seen_at,
                    changed_at=row.changed_at,
                    followed=row.revision > 1,
                )
            )
            is not None
        ]

    async def with_outlook(self, rows: list[Row], *, now: datetime) -> list[Row]:
        """Rows of batches with ``expected``, as events have it; None for what has ended or is new.

        By what like ones took, which is read anew after some minutes.
        """
        shown = []
        for row in rows:
            expected = None
            kind = (row["watch"], row["job_type"], row["configuration_id"])
            ended = Status(row["status"]).is_terminal or row["vanished_at"] is not None
            if not ended and all(kind):
                experience = await self._experience(kind, now)
                expectation = experience.of(row["source_directory_id"])
                begun = begun_at(row["created_at"], row["first_seen_at"])
                expected = None if expectation is None else expected_by(expectation, begun, now=now)
            shown.append(row | {"expected": expected})
        return shown

    async def _experience(self, kind: Kind, now: datetime) -> Experience:
        learnt, at = self._learnt.get(kind, (None, now))
        if learnt is None or not timedelta(0) <= now - at < RELEARNT:
            learnt = Experience(await self.past(*kind))
            if len(self._learnt) >= KINDS_LIMIT:
                self._learnt.clear()
            self._learnt[kind] = learnt, now
        return learnt


async def count_stuck(connection: AsyncConnection, watch: WatchName) -> int:
    """How many batches are known to be stuck, in a transaction."""
    query = sa.select(sa.func.count()).select_from(batches).where(*_stuck_of(watch))
    return await connection.scalar(query) or 0


async def longest_stuck(connection: AsyncConnection, watch: WatchName) -> Sequence[str]:
    """The ids of those that `watch.slow` would list, in a transaction."""
    # By no column as it stands: SQLite would go by an index that has it, through all of the watch.
    longest_first = sa.type_coerce(batches.c.changed_at, sa.BigInteger) + 0
    query = sa.select(batches.c.id).where(*_stuck_of(watch)).order_by(longest_first)
    return (await connection.scalars(query.limit(LISTED))).all()


def _stuck_of(watch: WatchName) -> Sequence[sa.ColumnElement[bool] | sa.TextClause]:
    # With a range, or SQLite goes through all of the watch.
    return batches.c.watch == watch, _STUCK, batches.c.changed_at >= _EARLIEST


async def read_slow(connection: AsyncConnection, watch: WatchName) -> Slow | None:
    """What `watch.slow` told of, if it lasts."""
    slow = await connection.scalar(sa.select(watches.c.slow).where(watches.c.name == watch))
    return None if slow is None else _SLOW.decode(slow)


async def write_slow(connection: AsyncConnection, watch: WatchName, slow: Slow | None) -> None:
    """Keep that, or that it is over."""
    text = None if slow is None else msgspec.json.encode(slow).decode()
    await connection.execute(sa.update(watches).where(watches.c.name == watch).values(slow=text))
