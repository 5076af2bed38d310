"""Refusals in the three shapes that the API's errors have: a text, a list, an object."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Mapping


class Refusal(Exception):
    """An answer with an error status; raised anywhere in a handler.

    ``detail`` is a text as a rule, a list of problems for 422, and an object where the client is
    to read something out of it.
    """

    def __init__(
        self, status: int, detail: object, *, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status, detail)
        self._status = status
        self._detail = detail
        self._headers = headers

    def answer(self) -> web.Response:
        """The refusal as it goes out."""
        return json_answer({"detail": self._detail}, status=self._status, headers=self._headers)


def json_answer(
    body: object, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """An answer in JSON; ``body`` may be encoded already."""
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return web.Response(body=raw, status=status, content_type="application/json", headers=headers)


def not_found(noun: str, row_id: str) -> Refusal:
    """404: nothing has this id, or it is in somebody else's project."""
    return Refusal(HTTPStatus.NOT_FOUND, f"{noun} {row_id} not found")


class Problems:
    """What is wrong with the parameters of a request, collected and refused as FastAPI does."""

    def __init__(self) -> None:
        self._found: list[dict[str, Any]] = []

    def add(self, kind: str, where: tuple[str | int, ...], message: str, given: object) -> None:
        """One more problem: its type, the place, a sentence, and the value that was given."""
        self._found.append({"type": kind, "loc": where, "msg": message, "input": given})

    def refusal(self) -> Refusal:
        """422 with all of them."""
        return Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, self._found)

    def refuse(self) -> None:
        """Raise 422 if there is any."""
        if self._found:
            raise self.refusal()
