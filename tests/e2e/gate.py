"""What stands between replicas and LlamaCloud, and notes who asks, and whether it may."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, NamedTuple, Self

import aiohttp
import asyncpg
from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchwatch.simulator import Simulator


class Asked(NamedTuple):
    """One request of a replica, and who held the watch at that moment by the database's word."""

    at: float  # monotonic
    watch: str
    replica: str
    holder: str | None  # None: the database was not there to be asked
    token: int


class Gate:
    """Hands on what comes under ``/WATCH``; each replica asks by a key that is its name."""

    def __init__(self, simulators: Mapping[str, Simulator], database: str) -> None:
        self.asked: list[Asked] = []
        self._simulators = simulators
        self._database = database
        self._connection: asyncpg.Connection | None = None
        self._turn = asyncio.Lock()
        self._came = asyncio.Condition()
        self.url = ""

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession()
        app = web.Application()
        app.router.add_route("GET", "/{watch}/{path:.*}", self._hand_on)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()
        await self._session.close()
        if self._connection is not None:
            self._connection.terminate()

    async def _hand_on(self, request: web.Request) -> web.StreamResponse:
        watch, path = request.match_info["watch"], request.match_info["path"]
        replica = request.headers["Authorization"].removeprefix("Bearer ")
        holder, token = await self._holder(watch)
        async with self._came:
            self.asked.append(Asked(time.monotonic(), watch, replica, holder, token))
            self._came.notify_all()
        simulator = self._simulators[watch]
        async with self._session.get(
            f"{simulator.url}/{path}",
            params=request.query,
            headers={"Authorization": f"Bearer {simulator.api_key}"},
        ) as answer:
            body = await answer.read()
            return web.Response(body=body, status=answer.status, content_type=answer.content_type)

    async def _holder(self, watch: str) -> tuple[str | None, int]:
        async with self._turn:
            try:
                if self._connection is None or self._connection.is_closed():
                    self._connection = await asyncpg.connect(self._database)
                row = await self._connection.fetchrow(
                    "SELECT holder, token FROM leases WHERE watch = $1", watch
                )
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                return None, 0
        return (row["holder"], row["token"]) if row else (None, 0)

    async def until(self, watch: str, *, not_by: str = "", after: float = 0.0) -> Asked:
        """Wait until somebody asks for ``watch``; the first such request."""

        def found() -> Asked | None:
            return next(
                (
                    one
                    for one in self.asked
                    if one.watch == watch and one.at > after and one.replica != not_by
                ),
                None,
            )

        async with self._came:
            await self._came.wait_for(lambda: found() is not None)
        one = found()
        assert one is not None
        return one
