"""A small site behind `Access`, and somebody who asks it, header by header."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import aiohttp
from aiohttp import web

from batchwatch.metrics import Metrics
from batchwatch.web.access import VISITOR, Access
from batchwatch.web.health import Health, Troubles
from batchwatch.web.login import Login
from batchwatch.web.route import Role, Route
from batchwatch.web.server import serve
from tests.support.clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

ADMIN_TOKEN = "admin-0123456789abcdef"
READ_TOKEN = "reader-0123456789abcdef"
FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    text: str
    cookies: SimpleCookie = field(default_factory=SimpleCookie)

    @property
    def location(self) -> str:
        return self.headers["Location"]

    @property
    def cookie(self) -> str:
        """The session that it sets, as a browser sends it back."""
        return f"batchwatch={self.cookies['batchwatch'].value}"


@dataclass(frozen=True)
class Site:
    """The server's URL, its clock, and a client that neither follows nor remembers anything."""

    url: str
    http: aiohttp.ClientSession
    clock: ManualClock

    async def ask(
        self, path: str, method: str = "GET", *, data: Any = None, **headers: str
    ) -> Answer:
        """Header names have underscores for hyphens."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.http.request(
            method, path, headers=named, data=data, allow_redirects=False
        ) as answer:
            return Answer(
                answer.status, answer.headers, await answer.text(), SimpleCookie(answer.cookies)
            )

    async def send(self, path: str, *, form: Mapping[str, str], **headers: str) -> Answer:
        """POST a form."""
        headers.setdefault("Content_Type", FORM)
        return await self.ask(path, "POST", data=urlencode(form), **headers)

    async def sign_in(self, token: str, *, next: str = "/", **headers: str) -> Answer:  # noqa: A002
        return await self.send("/login", form={"token": token, "next": next}, **headers)

    async def session(self, token: str = ADMIN_TOKEN) -> tuple[str, str]:
        """A cookie, and what its forms carry."""
        cookie = (await self.sign_in(token)).cookie
        return cookie, (await self.ask("/page", Cookie=cookie)).headers["X-Form"]


@asynccontextmanager
async def visited(
    *, clock: ManualClock | None = None, render: Any = None, **access: Any
) -> AsyncIterator[Site]:
    """The site, with this access; without any, of both tokens."""
    clock = clock or ManualClock()
    guard = Access(**({"token": ADMIN_TOKEN, "read_token": READ_TOKEN} | access), clock=clock)

    async def answer(request: web.Request) -> web.Response:
        who = request[VISITOR]
        headers = {"X-Form": who.csrf, "X-Signed-In": str(who.signed_in)}
        return web.Response(text=who.role.name, headers=headers)

    async def unchanged(_request: web.Request) -> web.Response:
        return web.Response(status=304, headers={"ETag": '"a"'})

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b": hello\n\n")
        return response

    async def untroubled() -> Troubles:
        return Troubles()

    routes = [
        *Health(metrics=Metrics(), troubles=untroubled, keys=list, for_people=answer).routes(),
        *Login(guard, render=render, clock=clock).routes(),
        Route("GET", "/page", answer, page=True),
        Route("GET", "/page/more", answer, page=True),
        Route("GET", "/unchanged", unchanged),
        Route("GET", "/settings", answer, Role.ADMIN, page=True),
        Route("POST", "/do", answer, Role.ADMIN, page=True),
        Route("GET", "/api/v1/look", answer),
        Route("POST", "/api/v1/do", answer, Role.ADMIN),
        Route("DELETE", "/api/v1/do", answer, Role.ADMIN),
        Route("POST", "/hooks/{name}", answer, Role.NONE),
        Route("GET", "/live", stream),
    ]
    async with (
        serve("127.0.0.1", 0, routes, access=guard, metrics=Metrics()) as url,
        aiohttp.ClientSession(url, cookie_jar=aiohttp.DummyCookieJar()) as http,
    ):
        yield Site(url, http, clock)


def bearer(token: str) -> dict[str, str]:
    """The header of a program."""
    return {"Authorization": f"Bearer {token}"}
