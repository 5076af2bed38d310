"""What must be done from time to time, whether anything happens or not."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from batchwatch.log import get_logger
from batchwatch.store import StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from batchwatch.deliver.dispatcher import Dispatcher
    from batchwatch.store import Database, Views

log = get_logger()

_OWED: Final = ("waiting", "pending", "in_flight", "dead")


class Upkeep:
    """The jobs, and the scheduler that runs them."""

    def __init__(
        self,
        *,
        database: Database,
        dispatcher: Dispatcher,
        views: Views,
        endpoints: Collection[str],
        watches: Collection[str],
    ) -> None:
        self._database = database
        self._dispatcher = dispatcher
        self._views = views
        self._endpoints = endpoints
        self._counted = set(endpoints)  # whose gauges there are
        self._watches = watches
        self._clock = dispatcher.clock
        self._metrics = dispatcher.metrics

    def start(self) -> AsyncIOScheduler:
        """Start the jobs; the caller shuts the scheduler down."""
        # A job that is late, for the machine slept, runs once and not once for each time missed.
        scheduler = AsyncIOScheduler(
            timezone=UTC,  # intervals need none, and not every valid TZ is one to APScheduler
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )
        at_once = {"next_run_time": datetime.now(UTC)}  # the scheduler's clock is the true one
        for seconds, job, more in (
            (2, self.obey, {}),
            (15, self.count, at_once),
            (30, self.release, {}),
            (3600, self.remind, at_once),
            (3600, self.tidy, {}),
        ):
            scheduler.add_job(
                _at_its_border(job), "interval", seconds=seconds, name=job.__name__, **more
            )
        scheduler.start()
        return scheduler

    async def obey(self) -> None:
        """Take note of what a command has changed in the store."""
        if await self._database.was_nudged():
            await self._dispatcher.reload()

    async def release(self) -> None:
        """Give back deliveries whose lease is over: whoever held them did not come back."""
        released = await self._dispatcher.release()
        if released:
            log.warning("deliveries.released", count=released)

    async def count(self) -> None:
        """Count what is owed, by endpoint; those that are no longer set are among them."""
        now = self._clock.steady()
        depths = await self._views.outbox()
        self._counted.update(one.endpoint for one in depths)
        for endpoint in self._counted:
            of_it = [one for one in depths if one.endpoint == endpoint]
            counts = {one.state: one.count for one in of_it}
            for state in _OWED:
                self._metrics.outbox.labels(endpoint, state).set(counts.get(state, 0))
            ages = [
                (now - one.oldest).total_seconds()
                for one in of_it
                if one.state != "dead" and one.oldest
            ]
            self._metrics.outbox_age.labels(endpoint).set(max(ages, default=0.0))

    async def remind(self) -> None:
        """Say what is left behind: owed to an endpoint, or active in a watch, that is not set."""
        owed: dict[str, int] = {}
        for one in await self._views.outbox():
            if one.endpoint not in self._endpoints and one.state != "dead":
                owed[one.endpoint] = owed.get(one.endpoint, 0) + one.count
        for endpoint, count in owed.items():
            log.warning("endpoint.missing", endpoint=endpoint, deliveries=count)
        for watch, count in (await self._views.active()).items():
            if watch not in self._watches:
                log.warning("watch.missing", watch=watch, active_batches=count)

    async def tidy(self) -> None:
        """Let the database refresh its statistics and shorten its log."""
        await self._database.tidy()


def _at_its_border(job: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    async def run() -> None:
        try:
            await job()
        except StoreError as error:
            log.warning("upkeep.failed", job=job.__name__, reason=str(error))
        except asyncio.CancelledError:
            log.debug("upkeep.cancelled", job=job.__name__)  # APScheduler would print a traceback

    return run
