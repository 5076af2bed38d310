"""What becomes of a delivery after a try."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchwatch.domain.batch import BatchId, EndpointName, EventId
from batchwatch.domain.delivery import (
    FINAL_FAILURES,
    RETRY_AFTER_CEILING,
    Attempt,
    Claimed,
    DeliveryId,
    Failure,
    State,
    settle,
)
from tests.support.builders import at

SCHEDULE = (5.0, 30.0)


def claimed(attempt: int = 1) -> Claimed:
    return Claimed(
        id=DeliveryId(1),
        event_id=EventId("evt_1"),
        endpoint=EndpointName("hook"),
        subject="default/bat-1",
        type="batch.running",
        batch_id=BatchId("bat-1"),
        attempt=attempt,
        turn=attempt,
        occurred_at=at(0),
        payload=b"{}",
    )


def tried(failure: Failure | None = None, **more: float | str | None) -> Attempt:
    return Attempt(at(0), 0.1, failure, **more)  # type: ignore[arg-type]  # any of its fields


def test_what_was_taken_is_delivered() -> None:
    """Nothing more is owed."""
    assert State.DELIVERED == settle(claimed(), tried(), SCHEDULE, jitter=0).state


def test_a_failure_is_tried_again_by_the_schedule() -> None:
    """The first retry after the first pause, and so on."""
    settled = [
        settle(claimed(n), tried(Failure.SERVER_ERROR), SCHEDULE, jitter=0) for n in (1, 2, 3)
    ]

    assert [(State.PENDING, 5.0), (State.PENDING, 30.0), (State.DEAD, 0.0)] == [
        (one.state, one.due_in) for one in settled
    ]
    assert "3 tries failed, the last: server_error" == settled[-1].reason


@pytest.mark.parametrize("failure", sorted(FINAL_FAILURES))
def test_a_final_answer_is_not_asked_for_again(failure: Failure) -> None:
    """The receiver said that it never will."""
    assert State.DEAD == settle(claimed(), tried(failure), SCHEDULE, jitter=0).state


@given(
    jitter=st.floats(-1, 1),
    asked=st.one_of(st.none(), st.floats(0, 1e12)),
    number=st.integers(1, 2),
)
def test_the_pause_is_near_the_schedule_and_not_shorter_than_asked(
    jitter: float, asked: float | None, number: int
) -> None:
    """A receiver may ask for a day, not for a year."""
    attempt = tried(Failure.RATE_LIMITED, retry_after=asked)

    pause = settle(claimed(number), attempt, SCHEDULE, jitter=jitter).due_in

    planned = SCHEDULE[number - 1]
    assert pause >= max(planned * 0.8, min(asked or 0, RETRY_AFTER_CEILING))
    assert pause <= max(planned * 1.2, RETRY_AFTER_CEILING if asked else 0)
