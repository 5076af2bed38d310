"""List batches: every page, every filter, and no item lost to an odd neighbour."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from batchwatch.domain.batch import RUNNING
from batchwatch.llamacloud.budget import Priority
from batchwatch.llamacloud.client import PAGE_SIZE, RELEARNT, SMALLEST_PAGE, Scope
from batchwatch.llamacloud.errors import Denied, Garbled, PagingLoop, Rejected, ServerFault
from batchwatch.llamacloud.paging import FAMILIAR_PAGES, follow
from batchwatch.llamacloud.transport import Limits
from batchwatch.llamacloud.wire import Page
from tests.unit.llamacloud.upstream import (
    KEY,
    HurriedClock,
    Reply,
    a_batch,
    a_page,
    asking,
    ids_of,
    pages_of,
    serving,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp import web

    from batchwatch.llamacloud.transport import RequestReport


async def test_every_page_is_listed_with_the_filters_repeated_beside_the_token() -> None:
    """A server may forget the filters behind a token; the official SDK repeats them too."""
    replies = (a_page(a_batch("bat-1"), token="t+1/="), a_page(a_batch("bat-2")))
    scope = Scope(project_id="prj-1", organization_id="org-1", source_directory_id="dir-1")
    async with serving(*replies) as upstream, asking(upstream.url, scope=scope) as cloud:
        ids = await ids_of(
            cloud,
            created_on_or_after=datetime(2026, 11, 24, 7, tzinfo=timezone(timedelta(hours=2))),
            created_on_or_before=datetime(2026, 11, 24, 8, 30, 0, 1, tzinfo=UTC),
            status=RUNNING,
        )

    filters = {
        "project_id": ["prj-1"],
        "organization_id": ["org-1"],
        "source_directory_id": ["dir-1"],
        "created_at_on_or_after": ["2026-11-24T05:00:00.000000+00:00"],
        "created_at_on_or_before": ["2026-11-24T08:30:00.000001+00:00"],
        "status": ["RUNNING"],
        "page_size": ["1000"],
    }
    assert [["bat-1"], ["bat-2"]] == ids
    assert [filters, {**filters, "page_token": ["t+1/="]}] == upstream.queries
    plus = "created_at_on_or_after=2026-11-24T05:00:00.000000%2B00:00"  # a bare + would be a space
    assert plus in upstream.requests[0].raw_path


async def test_the_headers_are_those_that_the_api_and_its_operators_expect() -> None:
    """The key as a bearer token, JSON wanted, and a name that operators can look up."""
    async with serving(a_page()) as upstream, asking(upstream.url) as cloud:
        await ids_of(cloud)

    headers = upstream.requests[0].headers
    assert f"Bearer {KEY}" == headers["Authorization"]
    assert "application/json" == headers["Accept"]
    assert headers["User-Agent"].startswith("batchwatch/")


async def test_a_base_url_may_have_a_path_and_a_slash() -> None:
    """Behind a reverse proxy the API may live below a prefix."""
    async with serving(a_page()) as upstream, asking(f"{upstream.url}/llama/") as cloud:
        await ids_of(cloud)

    assert "/llama/api/v2/batches" == upstream.requests[0].path


async def test_an_empty_page_with_a_token_is_not_the_end() -> None:
    """The official SDK stops there; a filter may leave a page empty, and nothing may be lost."""
    replies = (
        a_page(a_batch("bat-1"), token="t1"),
        a_page(token="t2"),
        a_page(token="t3"),
        a_page(a_batch("bat-2"), token=""),
    )
    async with serving(*replies) as upstream, asking(upstream.url) as cloud:
        assert [["bat-1"], [], [], ["bat-2"]] == await ids_of(cloud)


async def test_the_third_empty_page_in_a_row_is_the_end() -> None:
    """A server that always has another token must not keep us for ever, nor fail the watch."""
    replies = (a_page(a_batch("bat-1"), token="t0"), *(a_page(token=f"t{n}") for n in range(1, 9)))
    async with serving(*replies) as upstream, asking(upstream.url) as cloud:
        ids = await ids_of(cloud)

    assert [["bat-1"], [], [], []] == ids
    assert 4 == len(upstream.requests)


@pytest.mark.parametrize("tokens", [["t1", "t1"], ["t1", "t2", "t1"]])
async def test_a_token_that_repeats_raises_after_what_came(tokens: list[str]) -> None:
    """The pages are true, but they may not be all: the caller must know that."""
    replies = [a_page(a_batch(f"bat-{n}"), token=token) for n, token in enumerate(tokens)]
    got: list[str] = []

    async def collect() -> None:
        async with asking(upstream.url) as cloud, aclosing(cloud.list_batches()) as pages:
            async for page in pages:
                got.extend(item.id for item in page.items)

    async with serving(*replies) as upstream:
        with pytest.raises(PagingLoop) as caught:
            await collect()

    assert [f"bat-{n}" for n in range(len(tokens))] == got
    assert len(tokens) == len(upstream.requests)
    assert "there before" in str(caught.value)


async def test_more_pages_than_any_listing_has_raise_after_what_came() -> None:
    """Always a new token, always a batch: such a listing has no end either."""
    fetched: list[str | None] = []

    async def fetch(token: str | None) -> Page:
        fetched.append(token)
        page = Page([], unreadable=1)
        page.next_page_token = f"t{len(fetched)}"
        return page

    pages = follow(fetch, where="GET x", most=5, ahead=True)
    for _ in range(5):
        await anext(pages)
    with pytest.raises(PagingLoop, match="more than 5 pages"):
        await anext(pages)

    assert [None, "t1", "t2", "t3", "t4"] == fetched


async def test_fresh_tokens_to_the_same_batches_lead_round_in_circles() -> None:
    """A listing whose pages show nothing new for long does not end; rows that shift are no loop."""
    asked = 0

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal asked
        del request
        asked += 1
        return a_page(a_batch(f"bat-{min(asked, 5)}"), token=f"t{asked}").response()

    async with serving(handler=answer) as upstream, asking(upstream.url) as cloud:
        with pytest.raises(PagingLoop, match="showed nothing new"):
            await ids_of(cloud)

    assert 2 * FAMILIAR_PAGES + 1 == asked


# ------------------------------------------------------------------------------- page sizes


def too_large(detail: Any, status: int = 422) -> Reply:
    """A complaint about page_size."""
    return Reply({"detail": detail}, status)


FASTAPI = [
    {
        "type": "less_than_equal",
        "loc": ["query", "page_size"],
        "msg": "Input should be less than or equal to 200",
        "input": "1000",
    }
]


@pytest.mark.parametrize(
    ("complaint", "sizes"),
    [
        (FASTAPI, ["1000", "200"]),
        ("page_size must be at most 100", ["1000", "100"]),
        ("page_size is too large", ["1000", "500"]),
        ("page_size: maximum 5", ["1000", None]),
    ],
)
async def test_a_refused_page_size_is_made_smaller_and_remembered(
    complaint: Any, sizes: Sequence[str | None]
) -> None:
    """No maximum is documented: the server's word counts, else half, and it costs once only."""
    replies = (too_large(complaint), a_page(a_batch("bat-1"), token="t1"), a_page())
    async with serving(*replies) as upstream, asking(upstream.url) as cloud:
        ids = await ids_of(cloud)
        await ids_of(cloud)

    assert [["bat-1"], []] == ids
    assert [*sizes, sizes[-1], sizes[-1]] == upstream.asked("page_size")


