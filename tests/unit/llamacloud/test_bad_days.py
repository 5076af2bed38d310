"""All that an upstream can do wrong, on real sockets: what is raised, after how many tries."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from batchwatch.clock import Clock
from batchwatch.domain.batch import BatchId
from batchwatch.llamacloud.budget import PATIENCE, Budget, Priority
from batchwatch.llamacloud.errors import (
    CloudError,
    Denied,
    Garbled,
    NotFound,
    PaymentRequired,
    RateLimited,
    Redirected,
    Rejected,
    ServerFault,
    Unreachable,
    is_systemic,
)
from batchwatch.llamacloud.transport import Limits
from tests.unit.llamacloud.upstream import (
    SOURCE,
    HurriedClock,
    Reply,
    a_batch,
    a_page,
    asking,
    ids_of,
    raw,
    serving,
)

if TYPE_CHECKING:
    from batchwatch.llamacloud.client import LlamaCloud

TRIES = 4


async def failure(cloud: LlamaCloud) -> CloudError:
    """What asking for a batch raises."""
    with pytest.raises(CloudError) as caught:
        await cloud.get_batch(BatchId("bat-1"), results=False, priority=Priority.REFRESH)
    return caught.value


async def failure_at(url: str, **more: Any) -> CloudError:
    """What asking a server at ``url`` for a batch raises."""
    async with asking(url, **more) as cloud:
        return await failure(cloud)


# --------------------------------------------------------------------------------- statuses


@pytest.mark.parametrize(
    ("status", "kind", "tries"),
    [
        (400, Rejected, 1),
        (401, Denied, 1),
        (402, PaymentRequired, 1),
        (403, Denied, 1),
        (404, NotFound, 1),
        (405, Rejected, 1),
        (408, Rejected, TRIES),
        (409, Rejected, TRIES),
        (410, Rejected, 1),
        (418, Rejected, 1),
        (422, Rejected, 1),
        (429, RateLimited, TRIES),
        (500, ServerFault, TRIES),
        (502, ServerFault, TRIES),
        (503, ServerFault, TRIES),
        (504, ServerFault, TRIES),
        (599, ServerFault, TRIES),
    ],
)
async def test_each_status_has_its_error_and_only_some_are_tried_again(
    status: int, kind: type[CloudError], tries: int
) -> None:
    """Again where it may help: 408, 409, 429 and faults of the server, as the official SDK does."""
    async with serving(Reply({"detail": "that is how it is"}, status)) as upstream:
        error = await failure_at(upstream.url)

    assert kind is type(error)
    assert (status, "that is how it is") == (error.status, error.detail)
    assert tries == error.tries == len(upstream.requests)
    assert f"GET {upstream.url}/api/v2/batches/bat-1: " in str(error)


@pytest.mark.parametrize(
    ("status", "systemic"),
    [
        *((status, True) for status in (302, 401, 402, 403, 429)),
        *((status, False) for status in (200, 404, 409, 422, 500, 503)),
    ],
)
async def test_what_befalls_every_question_is_told_from_one_batchs_own_trouble(
    status: int,
    systemic: bool,  # noqa: FBT001
) -> None:
    """One batch that always gives a 500 must not keep its neighbours from being asked for."""
    async with serving(Reply({}, status)) as upstream:
        assert systemic == is_systemic(await failure_at(upstream.url))


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
async def test_a_fault_that_passes_is_never_seen_by_the_caller(status: int) -> None:
    """Three bad answers, then a good one."""
    bad = Reply({"detail": "busy"}, status)
    async with serving(bad, bad, bad, a_page(a_batch())) as upstream, asking(upstream.url) as cloud:
        assert [["bat-1"]] == await ids_of(cloud)


async def test_tries_are_spaced_out_longer_and_longer() -> None:
    """Half a second, doubled each time, and spread a little, so that clients do not march."""
    clock = HurriedClock()
    async with serving(Reply(b"", 500)) as upstream:
        await failure_at(upstream.url, clock=clock)

    first, second, third = clock.slept
    assert 0.375 <= first <= 0.5
    assert 0.75 <= second <= 1.0
    assert 1.5 <= third <= 2.0


async def test_a_wrong_key_says_which_variable_and_which_region_to_check() -> None:
    """Keys of the other region are refused with the same 401 as wrong ones."""
    async with serving(Reply({"detail": "Invalid API key"}, 401)) as upstream:
        error = await failure_at(upstream.url)

    told = str(error)
    assert SOURCE in told
    assert "https://api.cloud.llamaindex.ai" in told
    assert "https://api.cloud.eu.llamaindex.ai" in told
    assert "LLAMA_CLOUD_BASE_URL" in told
    assert upstream.url in told


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"detail": "Batch is  busy\n"}, "Batch is busy"),
        (
            {"detail": [{"type": "missing", "loc": ["query", "status"], "msg": "bad", "input": 1}]},
            "query.status: bad",
        ),
        ({"detail": [{"msg": "a"}, {"loc": "x", "msg": "b"}, "c", {"n": 1}]}, 'a; b; c; {"n":1}'),
        ({"detail": {"directory_id": "dir-1"}}, '{"directory_id":"dir-1"}'),
        ({"details": "from the fake"}, "from the fake"),
        ({"message": "from a gateway"}, "from a gateway"),
        ({"detail": None}, '{"detail":null}'),
        ({}, ""),
        ([], ""),
        (b"", ""),
        (b"<html>\x1b[31m no", "<html> [31m no"),
        (b"[" * 10_000, "[" * 399 + "…"),
        (b"\xff\xfe", "\ufffd\ufffd"),
    ],
)
async def test_upstreams_own_words_are_told_whatever_their_shape(body: Any, detail: str) -> None:
    """A string, FastAPI's list, an object, or no JSON; on one line, without control codes."""
    async with serving(Reply(body, 400)) as upstream:
        error = await failure_at(upstream.url)

    assert detail == error.detail
    assert detail in str(error)


