"""Who may ask for what.

A program shows a token as a bearer token. A person shows it once, at the login page, and from then
on a session that a cookie keeps (`login`). Where no token is set, everybody may do everything; the
settings see to it that this is on loopback, unless they were told otherwise by name.

What changes something, and was not asked for with a bearer token, must come from a page of ours:

- not from another site: by ``Sec-Fetch-Site`` or, where that is missing, ``Origin`` (`browser`);
- with the word that only pages of this session know, as the field ``csrf`` of a form or in the
  header ``X-CSRF-Token``. A program that asks where no token is set is spared that: it has neither
  of these headers and no cookie, and every browser has one of them.

What is open to everybody (``Role.NONE``) is not judged here: hooks are signed, and the login page
has its own check.

Without a token a request must also name this machine as its host. Any site can give its own name
to 127.0.0.1, and its pages would then be of the same origin as ours (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from aiohttp import web

from batchwatch.clock import Clock
from batchwatch.web.attempts import Attempts
from batchwatch.web.browser import HEADERS, SAFE_METHODS, is_browser, is_foreign
from batchwatch.web.outside import Outside, Proxies, is_loopback
from batchwatch.web.problem import Problem
from batchwatch.web.route import Role
from batchwatch.web.session import Session, Sessions, Tokens

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from ipaddress import IPv4Network, IPv6Network

    from batchwatch.web.route import Route

COOKIE: Final = "batchwatch"
CSRF_FIELD: Final = "csrf"
CSRF_HEADER: Final = "X-CSRF-Token"
LOGIN_PATH: Final = "/login"
PATIENCE: Final = 10.0  # seconds for a form to come
FOREIGN: Final = "another site had your browser send this; nothing was done"

_ADMIN_TOKEN: Final = "BATCHWATCH_API_TOKEN"  # noqa: S105  # their names, which are no secrets
_READ_TOKEN: Final = "BATCHWATCH_READ_TOKEN"  # noqa: S105


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who asks, and what one may do."""

    role: Role
    csrf: str = field(default="", repr=False)  # for the forms of the page that is answered
    signed_in: bool = False  # by the login page, so that there is something to sign out of


VISITOR: Final = web.RequestKey("visitor", Visitor)  # where a request keeps who asks
_SESSION: Final = web.RequestKey("session", Session)  # one with more time, for the answer


