"""The files of batches: what became of each, and what it is called."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec
import sqlalchemy as sa

from batchwatch.domain.batch import BatchId, FileOutcome
from batchwatch.store.engine import unbroken
from batchwatch.store.schema import file_names, file_outcomes

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection

    from batchwatch.domain.batch import WatchName
    from batchwatch.domain.changes import Changes
    from batchwatch.store.engine import Database

NOTED_EVERY: Final = timedelta(days=1)  # that a name is needed


class Outcomes:
    """One row for each file of a batch's results, inside the transactions of others."""

    def __init__(self, database: Database) -> None:
        table = file_outcomes.c
        self._read = (
            sa.select(file_outcomes)
            .where(
                table.watch == sa.bindparam("watch"),
                database.among(table.batch_id, sa.select(database.values("ids").c.value)),
            )
            .order_by(table.batch_id, table.position)
        )
        self._forget = sa.delete(file_outcomes).where(
            table.watch == sa.bindparam("of_watch"), table.batch_id == sa.bindparam("of_batch")
        )
        self._move = sa.update(file_outcomes).where(
            table.watch == sa.bindparam("of_watch"),
            table.batch_id == sa.bindparam("of_batch"),
            table.position == sa.bindparam("at"),
        )

    async def read(
        self, connection: AsyncConnection, watch: WatchName, ids: Collection[BatchId]
    ) -> dict[BatchId, list[FileOutcome]]:
        """The files of these batches, in the order of their results."""
        found: dict[BatchId, list[FileOutcome]] = defaultdict(list)
        given = {"watch": watch, "ids": _json(ids)}
        for row in await connection.execute(self._read, given):
            found[BatchId(row.batch_id)].append(
                FileOutcome(
                    row.source_directory_file_id,
                    job_type=row.job_type,
                    job_id=row.job_id,
                    error_message=row.error_message,
                    job_status=row.job_status,
                    job_error=row.job_error,
                )
            )
        return dict(found)

    async def write(self, connection: AsyncConnection, watch: WatchName, changes: Changes) -> None:
        """Write new results whole, and of those that are known what became of some jobs."""
        whole = [
            _row(watch, batch_id, position, one)
            for batch_id, files in changes.outcomes.items()
            for position, one in enumerate(files)
        ]
        if changes.outcomes:
            gone = [{"of_watch": watch, "of_batch": batch_id} for batch_id in changes.outcomes]
            await connection.execute(self._forget, gone)
        if whole:
            await connection.execute(sa.insert(file_outcomes), whole)
        moved = [
            {
                "of_watch": watch,
                "of_batch": batch_id,
                "at": position,
                "job_status": one.job_status,
                "job_error": one.job_error,
            }
            for batch_id, files in changes.jobs.items()
            for position, one in files.items()
        ]
        if moved:
            await connection.execute(self._move, moved)


class FileNames:
    """What directories call their files; it does not change, so it is asked for once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known = sa.select(
            file_names.c.source_directory_file_id, file_names.c.name, file_names.c.needed_at
        ).where(
            file_names.c.watch == sa.bindparam("watch"),
            database.among(
                file_names.c.source_directory_file_id, sa.select(database.values("ids").c.value)
            ),
        )
        self._note = (
            sa.update(file_names)
            .where(
                file_names.c.watch == sa.bindparam("of_watch"),
                file_names.c.source_directory_file_id.in_(
                    sa.select(database.values("ids").c.value)
                ),
                file_names.c.needed_at.is_(None)
                | (
                    file_names.c.needed_at
                    < sa.bindparam("lately", type_=file_names.c.needed_at.type)
                ),
            )
            .values(needed_at=sa.bindparam("now", type_=file_names.c.needed_at.type))
        )

    @unbroken
    async def need(
        self, watch: WatchName, ids: Collection[str], *, now: datetime
    ) -> dict[str, str]:
        """The names of those of ``ids`` that are known; they stay as long as what needs them."""
        lately = now - NOTED_EVERY
        rows = await self._rows(watch, ids)
        if any(row.needed_at is None or row.needed_at < lately for row in rows):
            given = {"of_watch": watch, "ids": _json(ids), "now": now, "lately": lately}
            async with self._database.write(durable=False) as connection:
                await connection.execute(self._note, given)
            rows = await self._rows(watch, ids)  # without those that went meanwhile
        return _names(rows)

    async def known(self, watch: WatchName, ids: Collection[str]) -> dict[str, str]:
        """The names of those of ``ids`` that are known."""
        return _names(await self._rows(watch, ids))

    async def _rows(
        self, watch: WatchName, ids: Collection[str]
    ) -> Sequence[sa.Row[Any, Any, Any]]:
        async with self._database.read() as connection:
            given = {"watch": watch, "ids": _json(ids)}
            return (await connection.execute(self._known, given)).all()

    @unbroken
    async def add(self, watch: WatchName, names: Mapping[str, str], *, now: datetime) -> None:
        """Keep these; what is there already stays."""
        if not names:
            return
        rows = [
            {"watch": watch, "source_directory_file_id": file_id, "name": name, "needed_at": now}
            for file_id, name in names.items()
        ]
        adding = self._database.insert(file_names).on_conflict_do_nothing()
        # Not durable: what a power failure forgets of it can be asked for again.
        async with self._database.write(durable=False) as connection:
            await connection.execute(adding, rows)


def _row(
    watch: WatchName, batch_id: BatchId, position: int, file: FileOutcome
) -> dict[str, str | int | None]:
    return {
        "watch": watch,
        "batch_id": batch_id,
        "position": position,
        "source_directory_file_id": file.source_directory_file_id,
        "job_type": file.job_type,
        "job_id": file.job_id,
        "error_message": file.error_message,
        "job_status": file.job_status,
        "job_error": file.job_error,
    }


def _names(rows: Sequence[sa.Row[Any, Any, Any]]) -> dict[str, str]:
    return {row.source_directory_file_id: row.name for row in rows}


def _json(ids: Collection[str]) -> str:
    return msgspec.json.encode(list(ids)).decode()
