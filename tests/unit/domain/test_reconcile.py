"""What counts as a change, and what does not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchwatch.domain.batch import (
    CANCELLED,
    COMPLETED,
    FAILED,
    NON_TERMINAL,
    PENDING,
    RUNNING,
    TERMINAL,
    THROTTLED,
    Batch,
    Status,
)
from batchwatch.domain.cadence import SHOWN_FOR, SHOWN_TO_BELIEVE
from batchwatch.domain.reconcile import Oddity, reconcile
from tests.support.builders import WATCH, a_batch, a_sighting, at


def test_the_first_sighting_is_the_first_transition() -> None:
    """`from` is null, and the batch is taken as it came."""
    verdict = reconcile(None, a_sighting(RUNNING), watch=WATCH)

    assert verdict.transition is not None
    assert (1, None, RUNNING) == (
        verdict.transition.number,
        verdict.transition.from_status,
        verdict.transition.to_status,
    )
    assert verdict.batch.is_active


def test_statuses_that_were_not_seen_are_not_invented() -> None:
    """PENDING and then COMPLETED is one transition."""
    verdict = reconcile(a_batch(PENDING), a_sighting(COMPLETED, updated=9), watch=WATCH)

    assert verdict.transition is not None
    assert (2, PENDING, COMPLETED) == (
        verdict.transition.number,
        verdict.transition.from_status,
        verdict.transition.to_status,
    )


def test_an_older_answer_is_stale() -> None:
    """It is counted, and nothing moves."""
    known = a_batch(RUNNING, updated=10)

    verdict = reconcile(known, a_sighting(PENDING, updated=5), watch=WATCH)

    assert (known, None, Oddity.STALE) == (
        replace(verdict.batch, doubt=None),
        verdict.transition,
        verdict.oddity,
    )


@pytest.mark.parametrize("terminal", TERMINAL)
@pytest.mark.parametrize("said", [*NON_TERMINAL, *TERMINAL, Status("NEW")])
def test_a_terminal_status_is_never_left(terminal: Status, said: Status) -> None:
    """Whatever upstream says later, and however new it claims to be."""
    verdict = reconcile(a_batch(terminal), a_sighting(said, updated=99), watch=WATCH)

    assert terminal == verdict.batch.status
    assert verdict.transition is None
    assert (None if said == terminal else Oddity.CONTRADICTION) == verdict.oddity


def test_a_terminal_status_is_believed_however_old_its_stamp() -> None:
    """No answer from the past can show an end that did not happen."""
    verdict = reconcile(a_batch(RUNNING, updated=10), a_sighting(COMPLETED, updated=5), watch=WATCH)

    assert COMPLETED == verdict.batch.status


def test_an_unknown_status_is_kept_as_it_came_and_is_not_terminal() -> None:
    """The batch goes on being watched, under a name that we do not know."""
    verdict = reconcile(a_batch(PENDING), a_sighting(Status("VALIDATING"), updated=1), watch=WATCH)

    assert ("VALIDATING", True, Oddity.UNKNOWN_STATUS) == (
        verdict.batch.status,
        verdict.batch.is_active,
        verdict.oddity,
    )


def test_throttled_and_running_alternate() -> None:
    """Each step with a newer stamp is believed, there and back."""
    batch = a_batch(RUNNING, updated=0)
    for number, status in enumerate((THROTTLED, RUNNING, THROTTLED), start=1):
        batch = reconcile(batch, a_sighting(status, updated=number), watch=WATCH).batch

    assert (THROTTLED, 4) == (batch.status, batch.revision)


@pytest.mark.parametrize("updated", [10, None])
def test_a_step_back_needs_proof(updated: float | None) -> None:
    """With an equal stamp or none, PENDING after RUNNING is a stale read."""
    verdict = reconcile(
        a_batch(RUNNING, updated=10), a_sighting(PENDING, updated=updated), watch=WATCH
    )

    assert Oddity.STALE == verdict.oddity


@pytest.mark.parametrize(
    ("after", "status", "oddity"), [(59, RUNNING, Oddity.STALE), (60, THROTTLED, None)]
)
def test_without_any_stamps_a_step_forward_is_believed_when_no_replica_lags_so_far(
    after: float, status: Status, oddity: Oddity | None
) -> None:
    """A batch without stamps is followed all the same; it may have left that status unseen."""
    verdict = reconcile(
        a_batch(RUNNING, updated=None),
        a_sighting(THROTTLED, updated=None, seen_at=at(after)),
        watch=WATCH,
    )

    assert (status, oddity) == (verdict.batch.status, verdict.oddity)


def test_what_was_asked_long_ago_is_as_old_as_the_question() -> None:
    """An answer that took its time on the way tells of then, not of now."""
    seen = a_sighting(THROTTLED, updated=None, seen_at=at(80), asked_at=at(50))

    verdict = reconcile(a_batch(RUNNING, updated=None), seen, watch=WATCH)

    assert (RUNNING, Oddity.STALE) == (verdict.batch.status, verdict.oddity)


def test_what_a_clock_noted_before_it_was_set_is_no_measure() -> None:
    """Nobody knows how long ago that was."""
    seen = a_sighting(THROTTLED, updated=None, seen_at=at(9_000))
    batch = a_batch(RUNNING, updated=None)

    doubted = reconcile(batch, seen, watch=WATCH, steady_since=at(8_990))
    believed = reconcile(batch, seen, watch=WATCH, steady_since=at(-5))

    assert (RUNNING, THROTTLED) == (doubted.batch.status, believed.batch.status)


def test_the_time_in_each_status_adds_up() -> None:
    """How long each status lasted, over all of its visits."""
    batch = a_batch(RUNNING)
    for second, status in ((10, THROTTLED), (15, RUNNING), (18, COMPLETED)):
        seen = a_sighting(status, updated=second, seen_at=at(second))
        batch = reconcile(batch, seen, watch=WATCH).batch

    assert {"RUNNING": 13.0, "THROTTLED": 5.0} == batch.lasted


def test_a_batch_that_is_seen_again_has_not_vanished() -> None:
    """Its 404s are forgotten, and it is active again."""
    vanished = a_batch(RUNNING, updated=5, misses=3, vanished_at=at(60))

    seen_again = reconcile(vanished, a_sighting(RUNNING, updated=5), watch=WATCH).batch

    assert (0, True) == (seen_again.misses, seen_again.is_active)


_lives = st.lists(st.sampled_from([*NON_TERMINAL, Status("VALIDATING")]), min_size=1, max_size=8)


@given(
    life=_lives,
    end=st.sampled_from(TERMINAL),
    reads=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), max_size=30),
)
def test_what_is_recorded_is_part_of_what_happened(
    life: list[Status], end: Status, reads: list[tuple[int, int]]
) -> None:
    """Random polls, some of them answered from the past: a subsequence of the truth, to its end."""
    truth = [one for n, one in enumerate(life) if n == 0 or one != life[n - 1]] + [end]
    recorded: list[Status] = []
    batch: Batch | None = None
    moments = sorted(min(moment, len(truth) - 1) for moment, _ in reads)
    lags = [lag for _, lag in reads]
    for moment, lag in [*zip(moments, lags, strict=True), (len(truth) - 1, 0)]:
        shown = max(0, moment - lag)
        verdict = reconcile(batch, a_sighting(truth[shown], updated=shown), watch=WATCH)
        batch = verdict.batch
        if verdict.transition:
            recorded.append(verdict.transition.to_status)
            assert len(recorded) == verdict.transition.number

    rest = iter(truth)
    assert all(status in rest for status in recorded)  # a subsequence, in order
    assert truth[-1] == recorded[-1]


MINUTE = SHOWN_FOR.total_seconds()


def polled(batch: Batch, *sightings: tuple[float, Status, float | None]) -> Batch:
    """``batch`` after sightings: when, what, and with which ``updated_at``."""
    for second, status, updated in sightings:
        seen = a_sighting(status, updated=updated, seen_at=at(second))
        batch = reconcile(batch, seen, watch=WATCH).batch
    return batch


@pytest.mark.parametrize("updated", [5, 10, None], ids=["older", "equal", "null"])
def test_what_is_shown_again_and_again_is_believed(updated: float | None) -> None:
    """A clock that was wrong, stamps in whole seconds, or none: the status is true all the same."""
    throttled = a_batch(THROTTLED, updated=10, lasted={"RUNNING": 9.0}, previous_status=RUNNING)
    early = [(second, RUNNING, updated) for second in (0, 5, MINUTE - 1)]

    before, after = polled(throttled, *early), polled(throttled, *early, (MINUTE, RUNNING, updated))

    assert (THROTTLED, RUNNING) == (before.status, after.status)
    assert (before.revision + 1, None) == (after.revision, after.doubt)
    assert 5 != updated or at(5) == after.updated_at  # what was thought to be the time, was not


def test_one_word_to_the_contrary_and_the_count_begins_anew() -> None:
    """Two replicas that answer in turn: the one that lags is never believed."""
    batch = a_batch(RUNNING, updated=10)
    for second in range(0, 600, 10):
        batch = polled(batch, (second, PENDING, 5), (second + 5, RUNNING, 10))

    assert (RUNNING, 1) == (batch.status, batch.revision)


def test_few_sightings_are_not_enough_however_long_they_take() -> None:
    """One stale answer an hour ago, and one now, are two stale answers."""
    batch = polled(a_batch(RUNNING, updated=10), (0, PENDING, 5), (3600, PENDING, 5))

    assert RUNNING == batch.status


def test_a_clock_that_was_set_back_begins_the_count_anew() -> None:
    """Neither believed at once nor doubted until the clock is there again."""
    batch = polled(a_batch(RUNNING, updated=10), (3600, PENDING, 5), (0, PENDING, 5))
    assert RUNNING == batch.status

    assert PENDING == polled(batch, (30, PENDING, 5), (MINUTE, PENDING, 5)).status


_stamps = st.sampled_from(["exact", "whole seconds", "null", "never moves", "future"])


def _stamp(kind: str, moment: float) -> float | None:
    """What an upstream of that kind says of a change at that moment."""
    if kind == "future":  # its clock was wrong at first, and is right by now
        return moment + 1e6 if moment < 20 else moment
    return {"exact": moment, "whole seconds": moment // 1, "null": None}.get(kind, 0.0)


@settings(deadline=None)  # each example is minutes of polls
@given(
    life=_lives,
    kind=_stamps,
    gaps=st.lists(st.floats(0.1, 40), min_size=8, max_size=8),
    interval=st.floats(5, 30),
    data=st.data(),
)
def test_a_status_that_stays_is_told_whatever_the_stamps(
    life: list[Status], kind: str, gaps: list[float], interval: float, data: st.DataObject
) -> None:
    """And told is what happened, in order; stale answers among the exact, and nulls."""
    moments = [sum(gaps[:n]) for n in range(len(life))]
    truth = [one for n, one in enumerate(life) if n == 0 or one != life[n - 1]]
    lags = [0.0, 0.0, 7.0, MINUTE - 1] if kind == "exact" else [0.0]
    batch: Batch | None = None
    told: list[Status] = []
    second = 0.0
    while second < moments[-1] + MINUTE + SHOWN_TO_BELIEVE * interval:
        lag = data.draw(st.sampled_from(lags)) if second < moments[-1] + MINUTE else 0.0
        index = max(n for n, moment in enumerate(moments) if moment <= max(0.0, second - lag))
        stamp = _stamp(kind, moments[index])
        if kind == "exact" and batch and data.draw(st.integers(0, 9)) == 0:
            stamp = None
        seen = a_sighting(life[index], updated=stamp, seen_at=at(second))
        verdict = reconcile(batch, seen, watch=WATCH)
        batch = verdict.batch
        told += [verdict.transition.to_status] if verdict.transition else []
        second += interval

    rest = iter(truth)
    assert all(status in rest for status in told)
    assert truth[-1] == told[-1]


def test_the_three_ends_are_the_only_ends() -> None:
    """What ends is documented; everything else goes on."""
    assert {COMPLETED, FAILED, CANCELLED} == set(TERMINAL)
