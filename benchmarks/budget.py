"""Simulate a day of a thousand watches by batchwatch's own rules, and count what they ask for.

No clock, no network and no store: each watch asks by the rules for windows, intervals, sweeps and
pauses that the daemon has, out of a bucket of tokens as it has. The same numbers each time.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from bisect import bisect_left
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

from batchwatch.domain.batch import PENDING, RUNNING
from batchwatch.domain.cadence import (
    FEW_FILES,
    next_cursor,
    next_poll,
    settle_backoff,
    window_start,
)
from batchwatch.domain.refresh import Share, plan_refresh
from batchwatch.llamacloud.budget import Priority
from batchwatch.llamacloud.client import IDS_AT_ONCE
from benchmarks.results import Column, Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.progress import Progress
    from benchmarks.results import Cell

    Answered = Callable[[float], None]  # given the second at which it is

HOUR: Final = 3_600  # seconds
SWING: Final = 0.8  # at noon so much more than on average, at midnight so much less
PENDING_FOR: Final = (5.0, 60.0)  # seconds
RUNNING_FOR: Final = (480.0, 0.8)  # the median in seconds, and how far it spreads
JOBS_FOR: Final = (60.0, 0.7)  # likewise: until the last job has ended, after the batch has
FILES: Final = ((0.70, 1, 20), (0.99, 21, 100), (1.0, 1_000, 1_000))  # by share, from, to
STEADY: Final = 2 * HOUR  # for which a stream is simulated that may be too much
BURST: Final = 4  # a quarter of a minute's requests may be sent at once
PATIENCE: Final = 120.0  # seconds at the 95th percentile; what takes longer does not keep up
SETTLE_LIMIT: Final = 600.0  # likewise, from the end of the last job to what is told of all
EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Kind:
    """Watches that are alike."""

    name: str
    watches: int
    batches: int  # a day, of each


@dataclass(frozen=True, slots=True)
class Way:
    """How they watch."""

    name: str
    interval: float  # seconds
    hints: bool
    page: int  # the largest page that upstream gives
    per_minute: int = 1_200


KINDS: Final = (
    Kind("small", 700, 1_000),
    Kind("middling", 250, 15_000),
    Kind("large", 50, 111_000),
)
WAYS: Final = (
    Way("polls, 15 s", 15.0, hints=False, page=1_000),
    Way("pages of 100", 15.0, hints=False, page=100),
    Way("hints, 60 s", 60.0, hints=True, page=1_000),
)
BUDGETS: Final = (20, 120, 1_200)  # a free plan's, a small one, the default
RATES: Final = tuple(round(10 ** (power / 6)) for power in range(12, 41))  # batches a day

OF_A_DAY: Final = (
    Column("way", "way"),
    Column("kind", "kind"),
    Column("watches", "n", ",.0f"),
    Column("batches", "batches", ",.0f"),
    Column("requests", "requests", ",.0f"),
    Column("each", "a batch", ",.1f"),
    Column("peak", "most/min", ",.0f"),
    Column("share", "of budget", ".0%"),
    Column("p50", "p50, s", ",.0f"),
    Column("p95", "p95, s", ",.0f"),
    Column("settled", "settled", ",.0f"),
)
OF_WORK: Final = (
    Column("way", "way"),
    Column("kind", "kind"),
    Column("discover", "list", ".0%"),
    Column("complete", "results", ".0%"),
    Column("refresh", "refresh", ".0%"),
    Column("settle", "jobs", ".0%"),
)
OF_LIMITS: Final = (
    Column("budget", "requests/min", ",.0f"),
    Column("way", "way"),
    Column("most", "batches/day", ",.0f"),
    Column("requests", "of its budget", ".0%"),
    Column("p95", "told p95, s", ",.0f"),
    Column("settled", "settled p95, s", ",.0f"),
    Column("least", "too many", ",.0f"),
)


async def run(progress: Progress, *, quick: bool) -> list[Finding]:
    """Simulate each way for each kind of watch, then look for what is too much for one."""
    begin, end = (10 * HOUR, 14 * HOUR) if quick else (0, 24 * HOUR)
    rates = RATES[::3] if quick else RATES
    progress.stage("budget: a day", steps=len(WAYS) * len(KINDS))
    rows: list[dict[str, Cell]] = []
    for way in WAYS:
        days = []
        for kind in KINDS:
            days.append(_Watch(way, kind.batches).run(begin, end))
            rows.append(_row(way, kind, days[-1]))
            progress.step()
        rows.append(_sum(way, days))
    progress.stage("budget: too much", steps=len(BUDGETS) * 2)
    limits = []
    for per_minute in BUDGETS:
        for way in (WAYS[0], WAYS[2]):
            limits.append(_limit(way, per_minute, rates))
            progress.step()
    return [
        Finding(
            title=f"Requests of {sum(one.watches for one in KINDS):,} watches with "
            f"{sum(one.watches * one.batches for one in KINDS) / 1e6:.1f} million batches a day",
            columns=OF_A_DAY,
            rows=rows,
            notes=[
                "One watch of each kind is simulated, second by second; all have noon at once.",
                "PENDING lasts 5 to 60 s and RUNNING 8 minutes, of one in ten 22 and more.",
                "Seven of ten have up to 20 files, one of a hundred has 1,000; the last job ends",
                "a minute after. p50 and p95: from the end of a batch to the answer with its",
                "results; settled, p95: from the end of its last job to the answer that shows it.",
            ],
        ),
        Finding(title="What they are for", columns=OF_WORK, rows=rows),
        Finding(
            title="The batches that one watch keeps up with, by its budget",
            columns=OF_LIMITS,
            rows=limits,
            notes=[
                f"In a steady stream of {STEADY / HOUR:.0f} hours 95 % of them are told within",
                f"{PATIENCE:.0f} s and settled within {SETTLE_LIMIT:.0f} s.",
            ],
        ),
    ]


@dataclass(slots=True, eq=False)
class _Batch:
    """The life of one; moments in seconds."""

    created: float
    runs: float
    ends: float
    over: float  # when the last of its jobs has ended
    files: int
    asks: int = 0  # for its jobs
    found: bool = False  # that it has ended: its results are asked for
    told: bool = False
    settled: bool = False


@dataclass(slots=True)
class _Day:
    """What one watch asked for, and how soon it told."""

    batches: int = 0
    requests: Counter[Priority] = field(default_factory=Counter)
    minutes: Counter[int] = field(default_factory=Counter)  # requests of each
    told: list[float] = field(default_factory=list)  # seconds after the end; infinite: never
    settled: list[float] = field(default_factory=list)  # likewise, after the last job

    def keeps_up(self) -> bool:
        """Whether the day's batches were told and settled in time."""
        return _within(self.told, 0.95) <= PATIENCE and _within(self.settled, 0.95) <= SETTLE_LIMIT


