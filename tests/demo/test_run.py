"""The demo itself: every process real, on a simulated LlamaCloud that lives several times faster.

Each run must leave nothing behind: no process, no folder, and no terminal in disorder.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from batchwatch import demo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HEIGHT, WIDTH = 24, 80


class Lines(io.StringIO):
    """A stdout that calls back when a text is written."""

    def __init__(self, awaited: str, stop: asyncio.Event) -> None:
        super().__init__()
        self._awaited = awaited
        self._stop = stop

    def write(self, text: str) -> int:
        if self._awaited in text:
            self._stop.set()
        return super().write(text)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the demo has its folder, which must be gone afterwards."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    yield tmp_path
    assert [] == list(tmp_path.iterdir())


@pytest.mark.usefixtures("temporary")
async def test_a_chaotic_run_keeps_every_promise(capsys: pytest.CaptureFixture[str]) -> None:
    """The daemon killed several times, receivers that fail: nothing lost, nothing out of order."""
    code = await demo.run(seed=11, chaos=True, plain=True, stop=asyncio.Event(), speed=10.0)

    said = capsys.readouterr().out
    assert "Nothing lost, all in order, every signature verified." in said
    assert "daemon killed" in said
    assert 0 == code


async def test_a_run_that_is_kept_says_what_to_try_until_it_is_stopped(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then it is as if Ctrl-C had been pressed at any other time."""
    stop = asyncio.Event()
    said = Lines("/sim/history", stop)
    monkeypatch.setattr(sys, "stdout", said)

    code = await demo.run(seed=7, keep=True, plain=True, stop=stop, speed=12.0)

    text = said.getvalue()
    assert "Nothing lost" in text
    assert f"BATCHWATCH_DATA_DIR={temporary}" in text
    assert "/api/v2/batches" in text
    assert 130 == code


@pytest.mark.usefixtures("temporary")
async def test_a_child_that_dies_is_told_with_its_last_words(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Here the simulator, which is asked for what it does not have."""
    code = await demo.run(scenario="nonsense", plain=True, stop=asyncio.Event())

    said = capsys.readouterr().out
    assert "the simulator ended at once, with 2. Its last words:" in said
    assert "there is no scenario 'nonsense'" in said
    assert 1 == code


@pytest.mark.usefixtures("temporary")
def test_ctrl_c_gives_the_terminal_back_and_leaves_nobody_behind() -> None:
    """It reaches all processes at once, as on a real terminal, and comes twice."""
    ours, its = os.openpty()
    environment = {"TERM": "xterm-256color", "LINES": str(HEIGHT), "COLUMNS": str(WIDTH)}
    run = subprocess.Popen(
        [sys.executable, "-m", "batchwatch", "demo", "--seed", "7"],
        stdin=its,
        stdout=its,
        stderr=its,
        env=os.environ | environment,
        start_new_session=True,
    )
    os.close(its)

    seen = read_until(ours, b"batch.pending")
    os.killpg(run.pid, signal.SIGINT)
    os.killpg(run.pid, signal.SIGINT)
    seen += read_until(ours, b"")

    assert 130 == run.wait()
    assert seen.index(b"\x1b[?1049h") < seen.index(b"\x1b[?1049l")  # the other screen and back
    assert seen.rindex(b"\x1b[?25l") < seen.rindex(b"\x1b[?25h")  # the cursor is seen again
    assert b"Traceback" not in seen
    assert b" Stopped after " in seen[seen.index(b"\x1b[?1049l") :]  # where it stays
    with pytest.raises(ProcessLookupError):  # its group is empty
        os.killpg(run.pid, 0)


def read_until(terminal: int, awaited: bytes) -> bytes:
    """What is written to the terminal, until ``awaited`` is, or to the end if that is nothing."""
    seen = b""
    while not awaited or awaited not in seen:
        chunk = b""
        with contextlib.suppress(OSError):  # how Linux says that nobody has it open any more
            chunk = os.read(terminal, 65_536)
        if not chunk:
            os.close(terminal)
            return seen
        seen += chunk
    return seen
