"""How a watch is doing: where its next window begins, and whether upstream answers it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from batchwatch.domain.cadence import FAILURES_TO_ALARM, next_cursor
from batchwatch.domain.event import WATCH_FAILING, WATCH_RECOVERED, Event, watch_event

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from batchwatch.domain.batch import WatchName


@dataclass(frozen=True, slots=True)
class Watch:
    """What to look at, and how often."""

    name: WatchName
    base_url: str
    interval: float  # seconds between passes while batches are active
    lookback: timedelta  # how far back the first pass ever looks
    notify_backlog: bool = False  # whether what ended before that pass is told as well


@dataclass(frozen=True, slots=True)
class WatchState:
    """What must be remembered of a watch between two passes."""

    name: WatchName
    started_at: datetime  # when its first pass began, on upstream's clock
    cursor: datetime | None = None  # the largest created_at of all passes that listed every page
    baseline_done: bool = False  # whether the first pass has ended
    failures: int = 0  # failed passes in a row
    failing_since: datetime | None = None
    failing_reason: str | None = None

    @property
    def is_alarmed(self) -> bool:
        """Whether ``watch.failing`` was told and ``watch.recovered`` is owed."""
        return self.failures >= FAILURES_TO_ALARM

    def passed(self, newest: datetime | None, *, now: datetime) -> tuple[WatchState, Event | None]:
        """After a pass that listed every page of its window.

        The cursor moves here and not page by page: the order of a listing is
        not documented, so after half of one nobody knows what is missing.
        """
        recovered = None
        if self.is_alarmed and self.failing_since is not None:
            recovered = watch_event(
                self.name,
                WATCH_RECOVERED,
                occurred_at=now,
                since=self.failing_since,
                reason=self.failing_reason or "",
            )
        state = replace(
            self,
            cursor=next_cursor(self.cursor, newest, now=now),
            baseline_done=True,
            failures=0,
            failing_since=None,
            failing_reason=None,
        )
        return state, recovered

    def failed(self, reason: str, *, now: datetime) -> tuple[WatchState, Event | None]:
        """After a pass that upstream did not let through; one alarm for one outage."""
        state = replace(
            self,
            failures=self.failures + 1,
            failing_since=self.failing_since or now,
            failing_reason=reason,
        )
        if self.is_alarmed or not state.is_alarmed or state.failing_since is None:
            return state, None
        alarm = watch_event(
            self.name,
            WATCH_FAILING,
            occurred_at=now,
            since=state.failing_since,
            reason=reason,
        )
        return state, alarm
