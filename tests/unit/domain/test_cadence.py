"""When to look again, and from where."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from batchwatch.domain.cadence import (
    BACKOFF_CEILING,
    OVERLAP,
    backoff,
    next_cursor,
    next_poll,
    window_start,
)
from tests.support.builders import at

DAY = timedelta(days=1)


def test_the_first_window_reaches_back_by_the_lookback() -> None:
    """Nothing was seen yet."""
    assert at(0) - DAY == window_start(None, started_at=at(0), lookback=DAY)


def test_a_pause_of_any_length_is_made_good() -> None:
    """The window begins at the newest batch known, not a lookback ago."""
    cursor = at(0) - timedelta(days=9)

    assert cursor - OVERLAP == window_start(cursor, started_at=at(0), lookback=DAY)


def test_a_date_in_the_future_does_not_blind_the_watch() -> None:
    """One row from next year must not hide all that come until then."""
    assert at(60) == next_cursor(at(0), at(1e8), now=at(60))


@given(st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6)), max_size=10))
def test_the_cursor_never_goes_back(newest: list[float | None]) -> None:
    """However the passes come out."""
    cursor = at(0)
    for one in newest:
        moved = next_cursor(cursor, None if one is None else at(one), now=at(1e6))
        assert moved is not None
        assert moved >= cursor
        cursor = moved


def test_an_idle_watch_looks_less_often_but_within_a_minute() -> None:
    """Unless it was told to look less often than that anyway."""
    assert [15, 60, 4, 300] == [
        next_poll(15, active=1),
        next_poll(15, active=0),
        next_poll(1, active=0),
        next_poll(300, active=0),
    ]


def test_failures_are_retried_ever_more_slowly() -> None:
    """Up to a ceiling, and never sooner than upstream asked."""
    pauses = [backoff(n, interval=15, jitter=0.5) for n in range(1, 12)]

    assert sorted(pauses) == pauses
    assert (1.0, BACKOFF_CEILING) == (pauses[0], pauses[-1])
    assert 600 == backoff(1, interval=15, jitter=0.5, at_least=600)
