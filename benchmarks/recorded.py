"""Serve prerecorded answers: what the simulator said once, again and again, as fast as can be.

Run as ``python -m benchmarks.recorded FILE`` with a file that :func:`save` wrote.
"""

from __future__ import annotations

import asyncio
import sys
from email.utils import formatdate
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

import msgspec

from benchmarks.child import serve

_OK: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\n"
    b"Date: %b\r\nContent-Length: %d\r\n\r\n%b"
)
_UNKNOWN: Final = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
_END: Final = b"\r\n\r\n"
BATCHES: Final = "/api/v2/batches"

Key = tuple[str, str, str]  # folder, status, page token; the last two may be empty


def save(recording: dict[Key, bytes], file: Path) -> None:
    """Write what was recorded: the body of each page."""
    file.write_bytes(msgspec.msgpack.encode([[*key, body] for key, body in recording.items()]))


def load(file: Path) -> dict[Key, bytes]:
    """Read what :func:`save` wrote, as whole answers."""
    date = formatdate(usegmt=True).encode()  # no earlier than the batches on the pages
    rows = msgspec.msgpack.decode(file.read_bytes(), type=list[tuple[str, str, str, bytes]])
    return {
        (folder, status, token): _OK % (date, len(body), body)
        for folder, status, token, body in rows
    }


class Upstream(asyncio.Protocol):
    """One connection; every request for a page that was recorded is answered with it."""

    answers: Final[dict[Key, bytes]] = {}  # of all connections
    targets: Final[dict[bytes, bytes]] = {}  # the answers again, by request lines seen before

    def __init__(self) -> None:
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way to answer."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer each GET that is whole."""
        assert self._transport is not None
        self._buffer += data
        while (end := self._buffer.find(_END)) >= 0:
            target = self._buffer[:end].split(b" ", 2)[1]
            self._buffer = self._buffer[end + len(_END) :]
            if target not in self.targets:
                self.targets[target] = self.answers.get(_key(target), _UNKNOWN)
            self._transport.write(self.targets[target])


def _key(target: bytes) -> Key:
    url = urlsplit(target.decode())
    query = parse_qs(url.query)
    folder = url.path.removeprefix("/").removesuffix(BATCHES)
    return folder, query.get("status", [""])[0], query.get("page_token", [""])[0]


if __name__ == "__main__":
    Upstream.answers.update(load(Path(sys.argv[1])))
    serve(Upstream)
