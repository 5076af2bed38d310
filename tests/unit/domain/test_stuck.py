"""When a batch has stood still for too long, by which rule, and what is told of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from batchwatch.domain.batch import (
    COMPLETED,
    PENDING,
    RUNNING,
    THROTTLED,
    Batch,
    BatchId,
    Doubt,
    Status,
)
from batchwatch.domain.expect import Expectation, Past, expect
from batchwatch.domain.judging import FEW, LISTED, MANY, Court, Docket, Judged, Slow
from batchwatch.domain.stuck import GATHER, HOUR, Outage, Patience, limit_of
from tests.support.builders import BASE_URL, WATCH, a_batch, a_recorder, a_sighting, at

if TYPE_CHECKING:
    from batchwatch.domain.event import Event

BAT = BatchId("bat-1")
PATIENCE = Patience()
LIMITS = {PENDING: 2 * HOUR, THROTTLED: 6 * HOUR, RUNNING: 12 * HOUR, Status("NEW"): 12 * HOUR}
LATE = GATHER.total_seconds()


def a_court(
    expectation: Expectation | None = None,
    *,
    outages: tuple[Outage, ...] = (),
    patience: Patience = PATIENCE,
) -> Court:
    return Court(WATCH, BASE_URL, patience, outages=outages, expectation_of=lambda _: expectation)


def some(count: int, *, changed: float = 0, first: int = 0) -> dict[BatchId, Batch]:
    """Batches that have been RUNNING since then, and are due."""
    found = [
        a_batch(id=BatchId(f"bat-{n:03d}"), judge_at=at(0), changed_at=at(changed), updated_at=None)
        for n in range(first, first + count)
    ]
    return {one.id: replace(one, created_at=one.changed_at) for one in found}


def types(events: list[Event]) -> list[str]:
    return [one.type for one in events]


class Watching:
    """A court and all that the store would keep for it."""

    def __init__(self, known: dict[BatchId, Batch], court: Court | None = None) -> None:
        self.court = court or a_court()
        self.known = known
        self.slow: Slow | None = None
        self.told: list[Event] = []

    def judge(self, seconds: float) -> list[Event]:
        """As after a look that began then; what is told by it."""
        stuck = [one for one in self.known.values() if one.stuck is not None]
        docket = Docket(self.slow, len(stuck), stuck[:LISTED])
        judged = self.court.judge(self.known, docket, now=at(seconds))
        assert isinstance(judged, Judged)
        self.known = {**self.known, **judged.changes.batches}
        self.slow = judged.slow
        assert judged.stuck == sum(one.stuck is not None for one in self.known.values())
        self.told += judged.changes.events
        return judged.changes.events

    def move(self, batch_id: BatchId, status: Status, seconds: float) -> list[Event]:
        """As when a page shows that it has moved."""
        seen = a_sighting(status, batch_id=batch_id, updated=seconds, seen_at=at(seconds))
        changes = a_recorder().record(self.known, [seen], now=at(seconds))
        self.known = {**self.known, **changes.batches}
        self.told += changes.events
        return changes.events


@given(
    status=st.sampled_from(sorted(LIMITS)),
    looks=st.lists(st.floats(0, 48 * HOUR), min_size=1, max_size=40),
)
def test_a_batch_that_stands_still_is_told_once_and_by_reminders(
    status: Status, looks: list[float]
) -> None:
    """Whenever it is looked at: never before its limit, and at the first look well after it."""
    watching = Watching({BAT: a_batch(status, judge_at=at(0))})
    limit, reminder = LIMITS[status], PATIENCE.reminder
    told: list[float] = []
    for look in sorted(looks):
        if watching.judge(look):
            told.append(look)
        if look >= limit + LATE:
            assert told
            assert look - told[-1] < reminder

    assert all(one >= limit for one in told)
    assert all(later - one >= reminder for one, later in pairwise(told))
    assert len(told) == len({one.id for one in watching.told})
    assert list(range(len(told))) == [one.data["stuck"]["reminder"] for one in watching.told]


@given(
    looks=st.lists(st.floats(0, 12 * HOUR - 1), max_size=20),
    back=st.floats(1, 1e9),
)
def test_a_clock_that_is_set_back_makes_nothing_stuck(looks: list[float], back: float) -> None:
    """Nor is it told again, nor for ever silent: its reminder comes after the usual time."""
    watching = Watching({BAT: a_batch(judge_at=at(0))})
    for look in sorted(looks):
        watching.judge(look)
        watching.judge(look - back)
    assert [] == watching.told

    watching.judge(13 * HOUR)
    assert ["batch.stuck"] == types(watching.told)
    watching.judge(13 * HOUR - back)
    watching.judge(13 * HOUR - back + 1)
    assert ["batch.stuck"] == types(watching.told)
    assert ["batch.stuck"] == types(watching.judge(25 * HOUR - back + 1))


def test_a_time_from_a_clock_that_was_wrong_is_not_waited_for() -> None:
    """Upstream's own stamp says since when, where ours is in the future."""
    batch = a_batch(changed_at=at(1e8), revision=4, updated=60)

    limit = limit_of(batch, PATIENCE, None, now=at(0))

    assert at(60 + 12 * HOUR) == limit.since