class _Watch:
    """One watch, second by second: what it asks for waits for its place in the budget."""

    def __init__(self, way: Way, batches: int, *, swing: float = SWING) -> None:
        self._way = way
        self._rate = batches / (24 * HOUR)  # a second
        self._swing = swing
        self._dice = random.Random(batches)
        self._day = _Day()
        # What waits for a request: what is done with its answer.
        self._waiting: dict[Priority, deque[Answered]] = {one: deque() for one in Priority}
        self._tokens = way.per_minute / BURST
        self._batches: list[_Batch] = []
        self._ages: list[float] = []  # when each of them was created
        self._listed = 0  # how many of them a listing has shown
        self._active: list[_Batch] = []  # of these
        self._hints: list[tuple[float, int, _Batch]] = []  # a heap
        self._jobs: list[tuple[float, int, _Batch]] = []  # a heap: whose jobs are due
        self._order = itertools.count()
        self._cursor: datetime | None = None
        self._next_pass = 0.0

    def run(self, begin: int, end: int) -> _Day:
        """From one second of a day to another."""
        for now in range(begin, end):
            self._be_born(now)
            self._look(now)
            if now >= self._next_pass:
                self._list(now)
            self._settle(now)
            self._ask(now)
        for one in self._batches:
            if not one.told and one.ends < end - PATIENCE:
                self._day.told.append(math.inf)
            if not one.settled and one.over < end - SETTLE_LIMIT:
                self._day.settled.append(math.inf)
        self._day.batches = len(self._batches)
        return self._day

    def _be_born(self, now: int) -> None:
        """As many as come this second, with the lives that they will have."""
        dice = self._dice
        noon = -math.cos(2 * math.pi * now / (24 * HOUR))
        for _ in range(_poisson(dice, self._rate * (1 + self._swing * noon))):
            runs = now + dice.uniform(*PENDING_FOR)
            ends = runs + dice.lognormvariate(math.log(RUNNING_FOR[0]), RUNNING_FOR[1])
            over = ends + dice.lognormvariate(math.log(JOBS_FOR[0]), JOBS_FOR[1])
            share = dice.random()
            low, high = next((low, high) for most, low, high in FILES if share <= most)
            one = _Batch(now, runs, ends, over, dice.randint(low, high))
            self._batches.append(one)
            self._ages.append(now)
            if self._way.hints:
                for moment in (now, runs, ends):
                    heapq.heappush(self._hints, (moment, next(self._order), one))

    def _want(self, priority: Priority, answered: Answered) -> None:
        self._waiting[priority].append(answered)

    def _ask(self, now: float) -> None:
        """Send what the bucket has tokens for, the most urgent first."""
        most = self._way.per_minute / BURST
        self._tokens = min(most, self._tokens + self._way.per_minute / 60)
        while self._tokens >= 1:
            priority = next((one for one in Priority if self._waiting[one]), None)
            if priority is None:
                return
            self._tokens -= 1
            self._day.requests[priority] += 1
            self._day.minutes[int(now // 60)] += 1
            self._waiting[priority].popleft()(now)

    # ------------------------------------------------------------------- discovery and refresh

    def _list(self, now: float) -> None:
        """Begin a pass: the pages of its window, of which the last one tells all."""
        self._next_pass = math.inf  # until this one has ended
        start = window_start(self._cursor, started_at=_at(now), lookback=timedelta(0))
        since = (start - EPOCH).total_seconds()
        shown = len(self._ages) - bisect_left(self._ages, since)
        for _ in range(_pages(shown, self._way) - 1):
            self._want(Priority.DISCOVER, _nothing)
        self._want(Priority.DISCOVER, partial(self._show, since))

    def _show(self, since: float, now: float) -> None:
        """Take what the window shows; what is older and active is refreshed."""
        self._active += self._batches[self._listed :]
        self._listed = len(self._batches)
        newest = _at(self._ages[-1]) if self._ages else None
        self._cursor = next_cursor(self._cursor, newest, now=_at(now))
        for one in self._active:
            if one.created >= since and one.ends <= now and not one.found:
                one.found = True
                self._want(Priority.COMPLETE, partial(self._told, one))
        self._active = [one for one in self._active if not one.found]
        self._next_pass = now + next_poll(self._way.interval, active=len(self._active))
        older = [one for one in self._active if one.created < since]
        if older and not self._waiting[Priority.REFRESH]:  # else one is under way
            self._refresh(older, now)

    def _refresh(self, older: Sequence[_Batch], now: float) -> None:
        pending = [one for one in older if one.runs > now]
        running = [one for one in older if one.runs <= now]
        shares = [
            Share(status, len(some), 0, _at(some[0].created), _at(some[-1].created))
            for status, some in ((PENDING, pending), (RUNNING, running))
            if some
        ]
        sweeps = plan_refresh(shares, page_size=self._way.page)
        due = {share.status: share.due for share in shares}
        for sweep in sweeps:
            for _ in range(_pages(due.get(sweep.status, 0), self._way)):
                self._want(Priority.REFRESH, _nothing)
        for one in older:
            if not sweeps or one.ends <= now:  # what no sweep shows has moved, and is fetched
                self._want(Priority.REFRESH, partial(self._told, one))

    def _look(self, now: float) -> None:
        """Ask for each batch that a hint names, unless what it claims is known."""
        while self._hints and self._hints[0][0] <= now:
            *_, one = heapq.heappop(self._hints)
            if not one.told:
                self._want(Priority.COMPLETE, partial(self._told, one))

    def _told(self, one: _Batch, now: float) -> None:
        """A GET is answered: of what has ended it brings the results."""
        if one.told or one.ends > now:
            return
        one.found = one.told = True
        self._day.told.append(now - one.ends)
        heapq.heappush(self._jobs, (now, next(self._order), one))

    # ---------------------------------------------------------------------------- settlement

    def _settle(self, now: float) -> None:
        """Ask for the jobs that are due: small batches share a request, large ones go by chunks."""
        lot: list[_Batch] = []
        while self._jobs and self._jobs[0][0] <= now:
            *_, one = heapq.heappop(self._jobs)
            if one.files > FEW_FILES:
                chunks = math.ceil(one.files / IDS_AT_ONCE)
                self._want(Priority.SETTLE, partial(self._chunk, one, chunks, chunks))
                continue
            if sum(other.files for other in lot) + one.files > IDS_AT_ONCE:
                self._want(Priority.SETTLE, partial(self._lot, lot))
                lot = []
            lot.append(one)
        if lot:
            self._want(Priority.SETTLE, partial(self._lot, lot))

    def _lot(self, lot: Sequence[_Batch], now: float) -> None:
        for one in lot:
            if one.over > now:
                self._go_on(one, now)
            else:
                self._settled(one, now)

    def _chunk(self, one: _Batch, place: int, chunks: int, now: float) -> None:
        """The last files are asked for first; where those run, the others need not be."""
        if one.ends + (one.over - one.ends) * place / chunks > now:
            self._go_on(one, now)
        elif place > 1:
            self._want(Priority.SETTLE, partial(self._chunk, one, place - 1, chunks))
        else:
            self._settled(one, now)

    def _settled(self, one: _Batch, now: float) -> None:
        one.settled = True
        self._day.settled.append(now - one.over if now > one.over else 0.0)

    def _go_on(self, one: _Batch, now: float) -> None:
        due = now + settle_backoff(one.asks, files=one.files).total_seconds()
        one.asks += 1
        heapq.heappush(self._jobs, (due, next(self._order), one))


def _at(second: float) -> datetime:
    return EPOCH + timedelta(seconds=second)


def _pages(rows: int, way: Way) -> int:
    return max(1, math.ceil(rows / way.page))


def _nothing(_: float) -> None:
    """A page of several."""


def _poisson(dice: random.Random, mean: float) -> int:
    """How many come where so many come on average."""
    limit, product, number = math.exp(-mean), dice.random(), 0
    while product > limit:
        product *= dice.random()
        number += 1
    return number


# -------------------------------------------------------------------------------- the tables


def _row(way: Way, kind: Kind, day: _Day) -> dict[str, Cell]:
    most = max(day.minutes.values())
    return {
        "way": way.name,
        "kind": kind.name,
        "watches": kind.watches,
        "batches": day.batches,
        "requests": day.requests.total(),
        "each": day.requests.total() / day.batches,
        "peak": most,
        "share": most / way.per_minute,
        **_shares(day.requests),
        "p50": _within(day.told, 0.5),
        "p95": _within(day.told, 0.95),
        "settled": _within(day.settled, 0.95),
    }


def _sum(way: Way, days: Sequence[_Day]) -> dict[str, Cell]:
    """Of all watches of all kinds."""
    requests: Counter[Priority] = Counter()
    minutes: Counter[int] = Counter()
    batches = 0
    for kind, day in zip(KINDS, days, strict=True):
        batches += day.batches * kind.watches
        for priority, count in day.requests.items():
            requests[priority] += count * kind.watches
        for minute, count in day.minutes.items():
            minutes[minute] += count * kind.watches
    return {
        "way": way.name,
        "kind": "all",
        "watches": sum(one.watches for one in KINDS),
        "batches": batches,
        "requests": requests.total(),
        "each": requests.total() / batches,
        "peak": max(minutes.values()),
        "share": None,
        **_shares(requests),
        "p50": None,
        "p95": None,
        "settled": None,
    }


def _shares(requests: Counter[Priority]) -> dict[str, Cell]:
    return {one.name.lower(): requests[one] / requests.total() for one in Priority}


def _limit(way: Way, per_minute: int, rates: Sequence[int]) -> dict[str, Cell]:
    """The most batches a day that one watch keeps up with, by halving what is between."""
    way = replace(way, per_minute=per_minute)
    low, high = 0, len(rates) - 1  # it keeps up with the lowest, and not with the highest
    found: dict[int, _Day] = {}
    while high - low > 1:
        middle = (low + high) // 2
        found[middle] = _Watch(way, rates[middle], swing=0.0).run(0, STEADY)
        low, high = (middle, high) if found[middle].keeps_up() else (low, middle)
    day = found[low]
    return {
        "budget": per_minute,
        "way": way.name,
        "most": rates[low],
        "requests": day.requests.total() / (STEADY / 60 * per_minute),
        "p95": _within(day.told, 0.95),
        "settled": _within(day.settled, 0.95),
        "least": rates[high],
    }


def _within(seconds: Sequence[float], share: float) -> float:
    """The seconds within which this share was."""
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
