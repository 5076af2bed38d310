"""What is proven of a watch, as programs get it: every moment was watched, or which was not."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from batchwatch.domain.coverage import Gap, Kind, State, proof

if TYPE_CHECKING:
    from datetime import datetime

    from batchwatch.domain.coverage import Ledger, Piece


def proof_of(  # noqa: PLR0913  # all that it follows from
    watch: str,
    ledger: Ledger | None,
    *,
    skew: float,
    since: datetime,
    now: datetime,
    allowed: float,
    trouble: str | None = None,
    is_running: bool = True,
) -> dict[str, Any]:
    """The proof for one watch from ``since`` on; without a ``ledger`` it has never begun.

    ``skew`` is how many seconds upstream's clock, whose times these are, is
    ahead; ``allowed`` for how many seconds there may be nothing yet. If it is
    longer, it is for the ``trouble`` of discovery, or for no daemon
    ``is_running``.
    """
    if ledger is None:
        return {"watch": watch, "proven": False, "since": since, "until": now, "began": None}
    since, now = since + timedelta(seconds=skew), now + timedelta(seconds=skew)
    present = Gap(now, now, Kind.SLOW, "the present pass does not come to its end")
    if not is_running:
        present = Gap(now, now, Kind.STOPPED, "no daemon is running")
    elif trouble is not None:
        present = Gap(now, now, Kind.FAILING, trouble)
    pieces = proof(ledger, since=since, now=now, allowed=allowed, present=present)
    gaps = [one for one in pieces if one.state in (State.CLOSED, State.OPEN)]
    removed = max((one.end for one in pieces if one.state is State.REMOVED), default=None)
    return {
        "watch": watch,
        "proven": removed is None and all(one.state is not State.OPEN for one in gaps),
        "since": since,
        "until": now,
        "began": ledger.started_at,
        "kept_from": removed,
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
