"""Through a proxy: what it is told, what it is not, and whose fault it is when it fails."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest

from batchwatch.deliver.connections import Connections
from batchwatch.deliver.guard import Guard
from batchwatch.domain.delivery import Failure
from tests.support.receiver import says
from tests.unit.deliver.proxy import proxying
from tests.unit.deliver.sockets import a_closed_port, an_answer, saying

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp import web

    from tests.support.clock import ManualClock
    from tests.support.receiver import Receiver
    from tests.unit.deliver.authority import Authority

LOGIN = "batchwatch:proxy-s3cret"


@pytest.fixture
async def connections(clock: ManualClock) -> AsyncIterator[Connections]:
    async with Connections(clock) as made:
        yield made


@pytest.mark.parametrize("login", ["", LOGIN])
async def test_http_goes_through_the_proxy(
    login: str, connections: Connections, receiver: Receiver
) -> None:
    """Also by a name that only the proxy can resolve; and the receiver learns no login of it."""
    async with proxying(login) as proxy:
        proxy.leads_to = receiver.url.removeprefix("http://")
        sender = connections.sender(Guard(), proxy=proxy.url)
        attempt = await sender.post("http://inside.test:80/hook?a=b", b"{}", {}, timeout=9)

    (received,) = receiver.received
    assert (None, "/hook") == (attempt.failure, received.path)
    assert [b"POST http://inside.test/hook?a=b HTTP/1.1"] == [
        head.splitlines()[0].replace(b":80", b"") for head in proxy.heads
    ]


@pytest.mark.parametrize("login", ["", LOGIN])
async def test_https_goes_through_a_tunnel_that_the_proxy_cannot_look_into(
    login: str, connections: Connections, authority: Authority
) -> None:
    """Path and headers are for the receiver, the login is for the proxy."""
    async with (
        proxying(login) as proxy,
        saying(an_answer("200 OK"), tls=authority.server()) as line,
    ):
        sender = connections.sender(Guard(), proxy=proxy.url, tls=authority.client())
        headers = {"X-Key": "header-s3cret"}
        attempt = await sender.post(f"{line.url}/hook", b"{}", headers, timeout=9)

    assert None is attempt.failure
    ((head,), (request,)) = proxy.heads, line.requests
    assert head.startswith(b"CONNECT " + line.url.removeprefix("https://").encode())
    assert b"header-s3cret" not in head
    assert b"/hook" not in head
    assert b"POST /hook " in request
    assert b"roxy-" not in request


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_does_not_take_the_password_is_told_as_such(
    scheme: str, connections: Connections, receiver: Receiver
) -> None:
    """By the one thing to mend; and no password is told."""
    async with proxying(LOGIN) as proxy:
        wrong = proxy.url.replace("s3cret", "wr0ng-s3cret")
        sender = connections.sender(Guard(), proxy=wrong)
        url = receiver.url.replace("http", scheme)
        attempt = await sender.post(f"{url}/hook", b"{}", {}, timeout=9)

    assert (Failure.PROXY, "the proxy refused: HTTP 407; check its user and password") == (
        attempt.failure,
        attempt.detail,
    )
    assert "s3cret" not in repr(attempt)
    assert [] == receiver.received


async def test_a_tunnel_that_the_proxy_does_not_open_is_told_as_such(
    connections: Connections,
) -> None:
    """It may be what the proxy's own rules forbid, or a receiver that is down behind it."""
    async with proxying(status=b"403 Forbidden") as proxy:
        sender = connections.sender(Guard(), proxy=proxy.url)
        attempt = await sender.post("https://inside.test/hook", b"{}", {}, timeout=9)

    assert (Failure.PROXY, "the proxy refused: HTTP 403") == (attempt.failure, attempt.detail)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_is_down_is_told_as_such(scheme: str, connections: Connections) -> None:
    """It is not the receiver that must be looked at."""
    sender = connections.sender(Guard(), proxy=await a_closed_port())
    attempt = await sender.post(f"{scheme}://inside.test/hook", b"{}", {}, timeout=9)

    assert Failure.PROXY is attempt.failure
    assert (attempt.detail or "").startswith("no connection to the proxy: ")


async def test_a_proxy_whose_name_is_unknown_is_told_as_such(
    connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names of hosts are not asked for at all."""

    def unresolved(host: str, *_: Any, **__: Any) -> None:
        assert "proxy.test" == host
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unresolved)
    sender = connections.sender(Guard(), proxy="http://proxy.test:3128")
    attempt = await sender.post("http://inside.test/hook", b"{}", {}, timeout=9)

    assert (Failure.PROXY, "the proxy's name could not be resolved") == (
        attempt.failure,
        attempt.detail,
    )


async def test_a_proxy_that_hangs_costs_no_more_than_the_limit(connections: Connections) -> None:
    """Before it has opened the tunnel, too."""
    async with saying(b"", then="hang") as line:
        sender = connections.sender(Guard(), proxy=line.url)
        attempt = await sender.post("https://inside.test/hook", b"{}", {}, timeout=0.2)

    assert Failure.TIMEOUT is attempt.failure


@pytest.mark.parametrize("host", ["169.254.169.254", "[::ffff:169.254.169.254]", "0xa9fea9fe"])
async def test_a_proxy_is_not_asked_for_an_address_that_is_refused(
    host: str, connections: Connections
) -> None:
    """What a name means there only the proxy knows, but an address is an address."""
    async with proxying(status=b"200 OK") as proxy:
        sender = connections.sender(Guard(), proxy=proxy.url)
        attempt = await sender.post(f"http://{host}/latest", b"{}", {}, timeout=9)

    assert (Failure.FORBIDDEN, []) == (attempt.failure, proxy.heads)


async def test_the_proxy_itself_may_be_anywhere(
    connections: Connections, receiver: Receiver
) -> None:
    """Whoever runs batchwatch has chosen it; it is mostly in the same private network."""
    async with proxying() as proxy:
        proxy.leads_to = receiver.url.removeprefix("http://")
        sender = connections.sender(Guard(public_only=True), proxy=proxy.url)
        attempt = await sender.post("http://outside.test/hook", b"{}", {}, timeout=9)

    assert (None, 1) == (attempt.failure, len(receiver.received))


async def test_a_login_that_the_receiver_was_shown_is_not_kept(
    connections: Connections, receiver: Receiver
) -> None:
    """A proxy that hands it on is a bad one, and there are such."""

    async def echo(request: web.Request) -> web.StreamResponse:
        return await says(404, f"{request.headers} {LOGIN} proxy-s3cret")(request)

    receiver.always = echo
    async with proxying(LOGIN) as proxy:
        sender = connections.sender(Guard(), proxy=proxy.url)
        attempt = await sender.post(f"{receiver.url}/hook", b"{}", {}, timeout=9)

    assert 404 == attempt.status_code
    assert "s3cret" not in repr(attempt)


async def test_a_sender_shows_no_password(connections: Connections) -> None:
    """Not in a log, nor in a traceback."""
    assert "s3cret" not in repr(connections.sender(Guard(), proxy=f"http://{LOGIN}@127.0.0.1:1"))
