"""The login page, what a browser keeps of it, and how often one may be wrong there."""

from __future__ import annotations

import html
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from http import HTTPStatus
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, urljoin, urlsplit

import msgspec
import pytest
from aiohttp import web
from hypothesis import example, given
from hypothesis import strategies as st
from structlog.testing import capture_logs
from yarl import URL

from batchwatch.web import attempts
from batchwatch.web.attempts import AT_ONCE, ONE_MORE_AFTER, Attempts
from batchwatch.web.login import path_within
from batchwatch.web.route import Role
from batchwatch.web.session import IDLE, LONGEST, RENEW_AFTER, Sessions
from tests.support.clock import ManualClock
from tests.support.visiting import ADMIN_TOKEN, READ_TOKEN, visited

if TYPE_CHECKING:
    from http.cookies import Morsel

BOTH = {Role.ADMIN: ADMIN_TOKEN, Role.READ: READ_TOKEN}
ELSEWHERE = [ip_network("127.0.0.1/32")]
HOUR = 3600

# ---------------------------------------------------------------------------------- to sign in


@pytest.mark.parametrize(
    ("token", "role"), [(ADMIN_TOKEN, "ADMIN"), (READ_TOKEN, "READ"), (f" {READ_TOKEN}\n", "READ")]
)
async def test_who_shows_a_token_has_its_role_from_then_on(token: str, role: str) -> None:
    """And is back at what was asked for; white space around a pasted token is no part of it."""
    async with visited() as site:
        answer = await site.sign_in(token, next="/page?q=1")
        page = await site.ask("/page", Cookie=answer.cookie)
        admins = await site.ask("/settings", Cookie=answer.cookie)

    assert (HTTPStatus.SEE_OTHER, "/page?q=1") == (answer.status, answer.location)
    assert (role, "True") == (page.text, page.headers["X-Signed-In"])
    assert (HTTPStatus.OK if role == "ADMIN" else HTTPStatus.FORBIDDEN) == admins.status


async def test_the_cookie_is_out_of_reach_for_scripts_and_for_other_sites() -> None:
    """Over https, it also never goes without."""
    async with visited(proxies=ELSEWHERE) as site:
        plain = (await site.sign_in(ADMIN_TOKEN)).cookies["batchwatch"]
        https = await site.sign_in(ADMIN_TOKEN, X_Forwarded_Proto="https")

    assert (True, "Lax", "/", str(IDLE), "") == _of(plain)
    assert (True, "Lax", "/", str(IDLE), True) == _of(https.cookies["batchwatch"])
    assert ADMIN_TOKEN not in plain.value


def _of(cookie: Morsel[str]) -> tuple[Any, ...]:
    names = ("httponly", "samesite", "path", "max-age", "secure")
    return tuple(cookie[name] for name in names)


async def test_a_stranger_cannot_claim_to_come_by_https() -> None:
    """Its word would lock people out: a Secure cookie is not sent back over http."""
    async with visited() as site:
        answer = await site.sign_in(ADMIN_TOKEN, X_Forwarded_Proto="https")

    assert not answer.cookies["batchwatch"]["secure"]


async def test_a_wrong_token_is_said_on_the_page_and_never_shown() -> None:
    """What was asked for is kept for the next attempt; nothing of the token is."""
    with capture_logs() as logs:
        async with visited() as site:
            answer = await site.sign_in("wrong-s3cret", next="/page?a=1&b=2")

    assert (HTTPStatus.UNAUTHORIZED, True) == (answer.status, 'role="alert"' in answer.text)
    assert 'name="next" value="/page?a=1&amp;b=2"' in answer.text
    assert "batchwatch" not in answer.cookies
    assert "s3cret" not in answer.text + str(logs)


async def test_the_page_can_be_read_by_everybody_and_runs_nothing() -> None:
    """A field with its label, in a language, with a title; neither script nor style."""
    async with visited() as site:
        text = (await site.ask("/login?next=/page")).text

    for part in ('<html lang="en">', "<title>", 'for="token"', 'id="token"', 'type="password"'):
        assert part in text
    assert not re.search(r"<script|<style|style=|\son\w+=", text)


