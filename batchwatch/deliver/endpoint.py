"""What the dispatcher needs to know of a place that notifications go to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from batchwatch.domain.batch import EndpointName
    from batchwatch.domain.delivery import Attempt, Claimed


class Endpoint(Protocol):
    """A webhook, a Slack channel, and whatever else takes messages."""

    @property
    def name(self) -> EndpointName:
        """As in the settings; deliveries are stored under it."""

    @property
    def schedule(self) -> Sequence[float]:
        """The pause before each retry, in seconds; when it is used up, a delivery is dead."""

    @property
    def timeout(self) -> float:
        """The most seconds that one try takes."""

    @property
    def concurrency(self) -> int:
        """How many requests may be open at once."""

    @property
    def rate(self) -> float | None:
        """How many may be begun in a second; None for any number."""

    @property
    def final_statuses(self) -> Collection[int]:
        """The HTTP statuses after which a delivery is not tried again."""

    async def send(self, delivery: Claimed) -> Attempt:
        """Try ``delivery`` once. Whatever the receiver does is told, not raised."""
