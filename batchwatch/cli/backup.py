"""Copy the store while the daemon runs."""

from __future__ import annotations

import shlex
import signal
from typing import TYPE_CHECKING, Annotated

import typer

from batchwatch.cli.terminal import (
    INTERRUPTED,
    Config,
    Json,
    fail,
    print_json,
    settings_of,
)

if TYPE_CHECKING:
    from batchwatch.store.backup import Backup


def backup(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Where to write it.")],
    config: Config = None,
    *,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Write over a file that is there.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Copy the store into a file, while the daemon runs or not.

    The copy is of one moment, and checked. A PostgreSQL store is copied by its own tools: the
    command for that is shown.
    """
    from pathlib import Path  # noqa: PLC0415

    from batchwatch.cli.progress import Work  # noqa: PLC0415
    from batchwatch.clock import Clock  # noqa: PLC0415
    from batchwatch.store import StoreError  # noqa: PLC0415
    from batchwatch.store.backup import back_up, pg_dump  # noqa: PLC0415
    from batchwatch.store.errors import BackupRefused  # noqa: PLC0415
    from batchwatch.store.file import file_of  # noqa: PLC0415

    url = settings_of(config, for_run=False).database_url.get_secret_value()
    if file_of(url) is None:
        fail(
            "the store is a PostgreSQL database, which its own tools copy:\n"
            f"  {shlex.join(pg_dump(url, file))}\n"
            "The password is taken from PGPASSWORD or ~/.pgpass; docs/backup.md says how to "
            "restore.",
            code=2,
        )
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that nothing is left behind
    try:
        with Work(Clock()) as work:

            def tell(part: str, done: int, total: int) -> None:
                work.tell(part, file, done=done, total=total)

            done = back_up(url, Path(file).expanduser(), overwrite=force, tell=tell)
    except BackupRefused as error:
        fail(str(error), code=2)
    except StoreError as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("interrupted; nothing was written", code=INTERRUPTED)
    if as_json:
        print_json(_row(done))
    else:
        typer.echo(_in_words(done))


def _row(done: Backup) -> dict[str, object]:
    return {
        "file": str(done.file),
        "taken_at": done.taken_at,
        "bytes": done.bytes,
        "schema": done.schema,
        **done.counts,
    }


def _in_words(done: Backup) -> str:
    counts = ", ".join(f"{table} {count:,}" for table, count in done.counts.items())
    return (
        f"{done.file}: {done.bytes / 1e6:,.1f} MB, {counts}; "
        f"as of {done.taken_at:%Y-%m-%d %H:%M:%S} UTC, schema {done.schema}, checked."
    )
