"""The truth: every directory, batch and job of one project, and what each of them was when.

Nothing here ticks. Batches that appear by themselves have their hour from the start, and are
there as soon as somebody looks after it; the rest follows from each batch's life.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter, deque
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from batchwatch.simulator.batch import Batch
from batchwatch.simulator.directory import Directory, DirectoryWish
from batchwatch.simulator.job import Job, JobConfig, JobType
from batchwatch.simulator.life import Life, plan_life
from batchwatch.simulator.project import Project

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from batchwatch.simulator.project import Origin
    from batchwatch.simulator.scenarios import Scenario
    from batchwatch.simulator.timeline import Micros, Timeline

_CONFIGS: Final = (
    JobConfig("parse_v2", "cfg-PARSE_AGENTIC"),
    JobConfig("parse_v2", "cfg-PARSE_COST_EFFECTIVE"),
    JobConfig("extract_v2", "cfg-EXTRACT_INVOICES"),
)
_key: Final = attrgetter("key")


class World:
    """All there is in one project, at any moment.

    Two worlds of one seed and scenario plan the same lives. What clients create has lives of its
    own, by its number among them, so that neither side disturbs the other.
    """

    def __init__(self, scenario: Scenario, *, seed: int, timeline: Timeline) -> None:
        self.scenario = scenario
        self.timeline = timeline
        self.project = Project(seed, timeline)
        self.directories: list[Directory] = []  # oldest first, as are the batches
        self.batches: list[Batch] = []
        self.ever: list[Batch] = []  # as they came, with those that have vanished
        self._batches: dict[str, Batch] = {}
        self._directories: dict[str, Directory] = {}
        self._jobs: dict[str, Job] = {}
        self._without_jobs: list[Batch] = []
        self._made: Counter[str] = Counter()
        self._to_come = deque(self._hours(scenario))
        self.now()

    def _hours(self, scenario: Scenario) -> list[Micros]:
        """When each batch appears by itself."""
        rng, count = self.project.stream("hours"), scenario.batches
        if scenario.older_by:
            seconds = [-rng.uniform(0, scenario.older_by) for _ in range(count)]
        else:
            seconds = [(nth + rng.random()) * scenario.over / count for nth in range(count)]
        return sorted(self.timeline.after(self.timeline.start, each) for each in seconds)

    def now(self) -> Micros:
        """The present, with everything that was due by now."""
        now = self.timeline.now()
        while self._to_come and self._to_come[0] <= now:
            self._appear(self._to_come.popleft())
        return now

    def _appear(self, created: Micros) -> None:
        origin = self._next_origin("own")
        rng, nature = self.project.stream("life", *origin), self.scenario.nature
        age = max(0.0, self.timeline.between(created, self.timeline.start))
        life = plan_life(rng, nature, age=age)
        config, files = rng.choice(_CONFIGS), rng.randint(*nature.files)
        wish = DirectoryWish(name=f"inbox-{origin[1]:05d}", type="ephemeral")
        directory = self._open(origin, created, wish, furnished=files)
        self._add(Batch(directory, origin, created, config=config, life=life))

    def _next_origin(self, maker: str) -> Origin:
        self._made[maker] += 1
        return maker, self._made[maker]

    def _add(self, batch: Batch) -> Batch:
        insort(self.batches, batch, key=_key)
        self._batches[batch.id] = batch
        self.ever.append(batch)
        self._without_jobs.append(batch)
        return batch

    def make_directory(self, wish: DirectoryWish) -> Directory:
        """Make an empty directory."""
        origin = self._next_origin("directory")
        return self._open(origin, self.now(), wish)

    def _open(
        self, origin: Origin, created: Micros, wish: DirectoryWish, *, furnished: int = 0
    ) -> Directory:
        directory = Directory(self.project, origin, created, wish, furnished=furnished)
        insort(self.directories, directory, key=_key)
        self._directories[directory.id] = directory
        return directory

    def make_batch(self, directory: Directory, config: JobConfig) -> Batch:
        """Make a batch over a directory; its life is drawn from the scenario's nature."""
        origin = self._next_origin("posted")
        life = plan_life(self.project.stream("life", *origin), self.scenario.nature)
        return self._add(Batch(directory, origin, self.now(), config=config, life=life))

    def plant(
        self,
        life: Life,
        *,
        files: int = 0,
        created: datetime | None = None,
        job_type: JobType = "parse_v2",
    ) -> Batch:
        """Make a batch that lives a told life, with so many files or those that the life tells of.

        ``created`` is now or any time before, by the true calendar: a batch may be older than what
        a client looks back on.
        """
        now = self.now()
        moment = now if created is None else self.timeline.moment(created)
        if moment > now:
            raise ValueError(f"nothing can be planted in the future: {created}")
        origin = self._next_origin("planted")
        wish = DirectoryWish(name=f"planted-{origin[1]:05d}")
        directory = self._open(origin, moment, wish, furnished=files or len(life.files))
        config = JobConfig(job_type, "cfg-PLANTED")
        return self._add(Batch(directory, origin, moment, config=config, life=life))

    def cancel(self, batch: Batch) -> None:
        """Begin to stop a batch; what its files came to is planned anew from here on."""
        self._forget_jobs(batch)
        batch.cancel(self.now())
        self._without_jobs.append(batch)

    def vanish(self, batch: Batch) -> None:
        """Make a batch unfindable, as if it had been deleted; the history still knows it."""
        self.batches.remove(batch)
        del self._batches[batch.id]

    def _forget_jobs(self, batch: Batch) -> None:
        for file in batch.files:
            if file.job is not None:
                self._jobs.pop(file.job.id, None)

    def directory(self, directory_id: str) -> Directory | None:
        """The directory of that id."""
        return self._directories.get(directory_id)

    def batch(self, batch_id: str) -> Batch | None:
        """The batch of that id, listed or not yet, unless it has vanished."""
        return self._batches.get(batch_id)

    def jobs(self) -> Mapping[str, Job]:
        """Every job by its id, those of the future among them."""
        for batch in self._without_jobs:
            found = (file.job for file in batch.files)
            self._jobs |= {job.id: job for job in found if job is not None}
        self._without_jobs.clear()
        return self._jobs
