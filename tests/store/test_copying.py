"""A store that is copied into another is the same store, whatever happens on the way."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sqlite3
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from batchwatch.clock import Clock
from batchwatch.domain.batch import PENDING, EndpointName
from batchwatch.domain.hint import Hint
from batchwatch.store import Database, StoreError, copying
from batchwatch.store.copying import LEFT_BEHIND, Progress, opened
from batchwatch.store.errors import (
    SchemaTooNew,
    SchemaTooOld,
    StoreBusy,
    StoreInUse,
    StoreUnusable,
)
from batchwatch.store.leases import Leases
from batchwatch.store.migrations import upgrade
from batchwatch.store.schema import (
    HEAD,
    deliveries,
    events,
    file_outcomes,
    hints,
    metadata,
    watches,
)
from tests.store.conftest import HOOK, Store
from tests.support.builders import WATCH, a_sighting, at
from tests.support.daemon import ROOT
from tests.support.definitions import definitions
from tests.support.newer import make_newer
from tests.support.scenery import Scene, paint

if TYPE_CHECKING:
    from pathlib import Path

OPS = EndpointName("ops")


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in the middle of its life: owed, in flight, dead, stuck, doubted, disabled."""
    path = tmp_path_factory.mktemp("life") / "lived.db"
    asyncio.run(live(f"sqlite+aiosqlite:///{path}"))
    return path


async def live(url: str) -> None:
    await paint(url, Scene(batches=5, active=6, dislikes={"ops": 0.4}), now=at(0))
    database = await Database.open(url)
    store = Store(database, HOOK, OPS)
    await store.see(*(a_sighting(batch_id=f"new-{number}", updated=5) for number in range(9)))
    await store.see(a_sighting(PENDING, batch_id="new-1", updated=4), second=1)
    assert 4 == len(await store.at(2).outbox.claim(HOOK, limit=4))
    await store.hints.note(WATCH, Hint("evt-1", "batch.running", None, None), now=at(3))
    await store.endpoints.change(OPS, lambda record: record.disabled("410", now=at(4)))
    async with database.write() as connection:  # a number that was given, and is gone
        await connection.execute(sa.delete(hints))
        await database.nudge(connection)
    await database.close()


