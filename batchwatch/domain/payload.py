"""What a receiver gets, field by field: the interface that others build on.

The published JSON Schemas are made from these types, so what is written
here is what is promised. Times are RFC 3339 in UTC, durations are seconds.
"""

from __future__ import annotations

from typing import Any, TypedDict


class Job(TypedDict):
    """The job that upstream runs for each file of a batch."""

    type: str | None
    configuration_id: str | None


class Config(TypedDict):
    """As upstream nests it."""

    job: Job


class BatchFields(TypedDict):
    """The batch as upstream shows it, and as it was when the event happened."""

    id: str
    project_id: str | None
    source_directory_id: str | None
    config: Config
    status: str
    created_at: str | None
    updated_at: str | None


class JobReference(TypedDict):
    """The job made for one file."""

    type: str | None
    id: str


class ResultItem(TypedDict):
    """The outcome of one file, as upstream shows it."""

    source_directory_file_id: str
    job_reference: JobReference | None
    error_message: str | None


class Failure(TypedDict):
    """A file that upstream could not map to a job."""

    source_directory_file_id: str
    error_message: str


class Counts(TypedDict):
    """Of all files, however many of them the event carries."""

    files: int
    with_job: int
    failed: int
    without_job: int


class ResultsData(TypedDict):
    """What is known of the files of a batch that has ended."""

    state: str
    link: str
    counts: Counts | None
    failures: list[Failure]
    items: list[ResultItem]
    truncated: bool


class ExpectedData(TypedDict):
    """What like batches took in all, and when this one should end by that."""

    median: float
    low: float  # nine in ten took longer
    high: float  # nine in ten took no longer
    samples: int
    ends_at: str
    overdue: bool  # it takes longer than nine in ten, and ends_at is when those had ended


class StuckData(TypedDict):
    """By which rule a batch is stuck, or was."""

    rule: str  # "status": of its status; "history": of its whole life
    status: str
    since: str  # when it passed the limit
    lasted: float
    limit: float
    reminder: int  # 0 the first time


class BatchData(TypedDict):
    """The ``data`` of every ``batch.*`` event."""

    batch: BatchFields
    transition: int
    previous_status: str | None
    previous_event_id: str | None
    watch: str
    observed_at: str
    durations: dict[str, float]
    expected: ExpectedData | None
    stuck: StuckData | None
    results: ResultsData | None


class WatchData(TypedDict):
    """The ``data`` of ``watch.failing`` and ``watch.recovered``."""

    watch: str
    since: str
    observed_at: str
    reason: str
    about: str  # "failing" or "slow"


class StuckBatch(TypedDict):
    """One of those that are stuck at once."""

    id: str
    status: str
    since: str
    rule: str


class WatchSlowData(TypedDict):
    """The ``data`` of ``watch.slow``."""

    watch: str
    since: str
    observed_at: str
    reason: str
    reminder: int  # 0 the first time
    count: int  # of all; listed are the first 100
    batches: list[StuckBatch]


class EndpointData(TypedDict):
    """The ``data`` of every ``endpoint.*`` event."""

    endpoint: str
    since: str
    observed_at: str
    reason: str
    share: float  # of the way to being disabled, 0 to 1


class Envelope(TypedDict):
    """What every message is: https://www.standardwebhooks.com."""

    type: str
    timestamp: str
    data: Any  # one of the above, by the type
