"""A list as a file: the same rows as on the page, page after page, as CSV or JSON."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any, Final

import msgspec
from aiohttp import web

from batchwatch.web.api import answers
from batchwatch.web.problem import Problem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
    from datetime import datetime

    Ask = Callable[[str | None], Awaitable[answers.Page[Any]]]  # by the cursor

MOST: Final = 10_000  # rows
FORMATS: Final = {"csv": "text/csv", "json": "application/json"}
_NESTED: Final = {"expected": answers.Expected, "stuck": answers.Stuck}
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")  # what spreadsheets would run
_ENCODER: Final = msgspec.json.Encoder()


async def exported(
    request: web.Request, name: str, kind: type[msgspec.Struct], ask: Ask, *, now: datetime
) -> web.StreamResponse:
    """Send all that ``ask`` gives, ``MOST`` rows at most, while it is read."""
    wanted = request.query["format"]
    if wanted not in FORMATS:
        raise Problem(400, f"format: csv or json, and not {wanted!r}")
    first = await ask(request.query.get("cursor") or None)  # what goes wrong is said before that
    response = web.StreamResponse()
    response.content_type = FORMATS[wanted]
    response.charset = "utf-8"
    file = f"batchwatch-{name}-{now:%Y%m%dT%H%M%S}.{wanted}"
    response.headers["Content-Disposition"] = f'attachment; filename="{file}"'
    response.headers["Cache-Control"] = "no-store"
    if request.method == "HEAD":
        return response
    await response.prepare(request)
    write = _as_csv if wanted == "csv" else _as_json
    async for text in write(kind, _rows(first, ask)):
        await response.write(text)
    return response


async def _rows(page: answers.Page[Any], ask: Ask) -> AsyncIterator[list[msgspec.Struct]]:
    left = MOST
    while True:
        yield page.items[:left]
        left -= len(page.items)
        if page.next is None or left <= 0:
            return
        page = await ask(page.next)


async def _as_csv(
    kind: type[msgspec.Struct], pages: AsyncIterator[list[msgspec.Struct]]
) -> AsyncIterator[bytes]:
    yield _lines([[name for name, _ in _columns(kind)]])
    async for rows in pages:
        yield _lines([[_cell(one) for one in _values(row)] for row in rows])


async def _as_json(
    _kind: type[msgspec.Struct], pages: AsyncIterator[list[msgspec.Struct]]
) -> AsyncIterator[bytes]:
    before = b"["
    async for rows in pages:
        for row in rows:
            yield before + b"\n" + _ENCODER.encode(row)
            before = b","
    yield b"[]\n" if before == b"[" else b"\n]\n"


def _columns(kind: type[msgspec.Struct]) -> Iterator[tuple[str, str | None]]:
    for name in kind.__struct_fields__:
        if name in _NESTED:
            yield from ((f"{name}.{one}", one) for one in _NESTED[name].__struct_fields__)
        else:
            yield name, None


def _values(row: msgspec.Struct) -> Iterator[Any]:
    for name in row.__struct_fields__:
        value = getattr(row, name)
        if name in _NESTED:
            yield from (getattr(value, one, None) for one in _NESTED[name].__struct_fields__)
        else:
            yield value


def _cell(value: Any) -> str | int | float:
    """As a spreadsheet may have it: no text in it is taken for a formula."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return value
    plain = msgspec.to_builtins(value)
    text = plain if isinstance(plain, str) else _ENCODER.encode(plain).decode()
    return f"'{text}" if text.startswith(_FORMULA) else text


def _lines(rows: Sequence[Sequence[Any]]) -> bytes:
    lines = io.StringIO()
    csv.writer(lines).writerows(rows)
    return lines.getvalue().encode()
