"""Lists by pages: whatever they are filtered by, page after page is the whole list, in order."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncConnection

from batchwatch.domain.batch import EndpointName
from batchwatch.domain.delivery import Attempt, Failure, Settled, State
from batchwatch.store import (
    Database,
    WantedBatches,
    WantedDeliveries,
    WantedEvents,
    pages,
)
from batchwatch.store.schema import batches, deliveries, events, watches
from tests.store.conftest import HOOK, Store, empty
from tests.support.builders import a_sighting, at

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from batchwatch.store.pages import Key, Page

    Row = dict[str, Any]

WATCHES = ("default", "eu")
STATUSES = ("RUNNING", "COMPLETED", "FAILED")
DIRECTORIES = (None, "dir-1", "dir-2")
TYPES = ("batch.running", "batch.settled", "watch.gap")
STATES = ("pending", "delivered", "dead")
ENDPOINTS = ("hook", "ops")

a_row = st.fixed_dictionaries({
    "watch": st.sampled_from(WATCHES),
    "status": st.sampled_from(STATUSES),
    "directory": st.sampled_from(DIRECTORIES),
    "changed": st.integers(0, 5),
    "created": st.none() | st.integers(0, 5),
    "stuck": st.booleans(),
})  # fmt: skip
some_batches = st.fixed_dictionaries({
    "watch": st.none() | st.sampled_from((*WATCHES, "other")),
    "status": st.none() | st.sampled_from(STATUSES),
    "active": st.booleans(),
    "stuck": st.booleans(),
    "directory": st.none() | st.sampled_from(("dir-1", "dir-3")),
    "text": st.none() | st.sampled_from(("bat-1", "1", "dir-2", "R-1", "zzz", "%", "prj")),
    "since": st.none() | st.integers(0, 5),
    "until": st.none() | st.integers(0, 6),
    "by_creation": st.booleans(),
    "oldest_first": st.booleans(),
})  # fmt: skip
a_told = st.fixed_dictionaries({
    "type": st.sampled_from(TYPES),
    "watch": st.sampled_from(WATCHES),
    "batch": st.sampled_from(("bat-1", "bat-2")),
    "state": st.sampled_from(STATES),
    "endpoint": st.sampled_from(ENDPOINTS),
})  # fmt: skip
some_told = st.fixed_dictionaries({
    "type": st.none() | st.sampled_from((*TYPES, "batch.*", "endpoint.*")),
    "watch": st.none() | st.sampled_from((*WATCHES, "other")),
    "batch": st.none() | st.sampled_from(("bat-1", "bat-3")),
    "state": st.none() | st.sampled_from((*STATES, "waiting")),
    "endpoint": st.none() | st.sampled_from((*ENDPOINTS, "other")),
})  # fmt: skip
slow = settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


async def walk(
    ask: Callable[[Key | None], Awaitable[Page]], *, limit: int, scanned: int
) -> list[Row]:
    """Every page, from the first to the last."""
    found: list[Row] = []
    after: Key | None = None
    for _ in range(1_000):
        page = await ask(after)
        assert len(page.rows) <= limit
        found += page.rows
        if page.after is None:
            return found
        assert page.after != after
        assert page.rows or scanned < 100, "a page may be empty only where it looked at enough"
        after = page.after
    raise AssertionError("the list has no end")


def matches(row: Row, wanted: Row) -> bool:
    """The same rules, said plainly."""
    moment = row["changed"]
    if wanted["by_creation"]:
        moment = row["first_seen"] if row["created"] is None else row["created"]
    text = wanted["text"]
    named = text and (row["id"].startswith(text) or row["id"].startswith(f"bat-{text}"))
    ids = (row["id"], row["directory"] or "", "cfg-1", "prj-1")
    mentioned = text and any(text.lower() in one.lower() for one in ids)
    return all((
        wanted["watch"] in (None, row["watch"]),
        wanted["status"] in (None, row["status"]),
        not wanted["active"] or row["status"] == "RUNNING",
        not wanted["stuck"] or row["stuck"],
        wanted["directory"] in (None, row["directory"]),
        text is None or (named if wanted["is_a_name"] else mentioned),
        wanted["since"] is None or moment >= wanted["since"],
        wanted["until"] is None or moment < wanted["until"],
    ))  # fmt: skip


def ordered(row: Row, wanted: Row) -> tuple[Any, ...]:
    created = row["first_seen"] if row["created"] is None else row["created"]
    return (created if wanted["by_creation"] else row["changed"], row["watch"], row["id"])


@slow
@given(
    rows=st.lists(a_row, max_size=25),
    wanted=some_batches,
    limit=st.integers(1, 7),
    scanned=st.integers(1, 9) | st.just(4_000),
)
async def test_pages_of_batches_are_the_whole_list_in_order(
    store: Store, rows: list[Row], wanted: Row, limit: int, scanned: int
) -> None:
    """Nothing twice, nothing left out, and a page that finds little says where to go on."""
    known = [
        row | {"id": f"bat-{number}", "first_seen": number % 4} for number, row in enumerate(rows)
    ]
    text = wanted["text"]
    is_a_name = text is not None and any(
        row["id"].startswith(text) or row["id"].startswith(f"bat-{text}") for row in known
    )
    wanted = wanted | {"is_a_name": is_a_name}
    expected = sorted(
        (row for row in known if matches(row, wanted)),
        key=lambda row: ordered(row, wanted),
        reverse=not wanted["oldest_first"],
    )

    await begin_anew(store)
    await write(store.database, batches, [batch_row(row) for row in known])
    fields: dict[str, Any] = {
        name: at(value) if name in ("since", "until") and value is not None else value
        for name, value in wanted.items()
        if name != "is_a_name"
    }
    asked = WantedBatches(**fields)
    with looking_at(scanned):
        got = await walk(
            lambda after: store.pages.batches(asked, after=after, limit=limit),
            limit=limit,
            scanned=scanned,
        )

    assert [(one["watch"], one["id"]) for one in expected] == [
        (one["watch"], one["id"]) for one in got
    ]


@slow
@given(
    rows=st.lists(a_told, max_size=25),
    wanted=some_told,
    limit=st.integers(1, 7),
    scanned=st.integers(1, 9) | st.just(4_000),
    forward=st.booleans(),
)
async def test_pages_of_events_and_deliveries_are_the_whole_lists_in_order(
    store: Store, rows: list[Row], wanted: Row, limit: int, scanned: int, *, forward: bool
) -> None:
    """Whichever index leads to them."""
    known = [row | {"seq": number} for number, row in enumerate(rows, start=1)]

    def is_meant(row: Row, names: tuple[str, ...]) -> bool:
        type_ = wanted["type"]
        if type_ is not None and type_.endswith("*"):
            if not row["type"].startswith(type_[:-1]):
                return False
        elif type_ not in (None, row["type"]):
            return False
        return all(wanted[name] in (None, row[name]) for name in names)

    told = [row["seq"] for row in known if is_meant(row, ("watch", "batch"))]
    sent = [
        row["seq"]
        for row in reversed(known)
        if is_meant(row, ("watch", "batch", "state", "endpoint"))
    ]

    await begin_anew(store)
    known_batches = sorted({(row["watch"], row["batch"]) for row in known})
    await write(store.database, batches, [
        batch_row({
            "watch": watch, "id": batch, "status": "RUNNING", "directory": None,
            "changed": 0, "created": 0, "first_seen": 0, "stuck": False,
        })
        for watch, batch in known_batches
    ])  # fmt: skip
    await write(store.database, events, [event_row(row) for row in known])
    await write(store.database, deliveries, [delivery_row(row) for row in known])
    by_name = {name: wanted[name] for name in ("type", "watch", "batch")}
    with looking_at(scanned):
        listed = await walk(
            lambda after: store.pages.events(
                WantedEvents(**by_name, oldest_first=forward), after=after, limit=limit
            ),
            limit=limit,
            scanned=scanned,
        )
        shipped = await walk(
            lambda after: store.pages.deliveries(
                WantedDeliveries(**wanted), after=after, limit=limit
            ),
            limit=limit,
            scanned=scanned,
        )

    assert (told if forward else told[::-1]) == [one["seq"] for one in listed]
    assert sent == [one["id"] for one in shipped]


async def test_what_comes_to_be_while_a_page_is_read_is_in_the_next(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who pulls gets it, and once: also where the page ends for having looked at enough."""
    monkeypatch.setattr(pages, "SCANNED", 3)
    await store.see(a_sighting(batch_id="bat-0"))
    more = iter(range(1, 9))
    ask = AsyncConnection.execute

    async def then_more(self: AsyncConnection, *args: Any, **options: Any) -> Any:
        found = await ask(self, *args, **options)
        if (number := next(more, None)) is not None:
            with monkeypatch.context() as as_it_was:
                as_it_was.setattr(AsyncConnection, "execute", ask)
                await store.see(a_sighting(batch_id=f"bat-{number}"))
        return found

    monkeypatch.setattr(AsyncConnection, "execute", then_more)
    got: list[int] = []
    place = 0
    for _ in range(20):
        wanted = WantedEvents(type="batch.*", watch="default", oldest_first=True)
        page = await store.pages.events(wanted, after=(place,), limit=5)
        got += [row["seq"] for row in page.rows]
        place = int(page.after[0]) if page.after else max([place, *got])
    every = await store.pages.events(WantedEvents(oldest_first=True), limit=100)

    assert [row["seq"] for row in every.rows] == got


