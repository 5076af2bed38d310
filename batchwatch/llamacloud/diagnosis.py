"""What a bad answer means: from a status, a body or an exception to an error that helps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import msgspec
from yarl import URL

from batchwatch.llamacloud.errors import (
    CloudError,
    Denied,
    Garbled,
    NotFound,
    PaymentRequired,
    RateLimited,
    Redirected,
    Rejected,
    ServerFault,
    Unreachable,
)

if TYPE_CHECKING:
    from batchwatch.llamacloud.key import ApiKey
    from batchwatch.llamacloud.wire import Body

NORTH_AMERICA: Final = "https://api.cloud.llamaindex.ai"
EUROPE: Final = "https://api.cloud.eu.llamaindex.ai"

_BASE_URL: Final = "LLAMA_CLOUD_BASE_URL"
GOES_ON: Final = "batchwatch goes on trying by itself"
_DETAIL: Final = 400  # characters of upstream's words that are kept
_SHOWN: Final = 160  # characters of a body that is no JSON, in a message
_NO_CONNECTION: Final = (
    aiohttp.ClientConnectorError,
    aiohttp.ClientSSLError,
    aiohttp.ConnectionTimeoutError,
)
_WORTH_RETRYING: Final = frozenset({408, 409, 429})


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked, as far as an error may tell."""

    url: URL
    key: ApiKey

    @property
    def where(self) -> str:
        """Method and URL, without the query: page tokens are nobody's business."""
        return f"GET {self.url.with_query(None)}"

    def quoted(self, text: str, limit: int = _DETAIL) -> str:
        """``text`` of upstream, safe to show: one printable line, short, and without the key."""
        line = self.key.redact(text)
        line = "".join(one if one.isprintable() else " " for one in line[: 4 * limit])
        line = " ".join(line.split())
        return line if len(line) <= limit else line[: limit - 1] + "…"


def refused(asked: Asked, status: int, body: Body, retry_after: float | None) -> CloudError:
    """The error for an answer with a 4xx or 5xx ``status``; ``body`` may be its start only."""
    detail = asked.quoted(_words(body))
    said = f" ({detail})" if detail else ""
    kind, what, what_to_do = _meaning(asked, status)
    if kind is RateLimited and retry_after is not None:
        said += f", and asks for {retry_after:.0f} s without requests"
    error = kind(
        f"answered {status}{said}: {what}",
        where=asked.where,
        what_to_do=what_to_do,
        status=status,
        retry_after=retry_after,
        transient=status in _WORTH_RETRYING or status >= 500,
    )
    error.detail = detail
    return error


def _meaning(asked: Asked, status: int) -> tuple[type[CloudError], str, str]:
    """The error, what a ``status`` means, and what to do about it."""
    source = asked.key.source
    regions = (
        f"A key belongs to one region: {NORTH_AMERICA} (the default) or {EUROPE}; "
        f"this was asked of {asked.url.origin()}, which {_BASE_URL} chooses."
    )
    if status == 401:
        return (
            Denied,
            "it does not accept the API key",
            f"Check {source}: is the key whole, and not revoked? {regions}",
        )
    if status == 403:
        return (
            Denied,
            "the API key may not see this",
            (
                f"Does the key in {source} belong to this project and organization, and does their "
                f"plan have batches (Pro or Enterprise)? {regions}"
            ),
        )
    if status == 402:
        return (
            PaymentRequired,
            "the account's credits or plan do not cover this",
            f"Add credits or change the plan in LlamaCloud; {GOES_ON}.",
        )
    if status == 404:
        return (
            NotFound,
            "nothing is there, or not for this key",
            (
                f"Check that {_BASE_URL} names the API and nothing below it, and that the key in "
                f"{source} belongs to the project in question."
            ),
        )
    if status == 429:
        return (
            RateLimited,
            "too many requests",
            (
                "batchwatch slows down by itself. If this lasts, poll less often "
                "(BATCHWATCH_POLL_INTERVAL), or see who else uses the key."
            ),
        )
    if status >= 500:
        return (
            ServerFault,
            "a fault on LlamaCloud's side, or of a proxy before it",
            f"There is nothing to mend here; {GOES_ON}.",
        )
    return (
        Rejected,
        "a documented request was refused, where 200 was expected",
        (
            "Check the watch's project, organization and source directory. If they are right, the "
            "API has changed: look for a newer batchwatch, or report this line."
        ),
    )


def redirected(asked: Asked, status: int, location: str) -> Redirected:
    """The error for a 3xx. The target is named by its origin only: a URL may hold secrets."""
    try:
        target = str(asked.url.join(URL(location)).origin()) if location else "nowhere"
    except ValueError:
        target = "no readable address"
    return Redirected(
        f"answered {status}, which points to {asked.quoted(target)}, where 200 was expected. "
        "Redirects are not followed, because the API key would go along",
        where=asked.where,
        what_to_do=f"If that is where your LlamaCloud is, set {_BASE_URL} to it; if not, a proxy "
        "or a login page has come between.",
        status=status,
    )


