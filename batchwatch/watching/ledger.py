"""Keep the ledger of one watch: what its passes covered, and where there was a gap between two."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from batchwatch.domain.cadence import OVERLAP, silence_allowed
from batchwatch.domain.coverage import Gap, Kind, closed, missed_before, missed_between
from batchwatch.domain.watch import Work
from batchwatch.log import get_logger

if TYPE_CHECKING:
    from datetime import datetime

    from batchwatch.clock import Clock
    from batchwatch.domain.coverage import Look
    from batchwatch.domain.watch import Watch, WatchState
    from batchwatch.metrics import Metrics
    from batchwatch.store import Watches

log = get_logger()

LEDGER_EVERY: Final = 60.0  # seconds between two entries that say nothing but "still watching"
HELD: Final = 6 * 3600.0  # seconds for which the window waits for entries to become readable


class Ledger:
    """What becomes of the time that one watch looks at."""

    def __init__(self, watch: Watch, *, watches: Watches, clock: Clock, metrics: Metrics) -> None:
        self._watch = watch
        self._watches = watches
        self._clock = clock
        self._metrics = metrics
        self._running_since = clock.monotonic()
        self._written_at = self._running_since - LEDGER_EVERY
        self._before: Look | None = None  # the last whole pass of this process
        self._last: datetime | None = None  # the last moment that another one covered
        self._passes = 0  # whole ones that are not written down yet
        self._why: tuple[Kind, str] | None = None  # no pass has ended well since the last one
        self._lasting: Gap | None = None  # entries that nobody can read, as long as they are listed
        self._lasting_since = 0.0  # monotonic
        for kind in Kind:  # so that the first one is a change that an alarm can see
            metrics.gaps.labels(watch.name, kind.value, "open")

    def held_up(self, kind: Kind, reason: str) -> None:
        """A pass failed, or does not come to its end; that it failed says more."""
        if self._why is None or self._why[0] is not Kind.FAILING or kind is Kind.FAILING:
            self._why = (kind, reason)

    async def close(self, state: WatchState, look: Look, *, newest: datetime | None) -> WatchState:
        """Note a whole pass; the watch's state after it.

        Where that changes nothing but the ledger's last moment, it is written
        once a minute: what a crash forgets of it, the next window covers.
        """
        now = self._clock.now()
        if self._last is None and self._before is None and state.baseline_done:
            self._last, self._lasting = await self._watches.covered(self._watch.name)
        news = [part for gap in self._missed(state, look) for part in closed(gap, look, now=now)]
        lasting, changed = self._unreadable(look, now)
        if look.unreadable and look.monotonic - self._lasting_since < HELD:
            newest = None  # what becomes readable soon must still be in the window then
        news += changed
        is_due = self._clock.monotonic() - self._written_at >= LEDGER_EVERY
        if news or is_due or state.passed(newest, now=now)[0] != state:
            state = await self._watches.passed(
                self._watch.name,
                look,
                newest=newest,
                now=now,
                passes=self._passes + 1,
                gaps=[*news, *([lasting] if lasting and lasting not in news else [])],
            )
            self._written_at, self._passes = self._clock.monotonic(), 0
        else:
            self._passes += 1
        self._before, self._why, self._lasting = look, None, lasting
        for gap in news:
            self._tell(gap)
        return state

    def _missed(self, state: WatchState, look: Look) -> list[Gap]:
        """The time since the last whole pass, as far as it was too long."""
        allowed = silence_allowed(self._watch.interval)
        if self._before is not None:
            gap = missed_between(self._before, look, allowed=allowed, why=self._why)
            return [gap] if gap else []
        if self._last is None:
            return []
        running = look.monotonic - self._running_since
        trouble = state.troubles.get(Work.DISCOVERY)
        is_old = trouble and trouble.since < look.begun_at - timedelta(seconds=running)
        return missed_before(
            self._last,
            look,
            running=running,
            allowed=allowed,
            failing=trouble.reason if trouble and is_old else None,
            why=self._why,
        )

    def _unreadable(self, look: Look, now: datetime) -> tuple[Gap | None, list[Gap]]:
        """The entries that nobody can read, while they last, and what is new about them.

        It is one gap from the first of them to the last, however many there
        are in between: nobody knows which they are, nor when they were created.
        But what was listed before, all of it readable, is known since then.
        """
        before = self._lasting
        if look.unreadable and before is None:
            self._lasting_since = look.monotonic
            count = "1 entry" if look.unreadable == 1 else f"{look.unreadable} entries"
            reason = f"LlamaCloud listed {count} without an id or a status that could be read"
            readable = self._before.covered_to if self._before else self._last
            start = look.covered_from
            if readable is not None:
                start = min(max(start, readable - OVERLAP), look.covered_to)
            gap = Gap(start, look.covered_to, Kind.UNREADABLE, reason)
            return gap, [gap]
        if before is None:
            return None, []
        if look.unreadable:
            return replace(before, end=max(before.end, look.covered_to)), []
        if look.covered_from > before.start:
            return None, []  # they are no longer listed, and stay what they were
        return None, closed(before, look, now=now)

    def _tell(self, gap: Gap) -> None:
        outcome = "open" if gap.is_open else "closed"
        self._metrics.gaps.labels(self._watch.name, gap.kind.value, outcome).inc()
        (log.error if gap.is_open else log.info)(
            "gap.left" if gap.is_open else "gap.closed",
            watch=self._watch.name,
            kind=gap.kind,
            since=gap.start.isoformat(),
            until=gap.end.isoformat(),
            found=gap.found,
            reason=gap.reason,
        )
