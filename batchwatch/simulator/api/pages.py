"""Cut lists into pages, whose tokens say where the next one begins.

A token holds the key of the last row that was shown, not a number of rows: rows that come or go
between two pages make no other row appear twice or not at all. The order is newest first, unless
a fault chooses another for the whole of a list.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING, Final, Generic, Literal, TypeVar

import msgspec

from batchwatch.simulator.api.disturb import disfigured
from batchwatch.simulator.api.refusal import json_answer
from batchwatch.simulator.project import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from aiohttp import web

    from batchwatch.simulator.api.query import Query
    from batchwatch.simulator.timeline import Micros
    from batchwatch.simulator.trouble import Trouble

DEFAULT_SIZE: Final = 50
LARGEST_SIZE: Final = 1_000
_ROOM_FOR_REPEATS: Final = 3  # rows; a smaller page would show nothing new

_R = TypeVar("_R", bound=Row)
_key = attrgetter("key")
_id = attrgetter("id")


class _Cursor(msgspec.Struct, frozen=True, array_like=True):
    order: Literal["newest", "oldest", "by-id"] = "newest"
    after: tuple[int, str] | None = None  # the key of the last row shown
    again: str | None = None  # the id of a row to be shown once more

    def token(self) -> str:
        return urlsafe_b64encode(msgspec.json.encode(self)).decode()


@dataclass(frozen=True, slots=True)
class Page(Generic[_R]):
    """Some rows of a list and the way to more."""

    rows: list[_R]
    next_page_token: str | None

    def answer(self, at: Micros, trouble: Trouble) -> web.Response:
        """The page as it goes out, with its rows as they were at a moment."""
        items = disfigured([row.encoded(at) for row in self.rows], trouble)
        token = msgspec.json.encode(self.next_page_token)
        parts = (b'{"items":[', b",".join(items), b'],"next_page_token":', token)
        return json_answer(b"".join((*parts, b',"total_size":null}')))


class Paging:
    """What a request says of pages."""

    def __init__(self, query: Query, trouble: Trouble) -> None:
        self._trouble = trouble
        self._size = query.number("page_size", DEFAULT_SIZE, least=1, most=LARGEST_SIZE)
        self._cursor = _Cursor()
        token = query.text("page_token")
        if token is not None:
            try:
                self._cursor = msgspec.json.decode(urlsafe_b64decode(token), type=_Cursor)
            except (ValueError, msgspec.DecodeError):
                query.wrong("page_token", "value_error", "Value error, invalid page token", token)

    def cut(self, rows: Sequence[_R], matches: Callable[[_R], bool]) -> Page[_R]:
        """The page of those rows that match; ``rows`` come oldest first."""
        trouble, cursor = self._trouble, self._cursor
        reordered = trouble.strikes("reordered")
        if reordered and cursor.after is None:
            cursor = _Cursor(trouble.rng.choice(("oldest", "by-id")))

        repeats = self._size >= _ROOM_FOR_REPEATS and trouble.strikes("repeated")
        size = max(1, self._size - (cursor.again is not None) - repeats)
        found = list(islice(filter(matches, _onwards(rows, cursor)), size + 1))
        more, shown = len(found) > size, found[:size]
        following = _Cursor(cursor.order, shown[-1].key) if shown and more else None

        shown += [row for row in rows if row.id == cursor.again and matches(row)]
        if repeats and shown:
            twice = trouble.rng.choice(shown)
            shown.append(twice)
            if following is not None:
                following = msgspec.structs.replace(following, again=twice.id)
        if reordered:
            trouble.rng.shuffle(shown)
        if trouble.strikes("looped"):
            following = cursor
        return Page(shown, following.token() if following else None)


def _onwards(rows: Sequence[_R], cursor: _Cursor) -> Iterable[_R]:
    """The rows behind the cursor, in its order."""
    match cursor.order:
        case "newest":
            end = bisect_left(rows, cursor.after, key=_key) if cursor.after else len(rows)
            return reversed(rows[:end])
        case "oldest":
            return rows[bisect_right(rows, cursor.after, key=_key) if cursor.after else 0 :]
        case "by-id":
            named = sorted(rows, key=_id)
            return named[bisect_right(named, cursor.after[1], key=_id) if cursor.after else 0 :]
