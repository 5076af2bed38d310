"""The live feed: events as they are committed, for whoever holds a request open (SSE).

https://html.spec.whatwg.org/multipage/server-sent-events.html. Who was away
says with ``Last-Event-ID`` what came last, and misses nothing.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, Struct, UnsetType

from batchwatch.store import StoreError, WantedEvents
from batchwatch.web.api import answers
from batchwatch.web.api.events import Place, Type, event_of, refuse_the_removed
from batchwatch.web.api.operation import BASE, Operation, Text, given, read_query
from batchwatch.web.problem import Problem
from batchwatch.web.route import Role, Route

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from batchwatch.store.pages import Key
    from batchwatch.web.live import Live

PATH: Final = f"{BASE}/events/stream"
MEDIA: Final = "text/event-stream"
TICKS_PATH: Final = "/live"
STREAMS: Final = 100  # open at once
PAGE: Final = 100  # events that are read at once
SIGN_OF_LIFE: Final = 15.0  # seconds without an event; proxies end what says nothing for a minute
ELSEWHERE: Final = 2.0  # seconds between looks for what other processes have committed
SLOWEST: Final = 60.0  # seconds for one message to be taken
LOOK: Final = 1.0  # seconds between looks whether the asker is still there
LONGEST: Final = 3600.0  # seconds; whoever is still there comes again
APART: Final = 1.0  # seconds between two ticks
QUIET: Final = 10.0  # seconds without a tick, where who polls what may change without a word
RETRY: Final = 2_000  # ms until a browser that lost the connection comes again


class Query(Struct, forbid_unknown_fields=True):
    """Which events; those that match all that is given."""

    type: Type | UnsetType = UNSET
    watch: Text | UnsetType = UNSET
    batch: Text | UnsetType = UNSET
    after: (
        Annotated[
            Place,
            Meta(
                description="Begin after this `seq`; without it, and without Last-Event-ID, with "
                "what comes next. 0 is the beginning.",
            ),
        ]
        | UnsetType
    ) = UNSET


class Feed:
    """Streams to whoever may read."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._open = 0

    @property
    def operation(self) -> Operation:
        """What the API's document says of it."""
        return Operation(
            method="GET",
            path="/events/stream",
            name="stream_events",
            tag="events",
            summary="Get events as they happen, for as long as you listen.",
            text="As server-sent events: the id of each is its `seq`, its data the event as JSON. "
            "Who was away sends the last id as Last-Event-ID, and misses nothing. Without "
            "anything new there is a comment every 15 s; after an hour it ends, and you come "
            "again. Where some that came after your place are no longer kept, the answer is 410.",
            role=Role.READ,
            query=Query,
            body=None,
            answer=answers.Event,
            status=200,
            finds=False,
            handler=self.events,
            media=MEDIA,
        )

    def routes(self) -> list[Route]:
        """What is to be served."""
        return [
            Route("GET", PATH, self.events),
            Route("GET", TICKS_PATH, self.ticks),
        ]

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Every event that matches, from where the asker was on."""
        fields = given(read_query(request, Query))
        after = fields.pop("after", None)
        if seen := request.headers.get("Last-Event-ID", "").strip():
            if not re.fullmatch("[0-9]{1,18}", seen):
                raise Problem(400, "Last-Event-ID: give the id of an event of this stream")
            after = int(seen)
        last = await self._live.store.pages.last_event()
        # What is beyond the end is a place in a store that was lost; nothing would come for long.
        after = last if after is None else min(after, last)
        wanted = WantedEvents(**fields, oldest_first=True)
        await refuse_the_removed(self._live, wanted, after)
        return await self._stream(request, self._since(after, wanted))

    async def ticks(self, request: web.Request) -> web.StreamResponse:
        """A word whenever anything has changed, once a second at most: pages are shown anew."""
        return await self._stream(request, self._ticks())

    async def _since(self, after: int, wanted: WantedEvents) -> AsyncGenerator[bytes]:
        """The stream's text from ``after`` on; it has no end."""
        place: Key = (after,)
        clock = self._live.clock
        said = clock.monotonic()
        # So that whoever is cut off before anything has come goes on here, and not at the end.
        yield b"id: %d\n\n" % after
        with self._live.listening() as heard:
            while True:
                heard.clear()
                end = await self._live.store.pages.last_event()
                page = await self._live.store.pages.events(wanted, after=place, limit=PAGE)
                for row in page.rows:
                    place = (row["seq"],)
                    data = msgspec.json.encode(event_of(row))
                    yield b"id: %d\ndata: %b\n\n" % (row["seq"], data)
                if page.after is not None:
                    if page.after != place:  # it looked far, and nobody has to look there again
                        place = page.after
                        yield f"id: {place[0]}\n\n".encode()
                    said = clock.monotonic()
                    continue
                place = max(place, (end,))  # what does not match is looked at once as well
                if page.rows:
                    said = clock.monotonic()
                await clock.wait(heard, ELSEWHERE)
                if clock.monotonic() - said >= SIGN_OF_LIFE:
                    said = clock.monotonic()
                    yield b": still here\n\n"

    async def _ticks(self) -> AsyncGenerator[bytes]:
        clock, is_shared = self._live.clock, self._live.is_shared
        with self._live.listening() as heard:
            while True:
                if await clock.wait(heard, QUIET if is_shared else SIGN_OF_LIFE) or is_shared:
                    heard.clear()
                    yield b"data: changed\n\n"
                    await clock.sleep(APART)
                else:
                    yield b": still here\n\n"

    async def _stream(
        self, request: web.Request, texts: AsyncGenerator[bytes]
    ) -> web.StreamResponse:
        """Send ``texts`` until the asker leaves, the daemon stops, or it has lasted an hour."""
        response = web.StreamResponse(
            headers={
                "Content-Type": MEDIA,
                "Cache-Control": "no-store",
                "X-Accel-Buffering": "no",  # or nginx would keep it to itself
            }
        )
        if request.method == "HEAD":
            return response
        if self._open >= STREAMS:
            raise Problem(503, f"{STREAMS} streams are open already", headers={"Retry-After": "30"})
        self._open += 1
        try:
            await response.prepare(request)
            await response.write(b"retry: %d\n\n" % RETRY)
            sending = asyncio.ensure_future(_send(request, response, texts))
            stopping = asyncio.ensure_future(self._live.stopping.wait())
            leaving = asyncio.ensure_future(self._left(request))
            ends = (sending, stopping, leaving)
            try:
                await asyncio.wait(ends, timeout=LONGEST, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in ends:
                    task.cancel()
                await asyncio.gather(*ends, return_exceptions=True)
        finally:
            self._open -= 1
        return response

    async def _left(self, request: web.Request) -> None:
        """Return when the asker has left, of which who has nothing to say is not told."""
        while request.transport is not None and not request.transport.is_closing():
            await self._live.clock.sleep(LOOK)


async def _send(
    request: web.Request, response: web.StreamResponse, texts: AsyncGenerator[bytes]
) -> None:
    try:
        async with aclosing(texts):  # so that it listens no longer, at once
            async for text in texts:
                async with asyncio.timeout(SLOWEST):
                    await response.write(text)
    except TimeoutError:  # it is not read, and must not keep its place for ever
        if request.transport is not None:
            request.transport.abort()
    except (ConnectionError, StoreError):
        return  # who asked has gone, or comes again when the store is well
