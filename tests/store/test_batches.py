"""Batches in the store: compared by the database, changed in one transaction."""

from __future__ import annotations

import asyncio
import json
import random
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from batchwatch.domain.batch import (
    COMPLETED,
    PENDING,
    RUNNING,
    Batch,
    BatchId,
    FileOutcome,
    Observation,
    Results,
    WatchName,
)
from batchwatch.domain.cadence import SETTLE_PAUSE
from batchwatch.domain.changes import Changes, Recorder
from batchwatch.domain.jobs import JobRecorder, JobSeen
from batchwatch.domain.refresh import Share
from batchwatch.llamacloud.wire import WORD_LIMIT, read_batch, read_files, read_page
from batchwatch.store import FileNames, Outbox
from batchwatch.store.errors import StoreFull
from tests.store.conftest import HOOK, Store
from tests.support.builders import BASE_URL, WATCH, a_sighting, at

if TYPE_CHECKING:
    from collections.abc import Iterator

BAT = BatchId("bat-1")


def fingerprints(*seen: Observation) -> dict[str, str]:
    return {one.id: one.fingerprint for one in seen}


async def test_only_what_differs_is_news(store: Store) -> None:
    """A page of which nothing changed brings nothing back."""
    old, other = a_sighting(), a_sighting(batch_id="bat-2")
    await store.see(old, other)
    moved = a_sighting(COMPLETED, batch_id="bat-2", updated=5)
    new = a_sighting(batch_id="bat-3")

    assert set() == await store.batches.news(WATCH, fingerprints(old, other))
    assert {"bat-2", "bat-3"} == await store.batches.news(WATCH, fingerprints(old, moved, new))
    assert {BAT} == await store.batches.news(WatchName("another"), fingerprints(old))


@pytest.mark.parametrize("batch_id", ['bat-"quoted"', "bat-ünïcödé-🦙", "bat-'; DROP TABLE", "a/b"])
async def test_ids_are_taken_as_they_come(store: Store, batch_id: str) -> None:
    """An id is upstream's word; it is never part of a statement."""
    seen = a_sighting(batch_id=batch_id)

    await store.see(seen)

    assert set() == await store.batches.news(WATCH, fingerprints(seen))
    assert [batch_id] == await store.batches.unseen(WATCH, seen=["bat-other"])
    assert [] == await store.batches.unseen(WATCH, seen=[batch_id])


def noise(seed: object, *, size: int = WORD_LIMIT) -> str:
    """Text of four bytes a character that no database compresses."""
    dice = random.Random(repr(seed))
    return "".join(chr(dice.randrange(0x10000, 0x10FFFF)) for _ in range(size))


ODD = {
    "nul": "a\0b",
    "half a pair": "a\ud800b",
    "long": noise("long"),
    "longer": noise("longer", size=50_000),
    "large": 2**63,
    "larger": -(10**400),
    "larger still": 1e308,
    "true": True,
    "nested": {"a": ["\0"]},
}


PLAIN = {
    "id": "bat-1", "status": "COMPLETED", "project_id": "prj-1", "source_directory_id": "dir-1",
    "created_at": "2026-11-24T08:00:00Z", "updated_at": "2026-11-24T08:00:00Z", "config": None,
}  # fmt: skip


def odd_entries() -> Iterator[dict[str, Any]]:
    """Batches as a listing has them, with something odd in each field of one of them."""
    for name, odd in ODD.items():
        yield {**PLAIN, "id": odd}
        for field in PLAIN.keys() - {"id"}:
            job = {"job": {"type": odd, "configuration_id": odd}}
            value = job if field == "config" else odd
            yield {**PLAIN, "id": f"{field} {name}", field: value}


async def test_whatever_upstream_sends_is_kept_as_far_as_it_can_be_read(store: Store) -> None:
    """A batch that cannot be written would stop its watch for good."""
    watch = WatchName("w" * 63)
    files = [
        {
            "source_directory_file_id": odd,
            "job_reference": {"type": odd, "id": odd},
            "error_message": odd,
        }
        for odd in ODD.values()
    ]
    names = [{"id": odd, "display_name": odd} for odd in ODD.values()]
    page = read_page(json.dumps({"items": [*odd_entries()]}).encode())
    whole, outcomes = read_batch(json.dumps({**PLAIN, "results": files}).encode())
    named = {one.id: one.name for one in read_files(json.dumps({"items": names}).encode()).items}
    seen = [one.observation(at(0)) for one in page.items]
    seen += [whole.observation(at(0), asked_results=True, results=outcomes)]
    ids = [one.id for one in seen]

    await store.watches.begin(watch, now=at(0))
    await store.batches.change(
        watch, ids, lambda known: Recorder(watch, BASE_URL).record(known, seen, now=at(0))
    )
    await store.names.add(watch, named, now=at(0))

    readable = PLAIN.keys() - {"id", "status"}
    assert {f"{field} {name}" for field in readable for name in ODD} < set(ids)
    assert set(ids) == (await store.batches.known(watch, ids)).keys()
    assert set() == await store.batches.news(watch, fingerprints(*seen))
    assert outcomes is not None
    assert list(outcomes) == (await store.batches.outcomes(watch, [BAT]))[BAT]
    assert named == await store.names.known(watch, named)


