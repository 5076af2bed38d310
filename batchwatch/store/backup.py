"""Copy an SQLite store while a daemon uses it: all of one moment, checked, and under its name last.

The copy continues the places of events far beyond the last one that is in it
(``ROOM``). What is told between a backup and the day on which it is put back
has places, too, and programs remember them: those must not mean other events.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import tempfile
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlencode

import sqlalchemy as sa

from batchwatch.store.errors import BackupRefused, StoreError, StoreUnusable, translate
from batchwatch.store.file import check_writable, file_of, read_only

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOM: Final = 2**32  # places; a thousand events a second fill them in seven weeks
PAGES: Final = 1_000  # that are copied between two words on how far it is; 4 MB
_BUSY_TIMEOUT: Final = 5_000  # ms
_COUNT_EVENTS: Final = """
    INSERT INTO sqlite_sequence (name, seq) SELECT 'events', 0
    WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'events')
"""  # there is no such row until there is an event
_MAKE_ROOM: Final = "UPDATE sqlite_sequence SET seq = seq + ? WHERE name = 'events'"
_COUNTED: Final = ("batches", "events", "deliveries")

_HOST_PORT: Final = re.compile(
    r"(?:\[(?P<six>.*)\]|(?P<host>/.*|[^:]*))(?::(?P<port>[0-9]+))?"  # a folder has no port
)
# What of a URL is a matter of the way to the server, and no secret. The rest is for our sessions.
_LIBPQ: Final = frozenset({
    "host", "port", "passfile", "target_session_attrs", "krbsrvname", "gsslib", "service",
    "sslmode", "sslnegotiation", "sslrootcert", "sslcert", "sslkey", "sslcrl",
    "ssl_min_protocol_version", "ssl_max_protocol_version",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Backup:
    """A copy that was checked."""

    file: Path
    taken_at: datetime  # what was committed by then is in it
    bytes: int
    schema: str
    counts: dict[str, int]  # rows, by table


def back_up(
    url: str,
    to: Path,
    *,
    overwrite: bool = False,
    tell: Callable[[str, int, int], None] = lambda _what, _done, _all: None,
) -> Backup:
    """Copy the SQLite store at ``url`` into the file ``to``, as it is at one moment.

    Writers go on meanwhile; their log is not shortened until the end. The
    copy is written beside its place under another name, checked, synced to
    the disk and then renamed, so that ``to`` is whole or is not there. It is
    for its user alone. ``tell`` is told what is done, how much of it, and how
    much there is.

    Raises StoreError with what to do; nothing of a copy is left then.
    """
    path = file_of(url)
    assert path is not None  # noqa: S101  # whoever asks has looked
    to = to.absolute()
    _refuse(path, to, overwrite=overwrite)
    with _beside(to) as unfinished, _translated(path):
        taken_at = _copy(path, unfinished, tell)
        backup = _checked(unfinished, to, taken_at, tell)
        _sync(unfinished)
        if not overwrite:
            _refuse(path, to, overwrite=False)
        unfinished.replace(to)
        _sync(to.parent)
    return backup


def pg_dump(url: str, to: str) -> list[str]:
    """The command that copies the PostgreSQL store at ``url``, without its password."""
    parsed = sa.make_url(url)
    query = {name: value for name, value in parsed.query.items() if name in _LIBPQ}
    if isinstance(hosts := query.get("host"), str):
        query.update(_apart(hosts))
    plain = sa.URL.create(
        "postgresql",
        username=parsed.username,
        host=parsed.host,
        port=parsed.port,
        database=parsed.database,
        query=query,
    )
    where = plain.render_as_string(hide_password=True)
    return ["pg_dump", "--format=custom", f"--file={to}", f"--dbname={where}"]


def _apart(hosts: str) -> dict[str, str]:
    """Hosts and ports as libpq wants them, of which our driver takes each beside the other."""
    found = [_HOST_PORT.fullmatch(one) for one in hosts.split(",")]
    if not any(one and one["port"] for one in found):
        return {}
    each = [one.group("six", "host", "port") if one else ("", "", "") for one in found]
    return {
        "host": ",".join(six or host for six, host, _ in each),
        "port": ",".join(port or "" for _, _, port in each),
    }


def _refuse(path: Path, to: Path, *, overwrite: bool) -> None:
    if to.is_dir():
        raise BackupRefused(f"{to}: this is a folder; name a file in it")
    if not to.parent.is_dir():
        raise BackupRefused(f"{to.parent}: there is no such folder; make it first")
    own = [path, *(path.with_name(path.name + end) for end in ("-wal", "-shm", ".lock"))]
    if any(to.resolve() == one.resolve() for one in own):
        raise BackupRefused(f"{to}: this is the store itself; name another file")
    if to.exists() and not overwrite:
        raise BackupRefused(f"{to}: there is such a file; name another one, or say --force")


@contextlib.contextmanager
def _beside(to: Path) -> Iterator[Path]:
    """A file beside ``to``, which is gone at the end unless it was renamed."""
    try:
        number, name = tempfile.mkstemp(prefix=f"{to.name}.", suffix=".partial", dir=to.parent)
    except OSError as error:
        raise BackupRefused(f"{to}: cannot be written ({error.strerror})") from error
    os.close(number)
    try:
        yield Path(name)
    finally:
        for end in ("", "-journal"):
            Path(name + end).unlink(missing_ok=True)


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise translate(error, str(path)) from error
    except OSError as error:
        raise StoreError(f"{path}: the copy cannot be written: {error.strerror}") from error


def _source(path: Path) -> sqlite3.Connection:
    """The store, for reading.

    Opened for writing where that is allowed, for only then a daemon that is
    started meanwhile cannot change what is read.
    """
    try:
        is_made = check_writable(path)
        query = {"mode": "rw"}
    except StoreUnusable:
        is_made = True
        query = dict(read_only(sa.make_url("sqlite://"), path).query)  # type: ignore[arg-type]  # texts
    if not is_made:
        raise StoreUnusable(f"{path}: there is no store yet; has the daemon ever run?")
    query.pop("uri", None)
    where = f"file:{quote(str(path.absolute()))}?{urlencode(query)}"
    connection = sqlite3.connect(where, uri=True, isolation_level=None)
    connection.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT}")
    return connection


def _copy(path: Path, to: Path, tell: Callable[[str, int, int], None]) -> datetime:
    """The moment of which all is in the copy."""

    def progress(_status: int, remaining: int, total: int) -> None:
        tell("copied", total - remaining, total)

    with closing(_source(path)) as source, closing(sqlite3.connect(to)) as copy:
        # Held open, this keeps the whole copy at one moment: without it each commit of
        # another process would have it begin again, and beside a busy daemon it would never end.
        source.execute("BEGIN")
        if _schema(source) is None:
            raise StoreUnusable(f"{path}: this is no store of batchwatch")
        taken_at = datetime.now(UTC)
        copy.execute("PRAGMA synchronous = OFF")  # synced once, at the end
        source.backup(copy, pages=PAGES, progress=progress)
        # One file that needs no other beside it; the daemon changes it back.
        copy.execute("PRAGMA journal_mode = DELETE")
        with copy:
            copy.execute(_COUNT_EVENTS)
            copy.execute(_MAKE_ROOM, (ROOM,))
    return taken_at


def _checked(
    file: Path, to: Path, taken_at: datetime, tell: Callable[[str, int, int], None]
) -> Backup:
    """What is in the copy; refused unless all of it can be read back. Raises StoreError."""
    tell("checked", 0, 1)
    with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True)) as copy:
        found = [row[0] for row in copy.execute("PRAGMA integrity_check(10)")]
        if found != ["ok"]:
            raise StoreError(
                f"{to}: the copy is damaged, and so is perhaps the store: {'; '.join(found)}"
            )
        schema = _schema(copy)
        if schema is None:
            raise StoreError(f"{to}: the copy has no schema; try again")
        counts = {
            table: copy.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608  # our own names
            for table in _COUNTED
        }
    tell("checked", 1, 1)
    return Backup(to, taken_at, file.stat().st_size, schema, counts)


def _schema(connection: sqlite3.Connection) -> str | None:
    """The version of the schema; None if it is nothing of ours."""
    there = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'")
    if there.fetchone() is None:
        return None
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return None if row is None else str(row[0])


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
