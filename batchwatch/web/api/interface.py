"""All operations of the API, and the document of them."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from batchwatch.web.api import openapi
from batchwatch.web.api.batches import Batches
from batchwatch.web.api.events import Events
from batchwatch.web.api.operation import operations_of
from batchwatch.web.api.running import Running
from batchwatch.web.route import Role, Route

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchwatch.web.api.operation import Operation
    from batchwatch.web.live import Live


class Api:
    """What programs are answered under ``/api/v1``."""

    def __init__(self, live: Live, *, besides: Sequence[Operation] = (), prefix: str = "") -> None:
        """``besides`` are those that others serve; ``prefix`` is what a proxy serves all under."""
        self.batches = Batches(live)
        self.events = Events(live)
        self.running = Running(live)
        self._prefix = prefix
        self._besides = besides
        self._operations = [
            one for part in (self.running, self.batches, self.events) for one in operations_of(part)
        ]

    def routes(self) -> list[Route]:
        """What is to be served."""
        return [
            *(one.route() for one in self._operations),
            Route("GET", openapi.PATH, self._openapi, Role.NONE),
        ]

    @cached_property
    def document(self) -> dict[str, Any]:
        """The OpenAPI document, made when somebody asks: that takes some milliseconds."""
        return openapi.document([*self._operations, *self._besides], prefix=self._prefix)

    @cached_property
    def _written(self) -> bytes:
        return msgspec.json.encode(self.document)

    async def _openapi(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._written, content_type="application/json")
