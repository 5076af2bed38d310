"""The PostgreSQL server that a shared store lies in: how it is reached, and what it refuses.

A URL means what it means to ``psql``: ``sslmode`` and its kin, a socket's
folder or several hosts as ``host``, ``target_session_attrs``, and any other
parameter as a setting of the server for our sessions.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from batchwatch.store.driver import create_async_engine
from batchwatch.store.errors import (
    StoreBusy,
    StoreError,
    StoreFull,
    StoreUnreachable,
    StoreUnusable,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy.ext.asyncio import AsyncEngine

# Connections of one replica: readers, who come and go with the pages that are asked for; the two
# hands that write, each one at a time; and the one that listens. Eight at most, mostly four.
_READERS: Final = 3
_MORE: Final = 2  # while many ask at once

_CONNECT: Final = 10.0  # seconds until a connection must stand
_ECHO: Final = 5.0  # seconds until a notification of our own must have come
_SILENCE: Final = 60.0  # seconds without an answer until the server is taken for lost

# Nothing that batchwatch asks takes seconds. What does is stuck, or stands in somebody's way: it
# is ended, said, and tried again. A URL may set them otherwise.
_SETTINGS: Final = {
    "application_name": "batchwatch",
    "statement_timeout": "30s",
    "lock_timeout": "10s",
    "idle_in_transaction_session_timeout": "5s",
    "jit": "off",  # it takes longer to compile our statements than to run them
}
_HASTY: Final = {"synchronous_commit": "off"}

_FILES: Final = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
# What URLs for psql have, and our driver would take for settings of the server.
_OF_LIBPQ: Final = (
    *("channel_binding", "connect_timeout", "gssencmode", "fallback_application_name"),
    *("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count"),
    *("tcp_user_timeout", "sslcompression", "sslsni", "load_balance_hosts"),
)

_DRIVER_MISSING: Final = "a PostgreSQL store needs the driver asyncpg: pip install asyncpg"


def place_of(url: sa.URL) -> str:
    """How messages name the store: no login, no parameters."""
    named = url.query.get("host", "")
    host = url.host or (named if isinstance(named, str) else ",".join(named))
    port = f":{url.port}" if url.port else ""
    return f"postgresql://{'' if host.startswith('/') else host}{port}/{url.database}"


def engines(url: sa.URL) -> tuple[AsyncEngine, AsyncEngine]:
    """What waits for the disk at each commit and asks, and what does not wait.

    Raises StoreUnusable for a file of TLS that cannot be read.
    """
    url = _understood(url)
    _look_for_files(url)
    return (
        _engine(url, _SETTINGS, size=_READERS + 1, more=_MORE),
        _engine(url, _SETTINGS | _HASTY, size=1, more=0),
    )


def _understood(url: sa.URL) -> sa.URL:
    """The URL as our driver takes it: what is for libpq alone is left out."""
    found = url.difference_update_query(_OF_LIBPQ)
    if found.query.get("sslrootcert") == "system":
        trusted = ssl.get_default_verify_paths().cafile
        return found.update_query_dict({"sslrootcert": trusted} if trusted else {})
    return found


def _look_for_files(url: sa.URL) -> None:
    """Refuse what names a file that is not there.

    To connect would say so, too, but not of which file: as it does of a
    socket, for which a daemon that starts has to wait.
    """
    for name in _FILES:
        variable = f"PG{name.upper()}"
        said = url.query.get(name) or os.environ.get(variable) or ()
        for file in (said,) if isinstance(said, str) else said:
            try:
                Path(file).open("rb").close()
            except OSError as error:
                by = name if name in url.query else variable
                raise StoreUnusable(
                    f"{place_of(url)}: {by} names {file}, which cannot be read "
                    f"({error.strerror}): {_PARAMETERS}"
                ) from error


def _engine(url: sa.URL, settings: dict[str, str], *, size: int, more: int) -> AsyncEngine:
    try:
        engine = create_async_engine(
            "postgresql+asyncpg://",
            connect_args={"async_creator_fn": partial(_connect, url, settings)},
            pool_size=size,
            max_overflow=more,
            pool_timeout=_CONNECT,
            pool_use_lifo=True,  # so that those beyond what is needed grow old and go
        )
    except ModuleNotFoundError as error:
        raise StoreUnusable(_DRIVER_MISSING) from error

    @sa.event.listens_for(engine.sync_engine, "checkout")
    def look(connection: Any, _record: object, _proxy: object) -> None:
        # A server that ended has closed it, which is known without asking.
        if connection.driver_connection.is_closed():
            raise sa.exc.DisconnectionError

    @sa.event.listens_for(engine.sync_engine, "handle_error")
    def judge(context: Any) -> None:
        # What was a primary is a standby now: to connect anew leads to the new primary.
        if getattr(context.original_exception, "sqlstate", None) == "25006":
            context.is_disconnect = True

    return engine


async def listen(url: sa.URL, channel: str, heard: Callable[[str], None]) -> None:
    """Call ``heard`` with what is told on ``channel``, until the connection breaks.

    At its beginning with nothing: until then it was not heard what was told.
    Raises StoreUnusable where nothing can be heard, OSError and asyncpg's errors.
    """
    broken, hears = asyncio.Event(), asyncio.Event()

    def hear(*told: Any) -> None:
        hears.set()
        heard(told[3])

    connection = await _connect(_understood(url), _SETTINGS)
    try:
        connection.add_termination_listener(lambda _: broken.set())
        await connection.add_listener(channel, hear)
        # To all, which harms nobody: a proxy that pools transactions takes LISTEN, and that is all.
        await connection.execute("SELECT pg_notify($1, '')", channel)
        try:
            async with asyncio.timeout(_ECHO):
                await hears.wait()
        except TimeoutError:
            raise StoreUnusable(
                f"{place_of(url)}: no notification comes through, as behind a proxy that pools "
                "transactions; replicas find out by themselves what they cannot be told, but later"
            ) from None
        while not broken.is_set():
            try:
                async with asyncio.timeout(_SILENCE):
                    await broken.wait()
            except TimeoutError:
                await connection.execute("SELECT 1")  # a line that is cut says nothing by itself
    finally:
        connection.terminate()


def _connect(url: sa.URL, settings: dict[str, str]) -> Awaitable[Any]:
    import asyncpg  # noqa: PLC0415  # not for SQLite

    dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
    ours = {name: value for name, value in settings.items() if name not in url.query}
    connecting: Awaitable[Any] = asyncpg.connect(
        dsn, timeout=_CONNECT, command_timeout=_SILENCE, server_settings=ours
    )
    return connecting


_PROXY: Final = (
    "a proxy stands before the server: PgBouncer must be 1.21 or newer, with "
    "max_prepared_statements and ignore_startup_parameters as docs/postgresql.md has them"
)
_PARAMETERS: Final = "check what follows the ? in BATCHWATCH_DATABASE_URL, sslmode and sslrootcert"
# By SQLSTATE, or its class: https://www.postgresql.org/docs/current/errcodes-appendix.html
_BY_STATE: Final[tuple[tuple[str, type[StoreError], str], ...]] = (
    ("28", StoreUnusable, "check the user and the password in BATCHWATCH_DATABASE_URL"),
    ("08P01", StoreUnusable, _PROXY),
    ("26000", StoreUnusable, _PROXY),
    ("22023", StoreUnusable, _PARAMETERS),
    ("42704", StoreUnusable, _PARAMETERS),
    ("3D000", StoreUnusable, "make it first, with CREATE DATABASE; batchwatch makes the tables"),
    ("42501", StoreUnusable, "grant the user the right to it: the tables must be its own"),
    ("42P01", StoreUnusable, "its tables were removed; restart batchwatch to begin anew"),
    ("53100", StoreFull, "make room on its disk; batchwatch goes on by itself"),
    ("53200", StoreBusy, "raise max_locks_per_transaction, or its memory"),
    ("53300", StoreBusy, "raise max_connections, or put PgBouncer before it; a replica has eight"),
    ("25006", StoreBusy, "it is a standby now; batchwatch looks for the primary by itself"),
    ("57014", StoreBusy, "see what slows it down; batchwatch tries again by itself"),
    ("55P03", StoreBusy, "see which session holds it; batchwatch tries again by itself"),
    ("57P", StoreUnreachable, "batchwatch goes on by itself when the server is there again"),
    ("08", StoreUnreachable, "batchwatch goes on by itself when the server is there again"),
    ("40", StoreBusy, "two were in each other's way; batchwatch tries again by itself"),
)
_NO_TLS: Final = (
    "the server has no TLS, which sslmode asks for: set ssl = on there, or another sslmode in "
    "BATCHWATCH_DATABASE_URL or PGSSLMODE"
)
_AWAY: Final = "see that it runs, and that BATCHWATCH_DATABASE_URL names its host and port"


def explain(error: Exception, where: str) -> StoreError | None:
    """The server's ``error``, or that of the way to it, as one of ours; None if it is neither."""
    cause = getattr(error, "orig", None) or error
    said = str(cause) or type(cause).__name__
    state = getattr(cause, "sqlstate", None)
    for known, kind, remedy in _BY_STATE:
        if state is not None and state.startswith(known):
            return kind(f"{where}: {said}: {remedy}")
    if isinstance(error, sa.exc.TimeoutError):  # the pool's, whose own words name a connection
        return StoreBusy(
            f"{where}: no connection became free for {_CONNECT:.0f} s: it answers too slowly for "
            "what is asked of it; batchwatch tries again by itself"
        )
    if "rejected SSL upgrade" in said:
        return StoreUnusable(f"{where}: {_NO_TLS}")
    if isinstance(cause, TimeoutError):
        return StoreUnreachable(f"{where}: no answer in time: {_AWAY}")
    if isinstance(cause, ssl.SSLError) or isinstance(cause.__cause__, ValueError):
        return StoreUnusable(f"{where}: {said}: {_PARAMETERS}")
    if isinstance(cause, OSError):
        return StoreUnreachable(f"{where}: {said}: {_AWAY}")
    if getattr(error, "connection_invalidated", False) or "connection" in said:
        return StoreUnreachable(f"{where}: {said}: batchwatch goes on by itself")
    return None
