"""Whether the daemon's own wheels turn: its event loop, and the scheduler of its timed jobs."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchwatch.metrics import Metrics

EVERY: Final = 1.0  # seconds between two looks at the loop: one wake-up, some 30 µs
LATELY: Final = 60  # looks for which a late one is told
LATE: Final = 5.0  # seconds; a receiver's answer may time out over it
BEAT: Final = 15.0  # seconds between two signs of life of the timed jobs
SILENT: Final = 90.0  # seconds without one


class Pulse:
    """Measures how late the loop is, and hears whether the scheduler still runs jobs.

    In true time: what is measured is this process and its machine. An
    injected clock stands still, or leaps, and nothing is late by it.
    """

    def __init__(self, metrics: Metrics, *, true_time: Callable[[], float] | None = None) -> None:
        self._lag = metrics.loop_lag
        self._time = true_time or asyncio.get_running_loop().time
        self._lately: deque[float] = deque(maxlen=LATELY)
        self._beat_at = self._time()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            asleep = self._time()
            await asyncio.sleep(EVERY)
            self.looked(self._time() - asleep - EVERY)

    def looked(self, late: float) -> None:
        """Note that the loop woke so many seconds late; timers may fire a little early."""
        self._lag.observe(max(0.0, late))
        self._lately.append(late)

    async def beat(self) -> None:
        """A job for the scheduler: that it runs says all."""
        self._beat_at = self._time()

    @property
    def lateness(self) -> str | None:
        """How late the loop was within the last minute, if that was far too late."""
        worst = max(self._lately, default=0.0)
        if worst <= LATE:
            return None
        return (
            f"it was {worst:.1f} s late within the last minute: the machine is out of breath, "
            "or something holds it up"
        )

    @property
    def silence(self) -> str | None:
        """For how long no timed job has run, if that is far too long."""
        silent = self._time() - self._beat_at
        return f"its jobs have not run for {silent:.0f} s" if silent > SILENT else None
