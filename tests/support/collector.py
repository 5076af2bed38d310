"""A collector of traces: a real OTLP/HTTP server that decodes what daemons export."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.proto.common.v1.common_pb2 import KeyValue


@dataclass(frozen=True)
class Collected:
    """A span, as it was exported."""

    name: str
    trace: str
    id: str
    parent: str
    kind: int
    failed: bool
    attributes: dict[str, Any]
    resource: dict[str, Any]


class Collector:
    """Takes spans under ``/v1/traces``, with the status ``answer``."""

    def __init__(self) -> None:
        self.spans: list[Collected] = []
        self.answer = 200
        self.headers: list[dict[str, str]] = []  # of each request, in lower case
        self.url = ""
        self._arrived = asyncio.Condition()
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/v1/traces", self._take)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        exported = ExportTraceServiceRequest.FromString(await request.read())
        async with self._arrived:
            self.headers.append({name.lower(): one for name, one in request.headers.items()})
            if self.answer == 200:
                self.spans += [
                    Collected(
                        name=span.name,
                        trace=span.trace_id.hex(),
                        id=span.span_id.hex(),
                        parent=span.parent_span_id.hex(),
                        kind=span.kind,
                        failed=span.status.code == 2,
                        attributes=_values(span.attributes),
                        resource=_values(of.resource.attributes),
                    )
                    for of in exported.resource_spans
                    for scope in of.scope_spans
                    for span in scope.spans
                ]
            self._arrived.notify_all()
        return web.Response(
            status=self.answer,
            body=ExportTraceServiceResponse().SerializeToString(),
            content_type="application/x-protobuf",
        )

    async def until(self, enough: Callable[[Collector], bool]) -> None:
        """Wait until what came is ``enough``."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: enough(self))

    def of(self, trace: str) -> list[Collected]:
        """The spans of one trace."""
        return [one for one in self.spans if one.trace == trace]


def _values(attributes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    one: KeyValue
    for one in attributes:
        kind = one.value.WhichOneof("value")
        found[one.key] = getattr(one.value, kind) if kind else None
    return found
