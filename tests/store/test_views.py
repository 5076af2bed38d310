"""What people read of the store, and what is told only while it is fresh."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchwatch.domain.batch import COMPLETED, PENDING, RUNNING, EventId, FileOutcome
from batchwatch.domain.delivery import Attempt, Settled, State
from batchwatch.domain.event import Event
from batchwatch.store import Wanted
from tests.store.conftest import HOOK
from tests.support.builders import WATCH, a_sighting, at

if TYPE_CHECKING:
    from tests.store.conftest import Store

HOUR = 3600.0


async def test_the_story_of_a_batch_is_told_whole(store: Store) -> None:
    """Its changes, its files by name, its events, and each delivery with its tries."""
    await store.see(a_sighting(PENDING))
    files = (FileOutcome("dfl-1", "parse_v2", "pjb-1"), FileOutcome("dfl-2", error_message="no"))
    ended = a_sighting(COMPLETED, updated=9, asked_results=True, results=files)
    await store.see(ended, second=9)
    await store.names.add(WATCH, {"dfl-1": "one.pdf"}, now=at(9))
    (claimed,) = await store.outbox.claim(HOOK, limit=9)
    await store.outbox.settle([Settled(claimed, Attempt(at(9), 0.5), State.DELIVERED)])

    (story,) = await store.views.batch("bat-1", watch=WATCH)

    assert [(1, None, PENDING), (2, PENDING, COMPLETED)] == [
        (one["number"], one["from_status"], one["to_status"]) for one in story["transitions"]
    ]
    assert [("dfl-1", "one.pdf", None), ("dfl-2", None, "unmapped")] == [
        (one["source_directory_file_id"], one["name"], one["fate"]) for one in story["files"]
    ]
    assert ["batch.discovered", "batch.pending", "batch.completed"] == [
        one["type"] for one in story["events"]
    ]
    assert [("batch.pending", [500.0]), ("batch.completed", [])] == [
        (one["type"], [tried["duration_ms"] for tried in one["tries"]])
        for one in story["deliveries"]
    ]


async def test_an_id_may_be_given_by_its_beginning(store: Store) -> None:
    """With or without what all begin with; one that is given whole is first."""
    await store.see(*(a_sighting(batch_id=f"bat-{name}") for name in ("12", "1", "2", "1%")))

    assert ["bat-1", "bat-1%", "bat-12"] == await store.views.named("bat-1")
    assert ["bat-1", "bat-1%", "bat-12"] == await store.views.named("1")
    assert ["bat-1%"] == await store.views.named("1%")
    assert ["bat-1"] == await store.views.named("1", limit=1)
    assert [] == await store.views.named("x")


async def test_batches_are_counted_by_status(store: Store) -> None:
    """For each watch."""
    await store.see(*(a_sighting(batch_id=f"bat-{name}") for name in range(3)))
    await store.see(a_sighting(PENDING, batch_id="bat-9"))

    assert [(WATCH, PENDING, 1), (WATCH, RUNNING, 3)] == [
        (one["watch"], one["status"], one["count"]) for one in await store.views.statuses()
    ]


async def test_what_has_ended_can_be_meant_by_all_that_is_known_of_it(store: Store) -> None:
    """And what is still owed is not sent again."""
    await store.see(a_sighting(batch_id="bat-1"), a_sighting(batch_id="bat-2"))
    first, second = await store.outbox.claim(HOOK, limit=9)
    assert [] == await store.views.replayable(Wanted(endpoint="hook"))
    await store.outbox.settle([
        Settled(first, Attempt(at(1), 0.5), State.DELIVERED),
        Settled(second, Attempt(at(1), 0.5), State.DEAD, reason="over"),
    ])  # fmt: skip

    wanted = Wanted(
        ids=(first.id, second.id), endpoint="hook", type="batch.*", since=at(-9), until=at(9)
    )
    assert [first.id, second.id] == await store.views.replayable(wanted)
    assert [first.id] == await store.views.replayable(wanted, limit=1)
    assert [second.id] == await store.views.replayable(Wanted(state="dead", batch="bat-2"))
    assert [] == await store.views.replayable(Wanted(type="batch.failed"))


async def test_what_is_to_be_expected_is_learnt_from_what_like_ones_took(store: Store) -> None:
    """None of those that have ended."""
    for number in range(5):
        name = f"bat-{number}"
        await store.see(a_sighting(batch_id=name, created_at=at(0)))
        ended = a_sighting(COMPLETED, batch_id=name, updated=60 + number, created_at=at(0))
        await store.see(ended, second=60 + number)
    await store.see(a_sighting(batch_id="bat-new", created_at=at(HOUR)), second=HOUR)

    rows = await store.views.batches()
    shown = await store.views.judgements.with_outlook(rows, now=at(HOUR))

    assert ["bat-new"] == [one["id"] for one in shown if one["expected"] is not None]


async def test_the_place_of_the_newest_event_is_where_whoever_listens_begins(store: Store) -> None:
    """Nowhere in an empty store."""
    assert 0 == await store.pages.last_event()
    changes = await store.see(a_sighting())
    assert len(changes.events) == await store.pages.last_event()


async def test_what_is_worth_something_only_while_fresh_is_told_to_whom_no_older_one_is_owed(
    store: Store,
) -> None:
    """Nobody needs two signs of life at once."""
    first, second = (
        Event(EventId(f"evt_{number}"), "watch.failing", WATCH, at(number), {}) for number in (1, 2)
    )

    await store.outbox.announce(first)
    await store.outbox.announce(second)

    assert ["evt_1"] == [one.event_id for one in await store.outbox.claim(HOOK, limit=9)]
    assert 1 == await store.pages.last_event()