async def test_a_delivery_is_shown_with_its_tries(store: Store) -> None:
    """In their order, each with what came back; in lists with the last of them."""
    await store.see(a_sighting())
    (claimed, *_) = await store.outbox.claim(HOOK, limit=1)
    slow = Attempt(at(1), 9.0, Failure.TIMEOUT)
    await store.outbox.settle([Settled(claimed, slow, State.PENDING, due_in=0)])
    (again, *_) = await store.outbox.claim(HOOK, limit=1)
    refused = Attempt(at(2), 0.25, Failure.SERVER_ERROR, status_code=500, response="no")
    await store.outbox.settle([Settled(again, refused, State.DEAD, reason="2 tries failed")])

    found = await store.pages.delivery(claimed.id)
    (listed,) = (await store.pages.deliveries(WantedDeliveries(state="dead"), limit=9)).rows

    assert found is not None
    for shown in (found, listed):
        assert ("dead", "2 tries failed", 2, 500, at(2)) == tuple(
            shown[name] for name in ("state", "reason", "attempts", "status_code", "tried_at")
        )
    assert [(1, at(1), 9_000.0, None), (2, at(2), 250.0, "no")] == [
        (one["number"], one["started_at"], one["duration_ms"], one["response"])
        for one in found["tries"]
    ]
    assert await store.pages.delivery(999) is None


