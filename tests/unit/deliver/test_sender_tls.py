"""TLS: who cannot be trusted is sent nothing, and the usual slips are told by their names."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from batchwatch.deliver.connections import Connections
from batchwatch.deliver.guard import Guard
from batchwatch.domain.delivery import Failure
from tests.unit.deliver.sockets import an_answer, saying

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from batchwatch.deliver.sender import Sender
    from tests.support.clock import ManualClock
    from tests.support.receiver import Receiver
    from tests.unit.deliver.authority import Authority

MISMATCH = "IP address mismatch, certificate is not valid for '127.0.0.1'"


@pytest.fixture
async def connections(clock: ManualClock) -> AsyncIterator[Connections]:
    async with Connections(clock) as made:
        yield made


async def test_a_certificate_that_is_not_trusted_is_refused(
    sender: Sender, tls: ssl.SSLContext
) -> None:
    """With OpenSSL's reason; and nothing of the request has gone out by then."""
    async with saying(an_answer("200 OK"), tls=tls) as line:
        attempt = await sender.post(line.url, b"{}", {}, timeout=9)

    assert (Failure.TLS, "the certificate was refused: self-signed certificate") == (
        attempt.failure,
        attempt.detail,
    )
    assert [] == line.requests


async def test_https_where_only_http_is_spoken_is_a_failed_handshake(
    sender: Sender, receiver: Receiver
) -> None:
    """The usual slip in a URL, told by its name."""
    attempt = await sender.post(receiver.url.replace("http:", "https:"), b"{}", {}, timeout=9)

    assert (Failure.TLS, "the TLS handshake failed") == (attempt.failure, attempt.detail)


async def test_http_where_only_tls_is_spoken_fails(sender: Sender, tls: ssl.SSLContext) -> None:
    """Nothing that could be read comes back."""
    async with saying(an_answer("200 OK"), tls=tls) as line:
        attempt = await sender.post(line.url.replace("https:", "http:"), b"{}", {}, timeout=9)

    assert attempt.failure in (Failure.RESET, Failure.PROTOCOL)


async def test_an_authority_of_ones_own_is_trusted_where_it_is_set_and_nowhere_else(
    connections: Connections, authority: Authority
) -> None:
    """One endpoint's trust is not another's, though they share the pool of connections."""
    trusting = connections.sender(Guard(), tls=authority.client())
    other = connections.sender(Guard())
    async with saying(an_answer("200 OK"), tls=authority.server()) as line:
        attempts = [
            await sender.post(line.url, b"{}", {}, timeout=9)
            for sender in (trusting, other, trusting)
        ]

    assert [None, Failure.TLS, None] == [one.failure for one in attempts]
    assert 2 == len(line.requests)


@pytest.mark.parametrize(
    ("name", "of", "days", "reason"),
    [
        ("expired", "IP:127.0.0.1", -1, "certificate has expired"),
        ("elsewhere", "IP:127.0.0.2", 1, MISMATCH),
        ("named", "DNS:localhost", 1, MISMATCH),
    ],
)
async def test_a_certificate_that_does_not_fit_is_refused(
    name: str, of: str, days: int, reason: str, connections: Connections, authority: Authority
) -> None:
    """Though its authority is trusted; nothing of the request has gone out by then."""
    sender = connections.sender(Guard(), tls=authority.client())
    server = authority.server(name, of=of, days=days)
    async with saying(an_answer("200 OK"), tls=server) as line:
        attempt = await sender.post(line.url, b"{}", {}, timeout=9)

    assert (Failure.TLS, f"the certificate was refused: {reason}") == (
        attempt.failure,
        (attempt.detail or "").rstrip("."),
    )
    assert [] == line.requests


async def test_a_receiver_that_wants_to_know_who_we_are_is_shown_our_certificate(
    connections: Connections, authority: Authority
) -> None:
    """Mutual TLS."""
    ours = authority.client()
    ours.load_cert_chain(authority.certificate("client"))
    sender = connections.sender(Guard(), tls=ours)
    async with saying(an_answer("200 OK"), tls=authority.server(asks=True)) as line:
        attempt = await sender.post(line.url, b"{}", {}, timeout=9)

    assert (None, 1) == (attempt.failure, len(line.requests))


@contextmanager
def a_stern_receiver(context: ssl.SSLContext) -> Iterator[str]:
    """Says why it ends a handshake, and waits until that was read; asyncio's servers do not."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = server.accept()
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_side=True)
        with connection, suppress(OSError):
            over = False
            while data := connection.recv(65536):
                incoming.write(data)
                if not over:
                    try:
                        tls.do_handshake()
                    except ssl.SSLWantReadError:
                        pass
                    except ssl.SSLError:
                        over = True
                connection.sendall(outgoing.read())

    thread = threading.Thread(target=serve)
    thread.start()
    with server:
        yield f"https://127.0.0.1:{server.getsockname()[1]}"
        thread.join()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_receiver_that_misses_our_certificate_is_told_as_such(
    version: ssl.TLSVersion, clock: ManualClock, authority: Authority
) -> None:
    """As trouble of TLS, and not as a connection that broke: it will not mend itself."""
    server = authority.server(asks=True)
    server.minimum_version = server.maximum_version = version
    with a_stern_receiver(server) as url:
        async with Connections(clock) as connections:
            sender = connections.sender(Guard(), tls=authority.client())
            attempt = await sender.post(url, b"{}", {}, timeout=9)

    assert Failure.TLS is attempt.failure
    if version is ssl.TLSVersion.TLSv1_3:
        assert (
            "the receiver ended the TLS connection: tlsv13 alert certificate required"
            == attempt.detail
        )
