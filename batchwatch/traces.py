"""Traces by OpenTelemetry, for whom the standard variables ask for them; else of no cost.

Nothing of OpenTelemetry is imported while they are off: it takes 200 ms and some megabytes.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import re
import threading
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from batchwatch.log import get_logger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span as OtelSpan
    from opentelemetry.trace import Tracer

    Attributes = Mapping[str, str | int | float | bool | None]

log = get_logger()

FLUSH: Final = 3.0  # seconds at the end for what is not exported yet
NAME: Final = "batchwatch"  # of the service, unless OTEL_SERVICE_NAME is set
PACKAGES: Final = "pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-http"
TOLD_LIMIT: Final = 50  # different complaints of the SDK that are told
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL: Final = "http/protobuf"
_EXPORTER: Final = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
# https://www.w3.org/TR/trace-context/#traceparent-header: neither id may be zero.
_FORM: Final = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")


class Span:
    """Something that goes on, as it is told; to nobody, while traces are off."""

    __slots__ = ("_span",)

    def __init__(self, span: OtelSpan | None = None) -> None:
        self._span = span

    def note(self, attributes: Attributes) -> None:
        """Say more of it; what is None is left out."""
        if self._span is not None:
            self._span.set_attributes(_present(attributes))

    def failed(self, reason: str) -> None:
        """Say that it failed; ``reason`` is a line for people, and never a secret."""
        if self._span is not None:
            from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415  # only where they are on

            self._span.set_status(Status(StatusCode.ERROR, reason))


class Traces:
    """Tells what goes on, as spans; without a tracer, of nothing and to nobody.

    A span that is begun within another one, in its task or in one that it
    began, is a part of it. Where a restart or a queue lies between two, the
    first one's :meth:`here` is kept, and is the other's ``parent``.
    """

    def __init__(self, tracer: Tracer | None = None) -> None:
        self._tracer = tracer

    @property
    def is_on(self) -> bool:
        """Whether anybody is told."""
        return self._tracer is not None

    @contextmanager
    def span(
        self,
        name: str,
        attributes: Attributes | None = None,
        *,
        parent: str | None = None,
        is_request: bool = False,
    ) -> Iterator[Span]:
        """Tell of what is done within; ``parent`` is a traceparent, if it is not the present one.

        ``is_request`` is for what somebody else answers. What is raised makes
        it a failure, named by its kind alone: texts may hold what is secret.
        """
        if self._tracer is None:
            yield _UNTOLD
            return
        from opentelemetry import trace  # noqa: PLC0415  # only where they are on

        kind = trace.SpanKind.CLIENT if is_request else trace.SpanKind.INTERNAL
        span = self._tracer.start_span(
            name, _context(parent), kind=kind, attributes=_present(attributes or {})
        )
        told = Span(span)
        with trace.use_span(
            span, end_on_exit=True, record_exception=False, set_status_on_exception=False
        ):
            try:
                yield told
            except Exception as error:
                told.failed(type(error).__name__)
                raise

    def mark(self, name: str, attributes: Attributes) -> None:
        """Tell of a moment, as a part of the present span."""
        if self._tracer is not None:
            self._tracer.start_span(name, attributes=_present(attributes)).end()

    def here(self, otherwise: str | None = None) -> str | None:
        """The present span as a W3C traceparent.

        Without one, that of a new trace with a moment named ``otherwise``.
        """
        if self._tracer is None:
            return None
        from opentelemetry.trace import get_current_span  # noqa: PLC0415  # only where they are on

        span = get_current_span()
        if not span.get_span_context().is_valid:
            if otherwise is None:
                return None
            span = self._tracer.start_span(otherwise)
            span.end()
        context = span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


OFF: Final = Traces()
_UNTOLD: Final = Span()


def are_wanted(environ: Mapping[str, str]) -> bool:
    """Whether the standard variables ask for traces: by naming where they go."""
    return (
        any(environ.get(name, "").strip() for name in _ENDPOINTS)
        and environ.get("OTEL_SDK_DISABLED", "").strip().lower() != "true"
        and environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() != "none"
    )


def trouble(environ: Mapping[str, str]) -> str | None:
    """Why traces that are wanted cannot be had, and how to mend it."""
    if not are_wanted(environ):
        return None
    exporters = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() or "otlp"
    if "otlp" not in (one.strip() for one in exporters.split(",")):
        return "OTEL_TRACES_EXPORTER: batchwatch exports traces by otlp alone; unset it"
    for name in _PROTOCOLS:
        protocol = environ.get(name, "").strip().lower()
        if protocol == _PROTOCOL:
            break
        if protocol:
            return (
                f"{name}: batchwatch exports traces by {_PROTOCOL} alone, for which collectors "
                f"listen on port 4318; set it to {_PROTOCOL}, or unset it"
            )
    try:
        is_there = importlib.util.find_spec(_EXPORTER) is not None
    except ModuleNotFoundError:
        is_there = False
    return None if is_there else f"they need packages that are missing: {PACKAGES}"


@asynccontextmanager
async def opened(environ: Mapping[str, str], *, version: str) -> AsyncIterator[Traces]:
    """Traces as the variables ask for them, for as long as the context is held.

    ``version`` is told of the service, unless the variables tell another.

    What keeps them off is told, and is no reason not to start: these
    variables are often set for a whole machine, by those who do not know us.
    At the end what is not exported yet gets three seconds.
    """
    why = trouble(environ)
    if why is not None:
        log.warning("traces.off", reason=why)
    if why is not None or not are_wanted(environ):
        yield OFF
        return
    with _heard() as ear:
        try:
            provider, exporter = _provider(ear, environ, version)
        except Exception as error:  # noqa: BLE001  # whatever the SDK and its plugins make of them
            log.warning("traces.off", reason=f"the variables OTEL_… are wrong: {error}")
            yield OFF
            return
        try:
            yield Traces(provider.get_tracer(NAME, version))
        finally:
            await _flush(provider, exporter)


def _provider(
    ear: _Ear, environ: Mapping[str, str], version: str
) -> tuple[TracerProvider, SpanExporter]:
    """The SDK, set up by the variables; it reads them from the process by itself."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415  # only where they are on
        OTLPSpanExporter,
    )
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import (  # noqa: PLC0415
        BatchSpanProcessor,
        SpanExporter,
        SpanExportResult,
    )

    class Told(SpanExporter):
        """Exports as its own does, and has it told when that begins to fail or to work again."""

        def __init__(self) -> None:
            self._exporter = OTLPSpanExporter()

        def export(self, spans: Any) -> SpanExportResult:
            with ear.listening():
                result = self._exporter.export(spans)
            ear.exported(len(spans), well=result is SpanExportResult.SUCCESS)
            return result

        def shutdown(self) -> None:
            self._exporter.shutdown()  # type: ignore[no-untyped-call]  # the library left it so

    url = next(url for name in _ENDPOINTS if (url := environ.get(name, "").strip()))
    ear.collector = _host(url)
    resource = Resource({"service.version": version}).merge(Resource.create())
    if str(resource.attributes.get("service.name", "")).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": NAME}))
    exporter = Told()
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider, exporter


