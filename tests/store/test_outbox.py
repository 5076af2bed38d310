"""The outbox: lines in order, claims under a lease, nothing lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider

from batchwatch import store as real
from batchwatch.domain.batch import COMPLETED, PENDING, RUNNING, BatchId, EndpointName
from batchwatch.domain.delivery import Attempt, Claimed, Failure, Settled, State
from batchwatch.domain.routing import FOR_PROGRAMS, Router
from batchwatch.store import Database, Outbox
from batchwatch.store.outbox import LEASE
from batchwatch.traces import Traces
from tests.store.conftest import HOOK, Store, empty
from tests.support.builders import WATCH, a_recorder, a_sighting, at
from tests.support.clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable

OTHER = EndpointName("other")


def delivered(claimed: Claimed) -> Settled:
    return Settled(claimed, Attempt(at(0), 0.01, status_code=204), State.DELIVERED)


def failed(claimed: Claimed, *, due_in: float = 5) -> Settled:
    attempt = Attempt(at(0), 0.01, Failure.SERVER_ERROR, status_code=500, response="oops")
    return Settled(claimed, attempt, State.PENDING, due_in=due_in)


def dead(claimed: Claimed) -> Settled:
    return Settled(claimed, Attempt(at(0), 0.01, Failure.GONE), State.DEAD, reason="gone: HTTP 410")


async def test_the_events_of_a_batch_go_one_after_another(store: Store) -> None:
    """The second can be claimed when the first was delivered, not before."""
    await store.see(a_sighting(PENDING))
    await store.see(a_sighting(RUNNING, updated=1), second=1)

    (first,) = await store.at(9).outbox.claim(HOOK, limit=9)
    assert [] == await store.at(9).outbox.claim(HOOK, limit=9)
    await store.at(9).outbox.settle([delivered(first)])
    (second,) = await store.at(9).outbox.claim(HOOK, limit=9)

    assert ["batch.pending", "batch.running"] == [first.type, second.type]


async def test_different_batches_do_not_wait_for_each_other(store: Store) -> None:
    """Order is promised for one batch, not between two."""
    await store.see(a_sighting(batch_id="bat-1"), a_sighting(batch_id="bat-2"))

    assert 2 == len(await store.at(9).outbox.claim(HOOK, limit=9))


async def test_a_failed_head_holds_its_line_and_no_other(store: Store) -> None:
    """It is due again after its pause, with its attempts counted."""
    await store.see(a_sighting(PENDING), a_sighting(batch_id="bat-2"))
    await store.see(a_sighting(RUNNING, updated=1))
    head, other = await store.at(9).outbox.claim(HOOK, limit=9)

    await store.at(10).outbox.settle([failed(head, due_in=5), delivered(other)])

    assert 5 == await store.outbox.due_in(HOOK)
    assert [] == await store.at(14).outbox.claim(HOOK, limit=9)
    (again,) = await store.at(15).outbox.claim(HOOK, limit=9)
    assert (head.event_id, 2) == (again.event_id, again.attempt)


async def test_a_dead_letter_lets_the_next_pass(store: Store) -> None:
    """And stays visible, with its reason and its attempts."""
    await store.see(a_sighting(PENDING))
    await store.see(a_sighting(RUNNING, updated=1))
    (head,) = await store.at(9).outbox.claim(HOOK, limit=9)

    await store.at(10).outbox.settle([dead(head)])

    (next_one,) = await store.at(10).outbox.claim(HOOK, limit=9)
    assert "batch.running" == next_one.type
    (shown,) = await store.views.batch("bat-1")
    letter = shown["deliveries"][0]
    assert ("dead", "gone: HTTP 410", 1) == (
        letter["state"],
        letter["reason"],
        len(letter["tries"]),
    )


async def test_a_slow_endpoint_has_its_own_lines(made_url: str) -> None:
    """What one endpoint does not take delays nothing for another."""
    database = await Database.open(made_url)
    store = Store(database, HOOK, OTHER)
    await store.watches.begin(WATCH, now=at(0))
    await store.see(a_sighting(PENDING))
    await store.see(a_sighting(RUNNING, updated=1))
    await store.at(9).outbox.claim(HOOK, limit=9)

    (first,) = await store.at(9).outbox.claim(OTHER, limit=9)
    await store.at(9).outbox.settle([delivered(first)])

    assert 1 == len(await store.at(9).outbox.claim(OTHER, limit=9))
    await database.close()


async def test_what_was_in_flight_is_tried_again_when_its_lease_is_over(store: Store) -> None:
    """Its daemon died between the claim and the acknowledgement; the id stays the same."""
    await store.see(a_sighting())
    (lost,) = await store.at(0).outbox.claim(HOOK, limit=9)

    lease = LEASE.total_seconds()
    beside = Store(store.database)  # another process, which does not hold it
    assert 0 == await beside.at(lease).outbox.release()
    assert [] == await store.at(999).outbox.claim(HOOK, limit=9)
    assert 0 == await store.at(lease + 1).outbox.release(), "whoever holds it has it still"
    assert 1 == await beside.at(lease + 1).outbox.release()

    (found,) = await store.at(999).outbox.claim(HOOK, limit=9)
    assert lost.event_id == found.event_id


async def test_a_daemon_that_starts_takes_all_back_at_once(store: Store) -> None:
    """The store is its own; nobody else can be sending."""
    await store.see(a_sighting())
    await store.at(0).outbox.claim(HOOK, limit=9)

    assert 1 == await store.outbox.recover()
    assert 1 == len(await store.at(0).outbox.claim(HOOK, limit=9))


async def test_a_clock_that_was_set_back_holds_nothing_up_after_a_restart(store: Store) -> None:
    """What was never tried is due at once, and what was tried after its pause at the latest."""
    day = 86_400.0
    await store.see(a_sighting(batch_id="bat-1"), a_sighting(batch_id="bat-2"), second=day)
    (tried,) = await store.outbox.claim(HOOK, limit=1)
    await store.outbox.settle([failed(tried, due_in=30)])

    await store.at(0).outbox.recover()

    (fresh,) = await store.outbox.claim(HOOK, limit=9)
    assert "bat-2" == fresh.batch_id
    assert 36 == pytest.approx(await store.outbox.due_in(HOOK))
    assert 1 == len(await store.at(36.1).outbox.claim(HOOK, limit=9))


async def test_a_replay_is_the_same_event_and_begins_its_schedule_anew(store: Store) -> None:
    """The receiver can tell it from news; the tries before it are kept and do not count."""
    await store.see(a_sighting())
    (first,) = await store.outbox.claim(HOOK, limit=9)
    await store.outbox.settle([dead(first)])

    assert 1 == await store.outbox.replay([first.id])
    assert 0 == await store.outbox.replay([first.id])  # it is open: there is nothing to replay

    (again,) = await store.outbox.claim(HOOK, limit=9)
    assert (first.event_id, 2, 1) == (again.event_id, again.attempt, again.turn)
    await store.outbox.settle([delivered(again)])
    (shown,) = await store.views.batch("bat-1")
    assert [1, 2] == [one["number"] for one in shown["deliveries"][0]["tries"]]


@pytest.mark.parametrize("fate", [delivered, failed])
async def test_a_replay_takes_its_place_in_its_line_and_overtakes_nothing(
    store: Store, fate: Callable[[Claimed], Settled]
) -> None:
    """It goes before what is still owed, and never beside what is under way."""
    for updated, status in enumerate((PENDING, RUNNING, COMPLETED)):
        await store.see(a_sighting(status, updated=updated, asked_results=True, results=()))
    (first,) = await store.outbox.claim(HOOK, limit=9)
    await store.outbox.settle([dead(first)])
    (second,) = await store.outbox.claim(HOOK, limit=9)

    await store.outbox.replay([first.id])

    assert [] == await store.outbox.claim(HOOK, limit=9)
    await store.outbox.settle([fate(second)])
    types = []
    while claimed := await store.at(99).outbox.claim(HOOK, limit=9):
        types += [one.type for one in claimed]
        await store.outbox.settle([delivered(one) for one in claimed])
    rest = ["batch.running"] if fate is failed else []
    assert ["batch.pending", *rest, "batch.completed", "batch.settled"] == types


async def test_a_replay_goes_before_one_that_waits_for_its_retry(store: Store) -> None:
    """And does not wait out the pause of the one that came later."""
    await store.see(a_sighting(PENDING))
    await store.see(a_sighting(RUNNING, updated=1))
    (first,) = await store.outbox.claim(HOOK, limit=9)
    await store.outbox.settle([dead(first)])
    (second,) = await store.outbox.claim(HOOK, limit=9)
    await store.outbox.settle([failed(second, due_in=3600)])

    await store.outbox.replay([first.id])

    (again,) = await store.outbox.claim(HOOK, limit=9)
    assert first.event_id == again.event_id
    await store.outbox.settle([delivered(again)])
    (later,) = await store.at(3600).outbox.claim(HOOK, limit=9)
    assert second.event_id == later.event_id


async def test_what_a_command_makes_due_is_due_by_any_clock(store: Store) -> None:
    """The daemon's clock may be hours behind the true one that a command reads."""
    await store.see(a_sighting())
    (first,) = await store.outbox.claim(HOOK, limit=9)
    await store.outbox.settle([dead(first)])
    ahead = ManualClock()
    ahead.set(8 * 3600)
    command = Outbox(store.database, Router({HOOK: FOR_PROGRAMS}), ahead, beside=True)

    await command.replay([first.id])

    assert 1 == len(await store.outbox.claim(HOOK, limit=9))


