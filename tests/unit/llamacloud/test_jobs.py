"""Look up the jobs behind the files: few requests, and only those that were asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from batchwatch.llamacloud.budget import Priority
from batchwatch.llamacloud.client import RELEARNT, Scope
from batchwatch.llamacloud.errors import Garbled, NotFound, PagingLoop, Rejected, Unaskable
from batchwatch.llamacloud.transport import Limits
from batchwatch.llamacloud.wire import Job
from tests.unit.llamacloud.upstream import HurriedClock, Reply, a_page, asking, serving

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp import web

    from batchwatch.llamacloud.client import LlamaCloud
    from tests.unit.llamacloud.upstream import Handler


def a_job(id_: str, status: str = "COMPLETED", **more: Any) -> dict[str, Any]:
    """A job as upstream lists it, with one of the many fields that nobody here needs."""
    return {"id": id_, "status": status, "error_message": None, "tier": "agentic", **more}


def shop(*, page: int = 1000) -> Handler:
    """A server that knows every job it is asked for, ``page`` at most at once."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        start = int(request.query.get("page_token", "0"))
        ids = request.query.getall("job_ids")
        more = str(start + page) if start + page < len(ids) else None
        return a_page(*map(a_job, ids[start : start + page]), token=more).response()

    return answer


async def jobs(cloud: LlamaCloud, ids: Sequence[str], type_: str = "parse_v2") -> list[Job]:
    """The jobs, as settling a batch would ask for them."""
    return await cloud.jobs(type_, ids, priority=Priority.SETTLE)


@pytest.mark.parametrize(
    ("type_", "path"), [("parse_v2", "/api/v2/parse"), ("extract_v2", "/api/v2/extract")]
)
async def test_a_thousand_jobs_cost_ten_requests(type_: str, path: str) -> None:
    """One request each would be the whole budget of a Free plan for an hour."""
    ids = [f"job-{n}" for n in range(1000)]
    scope = Scope(project_id="prj-1", source_directory_id="dir-1")
    async with serving(handler=shop()) as upstream, asking(upstream.url, scope=scope) as cloud:
        found = await jobs(cloud, ids, type_)

    assert [Job(type_, id_, "COMPLETED") for id_ in ids] == found
    assert 10 == len(upstream.requests)
    assert {path} == {request.path for request in upstream.requests}
    first = {"project_id": ["prj-1"], "job_ids": ids[:100], "page_size": ["100"]}
    assert first == upstream.queries[0]


async def test_the_pages_of_a_chunk_are_followed() -> None:
    """A server may give fewer at once than it was asked for."""
    ids = [f"job-{n}" for n in range(60)]
    async with serving(handler=shop(page=20)) as upstream, asking(upstream.url) as cloud:
        found = await jobs(cloud, ids)

    assert ids == [job.id for job in found]
    assert [None, "20", "40"] == upstream.asked("page_token")


async def test_a_job_that_failed_says_why() -> None:
    """Its own error, which is not the mapping error of the batch's results."""
    reply = a_page(a_job("job-1", "FAILED", error_message="password"), a_job("job-2", "NEW"))
    async with serving(reply) as upstream, asking(upstream.url) as cloud:
        found = await jobs(cloud, ["job-1", "job-2"])

    expected = [Job("parse_v2", "job-1", "FAILED", "password"), Job("parse_v2", "job-2", "NEW")]
    assert expected == found


async def test_an_id_that_upstream_does_not_know_has_no_job() -> None:
    """The caller sees what is missing, and asks again or gives up; nothing is invented."""
    reply = a_page(a_job("job-1"), a_job("job-1"), {"id": "job-2"}, 5)
    async with serving(reply) as upstream, asking(upstream.url) as cloud:
        found = await jobs(cloud, ["job-1", "job-2", "job-3", "job-1"])

    assert [Job("parse_v2", "job-1", "COMPLETED")] == found
    assert [["job-1", "job-2", "job-3"]] == [query["job_ids"] for query in upstream.queries]


async def test_no_ids_cost_no_request() -> None:
    """A batch whose every file failed to map has no jobs."""
    async with serving(Reply({})) as upstream, asking(upstream.url) as cloud:
        assert [] == await jobs(cloud, [])

    assert [] == upstream.requests


async def test_a_server_that_ignores_the_ids_is_not_listed_to_its_end() -> None:
    """With every job of the project on offer, stop when those wanted are found."""
    replies = (
        a_page(a_job("other-1"), a_job("job-2"), token="t1"),
        a_page(a_job("job-1"), token="t2"),
        a_page(a_job("other-2"), token="t3"),
    )
    async with serving(*replies) as upstream, asking(upstream.url) as cloud:
        found = await jobs(cloud, ["job-1", "job-2"])

    assert {"job-1", "job-2"} == {job.id for job in found}
    assert 2 == len(upstream.requests)


async def test_a_server_that_lists_others_for_ever_is_left() -> None:
    """There are no more pages than ids, or the server speaks of something else."""
    replies = [a_page(a_job(f"other-{n}"), token=f"t{n}") for n in range(9)]
    async with serving(*replies) as upstream, asking(upstream.url) as cloud:
        with pytest.raises(PagingLoop):
            await jobs(cloud, ["job-1", "job-2"])

    assert 3 == len(upstream.requests)


async def test_answers_too_large_are_asked_for_on_smaller_pages() -> None:
    """Extract jobs carry their whole result: fifty of them may be more than we can take."""

    async def heavy(request: web.BaseRequest) -> web.StreamResponse:
        start, size = int(request.query.get("page_token", "0")), int(request.query["page_size"])
        ids = request.query.getall("job_ids")[start:]
        rows = [a_job(id_, extract_result="x" * 1000) for id_ in ids[:size]]
        return a_page(*rows, token=str(start + size) if len(ids) > size else None).response()

    ids = [f"job-{n}" for n in range(8)]
    limits = Limits(body=5000)
    async with serving(handler=heavy) as upstream, asking(upstream.url, limits=limits) as cloud:
        found = await jobs(cloud, ids, "extract_v2")

    assert ids == [job.id for job in found]
    assert ["8", "4", "4"] == upstream.asked("page_size")


