"""The scenarios by name: how many batches, what their lives are like, and what goes wrong."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from batchwatch.simulator.life import Nature

if TYPE_CHECKING:
    from collections.abc import Mapping

HOUR: Final = 3_600.0  # simulated seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Outages:
    """Periods in which nothing is answered but 503; in seconds of the clock, at any speed."""

    every: float
    lasting: float  # the last part of each period


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A world to be simulated.

    ``faults`` gives each kind its chance for one request. Those that spoil an answer add up to less
    than 0.3, so that a client that retries always gets through.
    """

    name: str
    description: str
    nature: Nature = field(default_factory=Nature)
    batches: int = 0  # appear by themselves
    over: float = 0.0  # simulated seconds from the first of them to the last; then no more come
    older_by: float = 0.0  # created up to so many simulated seconds before the start instead
    faults: Mapping[str, float] = field(default_factory=dict)
    outages: Outages | None = None
    requests_per_minute: int | None = None  # of the wall clock; unlimited if None
    skew: float = 0.0  # seconds by which the server's calendar is ahead


_LIVELY: Final = Nature(
    pending=(1.2, 2.5),
    running=(4, 6),
    throttled=(1.5, 2.5),
    throttles=(0, 1),
    files=(1, 6),
    job_running=(0.5, 3),
    fails=0.08,
    is_cancelled=0.06,
    file_has_no_job=0.06,
    file_is_forgotten=0.02,
    job_fails=0.08,
)

_ALL: Final = (
    Scenario(
        name="calm",
        description="no batches but those that clients create; all goes well",
    ),
    Scenario(
        name="lively",
        description="24 small batches in 10 s, each over within 12 s; a few fail",
        nature=_LIVELY,
        batches=24,
        over=10,
    ),
    Scenario(
        name="throttled",
        description="12 batches in 10 s that are held back again and again",
        nature=Nature(running=(8, 14), throttled=(2, 5), throttles=(2, 4)),
        batches=12,
        over=10,
    ),
    Scenario(
        name="failing",
        description="20 batches in 10 s; most batches, files or jobs fail or are cancelled",
        nature=Nature(
            running=(4, 8),
            files=(2, 8),
            fails=0.3,
            is_cancelled=0.15,
            file_has_no_job=0.2,
            file_is_forgotten=0.05,
            job_fails=0.4,
            job_is_cancelled=0.1,
        ),
        batches=20,
        over=10,
    ),
    Scenario(
        name="stuck",
        description="10 batches in 5 s; most stand still in some status for hours or for ever",
        nature=Nature(sticks=0.7, job_sticks=0.2),
        batches=10,
        over=5,
    ),
    Scenario(
        name="slow-results",
        description="12 batches in 10 s; results stay null long after COMPLETED, jobs run on",
        nature=Nature(running=(4, 8), results_late=(20, 90), job_running=(10, 60)),
        batches=12,
        over=10,
    ),
    Scenario(
        name="big",
        description="4 batches in 6 s with 1,000 files each",
        nature=Nature(
            running=(10, 20),
            files=(1_000, 1_000),
            job_running=(2, 20),
            file_has_no_job=0.01,
            file_is_forgotten=0.002,
            job_fails=0.02,
        ),
        batches=4,
        over=6,
    ),
    Scenario(
        name="storm",
        description="10,000 batches of the last 20 hours are active; about 10 a second change",
        nature=Nature(
            pending=(0, 1_000),
            running=(4_000, 40_000),
            throttles=(0, 2),
            throttled=(500, 1_500),
            files=(1, 3),
        ),
        batches=10_000,
        older_by=20 * HOUR,
    ),
    Scenario(
        name="outage",
        description="lively, and of every 12 s the last 4 nothing but 5xx",
        nature=_LIVELY,
        batches=24,
        over=10,
        outages=Outages(every=12, lasting=4),
    ),
    Scenario(
        name="free-tier",
        description="lively, with 20 requests a minute and 429 above",
        nature=_LIVELY,
        batches=24,
        over=10,
        requests_per_minute=20,
    ),
    Scenario(
        name="hostile",
        description="lively, with every fault there is, late rows and a clock that is ahead",
        nature=replace(
            _LIVELY,
            validating=(1.2, 2),
            validates=0.25,
            listed_late=(0, 2.5),
            results_late=(0, 2),
            file_is_forgotten=0.03,
            job_is_cancelled=0.03,
        ),
        batches=24,
        over=10,
        faults={
            "latency": 0.15,
            "429": 0.03,
            "429-retry-after": 0.03,
            "5xx": 0.04,
            "html": 0.03,
            "reset": 0.03,
            "truncated": 0.03,
            "invalid-json": 0.03,
            "stale": 0.08,
            "reordered": 0.2,
            "repeated": 0.1,
            "looped": 0.08,
            "null-results": 0.15,
            "null-timestamps": 0.08,
            "odd-timestamps": 0.1,
            "unknown-fields": 0.1,
            "webhook-delayed": 0.3,
            "webhook-repeated": 0.1,
        },
        skew=47.0,
    ),
)

SCENARIOS: Final[Mapping[str, Scenario]] = {scenario.name: scenario for scenario in _ALL}
SCENARIO_NAMES: Final = tuple(SCENARIOS)


def scenario_named(name: str) -> Scenario:
    """The scenario of that name; ValueError names those that there are."""
    if name not in SCENARIOS:
        raise ValueError(f"no scenario is named {name!r}; there are: {', '.join(SCENARIOS)}")
    return SCENARIOS[name]
