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


class FateCounts(TypedDict):
    """Files by what became of them; together they are ``files``."""

    files: int
    succeeded: int
    failed: int
    cancelled: int
    unmapped: int
    jobless: int
    unknown: int


class FailedFile(TypedDict):
    """A file that did not succeed, and why."""

    source_directory_file_id: str
    name: str | None
    fate: str
    job_reference: JobReference | None
    message: str | None


class FailedExample(TypedDict):
    """One file of a group, with its own message."""

    source_directory_file_id: str
    name: str | None
    message: str | None


class FailedGroup(TypedDict):
    """Files of one fate with like messages."""

    fate: str
    count: int
    message: str | None  # of one of them
    examples: list[FailedExample]


class RetryManifest(TypedDict):
    """The files to run again, which a new batch can be made of."""

    source_directory_id: str | None
    source_directory_file_ids: list[str]
    truncated: bool


class SettledData(TypedDict):
    """What became of a batch's files."""

    state: str  # complete, given_up, no_results
    counts: FateCounts | None
    failures: list[FailedFile]
    truncated: bool  # whether there are more failures than these
    groups: list[FailedGroup]
    more_groups: int
    retry: RetryManifest


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
    settled: SettledData | None


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


# Written so, for `from` is a word of Python's own.
GapData = TypedDict(
    "GapData",
    {
        "watch": str,
        "from": str,
        "to": str,
        "kind": str,
        "observed_at": str,
        "reason": str,
        "what_to_do": str,
    },
)
GapData.__doc__ = "The ``data`` of ``watch.gap``."


class WatchPulse(TypedDict):
    """How a watch is, in a heartbeat."""

    watch: str
    last_good_poll: str | None  # of whoever polls it
    active_batches: int
    failing: str | None  # why, if it is


class EndpointPulse(TypedDict):
    """How an endpoint is, in a heartbeat."""

    endpoint: str
    state: str  # well, failing or disabled
    owed: int
    dead: int


class DaemonData(TypedDict):
    """The ``data`` of ``daemon.heartbeat``."""

    version: str
    started_at: str
    observed_at: str
    uptime: float
    watches: list[WatchPulse]
    endpoints: list[EndpointPulse]


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
