"""The composition root: what is built, in which order, and how it ends."""

from __future__ import annotations

import asyncio
import base64
import gc
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import aiohttp

from batchwatch import __version__
from batchwatch.deliver.connections import Connections
from batchwatch.deliver.dispatcher import SILENCE, Dispatcher
from batchwatch.deliver.guard import Guard
from batchwatch.deliver.handshake import Handshake
from batchwatch.deliver.signing import key_of
from batchwatch.deliver.webhook import Webhook, envelope
from batchwatch.domain.batch import EndpointName, WatchName
from batchwatch.domain.event import rfc3339
from batchwatch.domain.routing import FOR_PEOPLE, FOR_PROGRAMS, Route, Router
from batchwatch.domain.stuck import Patience
from batchwatch.domain.watch import Watch
from batchwatch.heartbeat import TICK, Heartbeat, Pinger
from batchwatch.llamacloud.budget import Budget
from batchwatch.llamacloud.client import LlamaCloud, Scope
from batchwatch.llamacloud.errors import Unreachable
from batchwatch.log import get_logger
from batchwatch.metrics import Metrics
from batchwatch.pulse import BEAT, Pulse
from batchwatch.settings import SettingsError, WebhookSettings
from batchwatch.settings.names import variable
from batchwatch.settings.review import expired, warnings
from batchwatch.settings.tls import tls_contexts
from batchwatch.store import Database, Store, StoreError
from batchwatch.traces import OFF, opened
from batchwatch.watching.hints import Follower
from batchwatch.watching.poller import Poller
from batchwatch.watching.settler import Settler
from batchwatch.watching.watcher import Watcher
from batchwatch.web.hooks import Door, Hooks
from batchwatch.web.server import Troubles, serve

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from batchwatch.clock import Clock
    from batchwatch.deliver.endpoint import Endpoint
    from batchwatch.deliver.sender import Sender
    from batchwatch.deliver.signing import Key
    from batchwatch.deliver.webhook import Write
    from batchwatch.llamacloud.transport import RequestReport
    from batchwatch.settings import EndpointSettings, Settings, WatchSettings
    from batchwatch.store import Views
    from batchwatch.traces import Traces

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
        traces = await stack.enter_async_context(opened(os.environ, version=__version__))
        metrics = Metrics()
        database = await Database.open(settings.database_url.get_secret_value())
        stack.push_async_callback(database.close)
        database.timed = lambda kind: metrics.store_time.labels(kind).time()
        pulse = Pulse(metrics)

        store = Store(database, router_of(settings), clock, traces=traces)
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
                    traces=traces,
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

        url = await stack.enter_async_context(
            serve(
                settings.listen.host,
                settings.listen.port,
                token=settings.api_token.get_secret_value() if settings.api_token else None,
                metrics=metrics,
                troubles=lambda: _troubles(watchers, store.views, dispatcher, pinger, pulse),
                keys=lambda: public_keys(endpoints, now=clock.now()),
                hooks=Hooks(
                    doors_of(settings, watchers),
                    hints=store.hints,
                    clock=clock,
                    metrics=metrics,
                ),
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
                    (BEAT, pulse.beat),
                    (TICK, heartbeat.beat),
                    (settings.heartbeat_ping_interval, pinger.ping),
                ],
            )
            upkeep.start()
            minding = group.create_task(upkeep.mind_the_clock(), name="clock")
            feeling = group.create_task(pulse.run(), name="pulse")
            try:
                await stop.wait()
            finally:
                upkeep.stop()
                minding.cancel()
                feeling.cancel()
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
    watchers: Sequence[Watcher],
    views: Views,
    dispatcher: Dispatcher,
    pinger: Pinger,
    pulse: Pulse,
) -> Troubles:
    """What is not well: in us, which is grave, and in others or for a moment, which is not."""
    grave = {}
    if trouble := dispatcher.store_trouble or dispatcher.stall():
        grave["store"] = trouble
    try:
        await views.watches()
    except StoreError as error:
        grave["store"] = str(error)
    for watcher in watchers:
        if troubles := watcher.troubles():
            grave[f"watch {watcher.watch.name}"] = "; ".join(troubles)
    if pulse.silence:
        grave["upkeep"] = pulse.silence
    ailing = {f"endpoint {name}": why for name, why in dispatcher.troubles().items()}
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


