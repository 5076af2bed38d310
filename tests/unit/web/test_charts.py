"""Charts: numbers become markup that says what it shows, and nothing that could do harm."""

from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest

from batchwatch.web.api.answers import Coverage, Expected, Gap, Hour
from batchwatch.web.dashboard import charts
from batchwatch.web.dashboard.charts import Dot, Stay, Svg
from tests.support.builders import at

HOUR = 3600.0


def parsed(svg: Svg) -> ET.Element:
    """The markup, which must be XML as well."""
    return ET.fromstring(svg)  # noqa: S314  # our own


def bars(svg: Svg) -> list[ET.Element]:
    """The bars of a chart, without the columns that only take the pointer."""
    found = [one for one in parsed(svg).iter("rect") if "bar" in one.attrib["class"].split()]
    assert all(float(one.attrib["height"]) >= 0 for one in found)
    return found


def expected(*, overdue: bool = False) -> Expected:
    return Expected(median=600, low=400, high=900, samples=12, ends_at=at(600), overdue=overdue)


def test_throughput_stacks_the_statuses_of_each_hour() -> None:
    """Completed at the bottom; a status that nobody knows is there as well, on top."""
    hours = [Hour(at(0), {"COMPLETED": 3, "FAILED": 1, "ODD": 1}), Hour(at(HOUR), {})]

    svg = charts.throughput(hours)

    tones = [one.attrib["class"] for one in bars(svg)]
    heights = [float(one.attrib["y"]) for one in bars(svg)]
    assert ["bar tone-good", "bar tone-bad", "bar tone-other"] == tones
    assert sorted(heights, reverse=True) == heights
    assert "5 batches ended in the last 2 hours; the most, 5, from 08:00 UTC on" in svg


def test_each_hour_says_its_numbers() -> None:
    """Under the pointer, in words: colour alone tells nobody."""
    svg = charts.throughput([Hour(at(0), {"COMPLETED": 2, "CANCELLED": 1})])

    titles = [one.text for one in parsed(svg).iter("title")]
    assert ["24 Nov 08:00-09:00 UTC: 2 completed, 1 cancelled"] == titles


def test_without_anything_there_is_a_chart_all_the_same() -> None:
    """Of the same size, so that nothing jumps when the first number comes."""
    empty = (
        charts.throughput([]), charts.durations([], None), charts.latencies([], None, None),
    )  # fmt: skip

    assert {str(charts.HEIGHT)} == {parsed(one).attrib["height"] for one in empty}
    assert [[], [], []] == [bars(one) for one in empty]


def test_durations_are_dots_in_order_with_a_line_at_the_median() -> None:
    """The newest to the right, whatever order they come in."""
    svg = charts.durations([Dot("b", at(9), 30.0), Dot("a", at(1), 20.0)], 25.0)

    titles = [one.text or "" for one in parsed(svg).iter("title")]
    heights = [float(one.attrib["cy"]) for one in parsed(svg).iter("circle")]
    (line,) = [one for one in parsed(svg).iter("line") if one.attrib["class"] == "median"]
    assert ["a: 20 s", "b: 30 s"] == [one.partition(",")[0] for one in titles]
    assert heights[0] > float(line.attrib["y1"]) > heights[1]
    assert "half of them at most 25 s" in svg


def test_durations_far_apart_are_all_to_be_seen() -> None:
    """By their logarithms: the short ones are not flattened by the one that took a day."""
    svg = charts.durations([Dot(str(one), at(one), 10.0**one) for one in range(1, 6)], 1000.0)

    heights = [float(one.attrib["cy"]) for one in parsed(svg).iter("circle")]
    steps = {round(a - b, 1) for a, b in pairwise(heights)}
    assert 1 == len(steps)


def test_latencies_are_counted_in_classes_that_never_change() -> None:
    """Each in one of them, the endless one included."""
    seconds = [0.01, 0.02, 0.5, 2.0, 1e6]

    counted = dict(charts.counted(seconds))

    assert len(seconds) == sum(counted.values())
    assert (2, 1, 1) == (counted["up to 30 ms"], counted["up to 1 s"], counted["more than 1 h"])
    assert 4 == len(bars(charts.latencies(seconds, 0.5, 2.0)))


