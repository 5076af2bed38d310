"""Name the trace that a request belongs to: https://www.w3.org/TR/trace-context/."""

from __future__ import annotations

import random
import re
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from batchwatch.domain.batch import EventId

_spans: Final = random.Random()  # an id, and no secret
_TRACE: Final = re.compile(r"evt_(?!0{32})([0-9a-f]{32})")


def traceparent(event_id: EventId) -> str:
    """The header for one try: the trace is the event's, the span is this try's own.

    So a receiver's traces show all tries of an event side by side, and are
    found by its id. It is marked as sampled: unmarked, most receivers would
    drop what they record without us.
    """
    found = _TRACE.fullmatch(event_id)
    trace = found[1] if found else blake2b(event_id.encode(), digest_size=16).hexdigest()
    return f"00-{trace}-{_spans.getrandbits(64) or 1:016x}-01"
