"""Events, the deliveries that they owe, and how these are sent again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from batchwatch.domain.delivery import State
from batchwatch.store import Wanted, WantedDeliveries, WantedEvents
from batchwatch.web import cursor
from batchwatch.web.api import answers
from batchwatch.web.api.operation import (
    PRINTABLE,
    Asked,
    Limit,
    Moment,
    Nothing,
    Text,
    given,
    operation,
)
from batchwatch.web.problem import Problem
from batchwatch.web.route import Role

if TYPE_CHECKING:
    from batchwatch.web.live import Live

AT_ONCE: Final = 1_000  # deliveries that one request has sent again

Type = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=100,
        pattern=f"^{PRINTABLE}+$",
        description="An event type, or all of a group, as in `batch.*`.",
    ),
]
Place = Annotated[int, Meta(ge=0, le=2**53 - 1)]  # what JSON can carry everywhere
StateName = Literal["waiting", "pending", "in_flight", "delivered", "dead", "cancelled"]
EndName = Literal["delivered", "dead", "cancelled"]


class QueryOfEvents(Struct, forbid_unknown_fields=True):
    """Which events; those that match all that is given."""

    type: Type | UnsetType = UNSET
    watch: Text | UnsetType = UNSET
    batch: Text | UnsetType = UNSET
    after: (
        Annotated[
            Place,
            Meta(
                description="Only those after this `seq`, the oldest first: for those who pull. "
                "0 is the beginning.",
            ),
        ]
        | UnsetType
    ) = UNSET
    limit: Limit = 50
    cursor: cursor.OfEvents | UnsetType = UNSET


class QueryOfDeliveries(Struct, forbid_unknown_fields=True):
    """Which deliveries; those that match all that is given."""

    endpoint: Text | UnsetType = UNSET
    state: StateName | UnsetType = UNSET
    type: Type | UnsetType = UNSET
    watch: Text | UnsetType = UNSET
    batch: Text | UnsetType = UNSET
    event: Text | UnsetType = UNSET
    limit: Limit = 50
    cursor: cursor.OfNumbers | UnsetType = UNSET


class Meant(Struct, forbid_unknown_fields=True):
    """Which deliveries to send again: those that have ended and match all that is given."""

    ids: Annotated[list[Place], Meta(min_length=1, max_length=AT_ONCE)] | UnsetType = UNSET
    endpoint: Text | UnsetType = UNSET
    state: EndName | UnsetType = UNSET
    type: Type | UnsetType = UNSET
    batch: Text | UnsetType = UNSET
    since: Annotated[Moment, Meta(description="When they came to be owed.")] | UnsetType = UNSET
    until: Moment | UnsetType = UNSET


SomeMeant = Annotated[Meant, Meta(extra_json_schema={"minProperties": 1})]


class Events:
    """What was told, and to whom."""

    def __init__(self, live: Live) -> None:
        self._live = live

    @operation("GET", "/events", tag="events")
    async def list_events(self, query: QueryOfEvents, _asked: Asked) -> answers.Page[answers.Event]:
        """List events, the newest first, or from a place on.

        With `after` they come in the order that they happened in. Ask again with the `next` of
        what you got, or, where that is null, with the `seq` of the last event that you have.
        Where some that came after that are no longer kept, the answer is 410.
        """
        fields = given(query)
        limit, after = fields.pop("limit"), fields.pop("after", None)
        place = fields.pop("cursor", None)  # goes on with what `after` began
        forward = after is not None if place is None else place[0] == ">"
        wanted = WantedEvents(**fields, oldest_first=forward)
        if place is not None:
            after = int(place[1:])
        elif after is not None:
            await refuse_the_removed(self._live, wanted, after)
        page = await self._live.store.pages.events(
            wanted,
            after=None if after is None else (after,),
            limit=limit,
        )
        end = None if page.after is None else f"{'>' if forward else '<'}{page.after[0]}"
        return answers.Page([event_of(row) for row in page.rows], end)

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
        fields = given(query)
        limit, after = fields.pop("limit"), cursor.of_numbers(fields.pop("cursor", None))
        page = await self._live.store.pages.deliveries(
            WantedDeliveries(**fields), after=after, limit=limit
        )
        return answers.Page([delivery_of(row) for row in page.rows], cursor.to_text(page.after))

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

    @operation("POST", "/deliveries/replay", tag="deliveries", role=Role.ADMIN, body=SomeMeant)
    async def replay_deliveries(self, query: Nothing, asked: Asked) -> answers.Replayed:
        """Send again all deliveries that match, a thousand at most.

        The oldest first, and each under its event's id. Without ids and a state those that were
        given up are meant.
        """
        del query
        fields = given(asked.body)
        if not fields:
            raise Problem(400, 'say which: {} is none; {"state": "dead"} is all given up')
        if not fields.keys() & {"ids", "state"}:
            fields["state"] = State.DEAD.value
        wanted = Wanted(**{**fields, "ids": tuple(fields.get("ids", ()))})
        found = await self._live.store.views.replayable(wanted, limit=AT_ONCE + 1)
        replayed = await self._live.replay(found[:AT_ONCE])
        return answers.Replayed(replayed, more=len(found) > AT_ONCE)

    async def _found(self, asked: Asked) -> dict[str, Any]:
        number = int(asked.path["delivery_id"])
        row = await self._live.store.pages.delivery(number)
        if row is None:
            raise Problem(404, f"there is no delivery {number}")
        return row


async def refuse_the_removed(live: Live, wanted: WantedEvents, after: int) -> None:
    """Whoever goes on from ``after`` must know if something has been removed there meanwhile.

    Not who begins with the first of all: that one asks for what there is.
    """
    last = await live.store.pages.removed_after(wanted, after) if after else None
    if last is not None:
        raise Problem(
            410,
            f"of what came after {after} some is no longer kept, up to {last}, for it is older "
            f"than BATCHWATCH_RETENTION; go on with after={last}, or with after=0 for all that "
            "there is",
        )


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
