"""A clock that is moved by hand, so that no test waits for time."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from datetime import UTC, datetime, timedelta

from batchwatch.clock import Clock

EPOCH = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)


class ManualClock(Clock):
    """Stands still until :meth:`advance`; sleepers are woken in the order of their deadlines."""

    def __init__(self, start: datetime = EPOCH) -> None:
        self._start = start
        self._elapsed = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self._fell_asleep = asyncio.Event()
        super().__init__()

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._elapsed)

    def monotonic(self) -> float:
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._elapsed + seconds, next(self._order), future))
        self._fell_asleep.set()
        await future

    async def wait(self, signal: asyncio.Event, seconds: float | None = None) -> bool:
        if signal.is_set():
            return True
        signalled = asyncio.ensure_future(signal.wait())
        waiting: list[asyncio.Future[object]] = [signalled]  # type: ignore[list-item]  # invariance
        if seconds is not None:
            waiting.append(asyncio.ensure_future(self.sleep(seconds)))
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waiting:
                one.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        return signal.is_set()

    def advance(self, seconds: float) -> None:
        """Move time on, and wake everyone whose deadline has come."""
        self._elapsed += seconds
        while self._sleepers and self._sleepers[0][0] <= self._elapsed:
            _, _, future = heapq.heappop(self._sleepers)
            if not future.done():
                future.set_result(None)

    async def next_sleeper(self, *, among: int = 1) -> float:
        """Wait until so many sleep; how many seconds are left to the earliest deadline."""
        while True:
            self._sleepers = [one for one in self._sleepers if not one[2].done()]
            heapq.heapify(self._sleepers)
            if len(self._sleepers) >= among:
                return self._sleepers[0][0] - self._elapsed
            self._fell_asleep.clear()
            await self._fell_asleep.wait()

    def set(self, seconds: float) -> None:
        """Move time to so many seconds after its beginning, back as well; wakes nobody."""
        self._elapsed = seconds

    def jump(self, seconds: float) -> None:
        """Move the wall alone, as an administrator or NTP does."""
        self._start += timedelta(seconds=seconds)


class LeapClock(ManualClock):
    """Whoever sleeps has slept: time leaps to the end of each pause, and nobody waits.

    For tests in which one thing happens after the other. Where two sleep at
    once, the one whose pause is told first leaps first.
    """

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)
        self.advance(max(0.0, seconds))

    async def wait(self, signal: asyncio.Event, seconds: float | None = None) -> bool:
        await asyncio.sleep(0)
        if not signal.is_set() and seconds is not None:
            self.advance(seconds)
        return signal.is_set()


class FastClock(Clock):
    """The host's clocks, so many times as fast: for a whole daemon whose limits are minutes."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._wall, self._tick = datetime.now(UTC), time.monotonic()
        super().__init__()

    def now(self) -> datetime:
        return self._wall + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        return (time.monotonic() - self._tick) * self._speed

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self._speed)

    async def wait(self, signal: asyncio.Event, seconds: float | None = None) -> bool:
        return await super().wait(signal, None if seconds is None else seconds / self._speed)
