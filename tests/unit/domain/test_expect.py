"""What to expect of a batch, from what those like it took."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchwatch.domain.expect import (
    LEAST_FACTOR,
    LEAST_MARGIN,
    LEAST_SAMPLES,
    Expectation,
    Experience,
    Past,
    expect,
    took,
)
from tests.support.builders import at

DURATIONS = st.lists(st.floats(1, 1e7), min_size=LEAST_SAMPLES, max_size=50)


def past(*seconds: float, files: int | None = None, directory: str | None = None) -> list[Past]:
    return [Past(one, files, directory) for one in seconds]


def expected(*seconds: float) -> Expectation:
    found = expect(past(*seconds), files=None)
    assert found is not None
    return found


def test_a_few_samples_tell_nothing() -> None:
    """Nobody is called stuck because of three batches."""
    assert expect(past(*[60.0] * (LEAST_SAMPLES - 1)), files=None) is None
    assert expect(past(*[60.0] * LEAST_SAMPLES), files=None) is not None


def test_people_are_told_the_middle_and_what_most_take() -> None:
    """The median, and where nine in ten are on either side."""
    found = expected(*range(100, 201))

    assert (150, 110, 190, 101) == (found.median, found.low, found.high, len(found.seconds))


@given(seconds=DURATIONS)
def test_the_limit_is_far_outside(seconds: list[float]) -> None:
    """Three times the median at least, and ten minutes beyond it."""
    found = expected(*seconds)

    assert found.low <= found.median <= found.high
    assert found.limit >= found.median + LEAST_MARGIN
    assert found.limit >= found.median * LEAST_FACTOR or found.limit > 300 * 86_400
    assert all(one <= other for one, other in pairwise(found.seconds))


def test_a_wider_spread_has_a_wider_limit() -> None:
    """Hours that are usual for some are no alarm for the others."""
    steady = expected(*[3600.0] * 9)
    wide = expected(*(600.0 * 2**n for n in range(9)))

    assert LEAST_FACTOR * 3600 == steady.limit
    assert wide.limit > 10 * wide.median


def test_what_was_stuck_once_does_not_hide_what_is_stuck_now() -> None:
    """A few days among minutes move neither the middle nor the limit by much."""
    usual = [600.0 + n for n in range(18)]

    assert expected(*usual, 3 * 86_400.0, 9 * 86_400.0).limit < 1.5 * expected(*usual).limit


def test_of_batches_with_many_files_those_with_many_are_like() -> None:
    """A thousand files take longer than one, and that is no reason to alarm."""
    small, large = past(*[60.0] * 20, files=1), past(*[7200.0] * 6, files=1000)

    assert [60, 7200, None] == [
        found and found.median
        for found in (expect(small + large, files=files) for files in (2, 900, 30))
    ]


def test_one_of_unknown_size_may_be_as_large_as_the_largest() -> None:
    """The usual end is expected, and only what is too long for any size is stuck."""
    found = expect(past(*[60.0] * 20, files=1) + past(*[7200.0] * 2, files=1000), files=None)

    assert found is not None
    assert (60, LEAST_FACTOR * 7200) == (found.median, found.limit)


def test_a_batch_is_as_large_as_the_last_one_over_its_directory() -> None:
    """Upstream says how many files it has only when it has ended."""
    known = Experience(
        [
            *past(*[7200.0] * 5, files=1000, directory="dir-large"),
            *past(*[60.0] * 5, files=1, directory="dir-small"),
            *past(*[60.0] * 5, files=1, directory="dir-large"),  # it has grown since
        ]
    )

    assert [7200, 60] == [
        found and found.median for found in map(known.of, ("dir-large", "dir-small"))
    ]
    assert (known.of("dir-new"), known.of(None)) == (known.of(None), known.of("dir-new"))


@given(seconds=DURATIONS, elapsed=st.floats(0, 2e7))
def test_the_end_is_in_the_future_until_it_is_overdue(seconds: list[float], elapsed: float) -> None:
    """And then nine in ten had ended before now."""
    found = expected(*seconds)

    end, overdue = found.end(at(0), now=at(elapsed))

    if overdue:
        assert elapsed > found.high - 1e-6  # moments have microseconds
        assert end <= at(elapsed)
    else:
        assert at(elapsed) <= end


def test_the_longer_it_takes_the_later_it_is_expected() -> None:
    """What lasts for longer than the middle is one of the long ones."""
    found = expected(*(60.0 * n for n in range(1, 12)))

    ends = [found.end(at(0), now=at(60.0 * minutes)) for minutes in (0, 6, 9, 11)]

    assert [
        (at(360), False),
        (at(540), False),
        (at(630), False),
        (at(600), True),
    ] == ends


@pytest.mark.parametrize(
    ("stamps", "seconds"),
    [
        ({"changed_at": at(100)}, 100),
        ({"updated_at": at(90), "changed_at": at(100)}, 90),
        # The daemon slept for a day.
        ({"updated_at": at(90), "changed_at": at(86_400), "followed": False}, 90),
        ({"updated_at": None, "changed_at": at(86_400), "followed": False}, None),
        # Stamps that say nothing: it was never updated, or touched long after.
        ({"updated_at": at(0), "changed_at": at(100)}, 100),
        ({"updated_at": at(0), "changed_at": at(100), "followed": False}, None),
        ({"updated_at": at(9999), "changed_at": at(100)}, 100),
        ({"created_at": None, "first_seen_at": at(40), "changed_at": at(100)}, 60),
        ({"changed_at": at(-5)}, None),  # a clock that was set back
        ({"updated_at": at(0.001), "changed_at": at(1)}, 1),
    ],
)
def test_what_a_batch_took_is_what_upstream_says_or_what_was_seen(
    stamps: dict[str, object], seconds: float | None
) -> None:
    """And nothing where neither tells."""
    given = {
        "created_at": at(0),
        "updated_at": None,
        "first_seen_at": at(1),
        "changed_at": at(0),
        "followed": True,
    }

    assert seconds == took(**given | stamps)  # type: ignore[arg-type]  # as in the table
