"""Who may ask for what: tokens, roles, other sites' pages, other sites' names, and headers."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from http import HTTPStatus
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
from aiohttp.test_utils import unused_port
from structlog.testing import capture_logs

from batchwatch.simulator import Simulator
from batchwatch.web import server
from batchwatch.web.access import Visitor
from batchwatch.web.browser import HEADERS
from batchwatch.web.outside import is_loopback
from batchwatch.web.route import Role
from batchwatch.web.session import Tokens
from tests.support.clock import ManualClock
from tests.support.daemon import environment, running
from tests.support.receiver import Receiver
from tests.support.visiting import ADMIN_TOKEN, READ_TOKEN, Site, bearer, visited

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

OPEN: dict[str, Any] = {"token": None, "read_token": None}
OTHER_SITE = "https://evil.example"

# ----------------------------------------------------------------------------- tokens and roles


@pytest.mark.parametrize(
    ("set_", "given", "found"),
    [
        ((ADMIN_TOKEN, READ_TOKEN), ADMIN_TOKEN, Role.ADMIN),
        ((ADMIN_TOKEN, READ_TOKEN), READ_TOKEN, Role.READ),
        ((ADMIN_TOKEN, None), ADMIN_TOKEN, Role.ADMIN),
        ((ADMIN_TOKEN, None), READ_TOKEN, None),
        ((None, READ_TOKEN), READ_TOKEN, Role.READ),
        ((None, READ_TOKEN), ADMIN_TOKEN, None),
        ((ADMIN_TOKEN, READ_TOKEN), None, None),
        ((None, READ_TOKEN), None, None),
        ((None, None), None, Role.ADMIN),
        ((None, None), "whatever", Role.ADMIN),
    ],
)
async def test_a_token_makes_a_role(
    set_: tuple[str | None, str | None], given: str | None, found: Role | None
) -> None:
    """Each of the two alone or both; and where none is set, everybody may everything."""
    headers = bearer(given) if given else {}
    async with visited(token=set_[0], read_token=set_[1]) as site:
        look = await site.ask("/api/v1/look", **headers)
        do = await site.ask("/api/v1/do", "POST", **headers)

    assert (HTTPStatus.OK if found else HTTPStatus.UNAUTHORIZED) == look.status
    assert found is None or found.name == look.text
    allowed = {Role.ADMIN: 200, Role.READ: 403, None: 401}[found]
    assert allowed == do.status


@pytest.mark.parametrize(
    ("set_", "path", "said"),
    [
        ((ADMIN_TOKEN, READ_TOKEN), "look", "BATCHWATCH_API_TOKEN or BATCHWATCH_READ_TOKEN"),
        ((ADMIN_TOKEN, None), "look", "BATCHWATCH_API_TOKEN"),
        ((None, READ_TOKEN), "look", "BATCHWATCH_READ_TOKEN"),
        ((ADMIN_TOKEN, READ_TOKEN), "do", "BATCHWATCH_API_TOKEN"),
    ],
)
async def test_who_has_no_token_is_told_which_would_do(
    set_: tuple[str | None, str | None], path: str, said: str
) -> None:
    """By the names of those that are set."""
    async with visited(token=set_[0], read_token=set_[1]) as site:
        answer = await site.ask(f"/api/v1/{path}", {"do": "POST"}.get(path, "GET"))

    assert "application/problem+json" == answer.headers["Content-Type"]
    assert f"send Authorization: Bearer {said}" == json.loads(answer.text)["detail"]
    assert 'Bearer realm="batchwatch"' == answer.headers["WWW-Authenticate"]


async def test_who_may_only_look_is_told_what_it_would_take() -> None:
    """And where nobody may, that."""
    async with visited() as site:
        one = json.loads((await site.ask("/settings", **bearer(READ_TOKEN))).text)
    async with visited(token=None) as site:
        other = json.loads((await site.ask("/settings", **bearer(READ_TOKEN))).text)

    assert "this is for who has BATCHWATCH_API_TOKEN; yours only lets you look" == one["detail"]
    assert "this is for who has BATCHWATCH_API_TOKEN, and none is set" == other["detail"]


def test_each_token_is_compared_whichever_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """In constant time, by texts of one length: nothing tells which it was, or how near."""
    seen: list[tuple[bytes, bytes]] = []
    compare = hmac.compare_digest

    def watched(one: Any, other: Any) -> bool:
        seen.append((one, other))
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", watched)
    tokens = Tokens({Role.ADMIN: ADMIN_TOKEN, Role.READ: READ_TOKEN})
    known = [hashlib.sha256(one.encode()).digest() for one in (ADMIN_TOKEN, READ_TOKEN)]

    for given in (ADMIN_TOKEN, READ_TOKEN, "", "x" * 9_999):
        seen.clear()
        tokens.role_of(given)
        digest = hashlib.sha256(given.encode()).digest()
        assert [(digest, one) for one in known] == seen


async def test_a_wrong_bearer_token_is_refused_whatever_else_there_is() -> None:
    """Who shows a token means it: a cookie beside it, even a good one, changes nothing."""
    async with visited() as site:
        cookie, _ = await site.session()
        assert HTTPStatus.OK == (await site.ask("/page", Cookie=cookie)).status
        for path in ("/page", "/api/v1/look"):
            answer = await site.ask(path, Cookie=cookie, **bearer("wrong"))
            assert HTTPStatus.UNAUTHORIZED == answer.status


async def test_a_proxys_own_basic_login_is_no_token() -> None:
    """A browser sends it along everywhere, so beside a session it must not count."""
    async with visited() as site:
        cookie, _ = await site.session()
        answer = await site.ask("/page", Cookie=cookie, Authorization="Basic dTpw")

    assert HTTPStatus.OK == answer.status


async def test_wrong_bearer_tokens_are_logged_once_a_minute_and_keep_no_right_one_out() -> None:
    """Behind one address, a proxy's, may be many: none is refused for another's mistakes."""
    async with visited() as site:
        with capture_logs() as logs:
            for _ in range(20):
                wrong = await site.ask("/api/v1/look", **bearer("s3cret-but-wrong"))
                assert HTTPStatus.UNAUTHORIZED == wrong.status
            right = await site.ask("/api/v1/look", **bearer(READ_TOKEN))
            site.clock.advance(60)
            await site.ask("/api/v1/look", **bearer("s3cret-but-wrong"))

    assert HTTPStatus.OK == right.status
    assert [
        ("token.refused", "warning", "127.0.0.1", 1),
        ("token.refused", "warning", "127.0.0.1", 20),
    ] == [(one["event"], one["log_level"], one["client"], one["times"]) for one in logs]
    assert "s3cret" not in str(logs)


async def test_who_has_no_token_at_all_is_not_logged() -> None:
    """Scanners knock at every door."""
    async with visited() as site:
        with capture_logs() as logs:
            await site.ask("/api/v1/look")
            await site.ask("/page")

    assert [] == logs


def test_a_visitor_is_shown_without_the_word_for_forms() -> None:
    """It may end up in a traceback."""
    assert "s3cret" not in repr(Visitor(Role.READ, csrf="s3cret"))


# ------------------------------------------------------------------------- people, and the login

HTML: Final = "text/html,application/xhtml+xml"


@pytest.mark.parametrize("path", ["/page", "/page?status=RUNNING&q=a%20b", "/settings"])
async def test_a_person_without_a_session_is_sent_to_the_login(path: str) -> None:
    """And from there back to what was asked for, with its query."""
    async with visited() as site:
        answer = await site.ask(path)

    there = urlsplit(answer.location)
    assert (HTTPStatus.SEE_OTHER, "/login") == (answer.status, there.path)
    assert {"next": [path]} == parse_qs(there.query)


async def test_the_first_page_is_for_people_who_signed_in_and_programs_are_told_the_paths() -> None:
    """One path and two answers, of which one is open to everybody and the other to no stranger."""
    async with visited() as site:
        cookie, _ = await site.session()
        stranger = await site.ask("/", Accept=HTML)
        known = await site.ask("/", Accept=HTML, Cookie=cookie)
        program = await site.ask("/", Accept="*/*")

    assert (HTTPStatus.SEE_OTHER, "/login") == (stranger.status, stranger.location)
    assert "ADMIN" == known.text
    assert "/readyz" in program.text


async def test_a_form_without_a_session_leads_to_the_login_and_not_back() -> None:
    """What it was for cannot be had by GET."""
    async with visited() as site:
        answer = await site.send("/do", form={})

    assert (HTTPStatus.SEE_OTHER, "/login") == (answer.status, answer.location)


# ------------------------------------------------------------------------------------------ CSRF

FROM: dict[str, dict[str, str]] = {
    "nowhere": {},
    "our page": {"Sec_Fetch_Site": "same-origin", "Origin": "OURS"},
    "our page, http": {"Origin": "OURS"},
    "the address bar": {"Sec_Fetch_Site": "none"},
    "a sister site": {"Sec_Fetch_Site": "same-site", "Origin": "OURS"},
    "another site": {"Sec_Fetch_Site": "cross-site", "Origin": OTHER_SITE},
    "another site, http": {"Origin": OTHER_SITE},
    "a frame without a name": {"Origin": "null"},
    "another port": {"Origin": "http://127.0.0.1:1"},
}
OURS = {"our page", "our page, http", "the address bar"}


def matrix() -> Iterable[Any]:
    for method, path in (("POST", "/do"), ("POST", "/api/v1/do"), ("DELETE", "/api/v1/do")):
        for sender in FROM:
            for who in ("cookie", "bearer", "nobody", "open"):
                for word in ("none", "header", "field", "wrong", "of another session"):
                    if word == "field" and method == "DELETE":
                        continue
                    yield pytest.param(method, path, sender, who, word)


def expected(sender: str, who: str, word: str, path: str) -> int:
    """The rules, in as few words as they have."""
    has_word = word in {"header", "field"}
    if who == "nobody":
        return 303 if path == "/do" else 401
    if who == "bearer":
        return 200
    if sender == "nowhere":
        return 200 if has_word or who == "open" else 403
    return 200 if sender in OURS and has_word else 403


async def test_what_changes_something_comes_from_a_page_of_the_same_session() -> None:
    """Each method from each place, by each kind of asker, with and without the form's word."""
    wrong: list[Any] = []
    async with visited() as guarded, visited(**OPEN) as unguarded:
        cookie, form = await guarded.session()
        _, others = await guarded.session()
        for case in matrix():
            method, path, sender, who, word = case.values  # pytest's
            site = unguarded if who == "open" else guarded
            own = (await site.ask("/page")).headers.get("X-Form", "") if who == "open" else form
            headers = {
                name: site.url if value == "OURS" else value for name, value in FROM[sender].items()
            }
            if who == "cookie":
                headers["Cookie"] = cookie
            if who == "bearer":
                headers |= bearer(ADMIN_TOKEN)
            text = {"header": own, "wrong": own[::-1], "of another session": others}.get(word)
            if text is not None:
                headers["X_CSRF_Token"] = text
            data = None
            if word == "field":
                headers["Content_Type"] = "application/x-www-form-urlencoded"
                data = f"a=1&csrf={own}"
            answer = await site.ask(path, method, data=data, **headers)
            if expected(sender, who, word, path) != answer.status:
                wrong.append((method, path, sender, who, word, answer.status))

    assert [] == wrong


