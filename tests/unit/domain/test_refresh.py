"""The cheapest way to look at many batches again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from batchwatch.domain.batch import NON_TERMINAL, PENDING, RUNNING, BatchId, Status
from batchwatch.domain.refresh import Due, plan_refresh
from tests.support.builders import at


def due(count: int, status: Status = RUNNING) -> list[Due]:
    return [Due(BatchId(f"bat-{status}-{n}"), status, at(n)) for n in range(count)]


def test_a_few_batches_are_fetched_one_by_one() -> None:
    """Three sweeps cost at least three requests."""
    plan = plan_refresh(due(3), page_size=100)

    assert ((), 3) == (plan.sweeps, len(plan.singles))


def test_many_batches_are_swept_status_by_status() -> None:
    """Every status that a batch can have moved to is swept, over the whole time of all."""
    plan = plan_refresh([*due(300, PENDING), *due(9_700)], page_size=100)

    assert list(NON_TERMINAL) == [sweep.status for sweep in plan.sweeps]
    assert all(sweep.created_on_or_after < at(0) for sweep in plan.sweeps)
    assert all(sweep.created_on_or_before > at(9_699) for sweep in plan.sweeps)
    assert () == plan.singles


def test_what_no_list_can_show_is_fetched_singly() -> None:
    """No created_at, or a status that upstream may refuse as a filter."""
    odd = [Due(BatchId("bat-a"), RUNNING, None), Due(BatchId("bat-b"), Status("NEW"), at(0))]

    assert ("bat-a", "bat-b") == plan_refresh([*due(100), *odd], page_size=10).singles


@given(
    counts=st.tuples(*[st.integers(0, 400)] * 3),
    odd=st.integers(0, 5),
    page_size=st.integers(1, 1000),
)
def test_the_plan_never_costs_more_than_a_get_each(
    counts: tuple[int, ...], odd: int, page_size: int
) -> None:
    """And every batch is looked at, by a sweep or singly."""
    batches = [
        one for n, status in zip(counts, NON_TERMINAL, strict=True) for one in due(n, status)
    ]
    batches += [Due(BatchId(f"odd-{n}"), RUNNING, None) for n in range(odd)]

    plan = plan_refresh(batches, page_size=page_size)

    pages = sum(max(1, -(-n // page_size)) for n in counts) if plan.sweeps else 0
    assert pages + len(plan.singles) <= len(batches)
    if not plan.sweeps:
        assert {one.id for one in batches} == set(plan.singles)
