"""What the API answers, field by field: the interface that programs build on.

The OpenAPI document is made from these types, so what is written here is
what is promised. Times are RFC 3339 in UTC, durations are seconds.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

from msgspec import Meta, Struct

if TYPE_CHECKING:
    from batchwatch.store.replicas import Fleet, Holding

T = TypeVar("T")

Count = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]


class Problem(Struct):
    """What went wrong (RFC 9457)."""

    title: Annotated[str, Meta(description="The status in words.")]
    status: Annotated[int, Meta(ge=400, le=599)]
    detail: Annotated[str, Meta(description="Why, and what to do about it.")]


class Page(Struct, Generic[T]):
    """Some of a list, in its order."""

    items: list[T]
    next: Annotated[
        str | None,
        Meta(
            description="Give it as `cursor` to get the next page; null if there is none. A page "
            "that looked at enough rows without finding as many as asked for has one, too."
        ),
    ]


class Expected(Struct):
    """What like batches took in all, and when this one should end by that."""

    median: Seconds
    low: Annotated[float, Meta(ge=0, description="Nine in ten took longer.")]
    high: Annotated[float, Meta(ge=0, description="Nine in ten took no longer.")]
    samples: Count
    ends_at: datetime
    overdue: Annotated[bool, Meta(description="Whether it takes longer than nine in ten.")]


class Stuck(Struct):
    """That a batch stays in its status for longer than it should."""

    since: datetime
    rule: Annotated[str, Meta(description="`status`: of its status; `history`: of its life.")]
    limit: Seconds
    reminders: Annotated[
        int, Meta(ge=0, description="How often that was told, the first included.")
    ]


class Batch(Struct):
    """A batch as last seen."""

    watch: str
    id: str
    status: str
    previous_status: str | None
    active: Annotated[bool, Meta(description="Whether it is looked at on every poll.")]
    project_id: str | None
    source_directory_id: str | None
    job_type: str | None
    configuration_id: str | None
    created_at: datetime | None
    updated_at: datetime | None
    first_seen_at: datetime
    changed_at: Annotated[datetime, Meta(description="When this status was first observed.")]
    vanished_at: datetime | None
    durations: Annotated[
        dict[str, float], Meta(description="Seconds in each status that it has left.")
    ]
    file_count: int | None
    results: Annotated[
        str | None,
        Meta(description="How far its results are: awaited, pending, complete, none, given_up."),
    ]
    settling: Annotated[
        str | None,
        Meta(
            description="How far the jobs of its files are: open, jobless, checked, settled, "
            "given_up."
        ),
    ]
    expected: Expected | None
    stuck: Stuck | None


class Transition(Struct):
    """A recorded change of status."""

    number: Annotated[int, Meta(ge=1)]
    from_status: str | None
    to_status: str
    observed_at: datetime
    updated_at: datetime | None


class Fates(Struct):
    """Files by what became of them; ``open`` is not known yet."""

    files: Count
    open: Count
    succeeded: Count
    failed: Count
    cancelled: Count
    unmapped: Count
    jobless: Count
    unknown: Count


class Delivery(Struct):
    """One event bound for one endpoint, with what came of its last try."""

    id: int
    event_id: str
    type: str
    watch: str | None
    batch_id: str | None
    endpoint: str
    state: str
    attempts: Count
    occurred_at: datetime
    created_at: datetime
    settled_at: datetime | None
    reason: Annotated[str | None, Meta(description="Why it was given up, if it was.")]
    tried_at: datetime | None
    status_code: int | None
    failure: str | None
    detail: str | None
    duration: Annotated[float | None, Meta(description="Seconds that the last try took.")]


class Attempt(Struct):
    """One try of a delivery."""

    number: Annotated[int, Meta(ge=1)]
    started_at: datetime
    duration: Seconds
    status_code: int | None
    failure: Annotated[str | None, Meta(description="Null if the receiver took it.")]
    detail: str | None
    response: Annotated[str | None, Meta(description="The start of what came back.")]


class WholeDelivery(Delivery):
    """A delivery with all its tries."""

    tries: list[Attempt]


class Told(Struct):
    """An event, by its name."""

    id: str
    type: str
    transition: int | None
    occurred_at: datetime


class WholeBatch(Batch):
    """A batch with its story."""

    transitions: list[Transition]
    files: Fates
    events: list[Told]
    deliveries: list[Delivery]


class File(Struct):
    """A source file of a batch."""

    source_directory_file_id: str
    name: str | None
    fate: Annotated[str | None, Meta(description="What became of it; null while that is open.")]
    job_type: str | None
    job_id: str | None
    job_status: str | None
    message: Annotated[str | None, Meta(description="Why it did not succeed, as it was said.")]


class Event(Struct):
    """A fact that was told, with what is sent of it."""

    id: str
    seq: Annotated[int, Meta(ge=1, description="Its place in the order of all.")]
    type: str
    watch: str | None
    batch_id: str | None
    occurred_at: datetime
    payload: Annotated[
        dict[str, Any], Meta(description="The message, as receivers get it: type, timestamp, data.")
    ]


class WholeEvent(Event):
    """An event with its deliveries."""

    deliveries: list[Delivery]


class Endpoint(Struct):
    """Where notifications go, and how that goes."""

    name: str
    type: Annotated[str | None, Meta(description="Null if it is no longer set.")]
    url: Annotated[str | None, Meta(description="Without what is secret in it.")]
    state: Annotated[str, Meta(description="`well`, `failing`, `disabled` or `not set`.")]
    since: datetime | None
    reason: str | None
    trouble: Annotated[str | None, Meta(description="Why nothing is sent at present.")]
    owed: Count
    dead: Count
    tried: Annotated[int, Meta(ge=0, description="Deliveries that the next two are taken from.")]
    success_rate: Share | None
    p95: Annotated[float | None, Meta(description="Seconds that nineteen in twenty took at most.")]


class Answer(Struct):
    """What an endpoint said to a test."""

    delivered: bool
    started_at: datetime
    duration: Seconds
    status_code: int | None
    failure: str | None
    detail: str | None
    response: str | None


class Changed(Struct):
    """Whether anything was changed by what was asked."""

    changed: bool


class Replayed(Struct):
    """What is sent again."""

    replayed: Count
    more: Annotated[bool, Meta(description="Whether more match than are taken at once.")]


class Accepted(Struct):
    """It is begun."""

    accepted: bool


class Gap(Struct, rename={"start": "from", "end": "to"}):
    """Time without a whole pass."""

    start: datetime
    end: datetime
    seconds: Seconds
    kind: str
    reason: str | None
    closed_at: Annotated[datetime | None, Meta(description="When it was listed after all.")]


class Coverage(Struct):
    """What was watched since a moment, or since the watch began: all of it but for the gaps."""

    since: datetime
    began: Annotated[datetime, Meta(description="Of time before then nothing is said.")]
    covered_to: datetime | None
    passes: Count
    gaps: list[Gap]
    kept_from: Annotated[
        datetime | None, Meta(description="What was before is removed, where that was asked for.")
    ] = None


class Budget(Struct):
    """What LlamaCloud lets a watch ask."""

    left: Annotated[float, Meta(ge=0, description="Requests that may be sent at once.")]
    most: Annotated[float, Meta(ge=0, description="As many as that can be.")]
    per_minute: Annotated[float, Meta(ge=0, description="As LlamaCloud lets us at present.")]
    configured: Annotated[float, Meta(ge=0, description="Per minute, when all is well.")]
    paused_for: Annotated[float, Meta(ge=0, description="Seconds, by its Retry-After.")]


class Watch(Struct):
    """What is looked at, and how that goes."""

    name: str
    base_url: str
    project_id: str | None
    organization_id: str | None
    source_directory_id: str | None
    interval: Seconds
    holder: Annotated[
        str | None, Meta(description="The replica that polls it; null while none does.")
    ]
    last_good_poll: Annotated[
        datetime | None, Meta(description="Of whoever polls it, or did so last.")
    ]
    active: Annotated[int, Meta(ge=0, description="Batches that are followed.")]
    takes_hints: bool
    troubles: list[str]
    budget: Annotated[
        Budget | None, Meta(description="Null while it is not known from who polls it.")
    ]
    coverage: Coverage | None


class Replica(Struct):
    """A daemon among those that share the store, or the only one."""

    id: str
    host: str
    version: str
    started_at: datetime
    seen_at: datetime
    alive: Annotated[bool, Meta(description="Whether it was seen lately enough.")]
    watches: Annotated[list[str], Meta(description="Those that it polls.")]
    in_flight: Annotated[int, Meta(ge=0, description="Deliveries that it is sending.")]


class Held(Struct):
    """Who polls a watch."""

    watch: str
    holder: Annotated[str | None, Meta(description="The id of a replica; null if none does.")]
    since: Annotated[
        datetime | None, Meta(description="When that began; null if none ever polled it.")
    ]
    token: Annotated[
        int | None, Meta(description="Larger with each holder; null where there is one daemon.")
    ]
    held_until: Annotated[
        datetime | None, Meta(description="When another may take it, unless it is renewed.")
    ]
    last_good_poll: datetime | None

    @classmethod
    def of(
        cls,
        watch: str,
        lease: Holding | None,
        *,
        holder: str | None,
        since: datetime | None = None,
        last_good_poll: datetime | None,
    ) -> Held:
        """Return it by its lease; ``since`` is for where there are none."""
        if lease is not None:
            since = lease.held_until if holder is None else lease.taken_at
        return cls(
            watch=watch,
            holder=holder,
            since=since,
            token=None if lease is None else lease.token,
            held_until=lease.held_until if lease and holder is not None else None,
            last_good_poll=last_good_poll,
        )


class Replicas(Struct):
    """Who shares the store, and who polls what."""

    now: Annotated[
        datetime, Meta(description="By the store's clock, which all times beside it are by.")
    ]
    shared: Annotated[bool, Meta(description="False: an SQLite file has one daemon.")]
    replicas: list[Replica]
    watches: Annotated[list[Held], Meta(description="Those that are set for this daemon.")]

    @classmethod
    def of(cls, fleet: Fleet, held: list[Held], *, shared: bool) -> Replicas:
        """Return them as the API and the command line both say it."""
        return cls(
            now=fleet.now,
            shared=shared,
            replicas=[
                Replica(
                    id=one.id,
                    host=one.host,
                    version=one.version,
                    started_at=one.started_at,
                    seen_at=one.seen_at,
                    alive=one.is_alive,
                    watches=[other.watch for other in held if other.holder == one.id],
                    in_flight=one.in_flight,
                )
                for one in fleet.replicas
            ],
            watches=held,
        )


class ActiveCount(Struct):
    """Batches that are followed."""

    watch: str
    status: str
    count: Count


class Hour(Struct):
    """Batches that ended within one hour, by status."""

    start: datetime
    ended: dict[str, int]


class Spread(Struct):
    """Of how many the durations are, and how they are spread."""

    samples: Count
    median: Seconds | None
    p95: Seconds | None


class Took(Struct):
    """How long one completed batch took."""

    watch: str
    batch_id: str
    ended_at: datetime
    seconds: Seconds


class Troubles(Struct):
    """Which parts are not well and why, by their names."""

    grave: Annotated[dict[str, str], Meta(description="Of the daemon: it is not ready.")]
    ailing: Annotated[
        dict[str, str], Meta(description="Of others, such as an endpoint or another replica.")
    ]


class Stats(Struct):
    """How it goes."""

    now: datetime
    started_at: datetime
    batches: Annotated[
        dict[str, int] | None,
        Meta(description="All that there are, by status; null if they were not to be counted."),
    ]
    active: list[ActiveCount]
    stuck: Count
    overdue: Annotated[
        int, Meta(ge=0, description="Of the oldest 100 active ones: longer than nine in ten took.")
    ]
    ended_today: Annotated[dict[str, int], Meta(description="Since midnight UTC, by status.")]
    hours: list[Hour]
    duration: Annotated[Spread, Meta(description="Of the last completed batches.")]
    took: Annotated[list[Took], Meta(description="These, the newest first.")]
    latency: Annotated[Spread, Meta(description="From observation to receipt, of the last.")]
    latencies: Annotated[list[Seconds], Meta(description="These, the newest first.")]
    troubles: Troubles
    owed: Count
    dead: Count
