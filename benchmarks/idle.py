"""Run the real daemon with nothing to do: what it weighs, and how soon it asks upstream."""

from __future__ import annotations

import asyncio
import itertools
import sys
import tempfile
import time
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

from batchwatch.simulator import Simulator
from benchmarks.daemon import PATIENCE, byte_code, daemon, environment
from benchmarks.results import Column, Finding, Goal
from benchmarks.rounds import steps, take_turns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from benchmarks.progress import Progress
    from benchmarks.results import Cell

ROUNDS: Final = 9
QUICK_ROUNDS: Final = 7
RESTING: Final = 6.0  # seconds until it is weighed; it polls each second meanwhile
QUICK_RESTING: Final = 3.0
MEMORY: Final = 80.0  # MB of VmRSS, the most that was promised
SECONDS: Final = 0.8  # to the first request, the most that was promised

WEIGHT: Final = (
    Column("endpoints", "endpoints"),
    Column("rss_mb", "VmRSS, MB", ".1f"),
    Column("rss_mib", "in MiB", ".1f"),
    Column("pss_mb", "Pss, MB", ".1f"),
    Column("threads", "threads", ".0f"),
)
START: Final = (
    Column("what", "from start to"),
    Column("seconds", "median, s", ".3f"),
    Column("lowest", "lowest", ".3f"),
    Column("highest", "highest", ".3f"),
)

WEBHOOK: Final = {
    "BATCHWATCH_WEBHOOK_URL": "http://127.0.0.1:9/hook",  # the discard port: nobody is ever told
    "BATCHWATCH_WEBHOOK_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLjOt",
}
SLACK: Final = {"BATCHWATCH_SLACK_WEBHOOK_URL": "http://127.0.0.1:9/slack"}
HEAVIEST: Final = "a webhook and Slack"
ENDPOINTS: Final = {"a webhook": WEBHOOK, HEAVIEST: WEBHOOK | SLACK}
FRESH: Final = "first request, fresh store"
EXISTING: Final = "first request, existing store"

_EMPTY: Final = b'{"items":[],"next_page_token":null,"total_size":null}'
_ANSWER: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
    % (len(_EMPTY), _EMPTY)
)


async def run(progress: Progress, *, quick: bool) -> list[Finding]:
    """Weigh a daemon at rest, then start many and time each to its first request."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        async with _Door.open() as door:
            progress.stage("idle: a first start, which writes byte code")
            environ = environment(place, "compiled", door.url) | ENDPOINTS[HEAVIEST]
            await _first_request(environ, door)
            weight = await _weigh(place, progress, quick=quick)
            return [weight, await _start(place, door, progress, quick=quick)]


async def _weigh(place: Path, progress: Progress, *, quick: bool) -> Finding:
    progress.stage("idle: weigh it at rest", steps=len(ENDPOINTS))
    resting = QUICK_RESTING if quick else RESTING
    rows: list[dict[str, Cell]] = []
    async with Simulator() as simulator:
        for number, (name, endpoints) in enumerate(ENDPOINTS.items()):
            environ = environment(place, f"weighed-{number}", simulator.url) | endpoints
            async with daemon(environ | {"BATCHWATCH_POLL_INTERVAL": "1s"}) as process:
                before = simulator.requests.total()
                async with asyncio.timeout(PATIENCE):
                    await simulator.asked(before + 1)
                await asyncio.sleep(resting)
                rows.append({"endpoints": name, **_weight(process.pid)})
            progress.step()
    heaviest = max(float(row["rss_mb"] or 0) for row in rows)
    return Finding(
        title="Memory of `python -m batchwatch run` at rest",
        columns=WEIGHT,
        rows=rows,
        goals=[Goal(f"below {MEMORY:.0f} MB, and is {heaviest:.1f}", heaviest < MEMORY)],
        notes=[
            f"{resting:.0f} s after its first request to an idle simulator, a pass each second."
        ],
    )


async def _start(place: Path, door: _Door, progress: Progress, *, quick: bool) -> Finding:
    rounds = QUICK_ROUNDS if quick else ROUNDS
    environ = environment(place, "existing", door.url) | WEBHOOK
    numbers = itertools.count()

    async def fresh() -> float:
        unused = environment(place, f"fresh-{next(numbers)}", door.url)
        return await _first_request(unused | WEBHOOK, door)

    async def existing() -> float:
        return await _first_request(environ, door)

    contestants = {
        FRESH: fresh,
        EXISTING: existing,
        "end of python -c 'import aiohttp'": _python("import aiohttp", environ),
        "end of python -c pass": _python("pass", environ),
    }
    progress.stage("idle: start it", steps=steps(len(contestants), rounds))
    measured = await take_turns(contestants, rounds=rounds, progress=progress)
    rows: list[dict[str, Cell]] = [
        {"what": name, "seconds": median(took), "lowest": min(took), "highest": max(took)}
        for name, took in measured.items()
    ]
    slowest = max(median(measured[name]) for name in (FRESH, EXISTING))
    compiled = sum(1 for _ in byte_code(place).rglob("*.pyc"))
    return Finding(
        title="Start of `python -m batchwatch run`",
        columns=START,
        rows=rows,
        goals=[Goal(f"below {SECONDS} s, and is {slowest:.2f}", slowest < SECONDS)],
        notes=[
            f"{rounds} starts each; the first request is timed where it arrives. "
            + (
                f"Byte code: {compiled:,} modules, written by a start that is not counted."
                if compiled
                else "There is no byte code: every start compiled everything anew."
            )
        ],
    )


class _Door:
    """A server that notes when the first request of a daemon arrives, and answers each."""

    def __init__(self) -> None:
        self.url = ""
        self._arrived: asyncio.Future[float] | None = None

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator[_Door]:
        """Listen for as long as the context is held."""
        door = cls()
        server = await asyncio.start_server(door._answer, "127.0.0.1", 0)
        async with server:
            door.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            yield door

    async def next_arrival(self) -> float:
        """Wait for a request; the moment when it came."""
        self._arrived = asyncio.get_running_loop().create_future()
        async with asyncio.timeout(PATIENCE):
            return await self._arrived

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                if self._arrived is not None and not self._arrived.done():
                    self._arrived.set_result(time.perf_counter())
                writer.write(_ANSWER)
        writer.close()


async def _first_request(environ: Mapping[str, str], door: _Door) -> float:
    arrival = asyncio.create_task(door.next_arrival())
    begun = time.perf_counter()
    async with daemon(environ):
        return await arrival - begun


def _python(code: str, environ: Mapping[str, str]) -> Callable[[], Awaitable[float]]:
    async def run() -> float:
        begun = time.perf_counter()
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, env=environ)
        await process.wait()
        assert process.returncode == 0
        return time.perf_counter() - begun

    return run


def _weight(pid: int) -> dict[str, Cell]:
    """What the kernel says of a process' memory, in MB of 1,000,000 bytes where not MiB."""
    status = _fields(Path(f"/proc/{pid}/status"))
    rollup = _fields(Path(f"/proc/{pid}/smaps_rollup"))
    return {
        "rss_mb": status["VmRSS"] * 1024 / 1e6,  # the kernel's kB are KiB
        "rss_mib": status["VmRSS"] / 1024,
        "pss_mb": rollup["Pss"] * 1024 / 1e6,
        "threads": status["Threads"],
    }


def _fields(file: Path) -> dict[str, float]:
    """``Name:   12345 kB`` by its name."""
    found = {}
    for line in file.read_text().splitlines():
        name, _, value = line.partition(":")
        number = value.split()[:1]
        if number and number[0].isdigit():
            found[name] = float(number[0])
    return found
