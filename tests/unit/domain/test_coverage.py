"""What counts as a gap, what closes it, and what is proven of a stretch of time."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchwatch.domain.coverage import (
    RESTARTED,
    SLEPT,
    Gap,
    Kind,
    Ledger,
    Piece,
    State,
    Window,
    closed,
    missed_before,
    missed_between,
    on_upstreams_clock,
    proof,
)
from tests.support.builders import a_look, at

if TYPE_CHECKING:
    from datetime import datetime

ALLOWED = 150.0
PRESENT = Gap(at(0), at(0), Kind.STOPPED, "no daemon is running")


def test_passes_that_follow_each_other_in_time_leave_no_gap() -> None:
    """Whatever one of the two clocks does meanwhile."""
    before, this = a_look(0, 100), a_look(0, 100 + ALLOWED)
    set_forward = replace(this, begun_at=at(9_999))
    strange = replace(this, covered_to=at(9_999))
    set_back = replace(this, covered_to=at(-9_999), begun_at=at(-9_999))

    for look in (this, set_forward, strange, set_back):
        assert missed_between(before, look, allowed=ALLOWED, why=None) is None


@pytest.mark.parametrize("why", [None, (Kind.FAILING, "HTTP 503"), (Kind.SLOW, "a long pause")])
def test_too_long_without_a_whole_pass_is_a_gap_that_says_why(
    why: tuple[Kind, str] | None,
) -> None:
    """From the last covered moment to the next."""
    gap = missed_between(a_look(0, 100), a_look(0, 400), allowed=ALLOWED, why=why)

    kind, reason = why or (Kind.SLOW, None)
    assert Gap(at(100), at(400), kind, reason) == gap


def test_a_gap_is_as_long_as_it_was_though_the_clocks_went_back() -> None:
    """An administrator sets the clock while LlamaCloud is down; it shows no Date."""
    this = replace(a_look(0, 400), covered_to=at(50), begun_at=at(50))
    gap = missed_between(a_look(0, 100), this, allowed=ALLOWED, why=None)

    assert gap is not None
    assert (at(-250), at(50)) == (gap.start, gap.end)


def test_a_machine_that_slept_did_not_watch() -> None:
    """Its monotonic clock stood still; all others went on."""
    this = replace(a_look(0, 9_000), monotonic=115.0)
    gap = missed_between(a_look(0, 100), this, allowed=ALLOWED, why=None)

    assert Gap(at(100), at(9_000), Kind.STOPPED, SLEPT) == gap


def before(**more: object) -> list[Gap]:
    given = {"running": 1.0, "allowed": ALLOWED, "failing": None, "why": None} | more
    return missed_before(at(100), a_look(0, 1_000), **given)  # type: ignore[arg-type]  # by name


def test_the_time_from_one_process_to_the_next_is_a_gap_however_short() -> None:
    """Stopped is stopped; and a new one that meets trouble of its own says so apart."""
    assert [Gap(at(100), at(1_000), Kind.STOPPED)] == before()
    assert [
        Gap(at(100), at(600), Kind.STOPPED),
        Gap(at(600), at(1_000), Kind.FAILING, "HTTP 503"),
    ] == before(running=400.0, why=(Kind.FAILING, "HTTP 503"))
    assert [Gap(at(100), at(1_000), Kind.FAILING, f"HTTP 500 ({RESTARTED})")] == before(
        failing="HTTP 500"
    )


def test_a_ledger_that_is_ahead_of_the_clock_makes_no_gap() -> None:
    """The clock was set back since, by whomever."""
    given = {"running": 1.0, "allowed": ALLOWED, "failing": None, "why": None}
    assert [] == missed_before(at(2_000), a_look(0, 1_000), **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("date", "expected"),
    [(None, 0), (3, 0), (9, 0), (7 + 60, 60), (7 - 3_600, -3_600)],
)
def test_upstreams_clock_counts_where_it_is_another(date: float | None, expected: float) -> None:
    """It was asked at 0 and answered seven seconds later."""
    shown = None if date is None else at(date)
    assert at(expected) == on_upstreams_clock(at(0), shown, elapsed=7.0)


moments = st.integers(-1_000, 1_000).map(at)
spans = st.tuples(moments, moments).map(lambda two: (min(two), max(two)))


@given(span=spans, covered_from=moments)
def test_a_gap_is_closed_as_far_as_the_window_reaches_back(
    span: tuple[datetime, datetime], covered_from: datetime
) -> None:
    """Its parts are the whole of it, and only what was listed is closed."""
    gap = Gap(*span, Kind.STOPPED)
    look = replace(a_look(0, 1_000), covered_from=covered_from)
    parts = closed(gap, look, now=at(2_000))

    assert (gap.start, gap.end) == (parts[0].start, parts[-1].end)
    assert all(one.end == other.start for one, other in itertools.pairwise(parts))
    for part in parts:
        if part.start < part.end:
            assert part.is_open == (part.end <= look.covered_from)


windows = st.lists(
    st.tuples(spans, st.integers(1, 9)).map(lambda one: Window(*one[0], one[1])), max_size=4
)
gaps = st.lists(
    st.tuples(spans, st.sampled_from(Kind), st.none() | moments).map(
        lambda one: Gap(*one[0], one[1], closed_at=one[2])
    ),
    max_size=4,
)


@given(span=spans, windows=windows, gaps=gaps, started_at=moments, kept_from=st.none() | moments)
def test_what_is_proven_is_the_whole_of_the_time_in_order(
    span: tuple[datetime, datetime],
    windows: list[Window],
    gaps: list[Gap],
    started_at: datetime,
    kept_from: datetime | None,
) -> None:
    """Every moment has one answer, and none that would be too good."""
    since, now = span
    ledger = Ledger(started_at, windows, gaps, kept_from)
    pieces = proof(ledger, since=since, now=now, allowed=ALLOWED, present=PRESENT)

    assert (pieces == []) == (since == now)
    if pieces:
        assert (since, now) == (pieces[0].start, pieces[-1].end)
    assert all(one.start < one.end for one in pieces)
    assert all(one.end == other.start for one, other in itertools.pairwise(pieces))
    for one in pieces:
        reach = one.start
        for window in sorted(windows, key=lambda each: each.start):
            reach = max(reach, window.end) if window.start <= reach else reach
        over = [g for g in gaps if g.start < one.end and one.start < g.end]
        if kept_from is not None and one.start < kept_from:
            assert one.state in (State.BEFORE, State.REMOVED)
        if one.state is State.WATCHED:
            assert one.end <= reach
            assert not over
        if one.state is State.DUE:
            assert (one.end - one.start).total_seconds() <= ALLOWED
        if one.state is State.CLOSED:
            assert not any(g.is_open for g in over)
        if one.state in (State.CLOSED, State.OPEN):
            assert one.gap is not None


def test_a_quiet_day_is_one_piece_and_what_is_due() -> None:
    """The last seconds are the next pass' business."""
    ledger = Ledger(at(-9_000), [Window(at(-9_999), at(1_000), 60)], [])
    pieces = proof(ledger, since=at(0), now=at(1_020), allowed=ALLOWED, present=PRESENT)

    assert [
        Piece(at(0), at(1_000), State.WATCHED),
        Piece(at(1_000), at(1_020), State.DUE),
    ] == pieces


