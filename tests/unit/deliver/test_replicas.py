"""Several replicas that send to the same endpoint: what one learns of it, the others heed."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from batchwatch.deliver.lane import RECHECK
from batchwatch.domain.delivery import Failure
from batchwatch.domain.health import FOLLOW_AFTER, PROBE_AFTER, TRIES_TO_OPEN
from batchwatch.store.leases import Leases
from batchwatch.store.notices import HeldBack, Notice, Notices, Paused, Resumed
from batchwatch.store.schema import deliveries
from tests.unit.deliver.outbox import HOOK, TAKEN, Desk, Store, asleep, dispatching, refused

if TYPE_CHECKING:
    from tests.support.clock import ManualClock

WE, ANOTHER = "we", "another"
LONG = timedelta(hours=1)  # without a beat
NO = "server_error: no"
FAILS = HeldBack(HOOK, NO, by=ANOTHER)


class Told(Notices):
    """Keeps what the others would be told."""

    def tell(self, notice: Notice) -> None:
        self._untold.append(notice)

    @property
    def all(self) -> list[Notice]:
        return self._untold


@pytest.fixture
async def leases(store: Store, clock: ManualClock) -> Leases:
    """One of two replicas that are alive."""
    await Leases(store.database, clock, replica=ANOTHER).beat()
    found = Leases(store.database, clock, replica=WE, life=LONG)
    found.notices = Told(store.database, clock)
    store.outbox.replica = WE
    assert 2 == await found.beat()
    return found


def told(leases: Leases) -> list[Notice]:
    assert isinstance(leases.notices, Told)
    return leases.notices.all


def many(count: int) -> list[str]:
    return [f"bat-{number}" for number in range(count)]


async def test_who_finds_that_an_endpoint_fails_tells_it_and_each_probe(
    store: Store, clock: ManualClock, leases: Leases
) -> None:
    """So that one replica probes for all, and the others learn when it is well."""
    await store.see(*many(20))
    desk = Desk(concurrency=1, schedule=(3600.0,))
    desk.always = refused()

    async with dispatching(store, clock, desk, leases=leases):
        await store.outbox.until_written(TRIES_TO_OPEN)
        clock.advance(await asleep(clock))
        await store.outbox.until_written(TRIES_TO_OPEN + 1)
        desk.always = TAKEN
        clock.advance(await asleep(clock))
        await store.outbox.until_written(TRIES_TO_OPEN + 2)

    assert [HeldBack(HOOK, NO, by=WE)] * 2 + [Resumed(HOOK, by=WE)] == told(leases)


async def test_who_hears_it_tries_once_and_then_less_often_than_the_other(
    store: Store, clock: ManualClock, leases: Leases
) -> None:
    """Not ten times to find out for itself; and at once when the other gets through."""
    await store.see(*many(20))
    desk = Desk(concurrency=4, schedule=(3600.0,))
    desk.always = refused()

    async with dispatching(store, clock, desk, leases=leases) as dispatcher:
        dispatcher.heard_of(FAILS)
        await store.outbox.until_written(1)
        clock.advance(RECHECK)
        assert FOLLOW_AFTER - RECHECK == pytest.approx(await asleep(clock, at_most=FOLLOW_AFTER))
        tries = len(desk.sent)
        desk.always = TAKEN
        dispatcher.heard_of(Resumed(HOOK, by=ANOTHER))
        await store.outbox.until_written(20)

    assert (1, {}) == (tries, dispatcher.troubles())
    assert [HeldBack(HOOK, NO, by=WE), Resumed(HOOK, by=WE)] == told(leases)


async def test_one_whose_own_way_is_broken_silences_nobody(
    store: Store, clock: ManualClock, leases: Leases
) -> None:
    """However often it says so, and however seldom there is something to send."""
    desk = Desk(concurrency=1)

    async with dispatching(store, clock, desk, leases=leases) as dispatcher:
        for number in range(5):
            clock.advance(PROBE_AFTER + 1)
            for _ in range(3):
                dispatcher.heard_of(FAILS)
            await store.see(f"bat-{number}")
            await desk.until(number + 1)
            await store.outbox.until_written(number + 1)

    assert 5 == len(desk.sent)


async def test_whoever_has_it_take_something_does_not_believe_that_it_fails(
    store: Store, clock: ManualClock, leases: Leases
) -> None:
    """It is the other's way to it that is broken; and what it says itself is no news."""
    await store.see("bat-1")
    desk = Desk(concurrency=1)

    async with dispatching(store, clock, desk, leases=leases) as dispatcher:
        await store.outbox.until_written(1)
        dispatcher.heard_of(FAILS)
        assert {} == dispatcher.troubles()
        clock.advance(PROBE_AFTER + 1)
        dispatcher.heard_of(HeldBack(HOOK, NO, by=WE))
        assert {} == dispatcher.troubles()
        dispatcher.heard_of(FAILS)
        assert NO in dispatcher.troubles()[HOOK]


