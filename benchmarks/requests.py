"""Count the requests of one real pass, beside one GET for each batch."""

from __future__ import annotations

import tempfile
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple
from unittest import mock

from batchwatch.parts import upstream_session
from batchwatch.simulator import Simulator, a_life
from batchwatch.simulator.api import pages
from benchmarks.pipe import cloud_at, open_store, poller_of
from benchmarks.results import Column, Finding, Goal
from tests.support.clock import EPOCH, ManualClock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchwatch.simulator.world import World
    from benchmarks.progress import Progress
    from benchmarks.results import Cell

ACTIVE: Final = 10_000
BETWEEN: Final = 15.0  # seconds from one pass to the next, the daemon's own interval
OLDEST: Final = timedelta(hours=20)  # within the lookback of the first pass
NEWEST: Final = timedelta(hours=2)  # far outside the window of the second
SHARE: Final = 0.02  # of the naive requests, the most that was promised

PATHS: Final = {  # the statuses on the way to the present one
    "PENDING": ("PENDING",),
    "RUNNING": ("PENDING", "RUNNING"),
    "THROTTLED": ("PENDING", "RUNNING", "THROTTLED"),
}
STAYS: Final = (*["RUNNING"] * 8, "PENDING", "THROTTLED")
MOVES: Final = (("PENDING", "RUNNING"), ("RUNNING", "THROTTLED"), ("THROTTLED", "RUNNING"))

COLUMNS: Final = (
    Column("case", "between the two passes"),
    Column("page_limit", "largest page", ",.0f"),
    Column("requests", "requests", ",.0f"),
    Column("naive", "a GET each", ",.0f"),
    Column("share", "share", ".2%"),
)


class Case(NamedTuple):
    """What happens between two passes, and the largest page that upstream allows."""

    completed: int
    moved: int
    page_limit: int
    restarts: bool = False  # the daemon, between the passes: what it remembers is in the store

    @property
    def is_promised(self) -> bool:
        """Whether the promise is about this case; the others are told for comparison."""
        return self.moved > 0 and not self.restarts

    def __str__(self) -> str:
        """As people read it."""
        text = f"{self.completed} completed"
        text += f", {self.moved} moved" if self.moved else ""
        return text + (", a restart" if self.restarts else "")


CASES: Final = (
    Case(completed=60, moved=40, page_limit=1_000),
    Case(completed=60, moved=40, page_limit=100),
    Case(completed=100, moved=0, page_limit=1_000),
    Case(completed=100, moved=0, page_limit=100),
    Case(completed=60, moved=40, page_limit=1_000, restarts=True),
)
QUICK: Final = CASES[:2]


async def run(progress: Progress, *, quick: bool) -> list[Finding]:
    """Make two passes for each case: one that meets the batches, and the one that is counted."""
    cases = QUICK if quick else CASES
    progress.stage(f"requests: two passes over {ACTIVE:,} batches", steps=len(cases))
    rows: list[dict[str, Cell]] = []
    most = 0  # requests of a promised case
    for case in cases:
        requests = await _count(case)
        rows.append(
            {
                "case": str(case),
                "page_limit": case.page_limit,
                "requests": requests,
                "naive": ACTIVE,
                "share": requests / ACTIVE,
            }
        )
        if case.is_promised:
            most = max(most, requests)
        progress.step()
    return [
        Finding(
            title=f"Requests of one pass over {ACTIVE:,} active batches, older than the window",
            columns=COLUMNS,
            rows=rows,
            goals=[
                Goal(
                    f"at most {SHARE:.0%} of a GET each, for 60 completed and 40 moved",
                    met=most <= SHARE * ACTIVE,
                )
            ],
            notes=["Counted by the simulator; the results of what has completed are among them."],
        )
    ]


async def _count(case: Case) -> int:
    """The requests of one pass after the changes of ``case``."""
    clock = ManualClock()
    # The simulator refuses larger pages, naming its limit; the client finds it in the first pass.
    limit = mock.patch.object(pages, "LARGEST_SIZE", case.page_limit)
    with limit, tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            simulator = await stack.enter_async_context(Simulator(clock=clock))
            store = await stack.enter_async_context(open_store(Path(folder)))
            session = await stack.enter_async_context(upstream_session())
            cloud = cloud_at(simulator.url, session, clock)
            poller = poller_of(store, cloud, clock)
            _plant(simulator.world, case)
            await poller.poll()
            active = await store.batches.due(poller.watch.name, seen=())
            assert (
                sum(share.due for share in active) == ACTIVE + 1
            )  # the young one is not counted: the window shows it
            if case.restarts:
                poller = poller_of(store, cloud, clock)
            clock.advance(BETWEEN)
            before = simulator.requests.total()
            this = await poller.poll()
            assert this.transitions == case.completed + case.moved
            return simulator.requests.total() - before


def _plant(world: World, case: Case) -> None:
    """Old batches, of which some are about to change, and a young one that moves the window on."""
    step = (OLDEST - NEWEST) / ACTIVE
    for number, (present, following) in enumerate(_fates(case)):
        born = EPOCH - OLDEST + number * step
        steps = [(status, 10.0 * nth) for nth, status in enumerate(PATHS[present])]
        if following is not None:
            steps.append((following, (EPOCH - born).total_seconds() + BETWEEN / 2))
        world.plant(a_life(*steps), files=3, created=born)
    world.plant(a_life(("PENDING", 0.0)), files=1)


def _fates(case: Case) -> Iterator[tuple[str, str | None]]:
    """The present status of each batch and the one to come; those that change are of all ages."""
    changes = case.completed + case.moved
    for number in range(ACTIVE):
        nth, rest = divmod(number * changes, ACTIVE)
        if rest >= changes:  # it is none of those that are spread evenly over all
            yield STAYS[number % len(STAYS)], None
        elif nth < case.completed:
            yield "RUNNING", "COMPLETED"
        else:
            yield MOVES[nth % len(MOVES)]
