"""Prove that every moment was watched, or name those that were not."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from batchwatch.cli.terminal import (
    Config,
    Json,
    fail,
    from_store,
    known_watch,
    moment_of,
    print_json,
    say_finding,
    settings_of,
)

if TYPE_CHECKING:
    from datetime import datetime

    from batchwatch.settings import Settings


def prove(
    config: Config = None,
    *,
    since: Annotated[
        str, typer.Option(help="From when on: a time, or how long ago, as 24h.")
    ] = "24h",
    watch: Annotated[str | None, typer.Option(help="Only this watch.")] = None,
    as_json: Json = False,
) -> None:
    """Prove that every moment was watched.

    Or name the gaps, and what was done about them. The exit code is 0 if each was watched or
    listed later, and 1 if batches of some may be unknown.
    """
    from batchwatch.clock import Clock  # noqa: PLC0415

    settings = settings_of(config, for_run=False)
    if watch is not None:
        known_watch(settings, watch)
    now = Clock().now()
    begin = moment_of("--since", since)
    if begin is None or begin >= now:
        fail(f"--since: {since!r} is not in the past", code=2)
    wanted = [watch] if watch is not None else list(settings.watches)
    # A little more than asked for, since upstream's clock may be another.
    rows = from_store(config, lambda views: views.ledgers(begin - timedelta(days=1)))
    found = {row["name"]: row for row in rows}
    is_running = _is_running(settings)
    proofs = [
        _proof(name, found.get(name), settings, since=begin, now=now, is_running=is_running)
        for name in wanted
    ]
    if as_json:
        print_json(proofs)
    else:
        from batchwatch.tables import proof_lines  # noqa: PLC0415

        for one in proofs:
            for verdict, text in proof_lines(one):
                say_finding(verdict, f"watch {one['watch']}", text)
    raise typer.Exit(int(not all(one["proven"] for one in proofs)))


def _is_running(settings: Settings) -> bool:
    """Whether a daemon holds the store, as far as that can be seen from here."""
    from batchwatch.store.file import file_of, holder_of  # noqa: PLC0415

    file = file_of(settings.database_url.get_secret_value())
    return file is None or holder_of(file) is not None


def _proof(
    name: str,
    row: dict[str, Any] | None,
    settings: Settings,
    *,
    since: datetime,
    now: datetime,
    is_running: bool,
) -> dict[str, Any]:
    from batchwatch.domain.cadence import silence_allowed  # noqa: PLC0415
    from batchwatch.domain.proof import proof_of  # noqa: PLC0415

    return proof_of(
        name,
        row["ledger"] if row else None,
        skew=row["skew"] if row else 0.0,
        since=since,
        now=now,
        allowed=silence_allowed(settings.watches[name].poll_interval),
        trouble=row["trouble"] if row else None,
        is_running=is_running,
    )
