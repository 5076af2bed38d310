"""All pages by their paths: the dashboard as the site serves it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchwatch.web.api.operation import strict
from batchwatch.web.dashboard.batches import BatchPages
from batchwatch.web.dashboard.frame import Frame
from batchwatch.web.dashboard.outbox import OutboxPages
from batchwatch.web.dashboard.overview import Overview
from batchwatch.web.dashboard.reference import chapters_of
from batchwatch.web.dashboard.running import RunningPages
from batchwatch.web.route import Role, Route

if TYPE_CHECKING:
    from aiohttp import web

    from batchwatch.web.access import Access
    from batchwatch.web.api.interface import Api
    from batchwatch.web.live import Live
    from batchwatch.web.problem import Problem


class Dashboard:
    """What people see. Pages need what reading needs; deeds need what an admin may."""

    def __init__(self, live: Live, api: Api, *, access: Access) -> None:
        """``access`` says who may see the page at ``/``, and under which path all is served."""
        self._api = api
        self._access = access
        self._frame = Frame(live.clock, prefix=access.prefix, shared=live.is_shared)
        self._overview = Overview(self._frame, live, api)
        self._batches = BatchPages(self._frame, live, api)
        self._outbox = OutboxPages(self._frame, live, api)
        self._running = RunningPages(self._frame, live, api)

    def routes(self) -> list[Route]:
        """What is to be served; at ``/`` :meth:`overview` is."""
        pages = {
            "/batches": self._batches.listed,
            "/batches/{watch}/{batch_id}": self._batches.one,
            "/deliveries": self._outbox.deliveries,
            "/deliveries/{delivery_id}": self._outbox.delivery,
            "/events": self._outbox.events,
            "/events/{event_id}": self._outbox.event,
            "/endpoints": self._running.endpoints,
            "/watches": self._running.watches,
            "/replicas": self._running.replicas,
            "/api": self._reference,
        }
        deeds = {
            "/deliveries/{delivery_id}/replay": self._running.replay,
            "/endpoints/{endpoint}/replay": self._running.replay_dead,
            "/endpoints/{endpoint}/test": self._running.test,
            "/endpoints/{endpoint}/enable": self._running.enable,
            "/endpoints/{endpoint}/disable": self._running.disable,
            "/watches/{watch}/poll": self._running.poll,
        }
        return [
            self._frame.static.route(),
            *(Route("GET", strict(path), one, Role.READ, page=True) for path, one in pages.items()),
            *(
                Route("POST", strict(path), one, Role.ADMIN, page=True)
                for path, one in deeds.items()
            ),
        ]

    async def overview(self, request: web.Request) -> web.StreamResponse:
        """The page at ``/``, where programs are answered something that is open to everybody."""
        return await self._overview.page(request)

    async def explain(self, request: web.Request, problem: Problem) -> web.Response:
        """What went wrong, to a person."""
        response = self._frame.page(request, "error.html", status=problem.status, problem=problem)
        response.headers.update(problem.headers)
        return response

    def render_login(
        self, request: web.Request, *, status: int = 200, **context: object
    ) -> web.Response:
        """The log-in page; its context is ``next``, ``error`` and ``csrf``."""
        return self._frame.page(request, "login.html", status=status, **context)

    async def _reference(self, request: web.Request) -> web.Response:
        outside = self._access.outside(request)
        return self._frame.page(
            request,
            "api.html",
            chapters=chapters_of(self._api.document),
            server=f"{outside.scheme}://{outside.host}",
        )
