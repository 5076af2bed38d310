"""A store that an older version made is taken over with all that is in it."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from batchwatch.domain.batch import PENDING, RUNNING, WatchName
from batchwatch.domain.delivery import Attempt, DeliveryId, Settled, State
from batchwatch.domain.watch import Trouble, Work
from batchwatch.store import Database
from batchwatch.store.migrations import upgrade
from batchwatch.store.schema import HEAD, to_micros
from tests.store.conftest import HOOK, Store
from tests.support.builders import WATCH, a_look, at

if TYPE_CHECKING:
    from pathlib import Path

REASON = 'LlamaCloud refuses the key ("401"): söt LLAMA_CLOUD_API_KEY'
WATCHES: dict[str, tuple[int, float | None, str | None]] = {  # failures, since, reason
    "default": (7, 120.25, REASON),
    "new": (1, 60.0, "timeout"),
    "well": (0, None, None),
    "odd": (3, None, None),
}


def insert(raw: sqlite3.Connection, table: str, **row: Any) -> None:
    statement = sa.insert(sa.table(table, *map(sa.column, row)))
    raw.execute(str(statement.compile(dialect=sqlite.dialect())), [*row.values()])


def micros(second: float) -> int:
    return to_micros(at(second))


def make(path: Path) -> None:
    """A store as 0001 had it: watches that fail, active batches, and deliveries in each state."""
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        upgrade(connection, to="0001")
    engine.dispose()
    with closing(sqlite3.connect(path)) as raw, raw:
        for name, (failures, since, reason) in WATCHES.items():
            insert(
                raw,
                "watches",
                name=name,
                started_at=micros(0),
                cursor=micros(50),
                baseline_done=True,
                failures=failures,
                failing_since=None if since is None else micros(since),
                failing_reason=reason,
            )
        for number, status in enumerate(("PENDING", "RUNNING", "COMPLETED"), 1):
            insert(
                raw,
                "batches",
                watch="default",
                id=f"bat-{number}",
                status=status,
                fingerprint="x",
                revision=1,
                active=status != "COMPLETED",
                created_at=micros(number),
                first_seen_at=micros(0),
                changed_at=micros(number),
                lasted="{}",
                misses=0,
                results_asks=0,
            )
            insert(
                raw,
                "events",
                seq=number,
                id=f"evt_{number}",
                type=f"batch.{status.lower()}",
                watch="default",
                batch_id=f"bat-{number}",
                subject=f"default/bat-{number}",
                transition=1,
                occurred_at=micros(number),
                payload=f'{{"n":{number}}}',
            )
        for number, state in enumerate(("pending", "dead", "delivered"), 1):
            insert(
                raw,
                "deliveries",
                id=number,
                event_seq=number,
                endpoint="hook",
                subject=f"default/bat-{number}",
                state=state,
                attempts=number,
                due_at=micros(0),
                created_at=micros(0),
                settled_at=None if state == "pending" else micros(9),
            )


@pytest.fixture
def old_url(tmp_path: Path) -> str:
    make(tmp_path / "old.db")
    return f"sqlite+aiosqlite:///{tmp_path / 'old.db'}"


async def test_what_ails_a_watch_is_carried_over(old_url: str) -> None:
    """Since when, how often and why; told of only where it had been told of by then."""
    database = await Database.open(old_url)
    store = Store(database)
    states = {}
    for name in WATCHES:
        states[name] = await store.watches.state(WatchName(name))
    await database.close()

    told = Trouble(since=at(120.25), failures=7, reason=REASON)
    assert states["default"] is not None
    assert ({Work.DISCOVERY: told}, told) == (states["default"].troubles, states["default"].alarm)
    assert (at(0), at(50), True) == (
        states["default"].started_at,
        states["default"].cursor,
        states["default"].baseline_done,
    )
    assert states["new"] is not None
    assert ({Work.DISCOVERY: Trouble(at(60), 1, "timeout")}, None) == (
        states["new"].troubles,
        states["new"].alarm,
    )
    assert states["well"] is not None
    assert ({}, None) == (states["well"].troubles, states["well"].alarm)
    assert states["odd"] is not None
    assert (3, "") == (
        states["odd"].troubles[Work.DISCOVERY].failures,
        states["odd"].troubles[Work.DISCOVERY].reason,
    )


async def test_a_watch_that_failed_recovers_and_says_so(old_url: str) -> None:
    """The alarm of before is the one that is called off."""
    database = await Database.open(old_url)
    store = Store(database)
    state = await store.watches.passed(WATCH, a_look(0, 300), newest=at(60), now=at(300))
    claimed = await store.at(300).outbox.claim(HOOK, limit=9)
    await database.close()

    assert ({}, None) == (state.troubles, state.alarm)
    assert ["batch.pending", "watch.recovered"] == [one.type for one in claimed]
    assert REASON == json.loads(claimed[-1].payload)["data"]["reason"]


async def test_what_was_owed_is_owed_and_what_was_dead_can_be_replayed(old_url: str) -> None:
    """Under the ids that they had, with their tries counted on."""
    database = await Database.open(old_url)
    store = Store(database)
    (first,) = await store.at(9).outbox.claim(HOOK, limit=9)
    attempt = Attempt(at(9), 0.1, status_code=204)
    await store.outbox.settle([Settled(first, attempt, State.DELIVERED)])
    assert 1 == await store.outbox.replay([DeliveryId(2)])
    (again,) = await store.outbox.claim(HOOK, limit=9)
    depths = {(one.state, one.count) for one in await store.views.outbox()}
    await database.close()

    assert ("evt_1", 2, 2, b'{"n":1}') == (
        first.event_id,
        first.attempt,
        first.turn,
        first.payload,
    )
    assert ("evt_2", 3, 1) == (again.event_id, again.attempt, again.turn)
    assert {("in_flight", 1)} == depths


async def test_active_batches_are_followed_on(old_url: str) -> None:
    """And only those."""
    database = await Database.open(old_url)
    store = Store(database)
    shares = await store.batches.due(WATCH, seen=())
    unseen = await store.batches.unseen(WATCH, seen=[])
    rows = await store.views.batches()
    await database.close()

    assert {PENDING: 1, RUNNING: 1} == {share.status: share.due for share in shares}
    assert ["bat-1", "bat-2"] == sorted(unseen)
    assert 3 == len(rows)


async def test_it_is_migrated_once(old_url: str) -> None:
    """The second opening finds nothing to do, and a reader may look at it then."""
    for _ in range(2):
        await (await Database.open(old_url)).close()
    database = await Database.open(old_url, exclusive=False)
    store = Store(database)
    state = await store.watches.state(WATCH)
    async with database.read() as connection:
        found = await connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
        broken = (await connection.exec_driver_sql("PRAGMA foreign_key_check")).all()
        whole = await connection.scalar(sa.text("PRAGMA integrity_check"))
    await database.close()

    assert state is not None
    assert state.alarm is not None
    assert (HEAD, [], "ok") == (found, broken, whole)


async def test_a_migration_that_breaks_off_leaves_the_store_as_it_was(
    old_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it is one transaction; with the cause gone, it goes through."""

    def full(connection: sa.Connection) -> None:
        upgrade(connection)
        raise OSError("the power fails here")

    monkeypatch.setattr("batchwatch.store.migrations.upgrade", full)
    with pytest.raises(OSError, match="the power fails here"):
        await Database.open(old_url)
    monkeypatch.undo()
    path = old_url.removeprefix("sqlite+aiosqlite:///")
    with closing(sqlite3.connect(path)) as raw:
        version = raw.execute("SELECT version_num FROM alembic_version").fetchone()
        failures = raw.execute("SELECT failures FROM watches WHERE name = 'default'").fetchone()

    assert (("0001",), (7,)) == (version, failures)
    await (await Database.open(old_url)).close()
