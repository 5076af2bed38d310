"""Several daemons on one PostgreSQL: what one does never undoes what another does."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from batchwatch.clock import Clock
from batchwatch.domain.batch import BatchId, EndpointName, EventId, WatchName
from batchwatch.domain.delivery import JITTER, Attempt, Failure, Settled, State
from batchwatch.domain.event import Event
from batchwatch.store import Database, StoreError
from batchwatch.store.errors import LeaseLost, StoreUnreachable
from batchwatch.store.leases import Leases
from batchwatch.store.notices import HeldBack, LookAt, Notice, Notices, Owed, Paused, PollNow
from batchwatch.store.schema import deliveries, events
from batchwatch.store.schema import replicas as roster
from tests.store.conftest import HOOK, Store
from tests.support.builders import a_recorder, a_sighting, at
from tests.support.postgres import a_database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from batchwatch.domain.changes import Changes

    Sent = defaultdict[tuple[str, str], list[str]]

REPLICAS = 3
OPS = EndpointName("ops")
LINES = 4
EVENTS = 40  # of each line
TAKEN = Attempt(at(0), 0.01, status_code=204)
REFUSED = Attempt(at(0), 0.01, Failure.SERVER_ERROR, status_code=500)


@pytest.fixture
async def replicas(postgres: str) -> AsyncIterator[list[Store]]:
    """As many stores over one database."""
    async for url in a_database(postgres, made=True):
        databases = [await Database.open(url) for _ in range(REPLICAS)]
        stores = [Store(one, HOOK, OPS) for one in databases]
        heeding = [asyncio.create_task(heed(one)) for one in stores]
        yield stores
        for task in heeding:
            task.cancel()
        await asyncio.gather(*heeding, return_exceptions=True)
        for one in databases:
            await one.close()


async def heed(store: Store) -> None:
    def heard(notice: Notice | None) -> None:
        if isinstance(notice, Owed):
            store.outbox.heard(notice.endpoints)
        else:
            store.outbox.signal_all()

    await Notices(store.database, Clock()).run(heard)


def an_event(line: int, number: int) -> Event:
    return Event(
        id=EventId(f"evt_{line}_{number}"),
        type="watch.failing",
        watch=WatchName(f"watch-{line}"),
        occurred_at=at(number),
        data={},
    )


async def put(store: Store, *new: Event) -> None:
    async with store.database.write() as connection:
        await store.outbox.enqueue(connection, new)
    store.outbox.committed(new)


async def write(store: Store, lines: Iterable[int]) -> None:
    for number in range(EVENTS):
        await put(store, *(an_event(line, number) for line in lines))


async def send(store: Store, endpoint: EndpointName, sent: Sent) -> None:
    """Until all that there will be is sent."""
    dice = random.Random(3)
    while sum(len(one) for one in sent.values()) < 2 * LINES * EVENTS:
        claimed = await store.outbox.claim(endpoint, limit=dice.randint(1, 5))
        for one in claimed:
            sent[endpoint, one.subject].append(one.event_id)
        await store.outbox.settle([Settled(one, TAKEN, State.DELIVERED) for one in claimed])
        if not claimed:
            await asyncio.sleep(0)


async def test_whoever_writes_and_whoever_sends_each_line_is_sent_in_order_and_to_its_end(
    replicas: list[Store],
) -> None:
    """Three write and three send, all at once: nothing is twice, out of order or left behind."""
    sent: Sent = defaultdict(list)

    async with asyncio.timeout(50), asyncio.TaskGroup() as group:
        for store in replicas:
            for endpoint in (HOOK, OPS):
                group.create_task(send(store, endpoint, sent))
        # Two of them write the same lines, which happens when one takes over from the other.
        for store, lines in zip(replicas, (range(LINES), range(LINES), range(2)), strict=True):
            group.create_task(write(store, lines))

    for line in range(LINES):
        expected = [f"evt_{line}_{number}" for number in range(EVENTS)]
        for endpoint in (HOOK, OPS):
            assert expected == sent[endpoint, f"watch-{line}"]


async def test_the_order_of_events_is_the_order_of_their_commits(replicas: list[Store]) -> None:
    """Who follows them by their place misses none: a lower one never appears later."""
    seen: list[int] = []

    async def follow(store: Store) -> None:
        while len(seen) < LINES * EVENTS:
            after = seen[-1] if seen else 0
            async with store.database.read() as connection:
                query = sa.select(events.c.seq).where(events.c.seq > after).order_by(events.c.seq)
                seen.extend(await connection.scalars(query))

    async with asyncio.timeout(50), asyncio.TaskGroup() as group:
        group.create_task(follow(replicas[0]))
        for line in range(LINES):
            group.create_task(write(replicas[line % REPLICAS], [line]))

    assert LINES * EVENTS == len(set(seen))


async def test_a_commit_wakes_the_lanes_of_all(replicas: list[Store]) -> None:
    """By a notification: nobody has to look for it."""
    first, second, _ = replicas
    signal = second.outbox.signal(HOOK)
    async with asyncio.timeout(5):
        await signal.wait()  # it hears from now on
    signal.clear()

    await put(first, an_event(0, 0))

    async with asyncio.timeout(5):
        await signal.wait()
    assert 1 == len(await second.outbox.claim(HOOK, limit=9))


async def test_what_one_has_claimed_no_other_claims(replicas: list[Store]) -> None:
    """However close together they come."""
    await put(replicas[0], *(an_event(line, 0) for line in range(30)))

    claims = await asyncio.gather(*(store.outbox.claim(HOOK, limit=20) for store in replicas))

    ids = [one.id for claimed in claims for one in claimed]
    assert 30 == len(ids) == len(set(ids))
    async with replicas[0].database.read() as connection:
        left = await connection.scalar(
            sa.select(sa.func.count()).where(
                deliveries.c.endpoint == HOOK, deliveries.c.state == "pending"
            )
        )
    assert 0 == left


async def named(replicas: list[Store]) -> list[Leases]:
    """Have each be one replica for the outbox, too."""
    found = []
    for number, store in enumerate(replicas):
        store.outbox.replica = f"replica-{number}"
        leases = Leases(store.database, store.clock, replica=store.outbox.replica)
        await leases.beat()
        found.append(leases)
    return found


async def states(store: Store) -> list[tuple[str, str | None]]:
    """How each delivery to the hook stands, and with whom."""
    async with store.database.read() as connection:
        query = sa.select(deliveries.c.state, deliveries.c.holder).where(
            deliveries.c.endpoint == HOOK
        )
        return [(row.state, row.holder) for row in await connection.execute(query.order_by("id"))]


async def test_who_comes_back_late_undoes_nothing_that_another_has_begun(
    replicas: list[Store],
) -> None:
    """Neither its result nor its change of mind counts, once another has claimed the delivery."""
    first, second, _ = replicas
    paused, alive, _ = await named(replicas)
    await put(first, an_event(0, 0), an_event(0, 1))
    (lost,) = await first.outbox.claim(HOOK, limit=9)
    await paused.leave()  # as good as dead
    await alive.beat()
    assert 1 == await second.outbox.release()
    (taken,) = await second.outbox.claim(HOOK, limit=9)
    assert lost.event_id == taken.event_id

    await first.outbox.give_back([lost.id])
    await first.outbox.settle([Settled(lost, TAKEN, State.DELIVERED)])

    assert [("in_flight", "replica-1"), ("waiting", None)] == await states(second)
    await second.outbox.settle([Settled(taken, TAKEN, State.DELIVERED)])
    (following,) = await second.outbox.claim(HOOK, limit=9)
    assert "evt_0_1" == following.event_id


async def test_what_another_that_is_alive_has_in_flight_is_left_to_it(
    replicas: list[Store],
) -> None:
    """As is what one has in hand itself."""
    first, second, _ = replicas
    await named(replicas)
    await put(first, an_event(0, 0))
    await first.outbox.claim(HOOK, limit=9)

    assert (0, 0) == (await first.outbox.release(), await second.outbox.release())


async def test_a_claim_whose_answer_was_lost_is_claimed_again_soon(replicas: list[Store]) -> None:
    """It was committed, and the connection broke: nobody has it in hand."""
    first, second, _ = replicas
    await named(replicas)
    await put(first, an_event(0, 0))
    await first.outbox.claim(HOOK, limit=9)
    first.outbox.held.clear()  # as if its answer had never come

    assert (0, 1) == (await second.outbox.release(), await first.outbox.release())
    assert 1 == len(await second.outbox.claim(HOOK, limit=9))


async def test_replicas_whose_clocks_are_apart_agree_when_something_is_due(
    replicas: list[Store],
) -> None:
    """All go by the database's; one whose host is a day ahead claims nothing too early."""
    first, second, third = replicas
    second.clock.jump(86_400)
    for right in (first, third):
        right.clock.jump((Clock().now() - right.clock.now()).total_seconds())
    with capture_logs() as logs:
        for one in await named(replicas):
            await one.beat()  # which says nothing again
    await put(first, an_event(0, 0))
    (tried,) = await first.outbox.claim(HOOK, limit=9)
    await first.outbox.settle([Settled(tried, REFUSED, State.PENDING, due_in=60)])

    assert [] == await second.outbox.claim(HOOK, limit=9)
    for store in (first, second):
        due_in = await store.outbox.due_in(HOOK)
        assert 60 == pytest.approx(due_in, abs=2)
        store.clock.advance(62)
    assert 1 == len(await second.outbox.claim(HOOK, limit=9))
    assert ["clock.apart"] == [one["event"] for one in logs]