# From what was set to what runs. Nothing below knows settings, and nothing in them knows this.


def router_of(settings: Settings) -> Router:
    """Who hears of what: the routes, and for endpoints without one what suits their kind."""
    return Router(
        defaults={
            EndpointName(name): FOR_PEOPLE if endpoint.type == "slack" else FOR_PROGRAMS
            for name, endpoint in settings.endpoints.items()
        },
        routes=[
            Route(
                endpoints=[EndpointName(name) for name in route.endpoints],
                events=route.events,
                watches=route.watches,
            )
            for route in settings.routes.values()
        ],
    )


def watch_of(name: str, settings: WatchSettings) -> Watch:
    """A watch as the domain knows it."""
    return Watch(
        name=WatchName(name),
        base_url=settings.base_url,
        interval=settings.poll_interval,
        lookback=timedelta(seconds=settings.lookback),
        notify_backlog=settings.notify_backlog,
        project_id=settings.project_id,
        organization_id=settings.organization_id,
        source_directory_id=settings.source_directory_id,
        settle_deadline=timedelta(seconds=settings.settle_deadline),
        file_names=settings.file_names,
        patience=Patience(
            pending=settings.stuck_after_pending,
            throttled=settings.stuck_after_throttled,
            running=settings.stuck_after_running,
            reminder=settings.stuck_reminder,
        ),
    )


def doors_of(settings: Settings, watchers: Sequence[Watcher]) -> list[Door]:
    """Where hints come in, for each watch; open if it has a secret that they are signed with."""
    return [
        Door(
            watch=watcher.watch.name,
            secrets=[
                one.get_secret_value().encode()
                for one in settings.watches[watcher.watch.name].hint_secret
            ],
            setting=variable(("hint_secret",)),
            want=watcher.follower.want,
        )
        for watcher in watchers
        if watcher.follower is not None
    ]


def watcher_of(
    watch: Watch,
    *,
    cloud: LlamaCloud,
    store: Store,
    clock: Clock,
    metrics: Metrics,
    first_after: float = 0.0,
) -> Watcher:
    """All that one watch needs, around the upstream API as it may use it."""
    poller, settler = asking_of(watch, cloud=cloud, store=store, clock=clock, metrics=metrics)
    return Watcher(
        poller,
        settler=settler,
        follower=Follower(poller, batches=store.batches, clock=clock, metrics=metrics),
        clock=clock,
        metrics=metrics,
        first_after=first_after,
    )


def asking_of(
    watch: Watch, *, cloud: LlamaCloud, store: Store, clock: Clock, metrics: Metrics
) -> tuple[Poller, Settler]:
    """What asks for the batches of a watch, and for the jobs behind them, when it is told to."""
    poller = Poller(
        watch,
        cloud=cloud,
        batches=store.batches,
        watches=store.watches,
        clock=clock,
        metrics=metrics,
    )
    settler = Settler(
        poller, batches=store.batches, names=store.names, clock=clock, metrics=metrics
    )
    return poller, settler


def cloud_of(
    settings: WatchSettings,
    *,
    key_source: str,
    session: aiohttp.ClientSession,
    clock: Clock,
    on_request: Callable[[RequestReport], None] | None = None,
    traces: Traces = OFF,
) -> LlamaCloud:
    """The upstream API as one watch may use it. Raises ValueError for a base URL that is none."""
    per_minute = settings.requests_per_minute
    return LlamaCloud(
        base_url=settings.base_url,
        api_key=settings.api_key.get_secret_value(),
        key_source=key_source,
        session=session,
        budget=Budget(rate=per_minute / 60, burst=max(1, per_minute / 4), clock=clock),
        clock=clock,
        scope=Scope(
            project_id=settings.project_id,
            organization_id=settings.organization_id,
            source_directory_id=settings.source_directory_id,
        ),
        on_request=on_request,
        traces=traces,
    )


