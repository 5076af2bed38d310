"""A store as it is after months: many batches with their events, deliveries and attempts.

Written in bulk and not by the daemon, for that would take the time that it is about.
"""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from batchwatch.store import Database
from batchwatch.store.schema import (
    attempts,
    batches,
    coverage,
    deliveries,
    events,
    file_outcomes,
    transitions,
    watches,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Row = dict[str, Any]

WATCHES: Final = ("default", "eu", "staging")
ENDPOINTS: Final = ("hook", "archive", "slack")
TYPES: Final = (
    "batch.discovered", "batch.pending", "batch.running", "batch.completed", "batch.settled",
)  # fmt: skip
DIRECTORIES: Final = 200
CHUNK: Final = 5_000  # batches
FILES: Final = 1_000  # of the newest batch, the largest that LlamaCloud makes
ACTIVE: Final = 300
NEWEST: Final = "bat-0000000000"


async def fill(
    url: str, *, count: int, now: datetime, tell: Callable[[int], None] = lambda _: None
) -> None:
    """Make a store of ``count`` batches and five events each at ``url``.

    The newest are still active, one in twenty has failed, and of the
    deliveries one in two hundred is dead. ``tell`` is told how many there are.
    """
    database = await Database.open(url)
    dice = random.Random(7)
    begun = now - timedelta(days=90)
    async with database.write() as connection:
        await connection.execute(
            sa.insert(watches),
            [
                {"name": name, "started_at": begun, "cursor": now, "baseline_done": True}
                for name in WATCHES
            ],
        )
        await connection.execute(
            sa.insert(coverage),
            [
                {"watch": name, "covered_from": begun, "covered_to": now, "passes": 500_000}
                for name in WATCHES
            ],
        )
    for start in range(0, count, CHUNK):
        rows: dict[sa.Table, list[Row]] = {
            table: [] for table in (batches, transitions, events, deliveries, attempts)
        }
        for number in range(start, min(start + CHUNK, count)):
            for table, row in _rows(number, count, dice, now):
                rows[table].append(row)
        async with database.write(durable=False) as connection:
            for table, some in rows.items():
                await connection.execute(sa.insert(table), some)
        tell(min(start + CHUNK, count))
    async with database.write() as connection:
        await connection.execute(sa.insert(file_outcomes), [_file(one) for one in range(FILES)])
    await database.tidy()
    await database.close()


def _rows(
    number: int, count: int, dice: random.Random, now: datetime
) -> Iterator[tuple[sa.Table, Row]]:
    """All rows of the batch that is ``number`` from the newest."""
    watch = WATCHES[number % len(WATCHES)]
    batch_id = f"bat-{number:010d}"
    active = 0 < number < ACTIVE
    changed = now - timedelta(seconds=number * 60 + dice.random() * 30)
    created = changed - timedelta(seconds=dice.uniform(30, 7200))
    status = "RUNNING" if active else "FAILED" if number % 20 == 1 else "COMPLETED"
    yield batches, {
        "watch": watch, "id": batch_id, "status": status, "previous_status": "PENDING",
        "fingerprint": f"{status} {number}", "revision": 2, "active": active,
        "project_id": "prj-1", "source_directory_id": f"dir-{number % DIRECTORIES}",
        "job_type": "parse_v2", "configuration_id": f"cfg-{number % 7}",
        "created_at": created, "updated_at": changed, "first_seen_at": created,
        "changed_at": changed, "lasted": '{"PENDING": 12.5}', "misses": 0,
        "results": None if active else "complete", "results_asks": 1,
        "settling": None if active else "settled", "file_count": dice.randrange(1, FILES),
    }  # fmt: skip
    for step, (before, after) in enumerate(((None, "PENDING"), ("PENDING", status)), start=1):
        yield transitions, {
            "watch": watch, "batch_id": batch_id, "number": step, "from_status": before,
            "to_status": after, "observed_at": created if step == 1 else changed,
        }  # fmt: skip
    for place, type_ in enumerate(TYPES):
        seq = (count - 1 - number) * len(TYPES) + place + 1
        endpoint = ENDPOINTS[seq % len(ENDPOINTS)]
        state = "dead" if seq % 200 == 0 else "delivered"
        subject = f"{watch}/{batch_id}"
        moment = changed + timedelta(milliseconds=place)
        data = {"batch": {"id": batch_id, "status": status}, "watch": watch, "padding": "x" * 600}
        yield events, {
            "seq": seq, "id": f"evt_{seq:032x}", "type": type_, "watch": watch,
            "batch_id": batch_id, "subject": subject, "transition": 1, "occurred_at": moment,
            "payload": json.dumps({"type": type_, "timestamp": "", "data": data}),
        }  # fmt: skip
        yield deliveries, {
            "id": seq, "event_seq": seq, "endpoint": endpoint, "subject": subject,
            "state": state, "attempts": 1, "due_at": moment, "created_at": moment,
            "settled_at": moment + timedelta(milliseconds=80),
            "reason": "1 try failed" if state == "dead" else None,
        }  # fmt: skip
        yield attempts, {
            "delivery_id": seq, "number": 1, "started_at": moment,
            "duration_ms": dice.uniform(5, 90), "status_code": 500 if state == "dead" else 204,
            "failure": "http" if state == "dead" else None,
        }  # fmt: skip


def _file(position: int) -> Row:
    failed = position % 50 == 0
    return {
        "watch": WATCHES[0], "batch_id": NEWEST, "position": position,
        "source_directory_file_id": f"dfl-{position:06d}", "job_type": "parse_v2",
        "job_id": f"pjb-{position:06d}", "job_status": "FAILED" if failed else "COMPLETED",
        "job_error": f"page {position} cannot be read" if failed else None,
    }  # fmt: skip


def the_moment() -> datetime:
    """The true time: what is asked for today must be there."""
    return datetime.now(UTC)