def test_a_daemon_that_is_down_now_is_an_open_gap() -> None:
    """Nothing was written since, so the question itself finds it."""
    ledger = Ledger(at(0), [Window(at(-100), at(500), 60)], [])
    pieces = proof(ledger, since=at(-50), now=at(5_000), allowed=ALLOWED, present=PRESENT)

    assert [State.BEFORE, State.WATCHED, State.OPEN] == [one.state for one in pieces]
    assert replace(PRESENT, start=at(500), end=at(5_000)) == pieces[-1].gap


def test_time_between_two_rows_of_the_ledger_is_open_though_nobody_noted_why() -> None:
    """As an older version left it."""
    ledger = Ledger(at(0), [Window(at(0), at(100), 9), Window(at(200), at(300), 9)], [])
    pieces = proof(ledger, since=at(0), now=at(300), allowed=ALLOWED, present=PRESENT)

    assert [State.WATCHED, State.OPEN, State.WATCHED] == [one.state for one in pieces]
    assert pieces[1].gap is not None
    assert Kind.UNKNOWN is pieces[1].gap.kind


def test_a_scope_that_is_new_says_nothing_of_the_time_before_it() -> None:
    """Neither the windows nor the gaps of the one before count for it."""
    old = Gap(at(100), at(200), Kind.STOPPED)
    ledger = Ledger(at(600), [Window(at(0), at(500), 9), Window(at(500), at(700), 1)], [old])
    pieces = proof(ledger, since=at(0), now=at(700), allowed=ALLOWED, present=PRESENT)

    assert [
        Piece(at(0), at(600), State.BEFORE),
        Piece(at(600), at(700), State.WATCHED),
    ] == pieces
