"""Traces: spans that hang together, nothing while they are off, and why they are off."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from structlog.testing import capture_logs

from batchwatch.traces import OFF, Traces, are_wanted, opened, trouble

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

TO = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}
UNSAMPLED = f"00-{'a' * 32}-{'b' * 16}-00"


class Told:
    """Traces, and what they told."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.traces = Traces(provider.get_tracer("test"))

    def span(self, name: str) -> ReadableSpan:
        (found,) = [one for one in self._exporter.get_finished_spans() if one.name == name]
        return found

    @property
    def names(self) -> list[str]:
        return [one.name for one in self._exporter.get_finished_spans()]


def test_while_they_are_off_there_is_no_trace() -> None:
    """Whoever is given them may speak to them all the same."""
    with OFF.span("poll", {"n": 1}) as span:
        span.note({"n": 2})
        span.failed("no")
        OFF.mark("moment", {})

        assert OFF.here() is None
        assert OFF.here(otherwise="moment") is None
    assert not OFF.is_on


def test_a_span_within_another_is_a_part_of_it() -> None:
    """And so is a moment; what is None is not told."""
    told = Told()
    with told.traces.span("poll", {"watch": "w", "project": None}) as span:
        told.traces.mark("moment", {"n": 1})
        with told.traces.span("request", is_request=True):
            pass
        span.note({"pages": 2})

    poll = told.span("poll")
    assert {"watch": "w", "pages": 2} == poll.attributes
    assert poll.context
    parents = {one: told.span(one).parent for one in ("moment", "request")}
    assert {poll.context.span_id} == {one.span_id for one in parents.values() if one}


def test_what_was_kept_is_the_parent_of_what_comes_later() -> None:
    """As a traceparent, which a store can hold."""
    told = Told()
    with told.traces.span("poll"):
        kept = told.traces.here()
    with told.traces.span("deliver", parent=kept):
        sent = told.traces.here()

    assert kept
    assert sent
    assert kept.split("-")[1] == sent.split("-")[1]
    parent = told.span("deliver").parent
    assert parent
    assert kept.split("-")[2] == f"{parent.span_id:016x}"


def test_without_a_present_span_a_moment_is_made_if_it_is_asked_for() -> None:
    """So that all deliveries of an event that no poll made are one trace, too."""
    told = Told()

    assert told.traces.here() is None
    assert told.traces.here(otherwise="daemon.heartbeat")
    assert ["daemon.heartbeat"] == told.names


def test_a_part_of_what_is_not_sampled_is_not_told() -> None:
    """And passes on that it is not."""
    told = Told()
    with told.traces.span("deliver", parent=UNSAMPLED):
        here = told.traces.here()

    assert here
    assert here.endswith("-00")
    assert here.startswith(UNSAMPLED[:35])
    assert [] == told.names


@given(text=st.one_of(st.text(), st.just(UNSAMPLED[:-1]), st.just(UNSAMPLED.replace("a", "0"))))
def test_a_parent_that_is_none_begins_a_trace(text: str) -> None:
    """Whatever stands in the store must not keep a delivery from being sent."""
    told = Told()
    with told.traces.span("deliver", parent=text):
        pass

    assert told.span("deliver").parent is None


def test_what_is_raised_is_told_by_its_kind_alone() -> None:
    """Its text may hold what is secret; and it is raised on."""
    told = Told()
    with pytest.raises(ValueError, match="s3cret"), told.traces.span("poll"):
        raise ValueError("s3cret")

    assert "ValueError" == told.span("poll").status.description
    assert "s3cret" not in told.span("poll").to_json()


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, False),
        (TO, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, True),
        ({**TO, "OTEL_SDK_DISABLED": "TRUE"}, False),
        ({**TO, "OTEL_SDK_DISABLED": "false"}, True),
        ({**TO, "OTEL_TRACES_EXPORTER": "none"}, False),
        ({**TO, "OTEL_TRACES_EXPORTER": "otlp"}, True),
    ],
)
def test_they_are_on_where_the_standard_variables_say_where_to(
    environ: dict[str, str], *, wanted: bool
) -> None:
    """By the specification of OpenTelemetry."""
    assert wanted is are_wanted(environ)
    assert trouble(environ) is None


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL"),
        ({"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json"}, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER"),
    ],
)
async def test_what_cannot_be_is_told_once_and_keeps_nobody_from_starting(
    more: dict[str, str], named: str
) -> None:
    """These variables are often set for a whole machine."""
    with capture_logs() as logs:
        async with opened({**TO, **more}, version="1") as traces:
            assert not traces.is_on

    (entry,) = logs
    assert ("traces.off", "warning") == (entry["event"], entry["log_level"])
    assert entry["reason"].startswith(named)


def test_the_protocol_of_traces_goes_before_that_of_all() -> None:
    """By the specification."""
    both = {
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
    }

    assert trouble({**TO, **both}) is None


@pytest.mark.parametrize("missing", ["", ".trace_exporter"], ids=["package", "module"])
async def test_without_the_extra_it_is_said_how_to_get_it(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a line that can be pasted."""
    package = "opentelemetry.exporter.otlp.proto.http"
    monkeypatch.delitem(sys.modules, f"{package}.trace_exporter", raising=False)
    monkeypatch.setitem(sys.modules, f"{package}{missing}", None)
    with capture_logs() as logs:
        async with opened(TO, version="1") as traces:
            assert not traces.is_on

    packages = "opentelemetry-sdk opentelemetry-exporter-otlp-proto-http"
    assert [f"they need packages that are missing: pip install {packages}"] == [
        one["reason"] for one in logs
    ]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "-1", "max_queue_size"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "99999999999999999999", "too large"),
        ("OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER", "none", "credential_provider"),
    ],
)
async def test_a_value_that_the_sdk_does_not_take_keeps_them_off(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    """And not the daemon, whatever the SDK raises over it."""
    monkeypatch.setenv(name, value)
    with capture_logs() as logs:
        async with opened(TO, version="1") as traces:
            assert not traces.is_on

    assert said in logs[0]["reason"]


async def test_what_the_sdk_says_is_told_once_and_without_what_it_quotes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It quotes headers that it does not understand, and those are secret."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "s3cret")
    logger = logging.getLogger("opentelemetry.anything")
    with capture_logs() as logs:
        async with opened(TO, version="1") as traces:
            for _ in range(3):
                logger.warning("Not understood: %s", "s3cret")

            assert traces.is_on

    reasons = [one["reason"] for one in logs if one["event"] == "traces.doubted"]
    assert 1 == reasons.count("Not understood: …")
    assert any("eader" in one for one in reasons)
    assert "s3cret" not in repr(logs)
    assert logging.getLogger("opentelemetry").propagate
