"""Make one request to one receiver, and tell what came of it, whatever the receiver does."""

from __future__ import annotations

import base64
import binascii
import email.utils
from datetime import UTC
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from yarl import URL

from batchwatch import __version__
from batchwatch.deliver.guard import Forbidden, Guard
from batchwatch.deliver.troubles import explain, limits, ours, refused_by_proxy
from batchwatch.domain.delivery import Attempt, Failure

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from batchwatch.clock import Clock

BODY_LIMIT: Final = 64 * 1024  # bytes of a response that are read
KEPT_LIMIT: Final = 16 * 1024  # characters of it that are kept
# What everybody may know of a request, in lower case; an id is what receivers complain about.
_OPEN_HEADERS: Final = frozenset({
    "accept", "accept-encoding", "content-length", "content-type", "host", "traceparent",
    "user-agent", "webhook-id", "webhook-timestamp", "webhook-request-origin",
    "ce-id", "ce-source", "ce-specversion", "ce-subject", "ce-time", "ce-type",
})  # fmt: skip
_TELLING: Final = 4  # characters; what is shorter is in every text
_TELLING_PART: Final = 12  # characters of a path's part; shorter ones are words such as webhooks
USER_AGENT: Final = f"batchwatch/{__version__}"


ALWAYS: Final = Guard()  # what holds where nothing is set


def new_session(guard: Guard | None = ALWAYS) -> aiohttp.ClientSession:
    """A session for talking to receivers: no cookies, no proxies from the environment.

    Its sockets are made by ``guard``, so that no way leads around it; without
    one they lead anywhere, which is for proxies alone.

    Bodies are not decompressed: a small one could unpack to fill the memory,
    and all that is wanted of them is a look at their start.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=0,  # each endpoint bounds its own
            socket_factory=guard.new_socket if guard else None,
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
        auto_decompress=False,
        trust_env=False,
    )


class Sender:
    """POST with limits: on time, on size, on where it may lead.

    ``tls`` is how the receiver is known and how we are known to it, if not as
    to everybody. ``proxy`` makes the connection in our place and asks the DNS
    itself; all that ``guard`` can do then is to look at hosts that are
    addresses.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        clock: Clock,
        *,
        tls: ssl.SSLContext | None = None,
        proxy: str | None = None,
        guard: Guard = ALWAYS,
    ) -> None:
        self._session = session
        self._clock = clock
        self._guard = guard
        self._proxy = URL(proxy) if proxy else None
        self._way: dict[str, Any] = {}  # what every request is told besides
        if tls is not None:
            self._way["ssl"] = tls
        if self._proxy is not None:
            self._way["proxy"] = self._proxy

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
        failure: Failure | None
        status = retry_after = text = detail = None
        blame = None
        try:
            if self._proxy is not None:
                self._look_at_literal(url)
            async with self._session.request(
                method,
                url,
                data=body,
                headers=headers,
                timeout=limits(timeout),
                allow_redirects=False,
                **self._way,
            ) as response:
                status = response.status
                if answer is not None:
                    answer.update((name.lower(), told) for name, told in response.headers.items())
                text = await _start_of(response)
                failure = _failure_of(status)
                if failure is not None:
                    detail = f"HTTP {status}"
                    retry_after = _seconds(response.headers.get("Retry-After"), started_at)
                if status == 407 and self._proxy is not None:  # nobody else may say so
                    failure, detail = refused_by_proxy(status)
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            failure, detail = explain(error, timeout, proxied=self._proxy is not None)
            blame = ours(error)
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
            ours=blame,
        )

    def _look_at_literal(self, url: str) -> None:
        why = self._guard.refusal_of_literal(URL(url).host or "")
        if why is not None:
            raise Forbidden(why)


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
    if len(text) < _TELLING:
        return text  # as most say that all is well
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
    for name, value in request.headers.items():
        if name.lower() not in _OPEN_HEADERS:
            sent += (value, *_credentials(value))
    for one in sorted(set(sent), key=len, reverse=True):
        if len(one) >= _TELLING:
            text = text.replace(one, "…")
    return text


def _credentials(header: str) -> Iterator[str]:
    """What a header of the form ``Scheme secret`` holds, and how a receiver would name it."""
    scheme, _, secret = header.partition(" ")
    if not secret:
        return
    yield secret
    if scheme.lower() == "basic":
        try:
            login = base64.b64decode(secret).decode("utf-8", "replace")
        except binascii.Error:
            return
        yield login
        yield login.partition(":")[2]


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