async def test_a_server_that_takes_no_page_size_at_all_is_asked_without() -> None:
    """Down to a floor by halves, then upstream's own default."""

    async def picky(request: web.BaseRequest) -> web.StreamResponse:
        good = "page_size" not in request.query
        return (a_page(a_batch()) if good else too_large("bad page_size", 400)).response()

    async with serving(handler=picky) as upstream, asking(upstream.url) as cloud:
        assert [["bat-1"]] == await ids_of(cloud)

    expected = ["1000", "500", "250", "125", "62", "31", "15", None]
    assert expected == upstream.asked("page_size")


async def test_a_page_too_large_to_read_is_asked_for_in_halves() -> None:
    """Rather smaller pages than a watch that cannot be had."""
    items = [a_batch(f"bat-{n}") for n in range(PAGE_SIZE)]

    async def generous(request: web.BaseRequest) -> web.StreamResponse:
        return a_page(*items[: int(request.query["page_size"])]).response()

    limits = Limits(body=200_000)
    async with serving(handler=generous) as upstream, asking(upstream.url, limits=limits) as cloud:
        (page,) = await pages_of(cloud)

    assert ["1000", "500"] == upstream.asked("page_size")
    assert 500 == len(page.items)


async def test_a_page_size_is_never_made_so_small_that_a_listing_takes_for_ever() -> None:
    """Whatever the size, this server's answer is too large; and that may be over in an hour."""
    clock = HurriedClock()
    bad = True

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        del request
        return (Reply(b" " * 300_000) if bad else a_page(a_batch())).response()

    limits = Limits(body=200_000)
    async with (
        serving(handler=answer) as upstream,
        asking(upstream.url, limits=limits, clock=clock) as cloud,
    ):
        with pytest.raises(Garbled, match="cut off"):
            await ids_of(cloud)
        bad = False
        await ids_of(cloud)
        clock.advance(RELEARNT + 1)
        await ids_of(cloud)

    sizes = ["1000", "500", "250", "125", "62", "31", "15", str(SMALLEST_PAGE)]
    assert [*sizes, str(SMALLEST_PAGE), "1000"] == upstream.asked("page_size")


