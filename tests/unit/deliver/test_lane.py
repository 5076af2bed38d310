"""One endpoint's health: held back, probed, disabled, enabled, and told to the others."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from batchwatch.deliver.lane import STORE_PAUSE
from batchwatch.domain.batch import RUNNING
from batchwatch.domain.delivery import Failure, Ours
from batchwatch.domain.health import (
    FAILING_TO_TELL,
    OFFLINE_PROBE_AFTER,
    PROBE_AFTER,
    TRIES_TO_OPEN,
)
from batchwatch.metrics import Metrics
from tests.unit.deliver.outbox import HOOK, OTHER, TAKEN, Desk, Store, asleep, dispatching, refused

if TYPE_CHECKING:
    from tests.support.clock import ManualClock

NO_NETWORK = replace(refused(Failure.CONNECT), ours=Ours.PERHAPS, status_code=None)


def many(count: int) -> list[str]:
    return [f"bat-{number}" for number in range(count)]


async def test_a_receiver_that_keeps_failing_is_left_alone_and_probed(
    store: Store, clock: ManualClock
) -> None:
    """Ten failures, then one try each half minute; when that goes well, all the others go."""
    await store.see(*many(30))
    desk = Desk(concurrency=1, schedule=(3600.0,))
    desk.always = refused()
    metrics = Metrics()

    async with dispatching(store, clock, desk, metrics=metrics):
        await store.outbox.until_written(TRIES_TO_OPEN)
        for probe in (1, 2):
            pause = await asleep(clock)
            assert PROBE_AFTER == pytest.approx(pause)
            assert 1 == metrics.registry.get_sample_value(
                "batchwatch_endpoint_state", {"endpoint": HOOK}
            )
            if probe == 2:
                desk.always = TAKEN
            clock.advance(pause)
            await store.outbox.until_written(TRIES_TO_OPEN + probe)
        await store.outbox.until_written(30)

    assert 30 == len(desk.sent)
    assert 0 == metrics.registry.get_sample_value("batchwatch_endpoint_state", {"endpoint": HOOK})


async def test_while_one_is_held_back_the_other_is_sent_to(
    store_for_two: Store, clock: ManualClock
) -> None:
    """A dead receiver never delays another."""
    await store_for_two.see(*many(40))
    dead, other = Desk(concurrency=4, schedule=(3600.0,)), Desk(OTHER)
    dead.always = refused()

    async with dispatching(store_for_two, clock, dead, other):
        await other.until(40)

    assert TRIES_TO_OPEN <= len(dead.sent) < 20


async def test_a_receiver_that_is_gone_is_disabled_and_loses_nothing(
    store_for_two: Store, clock: ManualClock
) -> None:
    """410: nothing more is sent, the others are told, and all of it goes once it is enabled."""
    store = store_for_two
    await store.see("bat-1", "bat-2")
    gone, other = Desk(concurrency=1, schedule=()), Desk(OTHER)
    gone.always = refused(Failure.GONE)

    async with dispatching(store, clock, gone, other) as dispatcher:
        await other.until(3)
        assert ["batch.pending", "batch.pending", "endpoint.disabled"] == sorted(
            one.type for one in other.sent
        )
        assert 1 == len(gone.sent)
        assert "batchwatch enable hook" in dispatcher.troubles()[HOOK]
        await store.see("bat-1", status=RUNNING, updated=1)
        await other.until(4)

        gone.always = TAKEN
        assert await store.endpoints.change(HOOK, lambda record: (record.enabled(), None))
        await dispatcher.reload()
        await gone.until(4)
        await other.until(5)

    assert ["bat-1", "bat-2", "bat-1"] == [
        one.batch_id for one in sorted(gone.sent[1:], key=lambda one: one.id)
    ]
    assert "endpoint.recovered" == other.sent[-1].type
    assert "dead" not in await store.states()
    assert not dispatcher.troubles()


async def test_a_daemon_that_starts_leaves_a_disabled_endpoint_alone(
    store: Store, clock: ManualClock
) -> None:
    """What the store remembers is not tried out again."""
    await store.see("bat-1")
    now = clock.now()
    await store.endpoints.change(HOOK, lambda record: record.disabled("by hand", now=now))
    desk = Desk()

    async with dispatching(store, clock, desk) as dispatcher:
        await clock.next_sleeper()
        assert "by hand" in dispatcher.troubles()[HOOK]

    assert [] == desk.sent


async def test_that_an_endpoint_fails_is_told_to_the_others(
    store_for_two: Store, clock: ManualClock
) -> None:
    """After some minutes, with the reason; and that it recovered."""
    store = store_for_two
    await store.see("bat-1")
    failing, other = Desk(schedule=(FAILING_TO_TELL, 1.0)), Desk(OTHER)
    failing.answers = [refused(), refused()]

    async with dispatching(store, clock, failing, other):
        await store.outbox.until_written(2)
        for tries in (2, 3):
            while len(failing.sent) < tries:
                clock.advance(await asleep(clock, at_most=2 * FAILING_TO_TELL))
        await other.until(3)

    assert ["batch.pending", "endpoint.failing", "endpoint.recovered"] == [
        one.type for one in other.sent
    ]
    assert b"server_error: no" in other.sent[1].payload


async def test_without_a_network_nothing_is_held_against_anybody(
    store: Store, clock: ManualClock
) -> None:
    """Every few seconds one try, none of which counts; then all goes on as if nothing had been."""
    await store.see(*many(3))
    desk = Desk(concurrency=1, schedule=())
    desk.always = NO_NETWORK

    async with dispatching(store, clock, desk) as dispatcher:
        for tries in (1, 2, 3):
            await store.outbox.until_written(tries)
            if tries == 3:
                desk.always = TAKEN
            assert OFFLINE_PROBE_AFTER == pytest.approx(await asleep(clock))
            clock.advance(OFFLINE_PROBE_AFTER)
        assert "nobody can be reached from here" in dispatcher.troubles()[HOOK]
        while "pending" in await store.states():
            clock.advance(await asleep(clock))

    assert ["delivered"] * 3 == await store.states()


async def test_one_that_was_disabled_by_hand_stays_so_whatever_it_takes_meanwhile(
    store: Store, clock: ManualClock
) -> None:
    """The daemon has not noticed yet, and what it knows must not undo the command."""
    await store.see(*many(3))
    desk = Desk(concurrency=1, schedule=(FAILING_TO_TELL, 1.0, 1.0))
    desk.answers = [refused()] * 4

    async with dispatching(store, clock, desk) as dispatcher:
        await store.outbox.until_written(3)
        now = clock.now()
        assert await store.endpoints.change(HOOK, lambda record: record.disabled("me", now=now))
        while HOOK not in dispatcher.troubles() or "me" not in dispatcher.troubles()[HOOK]:
            clock.advance(await asleep(clock, at_most=2 * FAILING_TO_TELL))

    assert (await store.endpoints.records())[HOOK].disabled_at == now


async def test_an_endpoint_that_flaps_costs_no_writing(store: Store, clock: ManualClock) -> None:
    """Well and failing again many times a second is nothing that a restart must know."""
    await store.see(*many(40))
    desk = Desk(concurrency=1, schedule=(3600.0,))
    desk.answers = [refused(), TAKEN] * 20

    async with dispatching(store, clock, desk):
        await store.outbox.until_written(40)

    assert {} == await store.endpoints.records()


async def test_with_no_files_left_it_is_our_own_trouble_whoever_answers(
    store: Store, clock: ManualClock
) -> None:
    """Not the receiver's: it was not even asked."""
    await store.see("bat-1")
    desk = Desk(schedule=())
    desk.answers = [replace(NO_NETWORK, ours=Ours.SURELY)]

    async with dispatching(store, clock, desk) as dispatcher:
        dispatcher.heard()
        await store.outbox.until_written(1)
        assert ["pending"] == await store.states()


