"""One request to one receiver: whatever it does is told, in words that hold no secret."""

from __future__ import annotations

import errno
import gzip
import socket
from datetime import timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import pytest

from batchwatch import __version__
from batchwatch.deliver.sender import KEPT_LIMIT
from batchwatch.deliver.troubles import limits
from batchwatch.domain.delivery import Failure
from tests.support.clock import EPOCH
from tests.support.receiver import says
from tests.unit.deliver.sockets import a_closed_port, an_answer, saying

if TYPE_CHECKING:
    from pathlib import Path

    from batchwatch.deliver.sender import Sender
    from batchwatch.domain.delivery import Attempt
    from tests.support.receiver import Receiver

BODY = b'{"type": "batch.running"}'
LONG = 30.0  # seconds; a limit that no test here reaches
SHORT = 0.2  # seconds; a limit that is to be reached

HEADERS_ONLY = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
ENDLESS = b"HTTP/1.1 %b\r\nContent-Type: text/plain\r\n\r\n"


async def post(
    sender: Sender, url: str, *, limit: float = LONG, headers: dict[str, str] | None = None
) -> Attempt:
    return await sender.post(url, BODY, headers or {}, timeout=limit)


async def test_what_is_posted_arrives_as_it_is(sender: Sender, receiver: Receiver) -> None:
    """The bytes of the body and each header, for a signature covers them."""
    attempt = await post(sender, f"{receiver.url}/hook?a=%2F&b", headers={"X-Team": "ops"})

    (received,) = receiver.received
    assert (None, 200, EPOCH, "ok") == (
        attempt.failure,
        attempt.status_code,
        attempt.started_at,
        attempt.response,
    )
    assert (BODY, "ops") == (received.body, received.headers["x-team"])
    assert f"batchwatch/{__version__}" == received.headers["user-agent"]
    assert "identity" == received.headers["accept-encoding"]


@pytest.mark.parametrize("status", [200, 201, 202, 204, 206, 226, 299])
async def test_any_2xx_is_success(status: int, sender: Sender, receiver: Receiver) -> None:
    """As the standard has it; what else the answer says does not matter."""
    receiver.always = says(status)

    attempt = await post(sender, receiver.url)

    assert (None, status, None) == (attempt.failure, attempt.status_code, attempt.detail)


@pytest.mark.parametrize(
    ("status", "failure"),
    [
        *((status, Failure.REDIRECT) for status in (300, 304)),
        *((status, Failure.CLIENT_ERROR) for status in (400, 401, 403, 404, 408, 409, 422)),
        (410, Failure.GONE),
        (429, Failure.RATE_LIMITED),
        *((status, Failure.SERVER_ERROR) for status in (500, 502, 503, 504, 599)),
    ],
)
async def test_any_other_status_is_a_failure_of_its_kind(
    status: int, failure: Failure, sender: Sender, receiver: Receiver
) -> None:
    """With the status for people, and the start of what was said."""
    receiver.always = says(status, "" if status == 304 else "why not")

    attempt = await post(sender, receiver.url)

    assert (failure, status, f"HTTP {status}") == (
        attempt.failure,
        attempt.status_code,
        attempt.detail,
    )
    assert attempt.response == (None if status == 304 else "why not")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(status: int, sender: Sender, receiver: Receiver) -> None:
    """Not even on the same host: a signed request goes where it was meant to, or nowhere."""
    receiver.always = says(status, Location=f"{receiver.url}/elsewhere")

    attempt = await post(sender, f"{receiver.url}/hook")

    assert (Failure.REDIRECT, f"HTTP {status}") == (attempt.failure, attempt.detail)
    assert ["/hook"] == [one.path for one in receiver.received]


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (" 7 ", 7.0),
        ("0", 0.0),
        (format_datetime(EPOCH + timedelta(seconds=90), usegmt=True), 90.0),
        (format_datetime(EPOCH + timedelta(hours=2)), 7200.0),
        (format_datetime(EPOCH - timedelta(days=1), usegmt=True), 0.0),
        ("9" * 40, 999_999_999_999.0),
    ],
)
async def test_retry_after_is_read_as_seconds_or_as_a_date(
    value: str, seconds: float, status: int, sender: Sender, receiver: Receiver
) -> None:
    """A date that is over means now; how much of it is obeyed is not decided here."""
    receiver.always = says(status, Retry_After=value)

    assert seconds == (await post(sender, receiver.url)).retry_after


@pytest.mark.parametrize(
    "value",
    [
        "",
        "soon",
        "-1",
        "1.5",
        "1e3",
        "2026-11-24T09:00:00Z",
        "Tue, 24 Nov 99999 09:00:00 GMT",
        "9" * 5000 + " Nov 2026",
        f"Tue, 24 Nov 2026 09:00:00 +{'9' * 20}",
    ],
)
async def test_a_retry_after_that_makes_no_sense_is_ignored(
    value: str, sender: Sender, receiver: Receiver
) -> None:
    """The answer is judged by its status, as if the header were not there."""
    receiver.always = says(503, Retry_After=value)

    attempt = await post(sender, receiver.url)

    assert (Failure.SERVER_ERROR, None) == (attempt.failure, attempt.retry_after)


