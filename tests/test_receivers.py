"""The receivers in the docs: each, as it stands there, passes ``certify`` and loses nothing."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.receiver import SECRET
from tests.unit.commands import called

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

RECEIVERS = Path(__file__).parents[1] / "docs" / "receivers"
NODE = (22, 18)  # the first that runs TypeScript unasked
STEP = 0.05  # seconds between two looks at a process that cannot signal


def python(name: str) -> Callable[[Path], list[str]]:
    return lambda _: [sys.executable, str(RECEIVERS / name)]


def typescript(_: Path) -> list[str]:
    """Node and what it imports must be there already: a test fetches nothing."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node on the PATH")
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    version = tuple(int(part) for part in re.findall(r"\d+", said)[:2])
    if version < NODE:
        pytest.skip(f"node is {said.strip()}; TypeScript needs {'.'.join(map(str, NODE))}")
    if not (RECEIVERS / "node_modules" / "standardwebhooks").exists():
        pytest.skip("standardwebhooks is not there; run npm install in docs/receivers")
    return [node, str(RECEIVERS / "receiver.ts")]


def golang(folder: Path) -> list[str]:
    """Go's module cache is laid out as a proxy, so it stands in for one: nothing is fetched."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("no go on the PATH")
    shutil.copy(RECEIVERS / "receiver.go", folder)
    cache = subprocess.run([go, "env", "GOMODCACHE"], capture_output=True, text=True, check=True)
    proxy = f"file://{cache.stdout.strip()}/cache/download"
    offline = {**os.environ, "GOPROXY": proxy, "GOSUMDB": "off", "GOTOOLCHAIN": "local"}

    def run(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [go, *command.split()],
            cwd=folder,
            env=offline,
            capture_output=True,
            text=True,
            check=False,
        )

    run("mod init receiver")
    if run("mod tidy").returncode != 0:
        pytest.skip("what it imports is not in Go's module cache; run go mod tidy beside a copy")
    built = run("build -o receiver receiver.go")
    assert 0 == built.returncode, built.stderr
    return [str(folder / "receiver")]


@asynccontextmanager
async def running(
    command: list[str], *, port: int, database: Path
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The receiver in a process of its own, from when it listens; killed at the end."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env={
            **os.environ,
            "WEBHOOK_SECRET": SECRET,
            "PORT": str(port),
            "DATABASE": str(database),
        },
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        while not await listens(port):
            assert process.returncode is None
            await asyncio.sleep(STEP)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


def rows(database: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(database)) as db:
        return db.execute(sql).fetchall()


async def all_is_done(database: Path) -> None:
    while rows(database, "SELECT id FROM inbox WHERE NOT done"):  # noqa: ASYNC110  # another process's
        await asyncio.sleep(STEP)


@pytest.mark.timeout(180)  # Go builds SQLite
@pytest.mark.parametrize(
    "command",
    [python("aiohttp_receiver.py"), python("fastapi_receiver.py"), typescript, golang],
    ids=["aiohttp", "fastapi", "typescript", "go"],
)
async def test_a_receiver_of_the_docs_is_certified_and_keeps_each_message_once(
    command: Callable[[Path], list[str]], tmp_path: Path, unused_tcp_port: int
) -> None:
    """All cases well; no forgery in its inbox, no repeat, and the newest status of each batch."""
    database = tmp_path / "inbox.db"
    started = await asyncio.to_thread(command, tmp_path)

    async with running(started, port=unused_tcp_port, database=database):
        url = f"http://127.0.0.1:{unused_tcp_port}/hooks/batches"
        secret = {"BATCHWATCH_WEBHOOK_SECRET": SECRET}
        result = await asyncio.to_thread(called, "certify", url, environ=secret)
        assert 0 == result.exit_code, result.stdout
        await all_is_done(database)

    assert [(10,)] == rows(database, "SELECT count(*) FROM inbox")
    batches = "SELECT DISTINCT watch, transition, status FROM batches"
    assert [("certify", 3, "COMPLETED")] == rows(database, batches)
    assert [(7,)] == rows(database, "SELECT count(*) FROM batches")


@pytest.mark.parametrize("name", ["aiohttp_receiver.py", "fastapi_receiver.py"])
async def test_what_a_receiver_wrote_down_and_did_not_do_is_done_at_its_next_start(
    name: str, tmp_path: Path, unused_tcp_port: int
) -> None:
    """A 2xx is a promise, a crash right after it or not."""
    database = tmp_path / "inbox.db"
    command = python(name)(tmp_path)
    url = f"http://127.0.0.1:{unused_tcp_port}/hooks/batches"
    secret = {"BATCHWATCH_WEBHOOK_SECRET": SECRET}
    async with running(command, port=unused_tcp_port, database=database) as process:
        await asyncio.to_thread(called, "certify", url, environ=secret)
        process.kill()
    with closing(sqlite3.connect(database)) as db, db:
        db.execute("UPDATE inbox SET done = 0")  # as if it had come no further
        db.execute("DELETE FROM batches")

    async with running(command, port=unused_tcp_port, database=database):
        await all_is_done(database)

    assert [(7,)] == rows(database, "SELECT count(*) FROM batches")
