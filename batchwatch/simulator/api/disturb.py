"""Let the trouble of a request happen: answers refused, broken off, mangled, or of the past."""

from __future__ import annotations

import socket
import struct
from datetime import datetime, timedelta, timezone
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import msgspec
from aiohttp import web

from batchwatch.simulator.api.refusal import Refusal
from batchwatch.simulator.trouble import Trouble

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from aiohttp.typedefs import Handler, Middleware

    from batchwatch.clock import Clock
    from batchwatch.simulator.timeline import Micros, Timeline
    from batchwatch.simulator.trouble import Faults

TROUBLE: Final = web.RequestKey("trouble", Trouble)

_RST_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # linger on, for no time
_GATEWAY_PAGE: Final = "<html><head><title>{0}</title></head><body><h1>{0}</h1></body></html>\n"
_NOT_JSON: Final = (
    b"",
    b"upstream connect error",
    b"<html></html>",
    b'{"items": [NaN,]}',
    b"\xff{}",
)


def disturbing(faults: Faults, clock: Clock) -> Middleware:
    """The middleware that stands between clients and the API."""

    @web.middleware
    async def disturb(request: web.Request, handler: Handler) -> web.StreamResponse:
        writes = request.method != "GET"
        trouble = request[TROUBLE] = faults.for_request(request.path, writes=writes)
        if trouble.strikes("latency"):
            await clock.sleep(trouble.seconds("latency", 0.05, 0.6))
        refusal = _refusal(trouble)
        if refusal is not None:
            return refusal
        resets = trouble.strikes("reset")
        if resets and (writes or trouble.rng.random() < 0.5):  # even chances
            _hang_up(request)
            return web.Response()  # for nobody: the connection is gone
        answer = await handler(request)
        if not isinstance(answer, web.Response) or not isinstance(answer.body, bytes):
            return answer
        if resets:
            return await _broken_off(request, answer.body)
        return _mangled(answer, answer.body, trouble)

    return disturb


def _refusal(trouble: Trouble) -> web.Response | None:
    rng = trouble.rng
    if trouble.strikes("outage"):
        return rng.choice([_gateway_page(503), _error(503)])
    if trouble.strikes("status"):
        return _error(trouble.drawn["status"].status)
    if trouble.strikes("429"):
        return _error(429)
    if trouble.strikes("429-retry-after"):
        seconds = trouble.drawn["429-retry-after"].seconds
        return _error(429, {"Retry-After": f"{1 if seconds is None else seconds:g}"})
    if trouble.strikes("5xx"):
        return _error(rng.choice([500, 502, 503, 504]))
    if trouble.strikes("html"):
        return _gateway_page(rng.choice([502, 503]))
    return None


def _error(status: int, headers: dict[str, str] | None = None) -> web.Response:
    return Refusal(status, HTTPStatus(status).phrase, headers=headers).answer()


def _gateway_page(status: int) -> web.Response:
    page = _GATEWAY_PAGE.format(f"{status} {HTTPStatus(status).phrase}")
    return web.Response(text=page, status=status, content_type="text/html")


def _hang_up(request: web.Request) -> None:
    """Close with a reset, as a crashed peer does, instead of with a farewell."""
    transport = request.transport
    if transport is None:  # the client was faster
        return
    peer: socket.socket = transport.get_extra_info("socket")
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_ON_CLOSE)
    transport.abort()


async def _broken_off(request: web.Request, body: bytes) -> web.StreamResponse:
    """Promise the whole body, send half of it, hang up."""
    answer = web.StreamResponse(headers={"Content-Type": "application/json"})
    answer.content_length = len(body)
    await answer.prepare(request)
    await answer.write(body[: len(body) // 2])
    _hang_up(request)
    return answer


def _mangled(answer: web.Response, body: bytes, trouble: Trouble) -> web.Response:
    if trouble.strikes("truncated"):
        answer.body = body[: trouble.rng.randrange(1, len(body))]
    elif trouble.strikes("invalid-json"):
        answer.body = trouble.rng.choice(_NOT_JSON)
    return answer


def as_of(trouble: Trouble, timeline: Timeline, now: Micros) -> Micros:
    """The moment that an answer shows: the present, or an earlier one if it is stale."""
    if not trouble.strikes("stale"):
        return now
    return timeline.after(now, -trouble.seconds("stale", 1, 8))


def disfigured(rows: list[bytes], trouble: Trouble) -> list[bytes]:
    """The encoded rows, some of them with what clients must bear."""
    for kind, change in _DISFIGUREMENTS.items():
        if rows and trouble.strikes(kind):
            for nth in trouble.rng.sample(range(len(rows)), min(3, len(rows))):
                picture = msgspec.json.decode(rows[nth])
                change(picture, trouble.rng)
                rows[nth] = msgspec.json.encode(picture)
    return rows


def _without_time(picture: dict[str, Any], rng: Random) -> None:
    for name in rng.choice([("created_at",), ("updated_at",), ("created_at", "updated_at")]):
        picture[name] = None


def _in_other_form(picture: dict[str, Any], rng: Random) -> None:
    """The same moments in another notation: a client that compares texts is found out."""
    east = timezone(timedelta(hours=5, minutes=30))
    for name in ("created_at", "updated_at"):
        if (written := picture[name]) is not None:
            elsewhere = datetime.fromisoformat(written).astimezone(east).isoformat()
            picture[name] = rng.choice(
                [elsewhere, written.replace("Z", "+00:00"), written.replace("Z", "000Z")]
            )


def _with_more(picture: dict[str, Any], rng: Random) -> None:
    picture["priority"] = rng.choice(["low", "high"])
    picture["progress"] = {"done": rng.randrange(100), "of": 100}


_DISFIGUREMENTS: Final[dict[str, Callable[[dict[str, Any], Random], None]]] = {
    "odd-timestamps": _in_other_form,
    "null-timestamps": _without_time,
    "unknown-fields": _with_more,
}
