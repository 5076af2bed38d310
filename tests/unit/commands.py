"""``batchwatch`` as it is called: in a process of its own, or in this one where that is enough."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog
from typer.testing import CliRunner

from batchwatch.cli import app
from tests.support.daemon import ROOT

if TYPE_CHECKING:
    import signal
    from collections.abc import AsyncIterator, Mapping

    from typer.testing import Result


class Daemon:
    """A command in a process of its own, and what it says on its way."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said: list[str] = []

    async def says(self, word: str) -> str:
        """Wait for the line with ``word`` in it, on stderr."""
        assert self.process.stderr is not None
        while line := (await self.process.stderr.readline()).decode():
            self.said.append(line)
            if word in line:
                return line
        raise AssertionError(f"it ended without {word}: {''.join(self.said)}")

    async def ends(self) -> tuple[int, str]:
        """Its exit code, and all that it said on stderr."""
        assert self.process.stderr is not None
        rest = (await self.process.stderr.read()).decode()
        return await self.process.wait(), "".join(self.said) + rest

    def is_sent(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


@asynccontextmanager
async def started(environ: Mapping[str, str], *command: str) -> AsyncIterator[Daemon]:
    """``batchwatch`` with this command line; killed at the end, if it still runs by then."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "batchwatch", *command),
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environ},
        cwd=ROOT,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield Daemon(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def called(*command: str, environ: Mapping[str, str] | None = None) -> Result:
    """A command that ends by itself, in this process; nothing of our own environment counts."""
    clean = dict.fromkeys(os.environ) | {"PATH": os.environ["PATH"]} | dict(environ or {})
    root = logging.getLogger()
    config, handlers, level = structlog.get_config(), root.handlers[:], root.level
    structlog.reset_defaults()  # as a process begins
    try:
        return CliRunner().invoke(app, command, env=clean, catch_exceptions=False)
    finally:
        structlog.configure(**config)
        root.handlers[:] = handlers
        root.setLevel(level)
