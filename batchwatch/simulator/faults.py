"""The kinds of faults, in groups by what they do to an answer, and how one is switched on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

REFUSING: Final[Mapping[str, str]] = {
    "outage": "503, sometimes with an HTML page, for as long as the scenario's outages last",
    "status": "an answer with the status that the switch names, 402 unless told otherwise",
    "429": "too many requests, and no word of when to come back",
    "429-retry-after": "too many requests, with Retry-After: 1, or the switch's seconds",
    "5xx": "500, 502, 503 or 504 with a JSON body",
    "html": "502 or 503 with an HTML page, as gateways give",
}
SPOILING: Final[Mapping[str, str]] = {
    "reset": "the connection is reset, before the answer or in the midst of it",
    "truncated": "200 and JSON that ends too early, with a Content-Length that is right",
    "invalid-json": "200, application/json, and something else in the body",
}
MISLEADING: Final[Mapping[str, str]] = {
    "stale": "an answer from up to 8 simulated seconds ago, or the switch's seconds",
    "reordered": "a list in another order than newest first, and shuffled within its pages",
    "repeated": "a row that is twice on a page and again on the next",
    "looped": "a page token that leads to the same page again",
    "null-results": "results that are null though the batch has ended",
    "null-timestamps": "rows whose created_at or updated_at is null",
    "odd-timestamps": "rows whose timestamps have an offset or nanoseconds",
    "unknown-fields": "rows with fields that no page of the API names",
}
DELAYING: Final[Mapping[str, str]] = {
    "latency": "an answer that takes 0.05 to 0.6 s, or the switch's seconds",
}
OF_WEBHOOKS: Final[Mapping[str, str]] = {
    "webhook-delayed": "an upstream webhook up to 3 s late, so that others overtake it",
    "webhook-repeated": "an upstream webhook that is sent twice",
}
OF_REQUESTS: Final[Mapping[str, str]] = {**REFUSING, **SPOILING, **MISLEADING, **DELAYING}
KINDS: Final[Mapping[str, str]] = {**OF_REQUESTS, **OF_WEBHOOKS}


class Switch(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A fault that is switched on at run time.

    It strikes the next ``for_requests`` requests (or webhooks) whose path begins with ``path``,
    within the next ``for_seconds`` (of the clock, at any speed), each with its probability.
    """

    kind: str
    probability: float = 1.0
    for_requests: int | None = None
    for_seconds: float | None = None
    path: str = "/"
    seconds: float | None = None  # of the latency, the Retry-After, or how old a stale answer is
    status: int = 402

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"no fault is of kind {self.kind!r}; there are: {', '.join(KINDS)}")
        if not 0 <= self.probability <= 1:
            raise ValueError(f"a probability is from 0 to 1, not {self.probability!r}")
