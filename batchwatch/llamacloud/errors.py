"""What can go wrong upstream, said so that somebody can mend it.

CloudError
├── Unreachable       no whole answer: DNS, refused, TLS, a time limit, a connection that broke
├── Denied            401, 403: the key is wrong, of another region, or may not do this
├── PaymentRequired   402: credits or plan
├── NotFound          404
├── RateLimited       429, or we still hold back because of one
├── Rejected          any other 4xx: what we asked was not understood
├── Unaskable         no request can name this batch, so none was sent
├── ServerFault       5xx
├── Garbled           an answer that is not what the API documents, or too large to read
├── Redirected        3xx: never followed, because the key would go along
└── PagingLoop        a listing that does not come to its end
"""

from __future__ import annotations

from typing import ClassVar


class CloudError(Exception):
    """Upstream did not give what was asked; the message says what happened and what to do.

    ``where`` is the method and the URL without its query. ``retry_after`` is
    in seconds, from upstream's mouth. ``transient`` is whether asking again
    may help; the client has done so before it raised.
    """

    kind: ClassVar[str] = "error"  # a label from a closed set, for metrics
    detail: str = ""  # upstream's own words, on one line, without the key

    def __init__(  # one argument for each thing a reader must be told
        self,
        what: str,
        *,
        where: str,
        what_to_do: str,
        status: int | None = None,
        retry_after: float | None = None,
        transient: bool = False,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.what_to_do = what_to_do
        self.status = status
        self.retry_after = retry_after
        self.transient = transient
        self.tries = 1

    def __str__(self) -> str:
        tries = f" ({self.tries} tries)" if self.tries > 1 else ""
        return f"{self.where}: {self.what}{tries}. {self.what_to_do}"


class Unreachable(CloudError):
    """No whole answer came; ``status`` is set if one had begun."""

    kind = "unreachable"
    connected: bool = True  # whether somebody was there to be asked


class Denied(CloudError):
    """The key is not accepted, or not for this."""

    kind = "denied"


class PaymentRequired(CloudError):
    """The account's credits or plan do not cover this."""

    kind = "payment_required"


class NotFound(CloudError):
    """Nothing is there, or not for this key."""

    kind = "not_found"


class RateLimited(CloudError):
    """Too many requests; no more may be sent before ``retry_after``."""

    kind = "rate_limited"


class Rejected(CloudError):
    """The request was not understood or not allowed; ``detail`` says why."""

    kind = "rejected"


class Unaskable(CloudError):
    """An id that would be another path in any URL; only a listing can show its batch."""

    kind = "unaskable"


class ServerFault(CloudError):
    """A fault on upstream's side."""

    kind = "server_fault"


class Garbled(CloudError):
    """An answer came, and it is not what the API documents."""

    kind = "garbled"
    oversized: bool = False  # it was cut off because of its length


class Redirected(CloudError):
    """Upstream points to another address, to which the key is not sent."""

    kind = "redirected"


class PagingLoop(CloudError):
    """A listing that does not end; what its pages showed until then is true."""

    kind = "paging_loop"


def is_systemic(error: CloudError) -> bool:
    """Whether ``error`` would befall every other request just as well.

    A 500, or an answer that breaks off or does not come in time, may be the
    fault of the one batch that was asked for, and must not keep the others
    from being asked for. Where there was not even a connection, it cannot.
    """
    if isinstance(error, Unreachable):
        return not error.connected
    if isinstance(error, ServerFault):
        return error.retry_after is not None
    return isinstance(error, (Denied, PaymentRequired, RateLimited, Redirected))