async def test_one_answer_too_large_is_an_error() -> None:
    """There is nothing left to halve."""
    reply = a_page(a_job("job-1", extract_result="x" * 1000))
    limits = Limits(body=500)
    async with serving(reply) as upstream, asking(upstream.url, limits=limits) as cloud:
        with pytest.raises(Garbled, match="cut off"):
            await jobs(cloud, ["job-1"])


async def test_a_url_too_long_for_upstream_is_halved() -> None:
    """How many ids a call may name is documented nowhere."""

    async def short(request: web.BaseRequest) -> web.StreamResponse:
        ids = request.query.getall("job_ids")
        reply = a_page(*map(a_job, ids)) if len(ids) < 30 else Reply(b"too long", 414)
        return reply.response()

    ids = [f"job-{n}" for n in range(50)]
    async with serving(handler=short) as upstream, asking(upstream.url) as cloud:
        found = await jobs(cloud, ids)

    assert ids == [job.id for job in found]
    assert [50, 25, 25] == [len(query["job_ids"]) for query in upstream.queries]


@pytest.mark.parametrize("status", [400, 414, 422])
async def test_how_many_ids_upstream_takes_is_learnt_once(status: int) -> None:
    """Some servers call a URL that is too long a bad request; no chunk pays for that again."""

    async def short(request: web.BaseRequest) -> web.StreamResponse:
        ids = request.query.getall("job_ids")
        reply = a_page(*map(a_job, ids)) if len(ids) <= 30 else Reply({"detail": "no"}, status)
        return reply.response()

    ids = [f"job-{n}" for n in range(300)]
    clock = HurriedClock()
    async with (
        serving(handler=short) as upstream,
        asking(upstream.url, clock=clock) as cloud,
    ):
        found = await jobs(cloud, ids)
        first = len(upstream.requests)
        await jobs(cloud, ids)
        again = len(upstream.requests) - first
        clock.advance(RELEARNT + 1)
        assert ids[:25] == [job.id for job in await jobs(cloud, ids[:25])]

    assert ids == [job.id for job in found]
    assert 12 == again
    refusals = first - again
    assert refusals in (2, 4)  # at 100 and at 50 ids, each tried without a page size, too


async def test_an_id_that_is_refused_by_itself_spoils_no_other() -> None:
    """And it is no reason to ask for fewer at once."""

    async def strict(request: web.BaseRequest) -> web.StreamResponse:
        ids = request.query.getall("job_ids")
        if "job-7" in ids:
            return Reply({"detail": "job_ids: not a UUID"}, 422).response()
        return a_page(*map(a_job, ids)).response()

    ids = [f"job-{n}" for n in range(100)]
    async with serving(handler=strict) as upstream, asking(upstream.url) as cloud:
        found = await jobs(cloud, ids)
        before = len(upstream.requests)
        await jobs(cloud, [f"other-{n}" for n in range(100)])
        assert 1 == len(upstream.requests) - before

    assert [one for one in ids if one != "job-7"] == [job.id for job in found]


async def test_what_came_before_a_listing_went_in_circles_is_used() -> None:
    """A job is shown and the other is not; the page that leads to itself shows no more."""
    reply = a_page(a_job("job-1"), token="t1")
    async with serving(reply) as upstream, asking(upstream.url) as cloud:
        found = await jobs(cloud, ["job-1", "job-2"])

    assert ["job-1"] == [job.id for job in found]


# ------------------------------------------------------------------------------- their names


async def test_the_names_of_a_directory_are_had_page_by_page() -> None:
    """By their ids; what cannot be read is left out, and a name is bounded."""

    def row(number: int, **more: Any) -> dict[str, Any]:
        return {"id": f"dfl-{number}", "display_name": f"{number}.pdf", "file_id": "x", **more}

    replies = (
        a_page(row(1), row(2, display_name="n" * 999), row(3, display_name=None), 5, token="t1"),
        a_page(row(4)),
    )
    async with serving(*replies) as upstream, asking(upstream.url) as cloud:
        names = await cloud.directory_files("dir/1", priority=Priority.SETTLE)

    assert {"dfl-1": "1.pdf", "dfl-2": "n" * 300, "dfl-4": "4.pdf"} == names
    assert ["1000", "1000"] == upstream.asked("page_size")
    assert {"/api/v1/beta/directories/dir%2F1/files"} == {
        one.raw_path.partition("?")[0] for one in upstream.requests
    }


async def test_a_directory_that_is_gone_is_not_found() -> None:
    """Ephemeral ones are cleaned up; and no id is asked for that would be another path."""
    async with serving(Reply({"detail": "no"}, 404)) as upstream, asking(upstream.url) as cloud:
        with pytest.raises(NotFound):
            await cloud.directory_files("dir-1", priority=Priority.SETTLE)
        with pytest.raises(Unaskable):
            await cloud.directory_files("..", priority=Priority.SETTLE)

    assert 1 == len(upstream.requests)


async def test_a_type_without_an_endpoint_is_said_to_be_unknown() -> None:
    """Upstream may add one; asking the wrong endpoint would find nothing, silently."""
    async with serving(Reply({})) as upstream, asking(upstream.url) as cloud:
        with pytest.raises(Rejected, match="'classify_v2'"):
            await jobs(cloud, ["job-1"], "classify_v2")

    assert [] == upstream.requests
