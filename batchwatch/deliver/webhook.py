"""Send an event to a program, as a Standard Webhooks message."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from batchwatch.deliver.handshake import REQUEST_ORIGIN
from batchwatch.deliver.signing import signed_headers
from batchwatch.deliver.tracing import traceparent
from batchwatch.domain.delivery import Attempt, Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from batchwatch.clock import Clock
    from batchwatch.deliver.handshake import Handshake
    from batchwatch.deliver.sender import Sender
    from batchwatch.deliver.signing import Key
    from batchwatch.domain.batch import EndpointName
    from batchwatch.domain.delivery import Claimed

    Write = Callable[[Claimed], tuple[dict[str, str], bytes]]


def envelope(delivery: Claimed) -> tuple[dict[str, str], bytes]:
    """Headers and body of an event as it is stored, which is as Standard Webhooks has it."""
    return {"Content-Type": "application/json"}, delivery.payload


@dataclass(frozen=True, slots=True)
class Webhook:
    """An endpoint that gets the event itself, signed at the moment it is sent.

    ``write`` decides on the format. With a ``handshake`` the receiver is
    asked first whether it wants to be sent to.
    """

    name: EndpointName
    url: str = field(repr=False)  # some receivers keep their secret in it
    sender: Sender
    clock: Clock
    schedule: Sequence[float]
    timeout: float  # seconds
    concurrency: int
    rate: float | None = None  # a second
    final_statuses: frozenset[int] = frozenset()
    keys: Sequence[Key] = field(default=(), repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    write: Write = envelope
    handshake: Handshake | None = None

    async def send(self, delivery: Claimed) -> Attempt:
        """POST the event, unless there is nothing left to sign with or the receiver is unwilling.

        An endpoint whose secrets have all expired fails, and not for good.
        To sign on would give the lie to the expiry, which may stand there
        because somebody else knows the secret; to go unsigned would teach the
        receiver to take forgeries.
        """
        asked, waited = {}, 0.0
        if self.handshake is not None:
            begun = self.clock.monotonic()
            # Half of the time, so that the message has the other half.
            refusal = await self.handshake.refusal(
                self.sender, self.url, self.headers, timeout=self.timeout / 2
            )
            if refusal is not None:
                return refusal
            asked = {REQUEST_ORIGIN: self.handshake.origin}
            waited = round(self.clock.monotonic() - begun, 1)
        now = self.clock.now()
        keys = [key for key in self.keys if key.signs_at(now)]
        if self.keys and not keys:
            return Attempt(
                now, 0.0, Failure.UNSIGNED, detail="every secret has expired; set a new one"
            )
        described, body = self.write(delivery)
        signed = signed_headers(delivery.event_id, body, keys=keys, timestamp=int(now.timestamp()))
        trace = {"traceparent": delivery.trace or traceparent(delivery.event_id)}
        headers = {**self.headers, **asked, **described, **trace, **signed}
        return await self.sender.post(self.url, body, headers, timeout=self.timeout - waited)