async def test_a_pause_that_a_receiver_asked_for_outlives_a_restart(store: Store) -> None:
    """An hour is an hour, however often the daemon starts."""
    await store.see(a_sighting())
    (first,) = await store.outbox.claim(HOOK, limit=9)
    await store.outbox.settle([failed(first, due_in=3600)])

    await store.outbox.recover()

    assert 3600 == pytest.approx(await store.outbox.due_in(HOOK))


async def test_the_daemon_learns_of_what_a_command_did(store: Store) -> None:
    """It looks at a number in the file, whoever wrote it, from the moment when it has opened it."""
    await store.see(a_sighting())
    (first,) = await store.outbox.claim(HOOK, limit=9)
    await store.outbox.settle([dead(first)])
    before = await store.database.nudges()

    await store.outbox.replay([first.id])

    assert before != await store.database.nudges() == await store.database.nudges()


async def test_the_same_event_is_owed_once(store: Store) -> None:
    """A fact that is written again, by its id, is no second fact."""
    changes = await store.see(a_sighting())
    async with store.database.write() as connection:
        await store.outbox.enqueue(connection, changes.events)

    assert 1 == len(await store.at(9).outbox.claim(HOOK, limit=9))


async def test_who_delivers_is_woken_by_the_commit(store: Store) -> None:
    """Not by a timer; and an endpoint that hears nothing is left asleep."""
    signal, other = store.outbox.signal(HOOK), store.outbox.signal(OTHER)

    await store.see(a_sighting())

    assert (True, False) == (signal.is_set(), other.is_set())