async def test_a_batch_comes_back_as_it_was_written(store: Store) -> None:
    """Every field, microseconds included."""
    seen = a_sighting(RUNNING, updated=0.123456, project_id="prj-1", source_directory_id="dir-1")
    written = (await store.see(seen)).batches[BAT]
    read: dict[BatchId, Batch] = {}

    def look(known: object) -> Changes:
        read.update(known)  # type: ignore[call-overload]  # a mapping of batches
        return Changes()

    await store.batches.change(WATCH, [BAT], look)

    assert written == read[BAT]


async def test_everything_of_a_change_is_written_or_nothing(store: Store) -> None:
    """Batches, transitions, files, events and deliveries are one transaction."""
    seen = a_sighting(COMPLETED, asked_results=True, results=(FileOutcome("dfl-1"),))
    broken = a_sighting(batch_id="bat-2", job_type=object())  # nothing a database can keep

    with pytest.raises(Exception, match=r"type|invalid input"):
        await store.see(seen, broken)

    assert [] == await store.views.batches()
    assert [] == await store.at(9).outbox.claim(HOOK, limit=9)
    await store.see(seen)
    assert 1 == len(await store.at(9).outbox.claim(HOOK, limit=9))


@pytest.mark.parametrize("step", ["enqueue", "_move_up"])
async def test_a_change_whose_deliveries_cannot_be_written_did_not_happen(
    store: Store, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is owed stands in the transaction of what caused it, to its last statement."""

    async def break_off(*_args: object, **_more: object) -> None:
        raise StoreFull("no room")

    monkeypatch.setattr(Outbox, step, break_off)
    with pytest.raises(StoreFull):
        await store.see(a_sighting())
    monkeypatch.undo()

    assert [] == await store.views.batches()
    await store.see(a_sighting())
    assert 1 == len(await store.at(9).outbox.claim(HOOK, limit=9))


async def test_active_batches_are_found_however_old(store: Store) -> None:
    """Terminal and vanished ones are not."""
    await store.see(
        a_sighting(PENDING, batch_id="bat-old", created_at=at(-1e7)),
        a_sighting(COMPLETED, batch_id="bat-done"),
        a_sighting(RUNNING, batch_id="bat-timeless", created_at=None),
    )

    assert ["bat-old", "bat-timeless"] == sorted(await store.batches.unseen(WATCH, seen=[]))
    assert [
        Share(PENDING, due=1, undated=0, oldest=at(-1e7), newest=at(-1e7)),
        Share(RUNNING, due=1, undated=1, oldest=None, newest=None),
    ] == await store.batches.due(WATCH, seen=["bat-other"])
    shares = await store.batches.due(WATCH, seen=())
    assert {PENDING: 1, RUNNING: 1} == {share.status: share.due for share in shares}


async def test_missing_results_are_due_until_they_came(store: Store) -> None:
    """What is awaited survives a restart, for it stands in the store."""
    await store.see(a_sighting(COMPLETED), second=3)

    assert at(3) == await store.batches.next_results_due(WATCH)
    assert [BAT] == await store.batches.awaiting_results(WATCH, now=at(3), limit=9)

    null = a_sighting(COMPLETED, asked_results=True)
    changes = await store.see(null, second=4)
    due = changes.batches[BAT].results_due_at
    assert due is not None
    assert [] == await store.batches.awaiting_results(WATCH, now=at(4), limit=9)
    assert [BAT] == await store.batches.awaiting_results(WATCH, now=due, limit=9)

    files = (FileOutcome("dfl-1", "parse_v2", "pjb-1"), FileOutcome("dfl-1", error_message="twice"))
    changes = await store.see(a_sighting(COMPLETED, asked_results=True, results=files), second=5)
    assert Results.COMPLETE == changes.batches[BAT].results
    assert await store.batches.next_results_due(WATCH) is None
    (shown,) = await store.views.batch(BAT)
    assert ["dfl-1", "dfl-1"] == [one["source_directory_file_id"] for one in shown["files"]]


async def test_a_writer_meets_what_the_writer_before_it_made(store: Store) -> None:
    """Two passes that saw the same change record it once."""
    await store.see(a_sighting(PENDING))
    seen = a_sighting(RUNNING, updated=5)

    changes = await asyncio.gather(*(store.see(seen) for _ in range(8)))

    assert 1 == sum(len(one.transitions) for one in changes)


async def test_a_batch_in_doubt_is_news_whatever_is_shown_of_it(store: Store) -> None:
    """Each word counts, for the doubted status or against it; then a page is compared as ever."""
    known, doubted = a_sighting(RUNNING, updated=10), a_sighting(PENDING, updated=5)
    await store.see(known)

    await store.see(doubted)
    assert {BAT} == await store.batches.news(WATCH, fingerprints(known))
    assert {BAT} == await store.batches.news(WATCH, fingerprints(doubted))
    await store.see(known)
    assert set() == await store.batches.news(WATCH, fingerprints(known))


async def test_a_doubt_survives_a_restart(store: Store) -> None:
    """What was shown before it counts after it."""
    await store.see(a_sighting(RUNNING, updated=10))
    written = (await store.see(a_sighting(PENDING, updated=5), second=7)).batches[BAT]

    assert written == (await store.batches.known(WATCH, [BAT]))[BAT]
    assert written.doubt is not None


async def test_what_is_due_in_the_far_future_is_due_now(store: Store) -> None:
    """There is no pause that long: the clock that said so was set back."""
    seen = a_sighting(COMPLETED, seen_at=at(3600))
    await store.see(seen, second=3600)

    assert [BAT] == await store.batches.awaiting_results(WATCH, now=at(0), limit=9)
    assert [BAT] == await store.batches.overdue(WATCH, ended_before=at(-30), now=at(0))
    assert [] == await store.batches.awaiting_results(WATCH, now=at(3500), limit=9)
    assert [] == await store.batches.awaiting_results(WATCH, now=at(0), besides=[BAT], limit=9)


async def test_what_became_of_jobs_is_written_by_place(store: Store) -> None:
    """A file may be there twice; each place keeps its own, and the last one settles the batch."""
    files = tuple(FileOutcome("dfl-1", "parse_v2", f"pjb-{n}") for n in range(3))
    seen = a_sighting(COMPLETED, asked_results=True, results=files)
    await store.see(seen)
    rules = JobRecorder(WATCH, "https://llamacloud.test", deadline=timedelta(hours=24))
    told = []
    for jobs in ({"pjb-1": JobSeen("FAILED", "no")}, {"pjb-0": JobSeen("COMPLETED")},
                 {"pjb-2": JobSeen("CANCELLED")}):  # fmt: skip
        follow = partial(rules.follow, seen=jobs, over={seen.id: True}, now=at(9))
        told.append([e.type for e in (await store.batches.follow(WATCH, [seen.id], follow)).events])

    found = (await store.batches.outcomes(WATCH, [seen.id]))[seen.id]
    assert [[], [], ["batch.settled"]] == told
    assert [("COMPLETED", None), ("FAILED", "no"), ("CANCELLED", None)] == [
        (one.job_status, one.job_error) for one in found
    ]
    assert None is await store.batches.next_settling_due(WATCH)


async def test_what_is_due_further_away_than_any_pause_is_due(store: Store) -> None:
    """A clock gave it that has been set back since."""
    seen = a_sighting(COMPLETED, asked_results=True, results=(FileOutcome("f", "parse_v2", "j"),))
    await store.see(seen, second=0)
    due = [
        await store.batches.settling(WATCH, now=at(second), limit=9)
        for second in (0, -1, -10 * SETTLE_PAUSE.total_seconds())
    ]

    assert [[seen.id], [], [seen.id]] == due
    assert [] == await store.batches.settling(WATCH, now=at(0), besides=[seen.id], limit=9)


async def test_names_are_kept_as_they_first_came(store: Store) -> None:
    """Each watch has its own; what is not known is left out."""
    names = FileNames(store.database)
    await names.add(WATCH, {"dfl-1": "a.pdf"}, now=at(0))
    await names.add(WATCH, {"dfl-1": "b.pdf", "dfl-2": "c.pdf"}, now=at(0))
    await names.add(WATCH, {}, now=at(0))

    assert {"dfl-1": "a.pdf", "dfl-2": "c.pdf"} == await names.known(WATCH, ["dfl-1", "dfl-2", "x"])
    assert {} == await names.known(WatchName("other"), ["dfl-1"])
