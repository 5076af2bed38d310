"""From what was set to what runs: nothing that it makes knows settings."""

from __future__ import annotations

import base64
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import aiohttp

from batchwatch.deliver.guard import Guard
from batchwatch.deliver.handshake import Handshake
from batchwatch.deliver.signing import key_of
from batchwatch.deliver.webhook import Webhook, envelope
from batchwatch.domain.batch import EndpointName, WatchName
from batchwatch.domain.event import rfc3339
from batchwatch.domain.routing import FOR_PEOPLE, FOR_PROGRAMS, Route, Router
from batchwatch.domain.stuck import Patience
from batchwatch.domain.watch import Watch
from batchwatch.llamacloud.budget import Budget
from batchwatch.llamacloud.client import LlamaCloud, Scope
from batchwatch.settings import WebhookSettings
from batchwatch.settings.names import variable
from batchwatch.traces import OFF
from batchwatch.watching.hints import Follower
from batchwatch.watching.poller import Poller
from batchwatch.watching.settler import Settler
from batchwatch.watching.watcher import Watcher
from batchwatch.web.hooks import Door

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from batchwatch.clock import Clock
    from batchwatch.deliver.connections import Connections
    from batchwatch.deliver.endpoint import Endpoint
    from batchwatch.deliver.sender import Sender
    from batchwatch.deliver.signing import Key
    from batchwatch.deliver.webhook import Write
    from batchwatch.domain.batch import BatchId, Status
    from batchwatch.llamacloud.transport import RequestReport
    from batchwatch.metrics import Metrics
    from batchwatch.settings import EndpointSettings, Settings, WatchSettings
    from batchwatch.store import Store
    from batchwatch.traces import Traces


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


def doors_of(
    settings: Settings, want: Callable[[WatchName, BatchId, Status | None], None]
) -> list[Door]:
    """Where hints come in, for each watch; open if it has a secret that they are signed with."""
    return [
        Door(
            watch=WatchName(name),
            secrets=[one.get_secret_value().encode() for one in configured.hint_secret],
            setting=variable(("hint_secret",)),
            want=partial(want, WatchName(name)),
        )
        for name, configured in settings.watches.items()
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


def cloud_of(  # noqa: PLR0913  # what a daemon adds to the settings
    settings: WatchSettings,
    *,
    key_source: str,
    session: aiohttp.ClientSession,
    clock: Clock,
    on_request: Callable[[RequestReport], None] | None = None,
    permit: Callable[[], None] | None = None,
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
        permit=permit,
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
