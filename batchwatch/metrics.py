"""What Prometheus may know: names with units, labels from closed sets, never a batch's id."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)

_LATENCY = (0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30, 60, 300, 1800, 7200, 86400)
_DURATION = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_DETECTION = (1, 2, 5, 10, 15, 30, 60, 120, 300, 900, 3600, 21600)
_MOMENTS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30)


class Metrics:
    """The counters and gauges of one daemon, in a registry of its own."""

    def __init__(self) -> None:
        # A series beside each, for a question that nobody asks.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library is not typed here
        self.registry = CollectorRegistry()
        self.collectors: list[Counter | Gauge | Histogram] = []  # for the page that lists them

        def counter(name: str, text: str, *labels: str) -> Counter:
            one = Counter(f"batchwatch_{name}", text, labels, registry=self.registry)
            self.collectors.append(one)
            return one

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            one = Gauge(f"batchwatch_{name}", text, labels, registry=self.registry)
            self.collectors.append(one)
            return one

        def histogram(name: str, text: str, *labels: str, buckets: tuple[float, ...]) -> Histogram:
            one = Histogram(
                f"batchwatch_{name}", text, labels, registry=self.registry, buckets=buckets
            )
            self.collectors.append(one)
            return one

        self.requests = counter(
            "upstream_requests_total",
            "Requests to LlamaCloud, retries included, by outcome: ok, or the kind of error.",
            "watch",
            "outcome",
        )
        self.poll_duration = histogram(
            "poll_duration_seconds", "How long a pass took.", "watch", buckets=_DURATION
        )
        self.replicas = gauge(
            "replicas",
            "Daemons that share the store and are alive, this one among them.",
        )
        self.held = gauge(
            "watch_held", "Whether this daemon is the one that polls the watch: 1, or 0.", "watch"
        )
        self.polls = counter("polls_total", "Passes, by outcome.", "watch", "outcome")
        self.last_poll = gauge(
            "last_good_poll_timestamp_seconds",
            "When the last complete pass of this process ended; 0 until there is one.",
            "watch",
        )
        self.budget = gauge(
            "budget_requests", "Requests that may be sent to LlamaCloud at once.", "watch"
        )
        self.budget_rate = gauge(
            "budget_requests_per_second",
            "How fast the budget fills: as set, or less after LlamaCloud answered 429.",
            "watch",
        )
        self.batches = gauge(
            "active_batches", "Batches that are followed, by status.", "watch", "status"
        )
        self.stuck = gauge(
            "stuck_batches", "Batches that stand still for longer than they should.", "watch"
        )
        self.transitions = counter(
            "transitions_total", "Recorded changes of status.", "watch", "to_status"
        )
        self.detection_lag = histogram(
            "detection_lag_seconds",
            "From updated_at of a change of status, on LlamaCloud's clock, until it was seen.",
            "watch",
            buckets=_DETECTION,
        )
        self.settled_files = counter(
            "settled_files_total", "Files of batches that were settled.", "watch", "fate"
        )
        self.gaps = counter(
            "coverage_gaps_total",
            "Time without a whole pass, by its kind and by what became of it: closed by a later "
            "listing, or left open.",
            "watch",
            "kind",
            "outcome",
        )
        self.oddities = counter(
            "oddities_total",
            "Answers from LlamaCloud that were not obeyed, or were strange.",
            "watch",
            "kind",
        )
        self.hints = counter(
            "hints_total",
            "Upstream webhooks that came, by outcome: taken, or why nothing came of it.",
            "watch",
            "outcome",
        )
        self.hint_looks = counter(
            "hint_looks_total",
            "Looks at batches that hints named, by what came of it: shown, or why not.",
            "watch",
            "outcome",
        )
        self.outbox = gauge(
            "outbox_deliveries", "Deliveries that are owed or dead.", "endpoint", "state"
        )
        self.outbox_age = gauge(
            "outbox_oldest_age_seconds", "Age of the oldest delivery still owed.", "endpoint"
        )
        self.attempts = counter(
            "delivery_attempts_total",
            "Tries of deliveries, by outcome: delivered, or why not.",
            "endpoint",
            "outcome",
        )
        self.endpoint_state = gauge(
            "endpoint_state", "How it is: 0 well, 1 held back and probed, 2 disabled.", "endpoint"
        )
        self.store_failures = counter(
            "store_failures_total",
            "Claims and acknowledgements that the store did not take.",
            "kind",
        )
        self.pings = counter(
            "heartbeat_pings_total",
            "Pings of heartbeat_url, by outcome: ok, withheld because the daemon was not well, or "
            "why it did not arrive.",
            "outcome",
        )
        self.dead = counter("deliveries_dead_total", "Deliveries given up.", "endpoint")
        self.delivery_latency = histogram(
            "delivery_latency_seconds",
            "From the observation of a fact to its receipt.",
            "endpoint",
            buckets=_LATENCY,
        )
        self.store_time = histogram(
            "store_duration_seconds",
            "How long a use of the store took, by its kind: read, or write with the wait for its "
            "turn.",
            "kind",
            buckets=_MOMENTS,
        )
        self.removed = counter(
            "removed_rows_total", "Rows that were older than the retention, by table.", "table"
        )
        self.loop_lag = histogram(
            "event_loop_lag_seconds",
            "How late the event loop was each second with what it had to do.",
            buckets=_MOMENTS,
        )
        self.http_requests = counter(
            "http_requests_total",
            "Requests to batchwatch itself, by the template of the path; other for none of its.",
            "route",
            "method",
            "status",
        )
        self.http_duration = histogram(
            "http_request_duration_seconds",
            "How long an answer of batchwatch itself took, to its last byte.",
            "route",
            buckets=_MOMENTS,
        )

    def polls_from_here(self, watch: str) -> None:
        """Note that this daemon polls ``watch``."""
        self.held.labels(watch).set(1)

    def polls_elsewhere(self, watch: str) -> None:
        """Note that it does not, and show none of what it last knew: that would soon be wrong."""
        self.held.labels(watch).set(0)
        for one in (self.last_poll, self.budget, self.budget_rate, self.batches, self.stuck):
            one.remove_by_labels({"watch": watch})
