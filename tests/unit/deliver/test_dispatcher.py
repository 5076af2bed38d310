"""Deliveries out of a real store: in order where it matters, at once where it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from batchwatch.deliver import dispatcher as module
from batchwatch.domain.batch import COMPLETED, RUNNING
from batchwatch.domain.delivery import Failure
from batchwatch.metrics import Metrics
from batchwatch.store.outbox import LEASE
from tests.support.builders import at
from tests.unit.deliver.outbox import HOOK, OTHER, TAKEN, Desk, Store, asleep, dispatching, refused

if TYPE_CHECKING:
    from batchwatch.domain.delivery import Attempt, Claimed
    from tests.support.clock import ManualClock


async def test_the_events_of_a_batch_go_in_order_and_batches_side_by_side(
    store: Store, clock: ManualClock
) -> None:
    """Two batches are open at once, and neither has two requests open."""
    await store.see("bat-1", "bat-2")
    await store.see("bat-1", "bat-2", status=RUNNING, updated=1)
    desk = Desk()
    desk.is_free.clear()

    async with dispatching(store, clock, desk):
        await desk.until(2)
        together = desk.told
        desk.is_free.set()
        await desk.until(4)

    assert ["bat-1", "bat-2"] == sorted(together)
    for batch_id in ("bat-1", "bat-2"):
        types = [one.type for one in desk.sent if one.batch_id == batch_id]
        assert ["batch.pending", "batch.running"] == types


async def test_what_is_written_meanwhile_is_sent_at_once(store: Store, clock: ManualClock) -> None:
    """Woken by the commit: the clock stands still here, so no timer can have done it."""
    desk = Desk()

    async with dispatching(store, clock, desk):
        await asleep(clock, at_most=60)
        await store.see("bat-1")
        await desk.until(1)

    assert at(0) == clock.now()


async def test_a_slow_endpoint_delays_only_itself(store_for_two: Store, clock: ManualClock) -> None:
    """The other has heard the whole story while the first request is still open."""
    await store_for_two.see("bat-1")
    await store_for_two.see("bat-1", status=RUNNING, updated=1)
    await store_for_two.see("bat-2", updated=2)
    slow, fast = Desk(concurrency=1), Desk(OTHER)
    slow.is_free.clear()

    async with dispatching(store_for_two, clock, slow, fast):
        await slow.until(1)
        await fast.until(3)
        heard = len(slow.sent)
        slow.is_free.set()
        await slow.until(3)

    assert 1 == heard


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_no_more_requests_are_open_than_an_endpoint_allows(
    concurrency: int, store: Store, clock: ManualClock
) -> None:
    """And no fewer, while there is enough to send."""
    await store.see(*(f"bat-{nth}" for nth in range(20)))
    desk = Desk(concurrency=concurrency)
    desk.is_free.clear()

    async with dispatching(store, clock, desk):
        await desk.until(concurrency)
        desk.is_free.set()
        await desk.until(20)
        await store.outbox.until_written(20)

    assert (concurrency, 20) == (desk.most_open, len({one.id for one in desk.sent}))


async def test_a_failure_is_tried_again_by_the_schedule_until_it_is_given_up(
    store: Store, clock: ManualClock
) -> None:
    """Each pause as it is set, a fifth shorter or longer; then a dead letter lets the next pass."""
    await store.see("bat-1")
    await store.see("bat-1", status=RUNNING, updated=1)
    desk = Desk(schedule=(5.0, 30.0))
    desk.answers = [refused()] * 3
    pauses = []

    async with dispatching(store, clock, desk):
        for tries in (1, 2):
            await store.outbox.until_written(tries)
            pauses.append(await asleep(clock))
            clock.advance(pauses[-1])
        await desk.until(4)
        await store.outbox.until_written(4)

    assert pauses == [pytest.approx(5, rel=0.201), pytest.approx(30, rel=0.201)]
    first, second, third, next_one = desk.sent
    assert {first.event_id} == {first.event_id, second.event_id, third.event_id}
    assert [1, 2, 3] == [first.attempt, second.attempt, third.attempt]
    assert "batch.running" == next_one.type
    assert ["dead", "delivered"] == await store.states()
    (shown,) = await store.views.batch("bat-1")
    letter = shown["deliveries"][0]
    assert "3 tries failed, the last: server_error: no" == letter["reason"]
    assert [1, 2, 3] == [one["number"] for one in letter["tries"]]


async def test_the_first_try_is_at_once_whatever_the_schedule_is(
    store: Store, clock: ManualClock
) -> None:
    """The schedule is for retries; the clock stands still here."""
    await store.see("bat-1")
    desk = Desk(schedule=(3600.0,))

    async with dispatching(store, clock, desk):
        await desk.until(1)

    assert at(0) == clock.now()


async def test_an_empty_schedule_is_one_try(store: Store, clock: ManualClock) -> None:
    """For a receiver that must not be asked twice."""
    await store.see("bat-1")
    desk = Desk(schedule=())
    desk.always = refused()

    async with dispatching(store, clock, desk):
        await store.outbox.until_written(1)

    assert (1, ["dead"]) == (len(desk.sent), await store.states())


async def test_a_retry_that_is_due_before_its_failure_is_written_is_not_forgotten(
    store: Store, clock: ManualClock
) -> None:
    """The store may be slow, or full for a while; the pause begins when it has been written."""
    await store.see("bat-1")
    desk = Desk(schedule=(5.0,))
    desk.answers = [refused()]

    async with dispatching(store, clock, desk):
        store.outbox.is_full_for_results = True
        await store.outbox.until_refused(1)
        clock.advance(30)
        store.outbox.is_full_for_results = False
        await store.outbox.until_written(1)
        clock.advance(await asleep(clock, at_most=7))
        await desk.until(2)

    assert ["delivered"] == await store.states()


@pytest.mark.parametrize("failure", [Failure.REFUSED, Failure.UNUSABLE])
async def test_a_failure_that_is_final_is_not_tried_again(
    failure: Failure, store: Store, clock: ManualClock
) -> None:
    """The same again would fail again; the others of its batch go on."""
    await store.see("bat-1")
    await store.see("bat-1", status=RUNNING, updated=1)
    desk = Desk()
    desk.answers = [refused(failure)]

    async with dispatching(store, clock, desk):
        await store.outbox.until_written(2)

    assert ["batch.pending", "batch.running"] == [one.type for one in desk.sent]
    assert ["dead", "delivered"] == await store.states()


async def test_a_rate_limit_holds_back_the_whole_endpoint_and_no_other(
    store_for_two: Store, clock: ManualClock
) -> None:
    """The limit is the receiver's, so whatever else is due for it waits as long."""
    await store_for_two.see("bat-1", "bat-2", "bat-3")
    limited, other = Desk(concurrency=1), Desk(OTHER, concurrency=1)
    limited.answers = [refused(Failure.RATE_LIMITED, retry_after=50)]

    async with dispatching(store_for_two, clock, limited, other):
        await other.until(3)
        assert 50 == await asleep(clock)
        clock.advance(49)
        assert 1 == await asleep(clock)
        held_back = len(limited.sent)
        clock.advance(1)
        await limited.until(4)
        await store_for_two.outbox.until_written(7)

    assert 1 == held_back
    assert ["bat-1", "bat-2", "bat-3"] == sorted(limited.told[1:])
    assert ["delivered"] * 6 == await store_for_two.states()