class Access:
    """Lets in who has a token, and everybody where none is set."""

    def __init__(
        self,
        *,
        token: str | None,
        read_token: str | None = None,
        anyone: bool = False,
        prefix: str = "",
        proxies: Sequence[IPv4Network | IPv6Network] = (),
        clock: Clock | None = None,
    ) -> None:
        """``token`` makes an admin, and ``read_token`` one who only reads.

        With ``anyone``, no host is asked for where no token is set. All is
        served below ``prefix``, too; ``proxies`` are those that are believed.
        """
        clock = clock or Clock()
        by_role = {
            role: text
            for role, text in ((Role.ADMIN, token), (Role.READ, read_token))
            if text is not None
        }
        self.prefix = prefix
        self.tokens = Tokens(by_role)
        self._has_admin = token is not None
        self._anyone = anyone
        self._sessions = Sessions(by_role, clock)
        self._proxies = Proxies(proxies)
        self._refused = Attempts("token.refused", clock)

    def url(self, path: str) -> str:
        """What links and redirects to ``path`` say."""
        return self.prefix + path

    def outside(self, request: web.BaseRequest) -> Outside:
        """How ``request`` looks beyond the proxies."""
        return self._proxies.outside(request)

    async def admit(self, request: web.Request, route: Route) -> None:
        """Return if the one who asks may have that; raises Problem if not.

        A person who has yet to sign in is sent to the login page.
        """
        given = _bearer(request) if self.tokens else None
        session = self._sessions.read(request.cookies.get(COOKIE, "")) if self.tokens else None
        if given is not None:
            visitor = Visitor(self.tokens.role_of(given))  # a cookie beside it counts for nothing
        elif session is not None:
            visitor = Visitor(session.role, self._sessions.csrf(session), signed_in=True)
        else:
            role = Role.NONE if self.tokens else Role.ADMIN
            visitor = Visitor(role, self._sessions.csrf(None))
        request[VISITOR] = visitor
        needed = route.needs(request)
        if needed is Role.NONE:
            return
        if not self.tokens:
            self._check_host(request)
        if visitor.role < needed:
            self._refuse(request, route, needed, is_program=given is not None)
        if given is None:
            await self._check_sender(request, visitor)
            renewed = self._sessions.renewed(session) if session is not None else None
            if renewed is not None:
                request[_SESSION] = renewed

    def protect(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        """Give the answer the headers that keep browsers from harm."""
        headers = response.headers
        for name, value in HEADERS.items():
            headers.setdefault(name, value)
        if response.status != 304:  # which leaves what is kept as it is
            headers.setdefault("Cache-Control", "no-store")
        headers["Server"] = "batchwatch"  # and not of which version of what
        renewed = request.get(_SESSION)
        if renewed is not None and COOKIE not in response.cookies:
            self._keep(request, response, renewed)
            # By hand: at this point aiohttp has made its headers of cookies already.
            headers.add("Set-Cookie", response.cookies[COOKIE].OutputString())

    def check_origin(self, request: web.Request) -> None:
        """Return if no other site's page sent ``request``; raises Problem if one did."""
        if is_foreign(request, self.outside(request).host):
            raise Problem(403, FOREIGN)

    def sign_in(self, request: web.Request, response: web.StreamResponse, role: Role) -> None:
        """Give who asked a session."""
        self._keep(request, response, self._sessions.begin(role))

    def sign_out(self, response: web.StreamResponse) -> None:
        """Have the browser forget its session."""
        response.del_cookie(COOKIE, path=self.prefix or "/", httponly=True, samesite="Lax")

    def _keep(
        self, request: web.BaseRequest, response: web.StreamResponse, session: Session
    ) -> None:
        """Have the browser keep ``session``.

        Lax, for a link in a Slack message leads here from another site, and
        Strict would show the login page to who is signed in; what changes
        something has its own checks. Not ``__Host-``: that is for https://
        and the path / alone, and this is also for loopback and for prefixes.
        """
        response.set_cookie(
            COOKIE,
            self._sessions.write(session),
            path=self.prefix or "/",
            max_age=self._sessions.seconds_left(session),
            httponly=True,
            samesite="Lax",
            secure=self.outside(request).scheme == "https",
        )

    def _check_host(self, request: web.Request) -> None:
        # Both: a page that gave its name to this machine can also claim to be a proxy on it.
        hosts = (request.host, self.outside(request).host)
        if not (self._anyone or all(map(is_loopback, hosts))):
            raise Problem(
                421,
                "without a token, only who asks for localhost or a loopback address is answered: "
                f"set {_ADMIN_TOKEN}, or BATCHWATCH_ALLOW_ANYONE=true if that is meant",
            )

    def _refuse(
        self, request: web.Request, route: Route, needed: Role, *, is_program: bool
    ) -> None:
        visitor = request[VISITOR]
        if visitor.role is not Role.NONE:
            raise Problem(
                403,
                f"this is for who has {_ADMIN_TOKEN}; yours only lets you look"
                if self._has_admin
                else f"this is for who has {_ADMIN_TOKEN}, and none is set",
            )
        if is_program:
            self._refused.fail(self.outside(request).client)
        elif route.page:
            raise web.HTTPSeeOther(self.url(LOGIN_PATH) + _next(request, route, self.prefix))
        ways = [_ADMIN_TOKEN] if self._has_admin or needed is Role.ADMIN else []
        if len(self.tokens) > len(ways) and needed is Role.READ:
            ways.append(_READ_TOKEN)
        raise Problem(
            401,
            f"send Authorization: Bearer {' or '.join(ways)}",
            headers={"WWW-Authenticate": 'Bearer realm="batchwatch"'},
        )

    async def _check_sender(self, request: web.Request, visitor: Visitor) -> None:
        """Return if a page of ours sent that, or what is no browser; raises Problem if not."""
        if request.method in SAFE_METHODS:
            return
        self.check_origin(request)
        if not is_browser(request):  # nor has it a session, which would be in a cookie
            return
        given = request.headers.get(CSRF_HEADER)
        if given is None and is_form(request):
            given = text_in(await read_form(request), CSRF_FIELD)
        known = visitor.csrf.encode()
        if not hmac.compare_digest((given or "").encode(errors="surrogatepass"), known):
            raise Problem(
                403,
                "this came from no page of this session; nothing was done: load the page again and "
                f"repeat it there. Programs send a bearer token, or {CSRF_HEADER}",
            )


def is_form(request: web.Request) -> bool:
    """Whether ``request`` brings a form as pages send it, and no file."""
    return request.content_type == "application/x-www-form-urlencoded"


async def read_form(request: web.Request) -> Mapping[str, object]:
    """The form that ``request`` brings; raises Problem if it takes long or is none."""
    try:
        async with asyncio.timeout(PATIENCE):
            return await request.post()
    except TimeoutError:
        raise Problem(408, f"the form did not come within {PATIENCE:.0f} s") from None
    except (LookupError, ValueError):  # no such charset, no text in it, too many fields
        raise Problem(400, "the form cannot be read") from None


def text_in(form: Mapping[str, object], name: str) -> str:
    """What the field ``name`` holds; nothing where it is missing."""
    value = form.get(name, "")
    return value if isinstance(value, str) else ""


def _bearer(request: web.Request) -> str | None:
    """The token in ``request``; None where it has none, nor says that it had."""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    return given.strip() if scheme.lower() == "bearer" else None


def _next(request: web.Request, route: Route, prefix: str) -> str:
    """The query that leads back to what was asked for; a form that was sent is sent by hand."""
    if request.method not in SAFE_METHODS:
        return ""
    path = request.path_qs
    resource = request.match_info.route.resource
    if resource is not None and resource.canonical != route.path:  # it is mounted twice
        path = path.removeprefix(prefix) or "/"
    return "" if path == "/" else f"?next={quote(path, safe='/')}"
