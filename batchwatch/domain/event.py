"""The facts that go outside: their types, their ids and their payloads."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from datetime import UTC
from typing import TYPE_CHECKING, Any, Final

from batchwatch.domain.batch import (
    CANCELLED,
    COMPLETED,
    FAILED,
    PENDING,
    RUNNING,
    THROTTLED,
    EndpointName,
    EventId,
    FileOutcome,
    Results,
    Status,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from batchwatch.domain.batch import Batch, BatchId, WatchName
    from batchwatch.domain.coverage import Gap
    from batchwatch.domain.payload import (
        BatchData,
        DaemonData,
        EndpointData,
        Envelope,
        ExpectedData,
        GapData,
        ResultItem,
        ResultsData,
        SettledData,
        StuckData,
        WatchData,
    )

STATUS_TYPES: Final[Mapping[Status, str]] = {
    PENDING: "batch.pending",
    THROTTLED: "batch.throttled",
    RUNNING: "batch.running",
    COMPLETED: "batch.completed",
    FAILED: "batch.failed",
    CANCELLED: "batch.cancelled",
}
BATCH_DISCOVERED: Final = "batch.discovered"
BATCH_UNKNOWN: Final = "batch.unknown"  # a status that this version has no name for
BATCH_SETTLED: Final = "batch.settled"
BATCH_STUCK: Final = "batch.stuck"
BATCH_UNSTUCK: Final = "batch.unstuck"
BATCH_VANISHED: Final = "batch.vanished"
WATCH_FAILING: Final = "watch.failing"
WATCH_SLOW: Final = "watch.slow"  # many batches are stuck
WATCH_GAP: Final = "watch.gap"  # time that was not watched, and never can be
WATCH_RECOVERED: Final = "watch.recovered"
ENDPOINT_FAILING: Final = "endpoint.failing"
ENDPOINT_DISABLED: Final = "endpoint.disabled"
ENDPOINT_RECOVERED: Final = "endpoint.recovered"
ENDPOINT_TEST: Final = "endpoint.test"
DAEMON_HEARTBEAT: Final = "daemon.heartbeat"

EVENT_TYPES: Final = (
    BATCH_DISCOVERED,
    *STATUS_TYPES.values(),
    BATCH_UNKNOWN,
    BATCH_SETTLED,
    BATCH_STUCK,
    BATCH_UNSTUCK,
    BATCH_VANISHED,
    WATCH_FAILING,
    WATCH_SLOW,
    WATCH_GAP,
    WATCH_RECOVERED,
    ENDPOINT_FAILING,
    ENDPOINT_DISABLED,
    ENDPOINT_RECOVERED,
    DAEMON_HEARTBEAT,
    ENDPOINT_TEST,
)

# What each type means, for the catalogue.
MEANINGS: Final[Mapping[str, str]] = {
    BATCH_DISCOVERED: "A batch is seen for the first time; told beside its first status.",
    STATUS_TYPES[PENDING]: "It waits to be started.",
    STATUS_TYPES[THROTTLED]: "LlamaCloud holds it back.",
    STATUS_TYPES[RUNNING]: "Its files are being given to jobs.",
    STATUS_TYPES[COMPLETED]: (
        "Each file has its job or its mapping error. The jobs themselves may still run or fail."
    ),
    STATUS_TYPES[FAILED]: "It failed as a whole; there are no reliable results for its files.",
    STATUS_TYPES[CANCELLED]: "It was cancelled; what was finished before keeps its results.",
    BATCH_UNKNOWN: "It has a status that this version has no name for; see `data.batch.status`.",
    BATCH_SETTLED: (
        "What became of every file is known: its job has ended, or it never had one. See "
        "`data.settled`, which also says where that is not known and is no longer asked for."
    ),
    BATCH_STUCK: (
        "It stands still for longer than its status may last, or takes far longer than batches "
        "like it; told again after each `stuck_reminder`."
    ),
    BATCH_UNSTUCK: "It was told of as stuck, and has moved; told just before where to.",
    BATCH_VANISHED: (
        "It was active, and for ten minutes LlamaCloud has answered 404 for it and not listed it."
    ),
    WATCH_FAILING: "LlamaCloud cannot be watched: an outage, or a key that is refused.",
    WATCH_SLOW: (
        "Five batches or more are stuck at once: one message with their list in place of one for "
        "each, told again after each `stuck_reminder`."
    ),
    WATCH_GAP: (
        "There is time of which batches may be unknown for good: no listing reaches back to it, or "
        "LlamaCloud lists what nobody can read. A pause that was made good is none."
    ),
    WATCH_RECOVERED: (
        "It can be watched again, and what happened meanwhile is told as it is found; or its "
        "batches move again. `data.about` says which."
    ),
    ENDPOINT_FAILING: (
        "An endpoint takes nothing: told to the others after five minutes, and again at 50, 70 "
        "and 90 % of the 120 hours after which it is disabled."
    ),
    ENDPOINT_DISABLED: (
        "Nothing more is sent to an endpoint: it answered 410, failed for 120 hours, or was "
        "disabled by hand. What it is owed waits until it is enabled."
    ),
    ENDPOINT_RECOVERED: "An endpoint that was told of as failing or disabled takes messages again.",
    DAEMON_HEARTBEAT: (
        "The daemon is alive, and how its watches and endpoints are: each `heartbeat_interval`, "
        "for routes that name it."
    ),
    ENDPOINT_TEST: "A test, sent by `batchwatch test`.",
}

ITEMS_LIMIT: Final = 200  # result items carried in an event; the rest is behind its link
FAILURES_LIMIT: Final = 50
REASON_LIMIT: Final = 500  # characters of one failure's message

# Made once, at random. It must never change: ids derived from it name facts for ever.
_NAMESPACE: Final = uuid.UUID("6f0b6c1e-6d0e-4c59-9a59-3f6f5d0f2c11")


@dataclass(frozen=True, slots=True)
class Event:
    """An immutable fact for the outside.

    ``subject`` is what keeps order: events of one subject reach an endpoint
    one after another. It is the batch's, the watch's own, an endpoint's, or the daemon's.
    """

    id: EventId
    type: str
    watch: WatchName | None
    occurred_at: datetime
    data: Mapping[str, Any]  # made as one of the types in `payload`
    batch_id: BatchId | None = None
    transition: int | None = None
    endpoint: EndpointName | None = None  # that it is about, and that is not sent it

    @property
    def subject(self) -> str:
        """The line that this event stands in, wherever it is delivered."""
        if self.watch is None:  # no watch has such a name
            return "daemon:" if self.endpoint is None else f"endpoint:{self.endpoint}"
        return self.watch if self.batch_id is None else f"{self.watch}/{self.batch_id}"

    @property
    def payload(self) -> Envelope:
        """The Standard Webhooks envelope: what a receiver gets, as JSON."""
        return {"type": self.type, "timestamp": rfc3339(self.occurred_at), "data": self.data}


@dataclass(frozen=True, slots=True)
class Details:
    """What only some events of a batch carry."""

    expected: ExpectedData | None = None  # when it should end
    stuck: StuckData | None = None  # in what way it is, or was
    settled: SettledData | None = None  # what became of its files


def event_id(
    watch: WatchName | None, batch_id: BatchId | None, fact: int | str, type_: str
) -> EventId:
    """The id of a fact: the same fact always has the same one (UUIDv5).

    ``fact`` is the transition's number, or what else tells two events of one
    type and subject apart. A receiver deduplicates by this id, so a repeat
    after a crash must not look like news.
    """
    name = "\x1f".join((watch or "", batch_id or "", str(fact), type_))
    return EventId(f"evt_{uuid.uuid5(_NAMESPACE, name).hex}")


def type_of(status: Status) -> str:
    """The event type that announces a change to ``status``."""
    return STATUS_TYPES.get(status, BATCH_UNKNOWN)


def batch_event(
    batch: Batch,
    type_: str,
    *,
    occurred_at: datetime,
    link: str,
    outcomes: Sequence[FileOutcome] | None = None,
    details: Details = Details(),
) -> Event:
    """The event of ``type_`` about ``batch`` as it stands.

    ``link`` is where the whole results are to be had. ``outcomes`` are the
    batch's files, where they are known.
    """
    previous = batch.previous_status
    fact: int | str = batch.revision
    if type_ == BATCH_VANISHED:
        # It may come back and vanish again within one status: another fact.
        fact = f"{batch.revision}@{rfc3339(occurred_at)}"
    if type_ == BATCH_STUCK and details.stuck:
        fact = f"{batch.revision}#{details.stuck['reminder']}"
    data: BatchData = {
        "batch": {
            "id": batch.id,
            "project_id": batch.project_id,
            "source_directory_id": batch.source_directory_id,
            "config": {"job": {"type": batch.job_type, "configuration_id": batch.configuration_id}},
            "status": str(batch.status),
            "created_at": rfc3339(batch.created_at) if batch.created_at else None,
            "updated_at": rfc3339(batch.updated_at) if batch.updated_at else None,
        },
        "transition": batch.revision,
        "previous_status": None if previous is None else str(previous),
        "previous_event_id": batch.last_event_id,
        "watch": batch.watch,
        "observed_at": rfc3339(occurred_at),
        "durations": {status: round(seconds, 3) for status, seconds in batch.lasted.items()},
        "expected": details.expected,
        "stuck": details.stuck,
        "results": results_summary(batch.results, outcomes, link=link),
        "settled": details.settled,
    }
    return Event(
        id=event_id(batch.watch, batch.id, fact, type_),
        type=type_,
        watch=batch.watch,
        batch_id=batch.id,
        transition=batch.revision,
        occurred_at=occurred_at,
        data=data,
    )


def results_summary(
    state: Results | None, outcomes: Sequence[FileOutcome] | None, *, link: str
) -> ResultsData | None:
    """What an event says of the files: counts, failures, items, and where the rest is.

    None while the batch is not terminal. Bounded, whatever upstream sends:
    receivers and relays refuse bodies that are too large (upstream's own
    webhooks fell to that, llama_cloud_services #560).
    """
    if state is None:
        return None
    if outcomes is None:
        return {
            "state": state.value,
            "link": link,
            "counts": None,
            "failures": [],
            "items": [],
            "truncated": False,
        }
    failed = [one for one in outcomes if one.error_message is not None]
    without_job = sum(1 for one in outcomes if one.job_id is None and one.error_message is None)
    return {
        "state": state.value,
        "link": link,
        "counts": {
            "files": len(outcomes),
            "with_job": sum(1 for one in outcomes if one.job_id is not None),
            "failed": len(failed),
            "without_job": without_job,
        },
        "failures": [
            {
                "source_directory_file_id": one.source_directory_file_id,
                "error_message": (one.error_message or "")[:REASON_LIMIT],
            }
            for one in failed[:FAILURES_LIMIT]
        ],
        "items": [_item(one) for one in outcomes[:ITEMS_LIMIT]],
        "truncated": len(outcomes) > ITEMS_LIMIT or len(failed) > FAILURES_LIMIT,
    }


def _item(outcome: FileOutcome) -> ResultItem:
    """As upstream shows it, so that a receiver of both needs one reader."""
    job_id, message = outcome.job_id, outcome.error_message
    return {
        "source_directory_file_id": outcome.source_directory_file_id,
        "job_reference": None if job_id is None else {"type": outcome.job_type, "id": job_id},
        "error_message": None if message is None else message[:REASON_LIMIT],
    }


def watch_event(
    watch: WatchName,
    type_: str,
    *,
    occurred_at: datetime,
    since: datetime,
    reason: str,
    about: str = "failing",
) -> Event:
    """``watch.failing`` or ``watch.recovered``: what went wrong, and since when.

    ``about`` is which of its alarms it belongs to: failing or slow.
    """
    data: WatchData = {
        "watch": watch,
        "since": rfc3339(since),
        "observed_at": rfc3339(occurred_at),
        "reason": reason,
        "about": about,
    }
    fact = rfc3339(since) if about == "failing" else f"{about}@{rfc3339(since)}"
    return Event(
        id=event_id(watch, None, fact, type_),
        type=type_,
        watch=watch,
        occurred_at=occurred_at,
        data=data,
    )


def gap_event(watch: WatchName, gap: Gap, *, occurred_at: datetime) -> Event:
    """``watch.gap``: when, why, and what somebody can do who can look at LlamaCloud."""
    data: GapData = {
        "watch": watch,
        "from": rfc3339(gap.start),
        "to": rfc3339(gap.end),
        "kind": gap.kind.value,
        "observed_at": rfc3339(occurred_at),
        "reason": gap.reason or "",
        "what_to_do": gap.what_to_do,
    }
    return Event(
        id=event_id(watch, None, f"{gap.kind}@{rfc3339(gap.start)}", WATCH_GAP),
        type=WATCH_GAP,
        watch=watch,
        occurred_at=occurred_at,
        data=data,
    )


def heartbeat_event(
    data: DaemonData, *, slot: datetime, store: str, occurred_at: datetime
) -> Event:
    """``daemon.heartbeat``; one for each ``slot`` and ``store``, however often it starts."""
    return Event(
        id=event_id(None, None, f"{store}@{rfc3339(slot)}", DAEMON_HEARTBEAT),
        type=DAEMON_HEARTBEAT,
        watch=None,
        occurred_at=occurred_at,
        data=data,
    )


def endpoint_event(
    endpoint: EndpointName,
    type_: str,
    *,
    occurred_at: datetime,
    since: datetime,
    reason: str,
    share: float,
) -> Event:
    """``endpoint.failing``, ``.disabled``, ``.recovered`` or ``.test``.

    ``share`` is how far it has come on the way to being disabled, 0 to 1.
    """
    data: EndpointData = {
        "endpoint": endpoint,
        "since": rfc3339(since),
        "observed_at": rfc3339(occurred_at),
        "reason": reason,
        "share": share,
    }
    return Event(
        id=event_id(None, None, f"{endpoint}@{rfc3339(since)}@{share}", type_),
        type=type_,
        watch=None,
        endpoint=endpoint,
        occurred_at=occurred_at,
        data=data,
    )


def a_test_of(endpoint: EndpointName, *, now: datetime) -> Event:
    """``endpoint.test``; unlike a fact, each one is new to the receiver."""
    test = endpoint_event(
        endpoint,
        ENDPOINT_TEST,
        occurred_at=now,
        since=now,
        reason="a test, sent by hand with batchwatch test",
        share=0.0,
    )
    return replace(test, id=EventId(f"evt_{uuid.uuid4().hex}"))


def rfc3339(moment: datetime) -> str:
    """``2026-11-24T08:00:00.000000Z``: always UTC, always six digits."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
