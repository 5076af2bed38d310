"""TLS: who cannot be trusted is sent nothing, and the usual slips are told by their names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchwatch.domain.delivery import Failure
from tests.unit.deliver.sockets import an_answer, saying

if TYPE_CHECKING:
    import ssl

    from batchwatch.deliver.sender import Sender
    from tests.support.receiver import Receiver


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
