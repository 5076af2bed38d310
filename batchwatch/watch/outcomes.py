"""Fetch batches one by one, with their results: for their ends, and for those no list shows."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from batchwatch.llamacloud.errors import CloudError, NotFound, is_systemic
from batchwatch.log import get_logger

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from batchwatch.domain.batch import BatchId, Observation
    from batchwatch.llamacloud.budget import Priority
    from batchwatch.llamacloud.client import LlamaCloud

log = get_logger()

AT_ONCE: Final = 8  # open requests
CHUNK: Final = 40  # batches to a transaction; each may bring a thousand files


@dataclass(slots=True)
class Fetched:
    """What a chunk of GETs brought."""

    seen: list[Observation] = field(default_factory=list)
    missing: list[BatchId] = field(default_factory=list)  # answered with 404
    failed: dict[BatchId, CloudError] = field(default_factory=dict)


async def fetch(
    cloud: LlamaCloud, ids: Sequence[BatchId], *, priority: Priority
) -> AsyncGenerator[Fetched, None]:
    """GET each of ``ids`` with its results, a chunk at a time.

    One batch that cannot be had never stops the others. When upstream as a
    whole does not answer, the rest of the chunk is not asked for in vain: it
    is among the failed, with that same error.
    """
    for start in range(0, len(ids), CHUNK):
        yield await _fetch_chunk(cloud, ids[start : start + CHUNK], priority)


async def _fetch_chunk(cloud: LlamaCloud, ids: Sequence[BatchId], priority: Priority) -> Fetched:
    fetched = Fetched()
    waiting = iter(ids)
    outage: CloudError | None = None

    async def work() -> None:
        nonlocal outage
        for batch_id in waiting:
            if outage is not None:
                fetched.failed[batch_id] = outage
                continue
            try:
                fetched.seen.append(
                    await cloud.get_batch(batch_id, results=True, priority=priority)
                )
            except NotFound:
                fetched.missing.append(batch_id)
            except CloudError as error:
                fetched.failed[batch_id] = error
                if is_systemic(error):
                    outage = error

    async with asyncio.TaskGroup() as group:
        for _ in range(min(AT_ONCE, len(ids))):
            group.create_task(work())
    return fetched