def test_what_was_found_in_its_status_has_been_in_it_since_upstream_says_so() -> None:
    """A daemon that starts today finds what has been stuck since yesterday."""
    old = a_batch(PENDING, updated=-24 * HOUR, created_at=at(-24 * HOUR), judge_at=at(0))

    assert ["batch.stuck"] == types(Watching({BAT: old}).judge(1))
    assert [] == Watching({BAT: replace(old, revision=2)}).judge(1)


@given(
    outages=st.lists(
        st.tuples(st.floats(0, 20 * HOUR), st.floats(1, 10 * HOUR)), min_size=1, max_size=5
    )
)
def test_an_outage_does_not_count(outages: list[tuple[float, float]]) -> None:
    """The limit moves by the time of each that began before it, and by no more."""
    ordered: list[Outage] = []
    for since, length in sorted(outages):
        begins = max([at(since), *(one.until for one in ordered)])
        ordered.append(Outage(begins, begins + timedelta(seconds=length)))

    limit = limit_of(a_batch(), PATIENCE, None, outages=ordered, now=at(0))

    before = [one for one in ordered if one.since < limit.since]
    lost = sum((one.until - one.since for one in before), timedelta())
    assert at(12 * HOUR) + lost == limit.since
    assert all(one.until <= limit.since for one in before)


def test_an_outage_of_which_the_batch_saw_a_part_counts_for_that_part() -> None:
    """One that was over before it came counts for nothing."""
    batch = a_batch(PENDING, changed_at=at(HOUR), first_seen_at=at(HOUR), revision=2)
    outages = (Outage(at(-HOUR), at(0)), Outage(at(0.5 * HOUR), at(1.5 * HOUR)))

    limit = limit_of(batch, PATIENCE, None, outages=outages, now=at(HOUR))

    assert at(3.5 * HOUR) == limit.since


def test_what_like_batches_took_is_a_limit_too() -> None:
    """Of the whole life, whatever its statuses; and the event says what was expected."""
    expectation = expect([Past(600.0)] * 9, files=None)
    batch = a_batch(RUNNING, judge_at=at(0), changed_at=at(1700), revision=2)
    watching = Watching({BAT: batch}, a_court(expectation))

    assert [] == watching.judge(1799)
    (event,) = watching.judge(1890)

    assert {
        "rule": "history",
        "status": "RUNNING",
        "since": "2026-11-24T08:30:00.000000Z",
        "lasted": 1890.0,
        "limit": 1800.0,
        "reminder": 0,
    } == event.data["stuck"]
    assert {
        "median": 600.0,
        "low": 600.0,
        "high": 600.0,
        "samples": 9,
        "ends_at": "2026-11-24T08:10:00.000000Z",
        "overdue": True,
    } == event.data["expected"]


def test_an_outage_before_its_last_move_does_not_count_for_its_life_either() -> None:
    """It moved while nobody could look; that alone makes nobody stuck."""
    expectation = expect([Past(600.0)] * 9, files=None)
    batch = a_batch(RUNNING, changed_at=at(7201), revision=2)
    outages = (Outage(at(60), at(7200)),)

    limit = limit_of(batch, PATIENCE, expectation, outages=outages, now=at(7300))

    assert at(7140 + 1800) == limit.since


def test_who_was_told_that_it_is_stuck_is_told_that_it_moves() -> None:
    """Just before where to; and each event names the one before."""
    watching = Watching({BAT: a_batch(RUNNING, judge_at=at(0))})
    watching.judge(13 * HOUR)

    events = watching.move(BAT, THROTTLED, 14 * HOUR)

    assert ["batch.unstuck", "batch.throttled"] == types(events)
    assert ("RUNNING", 14 * HOUR) == (
        events[0].data["stuck"]["status"],
        events[0].data["stuck"]["lasted"],
    )
    assert [watching.told[0].id, events[0].id] == [one.data["previous_event_id"] for one in events]
    assert (None, at(14 * HOUR)) == (watching.known[BAT].stuck, watching.known[BAT].judge_at)
    assert ["batch.stuck"] == types(watching.judge(20.5 * HOUR))
    assert "batch.unstuck" == watching.move(BAT, COMPLETED, 21 * HOUR)[0].type
    assert (None, None) == (watching.known[BAT].stuck, watching.known[BAT].judge_at)


