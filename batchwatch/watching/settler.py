"""Follow the jobs behind the files of batches that have ended, until each one's fate is known."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from batchwatch.domain.batch import Settling
from batchwatch.domain.cadence import FEW_FILES, SETTLE_PAUSE
from batchwatch.domain.jobs import JobRecorder, JobSeen, is_settling
from batchwatch.domain.settle import fate_of
from batchwatch.llamacloud.budget import Priority
from batchwatch.llamacloud.client import IDS_AT_ONCE
from batchwatch.llamacloud.errors import CloudError, NotFound, Unreachable
from batchwatch.log import get_logger
from batchwatch.watching.fetcher import befalls_all
from batchwatch.watching.report import Reporter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from batchwatch.clock import Clock
    from batchwatch.domain.batch import Batch, BatchId, FileOutcome
    from batchwatch.domain.changes import Changes
    from batchwatch.metrics import Metrics
    from batchwatch.store import Batches, FileNames
    from batchwatch.watching.poller import Poller

    Decide = Callable[[Mapping[BatchId, Batch], Mapping[BatchId, Sequence[FileOutcome]]], Changes]

log = get_logger()

AT_ONCE: Final = 4  # lots that are under way, each with the files of its batches in memory
ROUND: Final = 200  # batches that are looked at in one round
NAMELESS: Final = 60.0  # seconds without a question for names, after one that failed
MOSTLY: Final = 10  # of a hundred jobs, so many may run on and the rest is worth asking for


class Settler:
    """Asks what became of the jobs of one watch's batches, and has it recorded.

    Small batches share their questions; a large one is asked for in chunks,
    one after another, the last files first: they were given to jobs last. As
    long as most of those run, the others need not be asked for. All that
    comes is written at once, so that a crash costs one chunk.
    """

    def __init__(
        self,
        poller: Poller,
        *,
        batches: Batches,
        names: FileNames,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._poller = poller
        self._watch = poller.watch
        self._cloud = poller.cloud
        self._unsettled = poller.unsettled
        self._batches = batches
        self._names = names
        self._clock = clock
        self._reporter = Reporter(poller.watch.name, metrics=metrics)
        self._under_way: set[BatchId] = set()
        self._places = asyncio.Semaphore(AT_ONCE)
        self._nameless_until = 0.0  # monotonic
        # By directory: two batches over one of them ask for its names once.
        self._naming: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def settle(self, begun: asyncio.Event | None = None) -> bool:
        """Ask for the jobs that are due; whether that shows that they can be had.

        Raises :class:`CloudError` where not a single question was answered,
        or upstream as a whole does not answer. ``begun`` is set as soon as
        none of these waits for a place.
        """
        name = self._watch.name
        ids = await self._batches.settling(
            name, now=self._now(), besides=self._under_way, limit=ROUND
        )
        known = await self._batches.known(name, ids)
        lots = list(self._lots(known[one] for one in ids))
        this = _Round(len(lots), begun or asyncio.Event())
        if not lots:
            ends: Sequence[BaseException | None] = ()
        else:
            with self._cloud.traces.span(
                "settle",
                {"batchwatch.watch": name, "batchwatch.batches": len(known)},
                parent=self._poller.cause,
            ):
                ends = await self._take_all(lots, this, set(known))
        for end in ends:
            if isinstance(end, BaseException):
                raise end
        this.raise_for_none()
        return bool(this.answered) or await self._batches.next_settling_due(name) is None

    async def _take_all(
        self, lots: Sequence[Sequence[BatchId]], this: _Round, mine: set[BatchId]
    ) -> Sequence[BaseException | None]:
        """Ask for lots side by side; what each of them ended with."""
        self._under_way |= mine
        try:
            return await asyncio.gather(
                *(self._take_turns(lot, this, mine) for lot in lots), return_exceptions=True
            )
        finally:
            self._under_way -= mine

    async def until_settle(self) -> float | None:
        """Seconds until jobs are due that are not being asked for; None if there are none."""
        due = await self._batches.next_settling_due(self._watch.name, besides=self._under_way)
        if due is None:
            return None
        pause = due - self._clock.now()
        # Further away than the longest pause: the clock was set back since.
        return 0.0 if pause > SETTLE_PAUSE else max(0.0, pause.total_seconds())

    async def _take_turns(self, lot: Sequence[BatchId], this: _Round, mine: set[BatchId]) -> None:
        """Ask for a lot as soon as there is a place; ``mine`` are those under way in this round."""
        async with self._places:
            this.begin_one()
            await self._ask(lot, this)
        mine.difference_update(lot)  # the next round may have them while this one goes on
        self._under_way.difference_update(lot)
        self._unsettled.set()

    async def _ask(self, lot: Sequence[BatchId], this: _Round) -> None:
        """Ask for the jobs of a lot, and note where that fails; one bad batch spoils no other."""
        error = this.outage
        if error is None:
            try:
                await self._ask_for(lot)
            except CloudError as failure:
                error = failure
        if error is None:
            this.answered += 1
            return
        outage = befalls_all(error)
        if not outage and len(lot) > 1 and not isinstance(error, Unreachable):
            half = len(lot) // 2
            await self._ask(lot[:half], this)
            await self._ask(lot[half:], this)
            return
        this.note(error, outage=outage)
        rules = await self._rules(lot)
        if outage:
            put_off = partial(rules.put_off, now=self._now())
            await self._batches.change(self._watch.name, lot, put_off)
        else:
            await self._change(lot, partial(rules.unanswered, now=self._now()))
            self._warn(lot, error)

    async def _ask_for(self, lot: Sequence[BatchId]) -> None:
        """Make a round of the jobs of a lot. Raises :class:`CloudError` if none could be had."""
        known = await self._batches.known(self._watch.name, lot)
        waiting = [one for one in known.values() if is_settling(one)]
        for batch in waiting:
            if self._is_first(batch):
                await self._learn_names(batch)
        rules = await self._rules(lot)
        for batch in waiting:
            if batch.settling is Settling.JOBLESS:
                await self._look_again(batch, rules)
        for_all = any(rules.asks_for_all(one, now=self._now()) for one in waiting)
        await self._follow(lot, rules, for_all=for_all or len(lot) > 1)

    async def _follow(self, lot: Sequence[BatchId], rules: JobRecorder, *, for_all: bool) -> None:
        """Ask for one chunk after the other, until most of one is still running."""
        chunks = _chunks(await self._batches.outcomes(self._watch.name, lot))
        seen: dict[str, JobSeen] = {}
        complete, answered = True, 0
        failed: CloudError | None = None
        for place, (job_type, ids) in enumerate(chunks, start=1):
            try:
                jobs = await self._cloud.jobs(job_type, ids, priority=Priority.SETTLE)
            except CloudError as error:
                if failed or len(lot) > 1 or befalls_all(error):
                    raise
                # It may be the fault of one job: the other chunks are asked for all the same.
                failed, complete = error, False
                continue
            answered += 1
            these = {job.id: JobSeen(job.status, job.error_message) for job in jobs}
            seen |= these
            runs = sum(1 for one in ids if one not in these or not these[one].has_ended)
            if place == len(chunks):
                break
            if runs * 100 > MOSTLY * len(ids) and not for_all:
                complete = False
                break
            await self._change(lot, partial(rules.follow, seen=these, over={}, now=self._now()))
        if failed is not None:
            if not answered:
                raise failed
            self._warn(lot, failed)
        over = dict.fromkeys(lot, complete)
        await self._change(lot, partial(rules.follow, seen=seen, over=over, now=self._now()))

    async def _look_again(self, batch: Batch, rules: JobRecorder) -> None:
        """Ask for the results once more: files without a job may have one by now."""
        results: Sequence[FileOutcome] | None = None
        try:
            seen = await self._cloud.get_batch(batch.id, results=True, priority=Priority.SETTLE)
            results = seen.results if seen.status == batch.status else None
        except CloudError as error:
            if befalls_all(error):
                raise
            log.info(
                "results.unreadable", watch=self._watch.name, batch_id=batch.id, reason=str(error)
            )
        look = partial(rules.look_again, results=results, now=self._now())
        await self._change([batch.id], look)

    async def _learn_names(self, batch: Batch) -> None:
        """Have the names of its files, if they can be had: nothing waits for them twice."""
        directory_id = batch.source_directory_id
        if directory_id is None or self._clock.monotonic() < self._nameless_until:
            return
        async with self._naming.setdefault(directory_id, asyncio.Lock()):
            await self._name_files(batch, directory_id)

    async def _name_files(self, batch: Batch, directory_id: str) -> None:
        name = self._watch.name
        files = (await self._batches.outcomes(name, [batch.id])).get(batch.id, [])
        ids = {one.source_directory_file_id for one in files}
        if ids <= (await self._names.need(name, ids, now=self._now())).keys():
            return
        try:
            found = await self._cloud.directory_files(directory_id, priority=Priority.SETTLE)
        except NotFound:  # ephemeral directories are cleaned up
            log.debug("names.missing", watch=name, batch_id=batch.id)
        except CloudError as error:
            self._nameless_until = self._clock.monotonic() + NAMELESS
            log.warning("names.failed", watch=name, batch_id=batch.id, reason=str(error))
        else:
            await self._names.add(name, found, now=self._now())

    def _is_first(self, batch: Batch) -> bool:
        """Whether names are to be asked for, and were not yet."""
        return self._watch.file_names and batch.settle_asks == 0 and batch.settling is Settling.OPEN

    async def _rules(self, lot: Sequence[BatchId]) -> JobRecorder:
        name = self._watch.name
        names: Mapping[str, str] = {}
        if self._watch.file_names:
            files = await self._batches.outcomes(name, lot)
            ids = {one.source_directory_file_id for some in files.values() for one in some}
            names = await self._names.known(name, ids)
        return JobRecorder(
            name, self._watch.base_url, deadline=self._watch.settle_deadline, names=names
        )

    async def _change(self, lot: Sequence[BatchId], decide: Decide) -> None:
        self._reporter.tell(await self._batches.follow(self._watch.name, lot, decide))

    def _now(self) -> datetime:
        return self._clock.now()

    def _warn(self, lot: Sequence[BatchId], error: CloudError) -> None:
        log.warning("jobs.failed", watch=self._watch.name, batch_id=lot[0], reason=str(error))

    def _lots(self, batches: Iterable[Batch]) -> Iterator[list[BatchId]]:
        """The batches that are asked for together: small ones, as many as one question holds."""
        lot: list[BatchId] = []
        files = 0
        for batch in batches:
            count = batch.file_count or 0
            if count > FEW_FILES or batch.settling is Settling.JOBLESS or self._is_first(batch):
                yield [batch.id]
                continue
            if files + count > IDS_AT_ONCE:
                yield lot
                lot, files = [], 0
            lot.append(batch.id)
            files += count
        if lot:
            yield lot


class _Round:
    """How far a round is, and how it goes."""

    def __init__(self, lots: int, begun: asyncio.Event) -> None:
        self._waiting = lots
        self._begun = begun
        self._error: CloudError | None = None
        self.answered = 0
        self.outage: CloudError | None = None
        if not lots:
            begun.set()

    def begin_one(self) -> None:
        """One more lot has its place."""
        self._waiting -= 1
        if not self._waiting:
            self._begun.set()

    def note(self, error: CloudError, *, outage: bool) -> None:
        """A lot could not be had; in an ``outage`` the others are not asked for in vain."""
        self._error = self._error or error
        if outage:
            self.outage = error

    def raise_for_none(self) -> None:
        """Raise why, if nothing was answered, or upstream as a whole does not answer."""
        if self.outage is not None:
            raise self.outage
        if self._error is not None and not self.answered:
            raise self._error


def _chunks(files: Mapping[BatchId, Sequence[FileOutcome]]) -> list[tuple[str, list[str]]]:
    """The open jobs of these files by type, so many at once; the last ones first."""
    ids: dict[str, list[str]] = {}
    for some in files.values():
        for one in some:
            if fate_of(one) is None and one.job_type is not None and one.job_id is not None:
                ids.setdefault(one.job_type, []).append(one.job_id)
    return [
        (job_type, those[max(0, end - IDS_AT_ONCE) : end])
        for job_type, those in ids.items()
        for end in range(len(those), 0, -IDS_AT_ONCE)
    ]
