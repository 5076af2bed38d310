"""Bad luck: drawn from the seed, within bounds that leave something to prove."""

from __future__ import annotations

from collections import Counter
from itertools import groupby, pairwise

from hypothesis import given
from hypothesis import strategies as st

from batchwatch.demo.chaos import DOWN, FIRST_KILL, LAST_KILL, Mood, Moods, plan_kills

SEEDS = st.integers(0, 2**31)
BAD = (Mood.REFUSES, Mood.HANGS, Mood.DROPS)


@given(SEEDS)
def test_the_daemon_is_killed_three_to_five_times_while_batches_move(seed: int) -> None:
    """One after the other, and each time for a moment."""
    kills = plan_kills(seed)

    assert 3 <= len(kills) <= 5
    assert all(FIRST_KILL <= kill.after <= LAST_KILL for kill in kills)
    assert all(DOWN[0] <= kill.down <= DOWN[1] for kill in kills)
    assert all(one.after < next_one.after for one, next_one in pairwise(kills))


@given(SEEDS)
def test_the_same_seed_is_the_same_bad_day(seed: int) -> None:
    """A failure that was seen once can be had again."""
    one, other = Moods(seed, "webhook"), Moods(seed, "webhook")

    assert plan_kills(seed) == plan_kills(seed)
    assert [one.next() for _ in range(50)] == [other.next() for _ in range(50)]


@given(SEEDS)
def test_a_receiver_fails_now_and_then_and_never_for_long(seed: int) -> None:
    """A fifth of the time in all ways, at most three times in a row."""
    moods = Moods(seed, "webhook")
    drawn = [moods.next() for _ in range(1_000)]

    assert set(Mood) == set(drawn)
    assert Counter(drawn)[Mood.WELL] > 700
    streaks = [len(list(run)) for bad, run in groupby(drawn, lambda mood: mood in BAD) if bad]
    assert max(streaks) <= 3


def test_without_chaos_a_receiver_is_always_well() -> None:
    """And answers at once."""
    moods = Moods(None, "webhook")

    assert {Mood.WELL} == {moods.next() for _ in range(1_000)}
    assert moods.slowness() == 0.0
