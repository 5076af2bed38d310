"""When a batch is settled: at once, later, or with what is known."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchwatch.domain.batch import (
    CANCELLED,
    COMPLETED,
    FAILED,
    RUNNING,
    Batch,
    BatchId,
    FileOutcome,
    Results,
    Settling,
)
from batchwatch.domain.cadence import (
    FEW_FILES,
    LOOK_AGAIN,
    RESULTS_ASKS,
    SETTLE_PAUSE,
    UNSHOWN_FOR,
    settle_backoff,
    settle_spent,
)
from batchwatch.domain.jobs import JobRecorder, JobSeen
from tests.support.builders import BASE_URL, WATCH, a_batch, a_recorder, a_sighting, at

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchwatch.domain.changes import Changes

BAT = BatchId("bat-1")
DAY = timedelta(hours=24)
OPEN = FileOutcome("dfl-1", "parse_v2", "pjb-1")
JOBLESS = FileOutcome("dfl-2")
UNMAPPED = FileOutcome("dfl-3", error_message="not a PDF")
RULES = JobRecorder(WATCH, BASE_URL, deadline=DAY)


def types(changes: Changes) -> list[str]:
    return [event.type for event in changes.events]


def a_settling(**more: Any) -> Batch:
    given: dict[str, Any] = {"settling": Settling.OPEN, "settle_due_at": at(0), "file_count": 1}
    return a_batch(COMPLETED, results=Results.COMPLETE, **(given | more))


def a_round(
    batch: Batch,
    files: Sequence[FileOutcome],
    *,
    second: float,
    seen: dict[str, JobSeen] | None = None,
    complete: bool = True,
) -> Changes:
    """What a round of asking makes of it."""
    return RULES.follow(
        {BAT: batch}, {BAT: files}, seen or {}, over={BAT: complete}, now=at(second)
    )


def taken(*files: FileOutcome, status: Any = COMPLETED, **more: Any) -> Changes:
    """The end of a batch with these results."""
    seen = a_sighting(status, updated=5, asked_results=True, results=files)
    return a_recorder(**more).record({BAT: a_batch(RUNNING)}, [seen], now=at(5))


# ------------------------------------------------------------------------------ it begins


@pytest.mark.parametrize("files", [(), (UNMAPPED,), (UNMAPPED, UNMAPPED)])
def test_where_nothing_is_open_the_end_and_what_became_of_it_are_told_at_once(
    files: tuple[FileOutcome, ...],
) -> None:
    """In this order, in one transaction, each naming the one before."""
    changes = taken(*files)

    end, settled = changes.events
    assert ["batch.completed", "batch.settled"] == types(changes)
    assert end.id == settled.data["previous_event_id"]
    assert settled.id == changes.batches[BAT].last_event_id
    assert (Settling.SETTLED, None, len(files)) == (
        changes.batches[BAT].settling,
        changes.batches[BAT].settle_due_at,
        changes.batches[BAT].file_count,
    )
    assert None is end.data["settled"]


@pytest.mark.parametrize("files", [(OPEN,), (JOBLESS,), (UNMAPPED, OPEN, JOBLESS)])
def test_what_may_change_is_followed(files: tuple[FileOutcome, ...]) -> None:
    """Jobs that run, and files that have none yet."""
    changes = taken(*files)

    assert ["batch.completed"] == types(changes)
    assert (Settling.OPEN, at(5)) == (
        changes.batches[BAT].settling,
        changes.batches[BAT].settle_due_at,
    )


def test_a_cancelled_batch_gets_no_more_jobs() -> None:
    """So its files without one are told at once."""
    changes = taken(UNMAPPED, JOBLESS, status=CANCELLED)

    assert ["batch.cancelled", "batch.settled"] == types(changes)
    assert 1 == changes.events[1].data["settled"]["counts"]["jobless"]


def test_failures_wait_for_their_names_where_those_are_wanted() -> None:
    """There is one question to ask first; without failures there is none."""
    assert ["batch.completed"] == types(taken(UNMAPPED, file_names=True))
    assert ["batch.completed", "batch.settled"] == types(taken(file_names=True))


def test_the_baseline_is_not_followed() -> None:
    """Nobody heard of its end, and nobody is told what became of it."""
    changes = a_recorder(backlog_before=at(100)).record({}, [a_sighting(COMPLETED)], now=at(101))

    assert None is changes.batches[BAT].settling


# ------------------------------------------------------------------- results that never came


def test_whoever_was_told_pending_gets_an_answer() -> None:
    """Late results are followed; none at all is told as such."""
    pending = a_batch(COMPLETED, updated=5, results=Results.PENDING, changed_at=at(5))
    late = a_sighting(COMPLETED, updated=5, asked_results=True, results=(UNMAPPED,))

    assert ["batch.settled"] == types(a_recorder().record({BAT: pending}, [late], now=at(99)))


def test_pending_that_comes_to_nothing_is_settled_without_counts() -> None:
    """A batch that failed has no results; one that upstream never gave any is given up."""
    failed = a_batch(FAILED, updated=5, results=Results.PENDING, changed_at=at(5))
    null = a_sighting(FAILED, updated=5, asked_results=True)
    none = a_recorder().record({BAT: failed}, [null], now=at(99))
    pending = a_batch(COMPLETED, results=Results.PENDING, results_asks=RESULTS_ASKS - 1)
    never = a_recorder().unanswered({BAT: pending}, outage=False, now=at(99_999))

    for changes, state in ((none, "none"), (never, "given_up")):
        assert ["batch.settled"] == types(changes)
        data = changes.events[0].data
        assert (state, "no_results", None) == (
            data["results"]["state"],
            data["settled"]["state"],
            data["settled"]["counts"],
        )
        assert Settling.GIVEN_UP == changes.batches[BAT].settling


def test_an_end_that_was_told_without_results_was_the_last_word() -> None:
    """`results.state` none is an answer; nothing follows it."""
    null = a_sighting(FAILED, updated=5, asked_results=True)

    changes = a_recorder().record({BAT: a_batch(RUNNING)}, [null], now=at(5))

    assert ["batch.failed"] == types(changes)
    assert None is changes.batches[BAT].settling


# ------------------------------------------------------------------------------ it goes on


def test_a_job_that_has_ended_settles_its_batch() -> None:
    """With its own words for why."""
    changes = a_round(a_settling(), [OPEN], second=3, seen={"pjb-1": JobSeen("FAILED", "no")})

    (event,) = changes.events
    assert ("batch.settled", "no") == (event.type, event.data["settled"]["groups"][0]["message"])
    assert {0: replace(OPEN, job_status="FAILED", job_error="no")} == changes.jobs[BAT]


@given(st.lists(st.sampled_from(["PENDING", "RUNNING", "COMPLETED", "FAILED", "NEW"]), max_size=9))
def test_a_job_that_was_seen_to_end_stays_ended(shown: list[str]) -> None:
    """Whatever replicas that lag say later, in any order."""
    file = OPEN
    for status in shown:
        # Another job is open for ever, so that the batch is not settled.
        other = replace(OPEN, source_directory_file_id="dfl-9", job_id="pjb-9")
        seen = {"pjb-1": JobSeen(status, "why")}
        changes = a_round(a_settling(), [file, other], second=3, seen=seen)
        file = changes.jobs.get(BAT, {}).get(0, file)

    ends = [one for one in shown if one in ("COMPLETED", "FAILED")]
    assert (ends[0] if ends else (shown[-1] if shown else None)) == file.job_status
    assert ("why" if ends else None) == file.job_error


def test_a_settled_batch_is_told_once() -> None:
    """Whatever is seen of its jobs afterwards."""
    settled = a_settling(settling=Settling.SETTLED, settle_due_at=None)

    changes = a_round(settled, [OPEN], second=3, seen={"pjb-1": JobSeen("COMPLETED")})

    assert ([], {}, {}) == (changes.events, changes.batches, changes.jobs)


def test_files_without_a_job_are_looked_for_once_more() -> None:
    """Half a minute after all else is known; then they are told as they are."""
    waiting = a_round(a_settling(), [UNMAPPED, JOBLESS], second=3).batches[BAT]
    assert (Settling.JOBLESS, at(3) + LOOK_AGAIN) == (waiting.settling, waiting.settle_due_at)
    files = {BAT: [UNMAPPED, JOBLESS]}

    none = RULES.look_again({BAT: waiting}, files, None, now=at(40))
    same = RULES.look_again({BAT: waiting}, files, [UNMAPPED, JOBLESS], now=at(40))
    job = replace(OPEN, source_directory_file_id="dfl-2")
    came = RULES.look_again({BAT: waiting}, files, [UNMAPPED, job], now=at(40))

    assert [["batch.settled"], ["batch.settled"], []] == [types(one) for one in (none, same, came)]
    assert (Settling.CHECKED, (UNMAPPED, job)) == (came.batches[BAT].settling, came.outcomes[BAT])
    done = RULES.follow(
        {BAT: came.batches[BAT]}, {BAT: [job, JOBLESS]}, {"pjb-1": JobSeen("COMPLETED")},
        over={}, now=at(41),
    )  # fmt: skip
    assert ["batch.settled"] == types(done)  # and not a third time


def test_open_jobs_are_asked_for_ever_less_often() -> None:
    """A third of the time since the beginning, ten minutes at most; a thousand files less often."""
    for files in (1, FEW_FILES, FEW_FILES + 1, 1000):
        pauses = [settle_backoff(asks, files=files) for asks in range(200)]
        assert sorted(pauses) == pauses
        assert SETTLE_PAUSE == pauses[-1]
        assert sum(pauses[:99], timedelta(0)) == settle_spent(99, files=files)
    assert settle_backoff(0, files=1) == timedelta(seconds=2)
    few, many = (
        sum(1 for asks in range(99) if settle_spent(asks, files=files) < timedelta(minutes=10))
        for files in (3, 1000)
    )
    assert (17, 9) == (few, many)


# ---------------------------------------------------------------------------- it is given up


def after(seconds: float, *, files: int = 1) -> int:
    """How many rounds there were in so many seconds."""
    asks = 0
    while settle_spent(asks, files=files) < timedelta(seconds=seconds):
        asks += 1
    return asks


def test_at_its_deadline_a_batch_is_settled_with_what_is_known() -> None:
    """Not before; and the last round comes at that moment."""
    running = {"pjb-1": JobSeen("RUNNING")}
    soon = DAY.total_seconds() - 60
    before = a_round(a_settling(settle_asks=after(soon)), [OPEN], second=soon, seen=running)
    batch = before.batches[BAT]
    assert ([], at(0) + DAY) == (types(before), batch.settle_due_at)

    late = a_round(batch, [OPEN], second=DAY.total_seconds(), seen=running, complete=False)

    (event,) = late.events
    assert ("given_up", 1, []) == (
        event.data["settled"]["state"],
        event.data["settled"]["counts"]["unknown"],
        event.data["settled"]["retry"]["source_directory_file_ids"],
    )
    assert Settling.GIVEN_UP == late.batches[BAT].settling


def test_jobs_that_upstream_does_not_show_are_given_up_after_an_hour() -> None:
    """If a round asked for all of them, and not one was shown."""
    hour = UNSHOWN_FOR.total_seconds()
    batch = a_settling(settle_asks=after(hour))
    other = replace(OPEN, source_directory_file_id="dfl-9", job_id="pjb-9")

    assert [] == types(a_round(batch, [OPEN], second=hour - 1))
    assert [] == types(a_round(batch, [OPEN], second=hour, complete=False))
    shown = {"pjb-9": JobSeen("RUNNING")}
    assert [] == types(a_round(batch, [OPEN, other], second=hour, seen=shown))
    assert ["batch.settled"] == types(a_round(batch, [OPEN], second=hour))


def test_a_clock_that_leaps_ahead_makes_no_young_batch_old() -> None:
    """It must have been asked for during a tenth of the time, whatever the wall says."""
    young = a_settling(settle_asks=3)

    assert [] == types(a_round(young, [OPEN], second=10 * DAY.total_seconds()))
    assert not RULES.asks_for_all(young, now=at(10 * DAY.total_seconds()))


def test_a_clock_that_was_set_back_stalls_nothing() -> None:
    """An end in the future says nothing; the time that was spent on asking does."""
    asks = after(DAY.total_seconds())
    future = a_settling(changed_at=at(10**8), settle_asks=asks)
    changes = a_round(a_settling(changed_at=at(10**8), settle_asks=2), [OPEN], second=3)

    assert ["batch.settled"] == types(a_round(future, [OPEN], second=3))
    due_at = changes.batches[BAT].settle_due_at
    assert due_at is not None
    assert due_at <= at(3) + SETTLE_PAUSE


def test_an_outage_gives_nothing_up() -> None:
    """Not even after the deadline: nobody was asked."""
    batch = a_settling(settle_asks=after(DAY.total_seconds()))

    put_off = RULES.put_off({BAT: batch}, now=at(2 * DAY.total_seconds()))
    failed = RULES.unanswered({BAT: batch}, {BAT: [OPEN]}, now=at(2 * DAY.total_seconds()))

    assert ([], batch.settle_asks) == (types(put_off), put_off.batches[BAT].settle_asks)
    assert ["batch.settled"] == types(failed)  # its own jobs cannot be had, and time is up


def test_all_is_asked_for_once_a_batch_is_old() -> None:
    """In the first hour one running job says enough of the rest; a stuck one must not."""
    old = a_settling(settle_asks=after(UNSHOWN_FOR.total_seconds()))

    assert not RULES.asks_for_all(a_settling(), now=at(60))
    assert RULES.asks_for_all(old, now=at(UNSHOWN_FOR.total_seconds()))
