"""Small facts for tests, each with a name that reads in a sentence."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from batchwatch.domain.batch import RUNNING, Batch, BatchId, Observation, Status, WatchName
from batchwatch.domain.changes import Recorder
from batchwatch.domain.coverage import Look
from batchwatch.domain.event import rfc3339
from batchwatch.domain.stuck import Patience
from batchwatch.store.replicas import Replica
from tests.support.clock import EPOCH

if TYPE_CHECKING:
    from batchwatch.domain.payload import DaemonData

WATCH = WatchName("default")
REPLICA = "host-1-abc123"
BASE_URL = "https://llamacloud.test"
PATIENT = Patience(pending=1e9, throttled=1e9, running=1e9)  # nothing is ever stuck


def at(seconds: float) -> datetime:
    """The moment ``seconds`` after the tests' beginning of time."""
    return EPOCH + timedelta(seconds=seconds)


def a_sighting(
    status: Status = RUNNING, *, batch_id: str = "bat-1", updated: float | None = 0, **more: Any
) -> Observation:
    """An observation; ``updated`` is its ``updated_at`` in seconds, or None for null."""
    updated_at = None if updated is None else at(updated)
    observation = Observation(
        id=BatchId(batch_id),
        status=status,
        seen_at=at(0),
        fingerprint=f"{status} {updated_at}",
        created_at=at(0),
        updated_at=updated_at,
        job_type="parse_v2",
        configuration_id="cfg-PARSE_AGENTIC",
    )
    return replace(observation, **more)


def a_batch(status: Status = RUNNING, *, updated: float | None = 0, **more: Any) -> Batch:
    """A batch that is known, first seen in ``status``."""
    seen = a_sighting(status, updated=updated)
    batch = Batch(
        watch=WATCH,
        id=seen.id,
        status=status,
        fingerprint=seen.fingerprint,
        revision=1,
        first_seen_at=at(0),
        changed_at=at(0),
        created_at=seen.created_at,
        updated_at=seen.updated_at,
    )
    return replace(batch, **more)


def a_pulse(**more: Any) -> DaemonData:
    """What a heartbeat tells of a daemon with one watch and one endpoint."""
    data: DaemonData = {
        "version": "1.2.3",
        "started_at": rfc3339(at(0)),
        "observed_at": rfc3339(at(9)),
        "uptime": 9.0,
        "watches": [
            {
                "watch": WATCH,
                "last_good_poll": rfc3339(at(8)),
                "active_batches": 3,
                "failing": None,
            }
        ],
        "endpoints": [{"endpoint": "ops", "state": "well", "owed": 0, "dead": 0}],
    }
    return {**data, **more}  # type: ignore[typeddict-item]  # by its fields


def a_look(start: float, end: float, **more: Any) -> Look:
    """A whole pass at the second ``end``, of a window from ``start``; all clocks agree."""
    look = Look(covered_from=at(start), covered_to=at(end), begun_at=at(end), monotonic=end)
    return replace(look, **more)


def a_recorder(**more: Any) -> Recorder:
    """The rules of the watch that the builders use."""
    return Recorder(WATCH, BASE_URL, **more)


def a_replica(id: str = REPLICA, **more: Any) -> Replica:  # noqa: A002  # as its field is called
    """A daemon that is alive."""
    replica = Replica(id, "host", "1.2.3", at(0), at(0), is_alive=True, in_flight=0)
    return replace(replica, **more)
