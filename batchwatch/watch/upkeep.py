"""What must be done from time to time, whether anything happens or not."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Final

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from batchwatch.log import get_logger
from batchwatch.store import StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from batchwatch.clock import Clock
    from batchwatch.domain.delivery import DeliveryId
    from batchwatch.metrics import Metrics
    from batchwatch.store import Database, Outbox, Views

log = get_logger()

_OWED: Final = ("waiting", "pending", "in_flight", "dead")


class Upkeep:
    """The jobs, and the scheduler that runs them."""

    def __init__(
        self,
        *,
        database: Database,
        outbox: Outbox,
        views: Views,
        held: Collection[DeliveryId],
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._database = database
        self._outbox = outbox
        self._held = held
        self._views = views
        self._clock = clock
        self._metrics = metrics

    def start(self, endpoints: Collection[str]) -> AsyncIOScheduler:
        """Start the jobs; the caller shuts the scheduler down."""
        # A job that is late, for the machine slept, runs once and not once for each time missed.
        scheduler = AsyncIOScheduler(
            timezone=UTC,  # intervals need none, and not every valid TZ is one to APScheduler
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )

        async def gauges() -> None:
            await self.gauges(endpoints)

        for seconds, job in ((15, gauges), (30, self.recover), (3600, self.tidy)):
            scheduler.add_job(
                _at_its_border(job), "interval", seconds=seconds, name=job.__name__, jitter=1
            )
        scheduler.start()
        return scheduler

    async def recover(self) -> None:
        """Give back deliveries whose lease is over: whoever held them did not come back."""
        released = await self._outbox.release(now=self._clock.now(), held=self._held)
        if released:
            log.warning("deliveries.released", count=released)

    async def gauges(self, endpoints: Collection[str]) -> None:
        """Count what is owed, by endpoint."""
        now = self._clock.now()
        depths = await self._views.outbox()
        for endpoint in endpoints:
            counts = {one.state: one.count for one in depths if one.endpoint == endpoint}
            for state in _OWED:
                self._metrics.outbox.labels(endpoint, state).set(counts.get(state, 0))
            ages = [
                (now - one.oldest).total_seconds()
                for one in depths
                if one.endpoint == endpoint and one.state != "dead" and one.oldest
            ]
            self._metrics.outbox_age.labels(endpoint).set(max(ages, default=0.0))

    async def tidy(self) -> None:
        """Let the database refresh its statistics and shorten its log."""
        await self._database.tidy()


def _at_its_border(job: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    async def run() -> None:
        try:
            await job()
        except StoreError as error:
            log.warning("upkeep.failed", job=job.__name__, reason=str(error))

    return run
