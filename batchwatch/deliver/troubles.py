"""Say what went wrong with a request: its kind, and a line for people without URL or secret."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from functools import cache
from typing import Final

import aiohttp

from batchwatch.deliver.guard import Forbidden
from batchwatch.domain.delivery import Failure, Ours

CONNECT_TIMEOUT: Final = 10.0  # seconds
READ_TIMEOUT: Final = 60.0  # seconds of silence; who has said nothing for so long has hung
_SEVERAL: Final = "Multiple exceptions: "  # how aiohappyeyeballs tells of several addresses

_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_UNREACHABLE: Final = frozenset({
    errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL,
})  # fmt: skip

Trouble = tuple[Failure, str]


@cache
def limits(timeout: float) -> aiohttp.ClientTimeout:
    """The limits of a request that may take ``timeout`` seconds in all."""
    return aiohttp.ClientTimeout(
        total=timeout,
        sock_connect=min(timeout, CONNECT_TIMEOUT),
        sock_read=READ_TIMEOUT if timeout > READ_TIMEOUT else None,  # else the total is sooner
    )


def explain(error: Exception, timeout: float, *, proxied: bool = False) -> Trouble:
    """What became of a request that was to take ``timeout`` seconds, perhaps through a proxy."""
    match error:
        case TimeoutError():
            return Failure.TIMEOUT, _overdue(error, timeout)
        case Forbidden():
            return Failure.FORBIDDEN, str(error)
        case aiohttp.ClientHttpProxyError():
            return refused_by_proxy(error.status)
        case aiohttp.ClientConnectorError() | ssl.SSLError() | socket.gaierror():
            return _unconnected(error, proxied=proxied)
        case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError() | ValueError():
            return Failure.UNUSABLE, "the URL or a header cannot be used"
        case aiohttp.ClientResponseError():
            return Failure.PROTOCOL, "what came back is not HTTP"
        case aiohttp.ClientPayloadError():
            return Failure.RESET, "the answer broke off"
        case aiohttp.ClientOSError(__cause__=ssl.SSLError(reason=str(reason))):
            # Since TLS 1.3 a receiver says only then that it wants to know who we are.
            words = reason.lower().replace("_", " ")
            return Failure.TLS, f"the receiver ended the TLS connection: {words}"
        case _:
            return Failure.RESET, "the connection broke before an answer came"


def ours(error: Exception) -> Ours | None:
    """Whether this machine may be to blame: no network, no resolver, no more files."""
    if isinstance(error, TimeoutError):
        return Ours.PERHAPS  # a resolver may be silent, as a receiver may
    cause = getattr(error, "os_error", error)
    if isinstance(cause, socket.gaierror):
        return Ours.PERHAPS if cause.errno == socket.EAI_AGAIN else None
    if isinstance(cause, OSError) and cause.errno in _EXHAUSTED:
        return Ours.SURELY
    return Ours.PERHAPS if isinstance(cause, OSError) and cause.errno in _UNREACHABLE else None


def refused_by_proxy(status: int) -> Trouble:
    """What it means that the proxy itself answered with ``status``."""
    hint = "; check its user and password" if status == 407 else ""
    return Failure.PROXY, f"the proxy refused: HTTP {status}{hint}"


def _overdue(error: TimeoutError, timeout: float) -> str:
    match error:
        case aiohttp.ConnectionTimeoutError() if timeout > CONNECT_TIMEOUT:
            return f"no connection within {CONNECT_TIMEOUT:g} s"
        case aiohttp.SocketTimeoutError() if timeout > READ_TIMEOUT:
            return f"nothing was heard for {READ_TIMEOUT:g} s"
        case _:
            return f"no whole answer within {timeout:g} s"


def _unconnected(error: OSError, *, proxied: bool) -> Trouble:
    match error:
        case aiohttp.ClientConnectorDNSError() | socket.gaierror() if proxied:
            return Failure.PROXY, "the proxy's name could not be resolved"
        case aiohttp.ClientConnectorDNSError() | socket.gaierror():
            return Failure.DNS, "the host's name could not be resolved"
        case aiohttp.ClientConnectorCertificateError() | ssl.SSLCertVerificationError():
            cause = getattr(error, "certificate_error", error)
            reason = getattr(cause, "verify_message", None) or "not trusted"
            return Failure.TLS, f"the certificate was refused: {reason}"
        case aiohttp.ClientSSLError() | ssl.SSLError():
            return Failure.TLS, "the TLS handshake failed"
        case aiohttp.ClientProxyConnectionError():
            return Failure.PROXY, f"no connection to the proxy: {_reason(error.os_error)}"
        case aiohttp.ClientConnectorError(os_error=OSError(errno=Forbidden.NUMBER) as refused):
            return Failure.FORBIDDEN, str(refused.strerror).removeprefix(_SEVERAL)
        case aiohttp.ClientConnectorError(os_error=cause):
            return Failure.CONNECT, f"no connection: {_reason(cause)}"
        case _:
            return Failure.CONNECT, f"no connection: {_reason(error)}"


def _reason(error: OSError) -> str:
    if error.errno:
        return os.strerror(error.errno)
    if str(error).startswith(_SEVERAL):
        return "none of its addresses takes one"
    return "reset" if isinstance(error, ConnectionResetError) else "refused"
