"""The timed jobs: what they take note of, count, say and tidy, and that none ends another."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import sqlalchemy as sa
import structlog

from batchwatch import daemon, parts
from batchwatch.clock import Clock
from batchwatch.deliver.dispatcher import Dispatcher
from batchwatch.domain.batch import RUNNING, BatchId, EndpointName, WatchName
from batchwatch.domain.delivery import Attempt, Settled, State
from batchwatch.domain.health import Record
from batchwatch.domain.hint import KEPT, Hint
from batchwatch.metrics import Metrics
from batchwatch.settings import load
from batchwatch.simulator import Simulator
from batchwatch.store import Database, Endpoints, Outbox
from batchwatch.store.errors import StoreBusy
from batchwatch.store.hints import AT_ONCE
from batchwatch.store.outbox import LEASE
from batchwatch.store.retention import AT_ONCE as ROWS_AT_ONCE
from batchwatch.store.retention import Retention
from batchwatch.store.schema import hints as table
from batchwatch.upkeep import APART, CLOCK_CHECK, Upkeep
from tests.support.builders import WATCH, a_recorder, a_sighting, at
from tests.support.clock import LeapClock, ManualClock
from tests.support.daemon import environment
from tests.support.postgres import a_database
from tests.support.receiver import Receiver
from tests.unit.deliver.outbox import HOOK, OTHER, Desk, Store, dispatching, opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

KEPT_FOR = timedelta(days=90)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path}/batchwatch.db"


@pytest.fixture
async def store(url: str, clock: ManualClock) -> AsyncIterator[Store]:
    async with opened(url, clock, HOOK, OTHER) as open_store:
        yield open_store


def upkeep(store: Store, dispatcher: Dispatcher, *, watches: tuple[str, ...] = (WATCH,)) -> Upkeep:
    """The jobs of a daemon that has the hook, and no longer the other."""
    return Upkeep(
        store,
        dispatcher=dispatcher,
        endpoints=[HOOK],
        watches=watches,
        retention=KEPT_FOR,
    )


async def by_a_command(url: str, record: Record) -> None:
    """Write a record as a command does that is called beside the daemon."""
    database = await Database.open(url, exclusive=False, writes=True)
    outbox = Outbox(database, parts.router_of(load(environ={}, for_run=False)), Clock())
    await Endpoints(database, outbox).change(HOOK, lambda _: (record, None))
    await database.close()


async def test_what_a_command_changes_is_obeyed(url: str, store: Store, clock: ManualClock) -> None:
    """Even if it came before the first look: the daemon had read the records by then."""
    desk = Desk()
    async with dispatching(store, clock, desk) as dispatcher:
        jobs = upkeep(store, dispatcher)
        await clock.next_sleeper()
        record, _ = Record(HOOK).disabled("by hand", now=clock.now())
        await by_a_command(url, record)
        await jobs.obey()

        assert "by hand" in dispatcher.troubles()[HOOK]
        await store.see("bat-1")
        await by_a_command(url, record.enabled())
        await jobs.obey()
        await desk.until(1)

        assert not dispatcher.troubles()


async def test_without_a_command_nothing_is_read_again(
    store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every other second, a number is looked at and no more."""
    asked = 0

    async def count(_self: Endpoints) -> dict[EndpointName, Record]:
        nonlocal asked
        asked += 1
        return {}

    monkeypatch.setattr(Endpoints, "records", count)
    async with dispatching(store, clock, Desk()) as dispatcher:
        await clock.next_sleeper()
        jobs = upkeep(store, dispatcher)
        for _ in range(3):
            await jobs.obey()

    assert 2 == asked  # at the start, and at the first look


async def test_what_is_owed_is_counted_for_those_that_are_no_longer_set_as_well(
    store: Store, clock: ManualClock
) -> None:
    """By state; and how long the oldest has waited, of what can still be sent."""
    await store.see("bat-1", "bat-2")
    await store.see("bat-1", status=RUNNING, updated=1)
    first, second = await store.outbox.claim(OTHER, limit=2)
    attempt = Attempt(at(0), 0.1, status_code=204)
    await store.outbox.settle([Settled(first, attempt, State.DEAD, reason="no")])
    metrics = Metrics()
    async with dispatching(store, clock, metrics=metrics) as dispatcher:
        clock.advance(30)
        await upkeep(store, dispatcher).count()

    def depth(endpoint: str, state: str) -> float | None:
        labels = {"endpoint": endpoint, "state": state}
        return metrics.registry.get_sample_value("batchwatch_outbox_deliveries", labels)

    states = ("waiting", "pending", "in_flight", "dead")
    assert [1, 2, 0, 0] == [depth(HOOK, one) for one in states]
    assert [0, 1, 1, 1] == [depth(OTHER, one) for one in states]
    age = "batchwatch_outbox_oldest_age_seconds"
    for endpoint in (HOOK, OTHER):
        assert 30 == metrics.registry.get_sample_value(age, {"endpoint": endpoint})
    assert second.endpoint == OTHER


