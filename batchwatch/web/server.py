"""Listen, and serve the routes of all parts."""

from __future__ import annotations

import os
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import web

from batchwatch.log import get_logger
from batchwatch.web.hooks import LARGEST_BODY
from batchwatch.web.route import Border, mount

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from batchwatch.web.access import Access
    from batchwatch.web.route import Explain, Route

log = get_logger()


class ListenError(Exception):
    """The address cannot be listened on."""


@asynccontextmanager
async def serve(
    host: str,
    port: int,
    routes: Iterable[Route],
    *,
    access: Access,
    explain: Explain | None = None,
) -> AsyncIterator[str]:
    """Listen for as long as the context is held; gives the URL, with the true port.

    ``explain`` says to a person what went wrong, in HTML.

    Raises :class:`ListenError`.
    """
    app = web.Application(client_max_size=LARGEST_BODY)
    app.middlewares.append(Border(mount(app, routes), access=access, explain=explain).cross)
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


def reason_of(error: OSError | UnicodeError) -> str:
    """Why an address cannot be listened on, in the system's words and not in asyncio's."""
    if isinstance(error, UnicodeError):
        return "that is no host's name"
    if isinstance(error, socket.gaierror) or not error.errno:
        return error.strerror or str(error)
    return os.strerror(error.errno)
