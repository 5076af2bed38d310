"""Fetch batches one by one, with their results: for their ends, and for those no list shows."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from batchwatch.llamacloud.errors import CloudError, Denied, NotFound, is_systemic
from batchwatch.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from batchwatch.domain.batch import BatchId, Observation
    from batchwatch.llamacloud.budget import Priority
    from batchwatch.llamacloud.client import LlamaCloud

log = get_logger()

AT_ONCE: Final = 8  # open requests
CHUNK: Final = 40  # results to a question of the store; each may bring a thousand files


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
        """The same in numbers."""
        error = next(iter(self.failed.values()), None)
        return Tally(len(self.seen) + len(self.missing), error)

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


class _Round:
    """The GETs for some batches, under way at the same time."""

    def __init__(self, cloud: LlamaCloud, ids: Sequence[BatchId], priority: Priority) -> None:
        self._cloud = cloud
        self._waiting = iter(ids)
        self._priority = priority
        self._outage: CloudError | None = None
        self.fetched = Fetched()
        self.arrived = asyncio.Event()

    async def work(self) -> None:
        """Ask for one batch after the other, as long as there are any."""
        try:
            for batch_id in self._waiting:
                await self._ask(batch_id)
                self.arrived.set()
        finally:
            self.arrived.set()

    async def _ask(self, batch_id: BatchId) -> None:
        if self._outage is not None:
            self.fetched.failed[batch_id] = self._outage
            return
        try:
            seen = await self._cloud.get_batch(batch_id, results=True, priority=self._priority)
            self.fetched.seen.append(seen)
        except NotFound:
            self.fetched.missing.append(batch_id)
        except CloudError as error:
            self.fetched.failed[batch_id] = error
            if befalls_all(error):
                self._outage = error


async def fetch(
    cloud: LlamaCloud,
    ids: Sequence[BatchId],
    *,
    priority: Priority,
    record: Callable[[Fetched], Awaitable[None]],
) -> None:
    """GET each of ``ids`` with its results, and have the answers recorded as they come.

    One batch that cannot be had, or not soon, never holds up the others. When
    upstream as a whole does not answer, the rest is not asked for in vain: it
    is among the failed, with that same error. Raises what ``record`` raises.
    """
    this = _Round(cloud, ids, priority)
    workers = [asyncio.create_task(this.work()) for _ in range(min(AT_ONCE, len(ids)))]
    try:
        while True:
            working = not all(worker.done() for worker in workers)
            if this.fetched != Fetched():
                ready, this.fetched = this.fetched, Fetched()
                await record(ready)
            elif working:
                await this.arrived.wait()
                this.arrived.clear()
            else:
                break
        for worker in workers:
            worker.result()  # a bug there is a bug here
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
