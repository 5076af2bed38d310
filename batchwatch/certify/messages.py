"""Make the messages that a receiver is tried with: real ones, and such as are wrong on purpose."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import msgspec

from batchwatch.deliver.signing import key_of, new_secret, signed_headers
from batchwatch.domain.batch import (
    COMPLETED,
    PENDING,
    RUNNING,
    Batch,
    BatchId,
    FileOutcome,
    Results,
    Status,
    WatchName,
)
from batchwatch.domain.event import (
    FAILURES_LIMIT,
    ITEMS_LIMIT,
    REASON_LIMIT,
    WATCH_RECOVERED,
    batch_event,
    event_id,
    type_of,
    watch_event,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from batchwatch.clock import Clock
    from batchwatch.deliver.signing import Key
    from batchwatch.domain.event import Event

WATCH: Final = WatchName("certify")
BATCH_PREFIX: Final = "bat-certify-"
STALE: Final = 3600.0  # seconds a timestamp is off; no sane tolerance is as wide
_LINK: Final = "https://api.cloud.llamaindex.ai/api/v2/batches/{id}?expand=results"
_LASTED: Final[Mapping[str, float]] = {PENDING: 2.0, RUNNING: 40.0}  # seconds
_STEPS: Final = (PENDING, RUNNING, COMPLETED)  # the life of a batch; transition 1 is the first
_WIDEST: Final = "\N{PAGE FACING UP}"  # four bytes, as much as UTF-8 takes for one character


@dataclass(frozen=True, slots=True)
class Message:
    """One request to send."""

    body: bytes
    headers: Mapping[str, str]


class Maker:
    """Makes messages of one run. Its ids are like no other run's, or they would be repeats."""

    def __init__(self, keys: Sequence[Key], clock: Clock) -> None:
        self.keys = list(keys)
        self.wrong_key = key_of(new_secret())
        self._clock = clock
        self._run = secrets.token_hex(4)

    def event(
        self, name: str, status: Status = COMPLETED, files: Sequence[FileOutcome] = ()
    ) -> Event:
        """The event that tells of ``status``; ``name`` is the batch's, one for each case."""
        now = self._clock.now()
        batch_id = BatchId(f"{BATCH_PREFIX}{self._run}-{name}")
        number = _STEPS.index(status) + 1
        before = _STEPS[number - 2] if number > 1 else None
        batch = Batch(
            watch=WATCH,
            id=batch_id,
            status=status,
            fingerprint="",
            revision=number,
            first_seen_at=now,
            changed_at=now,
            previous_status=before,
            created_at=now - timedelta(seconds=sum(_LASTED.values())),
            updated_at=now,
            project_id="prj-certify",
            source_directory_id="dir-certify",
            job_type="parse_v2",
            configuration_id="cfg-certify",
            lasted={one: _LASTED[one] for one in _STEPS[: number - 1]},
            last_event_id=event_id(WATCH, batch_id, number - 1, type_of(before))
            if before
            else None,
            results=Results.COMPLETE if status.is_terminal else None,
        )
        link = _LINK.format(id=batch_id)
        return batch_event(batch, type_of(status), occurred_at=now, link=link, outcomes=files)

    def recovery(self) -> Event:
        """``watch.recovered``; its sister would call people out of bed."""
        now = self._clock.now()
        since = now - timedelta(minutes=5)
        reason = f"a test of batchwatch certify, run {self._run}"
        return watch_event(WATCH, WATCH_RECOVERED, occurred_at=now, since=since, reason=reason)

    def message(
        self,
        event: Event,
        *,
        body: bytes | None = None,
        keys: Sequence[Key] | None = None,
        age: float = 0.0,
    ) -> Message:
        """``event`` as it is sent, signed now; ``age`` seconds ago, if it is not to be now."""
        if body is None:
            body = msgspec.json.encode(event.payload)
        headers = signed_headers(
            event.id,
            body,
            keys=self.keys if keys is None else keys,
            timestamp=int(self._clock.now().timestamp() - age),
        )
        # A connection for each, so that one that broke does not count against the next.
        return Message(body, {**headers, "Content-Type": "application/json", "Connection": "close"})


_FILES: Final = (
    FileOutcome("dfl-certify-1", "parse_v2", "pjb-certify-1"),
    FileOutcome("dfl-certify-2", error_message="no pages"),
)


def good(maker: Maker) -> Iterator[Message]:
    """What nearly all are like."""
    yield maker.message(maker.event("good", files=_FILES))


def repeat(maker: Maker) -> Iterator[Message]:
    """The same id and body twice, each signed when it is sent."""
    event = maker.event("repeat", files=_FILES)
    yield maker.message(event)
    yield maker.message(event)


def out_of_order(maker: Maker) -> Iterator[Message]:
    """The life of a batch, told backwards."""
    for status in reversed(_STEPS):
        yield maker.message(maker.event("out-of-order", status))


def without_batch(maker: Maker) -> Iterator[Message]:
    """An event of a watch."""
    yield maker.message(maker.recovery())


def unknown_type(maker: Maker) -> Iterator[Message]:
    """A type that no version has yet."""
    event = maker.event("unknown-type")
    yield maker.message(replace(event, type="batch.later_version"))


def unknown_field(maker: Maker) -> Iterator[Message]:
    """Fields that no version has yet, at each level."""
    event = maker.event("unknown-field")
    new = {"later_version": {"of": ["batchwatch", None, 2]}}
    data = {**event.data, **new, "batch": {**event.data["batch"], **new}}
    yield maker.message(event, body=msgspec.json.encode({**event.payload, **new, "data": data}))


def rotation(maker: Maker) -> Iterator[Message]:
    """Signed with two secrets, of which the receiver knows the second."""
    yield maker.message(maker.event("rotation"), keys=[maker.wrong_key, *maker.keys])


def large(maker: Maker) -> Iterator[Message]:
    """Each list full and each text as long as it may be."""
    job = "x" * 36
    files = [
        FileOutcome(f"dfl-{number:036d}", "parse_v2", f"pjb-{job}", _WIDEST * REASON_LIMIT)
        for number in range(ITEMS_LIMIT + FAILURES_LIMIT)
    ]
    yield maker.message(maker.event("large", files=files))


def no_signature(maker: Maker) -> Iterator[Message]:
    """As batchwatch sends it where an endpoint has no secret."""
    yield maker.message(maker.event("no-signature"), keys=[])


def bad_signature(maker: Maker) -> Iterator[Message]:
    """Signed with a secret that nobody knows."""
    yield maker.message(maker.event("bad-signature"), keys=[maker.wrong_key])


def garbled_signature(maker: Maker) -> Iterator[Message]:
    """A header that does not even have the form of one."""
    message = maker.message(maker.event("garbled-signature"))
    yield replace(message, headers={**message.headers, "webhook-signature": "v1"})


def altered_body(maker: Maker) -> Iterator[Message]:
    """Another status than the one that was signed."""
    message = maker.message(maker.event("altered-body"))
    yield replace(message, body=message.body.replace(b'"COMPLETED"', b'"CANCELLED"'))


def old_timestamp(maker: Maker) -> Iterator[Message]:
    """Signed well, and stale."""
    yield maker.message(maker.event("old-timestamp"), age=STALE)


def future_timestamp(maker: Maker) -> Iterator[Message]:
    """Signed well, for later."""
    yield maker.message(maker.event("future-timestamp"), age=-STALE)
