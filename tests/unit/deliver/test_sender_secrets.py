"""Whatever a receiver does, no word that is kept or logged of it lets anybody else post."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from batchwatch.deliver.sender import KEPT_LIMIT
from tests.support.receiver import says
from tests.unit.deliver.sockets import a_closed_port, an_answer, saying

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp import web

    from batchwatch.deliver.sender import Sender
    from tests.support.receiver import Receiver

PATH = "/services/T0001/B0002/path-s3cret"
QUERY = "?token=query-s3cret"
LOGIN = "user:login-s3cret"
HEADERS = {"X-Key": "header-s3cret"}


def with_secrets(url: str, path: str = PATH + QUERY) -> str:
    scheme, _, host = url.partition("://")
    return f"{scheme}://{LOGIN}@{host}{path}"


@asynccontextmanager
async def trouble(kind: str) -> AsyncIterator[str]:
    """The URL of a receiver that is in ``kind`` of trouble."""
    if kind == "closed":
        yield await a_closed_port()
    elif kind == "unusable":
        yield "http://a..b"
    elif kind in ("hang", "reset"):
        async with saying(b"", then="hang" if kind == "hang" else "reset") as line:
            yield line.url
    elif kind == "not http":
        async with saying(b"no http\r\n") as line:
            yield line.url
    else:
        answer = an_answer(f"{kind} No", Location=f"https://127.0.0.1{PATH}", Retry_After="5")
        async with saying(answer) as line:
            yield line.url


@pytest.mark.parametrize(
    "kind",
    [
        *("closed", "unusable", "hang", "reset", "not http"),
        *("200", "302", "404", "410", "429", "500"),
    ],
)
async def test_no_word_of_an_attempt_holds_a_secret(kind: str, sender: Sender) -> None:
    """Path, query and login of a URL may be what lets one post, and so may a header."""
    async with trouble(kind) as url:
        attempt = await sender.post(with_secrets(url), b"{}", HEADERS, timeout=0.2)

    assert "s3cret" not in repr(attempt)


@pytest.mark.parametrize("status", [200, 404])
async def test_a_secret_that_the_receiver_repeats_is_not_kept(
    status: int, sender: Sender, receiver: Receiver
) -> None:
    """The start of an answer is for people to read, and for logs and tables to show."""

    async def echo(request: web.Request) -> web.StreamResponse:
        return await says(status, f"Cannot POST {request.path_qs} {request.headers}")(request)

    receiver.always = echo

    attempt = await sender.post(with_secrets(receiver.url), b"{}", HEADERS, timeout=9)

    assert "Cannot POST" in (attempt.response or "")
    assert "s3cret" not in repr(attempt)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        pytest.param("/hook?token=s3cret&to=ops", "POST /hook?token=s3cret&amp;to=ops", id="HTML"),
        pytest.param(PATH, "y" * (KEPT_LIMIT - len(PATH) + 1) + PATH, id="cut off"),
    ],
)
async def test_a_secret_that_is_repeated_in_part_is_not_kept(
    path: str, said: str, sender: Sender, receiver: Receiver
) -> None:
    """Pages escape what they repeat, and an answer is kept to a limit."""
    receiver.always = says(404, said)

    attempt = await sender.post(f"{receiver.url}{path}", b"{}", {}, timeout=9)

    assert said[:4] == (attempt.response or "")[:4]
    assert "s3cre" not in repr(attempt)


async def test_what_is_no_secret_is_kept_as_it_was_said(sender: Sender, receiver: Receiver) -> None:
    """The id is what a receiver names when it complains, and what one looks for."""
    said = "evt_1 was seen before; webhooks are taken once"
    receiver.always = says(409, said)

    attempt = await sender.post(
        f"{receiver.url}/webhooks/v1", b"{}", {"webhook-id": "evt_1"}, timeout=9
    )

    assert said == attempt.response


async def test_a_login_in_the_url_is_used(sender: Sender, receiver: Receiver) -> None:
    """For basic authentication, and stays out of the request's line."""
    await sender.post(with_secrets(receiver.url, "/hook"), b"{}", {}, timeout=9)

    (received,) = receiver.received
    assert "Basic dXNlcjpsb2dpbi1zM2NyZXQ=" == received.headers["authorization"]
    assert "/hook" == received.path


@pytest.mark.parametrize(
    ("header", "repeated"),
    [
        ("Bearer token-s3cret", "token-s3cret"),
        ("Bearer token-s3cret", "Bearer token-s3cret"),
        ("Basic b3BzOnBhc3Mtd29yZDpzM2NyZXQ=", "b3BzOnBhc3Mtd29yZDpzM2NyZXQ="),
        ("Basic b3BzOnBhc3Mtd29yZDpzM2NyZXQ=", "ops:pass-word:s3cret"),
        ("Basic b3BzOnBhc3Mtd29yZDpzM2NyZXQ=", "pass-word:s3cret"),
        ("Basic s3cret", "s3cret"),
    ],
)
async def test_what_we_say_who_we_are_with_is_not_kept(
    header: str, repeated: str, sender: Sender, receiver: Receiver
) -> None:
    """Receivers name the token that they do not know, and the password without its user."""
    receiver.always = says(401, f"There is no {repeated}.")

    attempt = await sender.post(receiver.url, b"{}", {"authorization": header}, timeout=9)

    assert "There is no …." == attempt.response
    assert "s3cret" not in repr(attempt)
