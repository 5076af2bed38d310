"""The real parts of batchwatch, wired as the daemon wires them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from batchwatch.clock import Clock
from batchwatch.domain.batch import EndpointName, WatchName
from batchwatch.domain.routing import FOR_PROGRAMS, Router
from batchwatch.domain.watch import Watch
from batchwatch.llamacloud.budget import Budget
from batchwatch.llamacloud.client import LlamaCloud
from batchwatch.metrics import Metrics
from batchwatch.store import Database, Store
from batchwatch.watching.poller import Poller

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import aiohttp


WATCH: Final = WatchName("default")
ENDPOINT: Final = EndpointName("hook")
LOOKBACK: Final = timedelta(hours=24)
API_KEY: Final = "llx-simulator"
UNLIMITED: Final = 1e9  # requests per second: the budget does its work and never waits


@asynccontextmanager
async def open_store(folder: Path, router: Router | None = None) -> AsyncIterator[Store]:
    """The store in ``folder``, an SQLite file as the daemon has it; by default for one endpoint."""
    database = await Database.open(f"sqlite+aiosqlite:///{folder}/batchwatch.db")
    try:
        yield Store(database, router or Router(defaults={ENDPOINT: FOR_PROGRAMS}), Clock())
    finally:
        await database.close()


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
