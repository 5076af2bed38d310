"""Deliveries and events: what was told, to whom, and how that went."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from msgspec import UNSET
from msgspec.structs import replace

from batchwatch.domain.event import EVENT_TYPES, MEANINGS
from batchwatch.web.api import answers
from batchwatch.web.api.events import QueryOfDeliveries, QueryOfEvents
from batchwatch.web.api.operation import Asked, Nothing
from batchwatch.web.dashboard.export import exported
from batchwatch.web.dashboard.filters import filters, here

if TYPE_CHECKING:
    from aiohttp import web

    from batchwatch.web.api.interface import Api
    from batchwatch.web.dashboard.frame import Frame
    from batchwatch.web.live import Live


class OutboxPages:
    """The lists of both, and each one."""

    def __init__(self, frame: Frame, live: Live, api: Api) -> None:
        self._frame = frame
        self._live = live
        self._api = api

    async def deliveries(self, request: web.Request) -> web.StreamResponse:
        """The deliveries that are asked for."""
        query = filters(request, QueryOfDeliveries)
        if "format" in request.query:

            async def ask(cursor: str | None) -> answers.Page[answers.Delivery]:
                wanted = replace(query, cursor=cursor or UNSET, limit=200)
                return await self._api.events.list_deliveries(wanted, Asked({}))

            now = self._live.clock.now()
            return await exported(request, "deliveries", answers.Delivery, ask, now=now)
        return self._frame.page(
            request,
            "deliveries.html",
            query=query,
            page=await self._api.events.list_deliveries(query, Asked({})),
            here=here(request, self._frame.link("deliveries")),
            endpoints=[one["endpoint"] for one in await self._live.endpoints()],
            types=EVENT_TYPES,
        )

    async def delivery(self, request: web.Request) -> web.StreamResponse:
        """One delivery, with its tries and what is sent."""
        asked = Asked(dict(request.match_info))
        delivery = await self._api.events.get_delivery(Nothing(), asked)
        event = await self._api.events.get_event(Nothing(), Asked({"event_id": delivery.event_id}))
        return self._frame.page(
            request,
            "delivery.html",
            delivery=delivery,
            event=event,
            payload=pretty(event.payload),
        )

    async def events(self, request: web.Request) -> web.StreamResponse:
        """The events that are asked for."""
        query = filters(request, QueryOfEvents)
        if "format" in request.query:

            async def ask(cursor: str | None) -> answers.Page[answers.Event]:
                wanted = replace(query, cursor=cursor or UNSET, limit=200)
                return await self._api.events.list_events(wanted, Asked({}))

            now = self._live.clock.now()
            return await exported(request, "events", answers.Event, ask, now=now)
        return self._frame.page(
            request,
            "events.html",
            query=query,
            page=await self._api.events.list_events(query, Asked({})),
            here=here(request, self._frame.link("events")),
            watches=await self._live.watches(),
            types=EVENT_TYPES,
        )

    async def event(self, request: web.Request) -> web.StreamResponse:
        """One event: what is sent of it, and to whom."""
        event = await self._api.events.get_event(Nothing(), Asked(dict(request.match_info)))
        return self._frame.page(
            request,
            "event.html",
            event=event,
            meaning=MEANINGS.get(event.type, "").replace("`", ""),
            payload=pretty(event.payload),
        )


def pretty(payload: Any) -> str:
    """JSON for eyes."""
    return json.dumps(payload, indent=2, ensure_ascii=False)
