"""What is old goes with all of it; what is active, owed or may be listed again stays."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchwatch.domain.batch import COMPLETED, RUNNING, BatchId, EventId, FileOutcome
from batchwatch.domain.cadence import OVERLAP, VANISHED_FOR_GOOD
from batchwatch.domain.coverage import Gap, Kind
from batchwatch.domain.delivery import Attempt, Settled, State
from batchwatch.domain.event import Event
from batchwatch.domain.jobs import JobRecorder, JobSeen
from batchwatch.store import Database, WantedEvents, retention
from batchwatch.store.outcomes import NOTED_EVERY
from batchwatch.store.retention import Retention
from batchwatch.store.schema import (
    attempts,
    batches,
    deliveries,
    events,
    file_names,
    file_outcomes,
    transitions,
    watches,
)
from tests.store.conftest import HOOK, Store, empty
from tests.support.builders import BASE_URL, WATCH, a_look, a_sighting, at
from tests.support.postgres import a_database

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime

    Row = dict[str, Any]

DAY = 86_400.0  # seconds
KEPT = timedelta(days=10)
NOW = 30 * DAY
OF_A_BATCH = (transitions, file_outcomes)


async def remove(store: Store, *, second: float = NOW, kept: timedelta = KEPT) -> dict[str, int]:
    """All that may go; how many rows of each table went."""
    gone: dict[str, int] = {}
    async for removed in Retention(store.database).remove(now=at(second), older_than=kept):
        for table, rows in removed.items():
            gone[table] = gone.get(table, 0) + rows
    return gone


async def rows(database: Database, table: sa.Table) -> list[Row]:
    async with database.read() as connection:
        found = await connection.execute(sa.select(table))
        return [dict(row._mapping) for row in found]


async def live(store: Store, name: str, *, ended: float, files: int = 2) -> None:
    """A batch from its discovery to its settlement, all of it told."""
    born = at(ended - 60)
    outcomes = tuple(FileOutcome(f"dfl-{name}-{n}", "parse_v2", f"pjb-{n}") for n in range(files))
    seen = replace(a_sighting(RUNNING, batch_id=name, updated=ended - 60), created_at=born)
    over = replace(seen, status=COMPLETED, updated_at=at(ended), fingerprint=f"{COMPLETED} {ended}")
    await store.see(seen, second=ended - 60)
    await store.see(replace(over, asked_results=True, results=outcomes), second=ended)
    jobs = {f"pjb-{n}": JobSeen("COMPLETED") for n in range(files)}
    rules = JobRecorder(WATCH, BASE_URL, deadline=timedelta(hours=24))
    follow = partial(rules.follow, seen=jobs, over={}, now=at(ended))
    await store.batches.follow(WATCH, [BatchId(name)], follow)


async def deliver(store: Store, *, second: float, state: State = State.DELIVERED) -> None:
    attempt = Attempt(at(second), 0.1, status_code=204)
    while claimed := await store.at(second).outbox.claim(HOOK, limit=99):
        await store.outbox.settle([Settled(one, attempt, state) for one in claimed])


async def pass_by(store: Store, *, second: float) -> None:
    """A pass that has seen a batch of ``second``."""
    look = a_look(0, second)
    await store.watches.passed(WATCH, look, newest=at(second), now=at(second))


async def an_old_story(url: str) -> Store:
    """A store with one batch that may go."""
    store = Store(await Database.open(url))
    await store.watches.begin(WATCH, now=at(0))
    await live(store, "bat-1", ended=DAY)
    await deliver(store, second=2 * DAY)
    await pass_by(store, second=20 * DAY)
    return store


async def test_a_batch_goes_with_its_whole_story(store: Store) -> None:
    """Ten days after its end and not before; that of others is untouched."""
    await live(store, "bat-old", ended=DAY)
    await live(store, "bat-new", ended=25 * DAY)
    await deliver(store, second=25 * DAY)
    await pass_by(store, second=26 * DAY)
    early = await remove(store, second=11 * DAY - 1)
    gone = await remove(store, second=11 * DAY + 1)
    again = await remove(store)

    assert {} == early == again
    assert {
        "batches": 1,
        "transitions": 2,
        "file_outcomes": 2,
        "events": 4,
        "deliveries": 3,
        "attempts": 3,
    } == gone
    assert ["bat-new"] == [row["id"] for row in await rows(store.database, batches)]
    assert {"bat-new"} == {row["batch_id"] for row in await rows(store.database, events)}
    assert 2 == len(await rows(store.database, transitions))
    assert 3 == len(await rows(store.database, attempts))


async def test_what_is_owed_stays_however_old(store: Store) -> None:
    """With its event, its batch, and all else of it; what was given up is not owed."""
    await live(store, "bat-1", ended=DAY)
    await pass_by(store, second=20 * DAY)

    assert {} == await remove(store)

    await deliver(store, second=2 * DAY, state=State.DEAD)
    assert 1 == (await remove(store))["batches"]
    assert [] == await rows(store.database, deliveries)


async def test_what_is_sent_again_is_owed_again(store: Store) -> None:
    """A replay of a dead letter is not lost to its age."""
    await live(store, "bat-1", ended=DAY)
    await deliver(store, second=2 * DAY, state=State.DEAD)
    await pass_by(store, second=20 * DAY)
    (dead, *_) = await rows(store.database, deliveries)
    await store.outbox.replay([dead["id"]])

    assert {} == await remove(store)


async def test_whoever_is_about_to_have_it_sent_again_is_not_waited_for(postgres: str) -> None:
    """Nor is the delivery taken from under their hands: the batch goes another time, or stays."""
    async for url in a_database(postgres, made=True):
        store, other = await an_old_story(url), await Database.open(url)
        async with other.write() as connection:
            await connection.execute(sa.select(deliveries.c.id).limit(1).with_for_update())
            assert {} == await remove(store)

        assert 1 == (await remove(store))["batches"]
        await other.close()
        await store.database.close()


async def test_one_replica_removes_at_a_time(postgres: str) -> None:
    """The other leaves it to that one, and does not wait."""
    async for url in a_database(postgres, made=True):
        store, other = await an_old_story(url), await Database.open(url)
        async with other.write() as connection:
            assert await other.is_alone(connection)
            assert {} == await remove(store)

        assert 1 == (await remove(store))["batches"]
        await other.close()
        await store.database.close()


async def test_what_the_window_shows_again_stays(store: Store) -> None:
    """It would be told as news; so with a watch in which nothing is new, the last ones stay."""
    for number, born in enumerate((DAY, 2 * DAY)):
        await live(store, f"bat-{number}", ended=born + 60)
    await deliver(store, second=3 * DAY)
    await pass_by(store, second=2 * DAY + OVERLAP.total_seconds() - 1)

    assert 1 == (await remove(store))["batches"]
    assert ["bat-1"] == [row["id"] for row in await rows(store.database, batches)]


async def test_what_a_watch_that_begins_anew_would_list_stays(store: Store) -> None:
    """Until it has seen something there, its window reaches back from its start."""
    started = 12 * DAY
    await live(store, "bat-before", ended=started - KEPT.total_seconds() - 1)
    await live(store, "bat-1", ended=started - 60)
    await deliver(store, second=started)
    await store.watches.begin(WATCH, now=at(started), scope={"project_id": "prj-1"})
    await store.watches.begin(WATCH, now=at(started), scope={"project_id": "prj-2"})
    await remove(store)

    assert ["bat-1"] == [row["id"] for row in await rows(store.database, batches)]


async def test_events_of_no_batch_go_by_their_age(store: Store) -> None:
    """Those of watches, endpoints and the daemon; owed ones stay."""
    types = ("watch.failing", "endpoint.failing", "daemon.heartbeat", "watch.recovered")
    for number, type_ in enumerate((*types, "watch.failing")):
        watch = WATCH if type_.startswith("watch.") else None
        moment = at(25 * DAY if number == len(types) else number)
        event = Event(EventId(f"evt_{number}"), type_, watch, moment, {})
        async with store.database.write() as connection:
            await store.outbox.enqueue(connection, [event])
    (first, *_) = await store.at(0).outbox.claim(HOOK, limit=1)
    attempt = Attempt(at(9), 0.1, status_code=204)
    await store.outbox.settle([Settled(first, attempt, State.DELIVERED)])
    owed = {row["event_seq"] for row in await rows(store.database, deliveries)} - {1}
    gone = await remove(store)

    left = {row["seq"] for row in await rows(store.database, events)}
    assert {5} | owed == left
    assert (5 - len(left), 1) == (gone["events"], gone["deliveries"])


async def test_it_is_known_which_events_are_gone(store: Store) -> None:
    """By watch and type, so that whoever goes on from a place learns what is missing there."""
    await live(store, "bat-1", ended=DAY)
    await live(store, "bat-2", ended=2 * DAY)
    await deliver(store, second=2 * DAY)
    told = {row["type"]: row["seq"] for row in await rows(store.database, events)}
    await pass_by(store, second=25 * DAY)
    await remove(store)

    after = store.pages.removed_after
    assert max(told.values()) == await after(WantedEvents(), 1)
    assert None is await after(WantedEvents(), max(told.values()))
    completed = told["batch.completed"]
    assert completed == await after(WantedEvents(type="batch.completed"), 1)
    assert max(told.values()) == await after(WantedEvents(type="batch.*", watch=WATCH), 1)
    for wanted in (
        WantedEvents(type="watch.*"),
        WantedEvents(watch="other"),
        WantedEvents(batch="bat-3"),
    ):
        assert None is await after(wanted, 1)


async def test_the_ledger_says_from_when_on_it_is_kept(store: Store) -> None:
    """Windows and gaps that ended before go; the last window stays, however old."""
    for start, end in ((0, 1), (2, 3), (15, 20)):
        gap = Gap(at(end * DAY), at(end * DAY + 60), Kind.STOPPED)
        look = a_look(start * DAY, end * DAY)
        await store.watches.passed(WATCH, look, newest=None, now=at(end * DAY), gaps=[gap])
    early = await remove(store, second=NOW, kept=timedelta(days=30))
    (before,) = await store.views.ledgers(at(0))
    gone = await remove(store)
    (after,) = await store.views.ledgers(at(0))
    late = await remove(store, second=99 * DAY)
    (last,) = await store.views.ledgers(at(0))

    assert ({}, {"coverage": 2, "gaps": 2}, {}) == (early, gone, late)
    assert None is before["ledger"].kept_from
    assert at(NOW) - KEPT == after["ledger"].kept_from == last["ledger"].kept_from
    assert [at(20 * DAY)] == [one.end for one in last["ledger"].windows]
    assert (at(20 * DAY), None) == await store.watches.covered(WATCH)


async def test_the_ledger_is_never_kept_from_earlier_again(store: Store) -> None:
    """Whoever raises the retention does not get back what is gone."""
    for start, end in ((0, 1), (2, 3), (4, 28)):
        look = a_look(start * DAY, end * DAY)
        await store.watches.passed(WATCH, look, newest=None, now=at(end * DAY))
        if end == 3:
            await remove(store, second=NOW)
    assert {"coverage": 1} == await remove(store, second=NOW, kept=timedelta(days=20))
    (row,) = await store.views.ledgers(at(0))

    assert at(NOW) - KEPT == row["ledger"].kept_from


async def test_names_of_files_go_when_nobody_has_needed_them_for_as_long(store: Store) -> None:
    """Each that a batch needs is noted, though only once a day."""
    names = {f"dfl-{number}": f"{number}.pdf" for number in range(3)}
    await store.names.add(WATCH, names, now=at(0))
    await store.names.need(WATCH, ["dfl-1"], now=at(20 * DAY))
    await store.names.need(WATCH, ["dfl-1"], now=at(20 * DAY + 9))
    assert {"dfl-2": "2.pdf"} == await store.names.need(WATCH, ["dfl-2", "x"], now=at(21 * DAY))
    gone = await remove(store)
    noted = {row["needed_at"] for row in await rows(store.database, file_names)}
    late = await remove(store, second=NOW + NOTED_EVERY.total_seconds() + 1)

    assert [{"file_names": 1}, {"file_names": 1}] == [gone, late]
    assert {at(20 * DAY), at(21 * DAY)} == noted
    assert {"dfl-2": "2.pdf"} == await store.names.known(WATCH, names)


async def test_what_names_there_are_is_asked_without_writing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each batch asks; the turn to write is for what has changed."""
    await store.names.add(WATCH, {"dfl-1": "a.pdf"}, now=at(0))
    kinds: list[str] = []

    def timed(kind: str) -> AbstractContextManager[None]:
        kinds.append(kind)
        return nullcontext()

    monkeypatch.setattr(store.database, "timed", timed)
    await store.names.need(WATCH, ["dfl-1", "x"], now=at(DAY))
    lately = kinds.copy()
    await store.names.need(WATCH, ["dfl-1", "x"], now=at(DAY + 1))

    assert ["read"] == lately
    assert "write" in kinds