# ------------------------------------------------------------------------------ Retry-After


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    "header", ["7", "7.0", "Tue, 24 Nov 2026 08:00:07 GMT", "Tue, 24 Nov 2026 08:00:07 -0000"]
)
async def test_retry_after_is_waited_out(status: int, header: str) -> None:
    """In seconds or as a date, which counts from upstream's own clock."""
    headers = {"Retry-After": header, "Date": "Tue, 24 Nov 2026 08:00:00 GMT"}
    clock = HurriedClock()
    clock.jump(86_400)  # ours is a day ahead
    async with (
        serving(Reply({}, status, headers), Reply(a_batch())) as upstream,
        asking(upstream.url, clock=clock) as cloud,
    ):
        await cloud.get_batch(BatchId("bat-1"), results=False, priority=Priority.REFRESH)

    assert 7 == clock.monotonic()


@pytest.mark.parametrize(
    "header",
    ["", "soon", "-5", "nan", "inf", "1e9", "0x10", "1_0", "Tue, 24 Nov", "٣٣", "1" * 400],
)
async def test_nonsense_for_retry_after_is_ignored(header: str) -> None:
    """Then our own pauses hold."""
    clock = HurriedClock()
    reply = Reply({}, 503, {"Retry-After": header})
    async with (
        serving(reply, Reply(a_batch())) as upstream,
        asking(upstream.url, clock=clock) as cloud,
    ):
        await cloud.get_batch(BatchId("bat-1"), results=False, priority=Priority.REFRESH)

    (pause,) = clock.slept
    assert 0.375 <= pause <= 0.5


async def test_a_429_with_a_long_retry_after_is_handed_on_at_once() -> None:
    """Nobody waits in silence beyond the limit; the watch decides what to do meanwhile."""
    clock = HurriedClock()
    async with serving(Reply({}, 429, {"Retry-After": "300"})) as upstream:
        error = await failure_at(upstream.url, clock=clock)

    assert (RateLimited, 300.0, 1) == (type(error), error.retry_after, len(upstream.requests))
    assert [] == clock.slept
    assert "asks for 300 s without requests" in str(error)


