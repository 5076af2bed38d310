"""Deliver what the store owes, signed and acknowledged, beside a loop that only posts it."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Final

import msgspec

from batchwatch.clock import Clock
from batchwatch.deliver.sender import new_session
from batchwatch.deliver.signing import key_of
from batchwatch.domain.batch import EndpointName
from batchwatch.domain.routing import FOR_PROGRAMS, Router
from benchmarks.changes import commit, events_of
from benchmarks.child import started
from benchmarks.pipe import (
    CONCURRENCY,
    ENDPOINT,
    SECRET,
    WATCH,
    dispatcher_of,
    open_store,
    webhook_at,
)
from benchmarks.receiver import Arrivals
from benchmarks.results import Column, Finding, Goal
from benchmarks.rounds import compared, ratio, steps, take_turns

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    import aiohttp

    from batchwatch.deliver.signing import Key
    from batchwatch.deliver.webhook import Webhook
    from batchwatch.domain.delivery import Attempt, Claimed
    from batchwatch.domain.event import Event
    from benchmarks.progress import Progress

COUNT: Final = 8_000  # notifications a turn, each of a batch of its own
ROUNDS: Final = 5
PAGE: Final = 500  # batches to a commit when a store is filled
PACE: Final = 100  # notifications a second, to see how long one takes
PACED: Final = 500  # of them
WARM_UP: Final = 50  # before them, that are not counted: statements are compiled, caches filled
QUICK_COUNT: Final = 1_000
QUICK_ROUNDS: Final = 3
QUICK_PACED: Final = 200
SYNCS: Final = 50
GOAL: Final = 0.7  # of bare, signed
P50_GOAL, P99_GOAL = 1.0, 5.0  # ms

DEAD: Final = EndpointName("dead")
DEAD_COUNT: Final = 10_000  # deliveries that wait for it
DEAD_GOAL: Final = 1.1
NOBODY: Final = "http://127.0.0.1:9/hook"  # the port of a service that nobody has

BESIDE: Final = (
    Column("alone_ms", "p95 alone, ms", ".1f"),
    Column("beside_ms", "p95 beside it, ms", ".1f"),
    Column("ratio", "ratio", ".2f"),
    Column("lowest", "lowest", ".2f"),
    Column("highest", "highest", ".2f"),
)
SPEED: Final = (
    Column("sender", "sender"),
    Column("per_second", "per second", ",.0f"),
    Column("ratio", "of bare", ".2f"),
    Column("lowest", "lowest", ".2f"),
    Column("highest", "highest", ".2f"),
)
DELAY: Final = (
    Column("notifications", "notifications", ",.0f"),
    Column("p50_ms", "p50, ms", ".1f"),
    Column("p99_ms", "p99, ms", ".1f"),
    Column("highest_ms", "highest, ms", ".1f"),
    Column("fsync_ms", "an fsync, ms", ".1f"),
)


async def run(progress: Progress, *, quick: bool) -> list[Finding]:
    """Let batchwatch, signing and not, and the bare loop notify the same receiver in turns."""
    count, rounds = (QUICK_COUNT, QUICK_ROUNDS) if quick else (COUNT, ROUNDS)
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(started("benchmarks.receiver"))
        receiver = Hook(url, await stack.enter_async_context(new_session()))
        events = events_of(range(count))
        contestants = {
            "batchwatch, signed": _batchwatch(receiver, count, keys=[key_of(SECRET)]),
            "bare": _bare(receiver, events),
            "batchwatch, unsigned": _batchwatch(receiver, count, keys=[]),
        }
        progress.stage(f"deliver: {count:,} each", steps=steps(len(contestants), rounds))
        measured = await take_turns(contestants, rounds=rounds, progress=progress)
        paced = QUICK_PACED if quick else PACED
        progress.stage(f"deliver: {PACE} a second")
        waited = await _delays(receiver, paced)
        alone: list[float] = []
        beside: list[float] = []
        progress.stage(f"deliver: beside a dead endpoint, {DEAD_COUNT:,} waiting", steps=2 * rounds)
        for _ in range(rounds):
            for p95s, dead in ((alone, 0), (beside, DEAD_COUNT)):
                p95s.append(quantiles(await _delays(receiver, paced, dead=dead), n=20)[18])
                progress.step()
    shift = ratio(beside, alone)
    signed = ratio(measured["batchwatch, signed"], measured["bare"]).middle
    cuts = quantiles(waited, n=100)
    return [
        Finding(
            title=f"Notifications of a full outbox, {CONCURRENCY} requests at once",
            columns=SPEED,
            rows=compared(measured, to="bare", name="sender"),
            goals=[
                Goal(f"at least {GOAL} of bare, and is {signed:.2f}", signed >= GOAL),
            ],
            notes=[
                f"Medians of {rounds} turns of {count:,}; bodies of {len(_body(events[0]))} bytes.",
                "batchwatch: from the first claim to the commit of the last acknowledgement.",
                "bare: aiohttp posts the same bodies, from memory.",
            ],
        ),
        Finding(
            title=f"From the commit of an event to its receipt, at {PACE} a second",
            columns=DELAY,
            rows=[
                {
                    "notifications": paced,
                    "p50_ms": cuts[49] * 1e3,
                    "p99_ms": cuts[98] * 1e3,
                    "highest_ms": max(waited) * 1e3,
                    "fsync_ms": _fsync() * 1e3,
                }
            ],
            goals=[
                Goal(f"p50 below {P50_GOAL} ms", cuts[49] * 1e3 < P50_GOAL),
                Goal(f"p99 below {P99_GOAL} ms", cuts[98] * 1e3 < P99_GOAL),
            ],
            notes=["Each is claimed, signed, sent and acknowledged while the next are committed."],
        ),
        Finding(
            title=f"The same beside an endpoint that is dead, with {DEAD_COUNT:,} waiting for it",
            columns=BESIDE,
            rows=[
                {
                    "alone_ms": median(alone) * 1e3,
                    "beside_ms": median(beside) * 1e3,
                    "ratio": shift.middle,
                    "lowest": shift.low,
                    "highest": shift.high,
                }
            ],
            goals=[Goal("p95 no more than a tenth higher", shift.middle < DEAD_GOAL)],
            notes=[
                f"Medians of {rounds} turns of {paced:,} each; the dead one takes no connection."
            ],
        ),
    ]


class Hook:
    """The receiver's process, as seen from here."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = f"{url}/hook"
        self.session = session
        self._arrivals = f"{url}/arrivals"

    async def arrivals(self) -> Arrivals:
        """What came since the last question."""
        async with self.session.get(self._arrivals) as response:
            return msgspec.json.decode(await response.read(), type=Arrivals)


