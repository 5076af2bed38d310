"""``batchwatch migrate`` and ``batchwatch copy``: what they say, and with which exit code."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from batchwatch.cli.progress import PACE, Work
from batchwatch.store import Database
from batchwatch.store.migrations import upgrade
from batchwatch.store.schema import HEAD
from tests.store.conftest import Store
from tests.support.builders import WATCH, a_sighting, at
from tests.support.clock import ManualClock
from tests.support.newer import make_newer
from tests.unit.commands import called

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result


async def make(path: Path, *, version: str | None = None, newer: bool = False) -> None:
    """A store; with ``version`` as an older batchwatch left it."""
    url = f"sqlite+aiosqlite:///{path}"
    if version is not None:
        database = await Database.attach(url, lock=True, writes=True)
        async with database.write() as connection:
            await connection.run_sync(lambda sync: upgrade(sync, to=version))
    else:
        database = await Database.open(url)
        store = Store(database)
        await store.watches.begin(WATCH, now=at(0))
        await store.see(*(a_sighting(batch_id=f"bat-{number}") for number in range(3)))
        if newer:
            async with database.write() as connection:
                await make_newer(connection, oldest=HEAD)
    await database.close()


def migrated(folder: Path, *more: str) -> Result:
    return called("migrate", *more, environ={"BATCHWATCH_DATA_DIR": str(folder)})


def test_an_older_store_is_migrated_and_it_is_said_from_where(tmp_path: Path) -> None:
    """What is to be done can be known before, and is known by the exit code."""
    asyncio.run(make(tmp_path / "batchwatch.db", version="0004"))

    before = migrated(tmp_path, "--check")
    done = migrated(tmp_path)
    again = migrated(tmp_path, "--check")

    path = tmp_path / "batchwatch.db"
    assert (1, f"{path}: its schema is 0004; batchwatch migrate brings it to {HEAD}\n") == (
        before.exit_code,
        before.stdout,
    )
    assert (0, f"{path}: migrated from the schema 0004 to {HEAD}\n") == (
        done.exit_code,
        done.stdout,
    )
    assert (0, f"{path}: its schema is {HEAD}; nothing to do\n") == (again.exit_code, again.stdout)


def test_programs_are_told_the_same(tmp_path: Path) -> None:
    """From which, to which, and whether something is left to do; from null: it was not there."""
    path = tmp_path / "batchwatch.db"
    before = migrated(tmp_path, "--check", "--json")
    assert not path.exists()
    made = migrated(tmp_path, "--json")
    again = migrated(tmp_path, "--json")

    told = {"store": str(path), "from": None, "to": HEAD}
    assert (1, told | {"pending": True}) == (before.exit_code, json.loads(before.stdout))
    assert (0, told | {"pending": False}) == (made.exit_code, json.loads(made.stdout))
    assert told | {"from": HEAD, "pending": False} == json.loads(again.stdout)


async def test_a_daemon_that_has_the_store_is_named(tmp_path: Path) -> None:
    """It is up to date then; only an older one stands in the way."""
    path = tmp_path / "batchwatch.db"
    await make(path, version="0004")
    daemon = await Database.attach(f"sqlite+aiosqlite:///{path}", lock=True, writes=True)
    refused = await asyncio.to_thread(migrated, tmp_path)
    await daemon.close()
    assert 1 == refused.exit_code
    assert "another batchwatch uses this store (process" in refused.stderr

    daemon = await Database.open(f"sqlite+aiosqlite:///{path}")
    assert 0 == (await asyncio.to_thread(migrated, tmp_path)).exit_code
    await daemon.close()


def test_a_newer_store_that_can_be_used_is_nothing_to_do(tmp_path: Path) -> None:
    """And one that cannot is trouble."""
    path = tmp_path / "batchwatch.db"
    asyncio.run(make(path, newer=True))

    result = migrated(tmp_path)

    told = f"{path}: its schema is 9999, newer than {HEAD}, and can be used; nothing to do\n"
    assert (0, told) == (result.exit_code, result.stdout)


def test_a_store_is_copied_to_the_one_that_is_set(tmp_path: Path) -> None:
    """Its counts for people, and what to do next; progress does not mix with it."""
    asyncio.run(make(tmp_path / "old.db"))
    environ = {"BATCHWATCH_DATABASE_URL": f"sqlite:///{tmp_path}/new.db"}

    result = called("copy", "--from", f"sqlite:///{tmp_path}/old.db", environ=environ)

    assert 0 == result.exit_code
    lines = result.stdout.splitlines()
    assert ["batches", "3"] == next(one.split() for one in lines if one.startswith("batches"))
    assert lines[-1].startswith(f"{tmp_path}/new.db holds the same as {tmp_path}/old.db")
    assert "start the daemon" in lines[-1]
    assert "verify" in result.stderr
    assert "verify" not in result.stdout


def test_a_copy_tells_programs_what_it_copied(tmp_path: Path) -> None:
    """Also from the store that is set to another, which is the way back."""
    asyncio.run(make(tmp_path / "batchwatch.db"))
    environ = {"BATCHWATCH_DATA_DIR": str(tmp_path)}

    result = called("copy", "--to", f"sqlite:///{tmp_path}/new.db", "--json", environ=environ)
    again = called("copy", "--to", f"sqlite:///{tmp_path}/new.db", "--json", environ=environ)

    told = json.loads(result.stdout)
    assert (f"{tmp_path}/batchwatch.db", f"{tmp_path}/new.db") == (told["from"], told["to"])
    assert (3, 0) == (told["rows"]["batches"], told["replaced"])
    assert 1 == again.exit_code
    assert "name an empty one" in again.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), "--from"),
        (("--from", "mysql://u:pass-s3cret@host/x"), "--from"),
        (("--to", "postgresql://u:pass-s3cret@host"), "names no database"),
        (("--from", "sqlite:////data/a.db", "--to", "sqlite:////data/a.db"), "name another"),
        (
            ("--from", "postgres://u:pass-s3cret@h/x", "--to", "postgresql://u:pass-s3cret@h/x"),
            "name another",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(options: tuple[str, ...], told: str) -> None:
    """As wrong input, and with no password in it."""
    result = called("copy", *options)

    assert 2 == result.exit_code
    assert told in result.stderr
    assert "s3cret" not in result.output


def test_a_server_that_is_not_there_is_told_without_its_password(tmp_path: Path) -> None:
    """Wherever in the URL it stands."""
    for url in (
        "postgresql://u:pass-s3cret@127.0.0.1:1/x",
        "postgresql://127.0.0.1:1/x?password=pass-s3cret",
    ):
        result = called("copy", "--from", url, environ={"BATCHWATCH_DATA_DIR": str(tmp_path)})
        assert 1 == result.exit_code
        assert "127.0.0.1" in result.stderr
        assert "s3cret" not in result.output


def test_a_copy_that_is_interrupted_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM ends it after a page; the same command does the rest."""
    asyncio.run(make(tmp_path / "old.db"))
    options = ("copy", "--from", f"sqlite:///{tmp_path}/old.db")
    environ = {"BATCHWATCH_DATABASE_URL": f"sqlite:///{tmp_path}/new.db"}

    def interrupt(*_: object, **__: object) -> None:
        monkeypatch.undo()
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Work, "tell", interrupt)
    interrupted = called(*options, environ=environ)
    again = called(*options, environ=environ)

    assert (130, 0) == (interrupted.exit_code, again.exit_code)
    assert "the same command goes on where it was" in interrupted.stderr


def test_progress_is_a_bar_on_a_terminal_and_a_line_now_and_then_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A log is not flooded, and its reader knows that it goes on, and that it is done."""
    clock = ManualClock()
    shown = {}
    for is_terminal in (True, False):
        out = io.StringIO()
        console = Console(file=out, width=100, force_terminal=is_terminal, color_system=None)
        monkeypatch.setattr("batchwatch.cli.progress.Console", lambda console=console, **_: console)
        with Work(clock) as work:
            for number in range(1, 11):
                work.tell("copy", "events", done=number * 1000, total=10_000)
                clock.advance(PACE / 5)
        shown[is_terminal] = out.getvalue()

    assert "10,000/10,000" in shown[True]
    told = [line.split("  ")[1] for line in shown[False].splitlines()]
    assert ["1,000 of 10,000", "6,000 of 10,000", "10,000 of 10,000"] == told
