"""When the batches that a command shows should end, by what like ones took."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchwatch.domain.batch import Status
from batchwatch.domain.expect import Experience, begun_at, expected_by

if TYPE_CHECKING:
    from datetime import datetime

    from batchwatch.store import Views


async def with_outlook(
    rows: list[dict[str, Any]], views: Views, *, now: datetime
) -> list[dict[str, Any]]:
    """The rows with ``expected``, as events have it; None for what has ended, or is new to us."""
    learnt: dict[tuple[str, str, str], Experience] = {}
    shown = []
    for row in rows:
        expected = None
        kind = (row["watch"], row["job_type"], row["configuration_id"])
        ended = Status(row["status"]).is_terminal or row["vanished_at"] is not None
        if not ended and all(kind):
            if kind not in learnt:
                learnt[kind] = Experience(await views.judgements.past(*kind))
            expectation = learnt[kind].of(row["source_directory_id"])
            begun = begun_at(row["created_at"], row["first_seen_at"])
            expected = None if expectation is None else expected_by(expectation, begun, now=now)
        shown.append(row | {"expected": expected})
    return shown