async def test_names_from_before_that_was_noted_count_from_the_first_look_on(store: Store) -> None:
    """They are as old as the upgrade."""
    await store.names.add(WATCH, {"dfl-1": "a.pdf"}, now=at(0))
    async with store.database.write() as connection:
        await connection.execute(sa.update(file_names).values(needed_at=None))
    first = await remove(store)
    then = await remove(store, second=NOW + 12 * DAY)

    assert ({}, {"file_names": 1}) == (first, then)


async def test_names_are_noted_a_few_at_a_time(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right after an upgrade none is, and there may be a million."""
    monkeypatch.setattr(retention, "AT_ONCE", 2)
    await store.names.add(WATCH, {f"dfl-{n}": f"{n}.pdf" for n in range(5)}, now=at(0))
    async with store.database.write() as connection:
        await connection.execute(sa.update(file_names).values(needed_at=None))
    left = []
    async for _ in Retention(store.database).remove(now=at(NOW), older_than=KEPT):
        noted = [row["needed_at"] for row in await rows(store.database, file_names)]
        left.append(noted.count(None))

    assert [3, 1, 0] == left


async def test_a_step_is_no_longer_than_so_many_files(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch may have a thousand, and nobody should wait for five hundred such."""
    monkeypatch.setattr(retention, "FILES_AT_ONCE", 5)
    for number in range(4):
        await live(store, f"bat-{number}", ended=DAY + number)
    await deliver(store, second=2 * DAY)
    await pass_by(store, second=25 * DAY)
    steps = [
        removed async for removed in Retention(store.database).remove(now=at(NOW), older_than=KEPT)
    ]

    assert [4, 4] == [one.get("file_outcomes") for one in steps if one]


# ------------------------------------------------------------------------------ any history

CURSORS: dict[str, float | None] = {"default": 26.0, "quiet": 14.0, "new": None}  # days
ages = st.integers(8, 20)  # days ago, around the ten for which things are kept
OVER = [State.DELIVERED, State.DEAD, State.CANCELLED]
states = st.lists(st.sampled_from([*State, *OVER, *OVER]), max_size=2)
a_told = st.fixed_dictionaries({
    "after": st.sampled_from([0, 0, 0, 6]),  # days after the end
    "states": states,
})  # fmt: skip
a_batch_row = st.fixed_dictionaries({
    "watch": st.sampled_from([*CURSORS, "default", "default"]),
    "ended": ages,
    "lived": st.integers(0, 9),  # days
    "dated": st.booleans(),
    "active": st.sampled_from([*[False] * 7, True]),
    "vanished": st.sampled_from([None, None, None, 2, 9, 12]),
    "due": st.sampled_from([*[None] * 7, "results_due_at", "settle_due_at"]),
    "files": st.integers(0, 3),
    "told": st.lists(a_told, max_size=3),
})  # fmt: skip
an_event_row = st.fixed_dictionaries({
    "type": st.sampled_from(["watch.failing", "endpoint.failing", "daemon.heartbeat"]),
    "age": ages,
    "states": states,
})  # fmt: skip


def ago(days: float) -> datetime:
    """With a moment between the days, so that none is at the border."""
    return at(NOW - days * DAY - 1)


def may_go(row: Row) -> bool:
    """The rule, said plainly."""
    long_ago = at(NOW) - KEPT
    ended = ago(row["ended"])
    if row["active"] or row["due"] or ended >= long_ago:
        return False
    if row["vanished"] is not None:
        gone_for_good = min(long_ago, at(NOW) - VANISHED_FOR_GOOD)
        if ago(row["vanished"]) >= gone_for_good:
            return False
    for told in row["told"]:
        if ago(row["ended"] - told["after"]) >= long_ago:
            return False
        if any(state.is_open for state in told["states"]):
            return False
    cursor = CURSORS[row["watch"]]
    window = at(0) - KEPT if cursor is None else at(cursor * DAY) - OVERLAP
    return ago(row["ended"] + row["lived"]) < window


class History:
    """Rows as they may come to be, and which of them must stay."""

    def __init__(self, found: Sequence[Row], more: Sequence[Row]) -> None:
        self.rows: dict[sa.Table, list[Row]] = {
            watches: [
                {
                    "name": name,
                    "started_at": at(0),
                    "cursor": None if cursor is None else at(cursor * DAY),
                    "baseline_done": cursor is not None,
                }
                for name, cursor in CURSORS.items()
            ]
        }
        for table in (batches, *OF_A_BATCH, events, deliveries, attempts):
            self.rows[table] = []
        self.staying: set[str] = set()
        self.staying_events: set[int] = set()
        for number, row in enumerate(found):
            self._batch(f"bat-{number}", row)
        for row in sorted(more, key=lambda one: -one["age"]):  # as they are told
            seq = self._event(row["type"], WATCH, None, ago(row["age"]), row["states"])
            owed = any(state.is_open for state in row["states"])
            if owed or ago(row["age"]) >= at(NOW) - KEPT:
                self.staying_events.add(seq)

    def _batch(self, name: str, row: Row) -> None:
        ended, born = ago(row["ended"]), ago(row["ended"] + row["lived"])
        over = not row["active"] and row["vanished"] is None
        self.rows[batches].append({
            "watch": row["watch"], "id": name, "status": "COMPLETED" if over else "RUNNING",
            "fingerprint": "x", "revision": 1, "active": row["active"],
            "created_at": born if row["dated"] else None, "first_seen_at": born,
            "changed_at": ended, "lasted": "{}", "misses": 0, "results_asks": 0,
            "vanished_at": None if row["vanished"] is None else ago(row["vanished"]),
            "file_count": row["files"],
            "results_due_at": at(NOW) if row["due"] == "results_due_at" else None,
            "settle_due_at": at(NOW) if row["due"] == "settle_due_at" else None,
        })  # fmt: skip
        self.rows[transitions].append({
            "watch": row["watch"], "batch_id": name, "number": 1, "to_status": "RUNNING",
            "observed_at": born,
        })  # fmt: skip
        self.rows[file_outcomes] += [
            {"watch": row["watch"], "batch_id": name, "position": position,
             "source_directory_file_id": f"dfl-{position}"}
            for position in range(row["files"])
        ]  # fmt: skip
        seqs = [
            self._event(
                "batch.running",
                row["watch"],
                name,
                ago(row["ended"] - told["after"]),
                told["states"],
            )
            for told in row["told"]
        ]
        if not may_go(row):
            self.staying.add(name)
            self.staying_events.update(seqs)

    def _event(
        self, type_: str, watch: str, batch: str | None, moment: datetime, states: list[State]
    ) -> int:
        seq = len(self.rows[events]) + 1
        subject = watch if batch is None else f"{watch}/{batch}"
        self.rows[events].append({
            "seq": seq, "id": f"evt_{seq}", "type": type_, "watch": watch, "batch_id": batch,
            "subject": subject, "occurred_at": moment, "payload": "{}",
        })  # fmt: skip
        for number, state in enumerate(states):
            id_ = len(self.rows[deliveries]) + 1
            self.rows[deliveries].append({
                "id": id_, "event_seq": seq, "endpoint": f"end-{number}", "subject": subject,
                "state": state.value, "attempts": 1, "due_at": moment, "created_at": moment,
            })  # fmt: skip
            self.rows[attempts].append(
                {"delivery_id": id_, "number": 1, "started_at": moment, "duration_ms": 1.0}
            )
        return seq

    async def write(self, database: Database) -> None:
        """In place of all that is there."""
        await empty(database)
        async with database.write() as connection:
            for table, some in self.rows.items():
                if some:
                    await connection.execute(sa.insert(table), some)


@settings(
    deadline=None,
    max_examples=20,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    found=st.lists(a_batch_row, max_size=12),
    more=st.lists(an_event_row, max_size=6),
    at_once=st.integers(1, 4) | st.just(500),
)
def test_whatever_the_history_what_must_stay_stays_and_all_else_goes(
    made_url: str, found: list[Row], more: list[Row], at_once: int
) -> None:
    """Whole: no row without what it belongs to, and none of a story that stays is missing."""
    history = History(found, more)

    async def left() -> Mapping[str, list[Row]]:
        database = await Database.open(made_url)
        try:
            await history.write(database)
            async for _ in Retention(database).remove(now=at(NOW), older_than=KEPT):
                pass
            return {table.name: await rows(database, table) for table in history.rows}
        finally:
            await database.close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retention, "AT_ONCE", at_once)
        patch.setattr(retention, "FILES_AT_ONCE", at_once)
        got = asyncio.run(left())

    assert history.staying == {row["id"] for row in got["batches"]}
    assert history.staying_events == {row["seq"] for row in got["events"]}
    for table in OF_A_BATCH:
        expected = [row for row in history.rows[table] if row["batch_id"] in history.staying]
        assert len(expected) == len(got[table.name])
        assert history.staying >= {row["batch_id"] for row in got[table.name]}
    sent = {
        row["id"] for row in history.rows[deliveries] if row["event_seq"] in history.staying_events
    }
    assert sent == {row["id"] for row in got["deliveries"]}
    assert sent == {row["delivery_id"] for row in got["attempts"]}
    assert len(CURSORS) == len(got["watches"])
