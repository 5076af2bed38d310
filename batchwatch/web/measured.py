"""Count and time what is asked of batchwatch itself, by the templates of its paths."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from aiohttp import hdrs, web

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp.typedefs import Handler, Middleware

    from batchwatch.metrics import Metrics
    from batchwatch.web.route import Route

OTHER: Final = "other"  # one label for every path and method that anybody may think of
GONE: Final = 499  # nginx's number for an answer whose end nobody got, be it for our own stop


def measured(metrics: Metrics, routes: Mapping[web.AbstractRoute, Route]) -> Middleware:
    """A middleware for the outermost place: it sees what the others refuse.

    Of ``routes``, those below a prefix are counted as those without it: they are the same.
    """

    @web.middleware
    async def measure(request: web.Request, handler: Handler) -> web.StreamResponse:
        begun = time.perf_counter()
        status, is_endless = 500, False
        try:
            response = await handler(request)
            status = response.status
            is_endless = response.content_type == "text/event-stream"  # as long as somebody listens
        except web.HTTPException as refusal:
            status = refusal.status
            raise
        except (ConnectionError, asyncio.CancelledError):
            status = GONE
            raise
        finally:
            found = routes.get(request.match_info.route)
            route = OTHER if found is None else found.path
            method = request.method if request.method in hdrs.METH_ALL else OTHER
            metrics.http_requests.labels(route, method, str(status)).inc()
            if not is_endless:
                metrics.http_duration.labels(route).observe(time.perf_counter() - begun)
        return response

    return measure