async def test_the_counts_fall_when_nothing_is_owed_any_more(
    store: Store, clock: ManualClock
) -> None:
    """A gauge that stays where it was would be an alarm for ever."""
    await store.see("bat-1")
    metrics = Metrics()
    desks = Desk(), Desk(OTHER)
    for one in desks:
        one.is_free.clear()
    async with dispatching(store, clock, *desks, metrics=metrics) as dispatcher:
        jobs = upkeep(store, dispatcher)
        for one in desks:
            await one.until(1)
        await jobs.count()
        before = metrics.registry.get_sample_value(
            "batchwatch_outbox_deliveries", {"endpoint": OTHER, "state": "in_flight"}
        )
        for one in desks:
            one.is_free.set()
        await store.outbox.until_written(2)
        await jobs.count()

    after = [
        metrics.registry.get_sample_value(
            "batchwatch_outbox_deliveries", {"endpoint": one, "state": "in_flight"}
        )
        for one in (HOOK, OTHER)
    ]
    assert (1, [0, 0]) == (before, after)


async def test_the_metrics_are_there_right_after_the_start(tmp_path: Path) -> None:
    """An alarm on their absence must not go off with each start."""
    async with Simulator() as sim, Receiver() as receiver:
        stop = asyncio.Event()
        settings = load(environ=environment(sim, receiver, tmp_path))
        with structlog.testing.capture_logs() as logs:
            running = asyncio.create_task(daemon.run(settings, stop=stop, clock=Clock()))
            await sim.asked(1)
            (listen,) = [one["listen"] for one in logs if one["event"] == "daemon.started"]
            wanted = 'batchwatch_outbox_deliveries{endpoint="hook",state="dead"} 0.0'
            async with asyncio.timeout(10), aiohttp.ClientSession() as session:
                text = ""
                while wanted not in text:
                    async with session.get(f"{listen}/metrics") as answer:
                        text = await answer.text()
            stop.set()
            await running

    assert 'batchwatch_outbox_oldest_age_seconds{endpoint="hook"} 0.0' in text


async def test_what_is_left_behind_is_said(store: Store, clock: ManualClock) -> None:
    """Owed to an endpoint, or active in a watch, that is not set; what is dead is not owed."""
    await store.see("bat-1", "bat-2")
    await store.see("bat-1", status=RUNNING, updated=1)
    (dead,) = await store.outbox.claim(OTHER, limit=1)
    attempt = Attempt(at(0), 0.1, status_code=204)
    await store.outbox.settle([Settled(dead, attempt, State.DEAD, reason="no")])
    async with dispatching(store, clock) as dispatcher:
        with structlog.testing.capture_logs() as logs:
            await upkeep(store, dispatcher, watches=("renamed",)).remind()

    assert [
        {"event": "endpoint.missing", "endpoint": "other", "deliveries": 2},
        {"event": "watch.missing", "watch": "default", "active_batches": 2},
    ] == [{k: v for k, v in one.items() if k != "log_level"} for one in logs]


async def test_where_nothing_is_left_behind_nothing_is_said(
    store: Store, clock: ManualClock
) -> None:
    """Every hour."""
    await store.see("bat-1")
    desk = Desk(OTHER)
    async with dispatching(store, clock, desk) as dispatcher:
        await store.outbox.until_written(1)
        with structlog.testing.capture_logs() as logs:
            await upkeep(store, dispatcher).remind()

    assert [] == logs


async def test_what_nobody_holds_is_given_back_when_its_lease_is_over(
    store: Store, clock: ManualClock
) -> None:
    """What a lane has in hand is not, however old."""
    await store.see("bat-1")
    (lost,) = await store.beside().claim(OTHER, limit=1)
    desk = Desk()
    desk.is_free.clear()
    async with dispatching(store, clock, desk) as dispatcher:
        await desk.until(1)
        jobs = upkeep(store, dispatcher)
        clock.advance(LEASE.total_seconds() + 1)
        with structlog.testing.capture_logs() as logs:
            await jobs.release()
            await jobs.release()
        desk.is_free.set()

    said = [one for one in logs if one["event"] == "deliveries.released"]
    assert [1] == [one["count"] for one in said]
    (again,) = await store.outbox.claim(OTHER, limit=1)
    assert lost.id == again.id
    assert 1 == len(desk.sent)


