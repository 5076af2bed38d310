"""Which time was watched, which was not, why not, and what became of that.

All of it is on upstream's clock, as far as upstream shows one: it is
`created_at` that decides what a window shows, and a host whose clock is
wrong, or is set, would otherwise see gaps where there are none.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

NEARLY: Final = timedelta(seconds=5)  # HTTP's Date has whole seconds, and the way takes some more
SLEPT: Final = "this machine slept, or the process was held"
RESTARTED: Final = "the daemon was stopped for a part of it"
NOT_NOTED: Final = "nobody noted why; an older version ran then"


class Kind(StrEnum):
    """Why there is time without a whole pass."""

    STOPPED = "stopped"  # no daemon ran, or its machine slept
    FAILING = "failing"  # upstream let no pass through
    SLOW = "slow"  # a pass took too long: a pause, the budget, the store
    UNREADABLE = "unreadable"  # upstream listed what nobody can read
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Gap:
    """Time that was not watched as it went by, or not wholly."""

    start: datetime
    end: datetime
    kind: Kind
    reason: str | None = None
    closed_at: datetime | None = None  # when a pass listed it after all; None: open
    listed_from: datetime | None = None  # where the window of that pass began
    found: int | None = None  # changes that its listing showed

    @property
    def is_open(self) -> bool:
        """Whether batches of that time may be unknown to this day."""
        return self.closed_at is None

    @property
    def what_to_do(self) -> str:
        """For whoever hears that it cannot be closed."""
        if self.kind is Kind.UNREADABLE:
            return (
                "Look at LlamaCloud for batches that batchwatch ls does not list, and report to it "
                "that its listing holds entries without an id or a status. Should they become "
                "readable while they are still listed, they are told then."
            )
        return "Look at LlamaCloud for batches of that time that batchwatch ls does not list."


@dataclass(frozen=True, slots=True)
class Look:
    """A pass that listed every page of its window, as several clocks saw it."""

    covered_from: datetime  # where its window began
    covered_to: datetime  # when it began, on upstream's clock
    begun_at: datetime  # the same on ours
    monotonic: float  # the same in seconds that no clock can move
    found: int = 0  # changes that its listing showed
    unreadable: int = 0  # entries that nobody can read

    @property
    def skew(self) -> float:
        """Seconds that upstream's clock is ahead of ours."""
        return (self.covered_to - self.begun_at).total_seconds()


def on_upstreams_clock(begun_at: datetime, date: datetime | None, *, elapsed: float) -> datetime:
    """When a pass began for upstream, which said ``date`` after ``elapsed`` seconds of it."""
    if date is None:
        return begun_at
    there = date - timedelta(seconds=elapsed)
    return begun_at if abs(there - begun_at) <= NEARLY else there


def missed_between(
    before: Look, this: Look, *, allowed: float, why: tuple[Kind, str] | None
) -> Gap | None:
    """The time between two whole passes of one process, if it was longer than ``allowed``.

    By the clock that nobody can set; it stands still while a machine sleeps,
    which shows in that both other clocks have moved on. One of them alone
    proves nothing.
    """
    elapsed = this.monotonic - before.monotonic
    moved = min(this.covered_to - before.covered_to, this.begun_at - before.begun_at)
    if elapsed > allowed:
        kind, reason = why or (Kind.SLOW, None)
    elif moved.total_seconds() > elapsed + allowed:
        kind, reason = Kind.STOPPED, SLEPT
    else:
        return None
    start = min(before.covered_to, this.covered_to - timedelta(seconds=elapsed))
    return Gap(start, this.covered_to, kind, reason)


def missed_before(
    covered_to: datetime,
    this: Look,
    *,
    running: float,
    allowed: float,
    failing: str | None,
    why: tuple[Kind, str] | None,
) -> list[Gap]:
    """The time from ``covered_to``, the last of another process, to the first pass of this one.

    This one has been ``running`` for so many seconds when that began, and may
    have met trouble of its own meanwhile (``why``). ``failing`` is why passes
    failed when the other ended, if they did.
    """
    if this.covered_to <= covered_to:
        return []
    stopped = Gap(covered_to, this.covered_to, Kind.STOPPED)
    if failing is not None:
        stopped = replace(stopped, kind=Kind.FAILING, reason=f"{failing} ({RESTARTED})")
    began = this.covered_to - timedelta(seconds=running)
    if running <= allowed or began <= covered_to:
        return [stopped]
    kind, reason = why or (Kind.SLOW, None)
    return [replace(stopped, end=began), Gap(began, this.covered_to, kind, reason)]


