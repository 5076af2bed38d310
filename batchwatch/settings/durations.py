"""Durations as people write them: ``500ms``, ``30s``, ``1h30m``, ``2d``, or plain seconds."""

from __future__ import annotations

import re
from decimal import Decimal

EXAMPLES = "500ms, 30s, 5m, 1h30m or 2d; a plain number is seconds"

_DAY, _HOUR, _MINUTE, _SECOND, _MILLISECOND = map(Decimal, ("86400", "3600", "60", "1", "0.001"))
_UNITS = (_DAY, _HOUR, _MINUTE, _SECOND, _MILLISECOND)

_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_PLAIN = re.compile(_NUMBER)
# From the largest unit to the smallest and each at most once: `5m1h` is a slip, not a duration.
_PARTS = re.compile(
    r"\s*".join(rf"(?:({_NUMBER}){unit})?" for unit in ("d", "h", "m(?!s)", "s", "ms"))
)
_LONGEST = 64  # characters; no duration that a person means is longer


def parse_duration(text: str) -> float:
    """Return the seconds that ``text`` stands for: exactly what was written, rounded once.

    Raises ``ValueError`` for anything that is no duration. Whether zero or a
    year makes sense depends on the setting and is decided there.
    """
    text = text.strip()
    if len(text) <= _LONGEST:
        if _PLAIN.fullmatch(text):
            return float(text)
        parts = _PARTS.fullmatch(text)
        if parts and any(parts.groups()):
            # Decimal, so that 1h + 1ms is 3600.001 and not its neighbour.
            pairs = zip(parts.groups(), _UNITS, strict=True)
            return float(sum(Decimal(number) * unit for number, unit in pairs if number))
    raise ValueError(f"not a duration such as {EXAMPLES}")


def format_duration(seconds: float) -> str:
    """Return the shortest usual way to write ``seconds``, which `parse_duration` reads back.

    Days only from two whole ones on: people write ``24h``, but ``7d``.
    """
    left = Decimal(repr(float(seconds)))
    if left >= 2 * _DAY and left % _DAY == 0:
        return f"{left // _DAY:f}d"
    if 0 < left < 1:
        return f"{(left / _MILLISECOND).normalize():f}ms"
    hours, left = divmod(left, _HOUR)
    minutes, left = divmod(left, _MINUTE)
    parts = ((hours, "h"), (minutes, "m"), (left, "s"))
    return "".join(f"{number.normalize():f}{unit}" for number, unit in parts if number) or "0s"
