"""The audit: what is demanded of upstream, and what is said of what came."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchwatch.domain.audit import LATE, YOUNG, Came, Course, Fault, Step, audit
from batchwatch.domain.batch import (
    CANCELLED,
    COMPLETED,
    PENDING,
    RUNNING,
    THROTTLED,
    BatchId,
    Status,
)
from batchwatch.domain.hint import WEBHOOKS
from tests.support.builders import WATCH, at

NOW = at(10_000)
LIFE = ((PENDING, 0), (RUNNING, 100), (COMPLETED, 200))
TYPES = ("batch.pending", "batch.running", "batch.success")
LATEST = LATE.total_seconds()


def a_course(*steps: tuple[Status, float], came: dict[str, float] | None = None) -> Course:
    """Statuses with the second at which each was truly reached, seen 50 s later, and webhooks."""
    receipts = sorted((came or {}).items(), key=lambda one: one[1])
    return Course(
        watch=WATCH,
        batch_id=BatchId("bat-1"),
        steps=[Step(status, at(second + 50), at(second)) for status, second in steps],
        came=[Came(type_, at(second)) for type_, second in receipts],
        judged_from=at(0),
    )


def faults(*courses: Course) -> dict[str, tuple[Fault, ...]]:
    """What is amiss, by type."""
    return {one.type: one.faults for one in audit(courses, now=NOW).amiss}


def test_what_came_in_order_and_in_time_is_well() -> None:
    """Three expected, three came."""
    course = a_course(*LIFE, came=dict(zip(TYPES, (1, 101, 201), strict=True)))
    found = audit([course], now=NOW)

    assert (3, 3, ()) == (len(found.judged), found.came, found.amiss)
    assert (1, 0, 0, ()) == (found.batches, found.repeated, found.unseen, found.silent)


def test_what_never_came_is_missed() -> None:
    """One for each status that was observed and has a webhook."""
    found = audit([a_course(*LIFE, came={"batch.running": 101})], now=NOW)

    missed = [one.type for one in found.amiss if one.faults == (Fault.MISSED,)]
    assert (["batch.pending", "batch.success"], 1) == (missed, found.came)
    assert ("batch.pending", "batch.success") == found.silent


def test_what_nobody_observed_is_not_demanded() -> None:
    """But if it came, it is told beside the rest."""
    quick = a_course((PENDING, 0), (COMPLETED, 9), came={"batch.pending": 1, "batch.success": 10})
    told = a_course((COMPLETED, 9), came={"batch.running": 5, "batch.success": 10})

    assert {} == faults(quick, told)
    assert 1 == audit([quick, told], now=NOW).unseen


def test_throttled_has_no_webhook_and_running_has_one() -> None:
    """However often a batch comes back to it."""
    steps = ((THROTTLED, 0), (RUNNING, 10), (THROTTLED, 20), (RUNNING, 30))
    found = audit([a_course(*steps, came={"batch.running": 11})], now=NOW)

    assert [("batch.running", at(10))] == [(one.type, one.changed_at) for one in found.judged]
    assert () == found.amiss


@pytest.mark.parametrize(("after", "late"), [(LATEST, ()), (LATEST + 1, (Fault.LATE,))])
def test_what_came_long_after_upstreams_own_time_is_late(
    after: float, late: tuple[Fault, ...]
) -> None:
    """Whether we had seen it by then or not."""
    course = a_course((RUNNING, 100), came={"batch.running": 100 + after})
    assert late == faults(course).get("batch.running", ())


@pytest.mark.parametrize("updated", [None, 900.0])
def test_what_we_had_seen_was_so_whatever_upstreams_clock_says(updated: float | None) -> None:
    """An updated_at of the future, or none, makes nothing that is late be in time."""
    step = Step(RUNNING, at(100), None if updated is None else at(updated))
    course = replace(a_course(came={"batch.running": 100 + LATEST + 1}), steps=[step])

    (one,) = audit([course], now=NOW).amiss
    assert ((Fault.LATE,), at(100)) == (one.faults, one.changed_at)


def test_what_a_later_status_overtook_is_reordered() -> None:
    """The earlier one, with the one that came before it; it may be late as well."""
    course = a_course(*LIFE, came={"batch.success": 201, "batch.pending": 202, "batch.running": 1})
    found = {one.type: (one.faults, one.behind) for one in audit([course], now=NOW).amiss}

    assert {"batch.pending": ((Fault.LATE, Fault.REORDERED), "batch.running")} == found


def test_a_repeat_is_counted_and_is_not_amiss() -> None:
    """By the same id or by another one; the first receipt counts."""
    came = [Came("batch.running", at(101), repeats=2), Came("batch.running", at(900))]
    found = audit([replace(a_course((RUNNING, 100)), came=came)], now=NOW)

    assert ((), 3) == (found.amiss, found.repeated)


@pytest.mark.parametrize(("ago", "count"), [(0, 0), (-1, 0), (1, 1)])
def test_what_is_young_is_not_judged_yet(ago: float, count: int) -> None:
    """It may still come."""
    changed = 10_000 - YOUNG.total_seconds() - ago + (0 if ago > 0 else 0.5)
    assert count == len(audit([a_course((RUNNING, changed))], now=NOW).judged)


def test_what_changed_before_anybody_listened_is_not_judged() -> None:
    """It may have been sent to nobody."""
    course = replace(a_course(*LIFE, came={"batch.success": 201}), judged_from=at(150))
    assert ["batch.success"] == [one.type for one in audit([course], now=NOW).judged]


def test_a_missed_cancelled_is_no_proof_until_one_has_come() -> None:
    """The reference lists it and does not say that it is sent."""
    cancelled = a_course((CANCELLED, 0), came={})
    another = a_course((CANCELLED, 0), came={"batch.cancelled": 1})

    assert {"batch.cancelled": (Fault.UNCONFIRMED,)} == faults(cancelled)
    assert () == audit([cancelled], now=NOW).silent
    assert {"batch.cancelled": (Fault.MISSED,)} == faults(cancelled, another)


@given(
    st.lists(st.sampled_from(LIFE), unique=True, max_size=3),
    st.dictionaries(st.sampled_from([*WEBHOOKS.values(), "batch.new"]), st.floats(0, 900)),
)
@settings(deadline=None)
def test_each_is_judged_once_and_the_numbers_add_up(
    steps: list[tuple[Status, float]], came: dict[str, float]
) -> None:
    """Whatever was observed and whatever came, in any order."""
    found = audit([a_course(*steps, came=came)], now=NOW)

    assert len(steps) == len(found.judged) == len({one.type for one in found.judged})
    missed = found.count(Fault.MISSED) + found.count(Fault.UNCONFIRMED)
    assert len(found.judged) == found.came + missed
    observed = {WEBHOOKS[status] for status, _ in steps}
    assert len(came.keys() - observed) == found.unseen
    for one in found.judged:
        assert (one.type in came) == (one.received_at is not None)
        assert (Fault.REORDERED in one.faults) == (one.behind is not None)
        assert one.behind is None or came[one.behind] < came[one.type]
