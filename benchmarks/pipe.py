"""The real parts of batchwatch, wired as the daemon wires them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from batchwatch.clock import Clock
from batchwatch.deliver.dispatcher import Dispatcher
from batchwatch.deliver.sender import Sender
from batchwatch.deliver.webhook import Webhook
from batchwatch.domain.batch import EndpointName, WatchName
from batchwatch.domain.routing import FOR_PROGRAMS, Router
from batchwatch.domain.watch import Watch
from batchwatch.llamacloud.budget import Budget
from batchwatch.llamacloud.client import LlamaCloud
from batchwatch.metrics import Metrics
from batchwatch.store import Database, Store
from batchwatch.watching.poller import Poller

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    import aiohttp

    from batchwatch.deliver.endpoint import Endpoint
    from batchwatch.deliver.signing import Key


WATCH: Final = WatchName("default")
ENDPOINT: Final = EndpointName("hook")
LOOKBACK: Final = timedelta(hours=24)
API_KEY: Final = "llx-simulator"
SECRET: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLjOt"  # noqa: S105  # guards nothing
CONCURRENCY: Final = 64  # requests at once
UNLIMITED: Final = 1e9  # requests per second: the budget does its work and never waits


@asynccontextmanager
async def open_store(where: Path | str, router: Router | None = None) -> AsyncIterator[Store]:
    """The store in a folder or at a URL, as the daemon has it; by default for one endpoint."""
    database = await Database.open(url_in(where) if isinstance(where, Path) else where)
    try:
        yield Store(database, router or Router(defaults={ENDPOINT: FOR_PROGRAMS}), Clock())
    finally:
        await database.close()


def url_in(folder: Path) -> str:
    """Where the SQLite file of a folder is."""
    return f"sqlite+aiosqlite:///{folder}/batchwatch.db"


def cloud_at(base_url: str, session: aiohttp.ClientSession, clock: Clock) -> LlamaCloud:
    """The upstream that is served at ``base_url``, with a budget that never runs out."""
    return LlamaCloud(
        base_url=base_url,
        api_key=API_KEY,
        key_source="LLAMA_CLOUD_API_KEY",
        session=session,
        budget=Budget(rate=UNLIMITED, burst=UNLIMITED, clock=clock),
        clock=clock,
    )


def poller_of(store: Store, cloud: LlamaCloud, clock: Clock) -> Poller:
    """What makes the passes."""
    return Poller(
        Watch(WATCH, "https://llamacloud.test", interval=15.0, lookback=LOOKBACK),
        cloud=cloud,
        batches=store.batches,
        watches=store.watches,
        clock=clock,
        metrics=Metrics(),
    )


def webhook_at(url: str, session: aiohttp.ClientSession, keys: Sequence[Key]) -> Webhook:
    """What posts to ``url``, signed with ``keys``, and tries each notification once."""
    clock = Clock()
    return Webhook(
        name=ENDPOINT,
        url=url,
        sender=Sender(session, clock),
        clock=clock,
        schedule=[0.0],
        timeout=15.0,
        concurrency=CONCURRENCY,
        keys=keys,
    )


def dispatcher_of(store: Store, *endpoints: Endpoint) -> Dispatcher:
    """What delivers."""
    return Dispatcher(
        store.outbox, endpoints, records=store.endpoints, clock=Clock(), metrics=Metrics()
    )
