"""On which terms a scenario is played: how long, how strictly, at which rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Terms:
    """Those of a lively scenario, unless said otherwise."""

    limit: float = 28.0  # seconds since the first batch; what is over by then is judged
    # Seconds before the limit in which what happens may still be on its way: batchwatch waits for
    # a batch's results before it tells of its end.
    margin: float = 7.0
    may_miss: bool = False  # answers that do not prove how new they are need not be believed
    requests_per_minute: int = 6_000


_TERMS: Final[Mapping[str, Terms]] = {
    "hostile": Terms(margin=15.0, may_miss=True),  # results that are null again and again
    "throttled": Terms(limit=60.0),
    "outage": Terms(limit=45.0, margin=12.0),
    "slow-results": Terms(limit=75.0, margin=40.0),
    "big": Terms(limit=45.0, margin=15.0),
    "free-tier": Terms(limit=180.0, margin=120.0, requests_per_minute=20),
    "storm": Terms(margin=24 * 3_600.0),  # its batches are as old, and all are news at once
}


def terms_of(scenario: str) -> Terms:
    """The terms of a scenario."""
    return _TERMS.get(scenario, Terms())
