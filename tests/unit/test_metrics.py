"""What Prometheus is told: names with units, labels from closed sets, and no batch by its id."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families as parse

from batchwatch.domain.delivery import Failure
from batchwatch.metrics import Metrics
from batchwatch.simulator import FileLife, Simulator, a_life
from tests.support.daemon import environment, running
from tests.support.receiver import Receiver, says

if TYPE_CHECKING:
    from pathlib import Path

    from prometheus_client import Counter, Gauge, Histogram

COLLECTORS = Metrics().collectors
UNITS = re.compile(
    r"(_seconds|_total|_batches|_deliveries|_requests|_per_second|_state|_held|_replicas)$"
)
LABELS = {
    "watch", "endpoint", "outcome", "status", "to_status", "kind", "state", "fate",
    "route", "method", "table",
}  # fmt: skip
NEVER = {"batch", "batch_id", "event", "event_id", "delivery_id", "file", "job", "url", "reason"}


def described(collector: Counter | Gauge | Histogram) -> tuple[str, str, tuple[str, ...]]:
    """Name as it is exposed, help, and labels."""
    (family,) = collector.describe()
    name = f"{family.name}_total" if family.type == "counter" else family.name
    return name, family.documentation, collector._labelnames  # noqa: SLF001  # nowhere else


@pytest.mark.parametrize("collector", COLLECTORS, ids=lambda one: described(one)[0])
def test_every_metric_has_a_unit_a_help_and_labels_from_closed_sets(
    collector: Counter | Gauge | Histogram,
) -> None:
    """A label without bounds is a series for each batch, and the end of a Prometheus."""
    name, documentation, labels = described(collector)

    assert re.fullmatch(r"batchwatch_[a-z_]+", name)
    assert UNITS.search(name)
    assert re.fullmatch(r"[A-Z].+\.", documentation)
    # There is one loop, and one fleet.
    assert labels or name in {"batchwatch_event_loop_lag_seconds", "batchwatch_replicas"}
    assert set() == set(labels) - LABELS
    assert set() == set(labels) & NEVER


def test_every_collector_is_registered_once() -> None:
    """What is not in the registry is not exposed, and what is not listed is not documented."""
    metrics = Metrics()

    exposed = {family.name for family in metrics.registry.collect()}

    assert exposed == {next(iter(one.describe())).name for one in metrics.collectors}
    assert len(exposed) == len(metrics.collectors)


def test_two_daemons_in_one_process_do_not_share_a_count() -> None:
    """No registry is global: a test, or an embedder, begins at nought."""
    one, other = Metrics(), Metrics()

    one.polls.labels("default", "good").inc()

    labels = {"watch": "default", "outcome": "good"}
    name = "batchwatch_polls_total"
    assert (1, None) == (
        one.registry.get_sample_value(name, labels),
        other.registry.get_sample_value(name, labels),
    )


async def test_a_run_fills_what_it_touches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part counts its own work; the outcomes are those of the closed sets."""
    made: list[Metrics] = []

    def metrics() -> Metrics:
        made.append(Metrics())
        return made[-1]

    monkeypatch.setattr("batchwatch.daemon.Metrics", metrics)
    failed = FileLife(mapped_after=0.0, error_message="no pages")
    async with Simulator() as sim, Receiver() as receiver:
        receiver.answers = [says(400), says(503)]
        async with running(
            environment(sim, receiver, tmp_path, BATCHWATCH_ENDPOINTS__HOOK__FINAL_STATUSES="400")
        ):
            await sim.asked(2)
            batch = sim.world.plant(
                a_life(("PENDING", 0), ("RUNNING", 0.2), ("COMPLETED", 0.4), files=(failed,))
            )
            await receiver.until(
                lambda got: bool(got) and got[-1].event["type"] == "batch.completed"
            )

    text = generate_latest(made[0].registry).decode()
    samples = [sample for family in parse(text) for sample in family.samples]
    filled = {one.name for one in samples if one.value > 0}
    assert filled >= {
        "batchwatch_upstream_requests_total",
        "batchwatch_polls_total",
        "batchwatch_poll_duration_seconds_count",
        "batchwatch_budget_requests",
        "batchwatch_budget_requests_per_second",
        "batchwatch_watch_held",
        "batchwatch_replicas",
        "batchwatch_detection_lag_seconds_count",
        "batchwatch_store_duration_seconds_count",
        "batchwatch_last_good_poll_timestamp_seconds",
        "batchwatch_transitions_total",
        "batchwatch_delivery_attempts_total",
        "batchwatch_deliveries_dead_total",
    }
    outcomes = {
        one.labels["outcome"] for one in samples if one.name == "batchwatch_delivery_attempts_total"
    }
    assert outcomes <= {"delivered", *(failure.value for failure in Failure)}
    assert "client_error" in outcomes
    assert batch.id not in text
