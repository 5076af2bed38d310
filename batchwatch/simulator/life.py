"""Plan the whole life of a batch at its birth: its statuses, and what becomes of each file.

Times are simulated seconds since the batch was created. A life is drawn from one random stream of
its own and never looked at again, so the state at any moment is a pure function of the plan, and
no request, however timed, can change what another batch does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from random import Random

Span: TypeAlias = tuple[float, float]  # simulated seconds, least and most
Chance: TypeAlias = float  # from 0 to 1

TERMINAL: Final = frozenset({"COMPLETED", "FAILED", "CANCELLED"})
UNDOCUMENTED_STATUS: Final = "VALIDATING"  # named by no page of the API: clients must bear it


class Step(NamedTuple):
    """A status, and when it begins."""

    status: str
    after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Nature:
    """What the batches of a scenario are like."""

    pending: Span = (2, 5)
    validating: Span = (1.5, 2.5)
    running: Span = (10, 30)  # in all, however often it is throttled
    throttled: Span = (2, 6)  # each time
    throttles: tuple[int, int] = (0, 0)  # how often
    files: tuple[int, int] = (1, 5)  # of batches that appear by themselves

    job_pending: Span = (0.2, 1)
    job_running: Span = (1, 5)

    listed_late: Span = (0, 0)  # how long lists do not show a new batch
    results_late: Span = (0, 0)  # how long results stay null after the end
    stops_within: Span = (0.5, 2)  # from the call to CANCELLED
    stuck_for: Span = (21_600, 108_000)  # six to thirty hours, unless for ever

    validates: Chance = 0  # passes through a status that no document names
    fails: Chance = 0
    is_cancelled: Chance = 0  # by somebody else, not through this API
    sticks: Chance = 0  # stands still somewhere, half of the time for ever

    file_has_no_job: Chance = 0  # a mapping error
    file_is_forgotten: Chance = 0  # neither job nor error, even after COMPLETED
    job_fails: Chance = 0
    job_is_cancelled: Chance = 0
    job_sticks: Chance = 0  # never ends


@dataclass(frozen=True, slots=True)
class JobLife:
    """The statuses of the job behind a file, and why it failed if it does."""

    steps: tuple[Step, ...]
    error_message: str | None = None


@dataclass(frozen=True, slots=True)
class FileLife:
    """A file's fate: a job, an error, or neither; known from ``mapped_after`` on."""

    mapped_after: float
    job: JobLife | None = None
    error_message: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """All that will happen to a batch, unless somebody cancels it."""

    steps: tuple[Step, ...]
    mapping: Span  # when files are mapped to jobs
    nature: Nature = field(default_factory=Nature)  # of the files
    files: tuple[FileLife, ...] = ()  # of those that are not left to the nature
    listed_after: float = 0.0
    results_late: float = 0.0  # after the end
    stopping: float = 1.0  # from a call to cancel until CANCELLED
    halted_after: float = math.inf  # no file is mapped any more
    halt_ends_jobs: bool = False

    def file(self, nth: int, rng: Random) -> FileLife:
        """What becomes of the n-th file.

        It is drawn as if nothing could come between and cut short then, so that a batch that is
        cancelled keeps the very jobs that it had before.
        """
        planned = nth < len(self.files)
        file = self.files[nth] if planned else _plan_file(rng, self.nature, self.mapping)
        if file.mapped_after > self.halted_after:
            return FileLife(math.inf)
        if not self.halt_ends_jobs or file.job is None:
            return file
        if file.job.steps[-1].status in TERMINAL and file.job.steps[-1].after < self.halted_after:
            return file
        stopped = Step("CANCELLED", self.halted_after)
        return replace(file, job=JobLife((*_before(file.job.steps, self.halted_after), stopped)))

    def cancelled(self, called_after: float) -> Life:
        """The life as it goes on when cancelled at ``called_after``.

        A batch takes a while to stop. One that ends by itself in that time ends as it would
        have; files that are finished by then keep their results.
        """
        stopped = called_after + self.stopping
        if any(step.status in TERMINAL and step.after <= stopped for step in self.steps):
            return self
        return replace(
            self,
            steps=(*_before(self.steps, stopped), Step("CANCELLED", stopped)),
            halted_after=min(self.halted_after, stopped),
            halt_ends_jobs=True,
        )