async def test_a_clock_of_the_database_that_was_set_back_holds_nothing_up(
    replicas: list[Store],
) -> None:
    """Nothing is due later than its last pause from now."""
    first, second, _ = replicas
    await named(replicas)
    await put(first, an_event(0, 0))
    (tried,) = await first.outbox.claim(HOOK, limit=9)
    await first.outbox.settle([Settled(tried, REFUSED, State.PENDING, due_in=60)])

    second.clock.agree(second.clock.steady() - timedelta(days=1))
    await second.outbox.hasten()

    due_in = await second.outbox.due_in(HOOK)
    assert due_in is not None
    assert due_in < 60 * (1 + JITTER) + 2


async def test_whatever_is_told_is_heard_by_all(replicas: list[Store]) -> None:
    """In its order; and what is too long for PostgreSQL says that something was missed."""
    heard: dict[int, list[Notice | None]] = {0: [], 1: []}
    long = LookAt(WatchName("one"), BatchId("x" * 9_000), "RUNNING")
    sent: list[Notice] = [
        PollNow(WatchName("one")),
        HeldBack(HOOK, "no", by="me"),
        Paused(HOOK, 5, by="me"),
    ]

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        all_listen, all_heard = asyncio.Event(), asyncio.Event()
        notices = [Notices(store.database, Clock()) for store in replicas[:2]]

        def hear(number: int, notice: Notice | None) -> None:
            heard[number].append(notice)
            if all(heard.values()):
                all_listen.set()
            if all(sent[-1] in one and one[-1] is None for one in heard.values()):
                all_heard.set()

        listening = [
            group.create_task(one.run(partial(hear, number))) for number, one in enumerate(notices)
        ]
        await all_listen.wait()
        for notice in (*sent, long):
            notices[0].tell(notice)
        await all_heard.wait()
        for task in listening:
            task.cancel()

    for told in heard.values():
        begins = told.index(sent[0])  # after the word of each that began to listen
        assert ([None] * begins, [*sent, None]) == (told[:begins], told[begins:])


