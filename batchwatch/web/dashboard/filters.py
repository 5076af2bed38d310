"""What a page's address asks for: filters, where to go on, and how it is wanted."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import urlencode

import msgspec

from batchwatch.web.api.operation import LARGEST_QUERY, query_of
from batchwatch.web.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

S = TypeVar("S", bound=msgspec.Struct)

OF_THE_PAGE: Final = frozenset({"format", "done", "n"})  # says nothing of what is listed
_WITHOUT_ZONE: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?")
_A_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d")


def filters(request: web.Request, kind: type[S]) -> S:
    """What is asked for; fields of a form that are left empty are not.

    A moment without its zone, as forms give them, is in UTC. Raises Problem.
    """
    if len(request.query_string) > LARGEST_QUERY:
        raise Problem(414, f"a query has at most {LARGEST_QUERY} characters")
    return query_of(_given(request), kind)


def here(request: web.Request, root: str) -> Callable[..., str]:
    """Makes the address of the same page with other filters; None leaves one out.

    Another filter begins at the first page again.
    """
    return partial(_address, root, _given(request))


def _given(request: web.Request) -> dict[str, str]:
    found = {}
    for name, text in request.query.items():
        if text.strip() and name not in OF_THE_PAGE:
            found[name] = _zoned(text.strip()) if name in {"since", "until"} else text.strip()
    return found


def _address(root: str, given: dict[str, str], **changes: str | int | None) -> str:
    query: dict[str, object] = {name: text for name, text in given.items() if name != "cursor"}
    query |= changes
    query = {name: value for name, value in query.items() if value is not None}
    return root + (f"?{urlencode(query)}" if query else "")


def _zoned(text: str) -> str:
    if _A_DAY.fullmatch(text):
        return f"{text}T00:00:00Z"
    if not _WITHOUT_ZONE.fullmatch(text):
        return text
    return text + (":00Z" if text.count(":") == 1 else "Z")