async def test_what_was_asked_for_cannot_break_out_of_the_page() -> None:
    """It is text, whatever is in it."""
    async with visited() as site:
        wanted = '/"><script>alert(1)</script>'
        text = (await site.ask(f"/login?next={quote(wanted)}")).text

    assert "<script" not in text
    assert wanted in html.unescape(text)


async def test_another_page_can_be_put_in_its_place() -> None:
    """It is given what was asked for, what went wrong, and the word for a form that signs out."""
    seen: list[dict[str, Any]] = []

    def render(_request: web.Request, **context: Any) -> web.Response:
        seen.append(context)
        return web.Response(text="mine")

    async with visited(render=render) as site:
        asked = await site.ask("/login?next=//evil.example")
        wrong = await site.sign_in("wrong", next="/page")

    assert [(200, "mine"), (401, "mine")] == [(one.status, one.text) for one in (asked, wrong)]
    assert [("/", None), ("/page", "That is no token of this batchwatch.")] == [
        (one["next"], one["error"]) for one in seen
    ]
    assert all(one["csrf"] for one in seen)


async def test_without_tokens_there_is_nothing_to_sign_in_to() -> None:
    """What is behind the page is open."""
    async with visited(token=None, read_token=None) as site:
        for answer in (await site.ask("/login"), await site.sign_in("whatever")):
            assert (HTTPStatus.SEE_OTHER, "/") == (answer.status, answer.location)
            assert "batchwatch" not in answer.cookies


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ],
)
async def test_another_site_signs_nobody_in(headers: dict[str, str]) -> None:
    """Or somebody would do their work in a session that is another's."""
    async with visited() as site:
        answer = await site.sign_in(ADMIN_TOKEN, **headers)
        same = await site.sign_in(ADMIN_TOKEN, Origin=site.url)

    assert HTTPStatus.FORBIDDEN == answer.status
    assert "batchwatch" not in answer.cookies
    assert HTTPStatus.SEE_OTHER == same.status


async def test_what_is_no_form_is_not_taken_for_one() -> None:
    """Programs have a simpler way, which is said."""
    async with visited() as site:
        answer = await site.ask(
            "/login", "POST", data=b'{"token":1}', Content_Type="application/json"
        )

    assert HTTPStatus.UNSUPPORTED_MEDIA_TYPE == answer.status
    assert "bearer token" in answer.text


# --------------------------------------------------------------------------- where it leads then


@pytest.mark.parametrize(
    "text",
    [
        "", "page", "//evil.example", "///evil.example", "/\\evil.example", "\\\\evil.example",
        "https://evil.example", "javascript:alert(1)", "/\t/evil.example", "/\n/evil.example",
        " /page", "/page\r\nSet-Cookie: a=b", "/a//b", "/.//evil.example", "/..//evil.example",
        "/./page", "/%2e%2E/page", "/p\u00e4ge", "/page\0", "/" + "a" * 3000, "/login",
        "/logout?a=1",
    ],
)  # fmt: skip
def test_what_is_no_path_of_ours_leads_to_the_start(text: str) -> None:
    """In every spelling that some browser takes for another site, or that is no path at all."""
    assert "/" == path_within(text)


@pytest.mark.parametrize(
    "text",
    ["/", "/page", "/batches/bat-1?tab=jobs#last", "/page?u=https://x.example//y", "/a/.b/c."],
)
def test_what_is_a_path_of_ours_is_kept(text: str) -> None:
    """As it stands, query and all."""
    assert text == path_within(text)


PARTS = st.sampled_from([
    "/", "//", "\\", "\t", "\n", "\r", " ", ":", "@", "?", "#", ".", "..", "%2f", "%5c", "%09",
    "http:", "https:", "javascript:", "evil.example", "a", "\u2028", "\0", "[", "\u3002",
])  # fmt: skip