async def test_a_claim_that_is_faster_than_a_replay_is_left_alone(replicas: list[Store]) -> None:
    """What is being sent does not go back into its line, to be sent once more."""
    first, second, _ = replicas
    await named(replicas)
    await put(first, an_event(0, 0))
    (ended,) = await first.outbox.claim(HOOK, limit=9)
    await first.outbox.settle([Settled(ended, TAKEN, State.DELIVERED)])
    await put(first, an_event(0, 1))
    async with second.database.write() as connection:  # a claim that takes a moment to commit
        held = sa.update(deliveries).where(
            deliveries.c.endpoint == HOOK, deliveries.c.state == "pending"
        )
        await connection.execute(held.values(state="in_flight", holder="replica-1"))
        replaying = asyncio.create_task(first.outbox.replay([ended.id]))
        done, _ = await asyncio.wait([replaying], timeout=0.2)
        assert not done, "it waits for the claim"
    await replaying

    assert [("waiting", "replica-0"), ("in_flight", "replica-1")] == await states(first)
    assert [] == await first.outbox.claim(HOOK, limit=9)


async def test_a_result_that_is_written_twice_counts_once(replicas: list[Store]) -> None:
    """Its answer was lost, and meanwhile the delivery was claimed for its next try."""
    store = replicas[0]
    await named(replicas)
    await put(store, an_event(0, 0))
    (tried,) = await store.outbox.claim(HOOK, limit=9)
    result = [Settled(tried, REFUSED, State.PENDING)]
    await store.outbox.settle(result)
    assert 1 == len(await store.outbox.claim(HOOK, limit=9))

    await store.outbox.settle(result)

    assert [("in_flight", "replica-0")] == await states(store)


