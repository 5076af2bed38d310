"""A receiver of notifications: real sockets, and an independent verifier for every signature."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Self

from aiohttp import web
from standardwebhooks.webhooks import Webhook

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLjOt"

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Received:
    """One request, as it came."""

    path: str
    method: str
    headers: dict[str, str]
    body: bytes
    status: int = 200  # of the answer

    @property
    def taken(self) -> bool:
        """Whether the answer said so."""
        return 200 <= self.status < 300

    @property
    def id(self) -> str:
        """What a receiver deduplicates by."""
        return self.headers["webhook-id"]

    @property
    def event(self) -> dict[str, Any]:
        """The envelope."""
        event: dict[str, Any] = json.loads(self.body)
        return event

    @property
    def batch_id(self) -> str:
        """The batch that the event is about."""
        return str(self.event["data"]["batch"]["id"])


class Receiver:
    """Takes whatever comes under any path; ``answers`` decides what it says, first come first."""

    def __init__(self, secret: str | None = SECRET) -> None:
        self.secret = secret  # None: signatures are kept for the test to judge
        self.received: list[Received] = []
        self.answers: list[Answer] = []  # used up one by one; then everything is taken
        self.always: Answer | None = None
        self._arrived = asyncio.Condition()
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", self._take)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        if self.secret is not None and "webhook-signature" in headers:
            Webhook(self.secret).verify(body, headers)
        answer = self.answers.pop(0) if self.answers else self.always
        response = web.Response(text="ok") if answer is None else await answer(request)
        async with self._arrived:
            self.received.append(
                Received(request.path, request.method, headers, body, response.status)
            )
            self._arrived.notify_all()
        return response

    async def until(self, enough: Callable[[list[Received]], bool]) -> list[Received]:
        """Wait until what came is ``enough``; the test's own time limit ends it otherwise."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: enough(self.received))
            return list(self.received)

    def asked(self, method: str) -> list[Received]:
        """What came by this method."""
        return [one for one in self.received if one.method == method]

    def on(self, path: str) -> list[Received]:
        """What came under ``path``."""
        return [one for one in self.received if one.path == path]

    def statuses(self, path: str = "/hook") -> dict[str, list[str]]:
        """What each batch was said to become, in the order of arrival, repeats left out."""
        told: dict[str, list[str]] = defaultdict(list)
        seen: set[str] = set()
        for one in self.on(path):
            settled = one.event["type"] == "batch.settled"
            if one.id not in seen and "batch" in one.event["data"] and not settled:
                seen.add(one.id)
                told[one.batch_id].append(one.event["data"]["batch"]["status"])
        return dict(told)


def says(status: int, text: str = "", **headers: str) -> Answer:
    """An answer with this status."""

    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(
            status=status,
            text=text,
            headers={name.replace("_", "-"): value for name, value in headers.items()},
        )

    return answer
