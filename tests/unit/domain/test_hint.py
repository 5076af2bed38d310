"""What a hint claims, how old it may be, and when there is no need to ask."""

from __future__ import annotations

from typing import Any

import pytest

from batchwatch.domain.batch import (
    CANCELLED,
    COMPLETED,
    FAILED,
    PENDING,
    RUNNING,
    THROTTLED,
    Batch,
    BatchId,
    Status,
)
from batchwatch.domain.hint import OLD, Hint, is_borne_out
from tests.support.builders import a_batch, at

HOUR = OLD.total_seconds()


def a_hint(type_: str = "batch.running", *, sent: float | None = 0) -> Hint:
    return Hint("evt-1", type_, BatchId("bat-1"), None if sent is None else at(sent))


@pytest.mark.parametrize(
    ("type_", "status"),
    [
        ("batch.pending", PENDING),
        ("batch.running", RUNNING),
        ("batch.success", COMPLETED),
        ("batch.error", FAILED),
        ("batch.cancelled", CANCELLED),
        ("batch.throttled", None),
        ("parse.success", None),
    ],
)
def test_the_type_tells_the_status(type_: str, status: Status | None) -> None:
    """One that is not known claims nothing, and its batch is looked at all the same."""
    assert status == a_hint(type_).claims


@pytest.mark.parametrize(
    ("now", "is_old"),
    [(0, False), (HOUR, False), (HOUR + 1, True), (-HOUR, False), (-HOUR - 1, True)],
)
def test_a_hint_is_old_after_an_hour_either_way(now: float, is_old: bool) -> None:  # noqa: FBT001  # a table
    """A clock that is wrong by less is forgiven."""
    assert is_old == a_hint().is_old(now=at(now))


def test_a_hint_that_claims_no_time_is_not_old() -> None:
    """Its id alone tells a repeat."""
    assert not a_hint(sent=None).is_old(now=at(9 * HOUR))


@pytest.mark.parametrize(
    ("batch", "claims", "known"),
    [
        (a_batch(RUNNING), RUNNING, True),
        (a_batch(RUNNING), PENDING, True),
        (a_batch(THROTTLED), PENDING, True),
        (a_batch(THROTTLED), RUNNING, False),
        (a_batch(THROTTLED, lasted={"RUNNING": 1.0}), RUNNING, True),
        (a_batch(PENDING), RUNNING, False),
        (a_batch(RUNNING), COMPLETED, False),
        (a_batch(COMPLETED), RUNNING, True),
        (a_batch(COMPLETED), FAILED, True),
        (a_batch(RUNNING), None, False),
        (a_batch(RUNNING, misses=1), RUNNING, False),
        (a_batch(RUNNING, vanished_at=at(0)), RUNNING, False),
        (None, PENDING, False),
    ],
)
def test_what_is_known_is_not_asked_for_again(
    batch: Batch | None,
    claims: Status | None,
    known: Any,
) -> None:
    """But whatever might be news is."""
    assert known == is_borne_out(batch, claims)
