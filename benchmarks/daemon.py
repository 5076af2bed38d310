"""The real daemon in a process of its own, told nothing of this machine's."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

from benchmarks.child import ROOT
from benchmarks.pipe import API_KEY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

PATIENCE: Final = 30.0  # seconds for a daemon to start or to stop


@asynccontextmanager
async def daemon(environ: Mapping[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """The daemon in a process of its own, stopped at the end as an operator does."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "batchwatch",
        "run",
        env=environ,
        cwd=ROOT,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(PATIENCE):
                await process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def environment(place: Path, folder: str, url: str) -> dict[str, str]:
    """What a daemon is told: nothing of this machine's, and byte code of its own.

    The byte code lies in a folder that goes away at the end, so that it is
    there even where nobody may write beside the modules, and complete.
    """
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(place),
        "PYTHONPYCACHEPREFIX": str(byte_code(place)),
        "LLAMA_CLOUD_API_KEY": API_KEY,
        "LLAMA_CLOUD_BASE_URL": url,
        "BATCHWATCH_DATA_DIR": str(place / folder),
        "BATCHWATCH_LISTEN": "127.0.0.1:0",
    }


def byte_code(place: Path) -> Path:
    """Where the daemons that are started in ``place`` have their byte code."""
    return place / "pycache"
