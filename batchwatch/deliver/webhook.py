"""Send an event to a program, as a Standard Webhooks message."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from batchwatch.deliver.signing import signed_headers
from batchwatch.deliver.tracing import traceparent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from batchwatch.clock import Clock
    from batchwatch.deliver.sender import Sender
    from batchwatch.domain.batch import EndpointName
    from batchwatch.domain.delivery import Attempt, Claimed


@dataclass(frozen=True, slots=True)
class Webhook:
    """An endpoint that gets the event itself, signed at the moment it is sent."""

    name: EndpointName
    url: str = field(repr=False)  # some receivers keep their secret in it
    sender: Sender
    clock: Clock
    schedule: Sequence[float]
    timeout: float  # seconds
    concurrency: int
    keys: Sequence[bytes] = field(default=(), repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    async def send(self, delivery: Claimed) -> Attempt:
        """POST the event's envelope."""
        headers = {
            **self.headers,
            "Content-Type": "application/json",
            "traceparent": traceparent(delivery.event_id),
            **signed_headers(
                delivery.event_id,
                delivery.payload,
                keys=self.keys,
                timestamp=int(self.clock.now().timestamp()),
            ),
        }
        return await self.sender.post(self.url, delivery.payload, headers, timeout=self.timeout)
