"""Endpoints, watches and replicas: how they are, and what can be done about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiohttp import web

from batchwatch.web.api.events import Meant
from batchwatch.web.api.operation import Asked, Nothing

if TYPE_CHECKING:
    from batchwatch.web.api import answers
    from batchwatch.web.api.interface import Api
    from batchwatch.web.dashboard.frame import Frame
    from batchwatch.web.live import Live

# Where a deed may lead back to; never to another site.
_BACK: Final = ("/batches/", "/deliveries", "/events/", "/endpoints", "/watches")


class RunningPages:
    """Shows them; and does what is asked by a form, then leads back."""

    def __init__(self, frame: Frame, live: Live, api: Api) -> None:
        self._frame = frame
        self._live = live
        self._api = api

    async def endpoints(self, request: web.Request) -> web.Response:
        """All endpoints, with their health."""
        found = await self._api.running.list_endpoints(Nothing(), Asked({}))
        return self._frame.page(request, "endpoints.html", endpoints=found)

    async def watches(self, request: web.Request) -> web.Response:
        """All watches, with theirs."""
        found = await self._api.running.list_watches(Nothing(), Asked({}))
        return self._frame.page(
            request, "watches.html", watches=found, started_at=self._live.started_at
        )

    async def replicas(self, request: web.Request) -> web.Response:
        """Who polls which watch; all by the clock of the store that they share."""
        found = await self._api.running.list_replicas(Nothing(), Asked({}))
        return self._frame.page(request, "replicas.html", found=found, now=found.now)

    async def test(self, request: web.Request) -> web.Response:
        """Send a test, and show what came back: it is kept nowhere else."""
        asked = Asked(dict(request.match_info))
        answer: answers.Answer = await self._api.running.test_endpoint(Nothing(), asked)
        return self._frame.page(request, "tested.html", name=asked.path["endpoint"], answer=answer)

    async def enable(self, request: web.Request) -> web.Response:
        """Let an endpoint be sent to again."""
        asked = Asked(dict(request.match_info))
        done = await self._api.running.enable_endpoint(Nothing(), asked)
        return await self._back(request, "endpoints", "enabled" if done.changed else "same")

    async def disable(self, request: web.Request) -> web.Response:
        """Send an endpoint nothing more."""
        asked = Asked(dict(request.match_info))
        done = await self._api.running.disable_endpoint(Nothing(), asked)
        return await self._back(request, "endpoints", "disabled" if done.changed else "same")

    async def replay_dead(self, request: web.Request) -> web.Response:
        """Send again what was given up of an endpoint."""
        meant = Meant(endpoint=request.match_info["endpoint"], state="dead")
        done = await self._api.events.replay_deliveries(Nothing(), Asked({}, meant))
        return await self._back(request, "endpoints", _code(done), n=done.replayed)

    async def replay(self, request: web.Request) -> web.Response:
        """Send one delivery again."""
        asked = Asked(dict(request.match_info))
        done = await self._api.events.replay_delivery(Nothing(), asked)
        return await self._back(request, "deliveries", _code(done), n=done.replayed)

    async def poll(self, request: web.Request) -> web.Response:
        """Look at once."""
        await self._api.running.poll_watch(Nothing(), Asked(dict(request.match_info)))
        return await self._back(request, "watches", "polling")

    async def _back(
        self, request: web.Request, to: str, done: str, *, n: int | None = None
    ) -> web.Response:
        """To where the form was, or else to the list."""
        given = (await request.post()).get("back")
        path = given if isinstance(given, str) and _is_ours(given) else f"/{to}"
        address = self._frame.link(path, done=done, n=n)
        return web.Response(status=303, headers={"Location": address})


def _code(done: answers.Replayed) -> str:
    if not done.replayed:
        return "left"
    return "more" if done.more else "replayed"


def _is_ours(path: str) -> bool:
    """Whether it is a path of a page of ours, and nothing else."""
    plain = path.isascii() and path.isprintable() and not set(path) & set('?#\\ "<>')
    return plain and "//" not in path and ".." not in path and path.startswith(_BACK)