def garbled(asked: Asked, status: int, content_type: str, body: Body, expected: str) -> Garbled:
    """The error for a good status with a body that is not ``expected``."""
    shown = asked.quoted(_decoded(body[: 4 * _SHOWN]), _SHOWN)
    begins = f"that begins with {shown!r}" if shown else "without a body"
    kind = asked.quoted(content_type, 60) or "no content type"
    error = Garbled(
        f"answered {status} with {kind} {begins}, where {expected} was expected",
        where=asked.where,
        what_to_do=f"If this lasts, something answers in LlamaCloud's place: check {_BASE_URL}, "
        "proxies and login pages.",
        status=status,
        transient=True,
    )
    error.detail = shown
    return error


def oversized(asked: Asked, status: int, limit: int) -> Garbled:
    """The error for a body of more than ``limit`` bytes, decompressed. Not worth a retry."""
    error = Garbled(
        f"answered {status} with more than {limit / 2**20:.0f} MiB, and was cut off there",
        where=asked.where,
        what_to_do=f"No documented answer is that large: check that {_BASE_URL} names LlamaCloud.",
        status=status,
    )
    error.oversized = True
    return error


def held_back(asked: Asked, seconds: float) -> RateLimited:
    """The error for a request that was not sent, because upstream asked for a long pause."""
    return RateLimited(
        f"not sent: LlamaCloud has asked for another {seconds:.0f} s without requests",
        where=asked.where,
        what_to_do="batchwatch waits by itself. If this is frequent, poll less often "
        "(BATCHWATCH_POLL_INTERVAL), or see who else uses the key.",
        status=429,
        retry_after=seconds,
    )


def unreachable(asked: Asked, error: BaseException, status: int | None = None) -> Unreachable:
    """The error for an exception instead of an answer; ``status`` if one had begun to come."""
    what, what_to_do = _cause(asked, error, begun=status is not None)
    unreachable = Unreachable(
        what,
        where=asked.where,
        what_to_do=f"{what_to_do}; {GOES_ON}.",
        status=status,
        # A certificate is as wrong a second later.
        transient=not isinstance(error, aiohttp.ClientConnectorCertificateError),
    )
    unreachable.connected = not isinstance(error, _NO_CONNECTION)
    return unreachable


def _cause(asked: Asked, error: BaseException, *, begun: bool) -> tuple[str, str]:
    """What an exception of aiohttp means, and what to do. Its own text is not repeated."""
    host = asked.url.host
    check = f"Check {_BASE_URL}, the network and any proxy or firewall on the way"
    match error:
        case aiohttp.ClientConnectorDNSError():
            return (
                f"the name {host} cannot be resolved",
                f"Check the spelling in {_BASE_URL}, and this machine's DNS",
            )
        case aiohttp.ClientConnectorCertificateError():
            return (
                f"the certificate of {host} is not trusted ({_certificate(error)})",
                (
                    f"Check {_BASE_URL}; for a certificate authority of your own, name its file in "
                    "SSL_CERT_FILE"
                ),
            )
        case aiohttp.ClientSSLError():
            return (
                f"{host}:{asked.url.port} does not speak TLS as expected",
                f"Check the https:// and the port in {_BASE_URL}, and proxies on the way",
            )
        case aiohttp.ConnectionTimeoutError():
            return "no connection within the time limit", check
        case TimeoutError():
            return "no whole answer within the time limit", check
        case aiohttp.ClientConnectorError():
            reason = error.os_error.strerror or type(error.os_error).__name__
            return f"no connection to {host}:{asked.url.port} ({asked.quoted(reason)})", check
        case aiohttp.ClientResponseError():
            return "what came back is no HTTP", f"Check scheme, host and port in {_BASE_URL}"
        case aiohttp.ClientPayloadError() | aiohttp.ClientConnectionError() | OSError():
            half = "in the middle of the answer" if begun else "before an answer came"
            return f"the connection broke {half}", check
        case _:
            return f"the request failed ({type(error).__name__})", check


def _certificate(error: aiohttp.ClientConnectorCertificateError) -> str:
    cause = error.certificate_error
    # OpenSSL sets it; the exception that Python raises for a wrong host name has none.
    return str(getattr(cause, "verify_message", "") or type(cause).__name__)


def _words(body: Body) -> str:
    """What a body of an error says: the three documented shapes of ``detail``, or its start."""
    try:
        said = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return _decoded(body)
    if isinstance(said, dict):
        for key in ("detail", "details", "message", "error"):
            if said.get(key):
                return _phrase(said[key])
    return _phrase(said)


def _phrase(said: Any) -> str:
    """A string as it is; FastAPI's list of complaints as ``where: what``; others as JSON."""
    if isinstance(said, str):
        return said
    if isinstance(said, list):
        return "; ".join(_phrase(one) for one in said)
    if isinstance(said, dict) and isinstance(said.get("msg"), str):
        loc = said.get("loc")
        place = ".".join(str(one) for one in loc) if isinstance(loc, list) else ""
        return f"{place}: {said['msg']}" if place else said["msg"]
    return msgspec.json.encode(said).decode() if said else ""


def _decoded(body: Body) -> str:
    return body.decode(errors="replace")