async def test_a_claim_takes_no_more_than_asked_and_the_longest_due_first(store: Store) -> None:
    """A page, in order; the rest stays for the next."""
    for second in range(5):
        await store.see(a_sighting(batch_id=f"bat-{second}"), second=second)

    pages = [await store.at(9).outbox.claim(HOOK, limit=2) for _ in range(4)]

    assert [["bat-0", "bat-1"], ["bat-2", "bat-3"], ["bat-4"], []] == [
        [one.batch_id for one in page] for page in pages
    ]


@hypothesis(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
async def test_any_order_of_outcomes_keeps_the_order_of_each_line(
    store: Store, data: st.DataObject
) -> None:
    """Random claims, failures, deaths and crashes: each event ends once, in order."""
    await empty(store.database)
    await store.watches.begin(WATCH, now=at(0))
    lives = {
        "bat-1": (PENDING, RUNNING, COMPLETED),
        "bat-2": (RUNNING,),
        "bat-3": (PENDING, RUNNING),
    }
    told: dict[str, list[str]] = {name: [] for name in lives}
    owed: dict[str, list[str]] = {name: [] for name in lives}
    for name, life in lives.items():
        for updated, status in enumerate(life):
            seen = a_sighting(
                status, batch_id=name, updated=updated, asked_results=True, results=()
            )
            changes = await store.see(seen)
            owed[name] += [e.id for e in changes.events if e.type != "batch.discovered"]

    second, steps = 0, data.draw(st.integers(0, 30))
    while told != owed and second < 1_000:
        second += 10
        is_random = second <= 10 * steps
        limit = data.draw(st.integers(1, 4)) if is_random else 4
        claimed = await store.at(second).outbox.claim(HOOK, limit=limit)
        if is_random and data.draw(st.sampled_from([False, False, True])):
            await store.outbox.recover()  # from a crash
            continue
        settled = []
        for one in claimed:
            kinds = [delivered, failed, dead] if is_random else [delivered]
            kind = data.draw(st.sampled_from(kinds))
            settled.append(kind(one))
            if kind is not failed:
                told[one.subject.split("/")[1]].append(one.event_id)
        if settled:
            await store.outbox.settle(settled)

    assert owed == told
    assert [] == await store.at(9_999).outbox.claim(HOOK, limit=9)


async def test_an_event_keeps_the_trace_of_what_made_it(made_url: str) -> None:
    """So that a delivery is a part of it, after a restart as well; without traces of none."""
    database = await Database.open(made_url)
    router = Router({HOOK: FOR_PROGRAMS})
    traces = Traces(TracerProvider(shutdown_on_exit=False).get_tracer("test"))
    traced = real.Store(database, router, ManualClock(), traces=traces)
    await traced.watches.begin(WATCH, now=at(0))
    with traces.span("poll"):
        here = traces.here()
        await traced.batches.change(
            WATCH,
            [BatchId("bat-1")],
            lambda known: a_recorder().record(known, [a_sighting()], now=at(0)),
        )
    (claimed,) = await traced.outbox.claim(HOOK, limit=9)
    await traced.outbox.give_back([claimed.id])

    (without,) = await real.Store(database, router, ManualClock()).outbox.claim(HOOK, limit=9)
    await database.close()

    assert here
    assert (here, None) == (claimed.trace, without.trace)


async def test_an_event_that_no_poll_made_has_a_trace_of_its_own(made_url: str) -> None:
    """All of its deliveries are found in it."""
    database = await Database.open(made_url)
    router = Router(dict.fromkeys([HOOK, OTHER], FOR_PROGRAMS))
    traces = Traces(TracerProvider(shutdown_on_exit=False).get_tracer("test"))
    traced = real.Store(database, router, ManualClock(), traces=traces)
    await traced.watches.begin(WATCH, now=at(0))
    await traced.batches.change(
        WATCH,
        [BatchId("bat-1")],
        lambda known: a_recorder().record(known, [a_sighting()], now=at(0)),
    )
    found = {
        one.trace for name in (HOOK, OTHER) for one in await traced.outbox.claim(name, limit=9)
    }
    await database.close()

    assert 1 == len(found)
    assert None not in found