async def test_a_success_asks_for_no_pause(sender: Sender, receiver: Receiver) -> None:
    """Whatever its headers say."""
    receiver.always = says(200, Retry_After="60")

    assert None is (await post(sender, receiver.url)).retry_after


async def test_a_receiver_that_is_down_is_told(sender: Sender) -> None:
    """As trouble of the connection: there is no status."""
    attempt = await post(sender, await a_closed_port())

    assert (Failure.CONNECT, None) == (attempt.failure, attempt.status_code)


@pytest.mark.parametrize("said", ["Connection refused", "Connect call failed ('127.0.0.1', 1)"])
async def test_a_receiver_that_is_down_is_said_in_plain_words(
    said: str, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the system's name for it, which can be searched for."""

    async def refused(*_: Any, **__: Any) -> None:
        raise ConnectionRefusedError(errno.ECONNREFUSED, said)

    # Which of the two asyncio says depends on the kernel's pace; so it is made to fail here.
    monkeypatch.setattr("aiohttp.connector.aiohappyeyeballs.start_connection", refused)

    attempt = await post(sender, "http://127.0.0.1:1/hook")

    assert (Failure.CONNECT, "no connection: Connection refused") == (
        attempt.failure,
        attempt.detail,
    )


@pytest.mark.parametrize("code", [socket.EAI_NONAME, socket.EAI_AGAIN])
async def test_a_name_that_cannot_be_resolved_is_told(
    code: int, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether there is no such name or nobody to ask."""

    def unresolved(*_: Any, **__: Any) -> None:
        raise socket.gaierror(code, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unresolved)  # no test asks the real DNS

    attempt = await post(sender, "http://receiver.invalid/hook")

    assert (Failure.DNS, "the host's name could not be resolved") == (
        attempt.failure,
        attempt.detail,
    )


@pytest.mark.parametrize(
    ("said", "then", "status"),
    [
        (b"", "hang", None),
        (b"HTTP/1.1 200 OK\r\nX-Half: a head", "hang", None),
        (b"HTTP/1.1 200 OK\r\nX-Slow: ", "drip", None),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "hang", None),
        (HEADERS_ONLY, "hang", 200),
        (HEADERS_ONLY + b"half", "hang", 200),
        (HEADERS_ONLY, "drip", 200),
        (ENDLESS % b"500 Oops", "drip", 500),
    ],
    ids=[
        "no answer",
        "half a head",
        "a head a byte at a time",
        "an interim answer and no other",
        "nothing after the headers",
        "half a body",
        "a body a byte at a time",
        "an error a byte at a time",
    ],
)
async def test_the_limit_is_for_the_whole_exchange(
    said: bytes, then: Any, status: int | None, sender: Sender
) -> None:
    """However it is dragged out; then the line is closed, so that it costs nothing more."""
    async with saying(said, then=then) as line:
        attempt = await post(sender, line.url, limit=SHORT)
        await line.hung_up.wait()

    detail = f"no whole answer within {SHORT:g} s"
    assert (Failure.TIMEOUT, status) == (attempt.failure, attempt.status_code)
    assert attempt.detail == (detail if status is None else f"HTTP {status}, then {detail}")


@pytest.mark.parametrize(
    ("status", "failure"), [(b"200 OK", None), (b"500 Oops", Failure.SERVER_ERROR)]
)
async def test_an_answer_without_end_is_read_so_far_and_no_further(
    status: bytes, failure: Failure | None, sender: Sender
) -> None:
    """Its start is kept, its status counts, and the line is closed."""
    async with saying(ENDLESS % status, then="flood") as line:
        attempt = await post(sender, line.url, limit=5)
        await line.hung_up.wait()

    assert (failure, "x" * KEPT_LIMIT) == (attempt.failure, attempt.response)


@pytest.mark.parametrize("said", [b"", HEADERS_ONLY, HEADERS_ONLY + b"half"])
async def test_silence_ends_a_request_before_a_long_limit_does(
    said: bytes, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who may think for five minutes must at least be there."""
    monkeypatch.setattr("batchwatch.deliver.troubles.READ_TIMEOUT", SHORT)
    limits.cache_clear()

    async with saying(said, then="hang") as line:
        attempt = await post(sender, line.url)
        await line.hung_up.wait()
    limits.cache_clear()

    assert Failure.TIMEOUT is attempt.failure
    assert (attempt.detail or "").endswith(f"nothing was heard for {SHORT:g} s")


async def test_a_receiver_that_takes_no_connection_is_not_waited_for_long(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has not come about in a few seconds does not come about in minutes."""
    monkeypatch.setattr("batchwatch.deliver.troubles.CONNECT_TIMEOUT", SHORT)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        host, port = server.getsockname()
        with socket.create_connection((host, port)):  # all that the system takes for it
            attempt = await post(sender, f"http://{host}:{port}/")

    assert (Failure.TIMEOUT, f"no connection within {SHORT:g} s") == (
        attempt.failure,
        attempt.detail,
    )


async def test_a_body_that_is_compressed_unasked_is_not_unpacked(
    sender: Sender, receiver: Receiver
) -> None:
    """A kilobyte may unpack to a gigabyte; its name and its size are enough."""
    packed = gzip.compress(b"0" * 10_000_000)

    async with saying(an_answer("200 OK", packed, Content_Encoding="gzip")) as line:
        attempt = await post(sender, line.url)

    assert (None, f"('gzip', {len(packed)} bytes)") == (attempt.failure, attempt.response)
    assert [] == receiver.received


@pytest.mark.parametrize(
    "answer",
    [
        an_answer("500 Oops", b"\xff\xfe\xed\xa0\x80 \x00 \xc3"),
        b"HTTP/1.1 500 \xff\r\nX-Odd: \xff\r\nContent-Length: 2\r\n\r\n\x00!",
        b"HTTP/1.1 500 Oops\r\nContent-Encoding: gz\xff\r\nContent-Length: 2\r\n\r\nhi",
    ],
)
async def test_what_is_kept_of_an_answer_can_be_written_down(answer: bytes, sender: Sender) -> None:
    """As text without NUL, in any database: a receiver must not be able to break the store."""
    async with saying(answer) as line:
        attempt = await post(sender, line.url)

    assert Failure.SERVER_ERROR is attempt.failure
    kept = attempt.response or ""
    assert "\x00" not in kept.encode().decode()


@pytest.mark.parametrize(
    ("said", "status", "detail"),
    [
        (b"", None, "the connection broke before an answer came"),
        (HEADERS_ONLY + b"half", 200, "HTTP 200, then the answer broke off"),
    ],
    ids=["before the answer", "in the midst of it"],
)
@pytest.mark.parametrize("then", ["close", "reset"])
async def test_an_answer_that_breaks_off_is_no_answer(
    then: Any, said: bytes, status: int | None, detail: str, sender: Sender
) -> None:
    """Even after a 200: what the receiver did with the rest, nobody knows."""
    async with saying(said, then=then) as line:
        attempt = await post(sender, line.url)

    assert (Failure.RESET, status) == (attempt.failure, attempt.status_code)
    if then == "close":  # after a reset, whether the half before it arrived is up to the kernel
        assert detail == attempt.detail


@pytest.mark.parametrize(
    "said",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"hello\n",
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n!!",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 70_000 + b"\r\n",
    ],
    ids=[
        "ssh",
        "a greeting",
        "a TLS alert",
        "HTTP/2",
        "a length that is none",
        "a length below zero",
        "two lengths",
        "a header too long",
        "headers without end",
    ],
)
async def test_what_is_not_http_is_told_as_such(said: bytes, sender: Sender) -> None:
    """Something else listens there; that is for somebody to mend."""
    async with saying(said) as line:
        attempt = await post(sender, line.url)

    assert (Failure.PROTOCOL, "what came back is not HTTP") == (attempt.failure, attempt.detail)


@pytest.mark.parametrize(
    "url",
    [
        "http:///hook",
        "http://127.0.0.1:99999/hook",
        "http://hooks..test/hook",
        f"http://{'a' * 64}.test/hook",
        "ftp://127.0.0.1/hook",
    ],
)
async def test_a_url_that_cannot_be_used_is_told(url: str, sender: Sender) -> None:
    """It would be as wrong the next time, so there is none."""
    attempt = await post(sender, url)

    assert (Failure.UNUSABLE, "the URL or a header cannot be used") == (
        attempt.failure,
        attempt.detail,
    )


@pytest.mark.parametrize("headers", [{"X-Team": "a\r\nX-Admin: yes"}, {"X-Team\n": "a"}])
async def test_a_header_that_cannot_be_used_is_told(
    headers: dict[str, str], sender: Sender, receiver: Receiver
) -> None:
    """And nothing is sent: a line break would smuggle in a header of its own."""
    attempt = await post(sender, receiver.url, headers=headers)

    assert Failure.UNUSABLE is attempt.failure
    assert [] == receiver.received


async def test_nothing_of_the_environment_leads_elsewhere(
    sender: Sender, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Neither a proxy nor a netrc: what is signed for one host is for that host."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, await a_closed_port())
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))

    attempt = await post(sender, receiver.url)

    assert None is attempt.failure
    assert "authorization" not in receiver.received[0].headers


async def test_no_cookie_is_kept(sender: Sender, receiver: Receiver) -> None:
    """Receivers are strangers to each other, also those on one host."""
    receiver.answers = [says(200, Set_Cookie="session=1; Path=/")]

    await post(sender, receiver.url)
    await post(sender, receiver.url)

    assert [False, False] == ["cookie" in one.headers for one in receiver.received]


async def test_a_line_that_failed_is_not_used_again(sender: Sender, receiver: Receiver) -> None:
    """The next request goes over a new one, and nothing of the last answer is read for its own."""
    async with saying(an_answer("200 OK") + b"HTTP/1.1 500 Smuggled\r\n\r\n", then="hang") as line:
        statuses = [(await post(sender, line.url)).status_code for _ in range(2)]

    assert [200, 200] == statuses
    assert [] == receiver.received