def a_life(*steps: tuple[str, float], **traits: Any) -> Life:
    """A life that is told instead of drawn: each status with its simulated second.

    Files are mapped from RUNNING to the end; ``traits`` are the other fields of a life.
    """
    told = tuple(Step(*step) for step in steps)
    begins = next((step.after for step in told if step.status == "RUNNING"), 0.0)
    return Life(**{"steps": told, "mapping": (begins, told[-1].after)} | traits)


def plan_life(rng: Random, nature: Nature, *, age: float = 0.0) -> Life:
    """Draw a life; one that is ``age`` seconds old already was PENDING until now."""
    at = age + rng.uniform(*nature.pending)
    steps = [Step("PENDING", 0.0)]
    if rng.random() < nature.validates:
        steps.append(Step(UNDOCUMENTED_STATUS, at))
        at += rng.uniform(*nature.validating)

    throttles = rng.randint(*nature.throttles)
    throttled_first = throttles > 0 and rng.random() < 0.5  # even chances
    stretches = _shares(rng, rng.uniform(*nature.running), throttles + (not throttled_first))
    mapping_starts = math.inf
    for nth, stretch in enumerate(stretches):
        if nth > 0 or throttled_first:
            steps.append(Step("THROTTLED", at))
            at += rng.uniform(*nature.throttled)
        steps.append(Step("RUNNING", at))
        mapping_starts = min(mapping_starts, at)
        at += stretch
    steps.append(Step("COMPLETED", at))

    life = Life(
        steps=tuple(steps),
        mapping=(mapping_starts, at),
        nature=nature,
        listed_after=rng.uniform(*nature.listed_late),
        results_late=rng.uniform(*nature.results_late),
        stopping=rng.uniform(*nature.stops_within),
    )
    return _twisted(rng, nature, life)


def _twisted(rng: Random, nature: Nature, life: Life) -> Life:
    """The life, or with the nature's chances one that ends in another way."""
    fate, last_running, end = rng.random(), life.steps[-2].after, life.steps[-1].after
    turn = rng.uniform((last_running + end) / 2, end)  # late, so that RUNNING can be seen
    standstill = rng.uniform(0.01 * end, end)
    delay = math.inf if rng.random() < 0.5 else rng.uniform(*nature.stuck_for)

    if fate < nature.fails:
        steps = (*_before(life.steps, turn), Step("FAILED", turn))
        return replace(life, steps=steps, halted_after=turn)
    if fate < nature.fails + nature.is_cancelled:
        return life.cancelled(turn - life.stopping)
    if fate < nature.fails + nature.is_cancelled + nature.sticks:
        return _stuck(life, standstill, delay)
    return life


def _stuck(life: Life, standstill: float, delay: float) -> Life:
    done = _before(life.steps, standstill)
    if math.isinf(delay):
        return replace(life, steps=done, halted_after=standstill)
    later = tuple(Step(s.status, s.after + delay) for s in life.steps[len(done) :])
    starts, ends = life.mapping
    starts += delay if starts > standstill else 0.0
    return replace(life, steps=done + later, mapping=(starts, ends + delay))


def _plan_file(rng: Random, nature: Nature, mapping: Span) -> FileLife:
    mapped = rng.uniform(*mapping)
    job = _plan_job(rng, nature, mapped)
    fate = rng.random()
    if fate < nature.file_has_no_job:
        return FileLife(mapped, error_message="File could not be read: unsupported file type")
    if fate < nature.file_has_no_job + nature.file_is_forgotten:
        return FileLife(mapped)
    return FileLife(mapped, job=job)


def _plan_job(rng: Random, nature: Nature, created: float) -> JobLife:
    running = created + rng.uniform(*nature.job_pending)
    ended = running + rng.uniform(*nature.job_running)
    fate = rng.random()
    begun = (Step("PENDING", created), Step("RUNNING", running))
    if fate < nature.job_fails:
        return JobLife((*begun, Step("FAILED", ended)), "The document is encrypted")
    if fate < nature.job_fails + nature.job_is_cancelled:
        return JobLife((*begun, Step("CANCELLED", ended)))
    if fate < nature.job_fails + nature.job_is_cancelled + nature.job_sticks:
        return JobLife(begun)
    return JobLife((*begun, Step("COMPLETED", ended)))


def _before(steps: tuple[Step, ...], moment: float) -> tuple[Step, ...]:
    return tuple(step for step in steps if step.after < moment)


def _shares(rng: Random, total: float, parts: int) -> list[float]:
    """``total`` in parts of which none is less than half of another, so that each can be seen."""
    weights = [rng.uniform(1, 2) for _ in range(parts)]
    return [total * weight / sum(weights) for weight in weights]
