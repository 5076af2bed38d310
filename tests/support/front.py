"""TLS before a PostgreSQL whose wheel has none: it answers as a server with TLS would."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import sqlalchemy as sa

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

_REQUEST = 8  # bytes in which a client asks for TLS


@asynccontextmanager
async def encrypted(url: str, context: ssl.SSLContext) -> AsyncIterator[sa.URL]:
    """The URL of the same database by TCP and TLS alone."""
    behind = sa.make_url(url)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(_REQUEST)
        writer.write(b"S")
        with suppress(OSError):  # a client that does not trust us
            await writer.start_tls(context)
            there, onward = await _connected(behind)
            async with asyncio.TaskGroup() as group:
                group.create_task(_pass_on(reader, onward))
                group.create_task(_pass_on(there, writer))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield behind.set(host="127.0.0.1", port=port, query={})


async def _connected(url: sa.URL) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if url.host:
        return await asyncio.open_connection(url.host, url.port or 5432)
    return await asyncio.open_unix_connection(f"{url.query['host']}/.s.PGSQL.5432")


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while some := await reader.read(65_536):
            writer.write(some)
            await writer.drain()
        writer.close()
