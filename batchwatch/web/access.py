"""Who may ask for what."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aiohttp import web

from batchwatch.web.problem import Problem
from batchwatch.web.route import Role

if TYPE_CHECKING:
    from batchwatch.web.route import Route


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who asks, and what one may do."""

    role: Role


VISITOR: Final = web.RequestKey("visitor", Visitor)  # where a request keeps who asks


class Access:
    """Lets in who has a token, and everybody where none is set."""

    def __init__(self, *, token: str | None) -> None:
        self._token = token

    def admit(self, request: web.Request, route: Route) -> None:
        """Return if the one who asks may have that; raises Problem if not."""
        role = self._role_of(request)
        request[VISITOR] = Visitor(role)
        if role >= route.role:
            return
        raise Problem(
            401,
            "send Authorization: Bearer BATCHWATCH_API_TOKEN",
            headers={"WWW-Authenticate": 'Bearer realm="batchwatch"'},
        )

    def protect(self, request: web.Request, response: web.StreamResponse) -> None:
        """Give the answer the headers that keep browsers from harm."""
        del request
        response.headers.setdefault("X-Content-Type-Options", "nosniff")

    def _role_of(self, request: web.Request) -> Role:
        if self._token is None:
            return Role.ADMIN
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        known = scheme.lower() == "bearer" and hmac.compare_digest(
            given.strip().encode(errors="surrogateescape"), self._token.encode()
        )
        return Role.ADMIN if known else Role.NONE