class _Counted:
    """A webhook that tells when it has sent so many."""

    def __init__(self, webhook: Webhook, count: int) -> None:
        self.name = webhook.name
        self.schedule = webhook.schedule
        self.timeout = webhook.timeout
        self.concurrency = webhook.concurrency
        self.rate = webhook.rate
        self.final_statuses = webhook.final_statuses
        self.all_sent = asyncio.Event()
        self._webhook = webhook
        self._left = count

    async def send(self, delivery: Claimed) -> Attempt:
        attempt = await self._webhook.send(delivery)
        assert attempt.failure is None
        self._left -= 1
        if not self._left:
            self.all_sent.set()
        return attempt


def _batchwatch(
    receiver: Hook, count: int, *, keys: Sequence[Key]
) -> Callable[[], Awaitable[float]]:
    async def run() -> float:
        with tempfile.TemporaryDirectory() as folder:
            async with open_store(Path(folder)) as store:
                await store.watches.begin(WATCH, now=Clock().now())
                for start in range(0, count, PAGE):
                    await commit(store, range(start, min(start + PAGE, count)))
                endpoint = _Counted(webhook_at(receiver.url, receiver.session, keys), count)
                dispatcher = dispatcher_of(store, endpoint)
                begun = time.perf_counter()
                running = asyncio.create_task(dispatcher.run())
                await endpoint.all_sent.wait()
                dispatcher.stop()
                await running  # which writes all acknowledgements before it returns
                took = time.perf_counter() - begun
                assert not await store.views.outbox()
        assert (await receiver.arrivals()).count == count
        return count / took

    return run


def _bare(receiver: Hook, events: Sequence[Event]) -> Callable[[], Awaitable[float]]:
    bodies = [(event.id, _body(event)) for event in events]

    async def post(waiting: Iterable[tuple[str, bytes]]) -> None:
        for name, body in waiting:
            headers = {"Content-Type": "application/json", "webhook-id": name}
            async with receiver.session.post(receiver.url, data=body, headers=headers) as response:
                await response.read()
                assert response.status == 200

    async def run() -> float:
        waiting = iter(bodies)
        begun = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(CONCURRENCY):
                group.create_task(post(waiting))
        took = time.perf_counter() - begun
        assert (await receiver.arrivals()).count == len(bodies)
        return len(bodies) / took

    return run


async def _delays(receiver: Hook, count: int, *, dead: int = 0) -> list[float]:
    """Seconds from commit to receipt of each of ``count`` events that come at a steady pace.

    Beside them, so many may wait for an endpoint that takes no connection,
    and is told of the new ones, too.
    """
    committed: dict[str, float] = {}
    names = [ENDPOINT, *([DEAD] if dead else [])]
    with tempfile.TemporaryDirectory() as folder:
        async with open_store(Path(folder), Router({DEAD: FOR_PROGRAMS})) as store:
            await store.watches.begin(WATCH, now=Clock().now())
            first = WARM_UP + count
            for start in range(first, first + dead, PAGE):
                await commit(store, range(start, min(start + PAGE, first + dead)))
        async with open_store(Path(folder), Router(dict.fromkeys(names, FOR_PROGRAMS))) as store:
            endpoint = _Counted(
                webhook_at(receiver.url, receiver.session, [key_of(SECRET)]), WARM_UP + count
            )
            broken = webhook_at(receiver.url, receiver.session, [key_of(SECRET)])
            broken = replace(broken, name=DEAD, url=NOBODY, schedule=[5.0, 30.0, 300.0])
            endpoints = [endpoint, broken] if dead else [endpoint]
            dispatcher = dispatcher_of(store, *endpoints)
            running = asyncio.create_task(dispatcher.run())
            begun = time.monotonic()
            for number in range(WARM_UP + count):
                await asyncio.sleep(begun + number / PACE - time.monotonic())
                [event] = await commit(store, [number])
                if number >= WARM_UP:
                    committed[event.id] = time.monotonic()
            await endpoint.all_sent.wait()
            dispatcher.stop()
            await running
    moments = (await receiver.arrivals()).moments
    return [moments[name] - moment for name, moment in committed.items()]


def _body(event: Event) -> bytes:
    return msgspec.json.encode(event.payload)


def _fsync() -> float:
    """The median seconds of one fsync where the stores were: what a commit costs at least."""
    with tempfile.TemporaryFile() as file:
        took = []
        for _ in range(SYNCS):
            file.write(b"\0" * 4096)
            file.flush()
            begun = time.perf_counter()
            os.fsync(file.fileno())
            took.append(time.perf_counter() - begun)
    return median(took)
