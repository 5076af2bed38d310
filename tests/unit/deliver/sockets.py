"""Receivers on raw sockets, for what no HTTP server can be brought to do."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

Then = Literal["close", "reset", "hang", "drip", "flood"]

PACE = 0.01  # seconds between two bytes of a receiver that drips
FLOOD = 2**23  # bytes; far more than anybody should read, and little enough for a test that fails
_LENGTH = re.compile(rb"(?i)content-length: (\d+)")


@dataclass
class Line:
    """Where such a receiver is, what it was sent, and whether its caller has hung up."""

    url: str
    requests: list[bytes] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)


@asynccontextmanager
async def saying(
    said: bytes, *, then: Then = "close", tls: ssl.SSLContext | None = None
) -> AsyncIterator[Line]:
    """Answer every request with the bytes ``said``, however wrong they are.

    Afterwards close or reset; or keep the line until the caller hangs up:
    silent (``hang``), a byte at a time (``drip``), or after more bytes than
    anybody should read (``flood``).
    """
    line = Line("")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):  # the caller's good right
            line.requests.append(await _request(reader))
            line.asked.set()
            writer.write(said)
            await writer.drain()
            if then == "reset":
                _reset_on_close(writer)
            elif then != "close":
                await _go_on(then, reader, writer)
        if then != "close":
            line.hung_up.set()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    host, port = server.sockets[0].getsockname()
    line.url = f"{'https' if tls else 'http'}://{host}:{port}"
    async with server:
        yield line


async def _request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = _LENGTH.search(head)
    return head + (await reader.readexactly(int(length[1])) if length else b"")


async def _go_on(then: Then, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while then == "drip":
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(PACE)  # how it is slow, not what we wait for
    if then == "flood":
        writer.write(b"x" * FLOOD)
        await writer.drain()
    await reader.read()  # nothing comes but the end


def _reset_on_close(writer: asyncio.StreamWriter) -> None:
    connection: socket.socket = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def an_answer(status: str, body: bytes = b"", **headers: str) -> bytes:
    """A whole and correct answer; ``Retry_After="5"`` for a header."""
    told = {"Content-Length": str(len(body))} | headers
    lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in told.items()]
    return f"HTTP/1.1 {status}\r\n{''.join(lines)}\r\n".encode() + body


async def a_closed_port() -> str:
    """The address of nobody: a port that was free a moment ago."""
    async with saying(b"") as line:
        return line.url
