"""What is recorded is the truth: random histories, random polls, and every fault in between.

``BATCHWATCH_TEST_HISTORIES=20000`` tries as many, new ones each time; without
it the same 80 are tried on each run, so that a run tells of the code
and not of its luck.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import tempfile
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchwatch.domain.batch import EndpointName
from batchwatch.domain.cadence import BACKLOG_MARGIN
from batchwatch.domain.event import STATUS_TYPES
from batchwatch.domain.routing import FOR_PROGRAMS, Router
from batchwatch.domain.watch import Watch
from batchwatch.llamacloud.budget import Budget
from batchwatch.llamacloud.client import LlamaCloud
from batchwatch.llamacloud.errors import CloudError
from batchwatch.metrics import Metrics
from batchwatch.store import Batches, Database, Outbox, Views, Watches
from batchwatch.watching.poller import Poller
from tests.support.builders import BASE_URL, WATCH
from tests.support.clock import EPOCH, LeapClock
from tests.support.upstream import STAMPS, TERMINAL, Plan, Upstream

MANY: Final = int(os.environ.get("BATCHWATCH_TEST_HISTORIES", "0"))
QUIET: Final = (*[15.0] * 6, *[60.0] * 4)  # seconds before each of the last polls, without faults
ON_THE_WAY: Final = ("PENDING", "THROTTLED", "RUNNING", "VALIDATING")
HOOK: Final = EndpointName("hook")
OF_STATUSES: Final = {*STATUS_TYPES.values(), "batch.unknown"}

spans = st.sampled_from((0.2, 0.7, 3.0, 14.0, 40.0, 100.0, 700.0))


@st.composite
def plans(draw: st.DrawFn) -> list[Plan]:
    """Some batches: before and after the first look, quick and slow, there and back."""
    found = []
    for number in range(draw(st.integers(1, 4))):
        statuses = draw(st.lists(st.sampled_from(ON_THE_WAY), min_size=1, max_size=6))
        statuses = [one for one, _ in itertools.groupby(statuses)]
        statuses += draw(st.sampled_from(([], *([one] for one in TERMINAL), ["COMPLETED"])))
        statuses = statuses[draw(st.integers(0, len(statuses) - 1)) :]  # some are born ended
        steps = [(one, draw(spans)) for one in statuses]
        found.append(
            Plan(
                f"bat-{number}",
                created=draw(st.sampled_from((-7000.0, -900.0, -30.0, -1.0, 5.0, 50.0, 400.0))),
                steps=((steps[0][0], 0.0), *steps[1:]),
                stamps=draw(st.sampled_from(STAMPS)),
                listed_late=draw(st.sampled_from((0.0, 0.0, 20.0, 290.0))),
                results_late=draw(st.sampled_from((0.0, 0.0, 3.0, 50.0))),
            )
        )
    return found


@st.composite
def polls(draw: st.DrawFn) -> list[tuple[float, str]]:
    """When passes are made, and how; sometimes by a daemon that was started again."""
    gaps = st.sampled_from((0.1, 0.4, 2.0, 15.0, 61.0, 300.0, 1500.0))
    ways = st.sampled_from(("pass", "pass", "beside", "beside", "restart", "jump", "cut"))
    return draw(st.lists(st.tuples(gaps, ways), min_size=1, max_size=14))


@pytest.mark.timeout(0 if MANY else 400)  # some ten seconds, and many times that on a busy machine
@settings(
    max_examples=MANY or 80,
    derandomize=not MANY,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(plans(), polls(), st.sampled_from((0.0, 0.1, 0.25)), st.integers(0, 2**32))
def test_what_is_recorded_is_the_truth(
    life: list[Plan], looks: list[tuple[float, str]], trouble: float, seed: int
) -> None:
    """Part of what happened, in order, each once, to the true end; and told just so."""
    asyncio.run(_judged(life, looks, trouble, seed))


async def _judged(
    life: list[Plan], looks: list[tuple[float, str]], trouble: float, seed: int
) -> None:
    clock, random = LeapClock(), Random(seed)
    upstream = Upstream(life, clock=clock, random=random)
    upstream.trouble = trouble
    with tempfile.TemporaryDirectory() as folder:
        database = await Database.open(f"sqlite+aiosqlite:///{Path(folder, 'b.db')}")
        try:
            daemon = _Daemon(database, upstream, clock)
            for gap, how in looks:
                clock.advance(gap)
                if how == "restart":
                    daemon = _Daemon(database, upstream, clock)
                elif how == "jump":
                    clock.jump(random.choice((-7200, -90, 90, 86_400)))
                await daemon.look(how, random)
            upstream.trouble = 0.0
            upstream.freeze()
            for gap in QUIET:
                clock.advance(gap)
                await daemon.look("pass", random)
            views = Views(database)
            rows = {name: await views.batch(name) for name in upstream.plans}
            [watch] = await views.watches()
        finally:
            await database.close()
    for name, found in rows.items():
        began = (watch["started_at"] - EPOCH).total_seconds()
        _judge(upstream, name, found, began=began)


class _Daemon:
    """What a daemon has of one watch, new at each of its starts."""

    def __init__(self, database: Database, upstream: Upstream, clock: LeapClock) -> None:
        outbox = Outbox(database, Router({HOOK: FOR_PROGRAMS}), clock)
        self._poller = Poller(
            Watch(WATCH, BASE_URL, 15.0, timedelta(hours=24)),
            cloud=LlamaCloud(
                base_url=BASE_URL,
                api_key="llx-any",
                key_source="LLAMA_CLOUD_API_KEY",
                session=upstream,  # type: ignore[arg-type]  # it has what is used of one
                budget=Budget(rate=10_000, burst=10_000, clock=clock),
                clock=clock,
            ),
            batches=Batches(database, outbox),
            watches=Watches(database, outbox),
            clock=clock,
            metrics=Metrics(),
        )

    async def look(self, how: str, random: Random) -> None:
        """A pass, one part after the other or all side by side; it may be cut short."""
        poller = self._poller
        if how in ("beside", "cut"):
            work = [poller.discover(), poller.refresh(poller.present), poller.complete()]
            tasks = [asyncio.ensure_future(one) for one in work]
            if how == "cut":  # as by a daemon that is stopped in the midst of it
                for _ in range(random.randrange(40)):
                    await asyncio.sleep(0)
                for task in tasks:
                    task.cancel()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            for one in done:
                if isinstance(one, Exception) and not isinstance(one, CloudError):
                    raise one
            return
        with suppress(CloudError):  # the next one looks again
            await poller.poll()


def _judge(upstream: Upstream, name: str, found: list[dict[str, Any]], *, began: float) -> None:
    plan, true = upstream.plans[name], upstream.history(name)
    if not found:
        # Only what was over and gone before the lookback, or is not there, may be unknown.
        assert not true, f"{name} was never recorded"
        return
    [row] = found
    steps = row["transitions"]
    recorded = [one["to_status"] for one in steps]
    assert list(range(1, len(steps) + 1)) == [one["number"] for one in steps]
    assert [None, *recorded[:-1]] == [one["from_status"] for one in steps]
    rest = iter(true)
    assert all(status in rest for status in recorded), (recorded, true)
    assert true[-1] == recorded[-1] == row["status"], (recorded, true)
    assert set(recorded) <= {plan.steps[place][0] for place in upstream.shown[name]}
    assert not {*recorded[:-1]} & {*TERMINAL}

    told = [one for one in row["events"] if one["type"] in OF_STATUSES]
    types = [STATUS_TYPES.get(status, "batch.unknown") for status in recorded]
    assert len({one["id"] for one in row["events"]}) == len(row["events"])
    if recorded[0] in TERMINAL:
        # It may have ended before anybody watched, and then nobody is told of it.
        before = plan.moments[-1] <= began + BACKLOG_MARGIN.total_seconds()
        if not told and (before or plan.stamps in ("null", "sometimes")):
            return
    assert types == [one["type"] for one in told]
    assert list(range(1, len(told) + 1)) == [one["transition"] for one in told]
