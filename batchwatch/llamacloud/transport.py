"""One question to its answer: within the budget, with a few tries, bounded, and the key kept."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import aiohttp
from yarl import URL

from batchwatch import __version__
from batchwatch.llamacloud import diagnosis
from batchwatch.llamacloud.budget import HeldBack
from batchwatch.llamacloud.errors import CloudError, RateLimited
from batchwatch.llamacloud.headers import read_date, read_retry_after
from batchwatch.llamacloud.wire import Unreadable
from batchwatch.log import get_logger
from batchwatch.traces import OFF

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from batchwatch.clock import Clock
    from batchwatch.llamacloud.budget import Budget, Priority
    from batchwatch.llamacloud.key import ApiKey
    from batchwatch.traces import Traces

log = get_logger()

T = TypeVar("T")

_FIRST_PAUSE: Final = 0.5  # seconds, doubled after each try
_LONGEST_PAUSE: Final = 8.0  # seconds
_ERROR_BODY: Final = 16 * 1024  # bytes of an error's body that are read
_LARGE: Final = 2**20  # bytes; a body beyond is read, and decoded, with no other of its kind


@dataclass(frozen=True, slots=True)
class Limits:
    """What one question may cost.

    A page of a thousand batches has about half a MiB. A batch has a thousand
    files at most; 16 MiB leave 16 KiB for what went wrong with each.
    """

    tries: int = 4
    connect: float = 10.0  # seconds, TLS included
    total: float = 30.0  # seconds, to the last byte of the last try
    body: int = 16 * 2**20  # bytes, after decompression


LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True)
class Question(Generic[T]):
    """A GET, and how to read what it brings."""

    operation: str  # a label from a closed set: list_batches, get_batch, list_jobs, list_files
    path: str  # percent-encoded
    params: list[tuple[str, str]]
    read: Callable[[bytearray], T]  # raises Unreadable
    priority: Priority
    limits: Limits
    template: str = ""  # of a path that has an id in it


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """What a question brought."""

    value: T
    date: datetime | None  # upstream's clock when it answered
    status: int = 200


@dataclass(frozen=True, slots=True)
class RequestReport:
    """One try of a question, for metrics; retries have reports of their own."""

    operation: str
    priority: Priority
    attempt: int  # from 1
    outcome: str  # "ok", or the kind of the CloudError
    status: int | None  # None: no answer came
    duration: float  # seconds
    size: int  # bytes of the body, after decompression


class Transport:
    """Asks upstream, with the key, and only upstream: redirects are never followed."""

    def __init__(
        self,
        *,
        base_url: str,
        key: ApiKey,
        session: aiohttp.ClientSession,
        budget: Budget,
        clock: Clock,
        traces: Traces = OFF,
    ) -> None:
        self._base = _checked(base_url)
        self._traces = traces
        self._key = key
        self._session = session
        self._budget = budget
        self._clock = clock
        # By operation: memory holds one large body of each, however many are asked for at once.
        self._large: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(1))
        self.on_request: Callable[[RequestReport], None] | None = None  # hears of every try
        self.permit: Callable[[], None] | None = None  # before every try; raises what forbids it
        self.requests = 0  # sent so far, retries included

    async def get(self, question: Question[T]) -> Answer[T]:
        """Ask until there is an answer: a few times at most, and not for long.

        Raises :class:`CloudError`: at once where asking again cannot help or
        upstream wants a pause that is longer than there is time, else after
        the last try.
        """
        asked = diagnosis.Asked(self._url(question), self._key)
        limits = question.limits
        deadline: float | None = None  # from the first try on: the budget's time does not count
        attempt = 1
        while True:
            await self._admit(asked, question.priority)
            now = self._clock.monotonic()
            deadline = now + limits.total if deadline is None else deadline
            # Once admitted it is asked, be it in a hurry.
            outcome = await self._told(question, asked, attempt, max(1.0, deadline - now))
            if isinstance(outcome, Answer):
                self._budget.succeeded()
                return outcome
            if isinstance(outcome, RateLimited):
                self._budget.throttled(outcome.retry_after)
            pause = max(_backoff(attempt), outcome.retry_after or 0.0)
            left = deadline - self._clock.monotonic()
            if not outcome.transient or attempt == limits.tries or pause >= left:
                outcome.tries = attempt
                raise outcome
            log.debug(
                "request.failed",
                operation=question.operation,
                attempt=attempt,
                retry_in_s=round(pause, 1),
                reason=str(outcome),
            )
            await self._clock.sleep(pause)
            attempt += 1

    def where(self, path: str) -> str:
        """How errors name a question of ``path``."""
        return diagnosis.Asked(URL(self._base + path, encoded=True), self._key).where

    async def _admit(self, asked: diagnosis.Asked, priority: Priority) -> None:
        try:
            await self._budget.acquire(priority)
        except HeldBack as pause:
            error = diagnosis.held_back(asked, pause.seconds)
        else:
            if self.permit is not None:
                self.permit()
            return
        raise error

    async def _told(
        self, question: Question[T], asked: diagnosis.Asked, attempt: int, seconds: float
    ) -> Answer[T] | CloudError:
        """Ask once, within a span; it names no id, no query and no key."""
        if not self._traces.is_on:
            return await self._try(question, asked, attempt, seconds)
        template = question.template or question.path
        about = {
            "http.request.method": "GET",
            "url.template": template,
            "server.address": asked.url.host,
            "server.port": asked.url.port,
            "batchwatch.operation": question.operation,
            "http.request.resend_count": attempt - 1 or None,
        }
        with self._traces.span(f"GET {template}", about, is_request=True) as span:
            outcome = await self._try(question, asked, attempt, seconds)
            if isinstance(outcome, CloudError):
                span.note({"http.response.status_code": outcome.status, "error.type": outcome.kind})
                span.failed(outcome.kind)
            else:
                span.note({"http.response.status_code": outcome.status})
        return outcome

    async def _try(
        self, question: Question[T], asked: diagnosis.Asked, attempt: int, seconds: float
    ) -> Answer[T] | CloudError:
        """Ask once. A failure is a value, so that no error drags aiohttp's along as its context."""
        self.requests += 1
        begun = self._clock.monotonic()
        status: int | None = None
        body = bytearray()
        outcome: Answer[T] | CloudError
        try:
            async with self._session.get(
                asked.url,
                headers={
                    "Accept": "application/json",
                    "Authorization": self._key.header(),
                    "User-Agent": f"batchwatch/{__version__}",
                },
                allow_redirects=False,
                raise_for_status=False,
                timeout=aiohttp.ClientTimeout(
                    total=min(seconds, question.limits.total),
                    sock_connect=question.limits.connect,
                ),
            ) as response:
                status = response.status
                outcome = await self._answer(question, asked, response, body)
        except (aiohttp.ClientError, OSError) as error:
            outcome = diagnosis.unreachable(asked, error, status)
        if self.on_request is not None:
            self.on_request(
                RequestReport(
                    operation=question.operation,
                    priority=question.priority,
                    attempt=attempt,
                    outcome=outcome.kind if isinstance(outcome, CloudError) else "ok",
                    status=status,
                    duration=self._clock.monotonic() - begun,
                    size=len(body),
                )
            )
        return outcome

    async def _answer(
        self,
        question: Question[T],
        asked: diagnosis.Asked,
        response: aiohttp.ClientResponse,
        body: bytearray,
    ) -> Answer[T] | CloudError:
        """What ``response`` means; its body is left in ``body``."""
        status, headers = response.status, response.headers
        if status < 300:
            limit = question.limits.body
            if await _fill(body, response, min(_LARGE, limit)):
                return self._read(question, asked, response, body)
            async with self._large[question.operation]:
                if not await _fill(body, response, limit):
                    del body[limit:]
                    return diagnosis.oversized(asked, status, limit)
                # In a thread, for it takes long enough to hold up everything else.
                return await asyncio.to_thread(self._read, question, asked, response, body)
        if status < 400:
            return diagnosis.redirected(asked, status, headers.get("Location", ""))
        with suppress(aiohttp.ClientError, OSError):  # without a body the status says enough
            await _fill(body, response, _ERROR_BODY)
        del body[_ERROR_BODY:]
        retry_after = read_retry_after(headers, now=self._clock.now())
        return diagnosis.refused(asked, status, body, retry_after)

    def _read(
        self,
        question: Question[T],
        asked: diagnosis.Asked,
        response: aiohttp.ClientResponse,
        body: bytearray,
    ) -> Answer[T] | CloudError:
        try:
            return Answer(question.read(body), read_date(response.headers), response.status)
        except Unreadable as error:
            expected = str(error)
        content_type = response.headers.get("Content-Type", "")
        return diagnosis.garbled(asked, response.status, content_type, body, expected)

    def _url(self, question: Question[T]) -> URL:
        return URL(self._base + question.path, encoded=True).with_query(question.params)


async def _fill(body: bytearray, response: aiohttp.ClientResponse, limit: int) -> bool:
    """Read until ``body`` has more than ``limit`` bytes, decompressed; whether it ended before."""
    while len(body) <= limit:
        chunk = await response.content.readany()
        if not chunk:
            return True
        body += chunk
    return False


def _backoff(attempt: int) -> float:
    """Seconds to wait after the ``attempt``-th try, spread as the official SDK does."""
    pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** (attempt - 1))
    return pause * random.uniform(0.75, 1.0)


def _checked(base_url: str) -> str:
    """``base_url`` without a slash at its end.

    Raises ``ValueError`` if it is no plain address of a server. The message
    does not repeat it: what is wrong with it may be a password in it.
    """
    try:
        url = URL(base_url)
    except ValueError:
        url = URL()  # which has no scheme; yarl's own words would repeat what it was given
    plain = url.scheme in ("http", "https") and url.host and not (url.query_string or url.fragment)
    if not plain or url.user or url.password:
        raise ValueError("the base URL must be http(s)://host[:port][/path], and nothing else")
    return str(url).rstrip("/")