@given(st.one_of(st.text(), st.lists(PARTS).map("".join), st.lists(PARTS).map("/".join)))
@example("/\\/evil.example")
@example("/\t/evil.example")
def test_nothing_leads_away(text: str) -> None:
    """As browsers read it, and as two libraries do, below a prefix or not."""
    for prefix in ("", "/batchwatch"):
        location = prefix + path_within(text)
        # A browser cuts out tabs and line ends, cuts off what is no letter, and turns \ into /.
        read = re.sub(r"[\t\n\r]", "", location).strip("".join(map(chr, range(33))))
        read = read.replace("\\", "/")
        assert read.startswith("/")
        assert not read.startswith("//")
        site = "https://batches.example"
        assert "batches.example" == urlsplit(urljoin(f"{site}/login", read)).netloc
        assert "batches.example" == URL(site).join(URL(location)).host
        assert location.isprintable()


@given(st.text())
def test_a_good_path_stays_what_it_is(text: str) -> None:
    """To judge it twice is to judge it once: the page shows what the form sends."""
    assert path_within(text) == path_within(path_within(text))


async def test_the_form_that_was_tampered_with_leads_to_the_start() -> None:
    """The same holds on the wire."""
    async with visited() as site:
        for wanted in ("//evil.example", "https://evil.example", "/\\evil.example"):
            assert "/" == (await site.sign_in(ADMIN_TOKEN, next=wanted)).location


# ------------------------------------------------------------------------------------- sessions


def test_a_session_is_known_again() -> None:
    """By each daemon with the same tokens."""
    clock = ManualClock()
    for role in BOTH:
        session = Sessions(BOTH, clock).begin(role)
        assert session == Sessions(BOTH, clock).read(Sessions(BOTH, clock).write(session))


@given(st.data())
def test_whatever_is_changed_in_it_it_is_none(data: st.DataObject) -> None:
    """Each bit of it, also those that decode to the same; and what is put before or after it."""
    sessions = Sessions(BOTH, ManualClock())
    text = sessions.write(sessions.begin(data.draw(st.sampled_from(list(BOTH)))))
    place = data.draw(st.integers(0, len(text) - 1))
    bit = data.draw(st.integers(0, 7))
    flipped = text[:place] + chr(ord(text[place]) ^ 1 << bit) + text[place + 1 :]
    extra = data.draw(st.text(min_size=1, max_size=5))

    for changed in (flipped, text + extra, extra + text, text[:place], text[place + 1 :]):
        assert sessions.read(changed) is None


def test_who_may_look_cannot_write_a_session_of_who_may_do_everything() -> None:
    """Not even one that knows the other token: the key is the role."""
    clock = ManualClock()
    sessions = Sessions(BOTH, clock)
    payload, _, signature = sessions.write(sessions.begin(Role.READ)).partition(".")
    claims = msgspec.json.decode(urlsafe_b64decode(payload + "=="))
    forged = urlsafe_b64encode(msgspec.json.encode(claims | {"role": "admin"})).decode().rstrip("=")

    assert "read" == claims["role"]
    assert sessions.read(f"{forged}.{signature}") is None
    signed = Sessions({Role.READ: READ_TOKEN}, clock)
    ours = signed.read(signed.write(signed.begin(Role.READ)))
    assert ours is not None
    assert Role.READ is ours.role


@given(st.text())
def test_what_is_no_session_is_none(text: str) -> None:
    """And breaks nothing."""
    assert Sessions(BOTH, ManualClock()).read(text) is None


def test_a_token_that_is_changed_ends_its_sessions_and_no_others() -> None:
    """The only way to end one that was stolen."""
    clock = ManualClock()
    before = Sessions(BOTH, clock)
    after = Sessions(BOTH | {Role.READ: "another-0123456789"}, clock)

    assert after.read(before.write(before.begin(Role.READ))) is None
    assert after.read(before.write(before.begin(Role.ADMIN))) is not None