async def test_a_clamped_page_size_is_no_trouble() -> None:
    """A server may give fewer than asked for and say nothing; only the token counts."""
    replies = (a_page(a_batch("bat-1"), token="a"), a_page(a_batch("bat-2")))
    async with serving(*replies) as upstream, asking(upstream.url) as cloud:
        assert [["bat-1"], ["bat-2"]] == await ids_of(cloud, page_size=50)

    assert ["50", "50"] == upstream.asked("page_size")


async def test_other_complaints_are_not_taken_for_one_about_the_page_size() -> None:
    """A wrong project id stays wrong: asked once more without a size, and then told."""
    complaint = too_large("project_id is no UUID")
    async with serving(complaint, complaint) as upstream, asking(upstream.url) as c:
        with pytest.raises(Rejected, match="project_id is no UUID"):
            await ids_of(c)

    assert [True, False] == ["page_size" in one.query for one in upstream.requests]


async def test_a_complaint_that_does_not_name_the_page_size_may_mean_it() -> None:
    """Without a size there is nothing to refuse, and nothing is asked for in vain again."""
    last = a_page(a_batch("bat-1"))
    async with serving(too_large("Bad Request"), last, last) as upstream, asking(upstream.url) as c:
        told = [await ids_of(c), await ids_of(c)]

    assert [[["bat-1"]], [["bat-1"]]] == told
    assert [True, False, False] == ["page_size" in one.query for one in upstream.requests]


# ---------------------------------------------------------------------------- fetching ahead


async def test_the_next_page_is_fetched_while_the_caller_has_this_one() -> None:
    """Upstream's latency and the store's work overlap."""
    second_asked = asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.query.get("page_token") is None:
            return a_page(a_batch("bat-1"), token="t1").response()
        second_asked.set()
        return a_page(a_batch("bat-2")).response()

    async with serving(handler=answer) as upstream, asking(upstream.url) as cloud:
        seen = []
        async with aclosing(cloud.list_batches()) as pages:
            async for page in pages:
                await second_asked.wait()  # would wait for ever if it were fetched afterwards
                seen += [item.id for item in page.items]

    assert ["bat-1", "bat-2"] == seen


async def test_leaving_a_listing_early_leaves_no_request_behind() -> None:
    """The page that was fetched ahead is called off with the listing."""
    second_asked, called_off = asyncio.Event(), asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.query.get("page_token") is None:
            return a_page(a_batch("bat-1"), token="t1").response()
        second_asked.set()
        await called_off.wait()
        return a_page().response()

    async with serving(handler=answer) as upstream, asking(upstream.url) as cloud:
        before = asyncio.all_tasks()
        async with aclosing(cloud.list_batches()) as pages:
            async for _ in pages:
                await second_asked.wait()
                break
        assert set() == {task for task in asyncio.all_tasks() - before if "fetch" in repr(task)}
        called_off.set()


async def test_a_caller_that_is_cancelled_leaves_no_request_behind() -> None:
    """A daemon that stops cancels its poll in the middle of a page."""
    second_asked, called_off = asyncio.Event(), asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.query.get("page_token") is None:
            return a_page(a_batch("bat-1"), token="t1").response()
        second_asked.set()
        await called_off.wait()
        return a_page().response()

    async with serving(handler=answer) as upstream, asking(upstream.url) as cloud:
        before = asyncio.all_tasks()
        listing = asyncio.create_task(ids_of(cloud))
        await second_asked.wait()
        listing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await listing
        assert set() == {task for task in asyncio.all_tasks() - before if "fetch" in repr(task)}
        called_off.set()


