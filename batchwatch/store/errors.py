"""What can go wrong with a store, said so that somebody can mend it.

StoreError
├── StoreInUse       another daemon holds this SQLite file
├── StoreUnusable    it cannot be opened: path, permission, or not a database
├── StoreFull        no room on the disk, or it became read-only; nothing was written
├── StoreBusy        another process held the database for too long; try again
├── StoreUnreachable the database server does not answer, or stops or starts; try again
├── BackupRefused    a backup cannot have this name: it is taken, or no place for a file
├── LeaseLost        another replica may poll the watch now; what was seen is seen again by it
├── SchemaTooOld     for a reader; the daemon brings it up to date when it starts
├── SchemaTooNew     a newer batchwatch has been here
└── SchemaInUse      a replica runs that could not go on with what would be migrated
"""

from __future__ import annotations

from sqlalchemy.exc import TimeoutError  # noqa: A004  # the pool's


class StoreError(Exception):
    """The store did not do what was asked, and nothing of it was written."""


class StoreInUse(StoreError):
    """Another daemon holds this SQLite file."""


class StoreUnusable(StoreError):
    """The store cannot be opened."""


class StoreFull(StoreError):
    """There is no room for more, or writing is not allowed any longer."""


class StoreBusy(StoreError):
    """Another process held the database for longer than we waited."""


class StoreUnreachable(StoreError):
    """The database server is not there, at present."""


class BackupRefused(StoreError):
    """A backup cannot be written under this name."""


class LeaseLost(StoreError):
    """This replica no longer holds the watch that it wrote for."""


class SchemaTooOld(StoreError):
    """The schema is an older version's, or not made yet; readers leave that to the daemon."""


class SchemaTooNew(StoreError):
    """The schema was made by a newer version than this one."""


class SchemaInUse(StoreError):
    """The schema is older, and a replica runs whose version needs it so."""


# SQLite's own words, from its result codes: https://sqlite.org/rescode.html
_BY_MESSAGE: tuple[tuple[str, type[StoreError], str], ...] = (
    ("database is locked", StoreBusy, "another process holds it; end that one, or wait"),
    ("disk is full", StoreFull, "make room on its disk; batchwatch goes on by itself"),
    ("readonly database", StoreFull, "make the file and its folder writable for this user"),
    ("disk i/o error", StoreFull, "check the disk, its free space and its quota"),
    ("unable to open", StoreUnusable, "check that its folder exists and is writable"),
    ("not a database", StoreUnusable, "name another file, or move this one away"),
    ("malformed", StoreUnusable, "the file is damaged: restore it from a backup"),
)


def translate(error: Exception, where: str) -> StoreError:
    """The database driver's ``error`` as one of ours, naming ``where`` and what to do."""
    if isinstance(error, TimeoutError):
        return StoreBusy(f"{where}: no connection became free: is its disk very slow?")
    said = str(getattr(error, "orig", error))
    for fragment, kind, remedy in _BY_MESSAGE:
        if fragment in said.lower():
            return kind(f"{where}: {said}: {remedy}")
    return StoreError(f"{where}: {said}")
