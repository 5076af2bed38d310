"""A watch's memory: its cursor, its ledger, its alarms."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from batchwatch.domain.cadence import FAILURES_TO_ALARM
from batchwatch.domain.delivery import Attempt, Claimed, Settled, State
from batchwatch.store import Outbox
from batchwatch.store.errors import StoreFull
from batchwatch.store.schema import coverage
from tests.store.conftest import HOOK, Store
from tests.support.builders import WATCH, at


async def ledger(store: Store) -> list[tuple[object, ...]]:
    async with store.database.read() as connection:
        columns = (coverage.c.covered_from, coverage.c.covered_to, coverage.c.passes)
        return [tuple(row) for row in await connection.execute(sa.select(*columns))]


async def test_a_watch_begins_once(store: Store) -> None:
    """The moment that tells backlog from news survives every restart."""
    state = await store.watches.begin(WATCH, now=at(999))

    assert (at(0), False) == (state.started_at, state.baseline_done)


async def test_passes_without_a_gap_are_one_row(store: Store) -> None:
    """And one that does not reach back to the last begins a new one: the gap stays visible."""
    for start, end in ((0, 100), (50, 200), (200, 300), (301, 400), (-10, 500)):
        await store.watches.passed(
            WATCH, newest=at(end), covered_from=at(start), covered_to=at(end), now=at(end)
        )

    assert [(at(0), at(300), 3), (at(-10), at(500), 2)] == await ledger(store)
    state = await store.watches.state(WATCH)
    assert state is not None
    assert (at(500), True) == (state.cursor, state.baseline_done)


async def test_one_outage_is_one_alarm_and_one_all_clear(store: Store) -> None:
    """However long it lasts; and a hiccup is none."""

    async def passed(second: float) -> None:
        await store.watches.passed(
            WATCH, newest=None, covered_from=at(0), covered_to=at(second), now=at(second)
        )

    await store.watches.failed(WATCH, "HTTP 503", now=at(1))
    await passed(2)
    for second in range(10, 10 + FAILURES_TO_ALARM + 5):
        await store.watches.failed(WATCH, "HTTP 503", now=at(second))
    await passed(60)
    await passed(61)

    told = []
    while claimed := await store.outbox.claim(HOOK, limit=9, now=at(99)):
        told += [one.type for one in claimed]
        await store.outbox.settle([_done(one) for one in claimed], now=at(99))
    assert ["watch.failing", "watch.recovered"] == told


async def test_an_alarm_that_cannot_be_written_was_not_raised(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state of the watch and the event about it are one transaction."""

    async def break_off(*_args: object, **_more: object) -> None:
        raise StoreFull("no room")

    for second in range(FAILURES_TO_ALARM - 1):
        await store.watches.failed(WATCH, "HTTP 503", now=at(second))
    monkeypatch.setattr(Outbox, "_move_up", break_off)
    with pytest.raises(StoreFull):
        await store.watches.failed(WATCH, "HTTP 503", now=at(60))
    monkeypatch.undo()
    await store.watches.failed(WATCH, "HTTP 503", now=at(61))

    assert 1 == len(await store.outbox.claim(HOOK, limit=9, now=at(99)))


def _done(claimed: Claimed) -> Settled:
    return Settled(claimed, Attempt(at(0), 0.1), State.DELIVERED)
