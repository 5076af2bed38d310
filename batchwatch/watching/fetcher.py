"""Fetch batches one by one, with their results: for their ends, and for those no list shows."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from batchwatch.llamacloud.errors import CloudError, Denied, NotFound, Unaskable, is_systemic

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

    from batchwatch.domain.batch import BatchId, Observation
    from batchwatch.llamacloud.budget import Priority
    from batchwatch.llamacloud.client import LlamaCloud

UnderWay = dict["BatchId", asyncio.Event]

AT_ONCE: Final = 8  # open requests of one kind, and answers that wait to be recorded


@dataclass(frozen=True, slots=True)
class Tally:
    """How GETs went: how many were answered, and why one was not."""

    answered: int = 0
    error: CloudError | None = None

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.answered + other.answered, self.error or other.error)

    def raise_for_none(self) -> None:
        """Raise why, if not a single one was answered: that is no longer one bad batch."""
        if self.error is not None and not self.answered:
            raise self.error


@dataclass(slots=True)
class Fetched:
    """What GETs brought since the last time."""

    seen: list[Observation] = field(default_factory=list)
    missing: list[BatchId] = field(default_factory=list)  # answered with 404
    failed: dict[BatchId, CloudError] = field(default_factory=dict)

    @property
    def tally(self) -> Tally:
        """The same in numbers; what could not even be asked says nothing of upstream."""
        errors = (one for one in self.failed.values() if not isinstance(one, Unaskable))
        return Tally(len(self.seen) + len(self.missing), next(errors, None))

    @property
    def ids(self) -> set[BatchId]:
        """The batches that were asked for."""
        return {*(one.id for one in self.seen), *self.missing, *self.failed}

    def failures(self) -> Iterator[tuple[bool, dict[BatchId, CloudError]]]:
        """What failed, apart: for its own sake, and in an outage (True)."""
        for outage in (False, True):
            failed = {one: e for one, e in self.failed.items() if befalls_all(e) is outage}
            if failed:
                yield outage, failed


def befalls_all(error: CloudError) -> bool:
    """Whether the other batches need not be asked for either.

    A refusal may be for this batch alone: a listing with the same key has
    just gone well, and is what notices a key that is revoked.
    """
    return is_systemic(error) and not isinstance(error, Denied)


class Fetcher:
    """The GETs of one kind: so many at once, and never two for one batch at the same time.

    ``under_way`` is shared by all fetchers of a watch: the batches that are
    being asked for, each with what is set once its answer is recorded.
    """

    def __init__(self, cloud: LlamaCloud, *, priority: Priority, under_way: UnderWay) -> None:
        self._cloud = cloud
        self._priority = priority
        self._under_way = under_way
        self._places = asyncio.Semaphore(AT_ONCE)

    async def fetch(
        self,
        ids: Sequence[BatchId],
        *,
        record: Callable[[Fetched], Awaitable[None]],
        begun: asyncio.Event | None = None,
    ) -> Tally:
        """GET each of ``ids`` that is not under way, and have the answers recorded as they come.

        One batch that cannot be had, or not soon, holds up none of the
        others: not these, and not those of the next round, which may start as
        soon as ``begun`` is set, for then none of these waits for a place.
        When upstream as a whole does not answer, the rest is not asked for in
        vain: it is among the failed, with that same error. Raises what
        ``record`` raises.
        """
        asked = [one for one in dict.fromkeys(ids) if one not in self._under_way]
        missing = set(asked)
        self._under_way.update((one, asyncio.Event()) for one in asked)
        this = _Round(asked, self._ask, self._places, begun or asyncio.Event())
        workers = [asyncio.create_task(this.work()) for _ in range(min(AT_ONCE, len(asked)))]
        tally = Tally()
        try:
            while True:
                working = not all(worker.done() for worker in workers)
                if ready := this.take():
                    await record(ready)
                    tally += ready.tally
                    self._let_go(ready.ids)
                    missing -= ready.ids
                elif working:
                    await this.arrived.wait()
                    this.arrived.clear()
                else:
                    break
            for worker in workers:
                worker.result()  # a bug there is a bug here
        finally:
            self._let_go(missing)
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        return tally

    def _let_go(self, ids: Iterable[BatchId]) -> None:
        for one in ids:
            if recorded := self._under_way.pop(one, None):
                recorded.set()

    async def _ask(self, batch_id: BatchId) -> Observation:
        return await self._cloud.get_batch(batch_id, results=True, priority=self._priority)


class _Round:
    """The GETs for some batches, under way at the same time."""

    def __init__(
        self,
        ids: Sequence[BatchId],
        ask: Callable[[BatchId], Awaitable[Observation]],
        places: asyncio.Semaphore,
        begun: asyncio.Event,
    ) -> None:
        self._waiting = iter(ids)
        self._waiting_count = len(ids)
        self._ask = ask
        self._places = places
        self._begun = begun
        self._outage: CloudError | None = None
        self._fetched = Fetched()
        self._taken = asyncio.Event()
        self.arrived = asyncio.Event()

    def take(self) -> Fetched | None:
        """What came since the last time, if anything did."""
        if self._fetched == Fetched():
            return None
        ready, self._fetched = self._fetched, Fetched()
        self._taken.set()
        return ready

    async def work(self) -> None:
        """Ask for one batch after the other, as long as there are any."""
        try:
            for batch_id in self._waiting:
                async with self._places:
                    self._waiting_count -= 1
                    if not self._waiting_count:
                        self._begun.set()
                    await self._fetch(batch_id)
                self.arrived.set()
                while len(self._fetched.seen) >= AT_ONCE:  # else a slow store would fill memory
                    self._taken.clear()
                    await self._taken.wait()
        finally:
            self.arrived.set()

    async def _fetch(self, batch_id: BatchId) -> None:
        if self._outage is not None:
            self._fetched.failed[batch_id] = self._outage
            return
        try:
            seen = await self._ask(batch_id)
            self._fetched.seen.append(seen)  # what was there before the answer may be taken by now
        except NotFound:
            self._fetched.missing.append(batch_id)
        except CloudError as error:
            self._fetched.failed[batch_id] = error
            if befalls_all(error):
                self._outage = error
