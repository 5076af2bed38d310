"""Durations: what people write, what it means, and back."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchwatch.settings import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("30s", 30.0),
        ("5m", 300.0),
        ("24h", 86_400.0),
        ("2d", 172_800.0),
        ("1h30m", 5_400.0),
        ("1d2h3m4s5ms", 93_784.005),
        ("1.5h", 5_400.0),
        ("1h 30m", 5_400.0),
        (" 30s ", 30.0),
        ("15", 15.0),
        ("0.25", 0.25),
        ("0s", 0.0),
        ("1h1ms", 3_600.001),
    ],
)
def test_a_duration_means_what_it_says(text: str, seconds: float) -> None:
    """Units from days to milliseconds, each once, the large before the small; or plain seconds."""
    assert seconds == parse_duration(text)


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "s", "soon", "5 minutes", "30S", "5m1h", "5m5m", "-5s", "-5", "+5s", "1e3", "inf",
        "nan", "1_000", "٣s", ".5s", "5.s", "1h-30m", "1,5h", "0x10", "9" * 65, "9" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_duration_is_refused_with_examples(text: str) -> None:
    """No guessing: a month or a minute is a large difference."""
    with pytest.raises(ValueError, match="500ms, 30s, 5m, 1h30m or 2d"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.5, "500ms"),
        (1.5, "1.5s"),
        (15, "15s"),
        (90, "1m30s"),
        (300, "5m"),
        (86_400, "24h"),
        (172_800, "2d"),
        (180_000, "50h"),
        (0.0001, "0.1ms"),
    ],
)
def test_a_duration_is_written_as_people_do(seconds: float, text: str) -> None:
    """The shortest usual way: whole days only from two on."""
    assert text == format_duration(seconds)


@given(st.integers(0, 366 * 86_400 * 1_000))
def test_milliseconds_survive_writing_and_reading(milliseconds: int) -> None:
    """What `format_duration` writes, `parse_duration` reads back to the same number."""
    seconds = milliseconds / 1_000
    assert seconds == parse_duration(format_duration(seconds))


@given(st.floats(0, 366 * 86_400))
def test_any_duration_survives_writing_and_reading(seconds: float) -> None:
    """Also one that nobody would write by hand, unless it takes more digits than people read."""
    text = format_duration(seconds)
    if len(text) <= 64:
        assert seconds == parse_duration(text)


@given(st.text())
def test_any_text_is_a_duration_or_a_value_error(text: str) -> None:
    """Nothing that can be typed makes the parser fail otherwise, or yields a negative time."""
    with suppress(ValueError):
        assert parse_duration(text) >= 0
