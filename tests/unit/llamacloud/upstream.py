"""Servers that stand in for LlamaCloud, on real sockets, and a client to ask them with."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp import web
from aiohttp.test_utils import RawTestServer

from batchwatch.llamacloud.budget import Budget
from batchwatch.llamacloud.client import LlamaCloud
from tests.support.clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from batchwatch.clock import Clock
    from batchwatch.llamacloud.transport import RequestReport
    from batchwatch.llamacloud.wire import Page

    Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

KEY = "llx-Secret+Key/42"
SOURCE = "LLAMA_CLOUD_API_KEY"


class HurriedClock(ManualClock):
    """Time passes at once for whoever sleeps; ``slept`` says how long each time."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.advance(seconds)
        await asyncio.sleep(0)


@dataclass
class Reply:
    """What the server answers: JSON, unless ``body`` is bytes."""

    body: Any = field(default_factory=dict)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    def response(self) -> web.Response:
        if isinstance(self.body, bytes):
            return web.Response(status=self.status, body=self.body, headers=self.headers)
        return web.Response(
            status=self.status,
            text=json.dumps(self.body),
            content_type="application/json",
            headers=self.headers,
        )


class Upstream:
    """Gives its replies one by one, the last of them for ever, and keeps what was asked."""

    def __init__(self, *replies: Reply, handler: Handler | None = None) -> None:
        self.replies = list(replies)
        self.requests: list[web.BaseRequest] = []
        self.url = ""
        self._handler = handler

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append(request)
        if self._handler is not None:
            return await self._handler(request)
        reply = self.replies[0] if len(self.replies) == 1 else self.replies.pop(0)
        return reply.response()

    @property
    def queries(self) -> list[dict[str, list[str]]]:
        """The decoded query of each request."""
        return [
            {key: request.query.getall(key) for key in request.query} for request in self.requests
        ]

    def asked(self, key: str) -> list[str | None]:
        """What each request said for ``key``."""
        return [request.query.get(key) for request in self.requests]


@asynccontextmanager
async def serving(*replies: Reply, handler: Handler | None = None) -> AsyncIterator[Upstream]:
    """An HTTP server with these replies."""
    upstream = Upstream(*replies, handler=handler)
    async with RawTestServer(upstream.answer) as server:
        upstream.url = str(server.make_url("")).rstrip("/")
        yield upstream


@dataclass
class Line:
    """A raw socket server that sends its bytes to whoever connects, however wrong they are."""

    url: str
    connections: int = 0


@asynccontextmanager
async def raw(said: bytes, *, then: str = "close") -> AsyncIterator[Line]:
    """Answer every request with ``said``, then ``close``, ``reset`` or ``hang``."""
    line = Line("")
    done = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line.connections += 1
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(said)
            await writer.drain()
            if then == "hang":
                await done.wait()
            if then == "reset":
                connection = writer.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass  # the client gave up, which is its good right
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    line.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield line
        done.set()


@asynccontextmanager
async def asking(
    url: str,
    *,
    clock: Clock | None = None,
    session: aiohttp.ClientSession | None = None,
    on_request: Callable[[RequestReport], None] | None = None,
    **more: Any,
) -> AsyncIterator[LlamaCloud]:
    """A client of the server at ``url``, with a budget that is never short."""
    clock = clock or HurriedClock()
    async with session or aiohttp.ClientSession() as open_session:
        yield LlamaCloud(
            base_url=url,
            api_key=KEY,
            key_source=SOURCE,
            session=open_session,
            budget=more.pop("budget", None) or Budget(rate=1000, burst=1000, clock=clock),
            clock=clock,
            on_request=on_request,
            **more,
        )


async def pages_of(cloud: LlamaCloud, **filters: Any) -> list[Page]:
    """A whole listing."""
    async with aclosing(cloud.list_batches(**filters)) as pages:
        return [page async for page in pages]


async def ids_of(cloud: LlamaCloud, **filters: Any) -> list[list[str]]:
    """The ids of a whole listing, page by page."""
    return [[item.id for item in page.items] for page in await pages_of(cloud, **filters)]


def a_batch(id_: str = "bat-1", status: str = "RUNNING", **more: Any) -> dict[str, Any]:
    """A batch as upstream shows it."""
    return {
        "id": id_,
        "project_id": "prj-1",
        "source_directory_id": "dir-1",
        "config": {"job": {"type": "parse_v2", "configuration_id": "cfg-PARSE_AGENTIC"}},
        "status": status,
        "created_at": "2026-11-24T07:00:00.5Z",
        "updated_at": "2026-11-24T07:30:00.25Z",
        "results": None,
        **more,
    }


def a_page(*items: Any, token: Any = None) -> Reply:
    """A page of a listing."""
    return Reply({"items": list(items), "next_page_token": token, "total_size": None})