async def test_a_store_that_fails_ends_no_job(
    store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said with the job's name, and the next time may be better."""
    jobs: dict[str, Any] = {}

    async def fails(*_: object) -> None:
        raise StoreBusy("batchwatch.db: locked: another process holds it")

    for name in ("nudges", "tidy"):
        monkeypatch.setattr(store.database, name, fails)
    for name in ("outbox", "active"):
        monkeypatch.setattr(store.views, name, fails)
    monkeypatch.setattr(Retention, "_remove_ledger", fails)
    async with dispatching(store, clock) as dispatcher:
        monkeypatch.setattr(dispatcher, "release", fails)
        jobs_of = upkeep(store, dispatcher)
        jobs_of.start()
        scheduler = jobs_of._scheduler  # noqa: SLF001  # what it will run
        try:
            jobs = {job.name: job.func for job in scheduler.get_jobs()}
            with structlog.testing.capture_logs() as logs:
                for run in jobs.values():
                    await run()
            left = {job.name for job in scheduler.get_jobs()}
        finally:
            jobs_of.stop()

    assert {"obey", "count", "release", "remind", "trim", "tidy"} == jobs.keys() == left
    failed = {one["job"]: one["reason"] for one in logs if one["event"] == "upkeep.failed"}
    assert jobs.keys() == failed.keys()
    assert all("another process holds it" in one for one in failed.values())


async def test_tidying_forgets_hints_of_more_than_a_month_ago(
    store: Store, clock: ManualClock
) -> None:
    """However many there are; what the audit can be asked about stays."""
    hints = store.hints
    old = at(-KEPT.total_seconds())
    for number in range(AT_ONCE + 3):
        received = old if number else at(0)
        hint = Hint(f"evt-{number}", "batch.running", BatchId("bat-1"), None)
        await hints.note(WATCH, hint, now=received)
    clock.advance(1)
    async with dispatching(store, clock) as dispatcher:
        await upkeep(store, dispatcher).tidy()

    async with store.database.read() as connection:
        left = (await connection.execute(sa.select(table.c.event_id))).scalars().all()
    assert ["evt-0"] == left


async def test_what_is_older_than_it_is_kept_is_removed_step_by_step(store: Store) -> None:
    """With pauses between the steps; how many rows of each table is counted and logged."""
    count = ROWS_AT_ONCE + 1
    names = {f"dfl-{number}": "a.pdf" for number in range(count)}
    await store.names.add(WATCH, names, now=at(-100 * 86_400))
    metrics, leaping = Metrics(), LeapClock()
    async with dispatching(store, leaping, metrics=metrics) as dispatcher:
        jobs = upkeep(store, dispatcher)
        with structlog.testing.capture_logs() as logs:
            await jobs.trim()
            await jobs.trim()

    labels = {"table": "file_names"}
    total = "batchwatch_removed_rows_total"
    assert count == metrics.registry.get_sample_value(total, labels)
    assert [count] == [one["file_names"] for one in logs if one["event"] == "rows.removed"]
    assert leaping.monotonic() == pytest.approx(2 * APART)


async def test_tidying_writes_the_statistics_that_the_planner_goes_by(
    store: Store, clock: ManualClock
) -> None:
    """Of a store with many batches, from the first time on, and its log is short again."""
    seen = [
        replace(a_sighting(batch_id=f"bat-{number}"), created_at=at(number))
        for number in range(2_000)
    ]
    await store.batches.change(
        WATCH, {one.id for one in seen}, lambda known: a_recorder().record(known, seen, now=at(0))
    )
    async with dispatching(store, clock) as dispatcher:
        await upkeep(store, dispatcher).tidy()

    async with store.database.read() as connection:
        rows = (await connection.exec_driver_sql("SELECT tbl, idx FROM sqlite_stat1")).mappings()
        analysed = {(row["tbl"], row["idx"]) for row in rows}
    assert ("batches", "ix_batches_active") in analysed
    assert ("deliveries", "ix_deliveries_due") in analysed
    log = store.database.where + "-wal"
    assert 0 == await asyncio.to_thread(_size, log)
    assert WatchName("default") in await store.views.active()


def _size(path: str) -> int:
    from pathlib import Path as File  # noqa: PLC0415

    return File(path).stat().st_size


async def test_a_daemon_that_is_stopped_while_the_clock_is_set_ends(
    postgres: str, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has all go on in a shared store may just be waiting for its answer."""
    asked = asyncio.Event()

    async def hasten(_: Outbox) -> None:
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(Outbox, "hasten", hasten)
    async for url in a_database(postgres, made=True):
        async with opened(url, clock, HOOK) as store:
            idle = Dispatcher(
                store.outbox, [], records=store.endpoints, clock=clock, metrics=Metrics()
            )
            minding = asyncio.create_task(upkeep(store, idle).mind_the_clock())
            await clock.next_sleeper()
            clock.jump(-60)
            clock.advance(CLOCK_CHECK)
            await asked.wait()
            minding.cancel()
            done, _ = await asyncio.wait([minding], timeout=5)

    assert {minding} == done
