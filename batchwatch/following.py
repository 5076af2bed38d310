"""Follow the feed of a daemon over HTTP, and go on where it was left whenever it breaks off.

The other end of ``web/feed.py``: all that a program takes that wants every
event once, in order, and cannot be posted to.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import aiohttp

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping

    from batchwatch.clock import Clock

PAUSES: Final = (0.2, 0.5, 1.0, 2.0, 5.0)  # seconds between two tries; the last for ever
SILENCE: Final = 45.0  # seconds; the feed says something every 15
LONGEST_LINE: Final = 4 * 1024 * 1024  # bytes; the largest event that there is, and some
_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, connect=10.0, sock_read=SILENCE)
_LINE: Final = re.compile(rb"\r\n|\n|\r(?!$)")  # a \r at the end may be half of one
_GONE: Final = (aiohttp.ClientError, TimeoutError, ConnectionError)


class Unfollowable(Exception):
    """The feed cannot be followed, and trying again would not help; says what to do."""


class Removed(Unfollowable):
    """What came after the place that was asked for is no longer kept."""


@dataclass(slots=True)
class Messages:
    """Reads server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html."""

    last_id: str = ""
    _rest: bytes = b""
    _data: list[str] = field(default_factory=list)
    _id: str | None = None

    def feed(self, chunk: bytes) -> Iterator[str]:
        """The data of the messages that are whole by now. Raises ValueError over an endless one."""
        *lines, self._rest = _LINE.split(self._rest + chunk)
        if len(self._rest) + sum(map(len, self._data)) > LONGEST_LINE:
            raise ValueError(f"a message of more than {LONGEST_LINE} bytes")
        for line in lines:
            if line:
                self._take(line.decode(errors="replace"))
                continue
            if self._id is not None:
                self.last_id = self._id  # one without data moves the place, too
            if self._data:
                yield "\n".join(self._data)
            self._data = []

    def _take(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self._id = value


class Daemon:
    """A daemon that is asked over HTTP."""

    def __init__(self, url: str, *, token: str | None, clock: Clock) -> None:
        """``url`` is that of its site, with the path that a proxy serves it under."""
        self.url = url.rstrip("/")
        self._token = token
        self._clock = clock

    async def follow(
        self,
        wanted: Mapping[str, str],
        *,
        after: int | None,
        on_lost: Callable[[str], None] = lambda _: None,
    ) -> AsyncGenerator[dict[str, Any]]:
        """Every event that is ``wanted``, from the place ``after`` on; without it, what is new.

        Goes on where it was when the connection is lost, and says so each
        time with ``on_lost``; the first connection must come about. Raises Unfollowable.
        """
        messages = Messages(last_id="" if after is None else str(after))
        failures: int | None = None  # in a row; None: it was never connected
        async with self._session() as session:
            if after is None:  # else what happens before the first event would be lost with it
                messages.last_id = str(await self._last(session))
            while True:
                try:
                    headers = {"Last-Event-ID": messages.last_id}
                    async with self._asked(
                        session, "/events/stream", params=wanted, headers=headers
                    ) as answer:
                        failures = 0
                        async for chunk in answer.content.iter_any():
                            for text in messages.feed(chunk):
                                yield json.loads(text)
                    reason = "it ended"
                except _GONE as error:
                    if failures is None:
                        raise Unfollowable(self._unreachable(error)) from error
                    reason = str(error) or type(error).__name__
                except ValueError as error:
                    raise Unfollowable(f"{self.url} sends what is no feed: {error}") from error
                if failures == 0:
                    on_lost(reason)
                failures = (failures or 0) + 1
                await self._clock.sleep(PAUSES[min(failures, len(PAUSES)) - 1])

    async def place_of(self, moment: datetime) -> int:
        """The place after which events are no older than ``moment``, and all of them are kept.

        Found by halves: the order of events is nearly that of their times.
        """
        async with self._session() as session:
            try:
                low, high = 0, await self._last(session)
                while low < high:
                    middle = (low + high) // 2
                    try:
                        found = await self._events(session, {"after": str(middle), "limit": "1"})
                    except Removed:  # then nobody can go on from there
                        low = middle + 1
                        continue
                    if found and _moment(found[0]) < moment:
                        low = max(middle + 1, found[0]["seq"])
                    else:
                        high = middle
            except _GONE as error:
                raise Unfollowable(self._unreachable(error)) from error
            return low

    async def _last(self, session: aiohttp.ClientSession) -> int:
        try:
            found = await self._events(session, {"limit": "1"})
        except _GONE as error:
            raise Unfollowable(self._unreachable(error)) from error
        return found[0]["seq"] if found else 0

    async def _events(
        self, session: aiohttp.ClientSession, query: Mapping[str, str]
    ) -> list[dict[str, Any]]:
        async with self._asked(session, "/events", params=query) as answer:
            try:
                items: list[dict[str, Any]] = (await answer.json())["items"]
            except (ValueError, KeyError, TypeError) as error:
                raise Unfollowable(f"{self.url} is no batchwatch: {error}") from error
        return items

    @asynccontextmanager
    async def _asked(
        self, session: aiohttp.ClientSession, path: str, **more: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        async with session.get(f"{self.url}/api/v1{path}", allow_redirects=False, **more) as answer:
            if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                raise aiohttp.ServerDisconnectedError(f"it answered {answer.status}")
            if answer.status == HTTPStatus.GONE:
                raise Removed(await self._refusal(answer))
            if answer.status != HTTPStatus.OK:
                raise Unfollowable(await self._refusal(answer))
            yield answer

    async def _refusal(self, answer: aiohttp.ClientResponse) -> str:
        text = (await answer.content.read(4_096)).decode(errors="replace")
        if answer.content_type != "application/problem+json":
            return (
                f"{self.url} answered {answer.status}, and not as batchwatch would; "
                "name the daemon's address with --url"
            )
        try:
            detail = json.loads(text)["detail"]
        except (ValueError, KeyError, TypeError):
            detail = text
        return f"{self.url} answered {answer.status}: {detail}"

    def _unreachable(self, error: BaseException) -> str:
        if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLError):
            return f"{self.url}: its certificate is not trusted: {error}"
        reason = str(error) or type(error).__name__
        return (
            f"no daemon answers at {self.url} ({reason}); start one with batchwatch run, or name "
            "another one with --url"
        )

    def _session(self) -> aiohttp.ClientSession:
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        return aiohttp.ClientSession(
            headers=headers, timeout=_TIMEOUT, cookie_jar=aiohttp.DummyCookieJar()
        )


async def first(
    events: AsyncGenerator[dict[str, Any]], count: int | None, stop: asyncio.Event
) -> AsyncGenerator[dict[str, Any]]:
    """The first ``count`` of ``events``, or all; none after ``stop``."""
    left = count
    stopping = asyncio.ensure_future(stop.wait())
    try:
        async with aclosing(events):
            while left is None or left > 0:
                coming = asyncio.ensure_future(anext(events))
                await asyncio.wait([coming, stopping], return_when=asyncio.FIRST_COMPLETED)
                if not coming.done():
                    coming.cancel()
                    await asyncio.wait([coming])
                    return
                yield coming.result()
                left = None if left is None else left - 1
    finally:
        stopping.cancel()


def _moment(event: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(event["occurred_at"])
