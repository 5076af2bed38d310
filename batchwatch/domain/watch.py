"""How a watch is doing: where its next window begins, and whether upstream answers it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta  # the store reads troubles by their types
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from batchwatch.domain.cadence import is_alarming, next_cursor
from batchwatch.domain.event import WATCH_FAILING, WATCH_RECOVERED, Event, watch_event
from batchwatch.domain.stuck import Outage, Patience

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from batchwatch.domain.batch import WatchName

OUTAGES_KEPT: Final = 100


@dataclass(frozen=True, slots=True)
class Watch:
    """What to look at, and how often."""

    name: WatchName
    base_url: str
    interval: float  # seconds between passes while batches are active
    lookback: timedelta  # how far back the first pass ever looks
    notify_backlog: bool = False  # whether what ended before that pass is told as well
    patience: Patience = field(default_factory=Patience)
    settle_deadline: timedelta = timedelta(hours=24)  # after a batch's end
    file_names: bool = False  # whether to ask for the names of its files
    project_id: str | None = None
    organization_id: str | None = None
    source_directory_id: str | None = None

    @property
    def scope(self) -> Mapping[str, str]:
        """What it is asked for. Not the key: that is changed now and then, for the same batches."""
        scope = {
            "base_url": self.base_url,
            "project_id": self.project_id,
            "organization_id": self.organization_id,
            "source_directory_id": self.source_directory_id,
        }
        return {name: value for name, value in scope.items() if value is not None}


class Work(StrEnum):
    """What a watch does; each may fail while the others go well."""

    DISCOVERY = "discovery"
    REFRESH = "refresh"
    RESULTS = "results"
    SETTLING = "settling"


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why one kind of work fails, time after time."""

    since: datetime
    failures: int  # in a row
    reason: str  # the last one


@dataclass(frozen=True, slots=True)
class WatchState:
    """What must be remembered of a watch between two passes."""

    name: WatchName
    started_at: datetime  # when the first pass of its scope began, on upstream's clock
    cursor: datetime | None = None  # the largest created_at of all passes that listed every page
    baseline_done: bool = False  # whether the first pass has ended
    troubles: Mapping[Work, Trouble] = field(default_factory=dict)
    alarm: Trouble | None = None  # what `watch.failing` told of; `watch.recovered` is owed
    outages: Sequence[Outage] = ()  # those that are over, in order
    scope: Mapping[str, str] | None = None  # None: from before scopes were written down

    def scoped(self, scope: Mapping[str, str] | None, *, now: datetime) -> WatchState:
        """As it is when its watch is asked for ``scope``; None: nobody says for what.

        The cursor says nothing of another scope, in which batches may have
        been created before it. So that begins anew, as on the very first day.
        """
        if scope is None or scope == self.scope:
            return self
        if self.scope is None:
            return replace(self, scope=scope)
        return replace(self, started_at=now, cursor=None, baseline_done=False, scope=scope)

    def passed(self, newest: datetime | None, *, now: datetime) -> tuple[WatchState, Event | None]:
        """After a pass that listed every page of its window.

        The cursor moves here and not page by page: the order of a listing is
        not documented, so after half of one nobody knows what is missing.
        """
        cursor = next_cursor(self.cursor, newest, now=now)
        return replace(self, cursor=cursor, baseline_done=True).went_well(Work.DISCOVERY, now=now)

    def went_well(self, work: Work, *, now: datetime) -> tuple[WatchState, Event | None]:
        """After work that upstream let through; the all-clear comes when nothing fails any more."""
        troubles = {one: trouble for one, trouble in self.troubles.items() if one is not work}
        state = replace(self, troubles=troubles)
        if troubles or self.alarm is None:
            return state, None
        recovered = watch_event(
            self.name,
            WATCH_RECOVERED,
            occurred_at=now,
            since=self.alarm.since,
            reason=self.alarm.reason,
        )
        outages = (*self.outages, Outage(self.alarm.since, now))[-OUTAGES_KEPT:]
        return replace(state, alarm=None, outages=outages), recovered

    def failed(
        self,
        work: Work,
        reason: str,
        *,
        now: datetime,
        may_pass: bool,
        lasted: timedelta = timedelta(0),
    ) -> tuple[WatchState, Event | None]:
        """After work that upstream did not let through; one alarm for one outage.

        ``may_pass`` is whether it may go well again without anybody's doing,
        ``lasted`` for how long it has not gone well, where that is known.
        """
        before = self.troubles.get(work)
        since = now - lasted
        trouble = Trouble(
            since=min(before.since, since) if before else since,
            failures=before.failures + 1 if before else 1,
            reason=reason,
        )
        state = replace(self, troubles={**self.troubles, work: trouble})
        lasted = now - trouble.since
        if self.alarm or not is_alarming(trouble.failures, lasted=lasted, may_pass=may_pass):
            return state, None
        alarm = watch_event(
            self.name, WATCH_FAILING, occurred_at=now, since=trouble.since, reason=reason
        )
        return replace(state, alarm=trouble), alarm