async def test_after_a_long_retry_after_nothing_is_sent_until_it_is_over() -> None:
    """Each further question fails at once, says how long it takes, and costs upstream nothing."""
    clock = HurriedClock()
    budget = Budget(rate=10, burst=10, clock=clock)
    replies = (Reply({}, 429, {"Retry-After": "300"}), a_page())
    async with (
        serving(*replies) as upstream,
        asking(upstream.url, clock=clock, budget=budget) as cloud,
    ):
        await failure(cloud)
        clock.advance(100)
        again = await failure(cloud)
        clock.advance(140)
        await ids_of(cloud)

    assert (RateLimited, 200.0) == (type(again), again.retry_after)
    assert "not sent" in str(again)
    assert 2 == len(upstream.requests)
    assert 300 <= clock.monotonic()


async def test_a_retry_after_of_a_year_is_read_as_ten_minutes() -> None:
    """One typo upstream must not blind a watch for a year."""
    async with serving(Reply({}, 429, {"Retry-After": "31536000"})) as upstream:
        error = await failure_at(upstream.url)

    assert 600.0 == error.retry_after


async def test_a_503_with_a_long_retry_after_is_handed_on_at_once() -> None:
    """As for a 429; and it concerns every other question as well."""
    async with serving(Reply({}, 503, {"Retry-After": str(PATIENCE + 1)})) as upstream:
        error = await failure_at(upstream.url)

    assert (ServerFault, PATIENCE + 1, 1) == (
        type(error),
        error.retry_after,
        len(upstream.requests),
    )
    assert is_systemic(error)


# ----------------------------------------------------------------------------------- bodies


@pytest.mark.parametrize(
    ("reply", "begins"),
    [
        (Reply(b"<html><title>Sign in</title>", headers={"Content-Type": "text/html"}), "<html>"),
        (Reply(json.dumps(a_batch()).encode()[:-20]), '{"id": "bat-1"'),
        (Reply(b"{'id': 'bat-1'}"), "{'id'"),
        (Reply(b'{"id":"bat-1","status":"RUNNING","n":NaN}'), '{"id"'),
        (Reply(b"[" * 100_000), "[[["),
        (Reply(b"", 204), "without a body"),
        (Reply(b""), "without a body"),
        (Reply(b"\x00\x01\xff"), "\ufffd"),
    ],
)
async def test_a_garbled_answer_is_tried_again_and_then_shown(reply: Reply, begins: str) -> None:
    """HTML with a 200, JSON cut short, no JSON: its start says more than any word of ours."""
    async with serving(reply) as upstream:
        error = await failure_at(upstream.url)

    assert (Garbled, TRIES) == (type(error), len(upstream.requests))
    assert begins in str(error)
    assert "was expected" in str(error)
    assert len(str(error)) < 800
    assert str(error).isprintable()


async def test_a_gzip_bomb_is_cut_off_while_it_unfolds() -> None:
    """A few kilobytes on the wire may be gigabytes in memory; nothing like it is worth a retry."""
    bomb = gzip.compress(b" " * 8_000_000)
    reply = Reply(bomb, headers={"Content-Encoding": "gzip", "Content-Type": "application/json"})
    reports: list[Any] = []
    async with serving(reply) as upstream:
        error = await failure_at(upstream.url, limits=Limits(body=2**20), on_request=reports.append)

    assert isinstance(error, Garbled)
    assert error.oversized
    assert [2**20] == [report.size for report in reports]
    assert "more than 1 MiB" in str(error)


async def test_a_compressed_answer_is_read() -> None:
    """The client offers gzip, and a page shrinks to a tenth of itself."""
    body = gzip.compress(json.dumps(a_batch()).encode())
    async with (
        serving(Reply(body, headers={"Content-Encoding": "gzip"})) as upstream,
        asking(upstream.url) as cloud,
    ):
        await cloud.get_batch(BatchId("bat-1"), results=False, priority=Priority.REFRESH)


