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

    from batchwatch.domain.coverage import Gap, Piece
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
    """One watch's, as programs get it. Times are upstream's."""
    from batchwatch.domain.cadence import silence_allowed  # noqa: PLC0415
    from batchwatch.domain.coverage import State, proof  # noqa: PLC0415

    if row is None:
        return {"watch": name, "proven": False, "since": since, "until": now, "began": None}
    skew = timedelta(seconds=row["skew"])
    since, now = since + skew, now + skew
    ledger = row["ledger"]
    pieces = proof(
        ledger,
        since=since,
        now=now,
        allowed=silence_allowed(settings.watches[name].poll_interval),
        present=_present(row, now, is_running=is_running),
    )
    gaps = [one for one in pieces if one.state in (State.CLOSED, State.OPEN)]
    return {
        "watch": name,
        "proven": all(one.state is not State.OPEN for one in gaps),
        "since": since,
        "until": now,
        "began": ledger.started_at,
        "rescoped": any(one.end < ledger.started_at for one in ledger.windows),
        "covered_to": max((one.end for one in ledger.windows), default=None),
        "passes": sum(one.passes for one in ledger.windows if one.end >= since),
        "watched": [
            {"from": one.start, "to": one.end}
            for one in pieces
            if one.state in (State.WATCHED, State.DUE)
        ],
        "gaps": [_row(one) for one in gaps],
    }


def _present(row: dict[str, Any], now: datetime, *, is_running: bool) -> Gap:
    """Why there is nothing in the ledger since its last entry, should that be long ago."""
    import msgspec  # noqa: PLC0415

    from batchwatch.domain.coverage import Gap, Kind  # noqa: PLC0415

    if not is_running:
        return Gap(now, now, Kind.STOPPED, "no daemon is running")
    trouble = msgspec.json.decode(row["troubles"]).get("discovery")
    if trouble is not None:
        return Gap(now, now, Kind.FAILING, trouble["reason"])
    return Gap(now, now, Kind.SLOW, "the present pass does not come to its end")


def _row(piece: Piece) -> dict[str, Any]:
    gap = piece.gap
    assert gap is not None  # noqa: S101  # of these two states each has one
    return {
        "from": piece.start,
        "to": piece.end,
        "seconds": round((piece.end - piece.start).total_seconds(), 3),
        "kind": gap.kind.value,
        "reason": gap.reason,
        "closed_at": gap.closed_at,
        "listed_from": gap.listed_from,
        "found": gap.found,
        "what_to_do": gap.what_to_do if gap.is_open else None,
    }
