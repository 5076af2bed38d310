"""Opening the store: the lock, the schema, and what can be wrong with a file."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from batchwatch.domain.batch import WatchName
from batchwatch.domain.delivery import DeliveryId
from batchwatch.store import Database, StoreError, Views
from batchwatch.store.errors import (
    SchemaTooOld,
    StoreBusy,
    StoreFull,
    StoreInUse,
    StoreUnusable,
)
from tests.store.conftest import HOOK, Store
from tests.support.builders import WATCH, a_sighting, at
from tests.support.daemon import ROOT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator


def path_of(url: str) -> Path:
    return Path(url.removeprefix("sqlite+aiosqlite:///"))


async def say(url: str, statement: str) -> None:
    """Have it executed past the store."""
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.execute(sa.text(statement))
    await engine.dispose()


async def test_one_daemon_for_one_file(file_url: str) -> None:
    """The second is told who has it and what to do."""
    database = await Database.open(file_url)

    with pytest.raises(StoreInUse, match=rf"process {os.getpid()}.*BATCHWATCH_DATA_DIR"):
        await Database.open(file_url)

    reader = await Database.open(file_url, exclusive=False)
    await reader.close()
    await database.close()
    await (await Database.open(file_url)).close()


async def test_the_lock_of_a_killed_daemon_is_free(file_url: str) -> None:
    """However a process ends, the kernel lets go of what it held."""
    script = (
        "import asyncio, os, signal\n"
        "from batchwatch.store import Database\n"
        f"asyncio.run(Database.open({file_url!r}))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = await asyncio.create_subprocess_exec(sys.executable, "-c", script)
    assert -signal.SIGKILL == await killed.wait()

    await (await Database.open(file_url)).close()


async def test_somebody_elses_database_is_left_alone(store_url: str) -> None:
    """No table of ours is put beside theirs."""
    await say(store_url, "CREATE TABLE invoices (id INTEGER)")

    with pytest.raises(StoreUnusable, match="something else"):
        await Database.open(store_url)


async def test_a_file_that_is_no_database_is_named(file_url: str) -> None:
    """It is not overwritten."""
    path_of(file_url).write_bytes(b"Dear diary, " * 999)

    with pytest.raises(StoreUnusable, match="not a database"):
        await Database.open(file_url)
    assert path_of(file_url).read_bytes().startswith(b"Dear diary")


async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """With the variable that says where it should be."""
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(StoreUnusable, match="BATCHWATCH_DATA_DIR"):
        await Database.open(f"sqlite+aiosqlite:///{tmp_path}/file/batchwatch.db")


async def test_reading_before_the_daemon_ever_ran_is_told(file_url: str) -> None:
    """And makes no empty file that would look like a store."""
    with pytest.raises(StoreUnusable, match="has the daemon ever run"):
        await Database.open(file_url, exclusive=False)
    assert not path_of(file_url).exists()


@pytest.fixture
def somebody() -> Iterator[None]:
    """The test is run by a user that owns nothing, even if root has called it."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield
    os.seteuid(user)


@pytest.fixture
async def kept() -> AsyncIterator[str]:
    """A store with a watch in it; everybody may read it and its folder, and nobody may write."""
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to others
        url = f"sqlite+aiosqlite:///{folder}/batchwatch.db"
        database = await Database.open(url)
        await Store(database).watches.begin(WATCH, now=at(0))
        await database.close()
        path_of(url).chmod(0o444)
        path_of(url).parent.chmod(0o555)
        yield url
        path_of(url).parent.chmod(0o755)


@pytest.mark.usefixtures("somebody")
async def test_a_store_can_be_read_by_who_may_not_write_it(kept: str) -> None:
    """Neither into the file nor beside it: a colleague, or a copy on a read-only disk."""
    database = await Database.open(kept, exclusive=False)
    try:
        assert ["default"] == [one["name"] for one in await Views(database).watches()]
    finally:
        await database.close()


async def test_a_reader_leaves_nothing_behind(file_url: str) -> None:
    """No log that only its own user could write, and that the daemon would find in its way."""
    await (await Database.open(file_url)).close()
    before = set(path_of(file_url).parent.iterdir())

    database = await Database.open(file_url, exclusive=False)
    await Views(database).watches()
    await database.close()

    assert before == set(path_of(file_url).parent.iterdir())


async def test_a_reader_sees_what_a_killed_daemon_wrote_last(file_url: str) -> None:
    """It is in the log beside the file, until the next start."""
    script = (
        "import asyncio, os, signal\n"
        "from tests.store.conftest import Store\n"
        "from tests.support.builders import WATCH, at\n"
        "from batchwatch.store import Database\n"
        "async def write():\n"
        f"    database = await Database.open({file_url!r})\n"
        "    await Store(database).watches.begin(WATCH, now=at(0))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(write())\n"
    )
    killed = await asyncio.create_subprocess_exec(sys.executable, "-c", script, cwd=ROOT)
    assert -signal.SIGKILL == await killed.wait()

    database = await Database.open(file_url, exclusive=False)
    assert ["default"] == [one["name"] for one in await Views(database).watches()]
    await database.close()


