"""The composition root: what is built, in which order, and how it ends."""

from __future__ import annotations

import asyncio
import gc
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Final

from batchwatch.deliver.connections import Connections
from batchwatch.deliver.dispatcher import SILENCE, Dispatcher
from batchwatch.heartbeat import TICK, Heartbeat, Pinger
from batchwatch.llamacloud.errors import Unreachable
from batchwatch.log import get_logger
from batchwatch.metrics import Metrics
from batchwatch.parts import (
    cloud_of,
    endpoint_of,
    guard_of,
    key_source,
    public_keys,
    router_of,
    sender_of,
    upstream_session,
    watch_of,
    watcher_of,
)
from batchwatch.settings import SettingsError
from batchwatch.settings.review import expired, warnings
from batchwatch.settings.tls import tls_contexts
from batchwatch.site import access_of, live_of, routes_of
from batchwatch.store import Database, Store, StoreError
from batchwatch.web.api.interface import Api
from batchwatch.web.dashboard.pages import Dashboard
from batchwatch.web.health import Troubles
from batchwatch.web.server import serve

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from batchwatch.clock import Clock
    from batchwatch.llamacloud.transport import RequestReport
    from batchwatch.settings import Settings
    from batchwatch.store import Views
    from batchwatch.watching.watcher import Watcher

log = get_logger()

FIRST_PASSES_APART: Final = 0.1  # seconds
THREADS: Final = 8  # besides two for each host; they are made when they are needed


async def run(settings: Settings, *, stop: asyncio.Event, clock: Clock) -> None:
    """Wire every part and run it until ``stop``.

    One straight line on purpose: each step needs those above it, and
    teardown is the same list read upwards.

    Raises SettingsError, StoreError, ListenError: what is wrong and how to mend it.
    """
    if problems := list(expired(settings, now=clock.now())):
        raise SettingsError(problems)
    contexts = tls_contexts(settings)
    for text in warnings(settings):
        log.warning("settings.doubted", reason=text)
    _make_room(len(settings.watches) + len(settings.endpoints))
    async with AsyncExitStack() as stack:
        metrics = Metrics()
        database = await Database.open(settings.database_url.get_secret_value())
        stack.push_async_callback(database.close)

        store = Store(database, router_of(settings), clock)
        # The store is ours alone: whoever held deliveries is gone.
        await store.outbox.recover()

        connections = await stack.enter_async_context(Connections(clock))
        endpoints = [
            endpoint_of(
                name,
                configured,
                sender_of(configured, connections, tls=contexts.get(name)),
                clock,
            )
            for name, configured in settings.endpoints.items()
        ]
        dispatcher = Dispatcher(
            store.outbox,
            endpoints,
            records=store.endpoints,
            clock=clock,
            metrics=metrics,
            # LlamaCloud is heard with each poll, which may be a long time from the next.
            silence=max(SILENCE, *(4 * one.poll_interval for one in settings.watches.values())),
        )

        upstream = await stack.enter_async_context(upstream_session())
        watchers = [
            watcher_of(
                watch_of(name, configured),
                cloud=cloud_of(
                    configured,
                    key_source=key_source(settings, name),
                    session=upstream,
                    clock=clock,
                    on_request=_counter(metrics, name, dispatcher),
                ),
                store=store,
                clock=clock,
                metrics=metrics,
                first_after=number * FIRST_PASSES_APART,
            )
            for number, (name, configured) in enumerate(settings.watches.items())
        ]

        heartbeat = Heartbeat(
            dispatcher,
            views=store.views,
            records=store.endpoints,
            watchers=watchers,
            endpoints=settings.endpoints,
            interval=settings.heartbeat_interval,
        )
        pinger = Pinger(
            settings.heartbeat_url.get_secret_value() if settings.heartbeat_url else None,
            sender=connections.sender(guard_of(settings)),
            dispatcher=dispatcher,
            watches=store.watches,
            watchers=watchers,
        )

        live = live_of(
            settings,
            store=store,
            clock=clock,
            dispatcher=dispatcher,
            watchers=watchers,
            troubles=partial(_troubles, watchers, store.views, dispatcher, pinger),
            stopping=stop,
        )
        api = Api(live)
        dashboard = Dashboard(live, api)
        routes = routes_of(
            live,
            settings,
            api=api,
            dashboard=dashboard,
            watchers=watchers,
            metrics=metrics,
            keys=lambda: public_keys(endpoints, now=clock.now()),
        )
        url = await stack.enter_async_context(
            serve(
                settings.listen.host,
                settings.listen.port,
                routes,
                access=access_of(settings),
                explain=dashboard.explain,
            )
        )
        log.info(
            "daemon.started",
            listen=url,
            store=database.where,
            watches=[one.watch.name for one in watchers],
            endpoints=[one.name for one in endpoints],
        )
        gc.freeze()  # what is there stays; to search it again and again is a tenth of all work
        async with asyncio.TaskGroup() as group:
            watching = [
                group.create_task(watcher.run(stop), name=f"watch.{watcher.watch.name}")
                for watcher in watchers
            ]
            delivering = group.create_task(dispatcher.run(), name="deliver")
            # Imported once the first poll is on its way: APScheduler takes a while.
            from batchwatch.upkeep import Upkeep  # noqa: PLC0415

            upkeep = Upkeep(
                store,
                dispatcher=dispatcher,
                endpoints=settings.endpoints,
                watches=settings.watches,
                more=[
                    (TICK, heartbeat.beat),
                    (settings.heartbeat_ping_interval, pinger.ping),
                ],
            )
            upkeep.start()
            minding = group.create_task(upkeep.mind_the_clock(), name="clock")
            try:
                await stop.wait()
            finally:
                upkeep.stop()
                minding.cancel()
            log.info("daemon.stopping", grace_s=settings.shutdown_grace)
            for task in watching:
                task.cancel()  # at any moment: all that they saw is in the store, or seen again
            dispatcher.stop()
            done, _ = await asyncio.wait([delivering], timeout=settings.shutdown_grace)
            if not done:
                log.warning("deliveries.interrupted", grace_s=settings.shutdown_grace)
                delivering.cancel()
    log.info("daemon.stopped")


async def _troubles(
    watchers: Sequence[Watcher], views: Views, dispatcher: Dispatcher, pinger: Pinger
) -> Troubles:
    """Which parts are not well, and why."""
    grave = {}
    try:
        await views.watches()
    except StoreError as error:
        grave["store"] = str(error)
    for watcher in watchers:
        if troubles := watcher.troubles():
            grave[f"watch {watcher.watch.name}"] = "; ".join(troubles)
    if dispatcher.store_trouble:
        grave.setdefault("store", dispatcher.store_trouble)
    ailing = {f"endpoint {name}": why for name, why in dispatcher.troubles().items()}
    if pinger.trouble:
        ailing["heartbeat"] = pinger.trouble
    return Troubles(grave=grave, ailing=ailing)


def _counter(
    metrics: Metrics, watch: str, dispatcher: Dispatcher
) -> Callable[[RequestReport], None]:
    def count(report: RequestReport) -> None:
        metrics.requests.labels(watch, report.outcome).inc()
        if report.outcome != Unreachable.kind:
            dispatcher.heard()  # so that a receiver's silence is not our network's

    return count


def _make_room(hosts: int) -> None:
    """Have threads enough for names that do not resolve, and answers that take long to read.

    By default there are four more than processors: some hosts whose DNS is
    silent would keep all others from being looked up.
    """
    pool = ThreadPoolExecutor(THREADS + 2 * hosts, thread_name_prefix="batchwatch")
    asyncio.get_running_loop().set_default_executor(pool)
