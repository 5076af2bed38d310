"""How long a batch should take, by how long those like it took."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from batchwatch.domain.event import rfc3339

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from batchwatch.domain.batch import Batch
    from batchwatch.domain.payload import ExpectedData

LEAST_SAMPLES: Final = 5
LIKE_SIZE: Final = 2  # times as many files, or as few: still like it
# What is far outside: by the spread of those like it, and never soon after what is usual.
DEVIATIONS: Final = 4.0
LEAST_DEVIATION: Final = 0.25  # of the logarithm
LEAST_FACTOR: Final = 3.0  # times the median
LEAST_MARGIN: Final = 600.0  # seconds beyond the median
LONGEST: Final = 366 * 86_400.0  # seconds; few samples may be so far apart that it overflows
_OF_A_NORMAL: Final = 1.4826  # from the median of deviations to the standard deviation


@dataclass(frozen=True, slots=True)
class Past:
    """What one batch took that has completed."""

    seconds: float
    files: int | None = None
    directory: str | None = None  # where its files came from


@dataclass(frozen=True, slots=True)
class Expectation:
    """What like batches took, and from when on one is far outside of that."""

    seconds: tuple[float, ...]  # ascending
    limit: float  # seconds

    @property
    def median(self) -> float:
        """Seconds."""
        return quantile(self.seconds, 0.5)

    @property
    def low(self) -> float:
        """Seconds that nine in ten take at least."""
        return quantile(self.seconds, 0.1)

    @property
    def high(self) -> float:
        """Seconds that nine in ten take at most."""
        return quantile(self.seconds, 0.9)

    def end(self, begun: datetime, *, now: datetime) -> tuple[datetime, bool]:
        """When one that was begun then should end, and whether that is over.

        Of those that took longer than it has taken until now, half had ended
        by that time. Once it takes longer than nine in ten, it is overdue,
        and has been since nine in ten had ended.
        """
        elapsed = (now - begun).total_seconds()
        if elapsed > self.high:
            return begun + timedelta(seconds=self.high), True
        longer = [one for one in self.seconds if one > elapsed] or [self.high]
        return begun + timedelta(seconds=quantile(longer, 0.5)), False


class Experience:
    """What a kind of batches took, and so what to expect of one of them."""

    def __init__(self, past: Sequence[Past]) -> None:
        """``past`` is the newest first."""
        self._past = past
        self._files: dict[str | None, int] = {}
        for one in past:
            if one.directory is not None and one.files is not None:
                self._files.setdefault(one.directory, one.files)
        self._made: dict[int | None, Expectation | None] = {}

    def of(self, directory: str | None) -> Expectation | None:
        """What to expect of one over this directory.

        Upstream does not say how many files a batch has before it has ended,
        so it is taken to have as many as the last one over its directory.
        """
        files = self._files.get(directory)
        if files not in self._made:
            self._made[files] = expect(self._past, files=files)
        return self._made[files]


def expect(past: Sequence[Past], *, files: int | None) -> Expectation | None:
    """What to expect of a batch with so many files, of the kind of ``past``.

    Those known to be of another size are not like it. If its own is not
    known, it may be as large as the largest: the limit is theirs. None if
    there are too few like it to tell.
    """
    like = past
    if files is not None:
        near = [one for one in past if one.files is not None and _is_near(one.files, files)]
        unsized = [one for one in past if one.files is None]
        like = near if len(near) >= LEAST_SAMPLES else near + unsized
    if len(like) < LEAST_SAMPLES:
        return None
    seconds = sorted(one.seconds for one in like)
    limit = _limit(seconds)
    most = max((one.files for one in past if one.files is not None), default=None)
    if files is None and most is not None:
        largest = [one.seconds for one in past if one.files and _is_near(one.files, most)]
        limit = max(limit, _limit(sorted(largest))) if largest else limit
    return Expectation(tuple(seconds), limit)


def begun_at(created_at: datetime | None, first_seen_at: datetime) -> datetime:
    """When a batch's life began: upstream's word, unless it was seen before that."""
    return first_seen_at if created_at is None else min(created_at, first_seen_at)


def took(
    *,
    created_at: datetime | None,
    updated_at: datetime | None,
    first_seen_at: datetime,
    changed_at: datetime,
    followed: bool,
) -> float | None:
    """Seconds from the creation to the end of a batch that has ended; None if nobody can tell.

    Upstream's own stamps are the better ones: the daemon may have slept when
    it ended. Where they say nothing, one that was not ``followed`` from
    another status to its end may have taken anything.
    """
    seen = (changed_at - begun_at(created_at, first_seen_at)).total_seconds()
    said = (updated_at - created_at).total_seconds() if created_at and updated_at else 0.0
    if said > 0:
        seconds = min(said, seen) if seen > 0 else said
    elif followed and seen > 0:
        seconds = seen
    else:
        return None
    return max(1.0, seconds)


def expected_data(
    batch: Batch, expectation: Expectation | None, *, now: datetime
) -> ExpectedData | None:
    """The same for the outside; None where there is nothing to expect, or no more."""
    if expectation is None or not batch.is_active:
        return None
    return expected_by(expectation, begun_at(batch.created_at, batch.first_seen_at), now=now)


def expected_by(expectation: Expectation, begun: datetime, *, now: datetime) -> ExpectedData:
    """What to expect of one that was begun then, for the outside."""
    ends_at, overdue = expectation.end(begun, now=now)
    return {
        "median": round(expectation.median, 3),
        "low": round(expectation.low, 3),
        "high": round(expectation.high, 3),
        "samples": len(expectation.seconds),
        "ends_at": rfc3339(ends_at),
        "overdue": overdue,
    }


def _is_near(files: int, other: int) -> bool:
    least, most = sorted((max(1, files), max(1, other)))
    return most <= LIKE_SIZE * least


def _limit(seconds: Sequence[float]) -> float:
    """From how many seconds on one is far outside; ``seconds`` ascend, and are above 0.

    By medians of logarithms: durations are skewed, and one that was stuck
    itself must not widen the limit for the next.
    """
    median = quantile(seconds, 0.5)
    off = sorted(abs(math.log(one / median)) for one in seconds)
    deviation = max(LEAST_DEVIATION, _OF_A_NORMAL * quantile(off, 0.5))
    factor = max(LEAST_FACTOR, math.exp(min(DEVIATIONS * deviation, 100.0)))
    return min(LONGEST, max(median * factor, median + LEAST_MARGIN))


def quantile(ascending: Sequence[float], share: float) -> float:
    """Between two samples, the share of the way from one to the other."""
    place = share * (len(ascending) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ascending) - 1)
    return ascending[below] + (place - below) * (ascending[above] - ascending[below])
