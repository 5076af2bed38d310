"""A store with something in it, for commands that look at one."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from batchwatch.domain.batch import EndpointName
from batchwatch.domain.routing import FOR_PROGRAMS, Router
from batchwatch.store import Database, Store
from tests.support.builders import WATCH, a_recorder, at
from tests.support.clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from batchwatch.domain.batch import Observation
    from batchwatch.store import Outbox

WEBHOOK = EndpointName("webhook")


@asynccontextmanager
async def recorded(
    url: str, *seen: Observation, endpoints: tuple[EndpointName, ...] = (WEBHOOK,)
) -> AsyncIterator[Outbox]:
    """The store at ``url`` with these sightings in it, one after the other."""
    database = await Database.open(url)
    store = Store(database, Router(dict.fromkeys(endpoints, FOR_PROGRAMS)), ManualClock())
    await store.watches.begin(WATCH, now=at(0))
    for one in seen:
        known = {one.id}
        decide = partial(a_recorder().record, seen=[one], now=one.seen_at)
        await store.batches.change(WATCH, known, decide)
    yield store.outbox
    await database.close()
