"""The questions that are asked all the time go by an index, with statistics and without.

The SQL is what was really sent, taken from SQLAlchemy on its way.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from batchwatch.domain.batch import (
    COMPLETED,
    PENDING,
    RUNNING,
    BatchId,
    EndpointName,
    FileOutcome,
)
from batchwatch.domain.delivery import Attempt, Settled, State
from batchwatch.domain.hint import Hint
from batchwatch.domain.jobs import JobRecorder, JobSeen
from batchwatch.domain.judging import Court
from batchwatch.domain.stuck import Patience
from batchwatch.store import Database, WantedBatches, WantedDeliveries, WantedEvents
from batchwatch.store.retention import Retention
from batchwatch.store.schema import metadata
from tests.store.conftest import HOOK, Store
from tests.support.builders import BASE_URL, WATCH, a_look, a_recorder, a_sighting, at

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

OTHER = EndpointName("other")
BATCHES = 3_000
COURT = Court(WATCH, BASE_URL, Patience())
Statements = list[tuple[str, Any]]
Plan = set[str]
# The other rows of a plan, such as of the values of a parameter, cost what was given to it.
_NAMES = "|".join((*metadata.tables, "ahead", "busy", "candidate", "last", "some"))
_OURS = re.compile(rf"(SCAN|SEARCH) ({_NAMES})\b(.*)")


async def fill(store: Store) -> None:
    """Ended, active and vanished batches; deliveries in each state, most of them delivered."""
    await store.watches.begin(WATCH, now=at(0))
    for life in ((RUNNING,), (COMPLETED,)):
        for start in range(0, BATCHES, 500):
            seen = [
                replace(
                    a_sighting(
                        RUNNING if number % 10 == 0 else life[0],
                        batch_id=f"bat-{number}",
                        updated=len(life[0]),
                        asked_results=number % 10 != 1,
                        results=(FileOutcome(f"dfl-{number}", "parse_v2", f"pjb-{number}"),),
                    ),
                    created_at=at(number),
                )
                for number in range(start, start + 500)
            ]
            await store.batches.change(
                WATCH,
                {one.id for one in seen},
                lambda known, seen=seen: a_recorder().record(known, seen, now=at(0)),  # type: ignore[misc]  # bound now
            )
    hints = store.hints
    for number in range(50):
        await hints.note(WATCH, a_hint(number), now=at(number))
    attempt = Attempt(at(0), 0.1, status_code=204)
    while claimed := await store.outbox.claim(HOOK, limit=400):
        await store.outbox.settle(
            [
                Settled(one, attempt, State.DEAD if one.id % 51 == 0 else State.DELIVERED)
                for one in claimed
            ]
        )
        if claimed[-1].id > BATCHES * 3:
            break


def a_hint(number: int) -> Hint:
    return Hint(f"evt-{number}", "batch.running", BatchId(f"bat-{number}"), None)


async def make(file: Path) -> None:
    database = await Database.open(f"sqlite+aiosqlite:///{file}")
    await fill(Store(database, HOOK, OTHER))
    await database.close()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Filled once, and only looked at."""
    file = tmp_path_factory.mktemp("plans") / "batchwatch.db"
    asyncio.run(make(file))
    return file


