"""The key goes to LlamaCloud and nowhere else: no redirect, no log, no error, no traceback."""

from __future__ import annotations

import copy
import logging
import pickle
import traceback
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import structlog

from batchwatch.domain.batch import BatchId
from batchwatch.llamacloud import errors
from batchwatch.llamacloud.budget import Budget, Priority
from batchwatch.llamacloud.client import LlamaCloud
from batchwatch.llamacloud.errors import CloudError
from batchwatch.llamacloud.key import ApiKey
from batchwatch.llamacloud.transport import Limits
from tests.unit.llamacloud.upstream import (
    KEY,
    SOURCE,
    HurriedClock,
    Reply,
    asking,
    raw,
    serving,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ESCAPED = "llx-Secret%2BKey%2F42"
ECHO = {"detail": f"Invalid key {KEY}, seen in ?key={ESCAPED}"}


@asynccontextmanager
async def trouble(kind: str) -> AsyncIterator[str]:
    """The URL of a server that is in ``kind`` of trouble."""
    if kind in ("broken", "cut", "hanging"):
        said = b"" if kind == "hanging" else b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"
        said = b"no http" if kind == "broken" else said
        async with raw(said, then="hang" if kind == "hanging" else "close") as line:
            yield line.url
    elif kind == "https":
        async with serving(Reply({})) as upstream:
            yield upstream.url.replace("http://", "https://")
    elif kind == "closed":
        async with raw(b"") as line:
            url = line.url
        yield url
    else:
        replies = {
            "redirect": Reply(b"", 302, {"Location": f"https://example.com/?key={ESCAPED}"}),
            "echo": Reply(f"<html>{KEY} {ESCAPED}".encode(), 200, {"Content-Type": KEY}),
            "wrong": Reply({"id": "bat-2", "status": KEY}),
        }
        reply = replies[kind] if kind in replies else Reply(ECHO, int(kind))
        async with serving(reply) as upstream:
            yield upstream.url


TROUBLES = [
    *("broken", "cut", "hanging", "https", "closed", "redirect", "echo", "wrong"),
    *("400", "401", "402", "403", "404", "409", "422", "429", "500", "503"),
]


@pytest.mark.parametrize("kind", TROUBLES)
async def test_no_error_and_no_log_and_no_traceback_shows_the_key(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor its start, nor as upstream repeats it, nor through what aiohttp's exceptions carry."""
    caplog.set_level(logging.DEBUG)
    with structlog.testing.capture_logs() as logged:
        async with trouble(kind) as url, asking(url, limits=Limits(tries=2, total=0.2)) as cloud:
            with pytest.raises(CloudError) as caught:
                await cloud.get_batch(BatchId("bat-1"), results=True, priority=Priority.REFRESH)

    error = caught.value
    shown = [
        str(error),
        repr(error),
        repr(vars(error)),
        repr(vars(cloud)),
        repr(vars(cloud._transport)),  # noqa: SLF001  # that is where it is
        repr(logged),
        caplog.text,
        *traceback.TracebackException.from_exception(error, capture_locals=True).format(),
    ]
    assert [] == [text for text in shown if "Secret" in text]
    assert (None, None) == (error.__cause__, error.__context__)


async def test_aiohttps_own_frames_and_exceptions_show_a_mask() -> None:
    """Its exceptions carry the request with all headers, and their repr is what ends up in logs."""
    key = ApiKey(KEY, source=SOURCE)
    async with raw(b"no http") as line, aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientResponseError) as caught:
            await session.get(line.url, headers={"Authorization": key.header()})

    assert "Secret" not in repr(caught.value)
    assert "'Bearer ***'" in repr(caught.value)


@pytest.mark.parametrize("cut", range(1, 14))
def test_a_key_that_was_cut_off_with_the_text_around_it_is_not_shown_either(cut: int) -> None:
    """Only the start of a body is read, and that may end in the middle of the key."""
    key = ApiKey(KEY, source=SOURCE)
    for written in (KEY, ESCAPED):
        told = key.redact(f"Invalid key {written[:-cut]}")
        assert told.startswith("Invalid key ")
        assert "Sec" not in told


async def test_a_redirect_never_takes_the_key_along() -> None:
    """The other server is not even asked."""
    async with serving(Reply({})) as thief:
        headers = {"Location": f"{thief.url}/api/v2/batches"}
        async with serving(Reply(b"", 307, headers)) as upstream, asking(upstream.url) as cloud:
            with pytest.raises(errors.Redirected):
                await cloud.get_batch(BatchId("bat-1"), results=True, priority=Priority.REFRESH)

    assert [] == thief.requests
    assert 1 == len(upstream.requests)


async def test_the_key_is_no_part_of_the_session() -> None:
    """The session is shared, and whoever else uses it must not send our key along."""
    async with (
        serving(Reply({})) as upstream,
        serving(Reply({})) as other,
        aiohttp.ClientSession() as session,
    ):
        cloud = LlamaCloud(
            base_url=upstream.url,
            api_key=KEY,
            key_source=SOURCE,
            session=session,
            budget=Budget(rate=1, burst=9, clock=HurriedClock()),
            clock=HurriedClock(),
        )
        with pytest.raises(errors.Garbled):
            await cloud.get_batch(BatchId("b"), results=False, priority=Priority.REFRESH)
        await session.get(other.url)

    assert "Authorization" not in other.requests[0].headers


@pytest.mark.parametrize("value", ["", " \n", "llx-1\nX-Evil: yes", "llx-\u00e4", "llx-\x00"])
def test_what_can_be_no_key_is_refused_without_being_shown(value: str) -> None:
    """A newline would be a header of its own; an accent is a paste that went wrong."""
    with pytest.raises(ValueError, match="MY_KEY holds no API key") as caught:
        ApiKey(value, source="MY_KEY")

    lines = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    (frame,) = [frame for frame in lines.stack if frame.name == "__init__"]
    assert "value" not in (frame.locals or {})


def test_space_around_a_key_is_forgiven() -> None:
    """Files end with a newline."""
    assert f"Bearer {KEY}" == str(ApiKey(f" {KEY}\n", source=SOURCE).header())


def test_a_key_is_not_written_anywhere() -> None:
    """Neither shown nor pickled nor copied."""
    key = ApiKey(KEY, source=SOURCE)
    assert "ApiKey('***', source='LLAMA_CLOUD_API_KEY')" == repr(key) == str(key)
    for write in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            write(key)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.cloud.llamaindex.ai",
        "ftp://example.com",
        "https://",
        "https://user:pw@example.com",
        "https://example.com?key=pw",
        "https://example.com#pw",
        "https://user:pw@[",
        "https://user:pw@example.com:port",
        "file:///etc/passwd",
    ],
)
async def test_a_base_url_that_is_no_plain_address_is_refused_without_being_shown(url: str) -> None:
    """What is wrong with it may be the password in it."""
    with pytest.raises(ValueError, match="the base URL must be") as caught:
        async with asking(url):
            pass  # pragma: no cover

    assert "pw" not in str(caught.value)
    assert caught.value.__context__ is None


def every_error() -> list[type[CloudError]]:
    """The tree, root included."""
    return [CloudError, *CloudError.__subclasses__()]


@pytest.mark.parametrize("kind", every_error())
def test_every_error_says_what_where_and_what_to_do(kind: type[CloudError]) -> None:
    """And has a label of its own, for metrics."""
    error: Any = kind("it broke", where="GET https://x/y", what_to_do="Mend it.", status=500)
    error.tries = 3
    assert "GET https://x/y: it broke (3 tries). Mend it." == str(error)
    assert 1 == [other.kind for other in every_error()].count(kind.kind)


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    """A reader who sees the drawing has seen them all."""
    drawn = [line[4:].split()[0] for line in (errors.__doc__ or "").splitlines() if "── " in line]
    assert [kind.__name__ for kind in CloudError.__subclasses__()] == drawn
