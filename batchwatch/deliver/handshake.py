"""Ask a receiver whether it wants to be sent to, before the first message.

The validation handshake of
https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/http-webhook.md#4-abuse-protection.
No callback is offered, for the daemon's own server is not meant to be reached
from outside, so a receiver agrees in its answer or not at all.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from batchwatch.domain.delivery import Failure
from batchwatch.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchwatch.deliver.sender import Sender
    from batchwatch.domain.batch import EndpointName
    from batchwatch.domain.delivery import Attempt

log = get_logger()

REQUEST_ORIGIN: Final = "webhook-request-origin"
_ALLOWED_ORIGIN: Final = "webhook-allowed-origin"
_ALLOWED_RATE: Final = "webhook-allowed-rate"
# An answer with one of these is no refusal: nobody who decides has been asked yet.
_BUSY: Final = frozenset({Failure.RATE_LIMITED, Failure.SERVER_ERROR})


class Handshake:
    """One receiver's agreement, remembered for as long as the daemon runs.

    ``origin`` is the DNS name that the receiver knows this system by.
    """

    def __init__(self, name: EndpointName, *, origin: str) -> None:
        self.origin = origin
        self._name = name
        self._agreed = False
        self._asked = 0  # times
        self._refusal: Attempt | None = None
        self._asking = asyncio.Lock()

    async def refusal(
        self,
        sender: Sender,
        url: str,
        headers: Mapping[str, str],
        *,
        timeout: float,  # noqa: ASYNC109  # seconds, told to the sender
    ) -> Attempt | None:
        """Why nothing may be sent, as the failed try that it makes; None once the receiver agreed.

        Deliveries that are tried at once ask once: the others wait for that
        answer, so that none of them takes longer than the one that asked.
        """
        asked = self._asked
        async with self._asking:
            if not self._agreed and asked == self._asked:
                self._refusal = await self._ask(sender, url, headers, timeout)
                self._asked += 1
            return None if self._agreed else self._refusal

    async def _ask(
        self, sender: Sender, url: str, headers: Mapping[str, str], seconds: float
    ) -> Attempt | None:
        answer: dict[str, str] = {}
        attempt = await sender.post(
            url,
            b"",
            {**headers, REQUEST_ORIGIN: self.origin},
            timeout=seconds,
            method="OPTIONS",
            answer=answer,
        )
        allowed = answer.get(_ALLOWED_ORIGIN)
        # The header alone is consent: many answer OPTIONS with 200 and mean nothing by it.
        if allowed is not None and allowed.strip().lower() in {"*", self.origin.lower()}:
            self._agreed = True
            log.info("handshake.agreed", endpoint=self._name, rate=answer.get(_ALLOWED_RATE))
            return None
        if attempt.status_code is None or attempt.failure in _BUSY:
            return replace(attempt, detail=f"asking by OPTIONS: {attempt.detail}")
        lacks = "has no WebHook-Allowed-Origin" if allowed is None else "allows another origin"
        return replace(
            attempt,
            failure=Failure.NOT_ALLOWED,
            detail=f"the receiver did not agree to messages from {self.origin}: "
            f"its answer to OPTIONS (HTTP {attempt.status_code}) {lacks}",
        )
