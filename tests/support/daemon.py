"""The daemon in a test: in this process, or in one that can be killed."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from batchwatch import daemon
from batchwatch.clock import Clock
from batchwatch.settings import load
from tests.support.receiver import SECRET, Receiver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from batchwatch.simulator import Simulator

ROOT = Path(__file__).parents[2]


def environment(
    sim: Simulator | str, receiver: Receiver, folder: Path, **more: str
) -> dict[str, str]:
    """All it takes to run, with short times; ``more`` overrides."""
    url = sim if isinstance(sim, str) else sim.url
    return {
        "LLAMA_CLOUD_API_KEY": "llx-simulator",
        "LLAMA_CLOUD_BASE_URL": url,
        "BATCHWATCH_ENDPOINTS__HOOK__URL": f"{receiver.url}/hook",
        "BATCHWATCH_ENDPOINTS__HOOK__SECRET": SECRET,
        "BATCHWATCH_ENDPOINTS__HOOK__RETRY_SCHEDULE": ",".join(["100ms"] * 30),
        "BATCHWATCH_DATA_DIR": str(folder),
        "BATCHWATCH_POLL_INTERVAL": "100ms",
        "BATCHWATCH_LISTEN": "127.0.0.1:0",
        "BATCHWATCH_LOG_FORMAT": "json",
        "BATCHWATCH_WATCHES__DEFAULT__REQUESTS_PER_MINUTE": "60000",
    } | more


@asynccontextmanager
async def running(environ: Mapping[str, str], *, clock: Clock | None = None) -> AsyncIterator[None]:
    """The daemon in this process, stopped at the end as by SIGTERM."""
    stop = asyncio.Event()
    settings = load(environ=environ)
    task = asyncio.create_task(daemon.run(settings, stop=stop, clock=clock or Clock()))
    try:
        yield
    finally:
        stop.set()
        await task


@asynccontextmanager
async def spawned(
    environ: Mapping[str, str], *, kill_at: str = ""
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The daemon in a process of its own, which kills itself at the point ``kill_at``.

    If it does not, it is killed at the end of the context.
    """
    script = Path(__file__).parent / "crashing.py"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(script),
        kill_at,
        env={**environ, "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