async def test_the_body_of_an_error_is_read_only_as_far_as_anybody_reads() -> None:
    """An error of a gigabyte is an error, too."""
    reports: list[Any] = []
    async with serving(Reply(b"no " * 100_000, 400)) as upstream:
        error = await failure_at(upstream.url, on_request=reports.append)

    assert isinstance(error, Rejected)
    assert 400 == len(error.detail)
    assert [16 * 1024] == [report.size for report in reports]


# ------------------------------------------------------------------------------ connections

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("said", "then", "told"),
    [
        (b"", "close", "broke before an answer came"),
        (b"", "reset", "broke before an answer came"),
        (HEAD + b'Content-Length: 500\r\n\r\n{"items": [', "close", "in the middle of the answer"),
        (HEAD + b'Content-Length: 500\r\n\r\n{"items": [', "reset", "in the middle of the answer"),
        (
            HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
            "close",
            "in the middle of the answer",
        ),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{", "close", "no HTTP"),
        (
            HEAD + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello",
            "close",
            "in the middle of the answer",
        ),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "close", "no HTTP"),
        (b"HTTP/1.1 999999 what\r\n\r\n", "close", "no HTTP"),
    ],
)
async def test_a_connection_that_breaks_is_tried_again(said: bytes, then: str, told: str) -> None:
    """Wherever it breaks: before, within, or because it never was HTTP."""
    async with raw(said, then=then) as line:
        error = await failure_at(line.url)

    assert Unreachable is type(error)
    assert told in str(error)
    assert TRIES == error.tries
    assert TRIES <= line.connections  # aiohttp itself repeats a GET whose connection was reset


async def test_an_answer_that_does_not_come_in_time_is_given_up() -> None:
    """One that hangs before its headers; that may be the fault of one batch alone."""
    async with raw(b"", then="hang") as line:
        error = await failure_at(line.url, limits=Limits(total=0.05), clock=Clock())

    assert Unreachable is type(error)
    assert "no whole answer within the time limit" in str(error)
    assert not is_systemic(error)
    assert (1, 1) == (error.tries, line.connections)  # the time is for all tries together


async def test_a_question_takes_no_longer_than_its_limit_retries_included() -> None:
    """A single batch has fifteen seconds, then the store's own backoff; a page has thirty."""
    slow = HurriedClock()

    async def fail(request: web.BaseRequest) -> web.StreamResponse:
        del request
        slow.advance(8)
        return web.Response(status=500)

    async with serving(handler=fail) as upstream, asking(upstream.url, clock=slow) as cloud:
        assert 2 == (await failure(cloud)).tries
        with pytest.raises(ServerFault, match=r"\(4 tries\)"):
            await ids_of(cloud)


async def test_an_answer_that_stops_halfway_is_given_up() -> None:
    """After its headers, too; and then it may be this batch's fault alone."""
    async with raw(HEAD + b"Content-Length: 500\r\n\r\n{", then="hang") as line:
        error = await failure_at(line.url, limits=Limits(tries=2, total=0.05))

    assert (Unreachable, 200) == (type(error), error.status)
    assert "no whole answer within the time limit" in str(error)
    assert not is_systemic(error)