@pytest.mark.parametrize(("elapsed", "tone"), [(30, "accent"), (5000, "bad")])
def test_what_is_late_is_longer_than_the_usual_and_says_so(elapsed: float, tone: str) -> None:
    """And never leaves its box."""
    svg = charts.expectation(elapsed, expected(overdue=tone == "bad"))

    (bar,) = bars(svg)
    assert f"bar tone-{tone}" == bar.attrib["class"]
    assert float(bar.attrib["width"].removesuffix("%")) <= 100
    assert "half of them at most 10 min" in svg


def test_a_status_that_was_short_is_still_to_be_seen() -> None:
    """And all together are as wide as the strip."""
    svg = charts.stays([Stay("PENDING", 1, "waiting"), Stay("RUNNING", 90_000, "running")])

    widths = [float(one.attrib["width"].removesuffix("%")) for one in bars(svg)]
    assert widths[0] > 0.3
    assert 98 < sum(widths) <= 100


def test_a_gap_is_where_it_was_and_says_whether_it_is_closed() -> None:
    """What was watched in the end is no loss."""
    gap = Gap(start=at(HOUR), end=at(2 * HOUR), seconds=HOUR, kind="stopped", reason=None,
              closed_at=None)  # fmt: skip
    covered = Coverage(since=at(0), began=at(0), covered_to=at(4 * HOUR), passes=9, gaps=[gap])

    svg = charts.coverage(covered, now=at(4 * HOUR))

    (hole,) = [one for one in parsed(svg).iter("rect") if "gap" in one.attrib["class"].split()]
    assert ("25.00%", "25.00%") == (hole.attrib["x"], hole.attrib["width"])
    assert "gap open" == hole.attrib["class"]
    assert "watched but for 1 gap of 1 h together" in svg


def test_time_before_a_watch_began_is_not_shown_as_watched() -> None:
    """A watch of one hour has not watched the day, nor does `batchwatch prove` say so."""
    covered = Coverage(since=at(0), began=at(3 * HOUR), covered_to=at(4 * HOUR), passes=9, gaps=[])

    svg = charts.coverage(covered, now=at(4 * HOUR))

    (watched,) = [one for one in parsed(svg).iter("rect") if "tone-good" in one.attrib["class"]]
    assert ("75.00%", "25.00%") == (watched.attrib["x"], watched.attrib["width"])
    assert "since it began at" in svg


def test_names_in_charts_are_text() -> None:
    """Whoever names a batch so draws nothing and runs nothing."""
    svg = charts.durations([Dot('<script>"&', at(1), 3.0)], 3.0)

    assert "<script>" not in svg
    assert any('<script>"&' in (one.text or "") for one in parsed(svg).iter("title"))


def test_no_chart_has_what_the_policy_forbids() -> None:
    """No style in the markup, no handlers, nothing from elsewhere."""
    drawn = (
        charts.throughput([Hour(at(0), {"COMPLETED": 3})])
        + charts.durations([Dot("a", at(1), 3.0)], 3.0)
        + charts.latencies([1.0], 1.0, 1.0)
        + charts.expectation(30, expected())
        + charts.meter(0.5, "good", "half")
    )

    assert [] == re.findall(r"\b(?:style|on\w+|href|src|xlink:href)=", drawn)
    assert 5 == len(re.findall(r'role="img" aria-label="[^"]+"', drawn))


@pytest.mark.parametrize("largest", [0, 0.4, 1, 2, 3, 7, 19, 100, 12_345])
def test_an_axis_has_few_ticks_at_round_values(largest: float) -> None:
    """And the largest value is below its top."""
    top, ticks = charts.scale(largest)

    assert 1 <= len(ticks) <= 3
    assert top >= largest
    assert ticks[-1] <= top
    assert all(f"{one:.0f}".rstrip("0") in {"1", "2", "3", "4", "5", "6", "8", "10", "15"}
               for one in ticks)  # fmt: skip
