"""Where people show their token once, and where they sign out."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Final

from aiohttp import web

from batchwatch.clock import Clock
from batchwatch.log import get_logger
from batchwatch.web.access import (
    LOGIN_PATH,
    VISITOR,
    is_form,
    read_form,
    text_in,
)
from batchwatch.web.attempts import Attempts
from batchwatch.web.problem import Problem
from batchwatch.web.route import Role, Route

if TYPE_CHECKING:
    from batchwatch.web.access import Access

log = get_logger()

LOGOUT_PATH: Final = "/logout"
LONGEST_NEXT: Final = 2_048  # characters
WRONG: Final = "That is no token of this batchwatch."

# Printable ASCII without a space and a backslash; browsers take the latter for a slash.
_NEXT: Final = re.compile(r"/[!-\[\]-~]*")
_PAGE: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Sign in to batchwatch</title>
</head>
<body>
<main>
<h1>Sign in to batchwatch</h1>
{error}<form method="post" action="{action}">
<input type="hidden" name="next" value="{next}">
<input type="hidden" name="csrf" value="{csrf}">
<p><label for="token">Token</label>
<input id="token" name="token" type="password" autocomplete="current-password"
 required{described}></p>
<p><button type="submit">Sign in</button></p>
</form>
</main>
</body>
</html>
"""

Render = Callable[..., web.Response]


class Login:
    """A form with one field, and what takes it.

    ``render(request, *, next, error, csrf)`` makes the page: a form that posts
    ``token``, and ``next`` as it was given, to where the page itself is;
    ``error`` says what was wrong with the last attempt, if anything was.

    Another site must not sign anybody in, so the form is taken from our own
    pages only. An address that was wrong too often is not even listened to.
    """

    def __init__(
        self, access: Access, *, render: Render | None = None, clock: Clock | None = None
    ) -> None:
        self._access = access
        self._render = render or self._plain
        self._attempts = Attempts("login.refused", clock or Clock())

    def routes(self) -> list[Route]:
        """What is to be served."""
        return [
            Route("GET", LOGIN_PATH, self.ask, Role.NONE, page=True),
            Route("POST", LOGIN_PATH, self.take, Role.NONE, page=True),
            Route("POST", LOGOUT_PATH, self.leave, Role.READ, page=True),
        ]

    async def ask(self, request: web.Request) -> web.Response:
        """The page; where nobody has to sign in, what is behind it."""
        if not self._access.tokens:
            return self._go("/")
        return self._answer(request, request.query.get("next", "/"))

    async def take(self, request: web.Request) -> web.Response:
        """A session for who knows a token."""
        self._access.check_origin(request)
        if not self._access.tokens:
            return self._go("/")
        if not is_form(request):
            raise Problem(415, "send the form of this page; programs send a bearer token instead")
        form = await read_form(request)
        wanted = text_in(form, "next")
        client = self._access.outside(request).client
        # From here on nothing is waited for: many attempts at once are as many.
        wait = math.ceil(self._attempts.wait(client))
        if wait:
            text = f"There were too many wrong tokens. Try again in {wait} s."
            return self._answer(
                request, wanted, error=text, status=429, headers={"Retry-After": str(wait)}
            )
        role = self._access.tokens.role_of(text_in(form, "token").strip())
        if role is Role.NONE:
            self._attempts.fail(client)
            return self._answer(
                request,
                wanted,
                error=WRONG,
                status=401,
                headers={"WWW-Authenticate": 'Bearer realm="batchwatch"'},
            )
        log.info("login.accepted", client=str(client), role=role.name.lower())
        response = self._go(path_within(wanted))
        self._access.sign_in(request, response, role)
        return response

    async def leave(self, request: web.Request) -> web.Response:
        """Forget the session."""
        del request
        response = self._go(LOGIN_PATH)
        self._access.sign_out(response)
        return response

    def _answer(
        self,
        request: web.Request,
        wanted: str,
        *,
        error: str | None = None,
        status: int = 200,
        headers: dict[str, str] | None = None,
    ) -> web.Response:
        response = self._render(
            request, next=path_within(wanted), error=error, csrf=request[VISITOR].csrf
        )
        response.set_status(status)
        response.headers.update(headers or {})
        return response

    def _go(self, path: str) -> web.Response:
        # By hand: what reads a URL to write it again may make another one of it.
        return web.Response(status=303, headers={"Location": self._access.url(path)})

    def _plain(
        self,
        _request: web.Request,
        *,
        next: str,  # noqa: A002  # as the field of the form
        error: str | None,
        csrf: str,
    ) -> web.Response:
        said = f'<p id="error" role="alert">{escape(error)}</p>\n' if error else ""
        described = ' aria-invalid="true" aria-describedby="error"' if error else ""
        text = _PAGE.format(
            action=escape(self._access.url(LOGIN_PATH)),
            next=escape(next),
            csrf=escape(csrf),
            error=said,
            described=described,
        )
        return web.Response(text=text, content_type="text/html")


def path_within(text: str) -> str:
    """``text`` if it is a path of this site, else /.

    Whatever a browser could take for another site is none: a second slash, a
    backslash, a scheme, what is cut out before a URL is read. Nor is a path
    with dots for segments, which is read as another one, or the login page.
    """
    path = text.partition("#")[0].partition("?")[0]
    is_plain = (
        len(text) <= LONGEST_NEXT
        and _NEXT.fullmatch(text)
        and "//" not in path
        and not re.search(r"/(?:\.|%2e){1,2}(?:/|$)", path, re.IGNORECASE)
        and path not in {LOGIN_PATH, LOGOUT_PATH}
    )
    return text if is_plain else "/"
