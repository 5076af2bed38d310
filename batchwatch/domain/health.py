"""How an endpoint is doing: whether to hold back, when to warn, when to give up on it.

Two rules stand side by side. The breaker looks at minutes and is forgotten
with the process: it keeps a receiver that is down from costing much. The
record looks at days and is kept in the store: it tells people that an
endpoint fails, and in the end disables it. Where several replicas send to an
endpoint, each has a breaker of its own and hears of the others', and all
write the one record.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from batchwatch.domain.event import (
    ENDPOINT_DISABLED,
    ENDPOINT_FAILING,
    ENDPOINT_RECOVERED,
    Event,
    endpoint_event,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from batchwatch.domain.batch import EndpointName

WINDOW: Final = 300.0  # seconds that the breaker looks back
SLICES: Final = 10  # that it forgets them by
TRIES_TO_OPEN: Final = 10
SHARE_TO_OPEN: Final = 0.7  # of these, failed
PROBE_AFTER: Final = 30.0  # seconds
FOLLOW_AFTER: Final = 75.0  # seconds, while another replica probes as well
OFFLINE_PROBE_AFTER: Final = 5.0  # seconds; to find out that the network is back costs nobody much

FAILING_TO_TELL: Final = 300.0  # seconds of nothing but failure until somebody is told
FAILING_TO_DISABLE: Final = 120 * 3600.0
WARNINGS: Final = (0.5, 0.7, 0.9)  # of that
LONGEST_SILENCE: Final = 30 * 3600.0  # seconds between two tries that count: the longest pause


@dataclass(slots=True)
class _Slice:
    """A part of the breaker's window: the tries that ended since some moment."""

    since: float
    tries: int = 0
    failures: int = 0