async def test_whoever_was_cut_off_takes_nobody_for_dead(replicas: list[Store]) -> None:
    """So were the others, and have in hand what they had."""
    first, second, _ = replicas
    mine, other, _ = await named(replicas)
    await put(first, an_event(0, 0))
    await second.outbox.claim(HOOK, limit=9)
    async with first.database.write() as connection:
        await connection.execute(sa.update(roster).values(seen_at=at(-(10**9))))
    mine._clock.advance(3600)  # type: ignore[attr-defined]  # noqa: SLF001  # for so long
    await mine.beat()

    assert (2, False) == (mine.epoch, mine.may_judge)
    assert 0 == await first.outbox.release(judges=mine.may_judge)
    await other.beat()
    assert [("in_flight", "replica-1")] == await states(first)


async def test_a_page_with_news_for_many_takes_a_bounded_number_of_locks(
    replicas: list[Store],
) -> None:
    """A server has room for some thousands in all, and there may be more lines than that."""
    database = replicas[0].database
    lines = [{"endpoint": HOOK, "subject": f"default/bat-{number}"} for number in range(20_000)]
    async with database.write() as connection:
        await database.hold_lines(connection, lines)
        query = sa.text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
        found = await connection.scalar(query)

    assert 1_024 == found


async def test_a_claim_whose_events_cannot_be_read_is_claimed_again_soon(
    replicas: list[Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are read once it is committed, lest who freezes over them holds it unseen."""
    first, second, _ = replicas
    await named(replicas)
    await put(first, an_event(0, 0))

    def away(_: Database) -> None:
        raise StoreUnreachable("away")

    monkeypatch.setattr(Database, "read", away)
    with pytest.raises(StoreUnreachable):
        await first.outbox.claim(HOOK, limit=9)
    monkeypatch.undo()

    assert [("in_flight", "replica-0")] == await states(first)
    assert 1 == await first.outbox.release()
    assert 1 == len(await second.outbox.claim(HOOK, limit=9))


async def test_a_watch_is_held_once_all_is_read_and_before_anything_is_written(
    replicas: list[Store],
) -> None:
    """Who freezes while much comes in holds up nobody; who has lost it writes nothing."""
    store = replicas[0]
    watch = WatchName("default")
    await store.watches.begin(watch, now=at(0))
    steps: list[str] = []

    async def lost(_connection: object, name: WatchName) -> None:
        steps.append(f"hold {name}")
        raise LeaseLost("another has it")

    def decide(*_: object) -> Changes:
        steps.append("decide")
        return a_recorder().record({}, [a_sighting()], now=at(0))

    store.database.guard = lost
    for change in (store.batches.change, store.batches.follow):
        with pytest.raises(LeaseLost):
            await change(watch, {BatchId("bat-1")}, decide)

    assert ["decide", "hold default"] * 2 == steps
    assert [] == await store.views.batches()


async def test_while_nothing_can_be_written_nothing_is_asked_for(replicas: list[Store]) -> None:
    """What upstream shows then may never be shown again; the next sign of life ends it."""
    store = replicas[0]
    leases = (await named(replicas))[0]
    store.database.failed = leases.doubt
    watch = WatchName("default")
    await leases.take([watch])
    assert leases.holds(watch)

    with pytest.raises(StoreError):
        async with store.database.write() as connection:
            await connection.execute(sa.text("SELECT 1/0"))
    assert not leases.holds(watch)

    await leases.beat()
    assert leases.holds(watch)
