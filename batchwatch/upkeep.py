"""What must be done from time to time, whether anything happens or not."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from batchwatch.domain.hint import KEPT
from batchwatch.log import get_logger
from batchwatch.store import StoreError
from batchwatch.store.retention import Retention

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from batchwatch.deliver.dispatcher import Dispatcher
    from batchwatch.store import Store

    Job = Callable[[], Awaitable[None]]

log = get_logger()

SOON: Final = 15.0  # seconds from the start to the first run of what others have us do
CLOCK_CHECK: Final = 5.0  # seconds
CLOCK_JUMP: Final = 1.5  # seconds; less is the drift that NTP mends
APART: Final = 0.1  # seconds between two steps that remove what is old
_OWED: Final = ("waiting", "pending", "in_flight", "dead")


class Upkeep:
    """The jobs, and the scheduler that runs them."""

    def __init__(
        self,
        store: Store,
        *,
        dispatcher: Dispatcher,
        endpoints: Collection[str],
        watches: Collection[str],
        retention: timedelta,
        more: Sequence[tuple[float, Job]] = (),
    ) -> None:
        """``more`` are others' jobs: how many seconds apart, and what to do."""
        self._database = store.database
        self._hints = store.hints
        self._retention = Retention(store.database)
        self._kept = retention
        self._views = store.views
        self._dispatcher = dispatcher
        self._endpoints = endpoints
        self._counted = set(endpoints)  # whose gauges there are
        self._watches = watches
        self._more = more
        self._nudges: int | None = None  # the first look reads all again, whatever went before
        self._clock = dispatcher.clock
        self._metrics = dispatcher.metrics
        # A job that is late, for the machine slept, runs once and not once for each time missed.
        self._scheduler = AsyncIOScheduler(
            timezone=UTC,  # intervals need none, and not every valid TZ is one to APScheduler
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )

    def start(self) -> None:
        """Start the jobs."""
        scheduler = self._scheduler
        now = datetime.now(UTC)  # the scheduler's clock is the true one
        at_once, soon = ({"next_run_time": now + timedelta(seconds=one)} for one in (0, SOON))
        for seconds, job, more in (
            (2, self.obey, {}),
            (15, self.count, at_once),
            (5 if self._database.is_shared else 30, self.release, at_once),
            (3600, self.remind, at_once),
            (3600, self.trim, soon),
            (3600, self.tidy, {}),
            *((seconds, job, soon) for seconds, job in self._more),
        ):
            scheduler.add_job(
                _at_its_border(job), "interval", seconds=seconds, name=job.__name__, **more
            )
        scheduler.start()

    def stop(self) -> None:
        """Start no more of them."""
        self._scheduler.shutdown(wait=False)

    async def mind_the_clock(self) -> None:
        """Have all go on when the wall clock, or that of a shared store, is set.

        The scheduler goes by the one; what is due by the other.
        """
        behind = self._clock.steady() - self._clock.now()
        while True:
            await self._clock.sleep(CLOCK_CHECK)
            before, behind = behind, self._clock.steady() - self._clock.now()
            jumped = (before - behind).total_seconds()
            if abs(jumped) >= CLOCK_JUMP:
                log.warning("clock.jumped", seconds=round(jumped, 1))
                for job in self._scheduler.get_jobs():
                    job.modify(next_run_time=datetime.now(UTC))
                if self._database.is_shared:
                    await self._hasten()

    async def _hasten(self) -> None:
        # Not as a job is run: that takes no notice of being cancelled.
        try:
            await self._dispatcher.outbox.hasten()
        except StoreError as error:
            log.warning("upkeep.failed", job="hasten", reason=str(error))

    async def obey(self) -> None:
        """Take note of what a command has changed in the store."""
        nudges = await self._database.nudges()
        if nudges != self._nudges and await self._dispatcher.reload():
            self._nudges = nudges

    async def release(self) -> None:
        """Give back deliveries whose lease is over: whoever held them did not come back."""
        released = await self._dispatcher.release()
        if released:
            log.warning("deliveries.released", count=released)

    async def count(self) -> None:
        """Count what is owed, by endpoint; those that are no longer set are among them."""
        now = self._clock.now()
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

    async def trim(self) -> None:
        """Remove what is older than it is kept, in small steps."""
        all_of_it: Counter[str] = Counter()
        steps = self._retention.remove(now=self._clock.now(), older_than=self._kept)
        try:
            async with aclosing(steps):
                async for removed in steps:
                    for table, rows in removed.items():
                        self._metrics.removed.labels(table).inc(rows)
                        all_of_it[table] += rows
                    await self._clock.sleep(APART)
        finally:
            if all_of_it:
                log.info("rows.removed", **all_of_it)

    async def tidy(self) -> None:
        """Forget old hints; let the database refresh its statistics and shorten its log."""
        before = self._clock.now() - KEPT
        while await self._hints.forget(before=before):
            pass  # in small steps, so that nobody waits long for the store
        await self._database.tidy()


def _at_its_border(job: Job) -> Job:
    failures = 0

    async def run() -> None:
        nonlocal failures
        try:
            await job()
            if failures:
                log.info("upkeep.recovered", job=job.__name__, failures=failures)
            failures = 0
        except StoreError as error:
            tell = log.debug if failures else log.warning
            tell("upkeep.failed", job=job.__name__, reason=str(error))
            failures += 1
        except asyncio.CancelledError:
            log.debug("upkeep.cancelled", job=job.__name__)  # APScheduler would print a traceback

    return run
