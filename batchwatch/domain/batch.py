"""What batchwatch knows: batches, the statuses they had, and what became of their files."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime  # noqa: TC003  # the store reads doubts by their types
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NewType

if TYPE_CHECKING:
    from collections.abc import Mapping

BatchId = NewType("BatchId", str)
EventId = NewType("EventId", str)
WatchName = NewType("WatchName", str)
EndpointName = NewType("EndpointName", str)


class Status(str):
    """A batch's status as upstream wrote it.

    An open set on purpose: upstream may add one, and what it then sends is
    kept as it came and counts as not terminal, so that the batch goes on
    being watched.
    """

    __slots__ = ()

    @property
    def is_terminal(self) -> bool:
        """Whether no way out of this status is documented."""
        return self in TERMINAL

    @property
    def is_known(self) -> bool:
        """Whether the upstream reference names this status."""
        return self in TERMINAL or self in NON_TERMINAL


PENDING: Final = Status("PENDING")
THROTTLED: Final = Status("THROTTLED")
RUNNING: Final = Status("RUNNING")
COMPLETED: Final = Status("COMPLETED")
FAILED: Final = Status("FAILED")
CANCELLED: Final = Status("CANCELLED")

NON_TERMINAL: Final = (PENDING, THROTTLED, RUNNING)
TERMINAL: Final = (COMPLETED, FAILED, CANCELLED)


@dataclass(frozen=True, slots=True)
class FileOutcome:
    """What a batch's results say of one source file.

    Upstream documents three cases and a fourth was seen: a job, a mapping
    error, both, or neither ("has no job reference yet"). What became of the
    job is asked for afterwards.
    """

    source_directory_file_id: str
    job_type: str | None = None
    job_id: str | None = None
    error_message: str | None = None  # the mapping error, not the job's
    job_status: str | None = None  # as it came; None: not seen yet
    job_error: str | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """One sighting of a batch in an answer from upstream."""

    id: BatchId
    status: Status
    seen_at: datetime
    fingerprint: str  # status and updated_at as they came; equal means nothing new
    created_at: datetime | None = None
    updated_at: datetime | None = None
    project_id: str | None = None
    source_directory_id: str | None = None
    job_type: str | None = None
    configuration_id: str | None = None
    asked_results: bool = False  # whether this answer was asked with expand=results
    results: tuple[FileOutcome, ...] | None = None  # None is upstream's null: not the same as empty
    asked_at: datetime | None = None  # when upstream was asked; None: hardly before it was seen


class Results(StrEnum):
    """How far batchwatch is with the outcomes of a terminal batch's files."""

    AWAITED = "awaited"  # asked for; the batch's terminal event is held back for them
    PENDING = "pending"  # the event went out without them; still asked for
    COMPLETE = "complete"  # stored, file by file
    NONE = "none"  # upstream has none: a batch that failed or was cancelled early
    GIVEN_UP = "given_up"  # upstream never gave them, however often it was asked


class Settling(StrEnum):
    """How far batchwatch is with the jobs behind a terminal batch's files."""

    OPEN = "open"  # some may still run; asked for
    JOBLESS = "jobless"  # all that are known have ended; files without one are looked for again
    CHECKED = "checked"  # that was done, and it brought jobs that may still run
    SETTLED = "settled"  # each file's fate is known
    GIVEN_UP = "given_up"  # of some files it is not known, and nobody asks any more


@dataclass(frozen=True, slots=True)
class Doubt:
    """A status that upstream shows, and that nothing proves to be news."""

    status: str
    since: datetime  # when it was first shown, and nothing else after it
    times: int


@dataclass(frozen=True, slots=True)
class Stuck:
    """That a batch stays in its status for longer than it should, and who was told."""

    since: datetime  # when it became so
    rule: str  # which one fired
    limit: float  # seconds in the status that the rule allows
    told_at: datetime  # the last time
    told: int  # how often
    alone: bool  # by an event of its own; else as one of many


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as last seen, with what batchwatch noted of it; keyed by (watch, id)."""

    watch: WatchName
    id: BatchId
    status: Status
    fingerprint: str
    revision: int  # the number of its transitions so far
    first_seen_at: datetime
    changed_at: datetime  # when the present status was first observed
    previous_status: Status | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    project_id: str | None = None
    source_directory_id: str | None = None
    job_type: str | None = None
    configuration_id: str | None = None
    lasted: Mapping[str, float] = field(default_factory=dict)  # seconds in each status left behind
    misses: int = 0  # 404s in a row, while it should exist
    missed_at: datetime | None = None  # the first of these
    vanished_at: datetime | None = None
    last_event_id: EventId | None = None
    results: Results | None = None  # None: not terminal, or part of the baseline
    results_asks: int = 0
    results_due_at: datetime | None = None  # when to ask for them next
    doubt: Doubt | None = None
    file_count: int | None = None  # known from its results
    settling: Settling | None = None  # None: there is nothing to settle, or not yet
    settle_asks: int = 0
    settle_due_at: datetime | None = None  # when to ask for its jobs next
    judge_at: datetime | None = None  # when to judge next whether it is stuck; None: never
    stuck: Stuck | None = None

    @property
    def is_active(self) -> bool:
        """Whether it must be looked at again on every poll."""
        return not self.status.is_terminal and self.vanished_at is None


@dataclass(frozen=True, slots=True)
class Transition:
    """A recorded change of status, the n-th of its batch."""

    watch: WatchName
    batch_id: BatchId
    number: int  # from 1
    from_status: Status | None  # None for the first sighting
    to_status: Status
    observed_at: datetime
    updated_at: datetime | None  # upstream's word for when
