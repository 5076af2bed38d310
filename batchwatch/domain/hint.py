"""An upstream webhook: what it claims, and whether that is known. Never a fact by itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from batchwatch.domain.batch import (
    CANCELLED,
    COMPLETED,
    FAILED,
    PENDING,
    RUNNING,
    Batch,
    BatchId,
    Status,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

# By the time that it claims, either way; upstream tries for seconds.
OLD: Final = timedelta(hours=1)
KEPT: Final = timedelta(days=31)  # for the audit, and to know repeats by

# A status that is not here, such as THROTTLED, has no webhook.
CLAIMS: Final[Mapping[str, Status]] = {
    "batch.pending": PENDING,
    "batch.running": RUNNING,
    "batch.success": COMPLETED,
    "batch.error": FAILED,
    "batch.cancelled": CANCELLED,
}
WEBHOOKS: Final[Mapping[Status, str]] = {status: type_ for type_, status in CLAIMS.items()}


@dataclass(frozen=True, slots=True)
class Hint:
    """One upstream webhook whose signature was good."""

    event_id: str
    type: str
    batch_id: BatchId | None  # None: it is about something else
    sent_at: datetime | None  # as it claims

    @property
    def claims(self) -> Status | None:
        """The status that the batch is said to have come to, if we know the type.

        Not what its payload has: that may be a later one.
        """
        return CLAIMS.get(self.type)

    def is_old(self, *, now: datetime) -> bool:
        """Whether it is from so long ago, or so far ahead, that somebody else may have kept it.

        The time is signed along with the rest, so nobody can make it young.
        One that claims no time is told from a repeat by its id alone.
        """
        return self.sent_at is not None and abs(now - self.sent_at) > OLD


def is_borne_out(batch: Batch | None, claims: Status | None) -> bool:
    """Whether ``batch``, as it is known, shows what a hint claims, so that there is no need to ask.

    THROTTLED bears out no RUNNING: a batch may be throttled before it first runs.
    """
    if batch is None or batch.misses or batch.vanished_at or claims is None:
        return False
    return (
        batch.status.is_terminal or claims in (PENDING, batch.status) or str(claims) in batch.lasted
    )