async def test_a_store_that_this_user_may_not_read_is_told(file_url: str) -> None:
    """With whom to ask as, and not as a store that is not there."""
    await (await Database.open(file_url)).close()
    folder = path_of(file_url).parent
    folder.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(StoreUnusable, match="as the user that runs the daemon"):
            await Database.open(file_url, exclusive=False)
    finally:
        os.seteuid(user)
        folder.chmod(0o755)


async def test_what_is_made_is_for_its_user_alone(tmp_path: Path) -> None:
    """Results and answers of receivers are nobody else's business, whatever the umask is."""
    umask = os.umask(0)
    try:
        database = await Database.open(f"sqlite+aiosqlite:///{tmp_path}/data/batchwatch.db")
        await Store(database).watches.begin(WATCH, now=at(0))
        made = {one.name: one.stat().st_mode & 0o777 for one in (tmp_path / "data").iterdir()}
        await database.close()
    finally:
        os.umask(umask)

    assert 0o700 == (tmp_path / "data").stat().st_mode & 0o777
    assert {"batchwatch.db", "batchwatch.db-wal"} <= made.keys()
    assert {0o600} == set(made.values())


async def test_a_reader_leaves_an_older_schema_to_the_daemon(file_url: str) -> None:
    """Nothing is migrated by a look."""
    path_of(file_url).touch()

    with pytest.raises(SchemaTooOld, match="start the daemon"):
        await Database.open(file_url, exclusive=False)
    assert b"" == path_of(file_url).read_bytes()


async def test_a_full_disk_is_said_and_mends_itself(file_url: str) -> None:
    """Nothing of the transaction is written; with room again, the same goes through."""
    database = await Database.open(file_url)
    store = Store(database)
    async with database.write() as connection:
        pages = await connection.scalar(sa.text("PRAGMA page_count"))
    await _limit(database, pages)
    with pytest.raises(StoreFull, match=r"full.*make room"):
        await _write_much(database)
    await _limit(database, 1_000_000)

    assert at(0) == (await store.watches.begin(WATCH, now=at(0))).started_at
    await database.close()


async def _write_much(database: Database) -> None:
    async with database.write() as connection:
        await connection.execute(sa.text("CREATE TABLE big AS SELECT zeroblob(9000000) AS b"))


async def _limit(database: Database, pages: int) -> None:
    """Make the database itself refuse to grow, in every connection, as a full disk would."""
    async with database.read() as one, database.read() as two:
        for connection in (one, two):
            await connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")


async def test_a_database_that_another_process_holds_is_said(
    file_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """We wait a while, and then say what is in the way."""
    monkeypatch.setattr(
        "batchwatch.store.engine._PRAGMAS", ("PRAGMA journal_mode = WAL", "PRAGMA busy_timeout = 0")
    )
    database = await Database.open(file_url)
    raw = sqlite3.connect(path_of(file_url), isolation_level=None)
    raw.execute("BEGIN IMMEDIATE")

    with pytest.raises(StoreBusy, match="another process holds it"):
        async with database.write():
            pass

    raw.close()
    async with database.write():
        pass
    await database.close()


async def test_a_store_without_its_permissions_is_said(file_url: str) -> None:
    """A read-only database is told like a full disk: nothing was written, and it may pass."""
    database = await Database.open(file_url)
    store = Store(database)
    async with database.read() as connection:
        await connection.exec_driver_sql("PRAGMA query_only = ON")
    with pytest.raises(StoreError, match="writable"):
        await store.watches.begin(WATCH, now=at(0))
    await database.close()


async def test_foreign_keys_hold_and_commits_are_synced(file_url: str) -> None:
    """The outbox is a promise: FULL is 2. Orphans are refused by the database itself."""
    database = await Database.open(file_url)
    async with database.read() as connection:
        asked = [
            await connection.scalar(sa.text(f"PRAGMA {name}"))
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    await database.close()

    assert ["wal", 2, 1] == asked


async def test_a_writer_that_is_cancelled_leaves_nothing_locked(made_url: str) -> None:
    """At whatever moment: its transaction ends, and the next one can begin."""
    dice = random.Random(1)
    database = await Database.open(made_url)
    watches = Store(database).watches
    for number in range(60):
        writing = asyncio.create_task(watches.begin(WatchName(f"watch-{number}"), now=at(0)))
        for _ in range(dice.randint(0, 40)):
            await asyncio.sleep(0)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)

        async with asyncio.timeout(4):  # less than the database waits for a lock
            await watches.begin(WATCH, now=at(0))
    await database.close()


async def test_a_claim_that_is_cancelled_leaves_nothing_locked(made_url: str) -> None:
    """As a writer's, in its single statement; what it took is under its lease, and no more."""
    dice = random.Random(2)
    database = await Database.open(made_url)
    store = Store(database)
    await store.watches.begin(WATCH, now=at(0))
    await store.see(*(a_sighting(batch_id=f"bat-{number}") for number in range(60)))
    claimed = 0
    for _ in range(60):
        claiming = asyncio.create_task(store.outbox.claim(HOOK, limit=1))
        for _ in range(dice.randint(0, 20)):
            await asyncio.sleep(0)
        claiming.cancel()
        await asyncio.gather(claiming, return_exceptions=True)

        async with asyncio.timeout(4):  # less than the database waits for a lock
            claimed += len(await store.outbox.claim(HOOK, limit=1))
    depths = {one.state: one.count for one in await store.views.outbox()}
    await database.close()

    assert 60 == depths["in_flight"] + depths.get("pending", 0)
    assert 0 < claimed <= depths["in_flight"]


async def test_a_reader_that_is_cancelled_costs_no_connection(file_url: str) -> None:
    """There are few of them, and the next question needs one."""
    dice = random.Random(3)
    database = await Database.open(file_url)
    views = Views(database)
    for _ in range(60):
        asking = asyncio.create_task(views.outbox())
        for _ in range(dice.randint(0, 20)):
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)

    async with asyncio.timeout(4):
        await asyncio.gather(*(views.outbox() for _ in range(20)))
        await Store(database).watches.begin(WATCH, now=at(0))
    await database.close()