async def test_curl_needs_nothing_where_nothing_is_set() -> None:
    """It is no browser: no page of another site can have it send anything."""
    async with visited(**OPEN) as site:
        answer = await site.ask(
            "/api/v1/do", "POST", data=b'{"ids":[1]}', Content_Type="application/json"
        )
        with_cookie = await site.ask("/api/v1/do", "POST", Cookie="other=1")

    assert (HTTPStatus.OK, HTTPStatus.FORBIDDEN) == (answer.status, with_cookie.status)


async def test_a_word_for_forms_is_none_in_another_process() -> None:
    """Where nobody signs in it is made at random: what one site shows is of no use at another."""
    async with visited(**OPEN) as one, visited(**OPEN) as other:
        words = [(await site.ask("/page")).headers["X-Form"] for site in (one, other)]

    assert 2 == len(set(words))


async def test_a_hook_is_taken_from_anywhere() -> None:
    """It is signed, and has no page."""
    for access in ({}, OPEN):
        async with visited(**access) as site:
            answer = await site.ask(
                "/hooks/main", "POST", Origin=OTHER_SITE, Host="hooks.example", data=b"{}"
            )
            assert HTTPStatus.OK == answer.status


@pytest.mark.parametrize(
    ("content_type", "data"),
    [
        ("application/x-www-form-urlencoded; charset=none-such", b"csrf=%ff"),
        ("application/x-www-form-urlencoded", b"csrf=\xff\xfe"),
    ],
)
async def test_a_form_that_cannot_be_read_is_said(content_type: str, data: bytes) -> None:
    """It is no bug of ours."""
    async with visited() as site:
        cookie, _ = await site.session()
        answer = await site.ask("/do", "POST", Cookie=cookie, Content_Type=content_type, data=data)

    assert HTTPStatus.BAD_REQUEST == answer.status


