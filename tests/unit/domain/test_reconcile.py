"""What counts as a change, and what does not."""

from __future__ import annotations

import pytest
from hypothesis import given
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

    assert (known, None, Oddity.STALE) == (verdict.batch, verdict.transition, verdict.oddity)


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


def test_without_any_stamps_a_step_forward_is_believed() -> None:
    """Null timestamps are documented; a batch without them is followed all the same."""
    verdict = reconcile(
        a_batch(RUNNING, updated=None), a_sighting(THROTTLED, updated=None), watch=WATCH
    )

    assert THROTTLED == verdict.batch.status


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


def test_the_three_ends_are_the_only_ends() -> None:
    """What ends is documented; everything else goes on."""
    assert {COMPLETED, FAILED, CANCELLED} == set(TERMINAL)
