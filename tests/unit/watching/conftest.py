"""A watch on a simulated LlamaCloud: real sockets, a real store, and time that leaps."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from batchwatch.domain.batch import EndpointName
from batchwatch.domain.delivery import Attempt, Settled, State
from batchwatch.domain.routing import FOR_PROGRAMS, Router
from batchwatch.domain.watch import Watch
from batchwatch.llamacloud.budget import Budget
from batchwatch.llamacloud.client import LlamaCloud, Scope
from batchwatch.llamacloud.errors import CloudError
from batchwatch.metrics import Metrics
from batchwatch.parts import upstream_session
from batchwatch.store import Batches, Database, Outbox, Store, Views, Watches
from batchwatch.watching.poller import Pass, Poller
from batchwatch.watching.settler import Settler
from batchwatch.watching.watcher import Watcher
from tests.support.builders import PATIENT, WATCH

if TYPE_CHECKING:
    from pathlib import Path

    from batchwatch.simulator import Simulator
    from tests.support.clock import ManualClock

HOOK = EndpointName("hook")


@dataclass
class Stand:
    """Everything around one poller; :meth:`restart` is a new daemon on the same store."""

    sim: Simulator
    clock: ManualClock
    watch: Watch
    poller: Poller
    settler: Settler
    watcher: Watcher
    batches: Batches
    watches: Watches
    outbox: Outbox
    views: Views
    cloud: LlamaCloud
    metrics: Metrics

    async def polls(self, times: int = 1, *, every: float = 1.0, bad: bool = False) -> list[Pass]:
        """Make passes, ``bad`` ones among them; before each, let ``every`` seconds go by."""
        done = []
        for _ in range(times):
            self.clock.advance(every)
            try:
                done.append(await self.poller.poll())
            except CloudError:
                if not bad:
                    raise
        return done

    async def told(self) -> list[dict[str, Any]]:
        """Take whatever the outbox owes, in order, as a receiver would get it."""
        import msgspec  # noqa: PLC0415

        events = []
        while claimed := await self.outbox.claim(HOOK, limit=500):
            events += [msgspec.json.decode(one.payload) for one in claimed]
            taken = [
                Settled(one, Attempt(self.clock.now(), 0.0), State.DELIVERED) for one in claimed
            ]
            await self.outbox.settle(taken)
        return events

    async def told_types(self) -> list[str]:
        """The types of what is owed."""
        return [event["type"] for event in await self.told()]


Standing = Callable[..., Any]


@pytest.fixture
def stand(tmp_path: Path) -> Standing:
    """Opens a stand for a simulator and a clock; the watch's fields may be given.

    Unless its patience is, nothing is ever stuck, however far time leaps.
    """

    @asynccontextmanager
    async def opened(sim: Simulator, clock: ManualClock, **more: Any) -> AsyncIterator[Stand]:
        async with AsyncExitStack() as stack:
            database = await Database.open(f"sqlite+aiosqlite:///{tmp_path / 'batchwatch.db'}")
            stack.push_async_callback(database.close)
            store = Store(database, Router({HOOK: FOR_PROGRAMS}), clock)
            batches, watches = store.batches, store.watches
            session = await stack.enter_async_context(upstream_session())
            metrics = Metrics()
            api_key, scope = more.pop("api_key", sim.api_key), more.pop("scope", Scope())
            budget = more.pop("budget", None) or Budget(rate=1000, burst=1000, clock=clock)
            watch = Watch(WATCH, sim.url, 15.0, timedelta(hours=24), patience=PATIENT)
            watch = replace(watch, **more)
            cloud = LlamaCloud(
                base_url=sim.url,
                api_key=api_key,
                key_source="LLAMA_CLOUD_API_KEY",
                session=session,
                budget=budget,
                clock=clock,
                scope=scope,
            )
            poller = Poller(
                watch, cloud=cloud, batches=batches, watches=watches, clock=clock, metrics=metrics
            )
            settler = Settler(
                poller,
                batches=batches,
                names=store.names,
                clock=clock,
                metrics=metrics,
            )
            watcher = Watcher(poller, settler=settler, clock=clock, metrics=metrics)
            yield Stand(
                sim, clock, watch, poller, settler, watcher, batches, watches, store.outbox,
                store.views, cloud, metrics,
            )  # fmt: skip

    return opened