async def test_a_page_that_cannot_be_had_raises_after_those_that_could() -> None:
    """What came is handed on first, although the failure was known before."""
    replies = (a_page(a_batch("bat-1"), token="t1"), Reply({"detail": "no"}, 401))
    got = []
    async with serving(*replies) as upstream, asking(upstream.url) as cloud:
        pages = cloud.list_batches()
        with pytest.raises(Denied):  # noqa: PT012  # the loop is what raises
            async for page in pages:
                got += [item.id for item in page.items]

    assert ["bat-1"] == got


async def test_a_failure_fetched_ahead_of_a_caller_who_leaves_is_nobodys_warning() -> None:
    """An exception that nobody retrieves would be logged by asyncio out of nowhere."""
    failed = asyncio.Event()

    def hear(report: RequestReport) -> None:
        if report.outcome == "denied":
            failed.set()

    replies = (a_page(a_batch("bat-1"), token="t1"), Reply({"detail": "no"}, 401))
    async with serving(*replies) as upstream, asking(upstream.url, on_request=hear) as cloud:
        pages = cloud.list_batches()
        await anext(pages)
        await failed.wait()
        await pages.aclose()


# ------------------------------------------------------------------------------------ shapes


async def test_items_that_cannot_be_read_are_counted_and_the_others_come() -> None:
    """One odd row must not hide the thousand beside it."""
    odd: list[Any] = [{"id": "bat-x"}, {"status": "RUNNING"}, {"id": "", "status": "RUNNING"}]
    odd += [{"id": 7, "status": "RUNNING"}, None, [], "bat-y", {"id": "bat-z", "status": None}]
    reply = a_page(a_batch("bat-1"), *odd, a_batch("bat-2", "NEW_STATUS", config=None))
    async with serving(reply) as upstream, asking(upstream.url) as cloud:
        (page,) = await pages_of(cloud)

    assert ["bat-1", "bat-2"] == [item.id for item in page.items]
    assert len(odd) == page.unreadable


async def test_a_page_carries_upstreams_clock() -> None:
    """Whether a batch was there before the first poll is decided by upstream's clock, not ours."""
    reply = a_page()
    reply.headers["Date"] = "Tue, 24 Nov 2026 07:59:58 GMT"
    async with serving(reply) as upstream, asking(upstream.url) as cloud:
        (page,) = await pages_of(cloud)

    assert datetime(2026, 11, 24, 7, 59, 58, tzinfo=UTC) == page.date


@pytest.mark.parametrize(
    "body", [{}, [], {"items": None}, {"items": {}}, {"detail": "no"}, None, "x", 5]
)
async def test_an_answer_without_a_list_is_no_empty_page(body: Any) -> None:
    """An empty page says that there is nothing; this says nothing at all."""
    async with serving(Reply(body)) as upstream, asking(upstream.url) as cloud:
        with pytest.raises(Garbled, match='a list "items" was expected'):
            await ids_of(cloud)

    assert 4 == len(upstream.requests) == cloud.requests


async def test_every_try_is_counted_and_reported() -> None:
    """The budget, the metrics and the benchmark all go by what was really sent."""
    reports: list[Any] = []
    replies = (Reply({"detail": "busy"}, 503), a_page(a_batch()))
    async with (
        serving(*replies) as upstream,
        asking(upstream.url, on_request=reports.append) as cloud,
    ):
        await ids_of(cloud, priority=Priority.REFRESH)

    assert 2 == cloud.requests == len(upstream.requests)
    assert [("server_fault", 503, 1), ("ok", 200, 2)] == [
        (report.outcome, report.status, report.attempt) for report in reports
    ]
    assert {("list_batches", Priority.REFRESH)} == {(r.operation, r.priority) for r in reports}
    assert all(report.size > 0 for report in reports)


async def test_a_time_without_its_offset_is_a_bug_of_the_caller() -> None:
    """It would be sent as UTC and mean something else."""
    async with asking("http://127.0.0.1:1") as cloud:
        with pytest.raises(ValueError, match="without its offset"):
            await ids_of(cloud, created_on_or_after=datetime(2026, 11, 24))  # noqa: DTZ001


async def test_a_5xx_on_the_last_try_is_what_is_raised() -> None:
    """And it says how often it was tried."""
    async with serving(Reply(b"<h1>oops</h1>", 502)) as upstream, asking(upstream.url) as cloud:
        with pytest.raises(ServerFault, match=r"\(4 tries\)"):
            await ids_of(cloud)

    assert 4 == len(upstream.requests)