@pytest.mark.parametrize("text", [b"\\ud800", b"\\udcff"])
async def test_halves_of_characters_are_no_token_and_no_word_of_a_page(text: bytes) -> None:
    """Some charsets have them, anybody may name one, and each would be a traceback in the log."""
    form = "application/x-www-form-urlencoded; charset=raw_unicode_escape"
    async with visited() as site:
        signed_in = await site.ask("/login", "POST", Content_Type=form, data=b"token=" + text)
        cookie, _ = await site.session()
        done = await site.ask("/do", "POST", Cookie=cookie, Content_Type=form, data=b"csrf=" + text)

    assert (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN) == (signed_in.status, done.status)


async def test_a_form_that_is_larger_than_any_is_not_read() -> None:
    """Whoever has a session may not fill the memory either."""
    async with visited() as site:
        cookie, _ = await site.session()
        answer = await site.send("/do", form={"csrf": "x" * 70_000}, Cookie=cookie)

    assert HTTPStatus.REQUEST_ENTITY_TOO_LARGE == answer.status


# --------------------------------------------------------------------------------- DNS rebinding


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        ("localhost", True),
        ("localhost:8080", True),
        ("LocalHost:1", True),
        ("batchwatch.localhost", True),
        ("127.0.0.1", True),
        ("127.9.9.9:80", True),
        ("[::1]", True),
        ("[::1]:8080", True),
        ("[::ffff:127.0.0.1]:80", True),
        ("evil.example", False),
        ("evil.example:8080", False),
        ("localhost.evil.example", False),
        ("evil-localhost", False),
        ("127.0.0.1.evil.example", False),
        ("127.0.0.1@evil.example", False),
        ("evil.example#127.0.0.1", False),
        ("10.0.0.7", False),
        ("0.0.0.0", False),  # noqa: S104  # not to bind
        ("[::]", False),
        ("[fd00::1]:80", False),
        ("2130706433", False),
        ("", False),
        ("localhost:", False),
        ("localhost localhost", False),
    ],
)
def test_this_machine_is_known_by_its_name(host: str, *, is_ours: bool) -> None:
    """By all that browsers take for it, and nothing that anybody could own."""
    assert is_ours is is_loopback(host)


