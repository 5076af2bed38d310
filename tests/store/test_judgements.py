"""What is stuck, in the store: what is due, what is told together, what like batches took."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from batchwatch.domain.batch import COMPLETED, PENDING, RUNNING, BatchId, WatchName
from batchwatch.domain.delivery import Attempt, Settled, State
from batchwatch.domain.expect import Past
from batchwatch.domain.judging import MANY, Court, Slow
from batchwatch.domain.stuck import GATHER, LOOK_AGAIN, Outage, Patience
from batchwatch.domain.watch import Work
from batchwatch.store import Outbox
from batchwatch.store.errors import StoreFull
from batchwatch.store.judgements import read_slow
from batchwatch.store.schema import batches
from tests.store.conftest import HOOK, Store
from tests.support.builders import BASE_URL, WATCH, a_sighting, at

if TYPE_CHECKING:
    from batchwatch.domain.judging import Judged

PATIENCE = Patience(running=1000.0, reminder=5000.0)


def ids(count: int) -> list[BatchId]:
    return [BatchId(f"bat-{n}") for n in range(count)]


async def running(store: Store, count: int) -> list[BatchId]:
    await store.see(*(a_sighting(RUNNING, batch_id=one) for one in ids(count)))
    await told(store)
    return ids(count)


async def due(store: Store, second: float, *, watch: WatchName = WATCH) -> list[BatchId]:
    longest = max(LOOK_AGAIN, timedelta(seconds=PATIENCE.reminder))
    found = await store.batches.judgements.due(watch, now=at(second), longest=longest, soon=GATHER)
    return sorted(found)


async def judge(store: Store, second: float) -> Judged:
    court = Court(WATCH, BASE_URL, PATIENCE)
    whom = await due(store, second)
    return await store.batches.judge(WATCH, whom, partial(court.judge, now=at(second)))


async def told(store: Store) -> list[str]:
    types = []
    while claimed := await store.at(99_999).outbox.claim(HOOK, limit=99):
        types += [one.type for one in claimed]
        taken = [Settled(one, Attempt(at(0), 0.1), State.DELIVERED) for one in claimed]
        await store.outbox.settle(taken)
    return types


async def slow(store: Store) -> Slow | None:
    async with store.database.read() as connection:
        return await read_slow(connection, WATCH)


async def test_a_batch_costs_nothing_until_it_is_due(store: Store) -> None:
    """Looked at once when it is new; then its limit is known."""
    (one,) = await running(store, 1)

    assert [one] == await due(store, 1)
    assert [] == (await judge(store, 1)).changes.events
    assert [] == await due(store, 1000)
    assert [one] == await due(store, 1050)
    assert [] == await due(store, 1050, watch=WatchName("other"))


async def test_what_is_due_soon_is_judged_with_what_is_due(store: Store) -> None:
    """And not by itself."""
    first, second = await running(store, 2)
    await judge(store, 1)
    async with store.database.write() as connection:
        move = sa.update(batches).where(batches.c.id == second)
        await connection.execute(move.values(judge_at=at(1100)))

    assert [] == await due(store, 1049)
    assert [first, second] == await due(store, 1051)


async def test_what_is_due_in_the_far_future_is_due_now(store: Store) -> None:
    """There is no time that long: the clock that said so was set back."""
    (one,) = await running(store, 1)
    await judge(store, 99_999_999)

    assert [one] == await due(store, 0)


async def test_what_ends_or_vanishes_is_never_judged(store: Store) -> None:
    """And no more stuck."""
    (one,) = await running(store, 1)
    await judge(store, 1)
    assert 1 == (await judge(store, 2000)).stuck
    assert 1 == await store.batches.judgements.stuck(WATCH)

    await store.see(a_sighting(COMPLETED, batch_id=one, updated=2100), second=2100)

    assert 0 == await store.batches.judgements.stuck(WATCH)
    assert [] == await due(store, 9999)


async def test_what_is_stuck_survives_a_restart(store: Store) -> None:
    """Who was told, how often and when stands in the store."""
    (one,) = await running(store, 1)
    await judge(store, 2000)

    written = (await store.batches.known(WATCH, [one]))[one]

    assert written.stuck is not None
    assert ("status", at(1000), at(2000), 1, True) == (
        written.stuck.rule, written.stuck.since, written.stuck.told_at,
        written.stuck.told, written.stuck.alone,
    )  # fmt: skip
    assert ["batch.stuck"] == await told(store)


async def test_many_are_one_alarm_and_it_is_remembered(store: Store) -> None:
    """The batches, what the watch told and the event are one transaction."""
    several = await running(store, MANY)

    await judge(store, 2000)
    assert ["watch.slow"] == await told(store)
    assert Slow(at(2000), told_at=at(2000), told=1) == await slow(store)

    for one in several[:-1]:
        await store.see(a_sighting(COMPLETED, batch_id=one, updated=2100), second=2100)
    judged = await judge(store, 2200)
    assert (["watch.recovered"], 1) == (
        [event.type for event in judged.changes.events],
        judged.stuck,
    )
    assert await slow(store) is None


@pytest.mark.parametrize("step", ["enqueue", "_move_up"])
async def test_a_judgement_that_cannot_be_written_did_not_happen(
    store: Store, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To its last statement."""

    async def break_off(*_args: object, **_more: object) -> None:
        raise StoreFull("no room")

    await running(store, MANY)
    monkeypatch.setattr(Outbox, step, break_off)
    with pytest.raises(StoreFull):
        await judge(store, 2000)
    monkeypatch.undo()

    assert (None, 0) == (await slow(store), await store.batches.judgements.stuck(WATCH))
    await judge(store, 2000)
    assert ["watch.slow"] == await told(store)


async def test_an_outage_is_remembered_with_its_all_clear(store: Store) -> None:
    """From the first failure to the moment at which all went well again."""
    for second in (10, 11, 12):
        await store.watches.failed(WATCH, Work.DISCOVERY, "401", now=at(second), may_pass=False)
    await store.watches.went_well(WATCH, Work.DISCOVERY, now=at(500))

    state = await store.watches.state(WATCH)

    assert state is not None
    assert (Outage(at(10), at(500)),) == state.outages


async def test_what_like_batches_took_is_known_the_newest_first(store: Store) -> None:
    """Of one kind of job and configuration, and only what has completed."""
    kind: dict[str, Any] = {"job_type": "extract_v2", "configuration_id": "cfg-1"}
    lives = [(f"bat-{n}", 100.0 * n, kind) for n in (1, 2, 3)]
    lives.append(("bat-other", 50.0, kind | {"configuration_id": "cfg-2"}))
    for batch_id, ended, more in lives:
        seen = a_sighting(PENDING, batch_id=batch_id, source_directory_id="dir-1", **more)
        await store.see(seen)
        end = replace(seen, status=COMPLETED, fingerprint="end", updated_at=at(ended))
        await store.see(replace(end, seen_at=at(ended)), second=ended)
    await store.see(a_sighting(RUNNING, batch_id="bat-9", **kind))

    past = await store.views.judgements.past(WATCH, "extract_v2", "cfg-1")

    assert [Past(one, None, "dir-1") for one in (300.0, 200.0, 100.0)] == past