async def test_while_a_rate_limit_lasts_nothing_is_kept_from_who_comes_next(
    store: Store, clock: ManualClock
) -> None:
    """What was claimed is given back, so that a lease never ends in a queue."""
    await store.see("bat-1", "bat-2", "bat-3", "bat-4")
    desk = Desk(concurrency=1)
    desk.answers = [TAKEN, refused(Failure.RATE_LIMITED, retry_after=3000)]

    async with dispatching(store, clock, desk):
        await store.outbox.until_given_back(1)
        clock.advance(LEASE.total_seconds() + 1)
        released = await store.beside().release()

    assert (0, 2) == (released, len(desk.sent))
    assert ["delivered", *["pending"] * 3] == await store.states()


async def test_of_two_rate_limits_the_longer_counts(store: Store, clock: ManualClock) -> None:
    """Requests that were open together may be answered in any order."""
    await store.see("bat-1", "bat-2", "bat-3")
    desk = Desk(concurrency=2)
    desk.is_free.clear()
    desk.answers = [refused(Failure.RATE_LIMITED, retry_after=pause) for pause in (50, 1)]

    async with dispatching(store, clock, desk):
        await desk.until(2)
        desk.is_free.set()
        await store.outbox.until_written(2)
        pause = await asleep(clock)

    assert 50 == pause