def contents(folder: Path) -> dict[str, bytes]:
    """What is in the store's files; who reads and writes at the moment is no part of it."""
    return {one.name: one.read_bytes() for one in folder.iterdir() if one.suffix != ".db-shm"}


@pytest.mark.parametrize("becomes", ["replaced", "moved away"])
async def test_a_store_whose_file_is_gone_writes_no_more(file_url: str, becomes: str) -> None:
    """SQLite would go on, and all of it would be gone with the process; put back, it goes on."""
    database = await Database.open(file_url)
    store = Store(database)
    await store.watches.begin(WATCH, now=at(0))
    await store.see(a_sighting())
    path = path_of(file_url)
    kept = path.with_name("kept.db")
    path.rename(kept)
    if becomes == "replaced":
        path.write_bytes(kept.read_bytes())
    before = contents(path.parent)

    tries: list[Callable[[], Coroutine[object, object, object]]] = [
        lambda: store.see(a_sighting(batch_id="bat-2")),
        lambda: store.outbox.claim(HOOK, limit=9),
        lambda: store.outbox.give_back([DeliveryId(1)]),
        lambda: store.outbox.replay([DeliveryId(1)]),
        lambda: store.watches.begin(WATCH, now=at(9)),
        store.views.outbox,
        database.tidy,
    ]
    for attempt in tries:
        with pytest.raises(StoreUnusable, match=r"removed or replaced.*restart batchwatch"):
            await attempt()

    assert before == contents(path.parent)
    kept.replace(path)
    assert 1 == len(await store.outbox.claim(HOOK, limit=9))
    await database.close()


KILLED = """
import asyncio, os, signal
import sqlalchemy as sa
from batchwatch.store import Database

async def work():
    database = await Database.open({url!r})
    async with database.{way} as connection:
        row = dict(name="default", started_at=0, baseline_done=0)
        await connection.execute(sa.insert(sa.table("watches", *map(sa.column, row))), row)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(work())
"""


@pytest.mark.parametrize("way", ["write(durable=False)", "write_one()", "write()"])
async def test_what_is_committed_is_there_after_a_kill(file_url: str, way: str) -> None:
    """Also what does not wait for the disk: the log is the kernel's, whatever becomes of us."""
    script = KILLED.format(url=file_url, way=way)
    killed = await asyncio.create_subprocess_exec(sys.executable, "-c", script, cwd=ROOT)
    assert -signal.SIGKILL == await killed.wait()

    database = await Database.open(file_url)
    assert ["default"] == [one["name"] for one in await Views(database).watches()]
    await database.close()


async def test_each_use_is_timed_by_its_kind(file_url: str) -> None:
    """For a metric; a use that fails took its time as well."""
    uses: list[str] = []

    @contextmanager
    def timed(kind: str) -> Iterator[None]:
        try:
            yield
        finally:
            uses.append(kind)

    database = await Database.open(file_url)
    database.timed = timed
    async with database.read():
        pass
    async with database.write():
        pass
    async with database.write_one():
        pass
    with pytest.raises(ValueError, match="no"):
        async with database.write():
            raise ValueError("no")
    await database.close()

    assert ["read", "write", "write", "write"] == uses