def closed(gap: Gap, this: Look, *, now: datetime) -> list[Gap]:
    """What ``this`` makes of a gap: closed as far as its window reaches back, open before."""
    start = max(gap.start, this.covered_from)
    shut = replace(gap, start=start, closed_at=now, listed_from=this.covered_from, found=this.found)
    if start == gap.start:
        return [shut]
    if start >= gap.end:
        return [gap]
    return [replace(gap, end=start), shut]


@dataclass(frozen=True, slots=True)
class Window:
    """A row of the ledger: passes that followed each other, each reaching back to the last."""

    start: datetime
    end: datetime
    passes: int


class State(StrEnum):
    """How a piece of time was watched."""

    BEFORE = "before"  # the watch, as it is asked for now, had not begun
    REMOVED = "removed"  # it is so long ago that it is no longer known
    WATCHED = "watched"
    CLOSED = "closed"  # nobody looked at the time, and what was created in it was listed later
    OPEN = "open"  # batches of it may be unknown
    DUE = "due"  # it has just gone by, and the next pass is not due yet


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of time, and the gap that it is a part of, if it is."""

    start: datetime
    end: datetime
    state: State
    gap: Gap | None = None


@dataclass(frozen=True, slots=True)
class Ledger:
    """What is written down of one watch."""

    started_at: datetime
    windows: Sequence[Window]
    gaps: Sequence[Gap]
    kept_from: datetime | None = None  # what was before is removed; None: all is there


def proof(
    ledger: Ledger, *, since: datetime, now: datetime, allowed: float, present: Gap
) -> list[Piece]:
    """How each moment from ``since`` to ``now`` was watched: pieces in order, without holes.

    ``present`` says why nothing was written since the last pass, should that
    be longer ago than ``allowed`` seconds; its times do not matter.
    """
    last = max((one.end for one in ledger.windows), default=ledger.started_at)
    is_late = (now - last).total_seconds() > allowed
    kept_from = ledger.kept_from or ledger.started_at
    moments = {since, now, ledger.started_at, kept_from, last}
    moments.update(moment for one in ledger.windows for moment in (one.start, one.end))
    moments.update(moment for one in ledger.gaps for moment in (one.start, one.end))
    bounds = sorted(one for one in moments if since <= one <= now)
    pieces: list[Piece] = []
    for start, end in itertools.pairwise(bounds):
        state, gap = State.WATCHED, _gravest(ledger.gaps, start, end)
        if end <= ledger.started_at:
            state, gap = State.BEFORE, None
        elif end <= kept_from:
            state, gap = State.REMOVED, None
        elif start >= last:
            tail = replace(present, start=last, end=now)
            state, gap = (State.OPEN, tail) if is_late else (State.DUE, None)
        elif gap is not None:
            state = State.OPEN if gap.is_open else State.CLOSED
        elif not any(one.start <= start and end <= one.end for one in ledger.windows):
            state, gap = State.OPEN, _hole(ledger.windows, start, end)
        pieces.append(Piece(start, end, state, gap))
    return list(_joined(pieces))


def _gravest(gaps: Iterable[Gap], start: datetime, end: datetime) -> Gap | None:
    over = [one for one in gaps if one.start <= start and end <= one.end]
    return next((one for one in over if one.is_open), over[0] if over else None)


def _hole(windows: Sequence[Window], start: datetime, end: datetime) -> Gap:
    """What lies between two rows of the ledger, and has no row of its own."""
    before = max((one.end for one in windows if one.end <= start), default=start)
    after = min((one.start for one in windows if one.start >= end), default=end)
    return Gap(before, after, Kind.UNKNOWN, NOT_NOTED)


def _joined(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """The same with neighbours that are alike made one."""
    last: Piece | None = None
    for piece in pieces:
        if last is None:
            last = piece
        elif (last.state, last.gap) == (piece.state, piece.gap):
            last = replace(last, end=piece.end)
        else:
            yield last
            last = piece
    if last is not None:
        yield last
