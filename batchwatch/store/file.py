"""The file that an SQLite store lies in: who may have it, and whether it is still the same."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path
from urllib.parse import quote

import sqlalchemy as sa

from batchwatch.store.errors import StoreInUse, StoreUnusable


def identity(path: Path) -> tuple[int, int] | None:
    """What tells a file from every other that has its name."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def file_of(url: str) -> Path | None:
    """The file of the store at ``url``, or None if it is in none."""
    parsed = sa.make_url(url)
    if parsed.get_backend_name() != "sqlite" or parsed.database in (None, "", ":memory:"):
        return None
    return Path(str(parsed.database))


def check_writable(path: Path) -> bool:
    """Raise :class:`StoreUnusable` if a daemon of this user could not write the store at ``path``.

    Nothing is made or opened for it: it goes by the rights of the file and
    its folder, or of the folder in which they would be made. Returns whether
    there is a file already.
    """
    there = path.absolute()
    while not os.path.exists(there):  # noqa: PTH110  # Path's own raises where nobody may look
        there = there.parent
    is_made = there == path.absolute()
    folder = there.parent if is_made else there
    if not folder.is_dir():
        raise _unwritable(path, os.strerror(errno.ENOTDIR))
    rights = [(folder, os.W_OK | os.X_OK), *([(there, os.R_OK | os.W_OK)] if is_made else [])]
    if not all(os.access(one, right, effective_ids=True) for one, right in rights):
        raise _unwritable(path, os.strerror(errno.EACCES))
    return is_made


def _unwritable(path: Path, reason: str | None) -> StoreUnusable:
    return StoreUnusable(
        f"{path}: cannot be opened for writing ({reason}): "
        "check BATCHWATCH_DATA_DIR, and that the folder is writable for this user"
    )


def holder_of(path: Path) -> str | None:
    """The process that holds the store at ``path``, empty if it is not known; None if none does.

    Makes no file, and keeps no lock.
    """
    try:
        lock = os.open(_beside(path, ".lock"), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return os.pread(lock, 32, 0).decode("ascii", "replace").strip()
    finally:
        os.close(lock)
    return None


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def make_private(path: Path) -> None:
    """Make the file of a new store for its user alone; SQLite's files beside it follow it."""
    with contextlib.suppress(OSError):  # it is there; or SQLite will say why it cannot be
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def read_only(url: sa.URL, path: Path) -> sa.URL:
    """The URL that opens the store at ``path`` for reading, even in a folder that is read-only.

    A log beside it means that somebody has it open, or was killed: then it
    is read with it. Without one all is in the file, which is read as it lies;
    SQLite would make a log first, and could not, or would leave it behind.

    Raises :class:`StoreUnusable`.
    """
    query = {"mode": "ro", "uri": "true"}
    try:
        path.stat()
        for file in (path, _beside(path, "-wal"), _beside(path, "-shm")):
            if file.exists() and not os.access(file, os.R_OK, effective_ids=True):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        if not _beside(path, "-wal").exists():
            query["immutable"] = "1"
    except FileNotFoundError:
        raise StoreUnusable(f"{path}: there is no store yet; has the daemon ever run?") from None
    except OSError as error:
        raise StoreUnusable(
            f"{path}: cannot be read ({error.strerror}): "
            "ask as the user that runs the daemon, or check BATCHWATCH_DATA_DIR"
        ) from error
    return url.set(database=f"file:{quote(str(path.absolute()))}", query=query)


def take_lock(path: Path) -> int:
    """Lock the store for this process; the kernel lets go of it however the process ends."""
    name = _beside(path, ".lock")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # what was told is nobody else's
        lock = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unwritable(path, error.strerror) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(lock, 32, 0).decode("ascii", "replace").strip()
        os.close(lock)
        raise StoreInUse(
            f"{path}: another batchwatch uses this store"
            + (f" (process {holder})" if holder else "")
            + "; stop it first, or give this one its own BATCHWATCH_DATA_DIR"
        ) from error
    with contextlib.suppress(OSError):  # a full disk must not keep the daemon from starting
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock
