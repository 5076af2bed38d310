"""The dispatcher on bad days: stopped in the midst, a full disk, and a bug of our own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from batchwatch.deliver import dispatcher as module
from batchwatch.deliver.dispatcher import STALLED
from batchwatch.deliver.lane import STORE_PAUSE
from batchwatch.domain.batch import RUNNING
from batchwatch.domain.delivery import Failure
from batchwatch.metrics import Metrics
from batchwatch.store.outbox import LEASE
from tests.unit.deliver.outbox import (
    HOOK,
    OTHER,
    Desk,
    Store,
    asleep,
    dispatching,
    opened,
    refused,
)

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from batchwatch.domain.batch import EndpointName
    from batchwatch.domain.delivery import Attempt, Claimed, Settled
    from batchwatch.domain.health import Record
    from tests.support.clock import ManualClock


async def test_a_stop_lets_what_is_under_way_come_to_its_end(
    store: Store, clock: ManualClock
) -> None:
    """It is written; nothing more is sent, and the rest is there for whoever runs next."""
    await store.see(*(f"bat-{nth}" for nth in range(10)))
    desk = Desk(concurrency=2)
    desk.is_free.clear()

    async with dispatching(store, clock, desk) as dispatcher:
        await desk.until(2)
        dispatcher.stop()
        desk.is_free.set()

    assert 2 == len(desk.sent)
    assert ["delivered"] * 2 + ["pending"] * 8 == sorted(await store.states())
    rest = await store.outbox.claim(HOOK, limit=99)
    assert {f"bat-{nth}" for nth in range(10)} - set(desk.told) == {one.batch_id for one in rest}
    assert {1} == {one.attempt for one in rest}


@pytest.mark.parametrize("batches", [0, 1])
async def test_a_stop_ends_a_dispatcher_that_has_nothing_to_do(
    batches: int, store: Store, clock: ManualClock
) -> None:
    """At once: the clock stands still here, so no pause can have run out."""
    await store.see(*(f"bat-{nth}" for nth in range(batches)))

    async with dispatching(store, clock, Desk()):
        await store.outbox.until_written(batches)
        await asleep(clock, at_most=60)

    assert ["delivered"] * batches == await store.states()


async def test_a_stop_does_not_wait_for_a_rate_limit(store: Store, clock: ManualClock) -> None:
    """An hour's pause is no reason to stay for an hour."""
    await store.see("bat-1", "bat-2")
    desk = Desk(concurrency=1)
    desk.answers = [refused(retry_after=3000)]

    async with dispatching(store, clock, desk):
        await store.outbox.until_written(1)

    assert "in_flight" not in await store.states()


async def test_who_will_not_wait_can_cancel(store: Store, clock: ManualClock) -> None:
    """When the grace is over. What was being sent is sent again by the next start, same id."""
    await store.see("bat-1", "bat-2")
    desk = Desk()
    desk.is_free.clear()
    dispatcher = module.Dispatcher(
        store.outbox, [desk], records=store.endpoints, clock=clock, metrics=Metrics()
    )
    task = asyncio.create_task(dispatcher.run())
    await desk.until(2)
    dispatcher.stop()

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert 2 == await store.outbox.recover()
    again = await store.outbox.claim(HOOK, limit=9)
    assert {one.event_id for one in desk.sent} == {one.event_id for one in again}


async def test_what_cannot_be_written_is_kept_and_written_later(
    store: Store, clock: ManualClock
) -> None:
    """A full disk delays the bookkeeping; nothing is sent twice for it."""
    await store.see("bat-1", "bat-2", "bat-3")
    desk = Desk()
    desk.answers = [refused()]
    desk.is_free.clear()

    with capture_logs() as logs:
        async with dispatching(store, clock, desk):
            await desk.until(3)
            store.outbox.is_full = True
            desk.is_free.set()
            for times in (1, 2, 3):
                await store.outbox.until_refused(times)
                clock.advance(await asleep(clock, at_most=STORE_PAUSE))
            unwritten = await store.states()
            store.outbox.is_full = False
            clock.advance(await asleep(clock, at_most=STORE_PAUSE))
            await store.outbox.until_written(3)

    assert ["in_flight"] * 3 == unwritten
    assert 3 == len(desk.sent) == len({one.id for one in desk.sent})
    assert ["delivered", "delivered", "pending"] == sorted(await store.states())
    told = [one for one in logs if one["event"] == "deliveries.unwritten"]
    assert ("error", "the disk is full: make room on it") == (
        told[0]["log_level"],
        told[0]["reason"],
    )


async def test_what_could_not_be_written_before_a_stop_is_written_before_the_end(
    store: Store, clock: ManualClock
) -> None:
    """As long as the grace lasts, which is the daemon's to decide."""
    await store.see("bat-1")
    desk = Desk()
    desk.is_free.clear()

    async with dispatching(store, clock, desk) as dispatcher:
        await desk.until(1)
        store.outbox.is_full = True
        desk.is_free.set()
        await store.outbox.until_refused(1)
        dispatcher.stop()
        store.outbox.is_full = False
        clock.advance(await asleep(clock, at_most=STORE_PAUSE))

    assert ["delivered"] == await store.states()


async def test_what_is_kept_past_its_lease_is_still_not_sent_again(
    store: Store, clock: ManualClock
) -> None:
    """A disk may be full for longer than a lease; whoever holds the result is not gone."""
    await store.see("bat-1")
    desk = Desk()
    desk.is_free.clear()

    async with dispatching(store, clock, desk) as dispatcher:
        await desk.until(1)
        store.outbox.is_full = True
        desk.is_free.set()
        await store.outbox.until_refused(1)
        clock.advance(LEASE.total_seconds() + 1)
        released = await dispatcher.release()
        store.outbox.is_full = False
        clock.advance(await asleep(clock, at_most=STORE_PAUSE))
        await store.outbox.until_written(1)

    assert (0, 1, set()) == (released, len(desk.sent), store.outbox.held)


async def test_a_claim_that_fails_is_tried_again(store: Store, clock: ManualClock) -> None:
    """The lane does not die of it."""
    await store.see("bat-1")
    store.outbox.is_full = True
    desk = Desk()

    with capture_logs() as logs:
        async with dispatching(store, clock, desk):
            await store.outbox.until_refused(1)
            store.outbox.is_full = False
            clock.advance(await asleep(clock, at_most=STORE_PAUSE))
            await desk.until(1)

    (told,) = [one for one in logs if one["event"] == "claim.failed"]
    assert ("error", "hook", "the disk is full: make room on it") == (
        told["log_level"],
        told["endpoint"],
        told["reason"],
    )


async def test_sending_waits_when_too_much_is_unwritten(
    store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The memory is not the place for what the disk does not take; and all of it is sent once."""
    monkeypatch.setattr(module, "UNWRITTEN_LIMIT", 5)
    await store.see(*(f"bat-{nth}" for nth in range(20)))
    desk = Desk(concurrency=2)
    desk.is_free.clear()

    async with dispatching(store, clock, desk):
        await desk.until(2)
        store.outbox.is_full_for_results = True
        desk.is_free.set()
        await desk.until(5)
        for times in range(1, 6):
            await store.outbox.until_refused(times)
            clock.advance(await asleep(clock, at_most=STORE_PAUSE))
        await store.outbox.until_refused(6)
        sent = len(desk.sent)
        store.outbox.is_full_for_results = False
        clock.advance(await asleep(clock, at_most=STORE_PAUSE))
        await store.outbox.until_written(20)

    assert sent <= 5 + desk.concurrency - 1  # the others were open when the limit was reached
    assert 20 == len(desk.sent) == len({one.id for one in desk.sent})


class Buggy(Desk):
    """Breaks over the first batch."""

    async def answer(self, delivery: Claimed) -> Attempt:
        if delivery.batch_id == "bat-1":
            raise KeyError(delivery.batch_id)
        return await super().answer(delivery)


async def test_a_bug_over_one_delivery_stops_no_other(
    store_for_two: Store, clock: ManualClock
) -> None:
    """Neither of its endpoint nor of another; it is given up with a traceback in the log."""
    await store_for_two.see("bat-1", "bat-2", "bat-3")
    await store_for_two.see("bat-1", status=RUNNING, updated=1)
    buggy, other = Buggy(concurrency=1, schedule=()), Desk(OTHER)

    with capture_logs() as logs:
        async with dispatching(store_for_two, clock, buggy, other):
            await store_for_two.outbox.until_written(8)

    assert (4, 4) == (len(buggy.sent), len(other.sent))
    states = await store_for_two.states()
    assert (6, 2) == (states.count("delivered"), states.count("dead"))
    broke = [one for one in logs if one["event"] == "delivery.broke"]
    assert [True, True] == [one["exc_info"] for one in broke]
    assert {buggy.sent[0].event_id, buggy.sent[-1].event_id} == {one["event_id"] for one in broke}
    (shown,) = await store_for_two.views.batch("bat-1")
    assert {"1 try failed, the last: broke: a bug in batchwatch; see its log", None} == {
        one["reason"] for one in shown["deliveries"]
    }


@pytest.mark.parametrize("jump", [-3600.0, 86_400.0])
async def test_a_wall_clock_that_jumps_changes_no_pause(
    store: Store, clock: ManualClock, jump: float
) -> None:
    """An hour back is no stall, and a day ahead is no storm."""
    await store.see("bat-1")
    desk = Desk(schedule=(30.0,))
    desk.answers = [refused()]

    async with dispatching(store, clock, desk):
        await store.outbox.until_written(1)
        pause = await asleep(clock)
        clock.jump(jump)
        await store.see("bat-2")  # and what comes after it goes at once
        await desk.until(2)
        clock.advance(pause)
        await desk.until(3)

    assert 24 <= pause <= 36
    assert ["bat-1", "bat-2", "bat-1"] == desk.told


async def test_a_result_that_cannot_be_written_keeps_no_other_from_it(
    store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug over one acknowledgement: it is a dead letter, and not sent for ever."""
    await store.see("bat-1", "bat-2", "bat-3")
    settle = type(store.outbox).settle

    async def picky(self: Any, settled: Any) -> None:
        if any(one.delivery.batch_id == "bat-2" and not one.reason for one in settled):
            raise UnicodeError("bat-2")
        await settle(self, settled)

    monkeypatch.setattr(type(store.outbox), "settle", picky)
    with capture_logs() as logs:
        async with dispatching(store, clock, Desk()):
            await store.outbox.until_written(3)

    assert ["dead", "delivered", "delivered"] == sorted(await store.states())
    assert ["delivery.unwritable"] == [one["event"] for one in logs if one["log_level"] == "error"]


async def test_a_store_that_hangs_is_named(
    store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gives no error, and nothing more would be acknowledged."""
    await store.see("bat-1")
    hangs, goes_on = asyncio.Event(), asyncio.Event()
    settle = store.outbox.settle

    async def hanging(settled: Collection[Settled]) -> None:
        hangs.set()
        await goes_on.wait()
        await settle(settled)

    monkeypatch.setattr(store.outbox, "settle", hanging)
    async with dispatching(store, clock, Desk()) as dispatcher:
        await hangs.wait()
        clock.advance(STALLED)
        assert dispatcher.stall() is None

        clock.advance(1)
        assert "a write of 1 tries has lasted 61 s" == dispatcher.stall()
        goes_on.set()
        await store.outbox.until_written(1)

    assert dispatcher.stall() is None


async def test_what_is_noted_while_the_records_are_read_is_newer(
    clock: ManualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else an endpoint that is gone would be sent to again, until the next command."""
    async with opened(f"sqlite+aiosqlite:///{tmp_path / 'other.db'}", clock, HOOK, OTHER) as store:
        gone, other = Desk(schedule=()), Desk(OTHER)
        gone.always = refused(Failure.GONE)
        read = store.endpoints.records

        async def read_slowly() -> dict[EndpointName, Record]:
            found = await read()
            await store.see("bat-1")
            await other.until(2)  # of which one says that it was disabled: that is written
            return found

        async with dispatching(store, clock, gone, other) as dispatcher:
            await asleep(clock, at_most=60)
            monkeypatch.setattr(store.endpoints, "records", read_slowly)
            await dispatcher.reload()
            assert "disabled" in dispatcher.troubles()[HOOK]
