"""The other end of a connection, in a process of its own: started here, served there."""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

ROOT: Final = Path(__file__).parents[1]
START_LIMIT: Final = 20.0  # seconds until it listens
STOP_LIMIT: Final = 5.0  # seconds until it is killed


@asynccontextmanager
async def started(module: str, *arguments: str) -> AsyncIterator[str]:
    """Run ``module`` in a process of its own; gives the URL at which it listens."""
    async with child(module, *arguments) as (_, url):
        yield url


@asynccontextmanager
async def child(
    module: str, *arguments: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Run ``module`` in a process of its own; gives it, and the line by which it is ready.

    It lives as long as its stdin is open, so it does not outlive this process
    however that ends.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_LIMIT):
            said = (await process.stdout.readline()).decode().strip()
        if not said:
            raise RuntimeError(f"{module} did not start")
        yield process, said
    finally:
        process.stdin.close()
        try:
            async with asyncio.timeout(STOP_LIMIT):
                await process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def serve(protocol: Callable[[], asyncio.Protocol]) -> None:
    """Listen on a free port, print the URL, and serve until stdin is closed."""

    async def until_closed() -> None:
        server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        print(f"http://127.0.0.1:{port}", flush=True)
        await asyncio.to_thread(sys.stdin.buffer.read)

    asyncio.run(until_closed())