class Breaker:
    """Holds back an endpoint that keeps failing, and probes it. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._slices: deque[_Slice] = deque()
        self._next_probe: float | None = None  # None: closed
        self._is_probing = False
        self._openings = 0  # so far; a probe counts for the one that it was sent in
        self._follows = False  # another replica's word
        self.is_offline = False  # open because nobody can be reached from here

    @property
    def is_open(self) -> bool:
        """Whether all but probes are held back."""
        return self._next_probe is not None

    def wait(self, now: float) -> float:
        """Seconds until the next try may begin; 0 if now. Endless while a probe is under way."""
        if self._next_probe is None:
            return 0.0
        return math.inf if self._is_probing else max(0.0, self._next_probe - now)

    def began(self) -> int:
        """A try begins; 0, or a number to end it with if it is the probe of an open breaker."""
        if not self.is_open:
            return 0
        self._is_probing = True
        return self._openings

    def ended(self, now: float, *, failed: bool, probe: int = 0) -> None:
        """A try has ended, and tells how the endpoint is."""
        if self.is_open and (not failed or (self.is_offline and self._is_the(probe))):
            self._close()
        if self.is_open:
            # What was sent before it opened says nothing new.
            if self._is_the(probe):
                self._open(now, FOLLOW_AFTER if self._follows else PROBE_AFTER)
            return
        self._count(now, failed=failed)
        if failed and self._fails_mostly():
            self._open(now, PROBE_AFTER)

    def abandoned(self, *, probe: int = 0) -> None:
        """A try has ended and told nothing of the endpoint."""
        if self._is_the(probe):
            self._is_probing = False

    def offline(self, now: float, *, probe: int = 0) -> None:
        """A try has ended and told that there is no network."""
        if not self.is_open or self._is_the(probe):
            self._open(now, OFFLINE_PROBE_AFTER)
            self.is_offline = True

    def follow(self, now: float) -> None:
        """Another replica found that the endpoint fails: the next try from here is a probe.

        It may go at once, for it may be the other's way to it that is broken;
        if it fails, too, the other probes more often. Whoever knows already
        learns nothing, and puts off nothing.
        """
        if not self.is_open:
            self._open(now, 0.0)
            self._follows = True

    def hurry(self, now: float) -> None:
        """Another replica found that the endpoint is well: probe it now."""
        if self.is_open and not self.is_offline:
            self._next_probe = now

    def _is_the(self, probe: int) -> bool:
        return self.is_open and probe == self._openings

    def _open(self, now: float, probe_after: float) -> None:
        self._next_probe, self._is_probing = now + probe_after, False
        self._openings += 1
        self._slices.clear()

    def _close(self) -> None:
        self._next_probe, self._is_probing, self.is_offline = None, False, False
        self._follows = False
        self._slices.clear()

    def _count(self, now: float, *, failed: bool) -> None:
        if not self._slices or now - self._slices[-1].since >= WINDOW / SLICES:
            self._slices.append(_Slice(now))
            while now - self._slices[0].since > WINDOW:
                self._slices.popleft()
        self._slices[-1].tries += 1
        self._slices[-1].failures += failed

    def _fails_mostly(self) -> bool:
        tries = sum(one.tries for one in self._slices)
        failures = sum(one.failures for one in self._slices)
        return tries >= TRIES_TO_OPEN and failures >= SHARE_TO_OPEN * tries


@dataclass(frozen=True, slots=True)
class Record:
    """What is remembered of an endpoint's health.

    ``failing_for`` is counted in monotonic seconds between tries and kept, so
    that neither a wall clock that jumps nor a daemon that was stopped makes
    an endpoint look dead for days.
    """

    name: EndpointName
    failing_since: datetime | None = None
    failing_for: float = 0.0  # seconds of nothing but failure
    told: float | None = None  # the share of the way to its end that was told of; None: nothing
    alarm_since: datetime | None = None  # since when others know; the all-clear is owed
    reason: str | None = None  # of the last failure, or of its end
    disabled_at: datetime | None = None

    def failed(self, reason: str, *, after: float, now: datetime) -> tuple[Record, Event | None]:
        """After a failed try, ``after`` seconds from the one before it."""
        if self.disabled_at is not None:
            return self, None
        failing_for = self.failing_for
        if self.failing_since is not None:
            failing_for += min(after, LONGEST_SILENCE)
        record = replace(
            self,
            failing_since=self.failing_since or now,
            failing_for=failing_for,
            reason=reason,
        )
        if failing_for >= FAILING_TO_DISABLE:
            hours = round(FAILING_TO_DISABLE / 3600)
            return record.disabled(f"{hours} hours of nothing but failure: {reason}", now=now)
        level = record.level
        if level is None or (record.told is not None and level <= record.told):
            return record, None
        return record.tell(ENDPOINT_FAILING, level, now=now)

    @property
    def state(self) -> str:
        """``well``, ``failing`` or ``disabled``."""
        if self.disabled_at is not None:
            return "disabled"
        return "well" if self.failing_since is None else "failing"

    @property
    def level(self) -> float | None:
        """The largest share of the way to its end that it has passed and that is told of."""
        if self.failing_for < FAILING_TO_TELL:
            return None
        share = self.failing_for / FAILING_TO_DISABLE
        return max((one for one in WARNINGS if one <= share), default=0.0)

    def succeeded(self, *, now: datetime) -> tuple[Record, Event | None]:
        """After a try that was taken."""
        if self.disabled_at is not None:
            return self, None  # what was under way when it was disabled
        well = Record(self.name)
        if self.alarm_since is None:
            return well, None
        return well, self._event(ENDPOINT_RECOVERED, self.alarm_since, 0.0, now=now)

    def disabled(self, reason: str, *, now: datetime) -> tuple[Record, Event | None]:
        """Nothing more is sent until somebody enables it; what it is owed waits."""
        if self.disabled_at is not None:
            return self, None
        record = replace(
            self, reason=reason, disabled_at=now, failing_since=self.failing_since or now
        )
        return record.tell(ENDPOINT_DISABLED, 1.0, now=now)

    def enabled(self) -> Record:
        """As at its beginning, but that others know of its trouble and are owed the all-clear."""
        return Record(self.name, alarm_since=self.alarm_since, reason=self.reason)

    def joined(
        self, stored: Record, events: Sequence[Event], *, base: Record, now: datetime
    ) -> tuple[Record, Sequence[Event]]:
        """What is to be written, and told of ``events``, where the store may know more.

        This record came from ``base``; where ``stored`` is another by now, a
        command or another replica was faster. What disables stays, for only a
        command enables; what it took from another it has taken, and with that
        ended a failure that this record still counts; and time that both saw
        it fail counts once.
        """
        if stored == base:
            return self, events
        if stored.disabled_at is not None:
            return stored, ()
        if self.disabled_at is None and self.failing_since is None:
            well, event = stored.succeeded(now=now)
            return well, [event] if event else ()
        has_ended = stored.failing_since is None or (
            base.failing_since is not None and stored.failing_since != base.failing_since
        )
        by_time = self.disabled_at is None or self.failing_for >= FAILING_TO_DISABLE
        if has_ended and by_time:
            return stored, ()
        if self.disabled_at is not None:
            return replace(self, alarm_since=stored.alarm_since or self.alarm_since), events
        told = [one for one in (self.told, stored.told) if one is not None]
        both = replace(
            self,
            failing_since=stored.failing_since,
            failing_for=max(self.failing_for, stored.failing_for),
            told=max(told, default=None),
            alarm_since=stored.alarm_since or self.alarm_since,
        )
        return both, () if both.told == stored.told else events

    def tell(self, type_: str, share: float, *, now: datetime) -> tuple[Record, Event]:
        """Have the others told of it; the record remembers that they were."""
        since = self.failing_since or now
        record = replace(self, told=share, alarm_since=self.alarm_since or since)
        return record, self._event(type_, since, share, now=now)

    def _event(self, type_: str, since: datetime, share: float, *, now: datetime) -> Event:
        return endpoint_event(
            self.name,
            type_,
            occurred_at=now,
            since=since,
            reason=self.reason or "",
            share=share,
        )
