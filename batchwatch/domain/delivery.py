"""What happens to a delivery after a try: done, tried again, or dead."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NewType

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from batchwatch.domain.batch import BatchId, EndpointName, EventId

DeliveryId = NewType("DeliveryId", int)

JITTER: Final = 0.2  # of a pause, either way
RETRY_AFTER_CEILING: Final = 86_400.0  # seconds; a receiver may ask for a day, not for a year


class State(StrEnum):
    """Where a delivery stands."""

    WAITING = "waiting"  # behind another of its line: same endpoint, same subject
    PENDING = "pending"  # at the head of its line, to be tried when it is due
    IN_FLIGHT = "in_flight"  # claimed; being tried, or its daemon died
    DELIVERED = "delivered"
    DEAD = "dead"  # given up, with the reason; can be replayed
    CANCELLED = "cancelled"

    @property
    def is_open(self) -> bool:
        """Whether it still holds its place in the line."""
        return self in OPEN


OPEN: Final = (State.WAITING, State.PENDING, State.IN_FLIGHT)


class Failure(StrEnum):
    """Why a try failed: a closed set, so that metrics can carry it."""

    DNS = "dns"
    FORBIDDEN = "forbidden"  # it is where nobody may be sent; not final, for a name may move
    PROXY = "proxy"  # the proxy on the way, not the receiver
    CONNECT = "connect"
    TLS = "tls"
    TIMEOUT = "timeout"
    RESET = "reset"  # the connection broke before a whole response was there
    REDIRECT = "redirect"  # never followed
    RATE_LIMITED = "rate_limited"
    CLIENT_ERROR = "client_error"
    SERVER_ERROR = "server_error"
    NOT_ALLOWED = "not_allowed"  # the receiver was asked, and has not agreed to be sent to
    UNSIGNED = "unsigned"  # every secret has expired, and nothing goes out unsigned unasked
    GONE = "gone"
    PROTOCOL = "protocol"  # what came back was no HTTP, or not from whom it should be
    REFUSED = "refused"  # the receiver's own words say that it will never take this
    UNUSABLE = "unusable"  # this message or this endpoint cannot be sent at all
    OFFLINE = "offline"  # trouble of our own: no resolver, no network, no more files
    BROKE = "broke"  # a bug of ours


class Ours(StrEnum):
    """How sure it is that a try failed for trouble of our own."""

    SURELY = "surely"  # no more files, no memory
    PERHAPS = "perhaps"  # no connection came about; so it would be without a network, too


FINAL_FAILURES: Final = frozenset({Failure.REFUSED, Failure.UNUSABLE})
# They say nothing of the delivery, and use up nothing of its schedule.
UNCOUNTED_FAILURES: Final = frozenset({Failure.GONE, Failure.OFFLINE})
# They say nothing of the endpoint: our own trouble, or one message that it does not like.
BLAMELESS_FAILURES: Final = frozenset({
    Failure.OFFLINE, Failure.BROKE, Failure.REFUSED, Failure.UNUSABLE,
})  # fmt: skip
OFFLINE_PAUSE: Final = 30.0  # seconds


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery that this daemon holds, with what it takes to try it."""

    id: DeliveryId
    event_id: EventId
    endpoint: EndpointName
    subject: str
    type: str
    batch_id: BatchId | None
    attempt: int  # the number of this try, from 1
    turn: int  # the same, of those that count: since it was last replayed, for one
    occurred_at: datetime
    payload: bytes  # JSON, UTF-8: the envelope
    trace: str | None = None  # the traceparent of what it is a part of, if traces are kept


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of a delivery: when, how long, what came back."""

    started_at: datetime
    duration: float  # seconds
    failure: Failure | None = None  # None: the receiver took it
    status_code: int | None = None
    detail: str | None = None  # one line, for people; never a secret
    response: str | None = None  # the start of what came back
    retry_after: float | None = None  # seconds
    ours: Ours | None = None  # whether it failed for trouble of our own


@dataclass(frozen=True, slots=True)
class Settled:
    """A delivery after a try: what to write."""

    delivery: Claimed
    attempt: Attempt
    state: State
    due_in: float = 0.0  # seconds until the next try, when it is pending again
    reason: str | None = None  # why it is dead

    @property
    def uncounted(self) -> int:
        """How many of its tries its schedule does not know of."""
        free = self.attempt.failure in UNCOUNTED_FAILURES
        return self.delivery.attempt - self.delivery.turn + free


def settle(
    delivery: Claimed,
    attempt: Attempt,
    schedule: Sequence[float],
    *,
    jitter: float,
    final_statuses: Collection[int] = (),
) -> Settled:
    """Decide what becomes of ``delivery`` after ``attempt``.

    ``schedule`` holds the pause before each retry in seconds; when it is
    used up, the delivery is dead. ``jitter`` in -1..1 spreads the pauses by a
    fifth. A ``Retry-After`` makes a pause longer, never shorter, and a day
    at most. ``final_statuses`` of HTTP end it at once.
    """
    if attempt.failure is None:
        return Settled(delivery, attempt, State.DELIVERED)
    if attempt.failure is Failure.GONE:
        return Settled(delivery, attempt, State.PENDING)  # it waits until its endpoint is enabled
    if attempt.failure is Failure.OFFLINE:
        return Settled(
            delivery, attempt, State.PENDING, due_in=OFFLINE_PAUSE * (1.0 + JITTER * jitter)
        )
    if attempt.failure in FINAL_FAILURES or attempt.status_code in final_statuses:
        reason = f"{attempt.failure}: {attempt.detail or 'no detail'}"
        return Settled(delivery, attempt, State.DEAD, reason=reason)
    if delivery.turn > len(schedule):
        tries = "1 try" if delivery.turn == 1 else f"{delivery.turn} tries"
        reason = f"{tries} failed, the last: {attempt.failure}"
        if attempt.detail:
            reason += f": {attempt.detail}"
        return Settled(delivery, attempt, State.DEAD, reason=reason)
    pause = schedule[delivery.turn - 1] * (1.0 + JITTER * jitter)
    asked = min(attempt.retry_after or 0.0, RETRY_AFTER_CEILING)
    return Settled(delivery, attempt, State.PENDING, due_in=max(pause, asked))
