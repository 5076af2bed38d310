"""A day in the life of a daemon, written into a store as if it had been lived: for eyes to see."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Final

from batchwatch.domain.batch import (
    CANCELLED,
    COMPLETED,
    FAILED,
    PENDING,
    RUNNING,
    THROTTLED,
    Batch,
    BatchId,
    EndpointName,
    FileOutcome,
    Observation,
    Status,
    Stuck,
    WatchName,
)
from batchwatch.domain.changes import Changes, Recorder
from batchwatch.domain.coverage import Gap, Kind, Look
from batchwatch.domain.delivery import Attempt, Claimed, Failure, Settled, State
from batchwatch.domain.jobs import JobRecorder, JobSeen
from batchwatch.domain.routing import FOR_PROGRAMS, Router
from batchwatch.store import Database, Store
from tests.support.clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence
    from typing import Any

DAY: Final = 86_400.0  # seconds
WATCH: Final = WatchName("default")
UPSTREAM: Final = "https://api.cloud.llamaindex.ai"
LARGE: Final = "dir-9a51e3f0-3b17-4f63-9a55-0d6c2f1b8e10"  # of many files
SMALL: Final = "dir-c27ee3f0-3b17-4f63-9a55-0d6c2f1b8e10"
JOB_ERRORS: Final = (
    "The document is encrypted; a password is needed",
    "Timed out after 1,800 s while parsing page 212",
    "Timed out after 1,800 s while parsing page 37",
)
MAPPING_ERROR: Final = "File could not be read: unsupported file type .heic"
FILES: Final = ("invoice", "contract", "annual-report", "scan", "minutes", "tender", "statement")


@dataclass(frozen=True, slots=True)
class Scene:
    """What is to be seen; ``dislikes`` is the share of tries that an endpoint refuses."""

    batches: int = 40
    active: int = 6
    dislikes: Mapping[str, float] | None = None
    seed: int = 7


class Scenery:
    """Lives the day; each thing at its time."""

    def __init__(self, store: Store, clock: ManualClock, scene: Scene, *, start: datetime) -> None:
        self._store = store
        self._clock = clock
        self._scene = scene
        self._start = start
        self._dice = Random(scene.seed)
        self._recorder = Recorder(WATCH, UPSTREAM)
        self._plan: list[tuple[float, int, Callable[[], Coroutine[Any, Any, None]]]] = []
        self._dislikes = dict(scene.dislikes or {})

    async def live(self) -> None:
        """All of it."""
        await self._store.watches.begin(WATCH, now=self._start - timedelta(hours=3))
        for number in range(self._scene.batches):
            # More by day than by night.
            share = (number + self._dice.random()) / self._scene.batches
            self._one(number, DAY * (share + 0.04 * math.sin(share * 12)) * 0.985)
        self._still_running()
        for at, _, happens in sorted(self._plan, key=lambda one: one[:2]):
            self._clock.set(at)
            await happens()
        self._clock.set(DAY)
        await self._covered()

    def _at(self, seconds: float) -> datetime:
        return self._start + timedelta(seconds=seconds)

    def _later(self, at: float, happens: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._plan.append((at, len(self._plan), happens))

    def _one(self, number: int, born: float) -> None:
        """A batch from its creation to its end."""
        dice = self._dice
        large = number % 5 == 0
        took = dice.lognormvariate(math.log(1500 if large else 620), 0.32)
        end = dice.choices((COMPLETED, FAILED, CANCELLED), (90, 6, 4))[0]
        waits = dice.uniform(8, 90)
        steps: list[tuple[float, Status]] = [(born + 2, PENDING), (born + waits, RUNNING)]
        if dice.random() < 0.18:
            steps += [(born + took * 0.4, THROTTLED), (born + took * 0.55, RUNNING)]
        steps.append((born + took * (0.4 if end == FAILED else 1), end))
        if steps[-1][0] > DAY - 60:
            return
        id_ = self._id("bat")
        files = self._files(60 if large else dice.randint(3, 24)) if end == COMPLETED else ()
        for at, status in steps:
            self._later(at, partial(self._see, id_, status, at, born, files, large=large))
        if files:
            after = steps[-1][0] + dice.uniform(5, 40)
            self._later(after, partial(self._settle, id_, files, after))

    def _still_running(self) -> None:
        for number in range(self._scene.active):
            age = (11_400.0, 2_300.0, 460.0, 300.0, 95.0, 20.0)[number % 6]
            born = DAY - age
            id_ = self._id("bat")
            self._later(born + 2, partial(self._see, id_, PENDING, born + 2, born, (), large=False))
            if age > 60:
                at = born + min(50.0, age / 3)
                self._later(at, partial(self._see, id_, RUNNING, at, born, (), large=False))
            if number % 6 == 3:
                at = DAY - 70
                self._later(at, partial(self._see, id_, THROTTLED, at, born, (), large=False))
            if number % 6 == 0:
                self._later(born + 7_300, partial(self._stick, id_, born + 7_250))

    async def _see(  # what there is to see
        self,
        id_: str,
        status: Status,
        at: float,
        born: float,
        files: Sequence[FileOutcome],
        *,
        large: bool,
    ) -> None:
        # Sometimes a poll comes late, and mostly soon.
        seen_at = self._at(at + self._dice.uniform(0.1, 2.5))
        over = status in (COMPLETED, FAILED, CANCELLED)
        seen = Observation(
            id=BatchId(id_),
            status=status,
            seen_at=seen_at,
            fingerprint=f"{status} {at}",
            created_at=self._at(born),
            updated_at=self._at(at),
            project_id="prj-5f1c2d70-9a41-4f86-8c8f-6f0a0b6c1e55",
            source_directory_id=LARGE if large else SMALL,
            job_type="parse_v2",
            configuration_id="cfg-PARSE_AGENTIC" if large else "cfg-PARSE_FAST",
            asked_results=over,
            results=tuple(files) if over else None,
        )
        decide = partial(self._recorder.record, seen=[seen], now=seen_at)
        await self._store.batches.change(WATCH, {seen.id}, decide)
        await self._deliver((seen_at - self._start).total_seconds())

    async def _settle(self, id_: str, files: Sequence[FileOutcome], at: float) -> None:
        rules = JobRecorder(WATCH, UPSTREAM, timedelta(hours=24), names=await self._named(files))
        seen = {}
        for one in files:
            if one.job_id is not None:
                fails = self._dice.random() < 0.03
                error = self._dice.choice(JOB_ERRORS) if fails else None
                seen[one.job_id] = JobSeen("FAILED" if fails else "COMPLETED", error)
        decide = partial(rules.follow, seen=seen, over={}, now=self._at(at))
        await self._store.batches.follow(WATCH, {BatchId(id_)}, decide)
        await self._deliver(at)

    async def _named(self, files: Sequence[FileOutcome]) -> dict[str, str]:
        names = {
            one.source_directory_file_id: self._dice.choice(FILES)
            + f"-{self._dice.randint(2, 940):03}"
            + (".heic" if one.error_message else ".pdf")
            for one in files
        }
        await self._store.names.add(WATCH, names, now=self._clock.now())
        return names

    async def _stick(self, id_: str, since: float) -> None:
        def decide(known: Mapping[BatchId, Batch]) -> Changes:
            stuck = Stuck(self._at(since), "status", 7_200.0, self._at(since), 1, alone=True)
            return Changes(batches={one.id: replace(one, stuck=stuck) for one in known.values()})

        await self._store.batches.change(WATCH, {BatchId(id_)}, decide)

    async def _deliver(self, at: float) -> None:
        """Send all that is owed then, as it would have gone."""
        for endpoint in ("hook", "ops"):
            self._clock.set(at + self._dice.lognormvariate(math.log(0.15), 0.9))
            while found := await self._store.outbox.claim(EndpointName(endpoint), limit=100):
                await self._store.outbox.settle([self._tried(one) for one in found])

    def _tried(self, claimed: Claimed) -> Settled:
        took = self._dice.lognormvariate(math.log(0.08), 0.8)
        started_at = self._clock.now()
        if self._dice.random() >= self._dislikes.get(claimed.endpoint, 0.0):
            taken = Attempt(started_at, took, status_code=200, response='{"ok": true}')
            return Settled(claimed, taken, State.DELIVERED)
        refused = Attempt(
            started_at,
            took,
            failure=Failure.SERVER_ERROR,
            status_code=503,
            detail="it answered 503 Service Unavailable",
            response="<html><body>upstream connect error or reset before headers</body></html>",
        )
        if claimed.attempt < 3:
            return Settled(claimed, refused, State.PENDING)
        return Settled(claimed, refused, State.DEAD, reason="it failed 3 times in a row")

    async def _covered(self) -> None:
        hole = self._at(DAY * 0.42), self._at(DAY * 0.42 + 540)
        gap = Gap(*hole, Kind.STOPPED, "the daemon was not running", closed_at=hole[1])
        look = Look(self._at(-3 * 3600), hole[0], hole[0], 0.0)
        await self._store.watches.passed(WATCH, look, newest=None, now=hole[0], passes=9_840)
        look = Look(hole[0], self._at(DAY), self._at(DAY), DAY)
        closed = replace(gap, listed_from=hole[0], found=2)
        await self._store.watches.passed(
            WATCH, look, newest=self._at(DAY), now=self._at(DAY), passes=14_020, gaps=[closed]
        )

    def _files(self, count: int) -> tuple[FileOutcome, ...]:
        found = []
        for _ in range(count):
            name = self._id("dfl")
            if self._dice.random() < 0.025:
                found.append(FileOutcome(name, error_message=MAPPING_ERROR))
            else:
                found.append(FileOutcome(name, job_type="parse_v2", job_id=self._id("pjb")))
        return tuple(found)

    def _id(self, kind: str) -> str:
        digits = f"{self._dice.getrandbits(128):032x}"
        return f"{kind}-{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


async def paint(url: str, scene: Scene, *, now: datetime) -> None:
    """Have the store at ``url`` hold the day before ``now``."""
    start = now - timedelta(seconds=DAY)
    clock = ManualClock(start)
    database = await Database.open(url)
    try:
        router = Router({EndpointName(one): FOR_PROGRAMS for one in ("hook", "ops")})
        store = Store(database, router, clock)
        await Scenery(store, clock, scene, start=start).live()
    finally:
        await database.close()
