"""From what a pass saw to what must be written: batches, transitions, files, events."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from batchwatch.domain.batch import (
    COMPLETED,
    Batch,
    BatchId,
    FileOutcome,
    Results,
    Settling,
    Transition,
)
from batchwatch.domain.cadence import (
    BACKLOG_MARGIN,
    LONG_OVER,
    MISSED_TO_VANISH,
    MISSES_TO_VANISH,
    RESULTS_ASKS,
    RESULTS_PATIENCE,
    UNANSWERED_PAUSE,
    results_backoff,
)
from batchwatch.domain.event import (
    BATCH_DISCOVERED,
    BATCH_SETTLED,
    BATCH_UNSTUCK,
    BATCH_VANISHED,
    Details,
    Event,
    batch_event,
    type_of,
)
from batchwatch.domain.expect import expected_data
from batchwatch.domain.reconcile import Oddity, reconcile
from batchwatch.domain.settle import COMPLETE, TO_RETRY, Fate, fate_of, settled_data
from batchwatch.domain.stuck import stuck_data

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from batchwatch.domain.batch import Observation, WatchName
    from batchwatch.domain.expect import Expectation
    from batchwatch.domain.payload import StuckData


@dataclass(slots=True)
class Changes:
    """What one transaction writes, together or not at all."""

    batches: dict[BatchId, Batch] = field(default_factory=dict)
    transitions: list[Transition] = field(default_factory=list)
    outcomes: dict[BatchId, Sequence[FileOutcome]] = field(default_factory=dict)
    # By place among the batch's outcomes: files whose jobs have moved on.
    jobs: dict[BatchId, Mapping[int, FileOutcome]] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    oddities: Counter[Oddity] = field(default_factory=Counter)
    contradicted: set[BatchId] = field(default_factory=set)  # said to have left a terminal status


@dataclass(frozen=True, slots=True)
class Recorder:
    """The rules by which one watch's sightings become changes.

    ``backlog_before`` is set until the first pass ever has ended: batches that
    are found terminal, and were last changed before it, ended before anybody
    watched. They are recorded as the baseline and nobody hears of them. For
    those without an ``updated_at`` that is only known of the first listing
    ever (``first_listing``): later they may have ended since.

    A batch that nobody knows and that has long ended, created before
    ``window_start``, is none to be told: it was known once and has been
    removed since (`store.retention`), or ended before anybody watched. A
    listing that is not of the window, or ignores what it was asked, may show it.
    """

    watch: WatchName
    base_url: str
    backlog_before: datetime | None = None
    first_listing: bool = False
    window_start: datetime | None = None  # None: there may be others to be told
    file_names: bool = False  # whether they are asked for before a batch is settled
    expectation_of: Callable[[Batch], Expectation | None] = field(default=lambda _: None)
    steady_since: datetime | None = None  # since when our clock is known to go steadily

    def record(
        self, known: Mapping[BatchId, Batch], seen: Iterable[Observation], *, now: datetime
    ) -> Changes:
        """Take observations into account, in the order they were made.

        A page may show a batch twice, and a batch may be on two pages: each
        sighting is compared with what the one before made of it.
        """
        changes = Changes()
        for observation in seen:
            before = changes.batches.get(observation.id) or known.get(observation.id)
            if before is None and self._is_bygone(observation, now):
                continue
            verdict = reconcile(
                before, observation, watch=self.watch, steady_since=self.steady_since
            )
            if verdict.oddity:
                changes.oddities[verdict.oddity] += 1
                if verdict.oddity is Oddity.CONTRADICTION:
                    changes.contradicted.add(observation.id)
            batch = verdict.batch
            if verdict.transition is not None:
                changes.transitions.append(verdict.transition)
                batch = self._announce(self._move(batch, changes, now), changes, now)
            elif batch.is_active and batch.judge_at is None:  # it had vanished
                batch = replace(batch, judge_at=now)
            if observation.asked_results and batch.results in (Results.AWAITED, Results.PENDING):
                if observation.status == batch.status:
                    batch = self._take_results(batch, observation.results, changes, now)
                else:  # from before the end: its results, or their absence, say nothing
                    batch = self._wait_on(batch, changes, now)
            if batch != before:
                changes.batches[batch.id] = batch
        return changes

    def miss(self, known: Mapping[BatchId, Batch], *, now: datetime) -> Changes:
        """Note a 404 for each of ``known``: one more that may be lost.

        It proves little: a key that was just changed, a replica that lags, a
        gateway without its routes.
        """
        changes = Changes()
        for batch in known.values():
            if batch.results in (Results.AWAITED, Results.PENDING):
                # It has ended, and what is missing are its results: waited for like any others.
                changes.batches[batch.id] = self._wait_on(batch, changes, now)
                continue
            if not batch.is_active:
                if batch.vanished_at:
                    changes.batches[batch.id] = replace(batch, missed_at=now)
                continue
            missed = replace(batch, misses=batch.misses + 1, missed_at=batch.missed_at or now)
            changes.batches[missed.id] = missed
        return changes

    def vanish(self, known: Mapping[BatchId, Batch], *, now: datetime) -> Changes:
        """Tell those of ``known`` that are lost, and that no listing shows either.

        What has vanished is rarely asked for again, so this is the last word.
        """
        changes = Changes()
        for batch in known.values():
            if is_lost(batch, now=now):
                # Without its fingerprint it is news again, should it come back as it was.
                gone = replace(batch, vanished_at=now, missed_at=now, fingerprint="")
                gone = replace(gone, judge_at=None, stuck=None)
                gone = self._tell(gone, BATCH_VANISHED, changes, occurred_at=now)
                changes.batches[gone.id] = gone
        return changes

    def unanswered(self, known: Mapping[BatchId, Batch], *, outage: bool, now: datetime) -> Changes:
        """Note for each of ``known`` that its results could not be asked for this time.

        In an ``outage`` that says nothing of the batch, and does not count
        as one of the asks after which its results are given up.
        """
        changes = Changes()
        for batch in known.values():
            if batch.results in (Results.AWAITED, Results.PENDING):
                changes.batches[batch.id] = self._wait_on(batch, changes, now, counts=not outage)
        return changes

    def overdue(self, known: Mapping[BatchId, Batch], *, now: datetime) -> Changes:
        """Tell the ends that have waited long enough for results, asked for or not.

        When the request budget is short, it may take long until they are.
        """
        changes = Changes()
        for batch in known.values():
            if batch.results is Results.AWAITED and _has_waited(batch, now):
                told = self._tell_end(replace(batch, results=Results.PENDING), changes, None)
                changes.batches[batch.id] = told
        return changes

    def _move(self, batch: Batch, changes: Changes, now: datetime) -> Batch:
        """Take back that it is stuck, if it was told of by itself; judge it anew while it lives."""
        stuck = batch.stuck
        batch = replace(batch, stuck=None, judge_at=None if batch.status.is_terminal else now)
        if stuck is None or not stuck.alone or batch.previous_status is None:
            return batch
        was = stuck_data(stuck, batch.previous_status, now=now)
        return self._tell(batch, BATCH_UNSTUCK, changes, occurred_at=batch.changed_at, stuck=was)

    def _announce(self, batch: Batch, changes: Changes, now: datetime) -> Batch:
        """Tell of a new status, or hold that back until the results are there."""
        if batch.revision == 1:
            if batch.status.is_terminal and self._is_backlog(batch):
                return batch
            # Beside the chain of previous_event_id: few ask for it, and a receiver that was not
            # sent it must not find it missing.
            self._tell(batch, BATCH_DISCOVERED, changes, occurred_at=batch.changed_at)
        if batch.status.is_terminal:
            return replace(batch, results=Results.AWAITED, results_due_at=now)
        return self._tell(batch, type_of(batch.status), changes, occurred_at=batch.changed_at)

    def _is_bygone(self, seen: Observation, now: datetime) -> bool:
        if self.window_start is None or not seen.status.is_terminal or seen.created_at is None:
            return False
        ended_by = seen.updated_at or seen.created_at
        return seen.created_at < self.window_start and ended_by < now - LONG_OVER

    def _is_backlog(self, batch: Batch) -> bool:
        if self.backlog_before is None:
            return False
        before = self.backlog_before - BACKLOG_MARGIN
        if batch.created_at is not None and batch.created_at >= before:
            return False
        # updated_at, for a batch may have ended while the first pass was failing.
        return self.first_listing if batch.updated_at is None else batch.updated_at < before

    def _take_results(
        self,
        batch: Batch,
        results: tuple[FileOutcome, ...] | None,
        changes: Changes,
        now: datetime,
    ) -> Batch:
        if results is None and batch.status == COMPLETED:
            return self._wait_on(batch, changes, now)
        held_back = batch.results is Results.AWAITED
        # For a batch that failed or was cancelled null is an answer: no results are to come.
        state = Results.NONE if results is None else Results.COMPLETE
        batch = replace(batch, results=state, results_due_at=None)
        if results is not None:
            changes.outcomes[batch.id] = results
            batch = replace(batch, file_count=len(results))
        if held_back:
            batch = self._tell_end(batch, changes, results)
        if results is not None:
            return self._begin_settling(batch, results, changes, now)
        # Whoever was told that the results are pending gets an answer; else the end was it.
        return batch if held_back else self._tell_settled(batch, None, changes, now)

    def _begin_settling(
        self, batch: Batch, files: Sequence[FileOutcome], changes: Changes, now: datetime
    ) -> Batch:
        """Follow the jobs from now on; where there is nothing to wait for, that is all."""
        fates = {fate_of(one) for one in files}
        waits = None in fates or (Fate.JOBLESS in fates and batch.status == COMPLETED)
        if waits or (self.file_names and fates & TO_RETRY):
            return replace(batch, settling=Settling.OPEN, settle_due_at=now)
        return self._tell_settled(batch, files, changes, now)

    def _tell_settled(
        self,
        batch: Batch,
        files: Sequence[FileOutcome] | None,
        changes: Changes,
        now: datetime,
    ) -> Batch:
        return tell_settled(batch, files, changes, base_url=self.base_url, names={}, now=now)

    def _wait_on(
        self, batch: Batch, changes: Changes, now: datetime, *, counts: bool = True
    ) -> Batch:
        """Ask again later; past the patience, send the event out without the results."""
        asks = batch.results_asks + counts
        due_at = now + (results_backoff(asks) if counts else UNANSWERED_PAUSE)
        if batch.results is Results.AWAITED:
            if _has_waited(batch, now):
                batch = self._tell_end(replace(batch, results=Results.PENDING), changes, None)
            else:
                due_at = min(due_at, batch.changed_at + RESULTS_PATIENCE)
        if asks >= RESULTS_ASKS:
            told = batch.results is Results.PENDING
            batch = replace(batch, results=Results.GIVEN_UP, results_asks=asks, results_due_at=None)
            return self._tell_settled(batch, None, changes, now) if told else batch
        return replace(batch, results_asks=asks, results_due_at=due_at)

    def _tell_end(
        self, batch: Batch, changes: Changes, outcomes: Sequence[FileOutcome] | None
    ) -> Batch:
        type_ = type_of(batch.status)
        return self._tell(batch, type_, changes, occurred_at=batch.changed_at, outcomes=outcomes)

    def _tell(
        self,
        batch: Batch,
        type_: str,
        changes: Changes,
        *,
        occurred_at: datetime,
        outcomes: Sequence[FileOutcome] | None = None,
        stuck: StuckData | None = None,
    ) -> Batch:
        event = batch_event(
            batch,
            type_,
            occurred_at=occurred_at,
            link=_link(self.base_url, batch),
            outcomes=outcomes,
            details=Details(
                expected_data(batch, self.expectation_of(batch), now=occurred_at), stuck
            ),
        )
        changes.events.append(event)
        return replace(batch, last_event_id=event.id)


def tell_settled(
    batch: Batch,
    files: Sequence[FileOutcome] | None,
    changes: Changes,
    *,
    base_url: str,
    names: Mapping[str, str],
    now: datetime,
) -> Batch:
    """Tell what became of a batch's ``files``, once and for all; None: nobody knows them."""
    data = settled_data(batch, files, names)
    event = batch_event(
        batch,
        BATCH_SETTLED,
        occurred_at=now,
        link=_link(base_url, batch),
        outcomes=files,
        details=Details(settled=data),
    )
    changes.events.append(event)
    done = Settling.SETTLED if data["state"] == COMPLETE else Settling.GIVEN_UP
    return replace(batch, settling=done, settle_due_at=None, last_event_id=event.id)


def _link(base_url: str, batch: Batch) -> str:
    return f"{base_url}/api/v2/batches/{batch.id}?expand=results"


def is_lost(batch: Batch, *, now: datetime) -> bool:
    """Whether an active batch has answered 404 several times in a row, and for some minutes."""
    since = batch.missed_at
    enough = batch.misses >= MISSES_TO_VANISH and since and now - since >= MISSED_TO_VANISH
    return batch.is_active and bool(enough)


def _has_waited(batch: Batch, now: datetime) -> bool:
    """Whether its end has waited long enough for results; one from the future has, too.

    For that was noted by a clock that has been set back since.
    """
    return not batch.changed_at <= now < batch.changed_at + RESULTS_PATIENCE
