"""The API over real sockets and a store: what its answers promise, one by one."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from batchwatch.domain.batch import COMPLETED, BatchId, FileOutcome
from batchwatch.domain.delivery import Attempt, Failure, Settled, State
from batchwatch.store.schema import coverage, file_outcomes
from tests.support.builders import WATCH, a_recorder, a_sighting, at
from tests.support.site import ENDPOINT, Site, a_site

if TYPE_CHECKING:
    from pathlib import Path

FILES = "/api/v1/batches/default/bat-1/files"


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A store of its own."""
    return f"sqlite+aiosqlite:///{tmp_path / 'batchwatch.db'}"


async def got(site: Site, path: str) -> Any:
    """The answer, read."""
    async with site.http.get(path) as answer:
        assert 200 == answer.status, await answer.text()
        return await answer.json()


async def test_files_that_change_their_fates_hide_no_others(url: str) -> None:
    """Who lists those that are open, while jobs end, still gets each that is open to the end."""
    names = [f"dfl-{number}" for number in range(5)]
    files = tuple(FileOutcome(one, job_type="parse_v2", job_id=f"pjb-{one}") for one in names)
    seen = a_sighting(COMPLETED, asked_results=True, results=files)
    end = sa.update(file_outcomes).values(job_status="COMPLETED")
    async with a_site(url) as site:
        record = partial(a_recorder().record, seen=[seen], now=at(0))
        await site.store.batches.change(WATCH, {BatchId("bat-1")}, record)
        first = await got(site, f"{FILES}?fate=open&limit=2")
        async with site.store.database.write() as connection:
            await connection.execute(
                end.where(file_outcomes.c.source_directory_file_id.in_(names[:2]))
            )
        second = await got(site, f"{FILES}?fate=open&limit=2&cursor={first['next']}")
        last = await got(site, f"{FILES}?fate=open&limit=2&cursor={second['next']}")

    shown = [[one["source_directory_file_id"] for one in page["items"]]
             for page in (first, second, last)]  # fmt: skip
    assert [names[:2], names[2:4], names[4:]] == shown
    assert last["next"] is None


async def test_the_beginning_of_time_is_a_moment_by_any_clock(url: str) -> None:
    """LlamaCloud's may be behind ours, and nothing is before year 1."""
    window = {"covered_from": at(0), "covered_to": at(60), "passes": 1, "skew": -5.0}
    async with a_site(url) as site:
        async with site.store.database.write() as connection:
            await connection.execute(sa.insert(coverage).values(watch=WATCH, **window))
        since = "0001-01-01T00:00:00Z"
        found = await got(site, f"/api/v1/watches/default/coverage?since={since}")

    assert 1 == found["passes"]


async def test_the_document_is_made_once(url: str) -> None:
    """Everybody may ask for it, as often as they like."""
    async with a_site(url) as site:
        before = await got(site, "/api/v1/openapi.json")
        with pytest.MonkeyPatch.context() as patch:
            patch.delattr("batchwatch.web.api.openapi.document")
            assert before == await got(site, "/api/v1/openapi.json")


async def test_what_was_taken_is_sent_again_only_by_name(url: str) -> None:
    """Whoever names an endpoint alone means what it was not told."""
    async with a_site(url) as site:
        seen = [a_sighting(batch_id=one) for one in ("bat-1", "bat-2")]
        record = partial(a_recorder().record, seen=seen, now=at(0))
        await site.store.batches.change(WATCH, {one.id for one in seen}, record)
        taken, lost = await site.store.outbox.claim(ENDPOINT, limit=2)
        await site.store.outbox.settle([
            Settled(taken, Attempt(at(1), 0.1, status_code=204), State.DELIVERED),
            Settled(lost, Attempt(at(1), 0.1, Failure.GONE), State.DEAD, reason="gone"),
        ])  # fmt: skip
        for meant in ({"endpoint": ENDPOINT}, {"ids": [taken.id]}):
            async with site.http.post("/api/v1/deliveries/replay", json=meant) as answer:
                assert {"replayed": 1, "more": False} == await answer.json()

    assert [("replay", [lost.id]), ("replay", [taken.id])] == site.asked


async def test_a_store_for_one_daemon_has_one_replica_which_holds_all(url: str) -> None:
    """So programs need not know which store it is."""
    async with a_site(url) as site:
        found = await got(site, "/api/v1/replicas")
        (watch,) = await got(site, "/api/v1/watches")

    (replica,), (held,) = found["replicas"], found["watches"]
    assert not found["shared"]
    assert (True, ["default"]) == (replica["alive"], replica["watches"])
    assert replica["id"] == held["holder"] == watch["holder"]
    assert (None, None) == (held["token"], held["held_until"])