def test_what_vanishes_is_no_longer_judged_until_it_comes_back() -> None:
    """`batch.vanished` has said it."""
    batch = a_batch(RUNNING, judge_at=at(0), misses=9, missed_at=at(-9999))
    gone = a_recorder().vanish({BAT: batch}, now=at(9)).batches
    back = a_recorder().record(gone, [a_sighting(RUNNING, seen_at=at(99))], now=at(99)).batches

    assert (None, None, at(99)) == (gone[BAT].judge_at, gone[BAT].stuck, back[BAT].judge_at)


def test_a_batch_of_which_upstream_says_two_things_is_not_judged() -> None:
    """Neither one in doubt, nor one that answers 404."""
    known = a_batch(judge_at=at(0))
    doubtful = replace(known, doubt=Doubt("PENDING", at(0), 1))

    for one in (doubtful, replace(known, misses=1, missed_at=at(0))):
        assert [] == Watching({BAT: one}).judge(99 * HOUR)


def test_many_at_once_are_one_alarm_with_their_list() -> None:
    """None of them is told of by itself, neither as stuck nor as moving."""
    watching = Watching(some(MANY))

    (event,) = watching.judge(13 * HOUR)
    assert "watch.slow" == event.type
    assert (MANY, 0, sorted(watching.known)) == (
        event.data["count"],
        event.data["reminder"],
        [one["id"] for one in event.data["batches"]],
    )
    for batch_id in sorted(watching.known)[: MANY - FEW]:
        moved = watching.move(batch_id, COMPLETED, 14 * HOUR)
        assert [] == moved  # its end is told with its results
        assert [] == watching.judge(14 * HOUR)
    watching.move(sorted(watching.known)[MANY - FEW], COMPLETED, 15 * HOUR)
    (event,) = watching.judge(15 * HOUR)
    assert ("watch.recovered", "slow") == (event.type, event.data["about"])
    assert watching.slow is None


def test_those_that_pass_their_limits_within_a_few_minutes_are_told_together() -> None:
    """The first waits a little for the others: batches are made one after the other."""
    together = {**some(1), **some(MANY - 1, first=1, changed=LATE - 20)}
    watching = Watching(together)

    for seconds in range(0, int(2 * LATE), 15):
        watching.judge(12 * HOUR + seconds)

    assert ["watch.slow"] == types(watching.told)


def test_further_ones_are_added_in_silence_and_told_by_the_reminder() -> None:
    """One alarm, until it is over; the reminder has the present list."""
    watching = Watching({**some(MANY), **some(3, first=MANY, changed=2 * HOUR)})
    watching.judge(13 * HOUR)

    assert [] == watching.judge(15 * HOUR)
    assert [] == watching.judge(24 * HOUR)
    (event,) = watching.judge(25 * HOUR)
    assert ("watch.slow", 1, MANY + 3) == (
        event.type, event.data["reminder"], event.data["count"],
    )  # fmt: skip
    assert 2 == len({one.id for one in watching.told})


def test_those_told_of_before_it_became_many_still_hear_of_their_move() -> None:
    """A receiver that opened a ticket for one can close it."""
    watching = Watching({**some(1), **some(MANY, first=1, changed=6 * HOUR)})
    watching.judge(13 * HOUR)
    watching.judge(19 * HOUR)
    first, second, *_ = sorted(watching.known)

    assert ["batch.stuck", "watch.slow"] == types(watching.told)
    assert ["batch.unstuck", "batch.throttled"] == types(watching.move(first, THROTTLED, 20 * HOUR))
    assert ["batch.throttled"] == types(watching.move(second, THROTTLED, 20 * HOUR))


def test_the_last_of_many_is_told_by_itself_when_a_reminder_is_due() -> None:
    """It is stuck all the same, and was only told of among the others."""
    watching = Watching(some(MANY))
    watching.judge(13 * HOUR)
    last, *others = sorted(watching.known)
    for one in others:
        watching.move(one, COMPLETED, 14 * HOUR)
    watching.judge(14 * HOUR)

    (event,) = watching.judge(25 * HOUR)

    assert ("batch.stuck", last, 1) == (
        event.type, event.batch_id, event.data["stuck"]["reminder"],
    )  # fmt: skip
    assert "batch.unstuck" == watching.move(last, COMPLETED, 26 * HOUR)[0].type


def test_a_list_is_a_list_of_a_hundred_and_a_number() -> None:
    """A message is not a report."""
    (event,) = Watching(some(LISTED + 50)).judge(13 * HOUR)

    assert (LISTED + 50, LISTED) == (event.data["count"], len(event.data["batches"]))


def test_another_limit_counts_from_the_next_start_on() -> None:
    """All that are active are scheduled anew, and nobody is told by that."""
    known = {BAT: a_batch(RUNNING, judge_at=at(12 * HOUR + LATE))}

    changes = a_court(patience=Patience(running=60.0)).schedule(known, now=at(9))

    assert ({BAT: at(63)}, []) == (
        {one.id: one.judge_at for one in changes.batches.values()},
        changes.events,
    )
