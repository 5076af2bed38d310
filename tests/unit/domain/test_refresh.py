"""The cheapest way to look at many batches again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from batchwatch.domain.batch import NON_TERMINAL, PENDING, RUNNING, Status
from batchwatch.domain.refresh import Share, plan_refresh
from tests.support.builders import at


def share(due: int, status: Status = RUNNING, *, undated: int = 0) -> Share:
    dated = due > undated
    return Share(
        status,
        due=due,
        undated=undated,
        oldest=at(0) if dated else None,
        newest=at(due) if dated else None,
    )


def test_a_few_batches_are_fetched_one_by_one() -> None:
    """Three sweeps cost at least three requests."""
    assert () == plan_refresh([share(3)], page_size=100)


def test_many_batches_are_swept_status_by_status() -> None:
    """Every status that a batch can have moved to is swept, over the whole time of all."""
    sweeps = plan_refresh([share(300, PENDING), share(9_700)], page_size=100)

    assert list(NON_TERMINAL) == [sweep.status for sweep in sweeps]
    assert all(sweep.created_on_or_after < at(0) for sweep in sweeps)
    assert all(sweep.created_on_or_before > at(9_700) for sweep in sweeps)


def test_what_no_list_can_show_is_no_reason_to_sweep() -> None:
    """No created_at, or a status that upstream may refuse as a filter."""
    odd = [share(500, undated=500), share(500, Status("NEW"))]

    assert () == plan_refresh(odd, page_size=10)
    assert 3 == len(plan_refresh([*odd, share(100, PENDING)], page_size=10))


@given(
    counts=st.tuples(*[st.integers(0, 400)] * 3),
    undated=st.integers(0, 5),
    page_size=st.integers(1, 1000),
)
def test_the_plan_never_costs_more_than_a_get_each(
    counts: tuple[int, ...], undated: int, page_size: int
) -> None:
    """Whatever the statuses and however small the pages."""
    shares = [
        share(count + undated, status, undated=undated)
        for count, status in zip(counts, NON_TERMINAL, strict=True)
    ]

    sweeps = plan_refresh(shares, page_size=page_size)

    pages = sum(max(1, -(-count // page_size)) for count in counts)
    if sweeps:
        assert pages < sum(counts)
    else:
        assert pages >= sum(counts)
