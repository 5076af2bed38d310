"""Plan how to look again at active batches that the discovery window no longer shows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from batchwatch.domain.batch import NON_TERMINAL

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from batchwatch.domain.batch import Status

MARGIN: Final = timedelta(seconds=1)  # for an upstream that compares coarser times than it shows


@dataclass(frozen=True, slots=True)
class Share:
    """The active batches of one status that this pass has not shown."""

    status: Status
    due: int
    undated: int  # those without a created_at
    oldest: datetime | None  # created_at
    newest: datetime | None


@dataclass(frozen=True, slots=True)
class Sweep:
    """One listing by status, both ends inclusive."""

    status: Status
    created_on_or_after: datetime
    created_on_or_before: datetime


def plan_refresh(shares: Sequence[Share], *, page_size: int) -> tuple[Sweep, ...]:
    """The sweeps that make looking at all due batches cheapest; none, if a GET each is.

    A GET each costs one request a batch. Sweeping costs each non-terminal
    status' share in pages, one at least; what moved to a terminal status no
    longer shows up there and is fetched singly, which its results need
    anyway. All three statuses are swept, or a batch that moved from one to
    the other would be fetched for nothing.

    Whatever the sweeps do not show is fetched singly: among it those that no
    list can show, for lack of a ``created_at`` or with a status that upstream
    may refuse as a filter.
    """
    known = [share for share in shares if share.status in NON_TERMINAL]
    swept = {share.status: share.due - share.undated for share in known}
    cost = sum(max(1, -(-swept.get(status, 0) // page_size)) for status in NON_TERMINAL)
    if cost >= sum(swept.values()):
        return ()
    oldest = min(share.oldest for share in known if share.oldest) - MARGIN
    newest = max(share.newest for share in known if share.newest) + MARGIN
    return tuple(Sweep(status, oldest, newest) for status in NON_TERMINAL)