@pytest.mark.parametrize("path", ["/", "/page", "/api/v1/look", "/metrics", "/live"])
async def test_without_a_token_only_this_machines_names_are_answered(path: str) -> None:
    """A page of evil.example that gives its name to 127.0.0.1 would be one of our own."""
    async with visited(**OPEN) as site:
        answer = await site.ask(path, Host="evil.example:8080", Accept=HTML)
        well = await site.ask(path, Host="localhost:8080", Accept=HTML)

    assert (HTTPStatus.MISDIRECTED_REQUEST, HTTPStatus.OK) == (answer.status, well.status)
    assert "BATCHWATCH_API_TOKEN" in answer.text


async def test_such_a_page_cannot_pose_as_a_proxy() -> None:
    """It is on this machine, as a proxy may be, and of one origin with us: it sets any header."""
    async with visited(**OPEN, proxies=[ip_network("127.0.0.0/8")]) as site:
        answer = await site.ask("/page", Host="evil.example", X_Forwarded_Host="localhost")
        behind = await site.ask("/page", Host="localhost", X_Forwarded_Host="batches.example")

    assert [HTTPStatus.MISDIRECTED_REQUEST] * 2 == [answer.status, behind.status]


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_health_is_told_under_any_name(path: str) -> None:
    """What asks knows us by the name of a container."""
    async with visited(**OPEN) as site:
        assert HTTPStatus.OK == (await site.ask(path, Host="batchwatch:8080")).status


@pytest.mark.parametrize("access", [{}, {**OPEN, "anyone": True}])
async def test_any_name_will_do_with_a_token_or_when_that_is_allowed(access: Any) -> None:
    """A cookie belongs to one host, and no other page has the token."""
    headers = {} if access else bearer(READ_TOKEN)
    async with visited(**access) as site:
        answer = await site.ask("/page", Host="batches.example", **headers)

    assert HTTPStatus.OK == answer.status


# --------------------------------------------------------------------------------------- headers


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/page", "GET", 200),
        ("/page", "HEAD", 200),
        ("/login", "GET", 200),
        ("/livez", "GET", 200),
        ("/live", "GET", 200),
        ("/nowhere", "GET", 404),
        ("/livez", "POST", 405),
        ("/api/v1/do", "POST", 200),
    ],
)
async def test_every_answer_has_the_headers_that_keep_browsers_from_harm(
    path: str, method: str, status: int
) -> None:
    """Streams as well, whose headers are gone before their handler is done."""
    async with visited() as site:
        answer = await site.ask(path, method, **bearer(ADMIN_TOKEN))

    found = {name: answer.headers.get(name) for name in HEADERS}
    assert (status, HEADERS) == (answer.status, found)
    assert ("no-store", "batchwatch") == (
        answer.headers["Cache-Control"],
        answer.headers["Server"],
    )


