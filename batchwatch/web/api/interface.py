"""All operations of the API, and the document of them."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from batchwatch.domain.event import EVENT_TYPES
from batchwatch.web.api import asyncapi, openapi
from batchwatch.web.api.batches import Batches
from batchwatch.web.api.events import Events
from batchwatch.web.api.operation import BASE, operations_of
from batchwatch.web.api.running import Running
from batchwatch.web.api.schemas import schema_of
from batchwatch.web.problem import Problem
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
            Route("GET", asyncapi.PATH, self._asyncapi, Role.NONE),
            Route("GET", f"{BASE}/schemas/{{type}}", self._schema, Role.NONE),
        ]

    @cached_property
    def document(self) -> dict[str, Any]:
        """The OpenAPI document, made when somebody asks: that takes some milliseconds."""
        return openapi.document([*self._operations, *self._besides], prefix=self._prefix)

    # Written once: everybody may ask for them, as often as they like.

    @cached_property
    def _written(self) -> bytes:
        return msgspec.json.encode(self.document)

    @cached_property
    def _messages_written(self) -> bytes:
        return msgspec.json.encode(asyncapi.document(prefix=self._prefix))

    async def _openapi(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._written, content_type="application/json")

    async def _asyncapi(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._messages_written, content_type="application/json")

    async def _schema(self, request: web.Request) -> web.Response:
        """The JSON Schema of one type of event, for those who check what they receive."""
        type_ = request.match_info["type"]
        if type_ not in EVENT_TYPES:
            raise Problem(404, f"there is no event {type_}; there are: {', '.join(EVENT_TYPES)}")
        body = msgspec.json.encode(schema_of(type_))
        return web.Response(body=body, content_type="application/schema+json")
