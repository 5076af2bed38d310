"""Events, the deliveries that they owe, and how these are sent again."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from batchwatch.domain.delivery import OPEN, State
from batchwatch.store import Wanted, WantedDeliveries, WantedEvents
from batchwatch.web.api import answers
from batchwatch.web.api.operation import Asked, Nothing, operation
from batchwatch.web.cursor import LARGEST, OF_NUMBERS, to_key, to_text
from batchwatch.web.problem import Problem
from batchwatch.web.route import Role

if TYPE_CHECKING:
    from batchwatch.web.live import Live

AT_ONCE: Final = 1_000  # deliveries that one request has sent again

Text = Annotated[str, Meta(min_length=1, max_length=200)]
Type = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=100,
        description="An event type, or all of a group, as in `batch.*`.",
    ),
]
Id = Annotated[int, Meta(ge=1, le=2**63 - 1)]
Moment = Annotated[datetime, Meta(tz=True)]
Limit = Annotated[int, Meta(ge=1, le=200, description="The most items of a page.")]
Cursor = Annotated[str, Meta(max_length=LARGEST, description="The `next` of the page before.")]
StateName = Literal["waiting", "pending", "in_flight", "delivered", "dead", "cancelled"]


class QueryOfEvents(Struct, forbid_unknown_fields=True):
    """Which events; those that match all that is given."""

    type: Type | None = None
    watch: Text | None = None
    batch: Text | None = None
    after: (
        Annotated[
            int,
            Meta(
                ge=0,
                le=2**63 - 1,
                description="Only those after this `seq`, the oldest first: for those who pull. "
                "0 is the beginning.",
            ),
        ]
        | None
    ) = None
    limit: Limit = 50
    cursor: Cursor | None = None


class QueryOfDeliveries(Struct, forbid_unknown_fields=True):
    """Which deliveries; those that match all that is given."""

    endpoint: Text | None = None
    state: StateName | None = None
    type: Type | None = None
    watch: Text | None = None
    batch: Text | None = None
    event: Text | None = None
    limit: Limit = 50
    cursor: Cursor | None = None


class Meant(Struct, forbid_unknown_fields=True):
    """Which deliveries to send again: those that have ended and match all that is given."""

    ids: Annotated[list[Id], Meta(max_length=AT_ONCE)] | None = None
    endpoint: Text | None = None
    state: StateName | None = None
    type: Type | None = None
    batch: Text | None = None
    since: Annotated[Moment, Meta(description="When they came to be owed.")] | None = None
    until: Moment | None = None


class Events:
    """What was told, and to whom."""

    def __init__(self, live: Live) -> None:
        self._live = live

    @operation("GET", "/events", tag="events")
    async def list_events(self, query: QueryOfEvents, _asked: Asked) -> answers.Page[answers.Event]:
        """List events, the newest first, or from a place on.

        With `after` they come in the order that they happened in. Ask again with the `next` of
        what you got, or, where that is null, with the `seq` of the last event that you have.
        """
        if query.after is not None and query.cursor is not None:
            raise Problem(400, "give a cursor or after, and not both")
        key = to_key(query.cursor, OF_EVENTS) if query.cursor else None
        forward = query.after is not None if key is None else key[1] == "forward"
        place = (query.after,) if query.after is not None else None if key is None else key[:1]
        page = await self._live.store.pages.events(
            WantedEvents(
                type=query.type, watch=query.watch, batch=query.batch, oldest_first=forward
            ),
            after=place,
            limit=query.limit,
        )
        after = page.after and (*page.after, "forward" if forward else "back")
        return answers.Page([event_of(row) for row in page.rows], to_text(after))

    @operation("GET", "/events/{event_id}", tag="events", finds=True)
    async def get_event(self, query: Nothing, asked: Asked) -> answers.WholeEvent:
        """Get one event, with its deliveries."""
        del query
        row = await self._live.store.pages.event(asked.path["event_id"])
        if row is None:
            raise Problem(404, f"there is no event {asked.path['event_id']}")
        return answers.WholeEvent(
            **msgspec.structs.asdict(event_of(row)),
            deliveries=[delivery_of(one) for one in row["deliveries"]],
        )

    @operation("GET", "/deliveries", tag="deliveries")
    async def list_deliveries(
        self, query: QueryOfDeliveries, _asked: Asked
    ) -> answers.Page[answers.Delivery]:
        """List deliveries, the newest first."""
        page = await self._live.store.pages.deliveries(
            WantedDeliveries(
                endpoint=query.endpoint,
                state=query.state,
                type=query.type,
                watch=query.watch,
                batch=query.batch,
                event=query.event,
            ),
            after=to_key(query.cursor, OF_NUMBERS),
            limit=query.limit,
        )
        return answers.Page([delivery_of(row) for row in page.rows], to_text(page.after))

    @operation("GET", "/deliveries/{delivery_id}", tag="deliveries", finds=True)
    async def get_delivery(self, query: Nothing, asked: Asked) -> answers.WholeDelivery:
        """Get one delivery, with every try of it."""
        del query
        row = await self._found(asked)
        return answers.WholeDelivery(
            **msgspec.structs.asdict(delivery_of(row)),
            tries=[
                answers.Attempt(
                    number=one["number"],
                    started_at=one["started_at"],
                    duration=one["duration_ms"] / 1000,
                    status_code=one["status_code"],
                    failure=one["failure"],
                    detail=one["detail"],
                    response=one["response"],
                )
                for one in row["tries"]
            ],
        )

    @operation(
        "POST", "/deliveries/{delivery_id}/replay", tag="deliveries", role=Role.ADMIN, finds=True
    )
    async def replay_delivery(self, query: Nothing, asked: Asked) -> answers.Replayed:
        """Send one delivery again.

        It keeps its event's id. One that is still being tried is left alone.
        """
        del query
        row = await self._found(asked)
        replayed = await self._live.replay([row["id"]])
        return answers.Replayed(replayed, more=False)

    @operation("POST", "/deliveries/replay", tag="deliveries", role=Role.ADMIN, body=Meant)
    async def replay_deliveries(self, query: Nothing, asked: Asked) -> answers.Replayed:
        """Send again all deliveries that match, a thousand at most.

        The oldest first, and each under its event's id. Without ids and a state those that were
        given up are meant.
        """
        del query
        meant: Meant = asked.body
        fields = msgspec.structs.asdict(meant)
        if all(one is None for one in fields.values()):
            raise Problem(400, 'say which: {} is none; {"state": "dead"} is all given up')
        state = meant.state or (None if meant.ids else State.DEAD.value)
        if state in OPEN:
            raise Problem(400, f"state {state}: what is still being tried is not sent again")
        found = await self._live.store.views.replayable(
            Wanted(**{**fields, "ids": tuple(meant.ids or ()), "state": state}), limit=AT_ONCE + 1
        )
        replayed = await self._live.replay(found[:AT_ONCE])
        return answers.Replayed(replayed, more=len(found) > AT_ONCE)

    async def _found(self, asked: Asked) -> dict[str, Any]:
        given = asked.path["delivery_id"]
        number = int(given) if given.isascii() and given.isdigit() and len(given) < 19 else 0
        row = await self._live.store.pages.delivery(number)
        if row is None:
            raise Problem(404, f"there is no delivery {given}")
        return row


OF_EVENTS: Final = (int, str)


def event_of(row: dict[str, Any]) -> answers.Event:
    """A row of events as it is answered."""
    return answers.Event(
        id=row["id"],
        seq=row["seq"],
        type=row["type"],
        watch=row["watch"] or None,
        batch_id=row["batch_id"],
        occurred_at=row["occurred_at"],
        payload=msgspec.json.decode(row["payload"]),
    )


def delivery_of(row: dict[str, Any]) -> answers.Delivery:
    """A row of deliveries as it is answered."""
    duration = row["duration_ms"]
    return answers.Delivery(
        **{
            name: row[name]
            for name in (
                "id", "event_id", "type", "batch_id", "endpoint", "state", "attempts",
                "occurred_at", "created_at", "settled_at", "reason", "tried_at", "status_code",
                "failure", "detail",
            )
        },
        watch=row["watch"] or None,
        duration=None if duration is None else duration / 1000,
    )  # fmt: skip
