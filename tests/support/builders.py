"""Small facts for tests, each with a name that reads in a sentence."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from batchwatch.domain.batch import RUNNING, Batch, BatchId, Observation, Status, WatchName
from batchwatch.domain.changes import Recorder
from batchwatch.domain.stuck import Patience
from tests.support.clock import EPOCH

WATCH = WatchName("default")
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


def a_recorder(**more: Any) -> Recorder:
    """The rules of the watch that the builders use."""
    return Recorder(WATCH, BASE_URL, **more)
