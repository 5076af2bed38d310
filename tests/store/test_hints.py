"""Hints in the store: noted once, forgotten in steps, and read beside what was observed."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from batchwatch.domain.audit import Came, Step
from batchwatch.domain.batch import COMPLETED, PENDING, RUNNING, BatchId, WatchName
from batchwatch.domain.hint import Hint
from batchwatch.store.hints import AT_ONCE
from batchwatch.store.schema import hints as table
from tests.support.builders import WATCH, a_sighting, at

if TYPE_CHECKING:
    from batchwatch.store import Hints
    from tests.store.conftest import Store

OTHER = WatchName("other")


def a_hint(type_: str = "batch.running", batch_id: str = "bat-1", event_id: str = "") -> Hint:
    return Hint(event_id or f"evt-{type_}-{batch_id}", type_, BatchId(batch_id), at(0))


@pytest.fixture
def hints(store: Store) -> Hints:
    return store.hints


async def kept(store: Store) -> list[tuple[object, ...]]:
    """What is noted, in the order of receipt."""
    columns = (table.c.watch, table.c.event_id, table.c.repeats)
    async with store.database.read() as connection:
        rows = await connection.execute(sa.select(*columns).order_by(table.c.id))
        return [tuple(row) for row in rows]


async def test_a_repeat_is_counted_and_keeps_the_first_receipt(store: Store, hints: Hints) -> None:
    """By its id; another watch's is another one."""
    first = [await hints.note(WATCH, a_hint(), now=at(second)) for second in (1, 2, 3)]
    other = await hints.note(OTHER, a_hint(), now=at(4))

    assert ([True, False, False], True) == (first, other)
    assert [2, 0] == [row[2] for row in await kept(store)]
    async with store.database.read() as connection:
        when = await connection.scalar(sa.select(table.c.received_at).order_by(table.c.id))
    assert at(1) == when


async def test_of_many_at_once_one_is_the_first(hints: Hints) -> None:
    """However they race."""
    found = await asyncio.gather(*(hints.note(WATCH, a_hint(), now=at(1)) for _ in range(20)))

    assert 1 == sum(found)


async def test_old_ones_are_forgotten_in_steps(store: Store, hints: Hints) -> None:
    """At most so many in one transaction, and none that is younger."""
    rows = [
        {"watch": WATCH, "event_id": f"evt-{n}", "type": "batch.running", "received_at": at(n)}
        for n in range(AT_ONCE + 20)
    ]
    async with store.database.write() as connection:
        await connection.execute(sa.insert(table), rows)

    forgotten = [await hints.forget(before=at(AT_ONCE + 5)) for _ in range(3)]

    assert [AT_ONCE, 5, 0] == forgotten
    assert 15 == len(await kept(store))


async def test_what_is_audited_are_batches_with_a_hint(store: Store, hints: Hints) -> None:
    """With every status that was observed, and every hint, repeats counted."""
    for status, second in ((PENDING, 10), (RUNNING, 20)):
        seen = replace(a_sighting(status, updated=second - 1), seen_at=at(second))
        await store.see(seen, second=second)
    await store.see(a_sighting(RUNNING, batch_id="bat-without"), second=20)
    await hints.note(WATCH, a_hint("batch.running"), now=at(21))
    await hints.note(WATCH, a_hint("batch.pending"), now=at(22))
    await hints.note(WATCH, a_hint("batch.pending"), now=at(23))
    await hints.note(WATCH, a_hint("batch.pending", "bat-nobody-knows"), now=at(5))

    (course,) = await hints.courses(since=at(-9_999))

    assert (WATCH, "bat-1") == (course.watch, course.batch_id)
    assert [Step(PENDING, at(10), at(9)), Step(RUNNING, at(20), at(19))] == course.steps
    assert [
        Came("batch.running", at(21)),
        Came("batch.pending", at(22), repeats=1),
    ] == course.came
    assert at(5 - 30) == course.judged_from


async def test_all_are_audited_if_asked_for(store: Store, hints: Hints) -> None:
    """From the watch's first pass on, and of one watch alone if it is named."""
    await store.see(a_sighting(RUNNING), second=20)

    (course,) = await hints.courses(since=at(-9_999), every=True)

    assert ([], at(0)) == (course.came, course.judged_from)
    assert [] == await hints.courses(since=at(-9_999), watch="other", every=True)
    assert [] == await hints.courses(since=at(-9_999))


async def test_what_has_not_changed_since_then_is_not_audited(store: Store, hints: Hints) -> None:
    """And of what has, only what changed since is judged."""
    for status, second in ((RUNNING, 20), (COMPLETED, 60)):
        seen = replace(a_sighting(status, updated=second), seen_at=at(second))
        await store.see(seen, second=second)
    await hints.note(WATCH, a_hint(), now=at(21))

    assert [] == await hints.courses(since=at(61))
    assert [at(50)] == [one.judged_from for one in await hints.courses(since=at(50))]
