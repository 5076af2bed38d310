"""What was found at both ends of the pipe: the words that all parts of the demo share.

None of it comes from the parts that are on trial. The lives are the simulator's own history, the
receipts and the posts are what arrived, and the statuses are upstream's words, written down here
once more.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

TERMINAL: Final = frozenset({"COMPLETED", "FAILED", "CANCELLED"})
WITH_RESULTS: Final = frozenset({"COMPLETED", "CANCELLED"})


@dataclass(frozen=True, slots=True)
class Step:
    """A status that a batch truly had, and since when by the host's own clock."""

    status: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Files:
    """What truly became of a batch's files until now."""

    counts: Mapping[str, int]  # by what became of them; those of which none is are left out
    running: int  # whose jobs have not ended
    ended_at: datetime | None  # when the last of the jobs did; None: there are none


@dataclass(frozen=True, slots=True)
class Life:
    """A batch as it truly was until now."""

    batch_id: str
    steps: tuple[Step, ...]
    shown: tuple[str, ...] = ()  # those of its statuses that upstream's answers have shown
    files: Files | None = None  # what became of them

    @property
    def status(self) -> str:
        """What it is now."""
        return self.steps[-1].status

    @property
    def is_over(self) -> bool:
        """Whether it will not change any more."""
        return self.status in TERMINAL

    @property
    def fate_is_sealed(self) -> bool:
        """Whether all that can become of its files has, and is told soon.

        A batch that failed has no results. Files without a job are looked for
        once more, which takes longer than a demo.
        """
        if self.files is None or self.files.running or self.status not in WITH_RESULTS:
            return False
        return self.status != "COMPLETED" or not self.files.counts.get("jobless")

    @property
    def sealed_at(self) -> datetime:
        """Since when that is so, if it is."""
        end = self.steps[-1].at
        return max(end, self.files.ended_at or end) if self.files else end

    @property
    def born(self) -> datetime:
        """When it was created."""
        return self.steps[0].at

    def age(self, now: datetime) -> float:
        """Seconds that it lived, or has lived until ``now``."""
        end = self.steps[-1].at if self.is_over else now
        return max(0.0, (end - self.born).total_seconds())


class Answer(StrEnum):
    """What a receiver made of a request. Only what was taken counts as received."""

    TAKEN = "taken"
    REFUSED = "refused"
    HUNG = "hung"  # 200, and then no end of the body
    DROPPED = "dropped"  # the connection, before any answer
    UNVERIFIED = "unverified"  # the signature, or what should be signed, does not hold


@dataclass(frozen=True, slots=True)
class Receipt:
    """A webhook as it arrived, the ones that were not taken among them."""

    at: float  # seconds since the demo began
    event_id: str
    type: str
    answer: Answer
    batch_id: str | None = None  # None: it is not about a batch, or could not be verified
    transition: int | None = None
    status: str | None = None
    directory_id: str | None = None
    results: str | None = None  # how far batchwatch is with them, by its own words
    counts: Mapping[str, int] | None = None  # what became of the files, if it says so

    @property
    def announces_status(self) -> bool:
        """Whether it tells of a transition, and not of something else about the batch."""
        if self.status is None or self.transition is None:
            return False
        return self.type in (f"batch.{self.status.lower()}", "batch.unknown")

    @property
    def settles(self) -> bool:
        """Whether it is the last word on a batch's files."""
        return self.type == "batch.settled"


@dataclass(frozen=True, slots=True)
class Post:
    """A message as it arrived at Slack's stand-in."""

    at: float  # seconds since the demo began
    text: str  # what Slack shows in notifications
    blocks: tuple[Block, ...]
    answer: Answer
    batch_id: str | None = None
    status: str | None = None  # of the batch, if it is its end that is told


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a Slack message: a ``header``, a ``section`` or a ``context``."""

    type: str
    text: str  # Slack's mrkdwn, but plain in a header


@dataclass(frozen=True, slots=True)
class Move:
    """A batch was found with a new status, in truth."""

    at: float  # seconds since the demo began
    batch_id: str
    status: str


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that the demo itself did, or that befell it."""

    at: float  # seconds since the demo began
    text: str
    is_grave: bool = False


Entry: TypeAlias = Move | Receipt | Post | Notice


def short(batch_id: str) -> str:
    """As much of an id as tells one batch of the demo from another."""
    return batch_id.removeprefix("bat-")[:6]