async def test_a_pause_that_a_receiver_asks_for_is_kept_by_all(
    store: Store, clock: ManualClock, leases: Leases
) -> None:
    """Whichever of them it said it to."""
    desk = Desk(concurrency=1)
    desk.answers = [refused(Failure.RATE_LIMITED, retry_after=40)]

    async with dispatching(store, clock, desk, leases=leases) as dispatcher:
        dispatcher.heard_of(Paused(HOOK, 10, by=ANOTHER))
        await store.see("bat-1")
        clock.advance(await asleep(clock, at_most=10))
        await store.outbox.until_written(1)

    assert ([Paused(HOOK, 40, by=WE)], 1) == (told(leases), len(desk.sent))


async def test_a_rate_limit_is_shared(store: Store, clock: ManualClock, leases: Leases) -> None:
    """Each of two sends half as often."""
    await store.see(*many(3))
    desk = Desk(rate=2.0)

    async with dispatching(store, clock, desk, leases=leases):
        for count in (1, 2, 3):
            await desk.until(count)
            if count < 3:
                pause = await asleep(clock, at_most=5)
                assert 1 == pytest.approx(pause)
                clock.advance(pause)


async def test_who_was_away_sends_nothing_of_what_it_had(
    store: Store, clock: ManualClock, leases: Leases
) -> None:
    """Others may have sent it, and what comes after it, by now."""
    await store.see(*many(5))
    desk = Desk(concurrency=1)
    desk.is_free.clear()

    async with dispatching(store, clock, desk, leases=leases):
        await desk.until(1)
        clock.advance(LONG.total_seconds() + 1)  # stopped, and woken
        desk.is_free.set()
        await store.outbox.until_written(1)
        pause = await asleep(clock, at_most=5)
        away = len(desk.sent)
        await leases.beat()
        clock.advance(pause)
        await store.outbox.until_written(5)

    assert (1, 5) == (away, len(desk.sent))


async def test_who_was_away_does_not_remember_it_once_it_is_seen_again(
    store: Store, clock: ManualClock, leases: Leases
) -> None:
    """What it had at hand then is not what it has now, be a slow receiver all that time at it."""
    desk = Desk(concurrency=1)
    await store.see("bat-0")
    async with dispatching(store, clock, desk, leases=leases):
        await store.outbox.until_written(1)
        desk.is_free.clear()
        await store.see(*(f"bat-{number}" for number in range(1, 6)))
        await desk.until(2)  # one is being sent, and more are at hand
        clock.advance(LONG.total_seconds() + 1)
        async with store.database.write() as connection:  # another has taken over and sent all
            others = sa.update(deliveries).where(deliveries.c.state == "in_flight")
            await connection.execute(others.values(state="delivered", holder=ANOTHER))
        await leases.beat()
        desk.is_free.set()
        await store.outbox.until_given_back(4)

    assert ["bat-0", "bat-1"] == desk.told