@pytest.fixture(params=["as it grew", "with statistics"])
async def full(path: Path, request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """A copy of such a store."""
    copy = shutil.copy(path, tmp_path)
    database = await Database.open(f"sqlite+aiosqlite:///{copy}")
    if request.param == "with statistics":
        await database.tidy()
        await database.close()
        database = await Database.open(f"sqlite+aiosqlite:///{copy}")
    yield Store(database, HOOK, OTHER)
    await database.close()


@contextmanager
def listening(database: Database) -> Iterator[Statements]:
    """What is sent to the database meanwhile."""
    sent: Statements = []

    def note(_c: Any, _cursor: Any, sql: str, parameters: Any, _x: Any, many: bool) -> None:  # noqa: FBT001  # as it is called
        if sql.split(maxsplit=1)[0] in ("SELECT", "UPDATE", "INSERT", "DELETE", "WITH"):
            sent.append((sql, parameters[0] if many else parameters))

    engines = [database._engine.sync_engine, database._hasty.sync_engine]  # noqa: SLF001  # nobody else listens
    for engine in engines:
        sa.event.listen(engine, "before_cursor_execute", note)
    yield sent
    for engine in engines:
        sa.event.remove(engine, "before_cursor_execute", note)


async def plan_of(
    database: Database, sql: str, parameters: Any, *, in_order_of_key: bool = False
) -> Plan:
    """How each of our tables is gone through; ``in_order_of_key`` where a limit ends that."""
    async with database.read() as connection:
        rows = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", parameters)
        said = [str(row[-1]) for row in rows]
    found = [match for one in said if (match := _OURS.match(one))]
    if not (in_order_of_key and " ORDER BY " in sql and " LIMIT " in sql):
        assert not [one for one in found if " USING " not in one[3]], (said, sql)
    return {f"{one[2]}: {_index(one[3])}" for one in found}


def _index(how: str) -> str:
    """The name of the index that a row of a plan goes by, or that it is the key."""
    match = re.search(r"INDEX (\w+)", how)
    return match[1] if match else "key"


async def dead_one(store: Store) -> int:
    """A delivery that may be replayed."""
    (row,) = [one for one in await store.views.outbox() if (one.state, one.endpoint) == DEAD]
    assert row.count > 10
    async with store.database.read() as connection:
        found = await connection.execute(
            sa.text("SELECT min(id) FROM deliveries WHERE state = 'dead'")
        )
        return int(found.scalar_one())


DEAD = ("dead", HOOK)


async def claim_and_settle(store: Store) -> None:
    claimed = await store.at(9).outbox.claim(OTHER, limit=40)
    assert 40 == len(claimed)
    attempt = Attempt(at(0), 0.1, status_code=204)
    await store.outbox.settle([Settled(one, attempt, State.DELIVERED) for one in claimed])


async def follow(store: Store) -> None:
    rules = JobRecorder(WATCH, "https://llamacloud.test", deadline=timedelta(hours=24))
    seen = {"pjb-22": JobSeen("RUNNING")}
    decide = partial(rules.follow, seen=seen, over={BatchId("bat-22"): True}, now=at(9))
    assert (await store.batches.follow(WATCH, [BatchId("bat-22")], decide)).jobs


Ask = Callable[[Store], Awaitable[object]]
SEEN = [BatchId("bat-0"), BatchId("bat-10")]
QUESTIONS: dict[str, tuple[Ask, Plan]] = {
    "active": (lambda s: s.batches.due(WATCH, seen=()), {"batches: ix_batches_active"}),
    "due": (lambda s: s.batches.due(WATCH, seen=SEEN), {"batches: ix_batches_active"}),
    "unseen": (lambda s: s.batches.unseen(WATCH, seen=SEEN), {"batches: ix_batches_active"}),
    "news": (lambda s: s.batches.news(WATCH, {"bat-1": "x"}), {"batches: key"}),
    "overdue": (
        lambda s: s.batches.overdue(WATCH, ended_before=at(99), now=at(199)),
        {"batches: ix_batches_results_due"},
    ),
    "awaiting results": (
        lambda s: s.batches.awaiting_results(WATCH, now=at(99), limit=50),
        {"batches: ix_batches_results_due"},
    ),
    "next results": (
        lambda s: s.batches.next_results_due(WATCH),
        {"batches: ix_batches_results_due"},
    ),
    "settling": (
        lambda s: s.batches.settling(WATCH, now=at(99), limit=50),
        {"batches: ix_batches_settle_due"},
    ),
    "next settling": (
        lambda s: s.batches.next_settling_due(WATCH),
        {"batches: ix_batches_settle_due"},
    ),
    "files": (lambda s: s.batches.outcomes(WATCH, SEEN), {"file_outcomes: key"}),
    "what became of a job": (follow, {"batches: key", "file_outcomes: key"}),
    "standings": (
        lambda s: s.views.standings(SEEN),
        {"batches: ix_batches_id", "file_outcomes: key"},
    ),
    "names": (lambda s: s.names.known(WATCH, ["dfl-1"]), {"file_names: key"}),
    "vanished": (
        lambda s: s.batches.vanished(WATCH, now=at(99)),
        {"batches: ix_batches_vanished"},
    ),
    "what to judge": (
        lambda s: s.batches.judgements.due(
            WATCH, now=at(1), longest=timedelta(days=1), soon=timedelta(0)
        ),
        {"batches: ix_batches_judged"},
    ),
    "how many are stuck": (
        lambda s: s.batches.judgements.stuck(WATCH),
        {"batches: ix_batches_stuck"},
    ),
    "what like batches took": (
        lambda s: s.views.judgements.past(WATCH, "parse_v2", "cfg-PARSE_AGENTIC"),
        {"batches: ix_batches_completed"},
    ),
    "judge": (
        lambda s: s.batches.judge(WATCH, [BatchId("bat-0")], partial(COURT.judge, now=at(1e6))),
        {
            "batches: ix_batches_stuck",
            "batches: key",
            "watches: sqlite_autoindex_watches_1",
            "events: sqlite_autoindex_events_1",
            "attempts: key",  # a foreign key
            "deliveries: key",
            "ahead: ix_deliveries_line",
            "busy: ix_deliveries_line",
        },
    ),
    "due in": (lambda s: s.outbox.due_in(OTHER), {"deliveries: ix_deliveries_due"}),
    "release": (lambda s: s.outbox.release(), {"deliveries: ix_deliveries_leased"}),
    "recover": (
        lambda s: s.outbox.recover(),
        {"deliveries: ix_deliveries_leased", "deliveries: ix_deliveries_due"},
    ),
    "outbox": (
        lambda s: s.views.outbox(),
        {"deliveries: ix_deliveries_line", "deliveries: ix_deliveries_dead"},
    ),
    "what each replica has in flight": (
        lambda s: s.replicas.in_flight(),
        {"deliveries: ix_deliveries_leased"},
    ),
    "note a hint": (
        lambda s: s.hints.note(WATCH, a_hint(99), now=at(99)),
        set(),  # the conflict is found by the index of the key, which no plan tells
    ),
    "what is audited": (
        lambda s: s.hints.courses(since=at(0)),
        {
            "hints: ix_hints_watch_received_at",
            "hints: ix_hints_watch_batch_id",
            "batches: ix_batches_changed",
            "some: ix_hints_watch_batch_id",
            "transitions: key",
            "batches: key",
        },
    ),
    "claim, settle and move up": (
        claim_and_settle,
        {
            "candidate: ix_deliveries_due",
            "deliveries: key",
            "events: key",
            "ahead: ix_deliveries_line",
            "busy: ix_deliveries_line",
        },
    ),
    "enqueue": (
        lambda s: s.see(a_sighting(PENDING, batch_id="bat-new"), second=9),
        {
            "batches: key",
            "events: sqlite_autoindex_events_1",
            "attempts: key",  # a foreign key
            "deliveries: key",
            "ahead: ix_deliveries_line",
            "busy: ix_deliveries_line",
        },
    ),
}


async def plans_of(full: Store, ask: Ask) -> Plan:
    """How all that is sent for ``ask`` is answered; something is sent."""
    with listening(full.database) as sent:
        await ask(full)
    assert sent
    found: Plan = set()
    for sql, parameters in sent:
        found |= await plan_of(full.database, sql, parameters)
    return found


B, D, E = WantedBatches, WantedDeliveries, WantedEvents
SORTED = "ix_batches_changed"  # or the one that leads to the rows by what they are filtered by
LISTS: dict[str, tuple[Ask, Plan]] = {
    "batches": (lambda s: s.pages.batches(B(), limit=9), {f"batches: {SORTED}"}),
    "the next page": (
        lambda s: s.pages.batches(B(), after=(10**15, "default", "bat-9"), limit=9),
        {f"batches: {SORTED}"},
    ),
    "by creation": (
        lambda s: s.pages.batches(B(by_creation=True), limit=9),
        {"batches: ix_batches_born"},
    ),
    "of a status": (
        lambda s: s.pages.batches(B(status="COMPLETED"), limit=9),
        {"batches: ix_batches_of_status"},
    ),
    "of a directory": (
        lambda s: s.pages.batches(B(directory="dir-1", status="FAILED"), limit=9),
        {"batches: ix_batches_of_directory"},
    ),
    "of a watch": (
        lambda s: s.pages.batches(B(watch=WATCH), limit=9),
        {"batches: ix_batches_of_watch"},
    ),
    "active ones": (
        lambda s: s.pages.batches(B(active=True), limit=9),
        {"batches: ix_batches_active"},
    ),
    "stuck ones": (
        lambda s: s.pages.batches(B(stuck=True), limit=9),
        {"batches: ix_batches_stuck"},
    ),
    "found by name": (lambda s: s.pages.batches(B(text="29"), limit=9), set()),
    "found by a text": (
        lambda s: s.pages.batches(B(text="nobody"), limit=9),
        {f"batches: {SORTED}"},
    ),
    "deliveries": (lambda s: s.pages.deliveries(D(), limit=9), {"deliveries: key"}),
    "to an endpoint": (
        lambda s: s.pages.deliveries(D(endpoint=HOOK), limit=9),
        {"deliveries: ix_deliveries_of_endpoint"},
    ),
    "dead ones": (
        lambda s: s.pages.deliveries(D(state="dead"), limit=9),
        {"deliveries: ix_deliveries_unsettled"},
    ),
    "of a batch": (
        lambda s: s.pages.deliveries(D(batch="bat-2"), limit=9),
        {"deliveries: sqlite_autoindex_deliveries_1", "events: ix_events_subject"},
    ),
    "events": (lambda s: s.pages.events(E(), limit=9), {"events: key"}),
    "events of a type": (
        lambda s: s.pages.events(E(type="batch.running"), limit=9),
        {"events: ix_events_type"},
    ),
    "events of a batch": (
        lambda s: s.pages.events(E(batch="bat-2", watch=WATCH), limit=9),
        {"events: ix_events_subject"},
    ),
    "what ended when": (
        lambda s: s.figures.by_hour(now=at(0), hours=24),
        {"batches: ix_batches_of_status"},
    ),
    "how long it took": (
        lambda s: s.figures.durations(),
        {"batches: ix_batches_of_status"},
    ),
    "how an endpoint does": (
        lambda s: s.figures.tries(HOOK),
        {"deliveries: ix_deliveries_of_endpoint"},
    ),
}
OF_ROWS = {  # how what is shown of a page's rows is fetched, a few at a time
    "batches: ix_batches_id", "deliveries: key", "events: key", "attempts: key", "last: key",
}  # fmt: skip


@pytest.mark.parametrize("question", LISTS)
async def test_lists_go_by_an_index_that_has_their_order(question: str, full: Store) -> None:
    """So that a page costs the same however many rows there are."""
    ask, expected = LISTS[question]
    with listening(full.database) as sent:
        await ask(full)
    first: Plan = set()
    for sql, parameters in sent:
        found = await plan_of(full.database, sql, parameters, in_order_of_key=True)
        assert found <= expected | OF_ROWS, sql
        first |= found

    assert expected <= first


@pytest.mark.parametrize("question", QUESTIONS)
async def test_what_is_asked_all_the_time_goes_by_its_index(question: str, full: Store) -> None:
    """And never through a table."""
    ask, expected = QUESTIONS[question]

    assert expected == await plans_of(full, ask)


async def test_a_replay_goes_by_the_key(full: Store) -> None:
    """However many deliveries there are."""
    number = await dead_one(full)
    found = await plans_of(full, lambda s: s.outbox.replay([number]))  # type: ignore[list-item]  # as a row has it

    assert {"deliveries: key", "ahead: ix_deliveries_line", "busy: ix_deliveries_line"} == found


async def remove_what_is_old(store: Store) -> None:
    long_after = at(100 * 86_400)
    steps = Retention(store.database).remove(now=long_after, older_than=timedelta(days=10))
    gone: Counter[str] = Counter()
    async for removed in steps:
        gone.update(removed)
    assert all(gone[one] for one in ("batches", "deliveries", "coverage", "file_names")), gone


async def test_what_is_old_is_found_and_removed_by_indices(full: Store) -> None:
    """However much there is that stays, and with each row that refers to what goes."""
    for second in (3_600, 7_200):  # two windows
        look = a_look(second - 60, second)
        await full.watches.passed(WATCH, look, newest=at(second), now=at(second))
    await full.names.add(WATCH, {"dfl-1": "a.pdf"}, now=at(0))
    async with full.database.write() as connection:  # some of it is all over, and some is not
        for over in (
            "UPDATE batches SET settle_due_at = NULL, results_due_at = NULL WHERE id > 'bat-2'",
            "UPDATE deliveries SET state = 'delivered' WHERE subject > 'default/bat-2'",
        ):
            await connection.exec_driver_sql(over)

    assert {
        "batches: ix_batches_changed",
        "batches: ix_batches_id",
        "batches: key",
        "watches: sqlite_autoindex_watches_1",
        "events: ix_events_subject",
        "events: ix_events_type",
        "events: key",
        "deliveries: sqlite_autoindex_deliveries_1",
        "deliveries: key",
        "attempts: key",
        "transitions: key",
        "file_outcomes: key",
        "coverage: ix_coverage_watch_covered_to",
        "coverage: key",
        "gaps: ix_gaps_watch_gap_to",
        "file_names: ix_file_names_needed",
        "file_names: key",
    } == await plans_of(full, remove_what_is_old)
