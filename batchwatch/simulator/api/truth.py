"""/sim: the truth and the switches, for tests, demos and benchmarks. No key, no faults."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from batchwatch.simulator.api.refusal import Refusal, json_answer, not_found
from batchwatch.simulator.faults import Switch
from batchwatch.simulator.history import history, seen

if TYPE_CHECKING:
    from collections import Counter

    from batchwatch.simulator.trouble import Faults
    from batchwatch.simulator.webhooks import Webhooks
    from batchwatch.simulator.world import World


class TruthRoutes:
    """What the simulator says of itself."""

    def __init__(
        self, world: World, *, faults: Faults, webhooks: Webhooks, requests: Counter[str]
    ) -> None:
        self._world = world
        self._faults = faults
        self._webhooks = webhooks
        self._requests = requests

    def routes(self) -> list[web.RouteDef]:
        """What to add to the application."""
        return [
            web.get("/sim/history", self.history),
            web.get("/sim/seen", self.seen),
            web.get("/sim/stats", self.stats),
            web.get("/sim/faults", self.faults),
            web.post("/sim/faults", self.switch_on),
            web.delete("/sim/faults", self.clear),
            web.delete("/sim/batches/{id}", self.vanish),
        ]

    async def history(self, _request: web.Request) -> web.Response:
        """Everything that truly happened."""
        return json_answer({"batches": history(self._world)})

    async def seen(self, _request: web.Request) -> web.Response:
        """What of it clients were shown."""
        return json_answer({"batches": seen(self._world)})

    async def stats(self, _request: web.Request) -> web.Response:
        """Counts of requests by route, of faults by kind, and of upstream webhooks."""
        return json_answer(
            {
                "requests": self._requests,
                "faults": self._faults.injected,
                "webhooks": self._webhooks.counted,
            }
        )

    async def faults(self, _request: web.Request) -> web.Response:
        """What is switched on, beside the scenario's own faults."""
        return json_answer({"faults": self._faults.switched_on()})

    async def switch_on(self, request: web.Request) -> web.Response:
        """Switch a fault on, as :class:`Switch` describes it."""
        try:
            switch = msgspec.json.decode(await request.read(), type=Switch)
        except msgspec.DecodeError as error:
            raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error
        self._faults.switch_on(switch)
        return await self.faults(request)

    async def clear(self, request: web.Request) -> web.Response:
        """End all faults, those of the scenario included."""
        self._faults.clear()
        return await self.faults(request)

    async def vanish(self, request: web.Request) -> web.Response:
        """Make a batch unfindable."""
        batch_id = request.match_info["id"]
        batch = self._world.batch(batch_id)
        if batch is None:
            raise not_found("Batch", batch_id)
        self._world.vanish(batch)
        return web.Response(status=HTTPStatus.NO_CONTENT)