async def test_an_error_that_hangs_after_its_headers_is_still_that_error() -> None:
    """The status says enough."""
    head = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 500\r\n\r\n{"
    async with raw(head, then="hang") as line:
        error = await failure_at(line.url, limits=Limits(total=0.05))

    assert Denied is type(error)


async def test_a_refused_connection_says_so() -> None:
    """The port that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        error = await failure_at(url)

    assert (Unreachable, TRIES) == (type(error), error.tries)
    assert "no connection to 127.0.0.1:" in str(error)
    assert "LLAMA_CLOUD_BASE_URL" in str(error)


class NoNames(AbstractResolver):
    """A DNS that knows nobody."""

    async def resolve(self, *_: object, **__: object) -> list[ResolveResult]:
        raise OSError(None, "Name or service not known")

    async def close(self) -> None:
        """Nothing to close."""


async def test_an_unknown_host_is_named() -> None:
    """Mostly a typo in the base URL."""
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=NoNames()))
    error = await failure_at("https://api.cloud.lamaindex.ai", session=session)

    assert Unreachable is type(error)
    assert "the name api.cloud.lamaindex.ai cannot be resolved" in str(error)


async def test_https_to_a_port_that_speaks_http_says_so() -> None:
    """As with a simulator on `http://` and a base URL with `https://`."""
    async with serving(Reply({})) as upstream:
        error = await failure_at(upstream.url.replace("http://", "https://"))

    assert Unreachable is type(error)
    assert "does not speak TLS as expected" in str(error)
    assert [] == upstream.requests


# -------------------------------------------------------------------------------- redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 304])
async def test_a_redirect_is_not_followed_but_named(status: int) -> None:
    """The key would go along; and the target's query may hold a secret of its own."""
    headers = {"Location": "https://user:pw@login.example.com:8443/sso?ticket=s3cret#x"}
    async with serving(Reply(b"", status, headers)) as upstream:
        error = await failure_at(upstream.url)

    assert (Redirected, status, 1) == (type(error), error.status, len(upstream.requests))
    assert "https://login.example.com:8443," in str(error)
    assert "LLAMA_CLOUD_BASE_URL" in str(error)
    assert not {"s3cret", "ticket", "pw"} & set(str(error).replace("=", " ").split())


@pytest.mark.parametrize(
    ("location", "told"),
    [
        ("/elsewhere", "http://127.0.0.1:"),
        ("", "points to nowhere"),
        ("http://[", "no readable"),
        ("mailto:x", "no readable"),
    ],
)
async def test_a_redirect_to_nowhere_is_an_error_like_any_other(location: str, told: str) -> None:
    """Whatever the Location says, or whether there is one."""
    async with serving(Reply(b"", 302, {"Location": location})) as upstream:
        error = await failure_at(upstream.url)

    assert told in str(error)


# --------------------------------------------------------------------------------- together


async def test_a_retry_takes_from_the_budget_like_any_request() -> None:
    """Or an upstream in trouble would get more requests than a healthy one."""
    clock = HurriedClock()
    budget = Budget(rate=0.1, burst=2, clock=clock)
    async with serving(Reply({}, 500)) as upstream:
        await failure_at(upstream.url, clock=clock, budget=budget)

    assert TRIES == len(upstream.requests)
    assert 20 == round(clock.monotonic(), 6)  # two at once, then one every ten seconds


async def test_a_429_slows_down_all_and_success_restores() -> None:
    """AIMD: half at once, back by small steps."""
    clock = HurriedClock()
    budget = Budget(rate=10, burst=10, clock=clock)
    async with (
        serving(Reply({}, 429), Reply(a_batch())) as upstream,
        asking(upstream.url, clock=clock, budget=budget) as cloud,
    ):
        await cloud.get_batch(BatchId("bat-1"), results=False, priority=Priority.REFRESH)
        after_one = budget.rate
        for _ in range(20):
            await cloud.get_batch(BatchId("bat-1"), results=False, priority=Priority.REFRESH)

    assert (5.5, 10) == (after_one, budget.rate)


async def test_a_cancelled_question_leaves_its_connection_closed_and_no_report() -> None:
    """A daemon that stops does not wait for upstream."""
    asked = asyncio.Event()
    never = asyncio.Event()
    reports: list[Any] = []

    async def hang(request: web.BaseRequest) -> web.StreamResponse:
        del request
        asked.set()
        await never.wait()
        return web.Response()

    async with (
        serving(handler=hang) as upstream,
        asking(upstream.url, on_request=reports.append) as cloud,
    ):
        question = asyncio.create_task(failure(cloud))
        await asked.wait()
        question.cancel()
        with pytest.raises(asyncio.CancelledError):
            await question
        never.set()

    assert [] == reports
    assert 1 == cloud.requests
