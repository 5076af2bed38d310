"""Copy the store while the daemon runs."""

from __future__ import annotations

import shlex
import signal
from typing import TYPE_CHECKING, Annotated, Self

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
        with _Progress(quiet=as_json) as progress:
            done = back_up(url, Path(file).expanduser(), overwrite=force, tell=progress.tell)
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


class _Progress:
    """How far it is: a bar on a terminal, and nothing elsewhere."""

    def __init__(self, *, quiet: bool) -> None:
        from rich.console import Console  # noqa: PLC0415
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=quiet or not console.is_terminal,
        )
        self._task = self._bar.add_task("copied", total=None)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def tell(self, what: str, done: int, all_: int) -> None:
        self._bar.update(self._task, description=what, completed=done, total=all_)


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
