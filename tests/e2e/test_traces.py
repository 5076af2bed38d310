"""Traces of the whole pipe, in a collector of OpenTelemetry."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp.test_utils import unused_port
from structlog.testing import capture_logs

from batchwatch.simulator import FileLife, Simulator, a_life
from batchwatch.simulator.life import JobLife, Step
from tests.support.collector import Collected, Collector
from tests.support.daemon import ROOT, environment, running
from tests.support.receiver import Received, Receiver, says

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

LIFE = (("PENDING", 0.0), ("RUNNING", 0.4), ("COMPLETED", 1.0))
FILES = (FileLife(mapped_after=0.5, job=JobLife((Step("RUNNING", 0.6), Step("COMPLETED", 1.3)))),)
CLIENT = 3  # SPAN_KIND_CLIENT


def trace_of(message: Received) -> tuple[str, str, bool]:
    """Trace and span that a receiver is told, and whether it is sampled."""
    _, trace, span, flags = message.headers["traceparent"].split("-")
    return trace, span, bool(int(flags, 16) & 1)


def is_told(type_: str, got: list[Received]) -> bool:
    return any(one.taken and one.event["type"] == type_ for one in got)


def of_type(type_: str, got: list[Received]) -> list[Received]:
    return [one for one in got if one.event["type"] == type_]


def root_of(span: Collected, trace: list[Collected]) -> Collected:
    """Where the way up through the parents ends."""
    by_id = {one.id: one for one in trace}
    while span.parent in by_id:
        span = by_id[span.parent]
    return span


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets the standard variables of this process, which the SDK reads by itself."""

    def ask(endpoint: str, **more: str) -> None:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        for name, value in more.items():
            monkeypatch.setenv(name, value)

    return ask


@pytest.mark.parametrize("type_", ["batch.running", "batch.completed", "batch.settled"])
async def test_a_poll_what_it_found_and_the_delivery_are_one_trace(
    type_: str, tmp_path: Path, asked: Any
) -> None:
    """The receiver is told of it, so that its own spans join.

    The end of a batch is no exception, though it waits for its results.
    """
    async with Collector() as collector, Simulator() as sim, Receiver() as receiver:
        asked(collector.url)
        async with running(environment(sim, receiver, tmp_path)):
            await sim.asked(2)
            batch = sim.world.plant(a_life(*LIFE, files=FILES))
            await receiver.until(lambda got: is_told(type_, got))

    (message,) = of_type(type_, receiver.received)
    trace_id, span_id, is_sampled = trace_of(message)
    trace = collector.of(trace_id)
    (delivery,) = [one for one in trace if one.id == span_id]
    assert ("deliver hook", CLIENT, True) == (delivery.name, delivery.kind, is_sampled)
    assert {
        "batchwatch.endpoint": "hook",
        "batchwatch.event_id": message.id,
        "batchwatch.event_type": type_,
        "batchwatch.batch_id": batch.id,
        "batchwatch.attempt": 1,
        "batchwatch.outcome": "delivered",
        "http.request.method": "POST",
        "http.response.status_code": 200,
    } == delivery.attributes
    assert ("poll", "") == (root_of(delivery, trace).name, root_of(delivery, trace).parent)
    assert "GET /api/v2/batches" in {one.name for one in trace}
    (change,) = [
        one
        for one in trace
        if one.name == "batch.changed"
        and one.attributes["batchwatch.to"] == message.event["data"]["batch"]["status"]
    ]
    assert batch.id == change.attributes["batchwatch.batch_id"]
    assert {"batchwatch"} == {one.resource["service.name"] for one in trace}


async def test_a_delivery_after_a_restart_belongs_to_the_trace_of_its_event(
    tmp_path: Path, asked: Any
) -> None:
    """It stands in the store; each try has a span of its own, and the failed ones say so."""
    async with Collector() as collector, Simulator() as sim, Receiver() as receiver:
        asked(collector.url)
        environ = environment(sim, receiver, tmp_path)
        receiver.always = says(503)
        async with running(environ):
            await sim.asked(2)
            sim.world.plant(a_life(("PENDING", 0.0), ("RUNNING", 1e6)))
            await receiver.until(lambda got: len(of_type("batch.pending", got)) >= 1)
        receiver.always = None
        async with running(environ):
            await receiver.until(lambda got: is_told("batch.pending", got))

    messages = of_type("batch.pending", receiver.received)
    assert 1 == len({trace_of(one)[0] for one in messages})
    assert len(messages) == len({trace_of(one)[1] for one in messages})
    trace = collector.of(trace_of(messages[0])[0])
    tries = {one.id: one.failed for one in trace if one.name == "deliver hook"}
    assert {trace_of(one)[1]: not one.taken for one in messages} == tries
    assert 1 == sum(one.name == "poll" for one in trace)


async def test_what_is_not_sampled_is_not_exported_and_says_so(tmp_path: Path, asked: Any) -> None:
    """The receiver decides by the flag whether it records without us."""
    async with Collector() as collector, Simulator() as sim, Receiver() as receiver:
        asked(collector.url, OTEL_TRACES_SAMPLER="always_off")
        async with running(environment(sim, receiver, tmp_path)):
            await sim.asked(2)
            sim.world.plant(a_life(*LIFE))
            await receiver.until(lambda got: is_told("batch.running", got))

    assert {False} == {trace_of(one)[2] for one in receiver.received}
    assert [] == collector.spans


