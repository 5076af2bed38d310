"""The official SDK as a witness: what it reads in an answer, we read in it, too."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from llama_cloud.types import BatchGetResponse, ParsingListResponse

from batchwatch.llamacloud.wire import read_batch, read_jobs, read_page
from tests.support.clock import EPOCH

TIMES = st.none() | st.datetimes(
    min_value=datetime(1970, 1, 2),  # noqa: DTZ001  # hypothesis adds the zone
    max_value=datetime(2100, 1, 1),  # noqa: DTZ001
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))]),
).map(lambda moment: moment.isoformat())
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
TYPES = st.sampled_from(["parse_v2", "extract_v2"])
STATUSES = ["CANCELLED", "COMPLETED", "FAILED", "PENDING", "RUNNING"]
RESULTS = st.fixed_dictionaries(
    {"source_directory_file_id": TEXT},
    optional={
        "job_reference": st.none() | st.fixed_dictionaries({"type": TYPES, "id": TEXT}),
        "error_message": st.none() | TEXT,
    },
)
BATCHES = st.fixed_dictionaries(
    {
        "id": TEXT,
        "project_id": TEXT,
        "source_directory_id": TEXT,
        "config": st.fixed_dictionaries(
            {"job": st.fixed_dictionaries({"type": TYPES, "configuration_id": TEXT})}
        ),
        "status": st.sampled_from([*STATUSES, "THROTTLED"]),
    },
    optional={
        "created_at": TIMES,
        "updated_at": TIMES,
        "results": st.none() | st.lists(RESULTS, max_size=5),
    },
)
JOBS = st.fixed_dictionaries(
    {"id": TEXT, "project_id": TEXT, "status": st.sampled_from(STATUSES)},
    optional={"error_message": st.none() | TEXT, "created_at": TIMES, "tier": st.none() | TEXT},
)


@given(BATCHES)
@settings(max_examples=50, deadline=None)
def test_a_batch_is_the_same_batch_to_the_official_sdk(batch: dict[str, Any]) -> None:
    """Field by field, alone and on a page."""
    theirs = BatchGetResponse.model_validate_json(json.dumps(batch))
    item, results = read_batch(json.dumps(batch).encode())
    ours = item.observation(EPOCH)

    assert (theirs.id, theirs.status, theirs.created_at, theirs.updated_at) == (
        ours.id,
        ours.status,
        ours.created_at,
        ours.updated_at,
    )
    assert (theirs.project_id, theirs.source_directory_id) == (
        ours.project_id,
        ours.source_directory_id,
    )
    job = theirs.config.job
    assert (job.type, job.configuration_id) == (ours.job_type, ours.configuration_id)
    assert [item] == read_page(json.dumps({"items": [batch]}).encode()).items

    if theirs.results is None:
        assert results is None
        return
    expected = [
        (
            one.source_directory_file_id,
            one.job_reference.type if one.job_reference else None,
            one.job_reference.id if one.job_reference else None,
            one.error_message,
        )
        for one in theirs.results
    ]
    assert expected == [
        (one.source_directory_file_id, one.job_type, one.job_id, one.error_message)
        for one in results or ()
    ]


@given(st.lists(JOBS, max_size=5))
@settings(max_examples=30, deadline=None)
def test_a_job_is_the_same_job_to_the_official_sdk(jobs: list[dict[str, Any]]) -> None:
    """Its id, its status, and why it failed."""
    theirs = [ParsingListResponse.model_validate_json(json.dumps(job)) for job in jobs]
    ours = read_jobs(json.dumps({"items": jobs}).encode(), "parse_v2")
    assert [(job.id, job.status, job.error_message) for job in theirs] == [
        (job.id, job.status, job.error_message) for job in ours.items
    ]
