"""The site over a store, for tests of what is served: no daemon, no LlamaCloud, no receiver."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import aiohttp

from batchwatch.domain.batch import EndpointName
from batchwatch.domain.delivery import Attempt, DeliveryId
from batchwatch.domain.routing import FOR_PROGRAMS, Router
from batchwatch.llamacloud.budget import Allowance
from batchwatch.metrics import Metrics
from batchwatch.store import Database, Store
from batchwatch.store.replicas import Fleet
from batchwatch.web.access import VISITOR, Access, Visitor
from batchwatch.web.api.interface import Api
from batchwatch.web.dashboard.pages import Dashboard
from batchwatch.web.feed import Feed
from batchwatch.web.health import Health, Troubles
from batchwatch.web.live import Live, WatchNow
from batchwatch.web.outside import Outside
from batchwatch.web.problem import Problem
from batchwatch.web.route import Role
from batchwatch.web.server import serve
from tests.support.builders import REPLICA, WATCH, a_replica, at
from tests.support.clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from aiohttp import web

    from batchwatch.web.route import Route

HTML = {"Accept": "text/html,application/xhtml+xml"}
ENDPOINT = EndpointName("webhook")


class As:
    """Lets everybody in with one role; what needs more is refused."""

    def __init__(self, role: Role, prefix: str) -> None:
        self.role = role
        self.prefix = prefix

    def url(self, path: str) -> str:
        return self.prefix + path

    async def admit(self, request: web.Request, route: Route) -> None:
        request[VISITOR] = Visitor(role=self.role)
        if self.role < route.role:
            raise Problem(403, "that needs BATCHWATCH_API_TOKEN")

    def outside(self, request: web.Request) -> Outside:
        return Outside(None, request.scheme, request.host)

    def protect(self, request: web.Request, response: web.StreamResponse) -> None:
        del request, response


@dataclass
class Site:
    """The address, a client, the store behind it, and what was asked of the daemon's hands."""

    url: str
    http: aiohttp.ClientSession
    store: Store
    clock: ManualClock
    asked: list[tuple[str, Any]] = field(default_factory=list)

    async def page(self, path: str, *, status: int = 200) -> str:
        """The page at ``path``, as a browser gets it."""
        async with self.http.get(path, headers=HTML) as answer:
            text = await answer.text()
            assert (status, "text/html") == (answer.status, answer.content_type), text
            return text

    async def file(self, path: str) -> tuple[str, str]:
        """The type and the text of a download."""
        async with self.http.get(path, headers=HTML) as answer:
            assert 200 == answer.status
            return answer.content_type, (await answer.read()).decode()

    async def pressed(self, path: str, **form: str) -> tuple[int, str]:
        """The status and the ``Location`` after a form was sent."""
        async with self.http.post(path, data=form, headers=HTML, allow_redirects=False) as answer:
            return answer.status, answer.headers.get("Location", await answer.text())


@asynccontextmanager
async def a_site(  # noqa: PLR0913  # what can be otherwise
    url: str,
    *,
    role: Role = Role.ADMIN,
    endpoints: Sequence[str] = (ENDPOINT,),
    troubles: Troubles | None = None,
    prefix: str = "",
    answer: Attempt | None = None,
    access: Access | None = None,
    fleet: Fleet | None = None,
    watches: Sequence[WatchNow] = (),
) -> AsyncIterator[Site]:
    """Serve the store at ``url`` to one who has ``role``, or by the true ``access``.

    With a ``fleet`` it is one that others share.
    """
    clock = ManualClock()
    database = await Database.open(url)
    store = Store(database, Router(dict.fromkeys((ENDPOINT,), FOR_PROGRAMS)), clock)
    await store.watches.begin(WATCH, now=at(0))
    asked: list[tuple[str, Any]] = []

    async def rows() -> list[dict[str, Any]]:
        owed = await store.views.outbox()
        dead = {one.endpoint: one.count for one in owed if one.state == "dead"}
        return [
            {
                "endpoint": name, "type": "webhook", "url": "https://receiver.test/…",
                "state": "well", "since": None, "reason": None, "owed": 0,
                "dead": dead.get(name, 0), "trouble": None,
            }
            for name in endpoints
        ]  # fmt: skip

    async def found() -> Troubles:
        return troubles or Troubles()

    async def watched() -> list[WatchNow]:
        return list(watches) or [a_watch()]

    async def sharing() -> Fleet:
        return fleet or Fleet(clock.now(), [a_replica()], {})

    async def replay(ids: Sequence[int]) -> int:
        asked.append(("replay", list(ids)))
        return await store.outbox.replay([DeliveryId(one) for one in ids])

    async def test(name: str) -> Attempt:
        asked.append(("test", name))
        return answer or Attempt(at(0), 0.012, status_code=200, response="thanks")

    async def enable(name: str) -> bool:
        asked.append(("enable", name))
        return True

    async def disable(name: str) -> bool:
        asked.append(("disable", name))
        return False

    live = Live(
        store=store,
        clock=clock,
        started_at=at(0),
        stopping=asyncio.Event(),
        is_shared=fleet is not None,
        watches=watched,
        fleet=sharing,
        endpoints=rows,
        troubles=found,
        replay=replay,
        enable=enable,
        disable=disable,
        test=test,
        poll=lambda name: asked.append(("poll", name)),
    )
    api = Api(live)
    # The true one is tested elsewhere, but for what needs both.
    guard = access or cast("Access", As(role, prefix))
    dashboard = Dashboard(live, api, access=guard)
    health = Health(
        metrics=Metrics(), troubles=found, keys=lambda: (), for_people=dashboard.overview
    )
    routes = [*health.routes(), *Feed(live).routes(), *api.routes(), *dashboard.routes()]
    try:
        async with (
            serve(
                "127.0.0.1",
                0,
                routes,
                access=guard,
                metrics=Metrics(),
                explain=dashboard.explain,
            ) as address,
            aiohttp.ClientSession(address) as http,
        ):
            yield Site(address, http, store, clock, asked)
    finally:
        live.stopping.set()
        await database.close()


def a_watch(**more: Any) -> WatchNow:
    """A watch that is well."""
    fields: dict[str, Any] = {
        "name": WATCH,
        "base_url": "https://llamacloud.test",
        "project_id": None,
        "organization_id": None,
        "source_directory_id": None,
        "interval": 5.0,
        "holder": REPLICA,
        "silence": 0.0,
        "allowance": Allowance(
            left=100.0, most=100.0, per_minute=400.0, configured=400.0, paused_for=0.0
        ),
        "troubles": (),
        "takes_hints": False,
    }
    return WatchNow(**fields | more)
