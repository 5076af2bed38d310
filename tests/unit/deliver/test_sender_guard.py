"""The guard at the socket: no spelling, no name and no second answer of the DNS leads around it."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from batchwatch.deliver.connections import Connections
from batchwatch.deliver.guard import Guard
from batchwatch.deliver.sender import Sender, new_session
from batchwatch.domain.delivery import FINAL_FAILURES, Failure
from tests.support.receiver import says
from tests.unit.deliver.sockets import a_closed_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.support.clock import ManualClock
    from tests.support.receiver import Receiver

METADATA = "169.254.169.254"
UNSPECIFIED = "0.0.0.0"  # noqa: S104  # to connect to; it would be loopback
Names = dict[str, list[list[str]]]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """What each name means: one list of addresses an answer, the last of them for ever."""
    known: Names = {}
    resolve: Callable[..., Any] = socket.getaddrinfo

    def answer(host: Any, port: Any, *rest: Any, **more: Any) -> list[Any]:
        if host not in known:
            return list(resolve(host, port, *rest, **more))
        addresses = known[host].pop(0) if len(known[host]) > 1 else known[host][0]
        return [
            (
                socket.AF_INET6 if ":" in one else socket.AF_INET,
                socket.SOCK_STREAM,
                socket.IPPROTO_TCP,
                "",
                (one, port, 0, 0) if ":" in one else (one, port),
            )
            for one in addresses
        ]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return known


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that a connection was asked of the kernel for; beyond loopback it fails."""
    asked: list[str] = []
    connect = asyncio.SelectorEventLoop.sock_connect

    async def noted(self: Any, sock: socket.socket, address: Any) -> None:
        asked.append(address[0])
        if address[0] not in ("127.0.0.1", "::1"):
            raise OSError(101, "Network is unreachable")
        await connect(self, sock, address)

    monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_connect", noted)
    return asked


@pytest.fixture
async def connections(clock: ManualClock) -> AsyncIterator[Connections]:
    async with Connections(clock) as made:
        yield made


def at(name: str, receiver: Receiver) -> str:
    return f"http://{name}:{urlsplit(receiver.url).port}/hook"


@pytest.mark.parametrize(
    "address", [METADATA, "fd00:ec2::254", UNSPECIFIED, "64:ff9b::a9fe:a9fe", "::ffff:169.254.1.1"]
)  # fmt: skip
async def test_a_name_that_leads_to_a_refused_address_is_refused(
    address: str, sender: Sender, receiver: Receiver, names: Names, tried: list[str]
) -> None:
    """No connection is so much as tried; and the line says what to set if it was meant."""
    names["hooks.test"] = [[address]]

    attempt = await sender.post(at("hooks.test", receiver), b"{}", {}, timeout=9)

    assert (Failure.FORBIDDEN, None) == (attempt.failure, attempt.status_code)
    assert "allow_addresses can name it" in (attempt.detail or "")
    assert [] == tried
    assert Failure.FORBIDDEN not in FINAL_FAILURES  # a name may move to where it should be


async def test_of_several_addresses_only_the_refused_ones_are_left_out(
    sender: Sender, receiver: Receiver, names: Names, tried: list[str]
) -> None:
    """Whichever comes first."""
    for addresses in ([METADATA, "127.0.0.1"], ["fe80::1", METADATA, "127.0.0.1", "fd00:ec2::1"]):
        names["hooks.test"] = [addresses]
        sender._session.connector.clear_dns_cache()  # type: ignore[union-attr]  # noqa: SLF001  # it is open
        receiver.answers = [says(200, Connection="close")]

        assert None is (await sender.post(at("hooks.test", receiver), b"{}", {}, timeout=9)).failure

    assert ["127.0.0.1"] * 2 == tried


async def test_where_every_one_of_several_addresses_is_refused_all_of_them_are_told(
    sender: Sender, receiver: Receiver, names: Names, tried: list[str]
) -> None:
    """By IPv4 and by IPv6."""
    names["hooks.test"] = [["fe80::1", METADATA]]

    attempt = await sender.post(at("hooks.test", receiver), b"{}", {}, timeout=9)

    assert (Failure.FORBIDDEN, []) == (attempt.failure, tried)
    assert (attempt.detail or "").startswith("fe80::1 is refused as link-local; ")
    assert METADATA in (attempt.detail or "")


async def test_an_allowed_address_that_is_down_counts_for_more_than_a_refused_one(
    sender: Sender, names: Names
) -> None:
    """It is the receiver that is down."""
    names["hooks.test"] = [["fe80::1", "127.0.0.1"]]
    port = urlsplit(await a_closed_port()).port

    attempt = await sender.post(f"http://hooks.test:{port}/", b"{}", {}, timeout=9)

    assert (Failure.CONNECT, "no connection: none of its addresses takes one") == (
        attempt.failure,
        attempt.detail,
    )


