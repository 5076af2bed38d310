"""Have batches change as a pass does: with their transitions, events and deliveries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchwatch.clock import Clock
from batchwatch.domain.batch import RUNNING, BatchId, Observation, Status
from batchwatch.domain.changes import Recorder
from benchmarks.pipe import WATCH

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batchwatch.domain.event import Event
    from batchwatch.store import Store


async def commit(store: Store, numbers: Iterable[int], status: Status = RUNNING) -> list[Event]:
    """Commit that the batches with these ``numbers`` are ``status``; the events that are sent."""
    seen = [_observation(number, status) for number in numbers]
    now = Clock().now()
    changes = await store.batches.change(
        WATCH,
        [one.id for one in seen],
        lambda known: _recorder().record(known, seen, now=now),
    )
    return _sent(changes.events)


def events_of(numbers: Iterable[int]) -> list[Event]:
    """The events that :func:`commit` makes."""
    seen = [_observation(number, RUNNING) for number in numbers]
    return _sent(_recorder().record({}, seen, now=Clock().now()).events)


def _sent(events: Iterable[Event]) -> list[Event]:
    """Without those that an endpoint gets on request only: the discovery of each batch."""
    return [event for event in events if event.type != "batch.discovered"]


def _recorder() -> Recorder:
    return Recorder(WATCH, "https://llamacloud.test")


def _observation(number: int, status: Status) -> Observation:
    now = Clock().now()
    return Observation(
        id=BatchId(f"bat-00000000-0000-4000-8000-{number:012}"),
        status=status,
        seen_at=now,
        fingerprint=f"{status} {now}",
        created_at=now,
        updated_at=now,
        project_id="prj-00000000-0000-4000-8000-000000000000",
        source_directory_id=f"dir-00000000-0000-4000-8000-{number:012}",
        job_type="parse_v2",
        configuration_id="cfg-PARSE_AGENTIC",
    )
