"""Plan how to look again at active batches that the discovery window no longer shows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from batchwatch.domain.batch import NON_TERMINAL, BatchId, Status

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

_MARGIN: Final = timedelta(seconds=1)  # for an upstream that compares coarser times than it shows


@dataclass(frozen=True, slots=True)
class Due:
    """An active batch that this pass has not shown yet."""

    id: BatchId
    status: Status
    created_at: datetime | None


@dataclass(frozen=True, slots=True)
class Sweep:
    """One listing by status, both ends inclusive."""

    status: Status
    created_on_or_after: datetime
    created_on_or_before: datetime


@dataclass(frozen=True, slots=True)
class Plan:
    """What to ask: the sweeps first, then a GET for each that they did not show."""

    sweeps: tuple[Sweep, ...]
    singles: tuple[BatchId, ...]  # to be fetched whatever the sweeps show


def plan_refresh(due: Sequence[Due], *, page_size: int) -> Plan:
    """Choose the plan with the fewest requests.

    A GET each costs one request a batch. Sweeping costs each non-terminal
    status' share in pages, one at least; what moved to a terminal status no
    longer shows up there and is fetched singly, which its results need
    anyway. All three statuses are swept, or a batch that moved from one to
    the other would be fetched for nothing.

    Batches that no sweep can show, for lack of a ``created_at`` or with a
    status that upstream may refuse as a filter, are always fetched singly.
    """
    swept = [one for one in due if one.created_at and one.status in NON_TERMINAL]
    cost = sum(
        max(1, -(-sum(1 for one in swept if one.status == status) // page_size))
        for status in NON_TERMINAL
    )
    if cost >= len(swept):
        return Plan(sweeps=(), singles=tuple(one.id for one in due))
    times = [one.created_at for one in swept if one.created_at]
    oldest, newest = min(times) - _MARGIN, max(times) + _MARGIN
    shown = {one.id for one in swept}
    return Plan(
        sweeps=tuple(Sweep(status, oldest, newest) for status in NON_TERMINAL),
        singles=tuple(one.id for one in due if one.id not in shown),
    )
