"""Where a batch stands that somebody waits for: whether that is its end, and what kind of end."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from batchwatch.domain.batch import CANCELLED, COMPLETED, Results, Settling
from batchwatch.domain.settle import TO_RETRY, Fate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchwatch.domain.batch import BatchId, Status


class Ending(StrEnum):
    """How a batch that was waited for has ended."""

    SUCCEEDED = "succeeded"  # every file did, as far as was waited for
    SOME_FAILED = "some_failed"
    UNKNOWN = "unknown"  # it ended, and what became of some files cannot be had
    FAILED = "failed"
    CANCELLED = "cancelled"
    VANISHED = "vanished"
    UNFINISHED = "unfinished"  # time was up


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a batch is, and how many of its files have met which fate."""

    watch: str
    id: BatchId
    status: Status
    results: Results | None
    settling: Settling | None
    vanished: bool
    fates: Mapping[Fate | None, int]  # None: those whose jobs may still run

    @property
    def files(self) -> int:
        """How many it has, as far as is known."""
        return sum(self.fates.values())

    @property
    def is_followed(self) -> bool:
        """Whether a daemon goes on asking for it; not if it was over before the first look."""
        return not (self.status.is_terminal and self.results is None)

    def is_over(self, *, settled: bool) -> bool:
        """Whether it has ended and its files are known; ``settled`` asks for their jobs, too."""
        if self.vanished:
            return True
        known = self.results in (Results.COMPLETE, Results.NONE, Results.GIVEN_UP)
        if not (self.status.is_terminal and known):
            return False
        return not settled or self.settling in (None, Settling.SETTLED, Settling.GIVEN_UP)

    def ending(self, *, settled: bool) -> Ending:
        """How it has ended, for whoever waited as :meth:`is_over` says."""
        if not self.is_over(settled=settled):
            return Ending.UNFINISHED
        if self.vanished:
            return Ending.VANISHED
        if self.status != COMPLETED:
            return Ending.CANCELLED if self.status == CANCELLED else Ending.FAILED
        if any(self.fates.get(fate) for fate in TO_RETRY):
            return Ending.SOME_FAILED
        unknown = self.results is Results.GIVEN_UP or self.fates.get(Fate.UNKNOWN)
        return Ending.UNKNOWN if unknown else Ending.SUCCEEDED
