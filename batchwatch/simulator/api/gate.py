"""Who may ask, and how often: the key, the project it belongs to, the rate limit."""

from __future__ import annotations

import hmac
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from aiohttp import web

from batchwatch.simulator.api.refusal import Refusal
from batchwatch.simulator.timeline import SECOND

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware

    from batchwatch.simulator.timeline import Timeline
    from batchwatch.simulator.world import World

_MINUTE: Final = 60 * SECOND


class RateLimit:
    """So many requests in each minute of the clock; Retry-After names the start of the next."""

    def __init__(self, per_minute: int, timeline: Timeline) -> None:
        self._per_minute = per_minute
        self._timeline = timeline
        self._minute = -1
        self._spent = 0

    def spend(self) -> None:
        """Let one request pass, or refuse it."""
        minute, into = divmod(self._timeline.now() - self._timeline.start, _MINUTE)
        if minute != self._minute:
            self._minute, self._spent = minute, 0
        if self._spent >= self._per_minute:
            seconds = -(-(_MINUTE - into) // SECOND)  # rounded up
            detail = "Rate limit exceeded"
            headers = {"Retry-After": str(seconds)}
            raise Refusal(HTTPStatus.TOO_MANY_REQUESTS, detail, headers=headers)
        self._spent += 1


def guarding(world: World, api_key: str, limit: RateLimit | None) -> Middleware:
    """The middleware that lets in who has the key and asks for its own project.

    An unknown key and one of another region look alike, as they do upstream.
    """
    expected = f"Bearer {api_key}".encode()

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").encode(errors="surrogateescape")
        if not hmac.compare_digest(expected, given):
            raise Refusal(HTTPStatus.UNAUTHORIZED, "Invalid API key")
        own = {"project_id": world.project.id, "organization_id": world.project.organization_id}
        for name, known in own.items():
            asked = request.query.get(name)
            if asked is not None and asked not in {known, known.partition("-")[2]}:
                raise Refusal(HTTPStatus.FORBIDDEN, f"The API key has no access to {name} {asked}")
        if limit is not None:
            limit.spend()
        return await handler(request)

    return guard
