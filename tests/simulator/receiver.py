"""A receiver of upstream webhooks that answers as it is told."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Received:
    """One request, as it came."""

    headers: Mapping[str, str]
    body: bytes


@dataclass
class Receiver:
    """Listens while it is entered; ``answers`` are the statuses of the first requests, then 200."""

    answers: list[int] = field(default_factory=list)
    received: asyncio.Queue[Received] = field(default_factory=asyncio.Queue)
    url: str = ""

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.add_routes([web.post("/hook", self._take)])
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/hook"
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        self.received.put_nowait(Received(request.headers.copy(), await request.read()))
        return web.Response(status=self.answers.pop(0) if self.answers else 200)
