"""The ledger of watched time, and the gaps in it: inside the transactions of those who keep it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from batchwatch.domain.coverage import Gap, Kind, Window
from batchwatch.store.schema import coverage, gaps

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection

    from batchwatch.domain.batch import WatchName
    from batchwatch.domain.coverage import Look


async def extend(
    connection: AsyncConnection, watch: WatchName, look: Look, *, passes: int, anew: bool
) -> None:
    """Add a window to the ledger; where it reaches back to the last one, the two become one.

    ``anew`` is for the first one of a scope, which continues nothing.
    """
    last = sa.select(sa.func.max(coverage.c.id)).where(coverage.c.watch == watch).scalar_subquery()
    start = sa.literal(look.covered_from, coverage.c.covered_from.type)
    extended = 0
    if not anew:
        statement = (
            sa.update(coverage)
            .where(coverage.c.id == last, coverage.c.covered_to >= look.covered_from)
            .values(
                covered_from=sa.case(
                    (coverage.c.covered_from < start, coverage.c.covered_from), else_=start
                ),
                covered_to=look.covered_to,
                passes=coverage.c.passes + passes,
                skew=look.skew,
            )
        )
        extended = (await connection.execute(statement)).rowcount
    if not extended:
        await connection.execute(
            sa.insert(coverage).values(
                watch=watch,
                covered_from=look.covered_from,
                covered_to=look.covered_to,
                passes=passes,
                skew=look.skew,
            )
        )


async def note(connection: AsyncConnection, watch: WatchName, found: Iterable[Gap]) -> list[Gap]:
    """Write gaps, or what has become of them since; those that were not known."""
    new = []
    for gap in found:
        row = {
            "gap_to": gap.end,
            "reason": gap.reason,
            "closed_at": gap.closed_at,
            "listed_from": gap.listed_from,
            "found": gap.found,
        }
        known = await connection.execute(
            sa.update(gaps)
            .where(
                gaps.c.watch == watch,
                gaps.c.kind == gap.kind.value,
                gaps.c.gap_from == gap.start,
            )
            .values(row)
        )
        if not known.rowcount:
            await connection.execute(
                sa.insert(gaps).values(watch=watch, kind=gap.kind.value, gap_from=gap.start, **row)
            )
            new.append(gap)
    return new


async def last(connection: AsyncConnection, watch: WatchName) -> tuple[datetime | None, Gap | None]:
    """The last moment that was covered, and the unreadable entries that were listed then."""
    query = (
        sa.select(coverage.c.covered_to)
        .where(coverage.c.watch == watch)
        .order_by(coverage.c.id.desc())
        .limit(1)
    )
    covered_to: datetime | None = await connection.scalar(query)
    if covered_to is None:
        return None, None
    lasting = sa.select(gaps).where(
        gaps.c.watch == watch,
        gaps.c.kind == Kind.UNREADABLE.value,
        gaps.c.gap_to >= covered_to,
        gaps.c.closed_at.is_(None),
    )
    row = (await connection.execute(lasting.order_by(gaps.c.id.desc()).limit(1))).one_or_none()
    return covered_to, None if row is None else _gap(row)


async def since(
    connection: AsyncConnection, moment: datetime
) -> dict[str, tuple[list[Window], list[Gap], float]]:
    """By watch: the windows and gaps that reach beyond ``moment``, and the last skew in seconds.

    The last window is among them, however long ago it ended.
    """
    newest = sa.select(sa.func.max(coverage.c.id)).group_by(coverage.c.watch)
    found: dict[str, tuple[list[Window], list[Gap], float]] = {}
    rows = await connection.execute(
        sa.select(coverage)
        .where((coverage.c.covered_to >= moment) | coverage.c.id.in_(newest))
        .order_by(coverage.c.id)
    )
    for row in rows:
        windows, _, _ = found.get(row.watch, ([], [], 0.0))
        windows.append(Window(row.covered_from, row.covered_to, row.passes))
        found[row.watch] = (windows, [], row.skew)
    for row in await connection.execute(
        sa.select(gaps).where(gaps.c.gap_to >= moment).order_by(gaps.c.gap_from, gaps.c.id)
    ):
        if row.watch in found:
            found[row.watch][1].append(_gap(row))
    return found


def _gap(row: sa.Row[Any]) -> Gap:
    return Gap(
        start=row.gap_from,
        end=row.gap_to,
        kind=Kind(row.kind),
        reason=row.reason,
        closed_at=row.closed_at,
        listed_from=row.listed_from,
        found=row.found,
    )
