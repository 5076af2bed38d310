"""Serve ``/livez``, ``/readyz``, ``/metrics`` and public keys, and at ``/`` what there is."""

from __future__ import annotations

import hmac
import json
import os
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from batchwatch import __version__
from batchwatch.log import get_logger
from batchwatch.web.hooks import LARGEST_BODY
from batchwatch.web.hooks import PATH as HOOKS_PATH
from batchwatch.web.measured import measured

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from batchwatch.metrics import Metrics
    from batchwatch.web.hooks import Hooks

log = get_logger()

KEYS_PATH: Final = "/.well-known/webhook-keys"
PATHS: Final = {
    "/livez": "alive",
    "/readyz": "ready, or what is not well",
    "/metrics": "for Prometheus",
    KEYS_PATH: "what signs messages, for those who verify them by public keys",
    HOOKS_PATH: "POST: for LlamaCloud's own webhooks, by the name of a watch",
}


class ListenError(Exception):
    """The address cannot be listened on."""


@dataclass(frozen=True, slots=True)
class Troubles:
    """Which parts are not well and why, by their names.

    Those that are ``ailing`` are other people's: the daemon is ready all the
    same.
    """

    grave: Mapping[str, str] = field(default_factory=dict)
    ailing: Mapping[str, str] = field(default_factory=dict)


@asynccontextmanager
async def serve(  # noqa: PLR0913  # a part of the daemon for each path
    host: str,
    port: int,
    *,
    token: str | None,
    metrics: Metrics,
    troubles: Callable[[], Awaitable[Troubles]],
    keys: Callable[[], Sequence[Mapping[str, str | None]]],
    hooks: Hooks,
) -> AsyncIterator[str]:
    """Listen for as long as the context is held; gives the URL, with the true port.

    ``/``, ``/livez`` and ``/readyz`` are open, for what asks them has no
    secrets, and so are the public ``keys``, which exist to be known;
    ``/metrics`` needs the token, if there is one. ``hooks`` need none either,
    for a signature is theirs. ``troubles`` names every
    part that is not well and why.

    Raises :class:`ListenError`.
    """
    app = web.Application(client_max_size=LARGEST_BODY, middlewares=[measured(metrics)])

    async def overview(_request: web.Request) -> web.Response:
        # The process is for `check`, which must tell its own daemon's port from anybody's.
        return _json({"batchwatch": __version__, "process": os.getpid(), "paths": PATHS})

    async def livez(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_request: web.Request) -> web.Response:
        found = await troubles()
        ready = not found.grave
        return _json(
            {"ready": ready, "troubles": {**found.grave, **found.ailing}},
            status=200 if ready else 503,
        )

    async def public_keys(_request: web.Request) -> web.Response:
        return web.json_response({"keys": [dict(key) for key in keys()]})

    async def exposition(request: web.Request) -> web.Response:
        if token is not None and not _knows(request, token):
            answer = _json(
                {
                    "title": "Unauthorized",
                    "detail": "send Authorization: Bearer BATCHWATCH_API_TOKEN",
                },
                status=401,
            )
            answer.headers["WWW-Authenticate"] = 'Bearer realm="batchwatch"'
            return answer
        from prometheus_client.exposition import choose_encoder  # noqa: PLC0415  # pulls in a server

        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(metrics.registry), headers={"Content-Type": content_type})

    app.router.add_get("/", overview)
    app.router.add_get("/livez", livez)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", exposition)
    app.router.add_get(KEYS_PATH, public_keys)
    app.router.add_post(HOOKS_PATH, hooks.take)
    runner = web.AppRunner(
        app,
        access_log=None,
        handle_signals=False,
        shutdown_timeout=1.0,
        auto_decompress=False,  # a signature is of what came, and little may unpack to much
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except (OSError, UnicodeError) as error:  # the latter for what can be no host's name
            raise ListenError(
                f"cannot listen on {host}:{port}: {reason_of(error)}: "
                "set BATCHWATCH_LISTEN to a free address"
            ) from error
        bound = runner.addresses[0]
        shown = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
        yield f"http://{shown}:{bound[1]}"
    finally:
        await runner.cleanup()


def _json(value: dict[str, Any], *, status: int = 200) -> web.Response:
    """``value`` in one line that ends, so that a shell's prompt stands below it."""
    return web.json_response(text=json.dumps(value) + "\n", status=status)


def reason_of(error: OSError | UnicodeError) -> str:
    """Why an address cannot be listened on, in the system's words and not in asyncio's."""
    if isinstance(error, UnicodeError):
        return "that is no host's name"
    if isinstance(error, socket.gaierror) or not error.errno:
        return error.strerror or str(error)
    return os.strerror(error.errno)


def _knows(request: web.Request, token: str) -> bool:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(
        given.strip().encode(errors="surrogateescape"), token.encode()
    )
