"""Put world, faults, webhooks and routes together, and serve them on a port."""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter
from contextlib import AsyncExitStack, suppress
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Self

from aiohttp import web

from batchwatch.clock import Clock
from batchwatch.log import get_logger
from batchwatch.simulator.api.batches import BatchRoutes
from batchwatch.simulator.api.directories import DirectoryRoutes
from batchwatch.simulator.api.disturb import disturbing
from batchwatch.simulator.api.gate import RateLimit, guarding
from batchwatch.simulator.api.jobs import JobRoutes
from batchwatch.simulator.api.refusal import Refusal
from batchwatch.simulator.api.truth import TruthRoutes
from batchwatch.simulator.scenarios import Scenario, scenario_named
from batchwatch.simulator.timeline import Timeline
from batchwatch.simulator.trouble import Faults
from batchwatch.simulator.webhooks import Webhooks
from batchwatch.simulator.world import World

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware

DEFAULT_API_KEY: Final = "llx-simulator"
LARGEST_BODY: Final = 256 * 1024 * 1024  # bytes, of an upload
SHUTDOWN_TIMEOUT: Final = 1.0  # seconds, for answers that a fault still holds back

_log = get_logger()


class Simulator:
    """A simulated LlamaCloud, listening while it is entered.

    ``async with Simulator(scenario="hostile", seed=7) as sim`` gives ``sim.url`` for clients,
    ``sim.world`` and ``sim.faults`` for whoever sets the scene, and ``sim.requests``, the count
    of requests by method and route. Port 0 is any free one. With a clock that is moved by hand,
    all lives move with it.
    """

    def __init__(
        self,
        *,
        scenario: str | Scenario = "calm",
        seed: int = 0,
        speed: float = 1.0,
        clock: Clock | None = None,
        api_key: str = DEFAULT_API_KEY,
        address: tuple[str, int] = ("127.0.0.1", 0),
    ) -> None:
        chosen = scenario if isinstance(scenario, Scenario) else scenario_named(scenario)
        clock = clock or Clock()
        timeline = Timeline(clock, speed=speed, skew=chosen.skew)
        self.api_key = api_key
        self.url = ""  # known once it listens
        self.requests: Counter[str] = Counter()
        self._answered = 0
        self._asked = asyncio.Condition()
        self.world = World(chosen, seed=seed, timeline=timeline)
        self.faults = Faults(chosen, seed=seed, timeline=timeline)
        self.webhooks = Webhooks(self.world, faults=self.faults, clock=clock)
        self._clock = clock
        self._address = address
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Listen; OSError if the port is taken or the address is not this machine's."""
        host, port = self._address
        async with AsyncExitStack() as opening:
            runner = web.AppRunner(
                self._application(), access_log=None, shutdown_timeout=SHUTDOWN_TIMEOUT
            )
            await runner.setup()
            opening.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, host, port).start()
            opening.push_async_callback(_ended, asyncio.create_task(self.webhooks.run()))
            self.url = _url(host, runner.addresses[0][1])
            self._open = opening.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._open.aclose()

    async def asked(self, times: int) -> None:
        """Return when there were ``times`` requests in all and the last one was answered."""
        async with self._asked:
            await self._asked.wait_for(lambda: self._answered >= times)

    def _application(self) -> web.Application:
        """The API as one application, the truth beside it: no key and no fault for the truth."""
        world, timeline = self.world, self.world.timeline
        per_minute = world.scenario.requests_per_minute
        limit = RateLimit(per_minute, timeline) if per_minute is not None else None
        disturb = disturbing(self.faults, self._clock)
        api = web.Application(middlewares=[disturb, guarding(world, self.api_key, limit)])
        api.add_routes(BatchRoutes(world, self.webhooks).routes())
        api.add_routes(JobRoutes(world, "parse_v2").routes())
        api.add_routes(JobRoutes(world, "extract_v2").routes())
        api.add_routes(DirectoryRoutes(world).routes())

        app = web.Application(client_max_size=LARGEST_BODY, middlewares=[self._answering()])
        app.add_subapp("/api", api)
        truth = TruthRoutes(
            world, faults=self.faults, webhooks=self.webhooks, requests=self.requests
        )
        app.add_routes(truth.routes())

        async def date(_request: web.BaseRequest, answer: web.StreamResponse) -> None:
            shown = timeline.shown_epoch(timeline.now())
            answer.headers["Date"] = formatdate(shown, usegmt=True)

        app.on_response_prepare.append(date)
        return app

    def _answering(self) -> Middleware:
        """The outermost middleware: count each request, turn what is raised into an answer."""

        @web.middleware
        async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
            resource = request.match_info.route.resource
            route = resource.canonical if resource is not None else "unknown"
            self.requests[f"{request.method} {route}"] += 1
            try:
                return await handler(request)
            except Refusal as refusal:
                return refusal.answer()
            except web.HTTPError as error:
                return Refusal(error.status, HTTPStatus(error.status).phrase).answer()
            finally:
                async with self._asked:
                    self._answered += 1
                    self._asked.notify_all()

        return answer


async def serve(  # noqa: PLR0913  # the options of the command
    *,
    host: str,
    port: int,
    seed: int,
    speed: float,
    scenario: str,
    api_key: str,
    stop: asyncio.Event,
    clock: Clock,
) -> None:
    """Serve until ``stop``.

    Any host may be named, for there is nothing to protect but invented batches; whoever names one
    that others can reach is told so. Raises ValueError for an unknown scenario or an impossible
    speed, OSError for an address that cannot be had.
    """
    simulator = Simulator(
        scenario=scenario,
        seed=seed,
        speed=speed,
        clock=clock,
        api_key=api_key,
        address=(host, port),
    )
    async with simulator:
        if not _is_loopback(host):
            _log.warning("simulator.exposed", host=host)
        _log.info("simulator.started", url=simulator.url, scenario=scenario, seed=seed, speed=speed)
        await stop.wait()
    _log.info("simulator.stopped", requests=simulator.requests.total())


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
