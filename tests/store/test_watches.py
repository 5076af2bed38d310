"""A watch's memory: its cursor, its ledger, its alarms."""

from __future__ import annotations

from dataclasses import replace

import pytest
import sqlalchemy as sa

from batchwatch.domain.cadence import FAILING_TO_ALARM, FAILURES_TO_ALARM, REFUSALS_TO_ALARM
from batchwatch.domain.coverage import Gap, Kind
from batchwatch.domain.delivery import Attempt, Claimed, Settled, State
from batchwatch.domain.watch import Work
from batchwatch.store import Outbox
from batchwatch.store.errors import StoreFull
from batchwatch.store.schema import coverage
from tests.store.conftest import HOOK, Store
from tests.support.builders import WATCH, a_look, at


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
        await store.watches.passed(WATCH, a_look(start, end), newest=at(end), now=at(end))

    assert [(at(0), at(300), 3), (at(-10), at(500), 2)] == await ledger(store)
    state = await store.watches.state(WATCH)
    assert state is not None
    assert (at(500), True) == (state.cursor, state.baseline_done)


async def passed(store: Store, second: float) -> None:
    await store.watches.passed(WATCH, a_look(0, second), newest=None, now=at(second))


async def failed(
    store: Store, second: float, work: Work = Work.DISCOVERY, *, may_pass: bool = True
) -> None:
    await store.watches.failed(WATCH, work, "HTTP 503", now=at(second), may_pass=may_pass)


async def told(store: Store) -> list[str]:
    types = []
    while claimed := await store.at(9_999).outbox.claim(HOOK, limit=9):
        types += [one.type for one in claimed]
        await store.at(9_999).outbox.settle([_done(one) for one in claimed])
    return types


LONG = FAILING_TO_ALARM.total_seconds()


async def test_one_outage_is_one_alarm_and_one_all_clear(store: Store) -> None:
    """However long it lasts; and a hiccup of a minute is none."""
    for second in (1, 5, 60):
        await failed(store, second)
    await passed(store, 61)
    assert [] == await told(store)

    for second in range(100, 100 + int(2 * LONG), 30):
        await failed(store, second)
    assert ["watch.failing"] == await told(store)
    await passed(store, 900)
    await passed(store, 960)
    assert ["watch.recovered"] == await told(store)


async def test_what_will_not_mend_itself_is_told_soon(store: Store) -> None:
    """A refused key: three times, and somebody is woken."""
    for second in range(REFUSALS_TO_ALARM):
        assert [] == await told(store)
        await failed(store, second, may_pass=False)

    assert ["watch.failing"] == await told(store)


async def test_a_wall_clock_that_stands_still_does_not_hide_an_outage(store: Store) -> None:
    """Enough failures are an alarm, whatever the time is said to be."""
    for _ in range(FAILURES_TO_ALARM):
        await failed(store, 5)

    assert ["watch.failing"] == await told(store)


async def test_work_beside_a_discovery_that_goes_well_has_an_alarm_too(store: Store) -> None:
    """One for all kinds of work, and the all-clear when the last of them goes well again."""
    for second in (10, 10 + LONG):
        await failed(store, second, Work.REFRESH)
        await failed(store, second, Work.RESULTS)
        await passed(store, second + 1)
    assert ["watch.failing"] == await told(store)

    await store.watches.went_well(WATCH, Work.REFRESH, now=at(300))
    assert [] == await told(store)
    await store.watches.went_well(WATCH, Work.RESULTS, now=at(301))
    assert ["watch.recovered"] == await told(store)


async def test_an_alarm_that_cannot_be_written_was_not_raised(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state of the watch and the event about it are one transaction."""

    async def break_off(*_args: object, **_more: object) -> None:
        raise StoreFull("no room")

    for second in range(REFUSALS_TO_ALARM - 1):
        await failed(store, second, may_pass=False)
    monkeypatch.setattr(Outbox, "_move_up", break_off)
    with pytest.raises(StoreFull):
        await failed(store, 60, may_pass=False)
    monkeypatch.undo()
    await failed(store, 61, may_pass=False)

    assert ["watch.failing"] == await told(store)


async def test_a_gap_that_stays_open_is_told_once(store: Store) -> None:
    """However often it is written, and with it or not at all; a closed one is told to nobody."""
    gap = Gap(at(10), at(20), Kind.UNREADABLE, "1 entry")
    shut = Gap(at(0), at(10), Kind.STOPPED, closed_at=at(20), listed_from=at(0), found=3)
    for second in (20, 80, 140):
        lasting = replace(gap, end=at(second))
        await store.watches.passed(
            WATCH, a_look(0, second), newest=None, now=at(second), gaps=[shut, lasting]
        )
    assert ["watch.gap"] == await told(store)
    assert (at(140), lasting) == await store.watches.covered(WATCH)

    done = replace(lasting, closed_at=at(200))
    await store.watches.passed(WATCH, a_look(0, 200), newest=None, now=at(200), gaps=[done])
    (row,) = await store.views.ledgers(at(0))
    assert ([shut, done], []) == (row["ledger"].gaps, await told(store))
    assert (at(200), None) == await store.watches.covered(WATCH)


async def test_a_gap_that_cannot_be_told_was_not_noted(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger, its gaps and the event are one transaction."""

    async def break_off(*_args: object, **_more: object) -> None:
        raise StoreFull("no room")

    gap = Gap(at(10), at(20), Kind.STOPPED)
    with monkeypatch.context() as patch:
        patch.setattr(Outbox, "_move_up", break_off)
        with pytest.raises(StoreFull):
            await store.watches.passed(WATCH, a_look(0, 20), newest=None, now=at(20), gaps=[gap])

    assert (None, None) == await store.watches.covered(WATCH)
    assert [] == await ledger(store)


async def test_a_ledger_of_another_scope_is_not_continued(store: Store) -> None:
    """The first pass of the new one has a row of its own, though its window reaches back."""
    for number, second in enumerate((100, 200, 300)):
        await store.watches.begin(WATCH, now=at(second), scope={"base_url": str(number)})
        await passed(store, second)

    assert [(at(0), at(second), 1) for second in (100, 200, 300)] == await ledger(store)


def _done(claimed: Claimed) -> Settled:
    return Settled(claimed, Attempt(at(0), 0.1), State.DELIVERED)
