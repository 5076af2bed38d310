"""When to look again, and where the next look begins."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from datetime import datetime

OVERLAP: Final = timedelta(minutes=10)  # forgives clock skew and rows that become visible late
IDLE_FACTOR: Final = 4
IDLE_CEILING: Final = 60.0  # seconds; an idle watch still finds a new batch within a minute
BACKOFF_CEILING: Final = 120.0  # seconds between tries of an upstream that fails
BACKLOG_MARGIN: Final = timedelta(seconds=5)  # upstream's clock is known to 2 s, its stamps to 1 s
SHOWN_TO_BELIEVE: Final = 3  # times in a row, for a status that nothing proves to be news
SHOWN_FOR: Final = timedelta(minutes=1)  # and for so long: replicas lag by less
RESULTS_PATIENCE: Final = timedelta(seconds=30)  # how long an event waits for the results
RESULTS_ASKS: Final = 100  # answers without results until they are given up: some 15 hours
RESULTS_PAUSE: Final = timedelta(minutes=10)  # the longest until results are asked for again
UNANSWERED_PAUSE: Final = timedelta(seconds=30)  # until results are asked for after an outage
SETTLE_PAUSE: Final = timedelta(minutes=10)  # the longest until jobs are asked for again
FEW_FILES: Final = 100  # in a batch: their jobs are one request
LOOK_AGAIN: Final = timedelta(seconds=30)  # until files without a job are looked for once more
UNSHOWN_FOR: Final = timedelta(hours=1)  # then jobs that upstream does not show are given up
MISSES_TO_VANISH: Final = 3
MISSED_TO_VANISH: Final = timedelta(minutes=10)  # and for so long: longer than most slips last
# Between two looks at a batch that vanished: for the first hours, and after them.
VANISHED_AGAIN: Final = (timedelta(minutes=10), timedelta(hours=1))
VANISHED_LATELY: Final = timedelta(hours=3)
VANISHED_FOR_GOOD: Final = timedelta(days=7)  # after that, only a listing can bring it back
LONG_OVER: Final = timedelta(days=1)  # since the end of a batch that no window can have missed
REFUSALS_TO_ALARM: Final = 3  # in a row; they do not mend themselves
FAILING_TO_ALARM: Final = timedelta(minutes=2)  # for what may pass by itself
SILENCE_TO_ALARM: Final = 150.0  # seconds without a whole pass, or ten intervals
FAILURES_TO_ALARM: Final = 10  # of that, however little time the wall clock says has gone by


def window_start(cursor: datetime | None, *, started_at: datetime, lookback: timedelta) -> datetime:
    """The ``created_at`` from which to list.

    Before anything was seen, that is a lookback before the first poll ever;
    after a pause of any length, a little before the newest batch known, so
    that what was created meanwhile is found however long the pause was.
    """
    if cursor is None:
        return started_at - lookback
    return cursor - OVERLAP


def next_cursor(
    cursor: datetime | None, newest: datetime | None, *, now: datetime
) -> datetime | None:
    """The cursor after a pass that listed every page.

    Never beyond ``now``: a single row dated into the future would otherwise
    hide all batches until then. Never back.
    """
    if newest is None:
        return cursor
    newest = min(newest, now)
    return newest if cursor is None else max(cursor, newest)


def next_poll(interval: float, *, active: int) -> float:
    """Seconds to the next pass: short while batches are active, longer when idle."""
    if active:
        return interval
    return max(interval, min(interval * IDLE_FACTOR, IDLE_CEILING))


def backoff(
    failures: int, *, interval: float, jitter: float, at_least: float | None = None
) -> float:
    """Seconds to the next try after ``failures`` (from 1) failed passes in a row.

    ``jitter`` in 0..1 spreads the tries of many watches. ``at_least`` is what
    upstream asked for with ``Retry-After``.
    """
    ceiling = max(interval, BACKOFF_CEILING)
    pause = min(ceiling, min(interval, 1.0) * 2.0 ** min(failures - 1, 16))
    return max(at_least or 0.0, pause * (0.75 + 0.5 * jitter))


def is_alarming(failures: int, *, lasted: timedelta, may_pass: bool) -> bool:
    """Whether so many ``failures`` in a row, for as long as ``lasted``, wake somebody.

    A hiccup of a minute does not; a key that is refused three times does.
    """
    if not may_pass:
        return failures >= REFUSALS_TO_ALARM
    return failures >= FAILURES_TO_ALARM or lasted >= FAILING_TO_ALARM


def silence_allowed(interval: float) -> float:
    """Seconds for which no pass may have ended well before somebody is woken."""
    return max(SILENCE_TO_ALARM, 10 * interval)


def results_backoff(asks: int) -> timedelta:
    """How long to wait before asking for missing results again, after ``asks`` tries."""
    return min(RESULTS_PAUSE, timedelta(seconds=0.5 * 1.6 ** min(asks, 20)))


def settle_backoff(asks: int, *, files: int) -> timedelta:
    """How long to wait before asking for open jobs again, after ``asks`` tries.

    A third of the time that has been spent so, for a batch whose jobs are one
    request. One of a thousand files costs ten when they have ended, so it is
    looked at less often while they have not: about ten times in half an hour.
    """
    first, growth = (2.0, 4 / 3) if files <= FEW_FILES else (8.0, 1.6)
    return min(SETTLE_PAUSE, timedelta(seconds=first * growth ** min(asks, 50)))


def settle_spent(asks: int, *, files: int) -> timedelta:
    """For how long jobs have been asked for, after ``asks`` tries; no clock can lie about that."""
    return sum((settle_backoff(nth, files=files) for nth in range(asks)), timedelta(0))
