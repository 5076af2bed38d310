"""Follow hints: look at once at the batches that upstream's webhooks name, and believe the look."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import OrderedDict
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from batchwatch.domain.batch import PENDING
from batchwatch.domain.hint import is_borne_out
from batchwatch.llamacloud.errors import CloudError
from batchwatch.log import get_logger
from batchwatch.store import StoreError

if TYPE_CHECKING:
    from batchwatch.clock import Clock
    from batchwatch.domain.batch import Batch, BatchId, Status
    from batchwatch.metrics import Metrics
    from batchwatch.store import Batches
    from batchwatch.watching.poller import Poller

log = get_logger()

MOST: Final = 10_000  # batches that wait to be looked at, some 3 MB; the rest is for the polls
AT_ONCE: Final = 16  # looks; one may wait for an answer that was asked for before
AGAIN: Final = (0.3, 1.0, 3.0)  # seconds until a replica that lags is asked again, then the polls


class Look(StrEnum):
    """What came of one look."""

    SHOWN = "shown"  # what the hint claimed, or no less
    KNOWN = "known"  # that was known already, and nothing was asked
    BEHIND = "behind"  # not what it claimed: a replica that lags, or a lie
    UNKNOWN = "unknown"  # no batch of this watch
    FAILED = "failed"  # upstream or the store did not answer
    DROPPED = "dropped"  # too many waited


class _Wish(NamedTuple):
    claims: Status | None
    tries: int = 0


class Follower:
    """Looks at the batches that hints name: as often as need be, never twice at once.

    A hint that comes while its batch is being looked at leads to another
    look, for the first may have been answered from before the change.
    Nothing here is needed: whatever goes wrong, the next polls show the same.
    """

    def __init__(self, poller: Poller, *, batches: Batches, clock: Clock, metrics: Metrics) -> None:
        self._watch = poller.watch.name
        self._poller = poller
        self._batches = batches
        self._clock = clock
        self._metrics = metrics
        self._wanted: OrderedDict[BatchId, _Wish] = OrderedDict()
        self._later: list[tuple[float, int, BatchId, _Wish]] = []  # a heap, by monotonic seconds
        self._order = itertools.count()
        self._looking: set[BatchId] = set()
        self._news = asyncio.Event()
        self._ailing: str | None = None  # why the last look failed, if it did

    def want(self, batch_id: BatchId, claims: Status | None) -> None:
        """Have this batch looked at, as soon as may be; ``claims`` is what it has come to."""
        if batch_id not in self._wanted and len(self._wanted) + len(self._later) >= MOST:
            self._count(Look.DROPPED)
            return
        before = self._wanted.get(batch_id)
        if before is not None and _outweighs(before.claims, claims):
            claims = before.claims
        self._wanted[batch_id] = _Wish(claims)
        self._news.set()

    async def run(self) -> None:
        """Look until cancelled.

        Not before the first pass ever has ended, which tells what is news
        from what was there before.
        """
        await self._poller.baseline.wait()
        async with asyncio.TaskGroup() as group:
            while True:
                self._news.clear()
                self._bring_back()
                for batch_id in self._next():
                    self._looking.add(batch_id)
                    group.create_task(self._look(batch_id, self._wanted.pop(batch_id)))
                pause = self._later[0][0] - self._clock.monotonic() if self._later else None
                await self._clock.wait(self._news, pause)

    def _bring_back(self) -> None:
        """Want again what is to be looked at again by now."""
        while self._later and self._later[0][0] <= self._clock.monotonic():
            _, _, batch_id, wish = heapq.heappop(self._later)
            self._wanted.setdefault(batch_id, wish)  # a new hint has its own tries

    def _next(self) -> list[BatchId]:
        """Those to begin with now: the first that are not being looked at, if there is room."""
        free = (one for one in self._wanted if one not in self._looking)
        return list(itertools.islice(free, AT_ONCE - len(self._looking)))

    async def _look(self, batch_id: BatchId, wish: _Wish) -> None:
        """Look at one batch, at the border of one hint: the others go on."""
        outcome = Look.FAILED
        try:
            outcome = await self._seen(batch_id, wish.claims)
            if outcome is not Look.KNOWN:  # else nothing was asked
                self._ailing = None
        except (CloudError, StoreError) as error:
            self._tell(batch_id, str(error))
        except Exception:
            log.exception("hint.broke", watch=self._watch, batch_id=batch_id)
        finally:
            self._looking.discard(batch_id)
            self._news.set()
        may_come = outcome is Look.BEHIND or (
            outcome is Look.UNKNOWN and not self._poller.is_elsewhere(batch_id)
        )
        if may_come and wish.tries < len(AGAIN):
            due = self._clock.monotonic() + AGAIN[wish.tries]
            again = _Wish(wish.claims, wish.tries + 1)
            heapq.heappush(self._later, (due, next(self._order), batch_id, again))
            return
        self._count(outcome)
        log.debug("hint.followed", watch=self._watch, batch_id=batch_id, outcome=outcome)

    async def _seen(self, batch_id: BatchId, claims: Status | None) -> Look:
        """Ask, unless what is claimed is known; what is known then."""
        if is_borne_out(await self._known(batch_id), claims):
            return Look.KNOWN
        tally = await self._poller.look_at([batch_id])
        tally.raise_for_none()
        batch = await self._known(batch_id)
        if batch is None:
            return Look.UNKNOWN
        return Look.SHOWN if claims is None or is_borne_out(batch, claims) else Look.BEHIND

    async def _known(self, batch_id: BatchId) -> Batch | None:
        return (await self._batches.known(self._watch, [batch_id])).get(batch_id)

    def _tell(self, batch_id: BatchId, reason: str) -> None:
        told = self._ailing == reason
        self._ailing = reason
        (log.debug if told else log.warning)(
            "hint.failed", watch=self._watch, batch_id=batch_id, reason=reason
        )

    def _count(self, outcome: Look) -> None:
        self._metrics.hint_looks.labels(self._watch, outcome.value).inc()


def _outweighs(before: Status | None, claims: Status | None) -> bool:
    """Whether the earlier of two claims says no less: an end is the end, PENDING the beginning."""
    return before is not None and (before.is_terminal or claims in (None, PENDING))
