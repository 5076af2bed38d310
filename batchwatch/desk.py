"""What is done by hand: send again what was given up or lost, test, enable and disable."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import msgspec

from batchwatch.deliver.connections import Connections
from batchwatch.domain.batch import EndpointName
from batchwatch.domain.delivery import Claimed, DeliveryId
from batchwatch.domain.event import a_test_of
from batchwatch.domain.health import Record
from batchwatch.parts import endpoint_of, router_of, sender_of
from batchwatch.settings.tls import tls_contexts
from batchwatch.store import Database, Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from batchwatch.clock import Clock
    from batchwatch.domain.delivery import Attempt
    from batchwatch.settings import Settings

AT_ONCE: Final = 1_000  # deliveries to a transaction


@asynccontextmanager
async def opened(settings: Settings, clock: Clock, *, writes: bool) -> AsyncIterator[Desk]:
    """The store, for a command that changes it or only looks, beside a daemon or without one.

    Raises :class:`~batchwatch.store.StoreError`.
    """
    url = settings.database_url.get_secret_value()
    database = await Database.open(url, exclusive=False, writes=writes)
    try:
        store = Store(database, router_of(settings), clock, beside=True)
        yield Desk(settings, store, clock)
    finally:
        await database.close()


class Desk:
    """What may be done by hand to deliveries and endpoints."""

    def __init__(self, settings: Settings, store: Store, clock: Clock) -> None:
        self.views = store.views
        self._settings = settings
        self._clock = clock
        self._outbox = store.outbox
        self._endpoints = store.endpoints

    async def replay(self, ids: Sequence[int]) -> int:
        """Have these sent again, each under its event's id; how many had ended and are."""
        done = 0
        for start in range(0, len(ids), AT_ONCE):
            some = ids[start : start + AT_ONCE]
            done += await self._outbox.replay([DeliveryId(one) for one in some])
        return done

    async def endpoints(self) -> list[dict[str, Any]]:
        """Each endpoint with its health and what it is owed; also those that are no longer set."""
        records = await self._endpoints.records()
        owed: dict[str, dict[str, int]] = {}
        for one in await self.views.outbox():
            owed.setdefault(one.endpoint, {})[one.state] = one.count
        rows = []
        for name in dict.fromkeys((*self._settings.endpoints, *owed)):
            configured = self._settings.endpoints.get(name)
            record = records.get(EndpointName(name), Record(EndpointName(name)))
            counts = owed.get(name, {})
            dead = counts.pop("dead", 0)
            rows.append({
                "endpoint": name,
                "type": configured.type if configured else None,
                "url": configured.url.shown if configured else None,
                "state": "not set" if configured is None else record.state,
                "since": record.disabled_at or record.failing_since,
                "reason": record.reason,
                "owed": sum(counts.values()),
                "dead": dead,
            })  # fmt: skip
        return rows

    async def enable(self, name: str) -> bool:
        """Let an endpoint be sent to again; whether it was disabled."""
        return await self._endpoints.change(
            EndpointName(name),
            lambda record: (record.enabled() if record.disabled_at else record, None),
        )

    async def disable(self, name: str) -> bool:
        """Send an endpoint nothing more until it is enabled; whether it was enabled."""
        now = self._clock.now()
        return await self._endpoints.change(
            EndpointName(name), lambda record: record.disabled("by hand", now=now)
        )

    async def test(self, name: str) -> Attempt:
        """Send ``endpoint.test`` to one endpoint at once; what came back."""
        return await send_test(self._settings, name, self._clock)


async def send_test(settings: Settings, name: str, clock: Clock) -> Attempt:
    """Send ``endpoint.test`` to one endpoint at once, just as the daemon would send an event.

    Nothing of it is in the store. Raises SettingsError over a TLS file.
    """
    configured = settings.endpoints[name]
    contexts = tls_contexts(settings)
    event = a_test_of(EndpointName(name), now=clock.now())
    async with Connections(clock) as connections:
        sender = sender_of(configured, connections, tls=contexts.get(name))
        endpoint = endpoint_of(name, configured, sender, clock)
        return await endpoint.send(
            Claimed(
                id=DeliveryId(0),
                event_id=event.id,
                endpoint=EndpointName(name),
                subject=event.subject,
                type=event.type,
                batch_id=None,
                attempt=1,
                turn=1,
                occurred_at=event.occurred_at,
                payload=msgspec.json.encode(event.payload),
            )
        )