async def _flush(provider: TracerProvider, exporter: SpanExporter) -> None:
    """Export what is left, for so long and no longer.

    In a thread of its own that nobody waits for at the end of the process,
    which the pool's are not.
    """
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def shut_down() -> None:
        provider.shutdown()
        with suppress(RuntimeError):  # it took too long, and the loop is closed
            loop.call_soon_threadsafe(done.set)

    threading.Thread(target=shut_down, name="traces.flush", daemon=True).start()
    try:
        async with asyncio.timeout(FLUSH):
            await done.wait()
    except TimeoutError:
        log.warning("traces.unflushed", seconds=FLUSH)
        exporter.shutdown()  # so that it does not try again


class _Ear(logging.Handler):
    """Hears what the SDK says in the standard library's log, and tells it in a bounded manner.

    Its texts quote headers and URLs, so nothing that is put into them is
    told, but for numbers and the kinds of errors.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.collector = "?"
        self._told: set[str] = set()
        self._exporting: int | None = None  # the thread that does
        self._why = ""
        self._failing = False
        self._lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Keep why an export fails; tell of anything else once."""
        inserts = record.args if isinstance(record.args, tuple) else ()
        if record.thread == self._exporting:
            for one in inserts:
                if isinstance(one, BaseException):
                    self._why = type(one).__name__
                elif type(one) is int:
                    self._why = f"HTTP {one}"
            return
        text = re.sub(r"%[-+ #0-9.]*[a-zA-Z]", "…", str(record.msg))[:200]
        if text not in self._told and len(self._told) < TOLD_LIMIT:
            self._told.add(text)
            log.warning("traces.doubted", reason=text)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take what is said within for why an export fails."""
        self._exporting, self._why = threading.get_ident(), ""
        try:
            yield
        finally:
            self._exporting = None

    def exported(self, count: int, *, well: bool) -> None:
        """Tell of the first export in a row that fails, and of the first one that does not."""
        if well:
            if self._failing:
                log.info("traces.recovered", collector=self.collector, lost=self._lost)
            self._failing, self._lost = False, 0
            return
        self._lost += count
        (log.debug if self._failing else log.warning)(
            "traces.unsent",
            collector=self.collector,
            spans=count,
            reason=self._why or "it took none in time",
        )
        self._failing = True


@contextmanager
def _heard() -> Iterator[_Ear]:
    """Have the SDK heard by us alone, within."""
    ear, logger = _Ear(), logging.getLogger("opentelemetry")
    propagates, logger.propagate = logger.propagate, False
    logger.addHandler(ear)
    try:
        yield ear
    finally:
        logger.removeHandler(ear)
        logger.propagate = propagates


def _context(parent: str | None) -> Context | None:
    """Where a span belongs that has this parent; None for the present one."""
    found = _FORM.fullmatch(parent) if parent else None
    if found is None:
        return None
    from opentelemetry import trace  # noqa: PLC0415  # only where they are on

    trace_id, span_id, flags = (int(one, 16) for one in found.groups())
    context = trace.SpanContext(
        trace_id, span_id, is_remote=True, trace_flags=trace.TraceFlags(flags)
    )
    return trace.set_span_in_context(trace.NonRecordingSpan(context))


def _present(attributes: Attributes) -> dict[str, str | int | float | bool]:
    return {name: value for name, value in attributes.items() if value is not None}


def _host(url: str) -> str:
    """Host and port of ``url``; the rest of it may be secret."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "?", parts.port
    except ValueError:
        return "?"
    return f"{host}:{port}" if port else host
