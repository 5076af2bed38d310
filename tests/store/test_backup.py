"""A backup is all of one moment, whole or not there, and takes nobody's place."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from batchwatch.domain.batch import RUNNING
from batchwatch.store import Database, backup
from batchwatch.store.backup import ROOM, back_up
from batchwatch.store.errors import BackupRefused, StoreError, StoreUnusable
from batchwatch.store.schema import HEAD, batches, deliveries, events
from tests.store.conftest import Store
from tests.support.builders import WATCH, a_sighting, at

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def full(file_url: str) -> AsyncIterator[Store]:
    """A store that is in use, with one event."""
    store = Store(await Database.open(file_url))
    await store.watches.begin(WATCH, now=at(0))
    await store.see(a_sighting(batch_id="bat-0"))
    yield store
    await store.database.close()


@pytest.fixture
def to(tmp_path: Path) -> Path:
    """In a folder of its own, so that it can be seen what else is left there."""
    folder = tmp_path / "backups"
    folder.mkdir()
    return folder / "batchwatch.backup"


def only(to: Path) -> list[str]:
    return sorted(one.name for one in to.parent.iterdir())


async def test_what_was_committed_is_in_it(full: Store, file_url: str, to: Path) -> None:
    """Also what stands in the log alone; in one file, for its user alone."""
    done = await asyncio.to_thread(back_up, file_url, to)

    assert [to.name] == only(to)
    assert 0o600 == to.stat().st_mode & 0o777
    assert (to, to.stat().st_size, HEAD) == (done.file, done.bytes, done.schema)
    assert {"batches": 1, "events": 2, "deliveries": 1} == done.counts
    copy = await Database.open(f"sqlite+aiosqlite:///{to}", exclusive=False)
    async with copy.read() as connection:
        assert ["bat-0"] == list(await connection.scalars(sa.select(batches.c.id)))
    await copy.close()
    assert [to.name] == only(to)
    assert (await full.views.batches())[0]["id"] == "bat-0"


async def test_it_is_of_one_moment_however_much_is_written_meanwhile(
    full: Store, file_url: str, to: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends, and no batch is in it without its event and its delivery."""
    monkeypatch.setattr(backup, "PAGES", 1)
    loop = asyncio.get_running_loop()
    told: list[tuple[str, int, int]] = []
    written = 0

    async def write() -> None:
        nonlocal written
        written += 1
        await full.see(a_sighting(batch_id=f"bat-{written}"))

    def tell(what: str, done: int, all_: int) -> None:
        told.append((what, done, all_))
        if what == "copied":
            asyncio.run_coroutine_threadsafe(write(), loop).result(20)

    done = await asyncio.to_thread(back_up, file_url, to, tell=tell)

    steps = [one for one in told if one[0] == "copied"]
    assert steps[-1][1:] == (steps[-1][2], steps[-1][2])
    assert len(steps) == steps[-1][2] == written
    assert [("checked", 0, 1), ("checked", 1, 1)] == told[len(steps) :]
    assert {"batches": 1, "events": 2, "deliveries": 1} == done.counts
    async with full.database.read() as connection:
        count = sa.select(sa.func.count()).select_from(deliveries)
        assert written + 1 == await connection.scalar(count)


async def test_places_of_events_go_on_far_beyond_those_that_anybody_has_seen(
    full: Store, file_url: str, to: Path
) -> None:
    """Whoever remembers a place from after the backup passes over nothing that is told then."""
    await asyncio.to_thread(back_up, file_url, to)
    await full.see(a_sighting(batch_id="bat-lost"))
    remembered = await full.pages.last_event()
    restored = Store(await Database.open(f"sqlite+aiosqlite:///{to}"))
    await restored.see(a_sighting(batch_id="bat-new"))
    async with restored.database.read() as connection:
        of_new = sa.select(events.c.seq).where(events.c.batch_id == "bat-new")
        places = list(await connection.scalars(of_new))
    await restored.database.close()

    assert 4 == remembered
    assert [2 + ROOM + 1, 2 + ROOM + 2] == sorted(places)


async def test_also_where_no_event_was_told_before(file_url: str, to: Path) -> None:
    """The very first one is far beyond, too."""
    await (await Database.open(file_url)).close()
    await asyncio.to_thread(back_up, file_url, to)
    restored = Store(await Database.open(f"sqlite+aiosqlite:///{to}"))
    await restored.watches.begin(WATCH, now=at(0))
    await restored.see(a_sighting())
    last = await restored.pages.last_event()
    await restored.database.close()

    assert ROOM + 2 == last


async def test_nothing_is_written_over_unless_that_is_said(
    full: Store, file_url: str, to: Path
) -> None:
    """And then it is whole all the time: the old one, or the new one."""
    to.write_text("mine")
    with pytest.raises(BackupRefused, match="there is such a file; name another one, or say"):
        await asyncio.to_thread(back_up, file_url, to)
    assert "mine" == to.read_text()

    await full.see(a_sighting(RUNNING, batch_id="bat-2"))
    done = await asyncio.to_thread(back_up, file_url, to, overwrite=True)
    assert (2, [to.name]) == (done.counts["batches"], only(to))


@pytest.mark.parametrize("end", ["", "-wal", "-shm", ".lock"])
async def test_the_store_itself_is_never_written_over(
    full: Store, file_url: str, tmp_path: Path, end: str
) -> None:
    """Whatever is said, and by whatever way it is named."""
    link = tmp_path / "link"
    link.symlink_to(full.database.where + end)
    for to in (link, Path(full.database.where + end)):
        with pytest.raises(BackupRefused, match="this is the store itself"):
            await asyncio.to_thread(back_up, file_url, to, overwrite=True)


async def test_a_name_that_can_be_none_is_refused(full: Store, file_url: str, to: Path) -> None:
    """In words that say what to do."""
    del full
    with pytest.raises(BackupRefused, match="this is a folder; name a file in it"):
        back_up(file_url, to.parent)
    with pytest.raises(BackupRefused, match="there is no such folder; make it first"):
        back_up(file_url, to / "there")


async def test_a_copy_that_is_interrupted_or_damaged_leaves_nothing(
    full: Store, file_url: str, to: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody takes half of a backup for one; the one of before is still there."""
    to.write_text("mine")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await asyncio.to_thread(back_up, file_url, to, overwrite=True, tell=interrupted)
    assert ("mine", [to.name]) == (to.read_text(), only(to))

    spoil = backup._checked  # noqa: SLF001  # between the two steps

    def spoiled(file: Path, *more: object) -> object:
        size = file.stat().st_size
        with file.open("r+b") as raw:
            raw.seek(size // 2)
            raw.write(os.urandom(size // 2))
        return spoil(file, *more)  # type: ignore[arg-type]  # as it was given

    monkeypatch.setattr(backup, "_checked", spoiled)
    with pytest.raises(StoreError):
        await asyncio.to_thread(back_up, file_url, to, overwrite=True)
    assert ("mine", [to.name]) == (to.read_text(), only(to))
    assert (await full.views.batches())[0]["id"] == "bat-0"


async def test_what_is_no_store_is_not_copied(tmp_path: Path, to: Path) -> None:
    """Nor is one made where there is none."""
    missing, other = tmp_path / "missing.db", tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as raw:
        raw.execute("CREATE TABLE theirs (x)")
    for path, says in ((missing, "there is no store yet"), (other, "no store of batchwatch")):
        with pytest.raises(StoreUnusable, match=says):
            await asyncio.to_thread(back_up, f"sqlite+aiosqlite:///{path}", to)
    assert ([], False) == (only(to), missing.exists())
