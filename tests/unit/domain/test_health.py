"""When an endpoint is held back, told of, and given up."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from batchwatch.domain.batch import EndpointName
from batchwatch.domain.health import (
    FAILING_TO_DISABLE,
    FAILING_TO_TELL,
    FOLLOW_AFTER,
    LONGEST_SILENCE,
    OFFLINE_PROBE_AFTER,
    PROBE_AFTER,
    TRIES_TO_OPEN,
    WINDOW,
    Breaker,
    Record,
)
from tests.support.builders import at

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchwatch.domain.event import Event

OPS = EndpointName("ops")
HOUR = 3600.0


def tried(breaker: Breaker, outcomes: str, *, every: float = 1.0, since: float = 0.0) -> float:
    """Let tries fail (``x``) or go well (``.``); when the last one ended."""
    now = since
    for outcome in outcomes:
        probe = breaker.began()
        breaker.ended(now, failed=outcome == "x", probe=probe)
        now += every
    return now - every


def test_a_receiver_that_fails_now_and_then_is_not_held_back() -> None:
    """Seven of ten must fail, and of ten at least."""
    breaker = Breaker()

    tried(breaker, "x" * (TRIES_TO_OPEN - 1))
    tried(breaker, "..x..x.x.x" * 9, since=60)

    assert (False, 0.0) == (breaker.is_open, breaker.wait(999))


def test_one_that_keeps_failing_is_probed_and_left_alone_between() -> None:
    """Half a minute after it, and after each probe that fails; a probe that goes well ends it."""
    breaker = Breaker()
    opened = tried(breaker, "...xxxxxxx")

    assert PROBE_AFTER == breaker.wait(opened)
    later = opened + PROBE_AFTER
    assert 0 == breaker.wait(later)
    assert breaker.began()
    assert breaker.wait(later) > 1e9  # one probe at a time
    breaker.abandoned()  # another try, from before it opened
    assert breaker.wait(later) > 1e9
    breaker.ended(later, failed=True, probe=True)
    assert PROBE_AFTER == breaker.wait(later)
    assert breaker.began()
    breaker.ended(later + PROBE_AFTER, failed=False, probe=True)
    assert (False, 0.0) == (breaker.is_open, breaker.wait(later + PROBE_AFTER))


def test_what_was_under_way_when_it_opened_neither_keeps_it_open_nor_counts() -> None:
    """But what went well shows that the receiver is there."""
    breaker = Breaker()
    opened = tried(breaker, "x" * TRIES_TO_OPEN)
    breaker.ended(opened + 20, failed=True)

    assert PROBE_AFTER - 20 == breaker.wait(opened + 20)
    breaker.ended(opened + 21, failed=False)
    assert not breaker.is_open


def test_failures_of_long_ago_are_forgotten() -> None:
    """The window is five minutes."""
    breaker = Breaker()
    ended = tried(breaker, "x" * (TRIES_TO_OPEN - 1))
    tried(breaker, "x", since=ended + 2 * WINDOW)

    assert not breaker.is_open


def test_without_a_network_it_is_tried_every_few_seconds_and_nothing_counts() -> None:
    """As soon as anything comes back, it is as if nothing had been."""
    breaker = Breaker()
    breaker.began()
    breaker.offline(0)

    assert OFFLINE_PROBE_AFTER == breaker.wait(0)
    breaker.offline(OFFLINE_PROBE_AFTER, probe=breaker.began())
    breaker.ended(2 * OFFLINE_PROBE_AFTER, failed=True, probe=breaker.began())
    assert not breaker.is_open


@given(
    steps=st.lists(st.tuples(st.sampled_from("x.o?"), st.integers(0, 3)), max_size=300),
    every=st.floats(0.01, 60),
)
def test_whatever_happens_an_endpoint_is_never_left_alone_for_good(
    steps: list[tuple[str, int]], every: float
) -> None:
    """With some tries open at once: unless a probe is open, the next comes within half a minute."""
    breaker, now = Breaker(), 0.0
    tries: list[int] = []  # those that are open, by what they are to be ended with
    newest = 0
    for outcome, place in steps:
        now += every
        if breaker.wait(now) == 0:
            tries.append(breaker.began())
            assert tries[-1] == 0 or tries[-1] not in tries[:-1]  # one probe at a time
            newest = tries[-1] or newest
        if tries and place < len(tries):
            probe = tries.pop(place)
            if outcome == "o":
                breaker.offline(now, probe=probe)
            elif outcome == "?":
                breaker.abandoned(probe=probe)
            else:
                breaker.ended(now, failed=outcome == "x", probe=probe)
        assert newest in tries or breaker.wait(now) <= PROBE_AFTER


def failing(record: Record, hours: float, *, every: float = HOUR) -> tuple[Record, list[str]]:
    """A record after so many hours of failure, and what was told of it."""
    told = []
    for number in range(round(hours * HOUR / every)):
        record, event = record.failed("HTTP 500", after=every, now=at(number * every))
        if event is not None:
            told.append(f"{event.type} {event.data['share']}")
    return record, told


def test_people_are_told_early_and_again_on_the_way_to_its_end() -> None:
    """Five minutes, 50, 70 and 90 % of five days, and the end; each once."""
    record, told = failing(Record(OPS), 130)

    assert [
        "endpoint.failing 0.0",
        "endpoint.failing 0.5",
        "endpoint.failing 0.7",
        "endpoint.failing 0.9",
        "endpoint.disabled 1.0",
    ] == told
    assert "120 hours of nothing but failure" in (record.reason or "")


def test_a_hiccup_is_told_to_nobody() -> None:
    """Neither its beginning nor its end."""
    record, told = failing(Record(OPS), 0.07, every=60)
    record, event = record.succeeded(now=at(999))

    assert ([], None, Record(OPS)) == (told, event, record)


def test_one_success_makes_all_well_and_is_told_if_the_failure_was() -> None:
    """The next failure begins to count anew."""
    record, _ = failing(Record(OPS), 70)
    record, event = record.succeeded(now=at(0))

    assert event is not None
    assert "endpoint.recovered" == event.type
    assert Record(OPS) == record


def test_neither_a_jump_of_the_clock_nor_a_pause_makes_it_look_dead() -> None:
    """Time is counted between tries, and no more of it than the longest pause between two."""
    record, _ = Record(OPS).failed("x", after=0, now=at(0))
    record, event = record.failed("x", after=1, now=at(0) + timedelta(days=400))
    assert (1, None) == (record.failing_for, event)

    record, _ = record.failed("x", after=400 * 24 * HOUR, now=at(0))
    assert LONGEST_SILENCE + 1 == record.failing_for < FAILING_TO_DISABLE


def test_once_disabled_nothing_is_told_until_it_is_enabled_and_takes_something() -> None:
    """What was under way when it was disabled changes nothing."""
    record, event = Record(OPS).disabled("it answered 410 Gone", now=at(0))
    assert event is not None
    assert record.failed("x", after=FAILING_TO_DISABLE, now=at(1)) == (record, None)
    assert record.succeeded(now=at(1)) == (record, None)
    assert record.disabled("by hand", now=at(1)) == (record, None)

    again, told = failing(record.enabled(), 0.2, every=60)
    assert ["endpoint.failing 0.0"] == told  # as early as ever
    for enabled in (record.enabled(), again):
        _, event = enabled.succeeded(now=at(2))
        assert event is not None
        assert ("endpoint.recovered", record.alarm_since) == (
            event.type,
            datetime.fromisoformat(event.data["since"]),
        )


def test_each_time_it_fails_is_another_fact() -> None:
    """Its events have ids of their own, and the same fact always the same."""
    ids = []
    record = Record(OPS)
    for second in (0, 10_000):
        record, _ = record.failed("x", after=0, now=at(second))
        again = record
        record, event = record.failed("x", after=FAILING_TO_TELL, now=at(second + 301))
        _, same = again.failed("x", after=FAILING_TO_TELL, now=at(second + 999))
        assert event is not None
        assert same is not None
        assert event.id == same.id
        ids.append(event.id)
        record, _ = record.succeeded(now=at(second + 400))

    assert 2 == len(set(ids))


def test_who_hears_that_it_fails_probes_once_and_then_less_often_than_the_other() -> None:
    """A word that is said again puts off nothing; when the other gets through, so do we."""
    breaker = Breaker()
    breaker.follow(100)
    assert 0 == breaker.wait(100)
    probe = breaker.began()
    breaker.follow(101)
    assert breaker.wait(101) > 1e9  # one probe at a time
    breaker.ended(102, failed=True, probe=probe)
    assert FOLLOW_AFTER == breaker.wait(102) > 2 * PROBE_AFTER

    breaker.follow(102 + PROBE_AFTER)
    assert FOLLOW_AFTER - PROBE_AFTER == breaker.wait(102 + PROBE_AFTER)

    breaker.hurry(140)
    assert 0 == breaker.wait(140)
    breaker.ended(141, failed=False, probe=breaker.began())
    assert (False, 0) == (breaker.is_open, breaker.wait(142))
    opened = tried(breaker, "x" * TRIES_TO_OPEN, since=200)
    assert PROBE_AFTER == breaker.wait(opened)


class Replica:
    """What one of several that send to the same endpoint remembers of it, as a lane does."""

    def __init__(self) -> None:
        self.record = self.base = Record(OPS)
        self.failed_at: float | None = None

    def tried(self, now: float, *, takes: bool) -> tuple[Record, Sequence[Event]]:
        if takes:
            self.record, event = self.record.succeeded(now=at(now))
        else:
            after = 0.0 if self.failed_at is None else now - self.failed_at
            self.record, event = self.record.failed("x", after=after, now=at(now))
        self.failed_at = None if takes else now
        return self.record, [event] if event else []

    def adopt(self, record: Record) -> None:
        self.record = self.base = record
        self.failed_at = None


STEPS = st.lists(
    st.tuples(
        st.integers(0, 2),  # who sends
        st.booleans(),  # whether it is taken
        st.sampled_from([1.0, 59.0, 240.0, 30 * HOUR, 70 * HOUR]),  # seconds since the last
        st.sampled_from(["keeps", "keeps and all look", "later"]),
    ),
    max_size=60,
)


@given(STEPS)
def test_several_that_send_to_one_endpoint_tell_of_it_as_one_would(
    steps: list[tuple[int, bool, float, str]],
) -> None:
    """Each fact once, the all-clear after an alarm, and no end while any of them gets through."""
    replicas = [Replica() for _ in range(3)]
    stored = Record(OPS)
    told: list[Event] = []
    now = taken_at = 0.0
    for who, takes, pause, what in steps:
        one = replicas[who]
        now += pause
        record, events = one.tried(now, takes=takes)
        if takes and one.base.disabled_at is None:
            taken_at = now
        if what == "later" and not events and not takes:
            continue
        stored, joined = record.joined(stored, events, base=one.base, now=at(now))
        told += joined
        one.base = stored
        if stored != record:
            one.adopt(stored)
        if what == "keeps and all look":
            for other in replicas:
                if other.failed_at is None:
                    other.adopt(stored)

        assert len(told) == len({event.id for event in told})
        types = [event.type for event in told]
        assert (stored.alarm_since is not None) == (
            bool(types) and types[-1] != "endpoint.recovered"
        )
        if stored.disabled_at is not None:
            # It may be that the one that takes does not know yet that another fails.
            assert now - taken_at >= FAILING_TO_DISABLE - 2 * LONGEST_SILENCE
            break


def test_a_replica_whose_own_way_is_broken_gives_up_on_nobody() -> None:
    """What another one had taken meanwhile counts, however long this one saw failures alone."""
    one, other = Replica(), Replica()
    stored, now = Record(OPS), 0.0
    told: list[Event] = []
    for _ in range(30):  # 150 hours, of which 120 would be the end
        for sender, takes in ((one, False), (other, True)):
            now += 2.5 * HOUR
            other.adopt(stored)
            record, events = sender.tried(now, takes=takes)
            stored, joined = record.joined(stored, events, base=sender.base, now=at(now))
            told += joined
            sender.base = stored
            if stored != record:
                sender.adopt(stored)

    assert (Record(OPS), []) == (stored, told)
