"""Logs: one line for one fact, JSON for machines, and never a secret."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import logging
import re
import sys
from typing import TYPE_CHECKING, Any, Literal

import pytest
import structlog

from batchwatch.domain import health
from batchwatch.log import configure, get_logger
from batchwatch.simulator import FileLife, Simulator, Switch, a_life
from tests.support.daemon import ROOT, environment, running
from tests.support.receiver import SECRET, Receiver, says

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aiohttp import web

    from batchwatch.log import Style


class Terminal(io.StringIO):
    """A stream that people look at."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Logging belongs to the process; leave it as it was found."""
    root = logging.getLogger()
    config, handlers, level = structlog.get_config(), root.handlers[:], root.level
    yield
    structlog.configure(**config)
    root.handlers[:] = handlers
    root.setLevel(level)


def lines_of(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object_with_when_how_grave_and_what_first() -> None:
    """For those who read it with their eyes; line breaks and quotes stay inside."""
    stream = io.StringIO()
    configure(style="json", stream=stream)

    get_logger().info("batch.changed", batch_id='bat-"1"', reason="two\nlines", odd=object)

    (line,) = lines_of(stream)
    assert ["at", "level", "event"] == list(line)[:3]
    assert ("info", "batch.changed") == (line["level"], line["event"])
    assert ('bat-"1"', "two\nlines") == (line["batch_id"], line["reason"])
    assert line["at"].endswith("Z")


def test_text_that_is_no_text_does_not_stop_a_line() -> None:
    """A lone surrogate came over some wire; the log must be able to say so."""
    stream = io.StringIO()
    configure(style="json", stream=stream)

    get_logger().warning("poll.failed", reason="\ud800 \x00 \x1b[31m", raw=b"\xff")

    assert "\ud800 \x00 \x1b[31m" == lines_of(stream)[0]["reason"]
    assert stream.getvalue().isascii()


@pytest.mark.parametrize(
    ("level", "told"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_what_is_less_important_than_the_level_is_not_written(level: str, told: list[str]) -> None:
    """As the setting says."""
    stream = io.StringIO()
    configure(style="json", level=level, stream=stream)
    log = get_logger()

    for method in ("debug", "info", "warning", "error"):
        getattr(log, method)("poll.done")

    assert told == [line["level"] for line in lines_of(stream)]


def test_libraries_are_heard_in_the_same_form_when_something_is_wrong() -> None:
    """And not below: their chatter holds URLs."""
    stream = io.StringIO()
    configure(style="json", level="debug", stream=stream)
    library = logging.getLogger("aiohttp.server")

    library.info("chatter")
    library.warning("odd %s", "thing")
    try:
        int("x")
    except ValueError:
        library.exception("Error handling request")

    warned, failed = lines_of(stream)
    assert ("odd thing", "warning") == (warned["event"], warned["level"])
    assert ("Error handling request", "error") == (failed["event"], failed["level"])
    assert failed["exception"].startswith("Traceback (most recent call last)")
    assert "ValueError: invalid literal" in failed["exception"]


@pytest.mark.parametrize(
    ("style", "stream", "written"),
    [
        ("auto", io.StringIO, "as JSON"),
        ("auto", Terminal, "in colour"),
        ("json", Terminal, "as JSON"),
        ("console", io.StringIO, "plain"),
    ],
)
def test_auto_is_json_unless_somebody_looks(
    style: Style, stream: type[io.StringIO], written: str
) -> None:
    """In a container nobody does; and a file gets no colours."""
    log = stream()
    configure(style=style, stream=log)

    get_logger().info("daemon.started", listen="http://127.0.0.1:8080")

    text = log.getvalue()
    assert ("as JSON" == written) == text.startswith("{")
    assert ("in colour" == written) == ("\x1b" in text)
    assert "daemon.started" in text
    assert 1 == text.count("\n")


@pytest.mark.parametrize(("value", "written"), [("1", "plain"), ("", "in colour")])
def test_a_terminal_gets_no_colours_where_they_are_not_wanted(
    value: str, written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """https://no-color.org: the variable counts when it is not empty."""
    monkeypatch.setenv("NO_COLOR", value)
    log = Terminal()
    configure(style="console", stream=log)

    get_logger().warning("poll.failed")

    assert ("in colour" == written) == ("\x1b" in log.getvalue())


def test_a_line_on_a_terminal_begins_with_when_it_was() -> None:
    """So that lines can be compared; what follows differs in length."""
    log = io.StringIO()
    configure(style="console", stream=log)

    get_logger().info("batch.changed", watch="default")

    assert re.match(r"\d{4}-\d\d-\d\dT\S+Z \[info +\] batch\.changed ", log.getvalue())


@pytest.mark.parametrize("style", ["json", "console"])
def test_what_has_no_value_is_not_written(style: Style) -> None:
    """A batch that is seen for the first time has no previous status, and no `null` either."""
    log = io.StringIO()
    configure(style=style, stream=log)

    get_logger().info("batch.changed", previous=None, failures=0, reason="")

    assert "previous" not in log.getvalue()
    assert "failures" in log.getvalue()
    assert "reason" in log.getvalue()


def test_to_configure_again_replaces_what_was() -> None:
    """No line is written twice, ours or a library's."""
    first, second = io.StringIO(), io.StringIO()
    configure(style="json", stream=first)
    configure(style="json", stream=second)

    get_logger().info("daemon.started")
    logging.getLogger("asyncio").warning("slow")

    assert "" == first.getvalue()
    assert ["daemon.started", "slow"] == [line["event"] for line in lines_of(second)]


BUG = """
{first}
import logging, os
from batchwatch.log import configure, get_logger

def send(url):
    raise KeyError("a bug")

configure(style="{style}")
for log in (get_logger(), logging.getLogger("aiohttp.server")):
    try:
        send(os.environ["URL"])
    except KeyError:
        log.exception("delivery.broke")
"""


@pytest.mark.parametrize(
    ("style", "first"),
    [
        ("json", ""),
        ("json", "import structlog"),
        ("console", ""),
        ("console", "import structlog"),
    ],
)
async def test_a_traceback_shows_no_values(style: str, first: str) -> None:
    """Local variables hold URLs, keys and tokens; and who imported what before must not matter."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        BUG.format(first=first, style=style),
        cwd=ROOT,
        env={"URL": "https://hooks.slack.com/services/s3cret"},
        stderr=asyncio.subprocess.PIPE,
    )
    _, written = await process.communicate()

    assert (0, 2) == (process.returncode, written.count(b"KeyError: 'a bug'"))
    assert b"s3cret" not in written


KEY = "llx-key-s3cret"
TOKEN = "token-s3cret-0123456789"
PATH = "/services/T0001/B0002/path-s3cret"
HEADER = "header-s3cret"


@pytest.mark.parametrize("style", ["json", "console"])
async def test_no_secret_is_in_the_log_of_a_daemon_on_a_bad_day(
    style: Literal["json", "console"], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Upstream and receivers fail in every way they know, and repeat what they were sent."""
    monkeypatch.setattr(health, "TRIES_TO_OPEN", 1_000)  # all of it, and at once
    stream = io.StringIO()
    configure(style=style, level="debug", stream=stream)

    async def drop(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.close()
        return await says(200)(request)

    async def echo(request: web.Request) -> web.StreamResponse:
        return await says(500, f"POST {request.path_qs}\n{request.headers}")(request)

    async with Simulator(api_key=KEY) as sim, Receiver() as receiver:
        receiver.always = echo
        receiver.answers = [drop, says(302, Location=f"{receiver.url}{PATH}?again"), says(429)] * 3
        environ = environment(
            sim,
            receiver,
            tmp_path,
            LLAMA_CLOUD_API_KEY=KEY,
            BATCHWATCH_API_TOKEN=TOKEN,
            BATCHWATCH_ENDPOINTS__HOOK__URL=f"{receiver.url}{PATH}?token=query-s3cret",
            BATCHWATCH_ENDPOINTS__HOOK__RETRY_SCHEDULE="0s,10ms,10ms",
            BATCHWATCH_ENDPOINTS__HOOK__HEADERS__X_KEY=HEADER,
            BATCHWATCH_ENDPOINTS__CHAT__URL=f"{receiver.url}{PATH}",
            BATCHWATCH_ENDPOINTS__CHAT__TYPE="slack",
            BATCHWATCH_ENDPOINTS__CHAT__RETRY_SCHEDULE="0s,10ms,10ms",
            BATCHWATCH_ENDPOINTS__CHAT__RATE_LIMIT="1000/s",
            BATCHWATCH_ENDPOINTS__GONE__URL=f"http://127.0.0.1:1{PATH}",
            BATCHWATCH_ROUTES__ALL__ENDPOINTS="*",
        )
        for kind in ("5xx", "html", "reset", "truncated", "429-retry-after"):
            sim.faults.switch_on(Switch(kind=kind, probability=0.3))
        sim.faults.switch_on(Switch(kind="status", status=401, for_requests=3))
        async with running(environ):
            await sim.asked(5)
            sim.faults.clear()
            await sim.asked(7)
            failed = FileLife(mapped_after=0, error_message="no pages")
            sim.world.plant(
                a_life(("PENDING", 0), ("RUNNING", 0.3), ("COMPLETED", 0.6), files=(failed,))
            )
            await receiver.until(
                lambda got: 20 <= len(got) and any("COMPLETED" in str(one.body) for one in got)
            )

    text = stream.getvalue()
    for event in ("daemon.started", "poll.failed", "delivery.attempted", "daemon.stopped"):
        assert event in text
    for secret in ("s3cret", SECRET.removeprefix("whsec_"), "/services/"):
        assert secret not in text
    if style == "json":
        assert all({"at", "level", "event"} <= line.keys() for line in lines_of(stream))


class FullDisk(io.StringIO):
    """A stream as it is when there is no room."""

    def write(self, _text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def flush(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("style", ["json", "console"])
def test_a_log_that_cannot_be_written_ends_nothing(style: Style) -> None:
    """It often lies on the disk that is full; the work is worth more than its words."""
    configure(style=style, level="debug", stream=FullDisk())

    get_logger().error("store.failed", reason="full")
    logging.getLogger("aiohttp").error("likewise")