async def test_a_refusal_and_a_redirect_have_them_too() -> None:
    """They are answers as well."""
    async with visited() as site:
        answers = [await site.ask(path) for path in ("/page", "/api/v1/look")]

    for answer in answers:
        assert HEADERS.items() <= dict(answer.headers).items()


async def test_what_a_browser_keeps_is_not_taken_from_it_when_it_has_not_changed() -> None:
    """A 304 renews what is kept, and no-store in it would have it thrown away."""
    async with visited() as site:
        answer = await site.ask("/unchanged", **bearer(READ_TOKEN))

    assert "Cache-Control" not in answer.headers
    assert HEADERS.items() <= dict(answer.headers).items()


def test_nothing_is_loaded_or_framed_from_elsewhere() -> None:
    """The policy word by word: the dashboard is built to it."""
    assert HEADERS["Content-Security-Policy"].split("; ") == [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ]


# ---------------------------------------------------------------------------------------- limits


async def test_who_never_ends_a_request_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a few hundred of them would be all that is listened to."""
    monkeypatch.setattr(server, "IDLE", 0.05)
    async with visited() as site:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(site.url.rsplit(":")[-1]))
        writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        assert b"" == await asyncio.wait_for(reader.read(), 10)
        writer.close()


@pytest.mark.parametrize(
    "more",
    [
        {f"X-{number}": "a" for number in range(server.MOST_HEADERS + 1)},
        {"X-Long": "a" * (server.LONGEST_LINE + 1)},
    ],
)
async def test_a_head_has_an_end(more: dict[str, str]) -> None:
    """In how many lines it has and how long they are."""
    async with visited() as site:
        answer = await site.ask("/livez", **more)

    assert HTTPStatus.BAD_REQUEST == answer.status


# -------------------------------------------------------------------------------- as it is set up


async def test_a_daemon_is_set_up_by_its_settings(tmp_path: Path) -> None:
    """Tokens, prefix and proxies, from the environment to the wire; the log shows no token."""
    async with Simulator() as sim, Receiver() as receiver:
        port = unused_port()
        environ = environment(
            sim,
            receiver,
            tmp_path,
            BATCHWATCH_LISTEN=f"127.0.0.1:{port}",
            BATCHWATCH_API_TOKEN=ADMIN_TOKEN,
            BATCHWATCH_READ_TOKEN=READ_TOKEN,
            BATCHWATCH_PATH_PREFIX="/tools",
            BATCHWATCH_TRUSTED_PROXIES="127.0.0.1",
        )
        with capture_logs() as logs:
            async with (
                running(environ),
                aiohttp.ClientSession(
                    f"http://127.0.0.1:{port}", cookie_jar=aiohttp.DummyCookieJar()
                ) as http,
            ):
                await sim.asked(1)
                site = Site("", http, ManualClock())
                metrics = await site.ask("/tools/metrics", **bearer(READ_TOKEN))
                look = await site.ask("/api/v1/endpoints", **bearer(READ_TOKEN))
                do = await site.ask("/api/v1/watches/default/poll", "POST", **bearer(READ_TOKEN))
                api = json.loads((await site.ask("/api/v1/openapi.json")).text)
                login = await site.sign_in(
                    ADMIN_TOKEN, X_Forwarded_Proto="https", X_Forwarded_For="203.0.113.9"
                )

    assert [200, 200, 403] == [one.status for one in (metrics, look, do)]
    assert [{"url": "/tools"}] == api["servers"]
    assert ("/tools", True) == tuple(login.cookies["batchwatch"][one] for one in ("path", "secure"))
    assert "203.0.113.9" in [line["client"] for line in logs if line["event"] == "login.accepted"]
    assert "0123456789abcdef" not in str(logs)


async def test_a_daemon_that_is_open_to_anyone_says_so_at_its_start(tmp_path: Path) -> None:
    """Wherever it listens: whoever reads the log can tell."""
    async with Simulator() as sim, Receiver() as receiver:
        environ = environment(
            sim,
            receiver,
            tmp_path,
            BATCHWATCH_LISTEN="127.0.0.1:0",
            BATCHWATCH_ALLOW_ANYONE="true",
        )
        with capture_logs() as logs:
            async with running(environ):
                await sim.asked(1)

    [said] = [line["reason"] for line in logs if line["event"] == "settings.doubted"][-1:]
    assert "BATCHWATCH_ALLOW_ANYONE: whoever reaches 127.0.0.1:0 may read everything" in said
