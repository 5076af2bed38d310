"""What an exception means: the cases that no test server can stage."""

from __future__ import annotations

import ssl

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey
from yarl import URL

from batchwatch.llamacloud.diagnosis import Asked, unreachable
from batchwatch.llamacloud.errors import is_systemic
from batchwatch.llamacloud.key import ApiKey
from tests.unit.llamacloud.upstream import KEY, SOURCE

ASKED = Asked(
    URL("https://api.example.com/api/v2/batches?page_token=t0"), ApiKey(KEY, source=SOURCE)
)
TO = ConnectionKey(
    "api.example.com",
    443,
    is_ssl=True,
    ssl=True,
    proxy=None,
    proxy_auth=None,
    proxy_headers_hash=None,
)


def untrusted() -> Exception:
    """A certificate of a company's own authority, or of a proxy that looks into TLS."""
    cause = ssl.SSLCertVerificationError(1, "certificate verify failed")
    cause.verify_message = "self-signed certificate in certificate chain"
    return aiohttp.ClientConnectorCertificateError(TO, cause)


@pytest.mark.parametrize(
    ("error", "told", "transient", "systemic"),
    [
        (untrusted(), "not trusted (self-signed certificate in certificate chain)", False, True),
        (
            aiohttp.ClientConnectorCertificateError(TO, ssl.CertificateError("no match")),
            "not trusted",
            False,
            True,
        ),
        (aiohttp.ConnectionTimeoutError("x"), "no connection within the time limit", True, True),
        (aiohttp.SocketTimeoutError("x"), "no whole answer within the time limit", True, False),
        (TimeoutError(), "no whole answer within the time limit", True, False),
        (
            aiohttp.ClientConnectorError(TO, OSError(113, "No route to host")),
            "no connection to api.example.com:443 (No route to host)",
            True,
            True,
        ),
        (
            aiohttp.ClientConnectorError(TO, OSError("odd")),
            "no connection to api.example.com:443 (OSError)",
            True,
            True,
        ),
        (aiohttp.ServerDisconnectedError(), "broke before an answer came", True, False),
        (aiohttp.ClientOSError(104, "reset"), "broke before an answer came", True, False),
        (ConnectionResetError(), "broke before an answer came", True, False),
        (aiohttp.ClientError(KEY), "the request failed (ClientError)", True, False),
    ],
)
def test_each_cause_is_said_plainly(
    error: Exception,
    told: str,
    transient: bool,  # noqa: FBT001
    systemic: bool,  # noqa: FBT001
) -> None:
    """With the host, what to check, and neither the query nor the exception's own words.

    Without a connection no other question fares better; all else may be the
    fault of what was asked for.
    """
    ours = unreachable(ASKED, error)
    assert told in str(ours)
    assert "GET https://api.example.com/api/v2/batches: " in str(ours)
    assert transient == ours.transient
    assert systemic == is_systemic(ours)
    assert not [secret for secret in ("t0", KEY) if secret in str(ours)]


def test_an_answer_that_had_begun_is_known_by_its_status() -> None:
    """Upstream is there, so this may be one batch's trouble alone."""
    ours = unreachable(ASKED, aiohttp.ClientPayloadError(), status=200)
    assert "in the middle of the answer" in str(ours)
    assert not is_systemic(ours)