async def test_an_event_is_shown_with_whom_it_is_owed_to(store: Store) -> None:
    """By its id."""
    changes = await store.see(a_sighting())
    told = changes.events[-1]

    found = await store.pages.event(told.id)

    assert found is not None
    assert (told.type, [HOOK]) == (found["type"], [one["endpoint"] for one in found["deliveries"]])
    assert await store.pages.event("evt_none") is None


# ------------------------------------------------------------------------------------ figures


async def test_figures_count_by_hour_and_since_midnight(store: Store) -> None:
    """In full hours up to the present one, also where nothing ended."""
    await write(store.database, batches, [
        batch_row({
            "watch": "default", "id": f"bat-{number}", "status": status, "directory": None,
            "changed": 3600 * hour, "created": 3600 * hour - 60, "first_seen": 3600 * hour - 60,
            "stuck": False,
        })
        for number, (status, hour) in enumerate(
            (("COMPLETED", 0), ("COMPLETED", 2), ("FAILED", 2), ("RUNNING", 2))
        )
    ])  # fmt: skip
    now = at(3600 * 2 + 30)

    hours = await store.figures.by_hour(now=now, hours=2)

    assert [{"COMPLETED": 1}, {}, {"COMPLETED": 1, "FAILED": 1}] == [counts for _, counts in hours]
    assert [hours[0][0] + timedelta(hours=n) for n in range(3)] == [start for start, _ in hours]
    assert {"COMPLETED": 1, "FAILED": 1} == await store.figures.ended(since=at(3600))
    assert {"COMPLETED": 2, "FAILED": 1, "RUNNING": 1} == await store.figures.by_status()
    assert [("default", "RUNNING", 1)] == await store.figures.active()
    assert 0 == await store.figures.stuck()
    assert [60.0, 60.0] == [one.seconds for one in await store.figures.durations()]


