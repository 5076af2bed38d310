"""Two headers of an answer that tell the time: when it was sent, and when to ask again."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

LONGEST_PAUSE: Final = 600.0  # seconds; to ask once in ten minutes is no storm, to be blind is bad
_SECONDS: Final = re.compile(r"[0-9]{1,15}(\.[0-9]*)?")


def read_date(headers: Mapping[str, str]) -> datetime | None:
    """Upstream's clock, in whole seconds, when it sent this answer."""
    return _http_date(headers.get("Date", ""))


def read_retry_after(headers: Mapping[str, str], *, now: datetime) -> float | None:
    """The seconds to wait before asking again, ten minutes at most; None if upstream names none.

    A date counts from the answer's own ``Date``, so that a clock that is
    wrong, theirs or ours, does not change the pause. Nonsense is no pause.
    """
    text = headers.get("Retry-After", "").strip()
    if _SECONDS.fullmatch(text):
        return min(float(text), LONGEST_PAUSE)
    moment = _http_date(text)
    if moment is None:
        return None
    seconds = (moment - (read_date(headers) or now)).total_seconds()
    return min(seconds, LONGEST_PAUSE) if seconds > 0 else None


def _http_date(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError, IndexError, TypeError):
        return None
