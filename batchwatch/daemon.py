"""The composition root: what is built, in which order, and how it ends."""

from __future__ import annotations

import asyncio
import gc
import os
import secrets
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

from batchwatch import __version__
from batchwatch.deliver.connections import Connections
from batchwatch.deliver.dispatcher import SILENCE, Dispatcher
from batchwatch.domain.batch import WatchName
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
from batchwatch.pulse import BEAT, Pulse
from batchwatch.settings import SettingsError
from batchwatch.settings.review import expired, warnings
from batchwatch.settings.tls import tls_contexts
from batchwatch.site import site
from batchwatch.store import Database, Store, StoreError
from batchwatch.store.errors import StoreUnreachable
from batchwatch.store.leases import Leases
from batchwatch.store.notices import HeldBack, LookAt, Owed, Paused, PollNow, Resumed
from batchwatch.store.replicas import Replica
from batchwatch.traces import opened
from batchwatch.watching.holder import Holder
from batchwatch.watching.roster import Roster
from batchwatch.web.health import Troubles

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import aiohttp

    from batchwatch.clock import Clock
    from batchwatch.llamacloud.transport import RequestReport
    from batchwatch.settings import Settings
    from batchwatch.store import Outbox, Views
    from batchwatch.store.notices import Notice
    from batchwatch.traces import Traces
    from batchwatch.watching.watcher import Watcher

log = get_logger()

FIRST_PASSES_APART: Final = 0.1  # seconds
SERVER_STARTS: Final = 60.0  # seconds that one may take, at our own start
LOOK: Final = 1.0  # seconds between two tries
HAND_OVER: Final = 4.0  # seconds for what is just coming in, and to give back what is held
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
        traces = await stack.enter_async_context(opened(os.environ, version=__version__))
        metrics = Metrics()
        database = await stack.enter_async_context(_opened(settings, stop=stop, clock=clock))
        if database is None:
            return
        database.timed = lambda kind: metrics.store_time.labels(kind).time()
        pulse = Pulse(metrics)

        store = Store(database, router_of(settings), clock, traces=traces)
        this, leases = await stack.enter_async_context(_among_others(store, clock))

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
            leases=leases,
            # LlamaCloud is heard with each poll, which may be a long time from the next.
            silence=max(SILENCE, *(4 * one.poll_interval for one in settings.watches.values())),
        )

        holder = Holder(
            _makers(
                settings,
                session=await stack.enter_async_context(upstream_session()),
                store=store,
                clock=clock,
                metrics=metrics,
                dispatcher=dispatcher,
                leases=leases,
                traces=traces,
            ),
            leases=leases,
            clock=clock,
            metrics=metrics,
        )
        roster = Roster(
            [watch_of(*one) for one in settings.watches.items()],
            watchers=holder.watchers,
            this=this,
            replicas=store.replicas,
            clock=clock,
        )

        heartbeat = Heartbeat(
            dispatcher,
            views=store.views,
            records=store.endpoints,
            roster=roster,
            endpoints=settings.endpoints,
            interval=settings.heartbeat_interval,
        )
        pinger = Pinger(
            settings.heartbeat_url.get_secret_value() if settings.heartbeat_url else None,
            sender=connections.sender(guard_of(settings)),
            dispatcher=dispatcher,
            watches=store.watches,
            roster=roster,
        )

        url = await stack.enter_async_context(
            site(
                settings,
                store=store,
                clock=clock,
                dispatcher=dispatcher,
                roster=roster,
                want=holder.want,
                poll=holder.poll_now,
                metrics=metrics,
                troubles=partial(_troubles, holder, roster, store.views, dispatcher, pinger, pulse),
                keys=lambda: public_keys(endpoints, now=clock.now()),
                stopping=stop,
            )
        )
        log.info(
            "daemon.started",
            listen=url,
            store=database.where,
            watches=list(settings.watches),
            endpoints=[one.name for one in endpoints],
        )
        gc.freeze()  # what is there stays; to search it again and again is a tenth of all work
        async with asyncio.TaskGroup() as group:
            holding = group.create_task(holder.run(stop), name="hold")
            sharing = leases and group.create_task(
                leases.run(partial(_hear, store.outbox, holder, dispatcher)), name="replicas"
            )
            delivering = group.create_task(dispatcher.run(), name="deliver")
            # Imported once the first poll is on its way: APScheduler takes a while.
            from batchwatch.upkeep import Upkeep  # noqa: PLC0415

            upkeep = Upkeep(
                store,
                dispatcher=dispatcher,
                endpoints=settings.endpoints,
                watches=settings.watches,
                retention=timedelta(seconds=settings.retention),
                more=[
                    (BEAT, pulse.beat),
                    (TICK, heartbeat.beat),
                    (settings.heartbeat_ping_interval, pinger.ping),
                ],
            )
            upkeep.start()
            minding = [
                group.create_task(upkeep.mind_the_clock(), name="clock"),
                group.create_task(pulse.run(), name="pulse"),
            ]
            try:
                await stop.wait()
            finally:
                upkeep.stop()
                for task in minding:
                    task.cancel()
            log.info("daemon.stopping", grace_s=settings.shutdown_grace)
            dispatcher.stop()
            await asyncio.wait([holding], timeout=HAND_OVER)
            holding.cancel()  # at any moment: all that was seen is in the store, or seen again
            done, _ = await asyncio.wait([delivering], timeout=settings.shutdown_grace)
            if not done:
                log.warning("deliveries.interrupted", grace_s=settings.shutdown_grace)
                delivering.cancel()
            if sharing:  # to the end, or the others would take what is still being sent
                sharing.cancel()
    log.info("daemon.stopped")


