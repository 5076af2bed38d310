"""Charts as SVG, made on the server: from numbers to markup, and nothing else.

Across, everything is in percent of the width, so that a chart fills whatever
room it has and its text keeps its size; down, it is in pixels. Colours and
fonts come by classes, for the pages' policy allows no style in the markup.
Each chart says in words what it shows; beside it the page has its numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Final

from batchwatch.web.dashboard.wording import briefly, moment, plural, span

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from batchwatch.web.api.answers import Coverage, Expected, Hour

HEIGHT: Final = 168  # pixels
TOP: Final = 10  # pixels above what is drawn
BOTTOM: Final = 24  # and below
LEFT: Final = 9.0  # percent of the width, for the axis' words
ENDS: Final = ("COMPLETED", "FAILED", "CANCELLED")  # from the bottom up
_TONES: Final = {"COMPLETED": "good", "FAILED": "bad", "CANCELLED": "ended"}
# The upper bounds of the classes of latencies, in seconds: so that no axis ever moves.
LATENCIES: Final = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 60.0, 600.0, 3600.0, math.inf)
_SPREAD_FOR_LOGARITHM: Final = 20.0  # times as long as the shortest


class Svg(str):
    """Markup that is safe: all text in it is escaped."""

    __slots__ = ()

    def __html__(self) -> str:
        """As template engines ask for it."""
        return self


@dataclass(frozen=True, slots=True)
class Dot:
    """How long one thing took that was over then."""

    name: str
    at: datetime
    seconds: float


@dataclass(frozen=True, slots=True)
class Stay:
    """How long a batch was in one status; the last one may go on."""

    status: str
    seconds: float
    tone: str


def throughput(hours: Sequence[Hour]) -> Svg:
    """What ended in each hour, as bars of all statuses one upon the other."""
    totals = [sum(one.ended.values()) for one in hours]
    most, ticks = scale(max(totals, default=0))
    marks = list(_grid(ticks, most, [f"{one:g}" for one in ticks]))
    step = (100 - LEFT) / max(1, len(hours))
    for place, hour in enumerate(hours):
        left = LEFT + place * step
        words = ", ".join(f"{count} {status.lower()}" for status, count in _stack(hour.ended))
        parts, below = [], 0
        for status, count in _stack(hour.ended):
            y, height = _y(below + count, most), _y(below, most) - _y(below + count, most)
            below += count
            tone = _TONES.get(status, "other")
            parts.append(
                f'<rect class="bar tone-{tone}" x="{left + step * 0.14:.2f}%" y="{y:.1f}" '
                f'width="{step * 0.72:.2f}%" height="{max(1.0, height - 0.5):.1f}" rx="1"/>'
            )
        said = f"{hour.start:%d %b %H:%M}-{(hour.start.hour + 1) % 24:02}:00 UTC"
        marks.append(
            f'<g class="hour"><title>{said}: {words or "none"}</title>'
            f'<rect class="column" x="{left:.2f}%" y="{TOP}" width="{step:.2f}%" '
            f'height="{HEIGHT - TOP - BOTTOM}"/>{"".join(parts)}</g>'
        )
        if hour.start.hour % 6 == 0:
            marks.append(_below(left + step / 2, f"{hour.start:%H:%M}"))
    told = f"{plural(sum(totals), 'batch', 'batches')} ended in the last {len(hours)} hours"
    return _chart("Batches that ended, by hour", told + _peak(hours, totals), marks)


def durations(dots: Sequence[Dot], median: float | None) -> Svg:
    """What the last completed batches took, the newest to the right, with a line at the median."""
    if not dots or median is None:
        return _chart("How long batches take", "No batch has completed yet", _grid([], 1, []))
    ordered = sorted(dots, key=lambda one: one.at)
    least, longest = min(one.seconds for one in dots), max(one.seconds for one in dots)
    place = _Place(least, longest)
    marks = list(_grid(place.ticks, 1, [briefly(one) for one in place.ticks], place=place))
    step = (100 - LEFT - 2) / max(1, len(ordered))
    for number, one in enumerate(ordered):
        x = LEFT + 1 + (number + 0.5) * step
        marks.append(
            f'<circle class="dot" cx="{x:.2f}%" cy="{place.y(one.seconds):.1f}" r="3">'
            f"<title>{escape(one.name)}: {span(one.seconds)}, {moment(one.at)} UTC</title></circle>"
        )
    y = place.y(median)
    marks.append(f'<line class="median" x1="{LEFT}%" x2="100%" y1="{y:.1f}" y2="{y:.1f}"/>')
    marks.append(_below(LEFT + 1, "older", anchor="start"))
    marks.append(_below(100, "newest", anchor="end"))
    told = (
        f"The last {plural(len(dots), 'completed batch', 'completed batches')} took "
        f"{span(least)} to {span(longest)}, half of them at most {span(median)}"
    )
    return _chart("How long batches take", told, marks)


def latencies(seconds: Sequence[float], median: float | None, p95: float | None) -> Svg:
    """How many deliveries took how long, from the observation to the receipt."""
    if median is None or p95 is None:
        return _chart("How fast it is told", "Nothing was delivered yet", _grid([], 1, []))
    counts = counted(seconds)
    most, ticks = scale(max((count for _, count in counts), default=0))
    marks = list(_grid(ticks, most, [f"{one:g}" for one in ticks]))
    step = (100 - LEFT) / len(counts)
    for place, (label, count) in enumerate(counts):
        left = LEFT + place * step
        y = _y(count, most)
        bar = (
            f'<rect class="bar tone-accent" x="{left + step * 0.1:.2f}%" y="{y:.1f}" '
            f'width="{step * 0.8:.2f}%" height="{max(1.0, HEIGHT - BOTTOM - y):.1f}" rx="1"/>'
            if count
            else ""
        )
        marks.append(
            f'<g class="hour"><title>{escape(label)}: {plural(count, "delivery", "deliveries")}'
            f'</title><rect class="column" x="{left:.2f}%" y="{TOP}" width="{step:.2f}%" '
            f'height="{HEIGHT - TOP - BOTTOM}"/>{bar}</g>'
        )
        if place % 2 == 1 and place < len(counts) - 1:
            marks.append(_below(left + step, briefly(LATENCIES[place])))
    told = (
        f"Of the last {plural(len(seconds), 'delivery', 'deliveries')} half took at most "
        f"{span(median)}, nineteen in twenty at most {span(p95)}"
    )
    return _chart("How fast it is told", told, marks)


def counted(seconds: Sequence[float]) -> list[tuple[str, int]]:
    """The classes of latencies in words, and how many are in each."""
    found = []
    below = 0.0
    for bound in LATENCIES:
        label = f"more than {briefly(below)}" if bound == math.inf else f"up to {briefly(bound)}"
        found.append((label, sum(1 for one in seconds if below <= one < bound)))
        below = bound
    return found


def expectation(elapsed: float, expected: Expected) -> Svg:
    """How long a batch has taken so far, against what like batches took."""
    end = max(expected.high * 1.15, elapsed * 1.05, 1.0)

    def across(seconds: float) -> float:
        return 100 * min(1.0, seconds / end)

    low, high = across(expected.low), across(expected.high)
    tone = "bad" if expected.overdue else "accent"
    middle = across(expected.median)
    marks = [
        _bar("rail", 0, 100, y=9, height=8),
        _bar("usual", low, max(0.6, high - low), y=5, height=16),
        _bar(f"bar tone-{tone}", 0, across(elapsed), y=9, height=8),
        f'<line class="mark" x1="{middle:.2f}%" x2="{middle:.2f}%" y1="2" y2="24"/>',
    ]
    told = (
        f"{span(elapsed)} so far; like batches took {span(expected.low)} to {span(expected.high)}, "
        f"half of them at most {span(expected.median)}"
    )
    return _svg("Time taken against what is expected", told, marks, height=26, kind="strip")


def stays(found: Sequence[Stay]) -> Svg:
    """The life of a batch as one strip: each status as long as it lasted."""
    total = sum(one.seconds for one in found) or 1.0
    least = 0.8  # percent: what was short is still to be seen
    shares = [max(least, 100 * one.seconds / total) for one in found]
    scale = 100 / (sum(shares) or 1.0)
    marks, left = [], 0.0
    for one, part in zip(found, shares, strict=True):
        width = part * scale
        marks.append(
            f'<rect class="bar tone-{one.tone}" x="{left:.2f}%" y="0" '
            f'width="{max(0.3, width - 0.3):.2f}%" height="14" rx="2">'
            f"<title>{escape(one.status)}: {span(one.seconds)}</title></rect>"
        )
        left += width
    told = ", then ".join(f"{one.status} for {span(one.seconds)}" for one in found)
    return _svg("How long each status lasted", told or "none yet", marks, height=14, kind="strip")


def coverage(covered: Coverage, *, now: datetime) -> Svg:
    """A day of watching as one strip, with the gaps in it; empty until it began."""
    since = covered.since
    whole = max(1.0, (now - since).total_seconds())

    def across(at: datetime) -> float:
        return 100 * min(1.0, max(0.0, (at - since).total_seconds() / whole))

    began = across(covered.began)
    marks = [
        _bar("rail", 0, 100, y=2, height=14),
        _bar("bar tone-good", began, max(0.5, 100 - began), y=2, height=14),
    ]
    for one in covered.gaps:
        right = across(one.end)
        left = min(across(one.start), right - 0.5)
        kind = "closed" if one.closed_at else "open"
        said = "listed afterwards" if one.closed_at else "not watched"
        marks.append(
            f'<rect class="gap {kind}" x="{left:.2f}%" y="{2 if one.closed_at else 0}" '
            f'width="{right - left:.2f}%" height="{14 if one.closed_at else 18}">'
            f"<title>{moment(one.start)} to {moment(one.end)}: {said}</title></rect>"
        )
    left_open = [one for one in covered.gaps if one.closed_at is None]
    lost = sum(one.seconds for one in left_open)
    told = f"watched but for {plural(len(left_open), 'gap')} of {span(lost)} together"
    told = told if left_open else "every moment was watched, or listed afterwards"
    if covered.began > since:
        told += f", since it began at {moment(covered.began)}"
    return _svg("The last 24 hours", told, marks, height=18, kind="strip")


def meter(part: float, tone: str, said: str) -> Svg:
    """A share of a whole."""
    marks = [
        _bar("rail", 0, 100, y=0, height=6),
        _bar(f"bar tone-{tone}", 0, 100 * part, y=0, height=6),
    ]
    return _svg(said, "", marks, height=6, kind="strip")


class _Place:
    """Where a duration stands on the axis: by its logarithm, if they are far apart."""

    def __init__(self, least: float, longest: float) -> None:
        self._by_logarithm = longest > _SPREAD_FOR_LOGARITHM * max(least, 1e-9)
        if self._by_logarithm:
            self._low, self._high = math.log(least * 0.8), math.log(longest * 1.2)
            self.ticks = _powers(least, longest)
        else:
            top, self.ticks = scale(longest, units=True)
            self._low, self._high = 0.0, top

    def y(self, seconds: float) -> float:
        value = math.log(seconds) if self._by_logarithm else seconds
        part = (value - self._low) / ((self._high - self._low) or 1.0)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(1.0, max(0.0, part))


_STEPS: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600,
                 43_200, 86_400)  # fmt: skip


def scale(largest: float, *, units: bool = False) -> tuple[float, list[float]]:
    """The top of an axis from 0 on, and its one to three ticks at round values.

    With ``units`` these are seconds, and round is what is so in minutes and hours.
    """
    if largest <= 0:
        return 1.0, [1.0]
    steps: Sequence[float] = _STEPS
    if not units or largest < 2 or largest > 3 * _STEPS[-1]:
        power = 10 ** math.floor(math.log10(largest / 2)) if largest > 2 else 1
        power = power if not units or largest >= 2 else 10 ** math.floor(math.log10(largest / 2))
        steps = [power * one for one in (1, 2, 5, 10)]
    step = next((one for one in steps if largest / one <= 3), steps[-1])
    top = max(largest * 1.06, step)
    return top, [step * one for one in range(1, math.floor(top / step) + 1)]


def _powers(least: float, longest: float) -> list[float]:
    wanted = [0.01, 0.1, 1, 10, 60, 600, 3600, 6 * 3600, 86_400, 7 * 86_400]
    return [one for one in wanted if least <= one <= longest][-4:]


def _y(count: float, most: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * count / most


def _grid(
    ticks: Sequence[float], most: float, labels: Sequence[str], *, place: _Place | None = None
) -> list[str]:
    floor = HEIGHT - BOTTOM
    marks = [f'<line class="axis" x1="{LEFT}%" x2="100%" y1="{floor}" y2="{floor}"/>']
    for one, label in zip(ticks, labels, strict=True):
        y = place.y(one) if place else _y(one, most)
        marks.append(f'<line class="grid" x1="{LEFT}%" x2="100%" y1="{y:.1f}" y2="{y:.1f}"/>')
        marks.append(f'<text class="tick" x="0" y="{y + 4:.1f}">{escape(label)}</text>')
    return marks


def _bar(kind: str, x: float, width: float, *, y: float, height: float) -> str:
    """A bar with round ends; across in percent, down in pixels."""
    return (
        f'<rect class="{kind}" x="{x:.2f}%" y="{y}" width="{width:.2f}%" height="{height}" '
        f'rx="{height / 4:g}"/>'
    )


def _below(x: float, text: str, *, anchor: str = "middle") -> str:
    return (
        f'<text class="tick" x="{x:.2f}%" y="{HEIGHT - 8}" text-anchor="{anchor}">'
        f"{escape(text)}</text>"
    )


def _stack(ended: Mapping[str, int]) -> list[tuple[str, int]]:
    """Statuses in their order from the bottom up; what is not known is on top."""
    known = [(status, ended[status]) for status in ENDS if ended.get(status)]
    return known + [(one, count) for one, count in sorted(ended.items()) if one not in ENDS]


def _peak(hours: Sequence[Hour], totals: Sequence[int]) -> str:
    most = max(totals, default=0)
    if not most:
        return ""
    return f"; the most, {most}, from {hours[totals.index(most)].start:%H:%M} UTC on"


def _chart(title: str, told: str, marks: Sequence[str]) -> Svg:
    return _svg(title, told, marks, height=HEIGHT, kind="chart")


def _svg(title: str, told: str, marks: Sequence[str], *, height: int, kind: str) -> Svg:
    said = f"{title}: {told}" if told else title
    return Svg(
        f'<svg class="{kind}" role="img" aria-label="{escape(said)}" width="100%" '
        f'height="{height}" focusable="false">{"".join(marks)}</svg>'
    )
