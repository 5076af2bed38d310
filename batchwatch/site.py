"""From the daemon's parts to what it serves: the routes of all parts of the web, and who may."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchwatch.desk import Desk
from batchwatch.domain.batch import EndpointName, WatchName
from batchwatch.parts import doors_of
from batchwatch.settings import SettingsError
from batchwatch.web.access import Access
from batchwatch.web.api.interface import Api
from batchwatch.web.dashboard.pages import Dashboard
from batchwatch.web.feed import Feed
from batchwatch.web.health import Health
from batchwatch.web.hooks import Hooks
from batchwatch.web.live import Live, WatchNow
from batchwatch.web.login import Login
from batchwatch.web.problem import Problem
from batchwatch.web.server import serve

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from batchwatch.clock import Clock
    from batchwatch.deliver.dispatcher import Dispatcher
    from batchwatch.domain.batch import BatchId, Status
    from batchwatch.domain.delivery import Attempt
    from batchwatch.metrics import Metrics
    from batchwatch.settings import Settings
    from batchwatch.store import Store
    from batchwatch.watching.roster import Roster, Watched
    from batchwatch.web.health import Troubles


def site(  # noqa: PLR0913  # the parts that the web speaks to
    settings: Settings,
    *,
    store: Store,
    clock: Clock,
    dispatcher: Dispatcher,
    roster: Roster,
    want: Callable[[WatchName, BatchId, Status | None], None],
    poll: Callable[[WatchName], None],
    metrics: Metrics,
    troubles: Callable[[], Awaitable[Troubles]],
    keys: Callable[[], Sequence[Mapping[str, str | None]]],
    stopping: asyncio.Event,
) -> AbstractAsyncContextManager[str]:
    """Serve all of it for as long as the context is held; gives the URL.

    Raises :class:`~batchwatch.web.server.ListenError` when it is entered.
    """
    access = access_of(settings, clock=clock)
    live = live_of(
        settings,
        store=store,
        clock=clock,
        dispatcher=dispatcher,
        roster=roster,
        poll=poll,
        troubles=troubles,
        stopping=stopping,
    )
    feed = Feed(live)
    api = Api(live, besides=[feed.operation], prefix=access.prefix)
    dashboard = Dashboard(live, api, access=access)
    parts = (
        Health(metrics=metrics, troubles=troubles, keys=keys, for_people=dashboard.overview),
        Hooks(doors_of(settings, want), hints=store.hints, clock=clock, metrics=metrics),
        Login(access, render=dashboard.render_login, clock=clock),
        feed,
        api,
        dashboard,
    )
    return serve(
        settings.listen.host,
        settings.listen.port,
        [route for part in parts for route in part.routes()],
        access=access,
        metrics=metrics,
        explain=dashboard.explain,
    )


def live_of(  # noqa: PLR0913  # the parts that the web speaks to
    settings: Settings,
    *,
    store: Store,
    clock: Clock,
    dispatcher: Dispatcher,
    roster: Roster,
    poll: Callable[[WatchName], None],
    troubles: Callable[[], Awaitable[Troubles]],
    stopping: asyncio.Event,
) -> Live:
    """What the web is given of the running daemon."""
    desk = Desk(settings, store, clock)

    async def watches() -> list[WatchNow]:
        return [
            _now(one, takes_hints=bool(settings.watches[one.watch.name].hint_secret))
            for one in await roster.watched()
        ]

    async def endpoints() -> list[dict[str, Any]]:
        ailing = dispatcher.troubles()
        return [
            row | {"trouble": ailing.get(EndpointName(row["endpoint"]))}
            for row in await desk.endpoints()
        ]

    async def replay(ids: Sequence[int]) -> int:
        done = await desk.replay(ids)
        await dispatcher.reload()  # the lanes look again
        return done

    async def enable(name: str) -> bool:
        changed = await desk.enable(name)
        await dispatcher.reload()
        return changed

    async def disable(name: str) -> bool:
        changed = await desk.disable(name)
        await dispatcher.reload()
        return changed

    async def test(name: str) -> Attempt:
        try:
            return await desk.test(name)
        except SettingsError as error:  # a file for TLS that was well when the daemon started
            said = "; ".join(f"{one.name}: {one.given}. {one.fix}" for one in error.problems)
            raise Problem(409, said) from error

    return Live(
        store=store,
        clock=clock,
        started_at=clock.now(),
        stopping=stopping,
        is_shared=store.database.is_shared,
        watches=watches,
        fleet=roster.fleet,
        endpoints=endpoints,
        troubles=troubles,
        replay=replay,
        enable=enable,
        disable=disable,
        test=test,
        poll=lambda name: poll(WatchName(name)),
    )


def access_of(settings: Settings, *, clock: Clock) -> Access:
    """Who may ask for what."""
    return Access(
        token=settings.api_token.get_secret_value() if settings.api_token else None,
        read_token=settings.read_token.get_secret_value() if settings.read_token else None,
        anyone=settings.allow_anyone,
        prefix=settings.path_prefix or "",
        proxies=settings.trusted_proxies,
        clock=clock,
    )


def _now(watched: Watched, *, takes_hints: bool) -> WatchNow:
    watch, health = watched.watch, watched.health
    return WatchNow(
        name=watch.name,
        base_url=watch.base_url,
        project_id=watch.project_id,
        organization_id=watch.organization_id,
        source_directory_id=watch.source_directory_id,
        interval=watch.interval,
        holder=watched.holder,
        silence=health.silence,
        allowance=health.allowance,
        troubles=health.troubles,
        takes_hints=takes_hints,
    )