async def test_a_receiver_that_cannot_be_reached_while_others_can_is_at_fault(
    store: Store, clock: ManualClock
) -> None:
    """LlamaCloud answers, so the network is there."""
    await store.see("bat-1")
    desk = Desk(schedule=())
    desk.always = NO_NETWORK

    async with dispatching(store, clock, desk) as dispatcher:
        dispatcher.heard()
        await store.outbox.until_written(1)

    assert ["dead"] == await store.states()


async def test_a_pause_that_a_receiver_asks_for_is_seen_and_ends_with_enable(
    store: Store, clock: ManualClock
) -> None:
    """One answer may hold back the whole endpoint; whoever knows better can end that."""
    await store.see("bat-1", "bat-2")
    desk = Desk(concurrency=1)
    desk.answers = [refused(Failure.RATE_LIMITED, retry_after=500)]

    async with dispatching(store, clock, desk) as dispatcher:
        await store.outbox.until_written(1)
        assert "asked to be left alone for another 500 s" in dispatcher.troubles()[HOOK]
        now = clock.now()
        await store.endpoints.change(HOOK, lambda record: record.disabled("me", now=now))
        await dispatcher.reload()
        await store.endpoints.change(HOOK, lambda record: (record.enabled(), None))
        await dispatcher.reload()
        await desk.until(2)

    assert "bat-2" == desk.told[-1]


async def test_that_nothing_can_be_written_is_no_secret(store: Store, clock: ManualClock) -> None:
    """Whatever the watches say: they may have nothing to write for a while."""
    await store.see("bat-1")
    metrics = Metrics()

    async with dispatching(store, clock, Desk(), metrics=metrics) as dispatcher:
        store.outbox.is_full_for_results = True
        await store.outbox.until_refused(1)
        pause = await asleep(clock, at_most=STORE_PAUSE)
        assert "make room" in (dispatcher.store_trouble or "")
        assert metrics.registry.get_sample_value(
            "batchwatch_store_failures_total", {"kind": "deliveries.unwritten"}
        )
        store.outbox.is_full_for_results = False
        clock.advance(pause)
        await store.outbox.until_written(1)

    assert dispatcher.store_trouble is None


async def test_a_rate_is_kept_evenly(store: Store, clock: ManualClock) -> None:
    """Not in bursts: the second after a pause is as long as any other."""
    await store.see(*many(6))
    desk = Desk(concurrency=3, rate=2.0)
    moments = []

    async with dispatching(store, clock, desk):
        for count in range(1, 7):
            await desk.until(count)
            moments.append(clock.monotonic())
            await store.outbox.until_written(count)
            if count < 6:
                clock.advance(await asleep(clock))

    assert [0.0, 0.5, 1.0, 1.5, 2.0, 2.5] == pytest.approx(moments)


async def test_a_status_that_is_said_to_be_final_is(store: Store, clock: ManualClock) -> None:
    """A setting of the endpoint; all others are tried again."""
    await store.see("bat-1", "bat-2")
    desk = Desk(concurrency=1, schedule=(3600.0,))
    desk.final_statuses = frozenset({422})
    answer = refused(Failure.CLIENT_ERROR)
    desk.answers = [replace(answer, status_code=status) for status in (422, 404)]

    async with dispatching(store, clock, desk):
        await store.outbox.until_written(2)

    assert ["dead", "pending"] == await store.states()
