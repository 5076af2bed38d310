"""Upstream's own webhooks: three tries within seconds, in any order, and then lost.

This is what batchwatch makes up for, and where its hints come from. Only batches that clients
create have any, since webhooks are named at creation and never later.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections import Counter, deque
from dataclasses import dataclass, field
from heapq import heappop, heappush
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import msgspec

from batchwatch.log import get_logger
from batchwatch.simulator.timeline import NEVER, SECOND

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchwatch.clock import Clock
    from batchwatch.simulator.api.forms import WebhookForm
    from batchwatch.simulator.batch import Batch
    from batchwatch.simulator.timeline import Micros
    from batchwatch.simulator.trouble import Faults
    from batchwatch.simulator.world import World

_log = get_logger()

# A status that is not here, such as THROTTLED, has no event.
EVENT_TYPES: Final = {
    "PENDING": "batch.pending",
    "RUNNING": "batch.running",  # once, when processing starts
    "COMPLETED": "batch.success",
    "FAILED": "batch.error",
    "CANCELLED": "batch.cancelled",  # in the API's list, but not said to be sent
}
BACKOFF: Final = (1.0, 2.0)  # seconds of the clock between three tries, at any speed
TIMEOUT: Final = 30.0  # seconds of the real clock, for one try
_ATTEMPTS_KEPT: Final = 1_000


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of one event: its number, and the status that came back, if any."""

    event_id: str
    event_type: str
    url: str
    number: int
    status: int | None


@dataclass(frozen=True, slots=True)
class _Followed:
    batch: Batch
    endpoints: tuple[WebhookForm, ...]
    told: set[str] = field(default_factory=set)  # types of events


