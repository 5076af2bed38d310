"""Listen, and serve the routes of all parts."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from batchwatch.log import get_logger
from batchwatch.web.hooks import LARGEST_BODY
from batchwatch.web.measured import measured
from batchwatch.web.route import Border, mount

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from batchwatch.metrics import Metrics
    from batchwatch.web.access import Access
    from batchwatch.web.route import Explain, Route

log = get_logger()

CONNECTIONS: Final = 500  # at once; a process has 1,024 files by default, and needs some itself
IDLE: Final = 75.0  # seconds for a request's head to come; above the 60 for which nginx keeps ours
LINGERING: Final = 2.0  # seconds in which what is left of a refused body is read
MOST_HEADERS: Final = 100
LONGEST_LINE: Final = 32 * 1024  # bytes; the longest query that is read, each character escaped
LONGEST_HEADER: Final = 8_190  # bytes

_FULL: Final = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class ListenError(Exception):
    """The address cannot be listened on."""


@asynccontextmanager
async def serve(
    host: str,
    port: int,
    routes: Iterable[Route],
    *,
    access: Access,
    metrics: Metrics,
    explain: Explain | None = None,
) -> AsyncIterator[str]:
    """Listen for as long as the context is held; gives the URL, with the true port.

    ``explain`` says to a person what went wrong, in HTML.

    Raises :class:`ListenError`.
    """
    app = web.Application(client_max_size=LARGEST_BODY)
    mounted = mount(app, routes, prefix=access.prefix)
    border = Border(mounted, access=access, explain=explain)
    app.middlewares.extend([measured(metrics, mounted), border.cross])
    app.on_response_prepare.append(border.dress)
    runner = web.AppRunner(
        app,
        access_log=None,
        handle_signals=False,
        shutdown_timeout=1.0,
        auto_decompress=False,  # a signature is of what came, and little may unpack to much
        keepalive_timeout=IDLE,
        max_headers=MOST_HEADERS,
        max_line_size=LONGEST_LINE,
        max_field_size=LONGEST_HEADER,
        lingering_time=LINGERING,
        logger=_about_us(),
    )
    await runner.setup()
    try:
        try:
            listening = await _listen(host, port, runner)
        except (OSError, UnicodeError) as error:  # the latter for what can be no host's name
            raise ListenError(
                f"cannot listen on {host}:{port}: {reason_of(error)}: "
                "set BATCHWATCH_LISTEN to a free address"
            ) from error
        try:
            bound = listening.sockets[0].getsockname()
            shown = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
            yield f"http://{shown}:{bound[1]}"
        finally:
            listening.close()
    finally:
        await runner.cleanup()


async def _listen(host: str, port: int, runner: web.AppRunner) -> asyncio.Server:
    """Take connections, but no more at once than ``CONNECTIONS``.

    Anybody can open them, and hold them without a word for as long as ``IDLE``.
    Each is an open file, and without a file left nothing is polled or sent.
    """
    http = runner.server
    assert http is not None  # noqa: S101  # it was set up
    told = False

    def protocol() -> asyncio.Protocol:
        nonlocal told
        count = len(http.connections)
        if count < CONNECTIONS:
            told = told and count > CONNECTIONS // 2  # or each of many that come and go is told
            return http()
        if not told:
            log.warning("connections.refused", limit=CONNECTIONS)
        told = True
        return _Refusal()

    return await asyncio.get_running_loop().create_server(protocol, host, port, backlog=128)


class _Refusal(asyncio.Protocol):
    """For one connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say so, and close it."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  # as all of TCP are
        transport.write(_FULL)
        transport.close()


def _about_us() -> logging.Logger:
    """A log of faults of ours: not of what was no HTTP, for scanners knock at every door.

    Nor of who has gone before the end, or of what was broken off: that was said already.
    """
    logger = logging.getLogger("batchwatch.web")
    logger.filters[:] = [_is_ours]
    return logger


def _is_ours(record: logging.LogRecord) -> bool:
    theirs = HttpProcessingError, ConnectionError
    return not (record.exc_info and isinstance(record.exc_info[1], theirs))


def reason_of(error: OSError | UnicodeError) -> str:
    """Why an address cannot be listened on, in the system's words and not in asyncio's."""
    if isinstance(error, UnicodeError):
        return "that is no host's name"
    if isinstance(error, socket.gaierror) or not error.errno:
        return error.strerror or str(error)
    return os.strerror(error.errno)
