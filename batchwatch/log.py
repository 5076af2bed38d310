"""Logs: JSON for machines, colours for a terminal, and never a secret."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from typing import TYPE_CHECKING, Any, Literal, TextIO, cast

# Where rich is installed, structlog imports it for tracebacks in colour: 40 ms and 6 MB that no
# daemon needs. It looks for it only while it is imported itself.
_rich = sys.modules.pop("rich", None)
sys.modules["rich"] = None  # type: ignore[assignment]  # how Python is told that there is none
try:
    import structlog
finally:
    del sys.modules["rich"]
    if _rich is not None:
        sys.modules["rich"] = _rich

if TYPE_CHECKING:
    from structlog.typing import EventDict, FilteringBoundLogger, Processor

Style = Literal["json", "console", "auto"]


def get_logger() -> FilteringBoundLogger:
    """A logger; events are ``noun.verb_past``, one for each unit of work."""
    logger: FilteringBoundLogger = structlog.get_logger()
    return logger


class _Unbroken:
    """A stream that may fail to write, and must not take the daemon with it.

    Logs often lie on the disk that has just become full; what cannot be
    logged is lost, and what is owed must not be.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except (OSError, ValueError):  # the latter for a stream that was closed
            return 0

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


def configure(*, style: Style = "auto", level: str = "info", stream: TextIO | None = None) -> None:
    """Set up logging for the process, the standard library's included.

    ``auto`` is ``console`` on a terminal and ``json`` elsewhere.
    """
    stream = stream or sys.stderr
    console = style == "console" or (style == "auto" and stream.isatty())
    renderer: list[Processor] = (
        [
            structlog.dev.ConsoleRenderer(
                colors=stream.isatty() and not os.environ.get("NO_COLOR"),  # https://no-color.org
                pad_event_to=22,
                timestamp_key="at",
                # The others show local variables, and those may be secrets.
                exception_formatter=structlog.dev.plain_traceback,
            )
        ]
        if console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    threshold = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        _readable_order,
    ]
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", _Unbroken(stream))),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(_Unbroken(stream))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=_foreign(renderer))
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Libraries are heard when something is wrong; their chatter holds URLs, and is noise.
    root.setLevel(max(threshold, logging.WARNING))


def _readable_order(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """When, how grave and what come first, for those who read JSON with their eyes.

    What has no value is left out: it says nothing, and takes a reader's time.
    """
    first = {name: event.pop(name) for name in ("at", "level", "event") if name in event}
    return {**first, **{name: value for name, value in event.items() if value is not None}}


def _foreign(renderer: list[Processor]) -> list[Any]:
    return [structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer]