async def test_figures_of_an_endpoint_are_of_its_last_tries(store: Store) -> None:
    """How many were taken, and how long these took."""
    await store.see(a_sighting(), a_sighting(batch_id="bat-2"))
    first, second = await store.outbox.claim(HOOK, limit=2)
    await store.outbox.settle([
        Settled(first, Attempt(at(1), 0.25, status_code=204), State.DELIVERED),
        Settled(second, Attempt(at(1), 9.0, Failure.TIMEOUT), State.PENDING, due_in=5),
    ])  # fmt: skip

    tries = await store.figures.tries(HOOK)

    assert (2, 1, [0.25]) == (tries.tried, tries.taken, list(tries.seconds))
    assert 0 == (await store.figures.tries(EndpointName("other"))).tried
    assert [HOOK] == [one.name for one in await store.figures.latencies()]


async def test_what_was_given_up_was_not_received(store: Store) -> None:
    """So it is in no figure of how soon messages are."""
    await store.see(a_sighting(), a_sighting(batch_id="bat-2"))
    first, second = await store.outbox.claim(HOOK, limit=2)
    await store.outbox.settle([
        Settled(first, Attempt(at(1), 0.25, status_code=204), State.DELIVERED),
        Settled(second, Attempt(at(1), 9.0, Failure.TIMEOUT), State.DEAD, reason="over"),
    ])  # fmt: skip

    assert 1 == len(await store.figures.latencies())


# -------------------------------------------------------------------------------------- parts


async def begin_anew(store: Store) -> None:
    await empty(store.database)
    await write(store.database, watches, [
        {"name": name, "started_at": at(0), "baseline_done": True} for name in WATCHES
    ])  # fmt: skip


def looking_at(rows: int) -> Any:
    patch = pytest.MonkeyPatch.context()

    class Patched:
        def __enter__(self) -> None:
            patch.__enter__().setattr(pages, "SCANNED", rows)

        def __exit__(self, *error: object) -> None:
            patch.__exit__(*error)  # type: ignore[arg-type]  # as it was given

    return Patched()


async def write(database: Database, table: sa.Table, rows: list[Row]) -> None:
    if not rows:
        return
    async with database.write() as connection:
        await connection.execute(sa.insert(table), rows)


def batch_row(row: Row) -> Row:
    return {
        "watch": row["watch"], "id": row["id"], "status": row["status"], "fingerprint": "",
        "revision": 2, "active": row["status"] == "RUNNING", "project_id": "prj-1",
        "source_directory_id": row["directory"], "configuration_id": "cfg-1",
        "created_at": None if row["created"] is None else at(row["created"]),
        "first_seen_at": at(row["first_seen"]), "changed_at": at(row["changed"]),
        "lasted": "{}", "misses": 0, "results_asks": 0,
        "stuck": STUCK if row["stuck"] else None,
    }  # fmt: skip


STUCK = (
    '{"since":"2026-01-01T00:00:00Z","rule":"status","limit":1.0,'
    '"told_at":"2026-01-01T00:00:00Z","told":1,"alone":true}'
)


def event_row(row: Row) -> Row:
    return {
        "seq": row["seq"], "id": f"evt_{row['seq']}", "type": row["type"], "watch": row["watch"],
        "batch_id": row["batch"], "subject": f"{row['watch']}/{row['batch']}",
        "occurred_at": at(row["seq"]), "payload": "{}",
    }  # fmt: skip


def delivery_row(row: Row) -> Row:
    return {
        "id": row["seq"], "event_seq": row["seq"], "endpoint": row["endpoint"],
        "subject": f"{row['watch']}/{row['batch']}", "state": row["state"], "attempts": 0,
        "due_at": at(0), "created_at": at(row["seq"]),
    }  # fmt: skip