class Webhooks:
    """Notifies the endpoints of each batch that has any.

    The one part of the simulator that must act at a given time: it sleeps until the next status
    of a batch that it follows.
    """

    def __init__(self, world: World, *, faults: Faults, clock: Clock) -> None:
        self.counted: Counter[str] = Counter()  # events, attempts, delivered, given_up
        self.attempts: deque[Attempt] = deque(maxlen=_ATTEMPTS_KEPT)
        self._world = world
        self._faults = faults
        self._clock = clock
        self._followed: dict[str, _Followed] = {}
        self._due: list[tuple[Micros, str]] = []  # a heap of batch ids
        self._changed = asyncio.Event()
        self._attempt_made = asyncio.Event()
        self._deliveries: set[asyncio.Task[None]] = set()

    def follow(self, batch: Batch, endpoints: Sequence[WebhookForm]) -> None:
        """Notify these endpoints of what becomes of a batch, from its creation on."""
        named = tuple(endpoint for endpoint in endpoints if endpoint.webhook_url)
        if named:
            self._followed[batch.id] = _Followed(batch, named)
            self._wake_at(batch.created, batch)

    def look_again(self, batch: Batch) -> None:
        """The batch was cancelled, so that its next status comes at another time."""
        if batch.id in self._followed:
            self._wake_at(self._world.now(), batch)

    async def idle(self) -> None:
        """Return when no delivery is under way."""
        while self._deliveries:
            await asyncio.wait(self._deliveries)

    async def attempted(self, count: int) -> None:
        """Return when so many attempts were made in all."""
        while self.counted["attempts"] < count:
            self._attempt_made.clear()
            await self._attempt_made.wait()

    async def run(self) -> None:
        """Notify until cancelled."""
        limits = aiohttp.ClientTimeout(total=TIMEOUT)
        async with aiohttp.ClientSession(timeout=limits) as session, asyncio.TaskGroup() as group:
            while True:
                self._changed.clear()
                now = self._world.now()
                while self._due and self._due[0][0] <= now:
                    followed = self._followed[heappop(self._due)[1]]
                    for event, endpoint in self._news(followed, now):
                        delivery = group.create_task(self._deliver(session, event, endpoint))
                        self._deliveries.add(delivery)
                        delivery.add_done_callback(self._deliveries.discard)
                wait = (self._due[0][0] - now) / SECOND if self._due else None
                await self._clock.wait(self._changed, wait)

    def _wake_at(self, moment: Micros, batch: Batch) -> None:
        if moment != NEVER:
            heappush(self._due, (moment, batch.id))
            self._changed.set()

    def _news(self, followed: _Followed, now: Micros) -> list[tuple[dict[str, Any], WebhookForm]]:
        """The events that are due and not yet told; then wait for the batch's next status."""
        batch, course, news = followed.batch, followed.batch.course, []
        for status, moment in course.until(now):
            event_type = EVENT_TYPES.get(status)
            if event_type is None or event_type in followed.told:
                continue
            followed.told.add(event_type)
            self.counted["events"] += 1
            event = self._event(batch, event_type, moment)
            for endpoint in followed.endpoints:
                wanted = endpoint.webhook_events
                if wanted is None or event_type in wanted:
                    news.append((event, endpoint))
        following = course.moments[course.nth(now) + 1 :]
        if following:
            self._wake_at(following[0], batch)
        return news

    def _event(self, batch: Batch, event_type: str, moment: Micros) -> dict[str, Any]:
        project, timeline = self._world.project, self._world.timeline
        return {
            "event_id": project.name("evt", event_type, batch.id).removeprefix("evt-"),
            "event_type": event_type,
            "timestamp": timeline.shown_epoch(moment),
            "data": {
                "id": batch.id,
                "project_id": project.id,
                "source_directory_id": batch.directory.id,
                "status": batch.status(moment),
            },
        }

    async def _deliver(
        self, session: aiohttp.ClientSession, event: dict[str, Any], endpoint: WebhookForm
    ) -> None:
        trouble = self._faults.for_webhook(endpoint.webhook_url or "")
        if trouble.strikes("webhook-delayed"):
            await self._clock.sleep(trouble.seconds("webhook-delayed", 0.5, 3))
        for _ in range(2 if trouble.strikes("webhook-repeated") else 1):
            await self._try_thrice(session, event, endpoint)

    async def _try_thrice(
        self, session: aiohttp.ClientSession, event: dict[str, Any], endpoint: WebhookForm
    ) -> None:
        body = msgspec.json.encode(event)
        headers = _headers(event, endpoint, body)
        url = endpoint.webhook_url or ""
        for number, wait in enumerate((0.0, *BACKOFF), 1):
            if wait:
                await self._clock.sleep(wait)
            status = await _post(session, url, headers, body)
            attempt = Attempt(event["event_id"], event["event_type"], url, number, status)
            self.attempts.append(attempt)
            self.counted["attempts"] += 1
            self._attempt_made.set()
            if status is not None and HTTPStatus(200) <= status < HTTPStatus(300):
                self.counted["delivered"] += 1
                return
        self.counted["given_up"] += 1
        _log.info("webhook.given_up", event_type=event["event_type"], event_id=event["event_id"])


async def _post(
    session: aiohttp.ClientSession, url: str, headers: dict[str, str], body: bytes
) -> int | None:
    """The status that came back; None if nothing did, or the URL or a header is impossible."""
    try:
        async with session.post(url, data=body, headers=headers, allow_redirects=False) as answer:
            return answer.status
    except (aiohttp.ClientError, OSError, ValueError):  # a timeout is an OSError
        return None


def _headers(event: dict[str, Any], endpoint: WebhookForm, body: bytes) -> dict[str, str]:
    headers = dict(endpoint.webhook_headers or {}) | {
        "Content-Type": "application/json",
        "User-Agent": "llamaindex-webhook-service/1.0",
        "X-Webhook-Event-ID": event["event_id"],
        "X-Webhook-Event-Type": event["event_type"],
    }
    if endpoint.webhook_signing_secret:
        secret = endpoint.webhook_signing_secret.encode()
        digest = hmac.new(secret, body, hashlib.sha256).hexdigest()
        headers["LC-Signature"] = f"sha256={digest}"
    return headers
