"""From what upstream says of jobs to what must be written, until each file's fate is known."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from batchwatch.domain.batch import COMPLETED, TERMINAL, Settling
from batchwatch.domain.cadence import (
    LOOK_AGAIN,
    UNANSWERED_PAUSE,
    UNSHOWN_FOR,
    settle_backoff,
    settle_spent,
)
from batchwatch.domain.changes import Changes, tell_settled
from batchwatch.domain.settle import Fate, fate_of, merged

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime, timedelta

    from batchwatch.domain.batch import Batch, BatchId, FileOutcome, WatchName


@dataclass(frozen=True, slots=True)
class JobSeen:
    """One sighting of a job."""

    status: str  # as it came
    error: str | None = None

    @property
    def has_ended(self) -> bool:
        """Whether no way out of its status is documented."""
        return self.status in TERMINAL


@dataclass(frozen=True, slots=True)
class JobRecorder:
    """The rules by which a watch's batches are settled.

    ``deadline`` counts from a batch's end; ``names`` are files' names by
    their ids, for the events.
    """

    watch: WatchName
    base_url: str
    deadline: timedelta
    names: Mapping[str, str] = field(default_factory=dict)

    def follow(
        self,
        known: Mapping[BatchId, Batch],
        files: Mapping[BatchId, Sequence[FileOutcome]],
        seen: Mapping[str, JobSeen],
        *,
        over: Mapping[BatchId, bool],
        now: datetime,
    ) -> Changes:
        """Take jobs into account, by their ids as they were ``seen``.

        ``over`` has those batches for which this ends a round, and whether
        the round asked for all of their open jobs. A job that was seen to
        have ended stays so, whatever a replica that lags says later.
        """
        changes = Changes()
        for batch in known.values():
            if not is_settling(batch):
                continue
            before = files.get(batch.id, ())
            after = [_with_job(one, seen) for one in before]
            moved = {n: one for n, one in enumerate(after) if one != before[n]}
            if moved:
                changes.jobs[batch.id] = moved
            still = [one for one in after if fate_of(one) is None]
            if not still:
                self._close(batch, after, changes, now)
            elif batch.id in over:
                shown = any(one.job_id in seen for one in still)
                self._go_on(batch, after, changes, now, hidden=over[batch.id] and not shown)
        return changes

    def look_again(
        self,
        known: Mapping[BatchId, Batch],
        files: Mapping[BatchId, Sequence[FileOutcome]],
        results: Sequence[FileOutcome] | None,
        *,
        now: datetime,
    ) -> Changes:
        """Take the results into account that were asked for once more; None: there were none."""
        changes = Changes()
        for batch in known.values():
            if batch.settling is not Settling.JOBLESS:
                continue
            before = tuple(files.get(batch.id, ()))
            after = before if results is None else merged(before, results)
            checked = replace(batch, settling=Settling.CHECKED, file_count=len(after))
            changes.batches[batch.id] = checked
            if after != before:
                changes.outcomes[batch.id] = after
            if all(fate_of(one) is not None for one in after):
                self._close(checked, after, changes, now)
        return changes

    def unanswered(
        self,
        known: Mapping[BatchId, Batch],
        files: Mapping[BatchId, Sequence[FileOutcome]],
        *,
        now: datetime,
    ) -> Changes:
        """Note for each of ``known`` that its own jobs could not be had this time."""
        changes = Changes()
        for batch in known.values():
            if is_settling(batch):
                self._go_on(batch, files.get(batch.id, ()), changes, now, hidden=False)
        return changes

    def put_off(self, known: Mapping[BatchId, Batch], *, now: datetime) -> Changes:
        """Have ``known`` wait for the end of an outage.

        It says nothing of their jobs: nothing is given up then, however long
        it lasts.
        """
        changes = Changes()
        for batch in known.values():
            if is_settling(batch):
                due_at = now + UNANSWERED_PAUSE
                changes.batches[batch.id] = replace(batch, settle_due_at=due_at)
        return changes

    def asks_for_all(self, batch: Batch, *, now: datetime) -> bool:
        """Whether its next round asks for every open job, be the first ones still running or not.

        For the first hour one running job says enough of the rest; later it
        may be stuck, and nothing may be left unasked when time is up.
        """
        span = min(UNSHOWN_FOR, self.deadline)
        return _has_lasted(batch, span, now=now)

    def _close(
        self, batch: Batch, files: Sequence[FileOutcome], changes: Changes, now: datetime
    ) -> None:
        """All jobs that are known are over: settle it, or look once more for those that are not.

        "No job reference yet" was seen after COMPLETED. What was cancelled
        gets no more jobs.
        """
        jobless = any(fate_of(one) is Fate.JOBLESS for one in files)
        if jobless and batch.settling is Settling.OPEN and batch.status == COMPLETED:
            waits = replace(batch, settling=Settling.JOBLESS, settle_due_at=now + LOOK_AGAIN)
            changes.batches[batch.id] = waits
        elif batch.settling is not Settling.JOBLESS:
            self._settle(batch, files, changes, now)

    def _go_on(
        self,
        batch: Batch,
        files: Sequence[FileOutcome],
        changes: Changes,
        now: datetime,
        *,
        hidden: bool,
    ) -> None:
        """Ask again later, or give up; ``hidden``: upstream shows none of the open jobs."""
        late = _has_lasted(batch, self.deadline, now=now)
        if late or (hidden and _has_lasted(batch, UNSHOWN_FOR, now=now)):
            self._settle(batch, files, changes, now)
            return
        due_at = now + settle_backoff(batch.settle_asks, files=batch.file_count or 0)
        end = batch.changed_at + self.deadline
        if now < end < due_at:
            due_at = end  # for the last time
        changes.batches[batch.id] = replace(
            batch, settle_asks=batch.settle_asks + 1, settle_due_at=due_at
        )

    def _settle(
        self, batch: Batch, files: Sequence[FileOutcome], changes: Changes, now: datetime
    ) -> None:
        settled = tell_settled(
            batch, files, changes, base_url=self.base_url, names=self.names, now=now
        )
        changes.batches[batch.id] = settled


def is_settling(batch: Batch) -> bool:
    """Whether its jobs are still followed."""
    return batch.settling in (Settling.OPEN, Settling.JOBLESS, Settling.CHECKED)


def _has_lasted(batch: Batch, span: timedelta, *, now: datetime) -> bool:
    """Whether ``span`` has gone by since its end, whatever the wall clock did meanwhile.

    A clock that was set forward makes nothing old at once: a tenth of the
    time must have been spent on asking. One that was set back tells nothing,
    and then only that counts.
    """
    spent = settle_spent(batch.settle_asks, files=batch.file_count or 0)
    if now < batch.changed_at:
        return spent >= span
    return now - batch.changed_at >= span and spent >= span / 10


def _with_job(file: FileOutcome, seen: Mapping[str, JobSeen]) -> FileOutcome:
    job = seen.get(file.job_id or "")
    if job is None or fate_of(file) is not None:
        return file
    known = replace(file, job_status=job.status)
    ended = fate_of(known) is not None
    return replace(known, job_error=job.error if ended else None)
