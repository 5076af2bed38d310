"""Make one request to one receiver, and tell what came of it, whatever the receiver does."""

from __future__ import annotations

import asyncio
import email.utils
import os
import socket
import ssl
from datetime import UTC
from typing import TYPE_CHECKING, Final

import aiohttp

from batchwatch import __version__
from batchwatch.domain.delivery import Attempt, Failure

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from batchwatch.clock import Clock

BODY_LIMIT: Final = 64 * 1024  # bytes of a response that are read
KEPT_LIMIT: Final = 16 * 1024  # characters of it that are kept
CONNECT_TIMEOUT: Final = 10.0  # seconds
# What everybody may know of a request, in lower case; an id is what receivers complain about.
_OPEN_HEADERS: Final = frozenset({
    "accept", "accept-encoding", "content-length", "content-type", "host", "user-agent",
    "webhook-id", "webhook-timestamp", "webhook-request-origin",
    "ce-id", "ce-source", "ce-specversion", "ce-subject", "ce-time", "ce-type",
})  # fmt: skip
_TELLING: Final = 4  # characters; what is shorter is in every text
_TELLING_PART: Final = 12  # characters of a path's part; shorter ones are words such as webhooks
USER_AGENT: Final = f"batchwatch/{__version__}"


def new_session() -> aiohttp.ClientSession:
    """A session for talking to receivers: no cookies, no proxies from the environment.

    Bodies are not decompressed: a small one could unpack to fill the memory,
    and all that is wanted of them is a look at their start.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),  # each endpoint bounds its own
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
        auto_decompress=False,
        trust_env=False,
    )


class Sender:
    """POST with limits: on time, on size, on where it may lead."""

    def __init__(self, session: aiohttp.ClientSession, clock: Clock) -> None:
        self._session = session
        self._clock = clock

    async def post(
        self,
        url: str,
        body: bytes,
        headers: Mapping[str, str],
        *,
        timeout: float,  # noqa: ASYNC109  # seconds for the whole exchange, told to aiohttp
        method: str = "POST",
        answer: dict[str, str] | None = None,
    ) -> Attempt:
        """Send ``body`` and read the answer; ``timeout`` seconds for all of it.

        Any 2xx that ends in time is success. Redirects are not followed: a
        receiver must not be able to point a signed request elsewhere. The
        headers of the answer are put into ``answer``, in lower case.
        """
        started_at = self._clock.now()
        begun = self._clock.monotonic()
        limits = aiohttp.ClientTimeout(total=timeout, sock_connect=min(timeout, CONNECT_TIMEOUT))
        failure: Failure | None
        status = retry_after = text = detail = None
        try:
            async with self._session.request(
                method, url, data=body, headers=headers, timeout=limits, allow_redirects=False
            ) as response:
                status = response.status
                if answer is not None:
                    answer.update((name.lower(), told) for name, told in response.headers.items())
                text = await _start_of(response)
                failure = _failure_of(status)
                if failure is not None:
                    detail = f"HTTP {status}"
                    retry_after = _seconds(response.headers.get("Retry-After"), started_at)
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            failure, detail = _explain(error, timeout)
            if status is not None:
                detail = f"HTTP {status}, then {detail}"
        return Attempt(
            started_at=started_at,
            duration=self._clock.monotonic() - begun,
            failure=failure,
            status_code=status,
            detail=detail,
            response=text,
            retry_after=retry_after,
        )


async def _start_of(response: aiohttp.ClientResponse) -> str | None:
    """Read at most the limit, and keep the start of it as text."""
    size = 0
    chunks: list[bytes] = []
    async for chunk in response.content.iter_any():
        chunks.append(chunk)
        size += len(chunk)
        if size >= BODY_LIMIT:
            response.close()  # not released: the rest is still on its way
            break
    if not chunks:
        return None
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        return f"({encoding[:20]!a}, {size} bytes)"
    text = b"".join(chunks).decode("utf-8", "replace")
    text = text.replace("\x00", "\N{REPLACEMENT CHARACTER}")
    # before the cut, which may go through a secret
    return _without_secrets(text, response.request_info)[:KEPT_LIMIT]


def _without_secrets(text: str, request: aiohttp.RequestInfo) -> str:
    """``text`` without what we sent that may be secret, should the receiver repeat it.

    Many answer an unknown path with its name. Paths, queries and the values
    of headers may each be what lets somebody in.
    """
    url = request.url
    sent = [url.raw_path_qs, url.path_qs, url.raw_query_string, url.query_string, url.raw_path]
    sent += url.query.values()
    sent += [part for part in (*url.raw_parts, *url.parts) if len(part) >= _TELLING_PART]
    sent += [value for name, value in request.headers.items() if name.lower() not in _OPEN_HEADERS]
    for one in sorted(set(sent), key=len, reverse=True):
        if len(one) >= _TELLING:
            text = text.replace(one, "…")
    return text


def _failure_of(status: int) -> Failure | None:
    if 200 <= status < 300:
        return None
    if 300 <= status < 400:
        return Failure.REDIRECT
    if status == 410:
        return Failure.GONE
    if status == 429:
        return Failure.RATE_LIMITED
    return Failure.CLIENT_ERROR if status < 500 else Failure.SERVER_ERROR


def _explain(error: Exception, timeout: float) -> tuple[Failure, str]:
    """The kind of a failure and a line for people, without the URL: it may be a secret."""
    match error:
        case asyncio.TimeoutError():
            return Failure.TIMEOUT, f"no whole answer within {timeout:g} s"
        case aiohttp.ClientConnectorDNSError() | socket.gaierror():
            return Failure.DNS, "the host's name could not be resolved"
        case aiohttp.ClientConnectorCertificateError() | ssl.SSLCertVerificationError():
            cause = getattr(error, "certificate_error", error)
            reason = getattr(cause, "verify_message", None) or "not trusted"
            return Failure.TLS, f"the certificate was refused: {reason}"
        case aiohttp.ClientSSLError() | ssl.SSLError():
            return Failure.TLS, "the TLS handshake failed"
        case aiohttp.ClientConnectorError():
            code = error.os_error.errno
            return Failure.CONNECT, f"no connection: {os.strerror(code) if code else 'refused'}"
        case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError() | ValueError():
            return Failure.UNUSABLE, "the URL or a header cannot be used"
        case aiohttp.ClientResponseError():
            return Failure.PROTOCOL, "what came back is not HTTP"
        case aiohttp.ClientPayloadError():
            return Failure.RESET, "the answer broke off"
        case _:
            return Failure.RESET, "the connection broke before an answer came"


def _seconds(value: str | None, now: datetime) -> float | None:
    """``Retry-After`` in seconds, from a number or a date; nonsense is ignored."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:12])
    try:
        moment = email.utils.parsedate_to_datetime(value)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max(0.0, (moment - now).total_seconds())
    except (ValueError, OverflowError):
        return None
