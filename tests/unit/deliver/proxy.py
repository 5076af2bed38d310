"""A forward proxy on real sockets: absolute URLs for http, CONNECT for https, and a login."""

from __future__ import annotations

import asyncio
import base64
import re
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_WAY = re.compile(rb"(?:http://)?([^/:\s]+)(?::(\d+))?(\S*)")


@dataclass
class Proxy:
    """Where it is, whom it lets through, and the heads of what it was asked."""

    host: str = ""
    login: str = ""
    heads: list[bytes] = field(default_factory=list)
    leads_to: str = ""  # host:port, in place of what a name would be resolved to
    status: bytes = b""  # said to everybody instead of letting them through

    @property
    def url(self) -> str:
        """As it is set, with the login that it asks for."""
        return f"http://{self.login}{'@' if self.login else ''}{self.host}"


@asynccontextmanager
async def proxying(login: str = "", status: bytes = b"") -> AsyncIterator[Proxy]:
    """A proxy that asks for ``login``, or that says ``status`` to everybody."""
    proxy = Proxy(login=login, status=status)
    served: dict[asyncio.Task[None] | None, asyncio.StreamWriter] = {}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served[asyncio.current_task()] = writer
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await _serve(proxy, reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    proxy.host = f"{host}:{port}"
    async with server:
        yield proxy
        for writer in served.values():
            writer.transport.abort()  # which ends what is pumped
        await asyncio.gather(*filter(None, served))


async def _serve(proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    proxy.heads.append(head)
    method, target, _ = head.split(b" ", 2)
    wanted = base64.b64encode(proxy.login.encode())
    if proxy.login and b"\r\nProxy-Authorization: Basic " + wanted + b"\r\n" not in head:
        refusal = proxy.status or b"407 Proxy Authentication Required"
    else:
        refusal = proxy.status
    if refusal:
        writer.write(b"HTTP/1.1 " + refusal + b"\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        await reader.read()
        return
    way = _WAY.fullmatch(target)
    assert way is not None
    host, port = (proxy.leads_to or f"{way[1].decode()}:{(way[2] or b'80').decode()}").split(":")
    on_reader, on_writer = await asyncio.open_connection(host, int(port))
    if method == b"CONNECT":
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
    else:
        on_writer.write(head.replace(target, way[3] or b"/", 1))
    async with asyncio.TaskGroup() as both:
        both.create_task(_pump(reader, on_writer))
        both.create_task(_pump(on_reader, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while some := await reader.read(65536):
            writer.write(some)
            await writer.drain()
    writer.close()
