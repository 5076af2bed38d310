"""Take notifications with the least work that HTTP allows, and remember when each came.

Run as ``python -m benchmarks.receiver``. ``GET /arrivals`` gives what was taken since the last
such question.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Final

import msgspec

from benchmarks.child import serve

_OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_JSON: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"Content-Length: "
_ID: Final = b"webhook-id: "


class Arrivals(msgspec.Struct):
    """What was taken: how many, and the moment of each by its ``webhook-id``.

    The moments are monotonic seconds, a clock that all processes of a machine
    share.
    """

    count: int
    moments: dict[str, float]


class Receiver(asyncio.Protocol):
    """One connection, kept open."""

    taken: Final[list[tuple[bytes, float]]] = []  # by all connections

    def __init__(self) -> None:
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way to answer."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer each request that is whole."""
        assert self._transport is not None
        self._buffer += data
        while (end := self._buffer.find(_END)) >= 0:
            head = self._buffer[:end]
            whole = end + len(_END) + int(_after(_LENGTH, head) or 0)
            if len(self._buffer) < whole:
                return
            self._buffer = self._buffer[whole:]
            if head.startswith(b"GET"):
                self._transport.write(self._arrivals())
            else:
                self.taken.append((_after(_ID, head), time.monotonic()))
                self._transport.write(_OK)

    def _arrivals(self) -> bytes:
        moments = {name.decode(): moment for name, moment in self.taken}
        body = json.dumps({"count": len(self.taken), "moments": moments}).encode()
        self.taken.clear()
        return _JSON % (len(body), body)


def _after(name: bytes, head: bytes) -> bytes:
    start = head.find(name)
    if start < 0:
        return b""
    start += len(name)
    end = head.find(b"\r\n", start)
    return head[start : end if end >= 0 else len(head)]


if __name__ == "__main__":
    serve(Receiver)
