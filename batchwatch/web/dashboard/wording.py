"""How numbers, spans and moments are said on pages."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def span(seconds: float) -> str:
    """A duration by its two largest units: ``12 ms``, ``1.4 s``, ``3 min 20 s``, ``2 d 4 h``."""
    if seconds < 0:
        return f"-{span(-seconds)}"
    if seconds < 0.0005:
        return "0 s"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s".replace(".0 s", " s")
    whole = round(seconds)
    for place, (size, name) in enumerate(_UNITS):
        if whole >= size:
            count, rest = divmod(whole, size)
            if name == "s":
                return f"{count} s"
            smaller, unit = _UNITS[place + 1]
            more = rest // smaller
            return f"{count} {name} {more} {unit}" if more and count < 10 else f"{count} {name}"
    return "0 s"


def briefly(seconds: float) -> str:
    """The same by its largest unit alone, for axes and for what was long ago."""
    if seconds < 0.9995:
        return span(seconds)
    for size, name in _UNITS:
        if seconds >= size:
            count = seconds / size
            text = f"{count:.1f}" if count < 10 and name != "s" else f"{count:.0f}"
            return f"{text.removesuffix('.0')} {name}"
    return span(seconds)


def ago(moment: datetime, now: datetime) -> str:
    """How long ago that was, or in how long it will be; the script says it in the same words."""
    seconds = (now - moment).total_seconds()
    if abs(seconds) < 5:
        return "just now" if seconds >= 0 else "now"
    text = _whole(abs(seconds))
    return f"{text} ago" if seconds > 0 else f"in {text}"


def so_far(moment: datetime, now: datetime) -> str:
    """For how long it has lasted since then."""
    return _whole(max(0.0, (now - moment).total_seconds()))


def moment(at: datetime) -> str:
    """A moment to the second, in UTC."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def in_field(at: datetime) -> str:
    """A moment as a form has it and gives it back: in UTC, without its zone."""
    try:
        return at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="minutes")
    except OverflowError:  # beyond the first year, or the last one
        return ""


def number(count: float) -> str:
    """A count with its thousands apart."""
    return f"{count:,}"


def share(part: float) -> str:
    """A share in percent; all but everything is never said to be everything."""
    percent = part * 100
    if 99.9 < percent < 100:
        percent = 99.9
    return f"{percent:.1f}".removesuffix(".0") + " %"


def plural(count: int, one: str, many: str | None = None) -> str:
    """``1 batch``, ``2 batches``."""
    return f"{number(count)} {one if count == 1 else many or one + 's'}"


def _whole(seconds: float) -> str:
    for size, name in _UNITS:
        if seconds >= size:
            return f"{int(seconds // size)} {name}"
    return "0 s"
