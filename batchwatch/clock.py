"""Time, as the one thing that everything else is given: the only module that reads the wall."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta


class Clock:
    """The system's clocks and its way of waiting.

    ``now`` is for what people and other machines read, ``monotonic`` for
    measuring and for deadlines: the wall may jump, the monotonic clock never
    does. ``steady`` is for deadlines that must outlive the process, or that
    several processes share. Tests pass a subclass that is moved by hand.
    """

    def __init__(self) -> None:
        self._began = self.now(), self.monotonic()

    def now(self) -> datetime:
        """The wall clock, aware, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since some moment in the past; never goes back."""
        return time.monotonic()

    def steady(self) -> datetime:
        """The wall clock as it was when this process began, moved on by the monotonic one.

        It never jumps, and so may be some way from the true time; unless it
        :meth:`agrees <agree>` with somebody else's.
        """
        wall, monotonic = self._began
        return wall + timedelta(seconds=self.monotonic() - monotonic)

    def agree(self, moment: datetime) -> None:
        """Go by the clock of those who share our deadlines, where it is ``moment`` now."""
        self._began = moment, self.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Return after ``seconds``."""
        await asyncio.sleep(seconds)

    async def wait(self, signal: asyncio.Event, seconds: float | None = None) -> bool:
        """Wait for ``signal``, at most ``seconds``; whether it came."""
        if signal.is_set():
            return True
        try:
            async with asyncio.timeout(seconds):
                await signal.wait()
        except TimeoutError:
            return signal.is_set()
        return True
