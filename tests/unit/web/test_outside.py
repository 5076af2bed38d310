"""Behind proxies: whose word is taken, and the path that they serve us under."""

from __future__ import annotations

import json
from http import HTTPStatus
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from batchwatch.web.outside import Outside, Proxies, address_in
from tests.support.visiting import ADMIN_TOKEN, READ_TOKEN, bearer, visited

if TYPE_CHECKING:
    from collections.abc import Sequence

PREFIX = "/tools/batchwatch"
NAMED = Proxies([ip_network("10.0.0.0/8"), ip_network("fd00::/8")])


def seen(peer: str, *headers: tuple[str, str], proxies: Proxies = NAMED) -> Outside:
    """How a request looks that came from ``peer``."""
    request = make_mocked_request(
        "GET", "/", headers=CIMultiDict([("Host", "inside:8080"), *headers])
    )
    return proxies.outside(request.clone(remote=peer))


@pytest.mark.parametrize(
    ("said", "client"),
    [
        (["203.0.113.9"], "203.0.113.9"),
        (["198.51.100.1, 203.0.113.9"], "203.0.113.9"),  # the first is anybody's invention
        (["203.0.113.9, 10.0.0.2"], "203.0.113.9"),
        (["203.0.113.9", "10.0.0.2"], "203.0.113.9"),
        (["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        (["2001:db8::1"], "2001:db8::1"),
        (["[2001:db8::1]:443"], "2001:db8::1"),
        (["203.0.113.9:5555"], "203.0.113.9"),
        (["::ffff:203.0.113.9"], "203.0.113.9"),
        (["203.0.113.9, unknown"], "10.0.0.1"),
        (["203.0.113.9, unknown, 10.0.0.2"], "10.0.0.2"),
        ([""], "10.0.0.1"),
        ([], "10.0.0.1"),
    ],
)
def test_the_client_is_the_last_address_that_is_no_proxys(said: Sequence[str], client: str) -> None:
    """All that is left of it was said by the client itself."""
    found = seen("10.0.0.1", *(("X-Forwarded-For", one) for one in said))

    assert ip_address(client) == found.client


@pytest.mark.parametrize("peer", ["203.0.113.1", "::1", "fe80::1%eth0", "2001:db8::1"])
def test_a_stranger_is_believed_nothing(peer: str) -> None:
    """Whatever it says, it is who it is."""
    found = seen(
        peer,
        ("X-Forwarded-For", "10.0.0.9"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "batches.example"),
        ("Forwarded", "for=10.0.0.9;proto=https;host=batches.example"),
    )

    assert Outside(address_in(peer), "http", "inside:8080") == found


@given(st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0")))
def test_by_default_nobody_is_believed(text: str) -> None:
    """Not even who asks from loopback."""
    headers = [(f"X-Forwarded-{name}", text) for name in ("For", "Proto", "Host")]
    found = seen("127.0.0.1", *headers, proxies=Proxies())

    assert Outside(ip_address("127.0.0.1"), "http", "inside:8080") == found


@given(st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0")))
def test_whatever_a_proxy_passes_on_breaks_nothing(text: str) -> None:
    """And what it says is a scheme and a host, or is not taken."""
    found = seen("10.0.0.1", *((f"X-Forwarded-{name}", text) for name in ("For", "Proto", "Host")))

    assert found.scheme in {"http", "https"}
    assert not set(found.host) & set(" ,;/\\@\"'<>")


@pytest.mark.parametrize("peer", ["10.0.0.1", "::ffff:10.0.0.1", "fd12::1"])
def test_a_named_proxy_says_how_it_was_asked(peer: str) -> None:
    """Its own word is the last one; IPv4 is the same however the socket spells it."""
    found = seen(
        peer,
        ("X-Forwarded-Proto", "http, HTTPS"),
        ("X-Forwarded-Host", "evil.example, batches.example:8443"),
    )

    assert ("https", "batches.example:8443") == (found.scheme, found.host)


async def test_a_page_is_of_one_origin_with_what_the_proxy_was_asked_for() -> None:
    """Where the proxy is named; from any other, it would be anybody's word."""
    async with visited(proxies=[ip_network("127.0.0.1")]) as site:
        cookie, form = await site.session()
        headers = {
            "Cookie": cookie,
            "X_CSRF_Token": form,
            "Origin": "https://batches.example",
            "X_Forwarded_Host": "batches.example",
        }
        named = await site.ask("/api/v1/do", "POST", **headers)
    async with visited() as site:
        stranger = await site.ask("/api/v1/do", "POST", **headers)

    assert (HTTPStatus.OK, HTTPStatus.FORBIDDEN) == (named.status, stranger.status)


# -------------------------------------------------------------------------------- a path prefix


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 200),
        ("", 200),
        ("/livez", 200),
        ("/readyz", 200),
        ("/metrics", 401),
        ("/page", 303),
        ("/login", 200),
        ("/api/v1/look", 401),
        ("/nowhere", 404),
    ],
)
async def test_all_is_there_with_the_prefix_and_without(path: str, status: int) -> None:
    """Proxies that take it off and proxies that leave it are served alike."""
    async with visited(prefix=PREFIX) as site:
        found = [(await site.ask(one)).status for one in (PREFIX + path, path or "/")]
        hook = await site.ask(f"{PREFIX}/hooks/main", "POST", data=b"{}")

    assert [status, status] == found
    assert HTTPStatus.OK == hook.status


@pytest.mark.parametrize("asked", [f"{PREFIX}/page?q=1", "/page?q=1"])
async def test_all_redirects_have_the_prefix(asked: str) -> None:
    """To the login page and back from there, however the proxy asks; and the cookie is below it."""
    async with visited(prefix=PREFIX) as site:
        to_login = urlsplit((await site.ask(asked)).location)
        back = await site.sign_in(ADMIN_TOKEN, next=parse_qs(to_login.query)["next"][0])
        page = (await site.ask(f"{PREFIX}/login")).text
        cookie, form = await site.session()
        out = await site.send(f"{PREFIX}/logout", form={"csrf": form}, Cookie=cookie)

    assert (f"{PREFIX}/login", f"{PREFIX}/page?q=1") == (to_login.path, back.location)
    assert PREFIX == back.cookies["batchwatch"]["path"] == out.cookies["batchwatch"]["path"]
    assert f'action="{PREFIX}/login"' in page
    assert f"{PREFIX}/login" == out.location


async def test_a_prefix_that_is_like_a_path_of_ours_is_no_trouble() -> None:
    """What is below it is told from what is not by its route, and not by its text."""
    async with visited(prefix="/page") as site:
        asked = ("/page/page", "/settings", "/page/more", "/page/page/more")
        found = [(await site.ask(path)).location for path in asked]
        both = await site.ask("/page/settings", **bearer(READ_TOKEN))

    back = ["/page", "/settings", "/page/more", "/page/more"]
    assert [f"/page/login?next={path}" for path in back] == found
    assert HTTPStatus.FORBIDDEN == both.status


async def test_what_is_not_there_below_the_prefix_is_said_as_without() -> None:
    """As a problem, in the API."""
    async with visited(prefix=PREFIX) as site:
        answer = await site.ask(f"{PREFIX}/api/v1/nowhere", Accept="text/html")

    assert "Not Found" == json.loads(answer.text)["title"]
