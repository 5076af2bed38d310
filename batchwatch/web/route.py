"""What is asked for at which path, who may, and what surrounds each answer."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final

from aiohttp import web

from batchwatch.log import get_logger
from batchwatch.store import StoreError
from batchwatch.web.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from batchwatch.web.access import Access

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
    Explain = Callable[[web.Request, Problem], Awaitable[web.Response]]

log = get_logger()

UNREADABLE: Final = "the store does not work at present; the log says why"
A_BUG: Final = "a bug in batchwatch; its log has the traceback"


class Role(IntEnum):
    """What one may do; each may all that those below it may."""

    NONE = 0  # what is open to everybody
    READ = 1
    ADMIN = 2


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path. Who asks must have ``role``; ``page`` is for people, in HTML.

    Where programs are answered something else than people, browsers must have
    ``role_of_people``.
    """

    method: str
    path: str
    handler: Handler
    role: Role = Role.READ
    page: bool = False
    role_of_people: Role | None = None

    def needs(self, request: web.Request) -> Role:
        """The role that this ``request`` needs."""
        if self.role_of_people is not None and wants_html(request):
            return self.role_of_people
        return self.role


def wants_html(request: web.Request) -> bool:
    """Whether a person asks, with a browser."""
    return "text/html" in request.headers.get("Accept", "")


class Border:
    """Stands between each request and its route: lets in who may, and answers what goes wrong."""

    def __init__(
        self,
        routes: Mapping[web.AbstractRoute, Route],
        *,
        access: Access,
        explain: Explain | None = None,
    ) -> None:
        """``explain`` says to a person what went wrong, in HTML."""
        self._routes = routes
        self._access = access
        self._explain = explain

    @web.middleware
    async def cross(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer ``request``, whatever happens."""
        route = self._routes.get(request.match_info.route)
        try:
            if route is not None:
                await self._access.admit(request, route)
            response = await handler(request)
        except Problem as error:
            response = await self._say(request, route, error)
        except web.HTTPException as error:
            if error.status < 400:
                raise  # a redirect, which aiohttp answers
            response = await self._say(request, route, _problem_of(error, request))
        except StoreError as error:
            log.warning("request.failed", path=request.path, reason=str(error))
            response = await self._say(request, route, Problem(503, UNREADABLE))
        except ConnectionError:
            raise  # who asked has gone
        except Exception:
            log.exception("request.broke", method=request.method, path=request.path)
            response = await self._say(request, route, Problem(500, A_BUG))
        return response

    async def dress(self, request: web.Request, response: web.StreamResponse) -> None:
        """Complete the headers of ``response`` before they are sent: of streams, that is early."""
        self._access.protect(request, response)

    async def _say(
        self, request: web.Request, route: Route | None, problem: Problem
    ) -> web.StreamResponse:
        if request.writer.output_size:  # an answer has begun, and must not look like a whole one
            raise ConnectionAbortedError(problem.detail)
        apis = ("/api/", self._access.url("/api/"))
        is_page = route.page if route else not request.path.startswith(apis)
        if is_page and wants_html(request) and self._explain is not None:
            return await self._explain(request, problem)
        return problem.answer()


def mount(
    app: web.Application, routes: Iterable[Route], *, prefix: str = ""
) -> Mapping[web.AbstractRoute, Route]:
    """Put ``routes`` into ``app``; which of its routes is which. What is got has a HEAD.

    All is there below ``prefix``, too: some proxies take it off, others do not.
    """
    return {
        app.router.add_route(method, path, one.handler): one
        for one in routes
        for path in _places(one.path, prefix)
        for method in ((one.method, "HEAD") if one.method == "GET" else (one.method,))
    }


def _places(path: str, prefix: str) -> list[str]:
    if not prefix:
        return [path]
    return [path, prefix + path, *([prefix] if path == "/" else [])]


def _problem_of(error: web.HTTPException, request: web.Request) -> Problem:
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        return Problem(
            405, f"{request.path} can be asked for by: {allowed}", headers={"Allow": allowed}
        )
    if error.status == 404:
        return Problem(404, f"there is nothing at {request.path}; / names what there is")
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return Problem(413, "the body is larger than anything that is asked for here")
    return Problem(error.status, error.text or error.reason)
