"""How many requests a watch may send, and who goes first when they are too few.

A token bucket whose rate follows upstream: a 429 halves it, each success gives a little back
(AIMD, as TCP finds its share of a line that it does not know).
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from batchwatch.clock import Clock

FLOOR: Final = 1 / 30  # requests per second; slower would look like an outage
RESTORED: Final = 0.05  # of the configured rate, given back by each success
ONE_STORM: Final = 1.0  # seconds; 429s closer together answer requests of the same old rate
PATIENCE: Final = 60.0  # seconds; a longer Retry-After is for the caller to wait out
_NEARLY_ONE: Final = 1.0 - 1e-9  # a token, in floating point
_SHORTEST_PAUSE: Final = 0.001  # seconds; timers may fire a little early


class Priority(IntEnum):
    """Who is served first: the lowest number, then who came first.

    The order in which a watch would rather go without: a batch that nobody
    discovered is lost, a job's status can wait.
    """

    DISCOVER = 0
    COMPLETE = 1
    REFRESH = 2
    SETTLE = 3


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a budget lets through at present."""

    left: float  # requests that may be sent at once
    most: float  # that this can be
    per_minute: float  # as upstream lets us
    configured: float  # per minute, when all is well
    paused_for: float  # seconds until upstream's Retry-After is over; 0 if it is


class HeldBack(Exception):
    """Upstream asked for a pause too long to be waited out in silence."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"held back for another {seconds:.0f} s")
        self.seconds = seconds


@dataclass(slots=True, eq=False)
class _Waiter:
    called: asyncio.Event = field(default_factory=asyncio.Event)  # look again whether you are first
    gone: bool = False


class Budget:
    """Requests allowed to one key: ``rate`` a second on average, ``burst`` at once.

    Nothing runs in the background: whoever is first in the queue keeps the
    time for all, and calls the next when it leaves, served or cancelled.
    """

    def __init__(self, *, rate: float, burst: float, clock: Clock) -> None:
        if not (rate > 0 and burst >= 1):
            raise ValueError(
                f"a budget needs a rate above 0 and a burst of at least 1: {rate}, {burst}"
            )
        self._configured = rate
        self._floor = min(rate, FLOOR)
        self._burst = burst
        self._clock = clock
        self._rate = rate
        self._tokens = burst
        self._filled_at = clock.monotonic()
        self._blocked_until = self._filled_at
        self._halved_at = self._filled_at - ONE_STORM
        self._queue: list[tuple[Priority, int, _Waiter]] = []
        self._numbers = itertools.count()

    @property
    def rate(self) -> float:
        """Requests per second, as upstream lets us at present."""
        return self._rate

    @property
    def left(self) -> float:
        """Requests that may be sent at once, now; those that wait for one have not taken it yet."""
        now = self._clock.monotonic()
        if now < self._blocked_until:
            return 0.0
        return min(self._burst, self._tokens + max(0.0, now - self._filled_at) * self._rate)

    @property
    def blocked_for(self) -> float:
        """Seconds until upstream's ``Retry-After`` is over; 0 if it is."""
        return max(0.0, self._blocked_until - self._clock.monotonic())

    @property
    def allowance(self) -> Allowance:
        """How things are, for people and metrics."""
        return Allowance(
            left=self.left,
            most=self._burst,
            per_minute=self._rate * 60,
            configured=self._configured * 60,
            paused_for=self.blocked_for,
        )

    async def acquire(self, priority: Priority) -> None:
        """Return when a request may be sent. May be cancelled, and then costs nothing.

        Raises :class:`HeldBack` at once, also in those who wait already, when
        upstream asked for more than a minute without requests.
        """
        waiter = _Waiter()
        heapq.heappush(self._queue, (priority, next(self._numbers), waiter))
        try:
            while True:
                if self.blocked_for > PATIENCE:
                    raise HeldBack(self.blocked_for)
                first = self._first() is waiter
                if first and self._take():
                    return
                waiter.called.clear()
                await self._clock.wait(waiter.called, self._pause() if first else None)
        finally:
            waiter.gone = True
            self._call()

    def throttled(self, retry_after: float | None = None) -> None:
        """Upstream answered 429: halve the rate, and send nothing for ``retry_after`` seconds.

        What was saved up is gone: a burst is what upstream has just refused.
        During the pause one token at most is saved, to ask how things are.
        """
        now = self._clock.monotonic()
        self._fill(now)
        if now - self._halved_at >= ONE_STORM:
            self._rate = max(self._floor, self._rate / 2)
            self._halved_at = now
        self._blocked_until = max(self._blocked_until, now + (retry_after or 0.0))
        self._tokens = min(1.0, (self._blocked_until - now) * self._rate)
        self._filled_at = self._blocked_until
        self._call()

    def succeeded(self) -> None:
        """Upstream took a request: give back a little of the rate."""
        if self._rate < self._configured:
            self._fill(self._clock.monotonic())
            self._rate = min(self._configured, self._rate + RESTORED * self._configured)
            self._call()

    def _first(self) -> _Waiter | None:
        while self._queue:
            waiter = self._queue[0][2]
            if not waiter.gone:
                return waiter
            heapq.heappop(self._queue)
        return None

    def _call(self) -> None:
        """Have the first of the queue look again; its turn or its pause may have changed."""
        first = self._first()
        if first is not None:
            first.called.set()

    def _take(self) -> bool:
        now = self._clock.monotonic()
        self._fill(now)
        if now < self._blocked_until or self._tokens < _NEARLY_ONE:
            return False
        self._tokens = max(0.0, self._tokens - 1.0)
        return True

    def _fill(self, now: float) -> None:
        if now > self._filled_at:
            gained = (now - self._filled_at) * self._rate
            self._tokens = min(self._burst, self._tokens + gained)
            self._filled_at = now

    def _pause(self) -> float:
        """Seconds until there is a token, if nothing changes."""
        filling = max(0.0, 1.0 - self._tokens) / self._rate
        return max(_SHORTEST_PAUSE, self._filled_at - self._clock.monotonic() + filling)
