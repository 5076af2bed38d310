"""Get one batch, with what became of its files."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web

from batchwatch.domain.batch import COMPLETED, BatchId, FileOutcome, Observation, Status
from batchwatch.llamacloud.budget import Priority
from batchwatch.llamacloud.client import LlamaCloud, Scope
from batchwatch.llamacloud.errors import Garbled, NotFound, Unaskable
from batchwatch.llamacloud.wire import MESSAGE_LIMIT
from tests.support.clock import EPOCH
from tests.unit.llamacloud.upstream import Reply, a_batch, asking, serving


async def get(cloud: LlamaCloud, id_: str = "bat-1", *, results: bool = True) -> Observation:
    """The batch, as a refresh would ask for it."""
    return await cloud.get_batch(BatchId(id_), results=results, priority=Priority.REFRESH)


async def get_from(reply: Reply, id_: str = "bat-1", *, results: bool = True) -> Observation:
    """What becomes of one reply."""
    async with serving(reply) as upstream, asking(upstream.url) as cloud:
        return await get(cloud, id_, results=results)


async def test_a_batch_is_observed_with_all_that_upstream_says() -> None:
    """Each field where the domain looks for it, times in UTC."""
    expected = Observation(
        id=BatchId("bat-1"),
        status=Status("RUNNING"),
        seen_at=EPOCH,
        fingerprint="RUNNING 2026-11-24T07:30:00.25Z",
        created_at=datetime(2026, 11, 24, 7, 0, 0, 500_000, tzinfo=UTC),
        updated_at=datetime(2026, 11, 24, 7, 30, 0, 250_000, tzinfo=UTC),
        project_id="prj-1",
        source_directory_id="dir-1",
        job_type="parse_v2",
        configuration_id="cfg-PARSE_AGENTIC",
        asked_results=True,
        results=None,
        asked_at=EPOCH,
    )
    assert expected == await get_from(Reply(a_batch()))


async def test_results_are_asked_for_by_expand_and_only_then() -> None:
    """They cost upstream something; and what was not asked for is not told."""
    replies = (Reply(a_batch()), Reply(a_batch(results=[])))
    scope = Scope(project_id="prj-1")
    async with serving(*replies) as upstream, asking(upstream.url, scope=scope) as cloud:
        await get(cloud)
        without = await get(cloud, results=False)

    assert [
        {"project_id": ["prj-1"], "expand": ["results"]},
        {"project_id": ["prj-1"]},
    ] == upstream.queries
    assert (False, None) == (without.asked_results, without.results)


@pytest.mark.parametrize(
    ("results", "expected"), [(None, None), ([], ()), ({}, None), ("soon", None)]
)
async def test_null_results_are_not_the_same_as_none_at_all(results: Any, expected: Any) -> None:
    """Null is "not yet", an empty list is "no files"; anything else is not yet either."""
    assert expected == (await get_from(Reply(a_batch(status="COMPLETED", results=results)))).results


async def test_absent_results_are_as_null() -> None:
    """A field that is left out says no more than null does."""
    batch = a_batch(status="COMPLETED")
    del batch["results"]
    observation = await get_from(Reply(batch))
    assert (COMPLETED, None) == (observation.status, observation.results)


async def test_each_file_has_its_outcome_the_one_with_neither_job_nor_error_too() -> None:
    """Four cases: a job, a mapping error, both, and "has no job reference yet"."""
    results = [
        {
            "source_directory_file_id": "dfl-1",
            "job_reference": {"type": "parse_v2", "id": "pjb-1"},
            "error_message": None,
        },
        {"source_directory_file_id": "dfl-2", "job_reference": None, "error_message": "no page"},
        {
            "source_directory_file_id": "dfl-3",
            "job_reference": {"type": "extract_v2", "id": "exj-3"},
            "error_message": "late",
        },
        {"source_directory_file_id": "dfl-4"},
    ]
    expected = (
        FileOutcome("dfl-1", "parse_v2", "pjb-1"),
        FileOutcome("dfl-2", error_message="no page"),
        FileOutcome("dfl-3", "extract_v2", "exj-3", "late"),
        FileOutcome("dfl-4"),
    )
    observation = await get_from(Reply(a_batch(status="COMPLETED", results=results)))
    assert expected == observation.results


async def test_what_went_wrong_with_a_file_is_kept_as_far_as_anybody_reads() -> None:
    """A thousand messages of any length would be any amount of memory."""
    results = [{"source_directory_file_id": "dfl-1", "error_message": "x" * 50_000}]
    observation = await get_from(Reply(a_batch(status="COMPLETED", results=results)))
    assert observation.results is not None
    assert "x" * MESSAGE_LIMIT == observation.results[0].error_message


async def test_large_answers_are_read_one_at_a_time() -> None:
    """Twelve batches with all that can go wrong must not be in memory together."""
    body = json.dumps(a_batch(status="COMPLETED", more="x" * 12 * 2**20)).encode()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for start in range(0, len(body), 2**18):
            await response.write(body[start : start + 2**18])
        return response

    async with serving(handler=answer) as upstream, asking(upstream.url) as cloud:
        await get(cloud)
        tracemalloc.start()
        seen = await asyncio.gather(*(get(cloud) for _ in range(6)))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert [COMPLETED] * 6 == [one.status for one in seen]
    assert peak < 4 * len(body)  # one as it grows, and the beginnings of the others


async def test_a_result_that_cannot_be_read_keeps_its_place_among_the_others() -> None:
    """Dropping it would make 999 of 1,000 files look like all of them."""
    results = [
        {"source_directory_file_id": "dfl-1", "error_message": 5},
        {"job_reference": {"type": "parse_v2", "id": "pjb-2"}},
        "what?",
        {"source_directory_file_id": None, "error_message": "no page"},
        {"source_directory_file_id": "dfl-5", "job_reference": "pjb-5"},
        {"source_directory_file_id": "dfl-6", "job_reference": {"type": "parse_v2", "id": "pjb-6"}},
    ]
    expected = (
        FileOutcome("dfl-1"),
        FileOutcome("unreadable-2", "parse_v2", "pjb-2"),
        FileOutcome("unreadable-3", error_message="LlamaCloud sent a result that cannot be read"),
        FileOutcome("unreadable-4", error_message="no page"),
        FileOutcome("dfl-5"),
        FileOutcome("dfl-6", "parse_v2", "pjb-6"),
    )
    observation = await get_from(Reply(a_batch(status="COMPLETED", results=results)))
    assert expected == observation.results


@pytest.mark.parametrize(
    ("id_", "path"),
    [
        ("../x", "/api/v2/batches/..%2Fx"),
        ("a/b?c#d", "/api/v2/batches/a%2Fb%3Fc%23d"),
        ("ä %2e", "/api/v2/batches/%C3%A4%20%252e"),
    ],
)
async def test_an_id_from_upstream_cannot_lead_elsewhere(id_: str, path: str) -> None:
    """Ids are data, whoever sent them: they stay one segment of the path."""
    async with serving(Reply(a_batch(id_))) as upstream, asking(upstream.url) as cloud:
        observation = await get(cloud, id_, results=False)

    assert (id_, path) == (observation.id, upstream.requests[0].raw_path)


@pytest.mark.parametrize("id_", ["", ".", ".."])
async def test_an_id_that_would_be_another_path_is_not_asked_for(id_: str) -> None:
    """No encoding keeps a server from reading `..` as the folder above.

    And what was not asked was not answered with a 404.
    """
    async with serving(Reply({})) as upstream, asking(upstream.url) as cloud:
        with pytest.raises(Unaskable, match="not asked"):
            await get(cloud, id_)

    assert [] == upstream.requests


async def test_another_batch_than_the_one_asked_for_is_no_answer() -> None:
    """A mixed-up cache must not write one batch's end into another's story."""
    with pytest.raises(Garbled, match="the batch of that id was expected"):
        await get_from(Reply(a_batch("bat-2")))


@pytest.mark.parametrize("body", [{}, [], {"id": "bat-1"}, {"id": "bat-1", "status": 5}, None])
async def test_an_answer_without_id_and_status_is_no_batch(body: Any) -> None:
    """Whatever else it may be."""
    with pytest.raises(Garbled, match='an "id" and a "status" was expected'):
        await get_from(Reply(body))


async def test_a_batch_that_is_gone_is_not_found_at_the_first_try() -> None:
    """Whether it has vanished is for the domain to decide, after several passes."""
    async with (
        serving(Reply({"detail": "Batch not found"}, 404)) as upstream,
        asking(upstream.url) as cloud,
    ):
        with pytest.raises(NotFound, match="Batch not found"):
            await get(cloud)

    assert 1 == len(upstream.requests)


async def test_characters_that_cannot_be_stored_do_not_make_a_batch_unreadable() -> None:
    r"""PostgreSQL has no NUL in its texts, and half a surrogate pair is no character at all."""
    said = (
        rb'{"id":"bat-1","status":"COMPLETED","results":[{"source_directory_file_id":"dfl-1",'
        rb'"error_message":"a\u0000b \ud800 \udcff \ud83d\ude00 C:\\u0000 '
        b"\xff"
        rb'"}]}'
    )
    observation = await get_from(Reply(said))
    expected = "a\ufffdb \ufffd \ufffd \N{GRINNING FACE} C:\\u0000 \ufffd"
    assert (FileOutcome("dfl-1", error_message=expected),) == observation.results