@pytest.fixture
def lived(life: Path, tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{shutil.copy(life, tmp_path)}"


async def copied(source: str, target: str) -> tuple[list[Progress], copying.Copy]:
    """Copy it, to the end."""
    async with opened(source, target) as job:
        return [one async for one in job.run()], job


async def contents(url: str) -> dict[str, set[tuple[Any, ...]]]:
    """All rows of all tables."""
    database = await Database.open(url, exclusive=False)
    async with database.read() as connection:
        found = {
            table.name: {tuple(row) for row in await connection.execute(sa.select(table))}
            for table in metadata.sorted_tables
        }
    await database.close()
    return found


def in_flight(found: dict[str, set[tuple[Any, ...]]]) -> set[tuple[Any, ...]]:
    """Take those out; without the one column of theirs that a copy changes."""
    names = [column.name for column in deliveries.columns]
    state, holder = names.index("state"), names.index("holder")
    taken = {row for row in found["deliveries"] if row[state] == "in_flight"}
    found["deliveries"] -= taken
    return {row[:holder] + row[holder + 1 :] for row in taken}


async def test_all_of_a_store_is_in_its_copy_and_in_the_copy_of_that(
    lived: str, store_url: str, tmp_path: Path
) -> None:
    """From one engine to the other, and the way back; what is copied stays as it was."""
    back = f"sqlite+aiosqlite:///{tmp_path / 'back.db'}"
    path = tmp_path / "lived.db"
    before = path.read_bytes()

    steps, job = await copied(lived, store_url)
    await copied(store_url, back)

    first, second, third = [await contents(url) for url in (lived, store_url, back)]
    assert before == path.read_bytes()
    assert {name: len(rows) for name, rows in first.items()} == job.rows
    assert {"copy", "index", "verify"} == {one.work for one in steps}
    flying = [in_flight(one) for one in (first, second, third)]
    assert 4 == len(flying[0])
    assert flying[0] == flying[1] == flying[2]
    assert first == second == third


async def test_a_copy_has_the_tables_of_a_store(lived: str, store_url: str) -> None:
    """With their keys and indices, as one that was made at once."""
    await copied(lived, store_url)

    database = await Database.open(store_url)
    async with database.write() as connection:
        ours = await definitions(database, connection)
        await connection.run_sync(metadata.drop_all)
        await connection.run_sync(metadata.create_all)
        assert ours == await definitions(database, connection)
    await database.close()


KILLED = """
import asyncio, os, signal
from batchwatch.store import copying

copying.MOST_ROWS = copying.FIRST_ROWS = 20
method = getattr(copying.Copy, {name!r})
calls = 0

async def armed(self, *given):
    global calls
    calls += 1
    if calls == {count}:
        os.kill(os.getpid(), signal.SIGKILL)
    return await method(self, *given)

setattr(copying.Copy, {name!r}, armed)

async def copy():
    async with copying.opened({source!r}, {target!r}) as job:
        async for _ in job.run():
            pass

asyncio.run(copy())
"""


@pytest.mark.parametrize(("name", "count"), [("_put", 12), ("_finish", 1)])
async def test_a_copy_that_is_killed_goes_on_where_it_was(
    lived: str, store_url: str, name: str, count: int
) -> None:
    """And until it has ended, no daemon takes what is half of a store."""
    script = KILLED.format(source=lived, target=store_url, name=name, count=count)
    killed = await asyncio.create_subprocess_exec(sys.executable, "-c", script, cwd=ROOT)
    assert -signal.SIGKILL == await killed.wait()
    for exclusive in (True, False):
        with pytest.raises(StoreUnusable, match="has not filled it yet; say the same copy again"):
            await Database.open(store_url, exclusive=exclusive)

    steps, _ = await copied(lived, store_url)

    first = next((one.done for one in steps if one.work == "copy"), None)
    assert first is None if name != "_put" else first is not None and first > 100
    ours, theirs = await contents(lived), await contents(store_url)
    assert in_flight(ours) == in_flight(theirs)
    assert ours == theirs


async def test_numbers_go_on_after_the_last_that_was_given(lived: str, store_url: str) -> None:
    """Whoever follows events by their place misses none, whatever was removed before the copy."""

    async def following(url: str) -> dict[str, int]:
        database = await Database.open(url)
        given = {}
        async with database.read() as connection:
            for table in metadata.sorted_tables:
                if (column := table.autoincrement_column) is not None:
                    given[table.name] = await database.last_number(connection, column)
        store = Store(database, HOOK)
        await store.hints.note(WATCH, Hint("evt-2", "batch.failed", None, None), now=at(9))
        await store.see(a_sighting(batch_id="another"), second=9)
        async with database.read() as connection:
            for column in (hints.c.id, events.c.seq, deliveries.c.id):
                made = await connection.scalar(sa.select(sa.func.max(column)))
                given[f"next {column}"] = made or 0
        await database.close()
        return given

    await copied(lived, store_url)

    theirs, ours = await following(store_url), await following(lived)
    assert ours == theirs
    assert (1, 2) == (ours["hints"], ours["next hints.id"])


async def test_what_was_in_flight_is_sent_by_whoever_comes(lived: str, store_url: str) -> None:
    """Its daemon is gone: nobody waits until its lease would have been over."""
    await copied(lived, store_url)

    database = await Database.open(store_url)
    store = Store(database, HOOK, OPS)
    async with database.read() as connection:
        holders = set(
            await connection.scalars(
                sa.select(deliveries.c.holder).where(deliveries.c.state == "in_flight")
            )
        )
    released = await (
        store.at(9).outbox.release() if database.is_shared else store.outbox.recover()
    )
    await database.close()

    assert ({LEFT_BEHIND}, 4) == (holders, released)


async def test_texts_that_postgresql_refuses_are_mended(lived: str, shared: str) -> None:
    """A NUL, which SQLite takes, is not lost in silence; an escaped one is none."""
    escaped = r'{"name": "a\u0000b"}'
    with closing(sqlite3.connect(lived.partition(":///")[2])) as raw, raw:
        raw.execute("UPDATE file_outcomes SET error_message = 'a' || char(0) || 'b' ")
        raw.execute("UPDATE events SET payload = ? WHERE seq = 1", [escaped])

    _, job = await copied(lived, shared)

    database = await Database.open(shared)
    async with database.read() as connection:
        messages = set(await connection.scalars(sa.select(file_outcomes.c.error_message)))
        payload = await connection.scalar(sa.select(events.c.payload).where(events.c.seq == 1))
    await database.close()
    assert ({"a\N{REPLACEMENT CHARACTER}b"}, escaped) == (messages, payload)
    assert job.rows["file_outcomes"] == job.replaced > 0


async def test_pages_of_long_texts_are_short(
    lived: str, file_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that memory is bounded, however much a store holds."""
    monkeypatch.setattr(copying, "FIRST_ROWS", 4)
    monkeypatch.setattr(copying, "SIZE", 10_000)
    with closing(sqlite3.connect(lived.partition(":///")[2])) as raw, raw:
        raw.execute("UPDATE events SET payload = printf('%.5000c', 'x')")

    steps, job = await copied(lived, file_url)

    written = [one for one in steps if one.work == "copy" and one.about == "events"]
    assert len(written) >= job.rows["events"] / 2 - 2


async def test_a_target_with_something_in_it_is_left_alone(lived: str, store_url: str) -> None:
    """A store, or something else; nothing is written there."""
    database = await Database.attach(store_url, lock=True, writes=True)
    async with database.write() as connection:
        await connection.execute(sa.text("CREATE TABLE invoices (id INTEGER)"))
    await database.close()
    with pytest.raises(StoreUnusable, match="something else"):
        await copied(lived, store_url)

    database = await Database.attach(store_url, lock=True, writes=True)
    async with database.write() as connection:
        await connection.execute(sa.text("DROP TABLE invoices"))
    await database.close()
    database = await Database.open(store_url)
    await Store(database).watches.begin(WATCH, now=at(0))
    await database.close()
    with pytest.raises(StoreUnusable, match="a store already, with rows in watches; name an empty"):
        await copied(lived, store_url)
    assert not (await contents(store_url))["events"]


async def test_a_target_that_was_only_made_is_filled(lived: str, store_url: str) -> None:
    """As by batchwatch migrate: there is nothing in it that could be lost."""
    await (await Database.open(store_url)).close()

    _, job = await copied(lived, store_url)

    assert job.rows["events"]
    assert job.rows["events"] == len((await contents(store_url))["events"])


async def test_a_source_that_a_daemon_uses_is_left_to_it(lived: str, store_url: str) -> None:
    """On either engine; a daemon that stops lets go of it."""
    daemon = await Database.open(lived)
    with pytest.raises(StoreInUse, match="another batchwatch uses this store"):
        await copied(lived, store_url)
    await daemon.close()
    await copied(lived, store_url)

    daemon = await Database.open(store_url)
    await Leases(daemon, Clock(), replica="one-1").beat()
    with pytest.raises(StoreInUse, match="one-1" if daemon.is_shared else "another batchwatch"):
        await copied(store_url, lived.replace("lived", "back"))
    await daemon.close()


async def test_another_schema_is_not_copied(lived: str, file_url: str, tmp_path: Path) -> None:
    """Of an older one something would be missing, of a newer one something lost."""
    older = f"sqlite+aiosqlite:///{tmp_path / 'older.db'}"
    database = await Database.attach(older, lock=True, writes=True)
    async with database.write() as connection:
        await connection.run_sync(lambda sync: upgrade(sync, to="0005"))
    await database.close()
    with pytest.raises(SchemaTooOld, match=r"0005.*batchwatch migrate"):
        await copied(older, file_url)

    database = await Database.open(lived)
    async with database.write() as connection:
        await make_newer(connection, oldest=HEAD)
    await database.close()
    with pytest.raises(SchemaTooNew, match=r"9999.*copy it with the newer version"):
        await copied(lived, file_url)


async def test_a_source_that_was_used_since_a_copy_began_is_noticed(
    lived: str, file_url: str
) -> None:
    """Of what was there already, a copy that goes on would bring what is no longer true."""
    async with opened(lived, file_url) as job:
        async for _ in job.run():
            break
    database = await Database.open(lived)
    async with database.write() as connection:
        await database.nudge(connection)
    await database.close()

    with pytest.raises(StoreUnusable, match=r"lived\.db was used since; remove what is in"):
        await copied(lived, file_url)


async def test_what_is_not_the_same_in_the_end_is_no_store(lived: str, file_url: str) -> None:
    """Though the numbers of rows agree: it is told which table, and no daemon takes it."""

    async def copied_and_changed() -> None:
        async with opened(lived, file_url) as job:
            async for one in job.run():
                if one.work == "index" and one.done == one.total:
                    async with job.target.write() as connection:
                        await connection.execute(sa.update(watches).values(scope="{}"))

    with pytest.raises(StoreError, match=r"watches is not what .*lived\.db has"):
        await copied_and_changed()
    with pytest.raises(StoreUnusable, match="has not filled it yet"):
        await Database.open(file_url)


async def test_two_copies_into_one_target_notice_each_other(lived: str, shared: str) -> None:
    """Neither writes what the other has written."""
    async with opened(lived, shared) as first:
        source = await first._look_at_the_source()  # noqa: SLF001  # as another process would
        state = await first._begin(source)  # noqa: SLF001
        steps = first.run()
        await anext(steps)
        with pytest.raises(StoreBusy, match="another copy fills it"):
            await first._put(watches, [], state)  # noqa: SLF001
        await steps.aclose()