async def test_a_slow_endpoint_is_not_sent_again_what_it_has_not_been_sent_yet(
    store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lease does not end while its delivery waits behind others that take all their time."""
    monkeypatch.setattr(module, "GATHER", 0.0)  # for here a minute takes no time at all
    await store.see(*(f"bat-{nth}" for nth in range(40)))

    class Slow(Desk):
        async def answer(self, delivery: Claimed) -> Attempt:
            clock.advance(self.timeout)
            await store.beside().release()  # which does not know what is held
            return await super().answer(delivery)

    desk = Slow(concurrency=1)

    async with dispatching(store, clock, desk):
        await store.outbox.until_written(40)

    assert 40 == len({one.id for one in desk.sent}) == len(desk.sent)


async def test_attempts_are_logged_once_each_and_loudest_where_it_matters(
    store: Store, clock: ManualClock
) -> None:
    """The first failure of a row warns, a dead letter is an error, the recovery is told."""
    await store.see("bat-1", "bat-2", "bat-3", "bat-4")
    desk = Desk(concurrency=1, schedule=())
    desk.answers = [refused(), refused(Failure.RATE_LIMITED)]

    with capture_logs() as logs:
        async with dispatching(store, clock, desk):
            await store.outbox.until_written(4)

    told = [one for one in logs if one["event"] == "delivery.attempted"]
    assert ["error", "error", "info", "debug"] == [one["log_level"] for one in told]
    assert [None, None, True, None] == [one["recovered"] for one in told]
    assert ("hook", "bat-1", "batch.pending", 1, "dead", 10.0) == tuple(
        told[0][key] for key in ("endpoint", "batch_id", "type", "attempt", "state", "duration_ms")
    )
    assert "1 try failed, the last: server_error: no" == told[0]["reason"]


async def test_a_row_of_failures_warns_once(store: Store, clock: ManualClock) -> None:
    """The others are counted, and are in the store."""
    await store.see("bat-1", "bat-2", "bat-3")
    desk = Desk(concurrency=1)
    desk.always = refused(Failure.TIMEOUT)

    with capture_logs() as logs:
        async with dispatching(store, clock, desk):
            await store.outbox.until_written(3)

    told = [one for one in logs if one["event"] == "delivery.attempted"]
    assert ["warning", "debug", "debug"] == [one["log_level"] for one in told]
    assert all(4 <= one["retry_in_s"] <= 6 for one in told)


async def test_every_attempt_is_counted_by_its_outcome(store: Store, clock: ManualClock) -> None:
    """With the time from the fact to its receipt, and the dead beside."""
    await store.see("bat-1", "bat-2")
    clock.advance(7)
    metrics = Metrics()
    desk = Desk(concurrency=1)
    desk.answers = [refused(Failure.REFUSED)]

    async with dispatching(store, clock, desk, metrics=metrics):
        await store.outbox.until_written(2)

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(f"batchwatch_{name}", {"endpoint": HOOK} | labels)

    assert 1 == value("delivery_attempts_total", outcome="refused")
    assert 1 == value("delivery_attempts_total", outcome="delivered")
    assert 1 == value("deliveries_dead_total")
    assert (1, 7) == (
        value("delivery_latency_seconds_count"),
        value("delivery_latency_seconds_sum"),
    )


async def test_the_whole_life_of_a_batch_reaches_every_endpoint_once(
    store_for_two: Store, clock: ManualClock
) -> None:
    """Nothing twice, nothing missing, each with the payload of the store."""
    desks = Desk(), Desk(OTHER, concurrency=1)

    async with dispatching(store_for_two, clock, *desks):
        await store_for_two.see("bat-1")
        await store_for_two.see("bat-1", status=RUNNING, updated=1)
        await store_for_two.see("bat-1", status=COMPLETED, updated=2)
        for desk in desks:
            await desk.until(2)
        await store_for_two.outbox.until_written(4)

    ids = [[one.event_id for one in desk.sent] for desk in desks]
    assert ids[0] == ids[1]
    assert 2 == len(set(ids[0]))  # the third is held back until its results are there
