"""What went wrong, for programs: problem details (RFC 9457)."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import msgspec
from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Mapping

CONTENT_TYPE: Final = "application/problem+json"


class Problem(Exception):
    """A request that cannot be answered as it was meant: why, and what to do about it.

    ``detail`` is for people, and never holds a secret; ``headers`` go with the answer.
    """

    def __init__(
        self, status: int, detail: str, *, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})

    @property
    def title(self) -> str:
        """The status in words."""
        return HTTPStatus(self.status).phrase

    def answer(self) -> web.Response:
        """The same as a response."""
        body: dict[str, Any] = {"title": self.title, "status": self.status, "detail": self.detail}
        return web.Response(
            body=msgspec.json.encode(body) + b"\n",
            status=self.status,
            headers=self.headers,
            content_type=CONTENT_TYPE,
        )
