"""Simulated time: when things truly happen, and what the server's calendar says of it.

Lives are planned in simulated seconds, which pass ``speed`` times as fast as those of the host.
The calendar is never sped up: every timestamp is a moment of the host's own wall clock, so that a
client that asks for "the last ten minutes" gets what it means.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from batchwatch.clock import Clock

Micros: TypeAlias = int  # since 1970 in UTC; whole numbers, so that "on or after" is exact

SECOND: Final[Micros] = 1_000_000
NEVER: Final[Micros] = 1 << 62
_MICROSECOND: Final = timedelta(microseconds=1)
_1970: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Timeline:
    """One line from the clock to every timestamp, a pure function of the clock.

    It is anchored once on the wall and then follows the monotonic clock, since a wall that is
    set back would make a batch that has ended run again. ``skew`` (seconds, either sign) moves the
    server's calendar, never the truth.
    """

    def __init__(self, clock: Clock, *, speed: float = 1.0, skew: float = 0.0) -> None:
        if not (math.isfinite(speed) and speed > 0):
            raise ValueError(f"speed must be a number above 0, not {speed!r}")
        self._clock = clock
        self._speed = speed
        self._skew = round(skew * SECOND)
        self._anchor = _micros(clock.now()) - round(clock.monotonic() * SECOND)
        self.start: Final[Micros] = self.now()

    def now(self) -> Micros:
        """The true time."""
        return self._anchor + round(self._clock.monotonic() * SECOND)

    def after(self, moment: Micros, seconds: float) -> Micros:
        """The moment so many simulated seconds after another; after infinitely many is never."""
        if math.isinf(seconds):
            return NEVER
        return moment + round(seconds * SECOND / self._speed)

    def between(self, earlier: Micros, later: Micros) -> float:
        """Simulated seconds from one moment to another."""
        return (later - earlier) * self._speed / SECOND

    def true(self, moment: Micros) -> str:
        """RFC 3339 in UTC, by the true calendar."""
        return _written(moment)

    def shown(self, moment: Micros) -> str:
        """RFC 3339 in UTC, by the server's calendar."""
        return _written(moment + self._skew)

    def shown_epoch(self, moment: Micros) -> float:
        """Seconds since 1970 by the server's calendar."""
        return (moment + self._skew) / SECOND

    def moment(self, at: datetime) -> Micros:
        """The moment of a time in the true calendar."""
        return _micros(at)

    def meant(self, named: datetime) -> Micros:
        """The true moment behind a time that a client named in the server's calendar."""
        return _micros(named) - self._skew


def _micros(moment: datetime) -> Micros:
    return (moment - _1970) // _MICROSECOND


def _written(moment: Micros) -> str:
    at = _1970 + timedelta(microseconds=moment)
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")
