"""Say that the daemon is alive, whether it is ready, and what Prometheus and receivers may know."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from batchwatch import __version__
from batchwatch.web.hooks import PATH as HOOKS_PATH
from batchwatch.web.route import Role, Route, wants_html

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from batchwatch.metrics import Metrics
    from batchwatch.web.route import Handler

KEYS_PATH: Final = "/.well-known/webhook-keys"

PATHS: Final = {
    "/livez": "alive",
    "/readyz": "ready, or what is not well",
    "/metrics": "for Prometheus",
    "/api/v1/openapi.json": "the API, for programs that make clients of it",
    KEYS_PATH: "what signs messages, for those who verify them by public keys",
    HOOKS_PATH: "POST: for LlamaCloud's own webhooks, by the name of a watch",
}


@dataclass(frozen=True, slots=True)
class Troubles:
    """Which parts are not well and why, by their names.

    Those that are ``ailing`` are other people's: the daemon is ready all the
    same.
    """

    grave: Mapping[str, str] = field(default_factory=dict)
    ailing: Mapping[str, str] = field(default_factory=dict)


class Health:
    """``/livez`` and ``/readyz`` are open, for what asks them has no secrets.

    So are the public keys, which exist to be known; ``/metrics`` needs the
    token, if there is one. ``troubles`` names every part that is not well and
    why.
    """

    def __init__(
        self,
        *,
        metrics: Metrics,
        troubles: Callable[[], Awaitable[Troubles]],
        keys: Callable[[], Sequence[Mapping[str, str | None]]],
        for_people: Handler | None = None,
    ) -> None:
        """``for_people`` answers browsers at ``/``."""
        self._for_people = for_people
        self._metrics = metrics
        self._troubles = troubles
        self._keys = keys

    def routes(self) -> list[Route]:
        """What is to be served."""
        return [
            Route(
                "GET",
                "/",
                self.overview,
                Role.NONE,
                page=True,
                role_of_people=Role.READ if self._for_people else None,
            ),
            Route("GET", "/livez", self.livez, Role.NONE),
            Route("GET", "/readyz", self.readyz, Role.NONE),
            Route("GET", "/metrics", self.exposition),
            Route("GET", KEYS_PATH, self.public_keys, Role.NONE),
        ]

    async def overview(self, request: web.Request) -> web.StreamResponse:
        """What there is; to a browser, how it is."""
        if self._for_people is not None and wants_html(request):
            return await self._for_people(request)
        # The process is for `check`, which must tell its own daemon's port from anybody's.
        return line({"batchwatch": __version__, "process": os.getpid(), "paths": PATHS})

    async def livez(self, _request: web.Request) -> web.Response:
        """Answer; who can do that is alive, and a restart would mend none of its troubles."""
        return web.Response(text="ok\n")

    async def readyz(self, _request: web.Request) -> web.Response:
        """Say whether all is well, and what is not."""
        found = await self._troubles()
        ready = not found.grave
        return line(
            {"ready": ready, "troubles": {**found.grave, **found.ailing}},
            status=200 if ready else 503,
        )

    async def public_keys(self, _request: web.Request) -> web.Response:
        """The public halves of what signs."""
        return web.json_response({"keys": [dict(key) for key in self._keys()]})

    async def exposition(self, request: web.Request) -> web.Response:
        """The metrics, in the format that is asked for."""
        from prometheus_client.exposition import choose_encoder  # noqa: PLC0415  # pulls in a server

        try:
            encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        except (TypeError, ValueError):  # it compares versions that are no numbers with some
            encode, content_type = choose_encoder("")
        return web.Response(
            body=encode(self._metrics.registry), headers={"Content-Type": content_type}
        )


def line(value: dict[str, Any], *, status: int = 200) -> web.Response:
    """``value`` in one line that ends, so that a shell's prompt stands below it."""
    return web.json_response(text=json.dumps(value) + "\n", status=status)