def test_the_word_for_forms_is_of_one_session() -> None:
    """And the same as long as that lasts, renewed or not."""
    clock = ManualClock()
    sessions = Sessions(BOTH, clock)
    one, other = sessions.begin(Role.ADMIN), sessions.begin(Role.ADMIN)
    clock.advance(RENEW_AFTER)
    renewed = sessions.renewed(one)

    assert renewed is not None
    assert sessions.csrf(one) == sessions.csrf(renewed) != sessions.csrf(other)
    assert one.id not in sessions.csrf(one)


async def test_a_session_ends_when_it_is_not_used() -> None:
    """After half a day; the login page is next."""
    async with visited() as site:
        cookie = (await site.sign_in(ADMIN_TOKEN)).cookie
        site.clock.advance(IDLE - 1)
        last = await site.ask("/page", Cookie=cookie)
        site.clock.advance(1)
        over = await site.ask("/page", Cookie=cookie)

    assert (HTTPStatus.OK, HTTPStatus.SEE_OTHER) == (last.status, over.status)


async def test_a_session_that_is_used_goes_on_for_a_week_at_most() -> None:
    """However long a tab is open: what is forgotten open somewhere ends."""
    async with visited() as site:
        cookie = (await site.sign_in(ADMIN_TOKEN)).cookie
        was_in = []
        for _ in range(0, LONGEST + HOUR, HOUR):
            answer = await site.ask("/page", Cookie=cookie)
            was_in.append(answer.status == HTTPStatus.OK)
            if "batchwatch" in answer.cookies:
                cookie = answer.cookie
            site.clock.advance(HOUR)

    assert [*[True] * (LONGEST // HOUR), False] == was_in


async def test_not_every_answer_renews_it() -> None:
    """Ten minutes are soon enough; and what is open to everybody never does."""
    async with visited() as site:
        cookie = (await site.sign_in(ADMIN_TOKEN)).cookie
        site.clock.advance(RENEW_AFTER - 1)
        soon = await site.ask("/page", Cookie=cookie)
        site.clock.advance(1)
        open_, due = [await site.ask(path, Cookie=cookie) for path in ("/livez", "/page")]

    assert [False, False, True] == ["batchwatch" in one.cookies for one in (soon, open_, due)]


# ---------------------------------------------------------------------------------- to sign out


async def test_who_signs_out_is_out() -> None:
    """The browser forgets it, by the form of a page."""
    async with visited() as site:
        cookie, form = await site.session()
        site.clock.advance(RENEW_AFTER)  # a renewal is due, and must not undo it
        answer = await site.send("/logout", form={"csrf": form}, Cookie=cookie)
    gone = answer.cookies["batchwatch"]

    assert (HTTPStatus.SEE_OTHER, "/login") == (answer.status, answer.location)
    assert ("", "0", "/") == (gone.value, gone["max-age"], gone["path"])


async def test_no_other_page_signs_anybody_out() -> None:
    """It takes the word for forms, as all that changes something."""
    async with visited() as site:
        cookie, _ = await site.session()
        without = await site.send("/logout", form={}, Cookie=cookie)
        nobody = await site.send("/logout", form={})

    assert (HTTPStatus.FORBIDDEN, False) == (without.status, "batchwatch" in without.cookies)
    assert (HTTPStatus.SEE_OTHER, "/login") == (nobody.status, nobody.location)


# ---------------------------------------------------------------------------------- and its limits


async def test_who_is_wrong_too_often_waits() -> None:
    """With the right token as well, and for as long as is said; then there is one more attempt."""
    async with visited() as site:
        for _ in range(AT_ONCE):
            assert HTTPStatus.UNAUTHORIZED == (await site.sign_in("wrong")).status
        refused = await site.sign_in(ADMIN_TOKEN)
        assert HTTPStatus.TOO_MANY_REQUESTS == refused.status
        assert "60" == refused.headers["Retry-After"]
        assert "Try again in 60 s." in refused.text

        site.clock.advance(59)
        assert "1" == (await site.sign_in(ADMIN_TOKEN)).headers["Retry-After"]
        site.clock.advance(1)
        assert HTTPStatus.UNAUTHORIZED == (await site.sign_in("wrong")).status
        assert HTTPStatus.TOO_MANY_REQUESTS == (await site.sign_in(ADMIN_TOKEN)).status
        site.clock.advance(60)
        assert HTTPStatus.SEE_OTHER == (await site.sign_in(ADMIN_TOKEN)).status


async def test_who_is_right_is_not_counted() -> None:
    """A team behind one address signs in as often as it likes."""
    async with visited() as site:
        for _ in range(3 * AT_ONCE):
            assert HTTPStatus.SEE_OTHER == (await site.sign_in(READ_TOKEN)).status


async def test_the_address_that_counts_is_the_one_behind_the_proxy() -> None:
    """Or one stranger would keep out everybody who comes by it."""
    async with visited(proxies=ELSEWHERE) as site:
        for _ in range(AT_ONCE + 1):
            last = await site.sign_in("wrong", X_Forwarded_For="203.0.113.9")
        other = await site.sign_in(ADMIN_TOKEN, X_Forwarded_For="203.0.113.10")

    assert (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SEE_OTHER) == (last.status, other.status)


async def test_a_stranger_cannot_choose_the_address_that_counts() -> None:
    """Or five attempts would be as many as there are addresses."""
    async with visited() as site:
        for number in range(AT_ONCE + 1):
            last = await site.sign_in("wrong", X_Forwarded_For=f"203.0.113.{number}")

    assert HTTPStatus.TOO_MANY_REQUESTS == last.status


def test_an_ipv6_address_counts_with_its_neighbours() -> None:
    """Whoever has one has 2**64 of them."""
    found = Attempts("login.refused", ManualClock())
    for number in range(AT_ONCE):
        found.fail(ip_address(f"2001:db8::{number:x}"))

    assert ONE_MORE_AFTER == found.wait(ip_address("2001:db8::ffff:1"))
    assert 0 == found.wait(ip_address("2001:db8:0:1::"))


def test_the_memory_for_addresses_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were wrong last are remembered."""
    monkeypatch.setattr(attempts, "ADDRESSES", 3)
    found = Attempts("login.refused", ManualClock())
    addresses = [ip_address(f"203.0.113.{number}") for number in range(5)]
    for address in addresses:
        for _ in range(AT_ONCE):
            found.fail(address)

    found.fail(addresses[2])
    found.fail(ip_address("203.0.113.9"))

    assert 3 == len(found)
    assert [0, 0, 60, 0, 60] == [found.wait(one) for one in addresses]


def test_each_address_is_logged_once_a_minute_with_how_often_it_was() -> None:
    """A line for each attempt would be theirs to fill the disk with."""
    clock = ManualClock()
    found = Attempts("login.refused", clock)
    one, other = ip_address("203.0.113.1"), ip_address("2001:db8::1")
    with capture_logs() as logs:
        for _ in range(4):
            found.fail(one)
        found.fail(other)
        clock.advance(60)
        found.fail(one)

    assert [("203.0.113.1", 1), ("2001:db8::/64", 1), ("203.0.113.1", 4)] == [
        (line["client"], line["times"]) for line in logs
    ]
    assert {"warning"} == {line["log_level"] for line in logs}


async def test_a_session_says_where_it_came_from_in_the_log() -> None:
    """Who looks after the daemon sees who signed in, and with which role."""
    with capture_logs() as logs:
        async with visited(proxies=ELSEWHERE) as site:
            await site.sign_in(READ_TOKEN, X_Forwarded_For="203.0.113.9")

    assert [{"event": "login.accepted", "client": "203.0.113.9", "role": "read"}] == [
        {name: line[name] for name in ("event", "client", "role")} for line in logs
    ]


async def test_the_way_there_and_back_keeps_the_query() -> None:
    """From a link in a message to what it is about, past the login."""
    wanted = "/page?watch=a%26b&q=100%25"
    async with visited() as site:
        to_login = urlsplit((await site.ask(wanted)).location)
        kept = parse_qs(to_login.query)["next"][0]
        answer = await site.sign_in(ADMIN_TOKEN, next=kept)

    assert wanted == answer.location
