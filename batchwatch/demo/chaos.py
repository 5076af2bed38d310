"""The bad luck of ``--chaos``: when the daemon is killed, and what the receivers do wrong.

All of it is drawn from the seed, so that a bad day can be had again.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Final

KILLS: Final = (3, 5)  # at least, at most
FIRST_KILL: Final = 1.5  # seconds after the first batch
LAST_KILL: Final = 17.0  # seconds after the first batch; until then something happens all the time
DOWN: Final = (0.1, 1.5)  # seconds until a killed daemon is started again
SLOW: Final = (0.2, 0.8)  # seconds that a slow receiver takes, which is within the time limit
_BAD_DAYS: Final = 0.2  # of the requests
_LONGEST_STREAK: Final = 3  # a receiver that never takes anything proves nothing


@dataclass(frozen=True, slots=True)
class Kill:
    """When the daemon is killed, in seconds since the first batch, and for how long it is down."""

    after: float
    down: float


def plan_kills(seed: int) -> list[Kill]:
    """A few kills, each at a random moment of its own stretch of the time."""
    rng = Random(f"{seed} kills")
    count = rng.randint(*KILLS)
    stretch = (LAST_KILL - FIRST_KILL) / count
    return [
        Kill(FIRST_KILL + (nth + rng.random()) * stretch, rng.uniform(*DOWN))
        for nth in range(count)
    ]


class Mood(StrEnum):
    """What a receiver does with the next request."""

    WELL = "well"
    SLOW = "slow"
    REFUSES = "refuses"
    HANGS = "hangs"
    DROPS = "drops"


class Moods:
    """The moods of one receiver; without a seed it is always well."""

    def __init__(self, seed: int | None, name: str) -> None:
        self._rng = None if seed is None else Random(f"{seed} {name}")
        self._streak = 0

    def next(self) -> Mood:
        """The mood for the next request; bad ones end after a few in a row."""
        if self._rng is None or self._rng.random() >= _BAD_DAYS:
            self._streak = 0
            return Mood.WELL
        mood = self._rng.choice((Mood.SLOW, Mood.REFUSES, Mood.HANGS, Mood.DROPS))
        self._streak = 0 if mood is Mood.SLOW else self._streak + 1
        if self._streak > _LONGEST_STREAK:
            self._streak = 0
            return Mood.WELL
        return mood

    def slowness(self) -> float:
        """Seconds that a slow answer takes."""
        return 0.0 if self._rng is None else self._rng.uniform(*SLOW)