async def test_a_name_that_meant_well_a_moment_ago_is_asked_again(
    sender: Sender, receiver: Receiver, names: Names, tried: list[str]
) -> None:
    """DNS rebinding: what counts is the address of this connection."""
    names["hooks.test"] = [["127.0.0.1"], [METADATA]]
    receiver.always = says(200, Connection="close")
    url = at("hooks.test", receiver)

    first = await sender.post(url, b"{}", {}, timeout=9)
    sender._session.connector.clear_dns_cache()  # type: ignore[union-attr]  # noqa: SLF001  # as after ten seconds
    second = await sender.post(url, b"{}", {}, timeout=9)

    assert (None, Failure.FORBIDDEN) == (first.failure, second.failure)
    assert ["127.0.0.1"] == tried


@pytest.mark.parametrize(
    "host",
    [METADATA, "[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]", "[64:ff9b::a9fe:a9fe]",
     "[fe80::1]", "[fe80::1%25lo]", "[fd00:ec2::254]", "[::]", UNSPECIFIED, "224.0.0.1",
     "0xa9fea9fe", "0xa9.0xfe.0xa9.0xfe", "\uff11\uff16\uff19.254.169.254"],
)  # fmt: skip
async def test_a_literal_is_refused_like_a_name(
    host: str, sender: Sender, tried: list[str]
) -> None:
    """The library asks no resolver for them, so a guard that sat there would not see them."""
    attempt = await sender.post(f"http://{host}/latest/meta-data", b"{}", {}, timeout=9)

    assert (Failure.FORBIDDEN, []) == (attempt.failure, tried)


@pytest.mark.parametrize("host", ["2852039166", "0251.0376.0251.0376", "169.16689662", "127.1"])
async def test_a_number_in_place_of_an_address_is_not_sent_to(
    host: str, sender: Sender, tried: list[str]
) -> None:
    """The library itself takes no such spelling."""
    attempt = await sender.post(f"http://{host}/", b"{}", {}, timeout=9)

    assert attempt.failure in (Failure.UNUSABLE, Failure.FORBIDDEN)
    assert [] == tried


@pytest.mark.parametrize("host", ["127.0.0.1", "0x7f.1", "[::ffff:127.0.0.1]", "hooks.test"])
async def test_loopback_is_refused_where_only_the_public_is_wanted(
    host: str, connections: Connections, receiver: Receiver, names: Names, tried: list[str]
) -> None:
    """In any spelling; and let through again by its network."""
    names["hooks.test"] = [["127.0.0.1"]]
    public = connections.sender(Guard(public_only=True))

    attempt = await public.post(at(host, receiver), b"{}", {}, timeout=9)

    assert (Failure.FORBIDDEN, [], []) == (attempt.failure, tried, receiver.received)
    assert "since public_only is set; add it to allow_addresses" in (attempt.detail or "")


async def test_what_one_endpoint_may_connect_to_another_does_not_find_open(
    connections: Connections, receiver: Receiver
) -> None:
    """A connection that is kept open would lead around the guard of the stricter one."""
    lenient, strict = Guard(), Guard(public_only=True)

    attempts = [
        await connections.sender(guard).post(receiver.url, b"{}", {}, timeout=9)
        for guard in (lenient, strict, lenient)
    ]

    assert [None, Failure.FORBIDDEN, None] == [one.failure for one in attempts]


async def test_endpoints_with_the_same_rules_share_their_connections(
    connections: Connections,
) -> None:
    """Most have none of their own, and a pool for each would be in vain."""
    senders = [connections.sender(Guard()) for _ in range(2)]

    assert senders[0]._session is senders[1]._session  # noqa: SLF001  # what is shared


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_to_a_metadata_address_is_not_followed(
    status: int, sender: Sender, receiver: Receiver, tried: list[str]
) -> None:
    """The receiver says where to go, and nobody goes there."""
    receiver.always = says(status, Location=f"http://{METADATA}/latest/meta-data")

    attempt = await sender.post(receiver.url, b"{}", {}, timeout=9)

    assert (Failure.REDIRECT, ["127.0.0.1"]) == (attempt.failure, tried)


async def test_a_session_without_a_guard_leads_anywhere(
    clock: ManualClock, tried: list[str]
) -> None:
    """Which is for proxies; so the tests above do test the guard."""
    async with new_session(None) as session:
        attempt = await Sender(session, clock).post(f"http://{METADATA}/", b"{}", {}, timeout=9)

    assert (Failure.CONNECT, [METADATA]) == (attempt.failure, tried)