async def test_no_id_query_or_key_is_in_the_name_of_a_request(tmp_path: Path, asked: Any) -> None:
    """Requests are named by templates; what a span tells goes to another system."""
    async with Collector() as collector, Simulator() as sim, Receiver() as receiver:
        asked(
            collector.url,
            OTEL_SERVICE_NAME="watcher",
            OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test",
            OTEL_EXPORTER_OTLP_HEADERS="x-token=s3cret",
        )
        environ = environment(sim, receiver, tmp_path)
        environ["BATCHWATCH_ENDPOINTS__HOOK__URL"] = f"{receiver.url}/hook/in-the-path?q=s3cret"
        async with running(environ):
            await sim.asked(2)
            batch = sim.world.plant(a_life(*LIFE, files=FILES))
            await receiver.until(lambda got: is_told("batch.completed", got))

    requests = [one for one in collector.spans if one.name.startswith("GET ")]
    assert {"GET /api/v2/batches", "GET /api/v2/batches/{batch_id}"} <= {
        one.name for one in requests
    }
    told = "".join(f"{one.name} {one.attributes}" for one in requests)
    assert batch.id not in told
    everything = repr(collector.spans)
    for secret in ("llx-simulator", "s3cret", "in-the-path", "page_token", "created_at"):
        assert secret not in everything
    assert {200} == {one.attributes["http.response.status_code"] for one in requests}
    resource = collector.spans[0].resource
    assert ("watcher", "test") == (
        resource["service.name"],
        resource["deployment.environment.name"],
    )
    assert {"s3cret"} == {one["x-token"] for one in collector.headers}


async def test_a_collector_that_is_down_harms_nothing(tmp_path: Path, asked: Any) -> None:
    """All is delivered, and the end is in time; one line tells of it, without header or path."""
    port = unused_port()
    async with Simulator() as sim, Receiver() as receiver:
        asked(
            f"http://user:s3cret@127.0.0.1:{port}/s3cret",
            OTEL_EXPORTER_OTLP_HEADERS="authorization=Bearer%20s3cret",
            OTEL_EXPORTER_OTLP_TIMEOUT="3",
        )
        with capture_logs() as logs:
            async with running(environment(sim, receiver, tmp_path)):
                await sim.asked(2)
                sim.world.plant(a_life(*LIFE))
                await receiver.until(lambda got: is_told("batch.completed", got))

    told = [one for one in logs if one["event"].startswith("traces.")]
    (first,) = [one for one in told if one["event"] == "traces.unsent" and _warns(one)]
    assert (f"127.0.0.1:{port}", "ConnectionError") == (first["collector"], first["reason"])
    assert "s3cret" not in repr(logs)


def _warns(entry: Mapping[str, Any]) -> bool:
    return bool(entry["log_level"] == "warning")


async def test_a_collector_that_refuses_is_told_by_its_status(tmp_path: Path, asked: Any) -> None:
    """And that it takes spans again."""
    async with Collector() as collector, Simulator() as sim, Receiver() as receiver:
        asked(collector.url)
        collector.answer = 401
        with capture_logs() as logs:
            async with running(environment(sim, receiver, tmp_path)):
                await collector.until(lambda it: len(it.headers) >= 3)
                collector.answer = 200
                await collector.until(lambda it: bool(it.spans))

    warned = [one["reason"] for one in logs if one["event"] == "traces.unsent" and _warns(one)]
    assert ["HTTP 401"] == warned
    assert 1 == sum(one["event"] == "traces.recovered" for one in logs)


OFF = """
import asyncio, json, sys
from pathlib import Path

from batchwatch.simulator import Simulator, a_life
from tests.support.daemon import environment, running
from tests.support.receiver import Receiver


async def main():
    async with Simulator() as sim, Receiver() as receiver:
        async with running(environment(sim, receiver, Path(sys.argv[1]))):
            await sim.asked(2)
            sim.world.plant(a_life(("PENDING", 0.0), ("COMPLETED", 0.2)))
            await receiver.until(bool)
    header = receiver.received[0].headers["traceparent"]
    print(json.dumps({
        "loaded": [one for one in sys.modules if one.startswith("opentelemetry")],
        "header": header, "id": receiver.received[0].id,
    }))


asyncio.run(main())
"""


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_TRACES_EXPORTER": "none"},
    ],
    ids=["unset", "disabled", "none"],
)
def test_nothing_is_imported_while_traces_are_off(
    variables: dict[str, str], tmp_path: Path
) -> None:
    """Who does not ask for them pays neither time nor memory; and headers are as ever."""
    done = subprocess.run(
        [sys.executable, "-c", OFF, str(tmp_path)],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )

    assert 0 == done.returncode, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert [] == told["loaded"]
    assert told["id"].removeprefix("evt_") == told["header"].split("-")[1]