def upstream_session() -> aiohttp.ClientSession:
    """A session for LlamaCloud: no cookies, and no password from a netrc in place of the key.

    With as many connections as are asked for: each watch bounds its own, and
    a few that hang must not use up those of the others.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar()
    )


def _make_room(hosts: int) -> None:
    """Have threads enough for names that do not resolve, and answers that take long to read.

    By default there are four more than processors: some hosts whose DNS is
    silent would keep all others from being looked up.
    """
    pool = ThreadPoolExecutor(THREADS + 2 * hosts, thread_name_prefix="batchwatch")
    asyncio.get_running_loop().set_default_executor(pool)


def key_source(settings: Settings, watch: str) -> str:
    """The variable that the watch's key came from, for whoever has to mend it."""
    for path in (("watches", watch, "api_key"), ("llama_cloud_api_key",)):
        if origin := settings.origins.get(path):
            return str(origin)
    return "LLAMA_CLOUD_API_KEY"


def guard_of(settings: EndpointSettings | Settings) -> Guard:
    """Where an endpoint may be, or what is set for all."""
    return Guard(public_only=settings.public_only, allowed=settings.allow_addresses)


def headers_of(settings: WebhookSettings) -> dict[str, str]:
    """What every request carries besides what batchwatch says itself."""
    headers = {name: value.get_secret_value() for name, value in settings.headers.items()}
    if settings.basic_auth:
        login = base64.b64encode(settings.basic_auth.get_secret_value().encode()).decode()
        headers["authorization"] = f"Basic {login}"
    if settings.bearer_token:
        headers["authorization"] = f"Bearer {settings.bearer_token.get_secret_value()}"
    return headers


def sender_of(
    settings: EndpointSettings, connections: Connections, *, tls: ssl.SSLContext | None
) -> Sender:
    """What reaches an endpoint, by its rules."""
    proxy = settings.proxy.get_secret_value() if settings.proxy else None
    return connections.sender(guard_of(settings), tls=tls, proxy=proxy)


def endpoint_of(name: str, settings: EndpointSettings, sender: Sender, clock: Clock) -> Endpoint:
    """An endpoint that can be sent to."""
    if settings.type == "slack":
        from batchwatch.deliver.slack import Slack  # noqa: PLC0415  # slow to import, and not for all

        return Slack(
            name=EndpointName(name),
            url=settings.url.get_secret_value(),
            sender=sender,
            schedule=settings.retry_schedule,
            timeout=settings.timeout,
            concurrency=settings.concurrency,
            rate=settings.rate_limit,
            final_statuses=frozenset(settings.final_statuses),
        )
    return Webhook(
        name=EndpointName(name),
        url=settings.url.get_secret_value(),
        sender=sender,
        clock=clock,
        schedule=settings.retry_schedule,
        timeout=settings.timeout,
        concurrency=settings.concurrency,
        rate=settings.rate_limit,
        final_statuses=frozenset(settings.final_statuses),
        keys=keys_of(settings),
        headers=headers_of(settings),
        write=_writer(settings.format),
        handshake=(
            Handshake(EndpointName(name), origin=settings.origin) if settings.handshake else None
        ),
    )


def keys_of(settings: EndpointSettings) -> list[Key]:
    """What signs for an endpoint, what has expired among it."""
    secrets = settings.secret if isinstance(settings, WebhookSettings) else ()
    return [key_of(one.text.get_secret_value(), one.expires_at) for one in secrets]


def public_keys(endpoints: Sequence[Endpoint], *, now: datetime) -> list[dict[str, str | None]]:
    """The public halves of what signs at ``now``, for whoever receives it."""
    return [
        {
            "endpoint": endpoint.name,
            "key": key.public,
            "expires_at": rfc3339(key.expires_at) if key.expires_at else None,
        }
        for endpoint in endpoints
        if isinstance(endpoint, Webhook)
        for key in endpoint.keys
        if key.public is not None and key.signs_at(now)
    ]


def _writer(format_: str) -> Write:
    if format_ == "standard":
        return envelope
    from batchwatch.deliver import cloudevents  # noqa: PLC0415  # not for all

    return cloudevents.structured if format_ == "cloudevents" else cloudevents.binary