@asynccontextmanager
async def _opened(
    settings: Settings, *, stop: asyncio.Event, clock: Clock
) -> AsyncIterator[Database | None]:
    """The store; a server of it that is started with us is waited for. None: we are to stop."""
    begun, waits, database = clock.monotonic(), False, None
    while database is None:
        try:
            database = await Database.open(settings.database_url.get_secret_value())
        except StoreUnreachable as error:
            if clock.monotonic() - begun > SERVER_STARTS:
                raise
            (log.debug if waits else log.warning)("store.awaited", reason=str(error))
            waits = True
            if await clock.wait(stop, LOOK):
                break
    try:
        yield database
    finally:
        if database is not None:
            await database.close()


def _makers(  # noqa: PLR0913  # all that a watch takes
    settings: Settings,
    *,
    session: aiohttp.ClientSession,
    store: Store,
    clock: Clock,
    metrics: Metrics,
    dispatcher: Dispatcher,
    leases: Leases | None,
    traces: Traces,
) -> dict[WatchName, Callable[[], Watcher]]:
    """What makes the watcher of each watch, whenever it is to be polled from here."""

    def make(number: int, name: str) -> Watcher:
        configured = settings.watches[name]
        return watcher_of(
            watch_of(name, configured),
            cloud=cloud_of(
                configured,
                key_source=key_source(settings, name),
                session=session,
                clock=clock,
                on_request=_counter(metrics, name, dispatcher),
                permit=partial(leases.check, WatchName(name)) if leases else None,
                traces=traces,
            ),
            store=store,
            clock=clock,
            metrics=metrics,
            first_after=number * FIRST_PASSES_APART,
        )

    return {
        WatchName(name): partial(make, number, name) for number, name in enumerate(settings.watches)
    }


def _hear(outbox: Outbox, holder: Holder, dispatcher: Dispatcher, notice: Notice | None) -> None:
    """Hand on what a replica has told, to whom it concerns."""
    match notice:
        case None:
            outbox.signal_all()
        case Owed():
            outbox.heard(notice.endpoints)
        case LookAt() | PollNow():
            holder.heard(notice)
        case HeldBack() | Resumed() | Paused():
            dispatcher.heard_of(notice)


@asynccontextmanager
async def _among_others(store: Store, clock: Clock) -> AsyncIterator[tuple[Replica, Leases | None]]:
    """This daemon, and its rights to poll where several share the database.

    Each write is held to these. Without, the store is ours alone: whoever
    held deliveries is gone.
    """
    host, now = socket.gethostname(), clock.now()
    name = f"{host}-{os.getpid()}-{secrets.token_hex(3)}"
    this = Replica(name, host, __version__, now, now, is_alive=True, in_flight=0)
    if not store.database.is_shared:
        await store.outbox.recover()
        yield this, None
        return
    leases = Leases(store.database, clock, replica=name, host=host, version=__version__)
    store.database.guard, store.database.failed = leases.guard, leases.doubt
    store.outbox.replica = name
    await leases.beat()
    try:
        yield this, leases
    finally:
        try:
            await leases.leave()
        except StoreError as error:
            log.warning("replica.kept", reason=str(error))  # until it is seen to be gone


async def _troubles(
    holder: Holder,
    roster: Roster,
    views: Views,
    dispatcher: Dispatcher,
    pinger: Pinger,
    pulse: Pulse,
) -> Troubles:
    """What is not well: in us, which is grave, and in others or for a moment, which is not."""
    grave = {}
    watched = roster.ours()
    if trouble := dispatcher.store_trouble or dispatcher.stall():
        grave["store"] = trouble
    try:
        await views.watches()
        watched = await roster.watched()
    except StoreError as error:
        grave["store"] = str(error)
    if holder.trouble:
        grave["leases"] = holder.trouble
    grave |= {f"watch {one.watch.name}": why for one in watched if (why := one.trouble_here)}
    ailing = {f"watch {one.watch.name}": why for one in watched if (why := one.trouble_elsewhere)}
    if pulse.silence:
        grave["upkeep"] = pulse.silence
    ailing |= {f"endpoint {name}": why for name, why in dispatcher.troubles().items()}
    if pinger.trouble:
        ailing["heartbeat"] = pinger.trouble
    if pulse.lateness:
        ailing["event loop"] = pulse.lateness
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
