"""Compare what upstream says with what is known, and decide what truly changed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from batchwatch.domain.batch import PENDING, Batch, Doubt, Observation, Transition
from batchwatch.domain.cadence import SHOWN_FOR, SHOWN_TO_BELIEVE

if TYPE_CHECKING:
    from datetime import datetime

    from batchwatch.domain.batch import WatchName


class Oddity(StrEnum):
    """Why an observation was not obeyed, or deserves a word; counted, never fatal."""

    STALE = "stale"  # older than what is known
    CONTRADICTION = "contradiction"  # a terminal status is said to have been left
    UNKNOWN_STATUS = "unknown_status"  # obeyed, as a status that is not terminal


@dataclass(frozen=True, slots=True)
class Reconciled:
    """A batch as it now stands, the transition that led there, and what was odd about it."""

    batch: Batch
    transition: Transition | None = None
    oddity: Oddity | None = None


def reconcile(
    known: Batch | None,
    seen: Observation,
    *,
    watch: WatchName,
    steady_since: datetime | None = None,
) -> Reconciled:
    """Take one observation of a batch into account.

    Statuses that fell between two polls are not invented: PENDING then
    COMPLETED is one transition, for RUNNING was never seen.

    A terminal status is final. The API documents no way out of one, so a
    later answer that says otherwise is a stale read and changes nothing.

    An answer with an older ``updated_at`` is stale, and so is one that
    cannot show it is newer: see :func:`_is_stale`. It is believed all the
    same when nothing else is shown for a while: see :func:`_doubted`. A
    terminal status is exempt, for what never ends cannot be shown by an
    answer from the past.

    ``steady_since`` is since when our own clock is known to go steadily: how
    long ago something was that it noted before, nobody knows.
    """
    if known is None:
        return _first_sighting(seen, watch)
    if seen.status == known.status:
        return Reconciled(_seen_again(known, seen))
    if known.status.is_terminal:
        late = not seen.status.is_terminal and _is_stale(known, seen, steady_since)
        return Reconciled(known, oddity=Oddity.STALE if late else Oddity.CONTRADICTION)
    if not seen.status.is_terminal and _is_stale(known, seen, steady_since):
        doubt = _doubted(known.doubt, seen, steady_since)
        if not _is_believed(doubt, seen):
            return Reconciled(replace(known, doubt=doubt), oddity=Oddity.STALE)
        # Its updated_at counts from now on, for the one that is known was no measure.
        known = replace(known, updated_at=seen.updated_at or known.updated_at)

    stayed = (seen.seen_at - known.changed_at).total_seconds()
    lasted = dict(known.lasted)
    lasted[str(known.status)] = lasted.get(known.status, 0.0) + max(0.0, stayed)
    batch = replace(
        _seen_again(known, seen),
        status=seen.status,
        fingerprint=seen.fingerprint,
        previous_status=known.status,
        revision=known.revision + 1,
        changed_at=seen.seen_at,
        lasted=lasted,
    )
    transition = Transition(
        watch=watch,
        batch_id=known.id,
        number=batch.revision,
        from_status=known.status,
        to_status=seen.status,
        observed_at=seen.seen_at,
        updated_at=seen.updated_at,
    )
    return Reconciled(batch, transition, _strange(seen))


def _first_sighting(seen: Observation, watch: WatchName) -> Reconciled:
    batch = Batch(
        watch=watch,
        id=seen.id,
        status=seen.status,
        fingerprint=seen.fingerprint,
        revision=1,
        first_seen_at=seen.seen_at,
        changed_at=seen.seen_at,
        created_at=seen.created_at,
        updated_at=seen.updated_at,
        project_id=seen.project_id,
        source_directory_id=seen.source_directory_id,
        job_type=seen.job_type,
        configuration_id=seen.configuration_id,
    )
    transition = Transition(
        watch=watch,
        batch_id=seen.id,
        number=1,
        from_status=None,
        to_status=seen.status,
        observed_at=seen.seen_at,
        updated_at=seen.updated_at,
    )
    return Reconciled(batch, transition, _strange(seen))


def _seen_again(known: Batch, seen: Observation) -> Batch:
    """``known`` with what the same or a newer answer adds, and back if it had vanished."""
    if known.updated_at and seen.updated_at and seen.updated_at < known.updated_at:
        # An older answer tells nothing new of its time, but it does tell that the batch exists.
        return replace(known, misses=0, missed_at=None, vanished_at=None, doubt=None)
    return replace(
        known,
        fingerprint=seen.fingerprint,
        updated_at=seen.updated_at or known.updated_at,
        created_at=known.created_at or seen.created_at,
        project_id=known.project_id or seen.project_id,
        source_directory_id=known.source_directory_id or seen.source_directory_id,
        job_type=known.job_type or seen.job_type,
        configuration_id=known.configuration_id or seen.configuration_id,
        misses=0,
        missed_at=None,
        vanished_at=None,
        doubt=None,
    )


def _is_stale(known: Batch, seen: Observation, steady_since: datetime | None) -> bool:
    """Whether ``seen`` fails to show that it is newer than ``known``.

    ``updated_at`` is the proof. It may be null, always or in one answer, and
    coarse. Where it says nothing, a step back to the queue or to a status
    that the batch has left is not believed, and one to a status in which it
    was never seen only when a replica that lags can no longer show it: until
    then, the batch may have had it and left it before it was seen at all.
    """
    if known.updated_at and seen.updated_at and seen.updated_at != known.updated_at:
        return seen.updated_at < known.updated_at
    if known.updated_at and not seen.updated_at:
        return True
    if seen.status == PENDING or seen.status in known.lasted:
        return True
    since = max(known.changed_at, steady_since) if steady_since else known.changed_at
    return _asked_at(seen) - since < SHOWN_FOR


def _doubted(before: Doubt | None, seen: Observation, steady_since: datetime | None) -> Doubt:
    """The doubt about ``seen``, which is one more time if nothing else was shown meanwhile."""
    # A clock that was set, forward or back, begins anew.
    is_measured = before and (steady_since or before.since) <= before.since <= seen.seen_at
    if before is None or not is_measured or before.status != seen.status:
        return Doubt(str(seen.status), since=seen.seen_at, times=1)
    return replace(before, times=before.times + 1)


def _asked_at(seen: Observation) -> datetime:
    """What ``seen`` says was true at that time, or when a replica that lags was up to date."""
    return min(seen.asked_at or seen.seen_at, seen.seen_at)


def _is_believed(doubt: Doubt, seen: Observation) -> bool:
    """Whether a status was shown so often, and for so long, that it must be true.

    A replica that lags by less than that shows the present status in between
    or at last; what upstream says for a minute without a word to the contrary
    is the truth, whatever ``updated_at`` it has. That may be null, coarse,
    from the future, or never move.
    """
    return doubt.times >= SHOWN_TO_BELIEVE and _asked_at(seen) - doubt.since >= SHOWN_FOR


def _strange(seen: Observation) -> Oddity | None:
    return None if seen.status.is_known else Oddity.UNKNOWN_STATUS
