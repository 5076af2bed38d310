"""Wait for batches to end: by the store beside a daemon, or by asking LlamaCloud.

Whoever asks follows the very rules of the daemon, over a store of its own
that is gone afterwards.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec

from batchwatch.domain.batch import BatchId
from batchwatch.domain.routing import Router
from batchwatch.domain.settle import TO_RETRY, Fate
from batchwatch.domain.standing import Ending
from batchwatch.llamacloud.client import can_be_asked
from batchwatch.llamacloud.errors import CloudError
from batchwatch.log import get_logger
from batchwatch.metrics import Metrics
from batchwatch.parts import asking_of, cloud_of, key_source, upstream_session, watch_of
from batchwatch.store import Database, Store, StoreError, Views
from batchwatch.store.file import file_of, holder_of
from batchwatch.store.replicas import Replicas
from batchwatch.store.temporary import opened

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from batchwatch.clock import Clock
    from batchwatch.domain.standing import Standing
    from batchwatch.settings import Settings
    from batchwatch.watching.poller import Poller
    from batchwatch.watching.settler import Settler

log = get_logger()

UNKNOWN_PATIENCE: Final = 30.0  # seconds for which a batch may be unknown, for it is new
STORE_EVERY: Final = 1.0  # seconds between two looks at a daemon's store
SOONEST: Final = 0.2  # seconds between two looks
LOOK_AT_LEAST: Final = 5.0  # seconds that a look is given, however little time is left


class NoSuchBatch(LookupError):
    """No watch can see a batch of this id."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A file that has to be run again, and why."""

    source_directory_file_id: str
    name: str | None  # where the settings ask for names
    fate: str  # failed, cancelled, unmapped, jobless
    error_message: str | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a batch: ``counts`` has its files by their fates."""

    batch_id: str
    status: str | None  # None: it was never seen
    ending: Ending
    counts: Mapping[str, int] = field(default_factory=dict)
    failures: Sequence[Failure] = ()

    @property
    def succeeded(self) -> bool:
        """Whether there is nothing to run again, and nothing that is not known."""
        return self.ending is Ending.SUCCEEDED

    @property
    def retry(self) -> list[str]:
        """The source files to run again, by their ids."""
        return list(dict.fromkeys(one.source_directory_file_id for one in self.failures))

    def as_row(self) -> dict[str, Any]:
        """All of it for JSON."""
        more = {"succeeded": self.succeeded, "retry": self.retry}
        row: dict[str, Any] = msgspec.to_builtins(self)
        return row | more


class Wait:
    """Batches that are waited for, and where each stands.

    With ``settled`` a batch is over when its jobs are; without, when it has
    ended and its files are known. Use it as a context; :meth:`until_over`
    does the rest.
    """

    def __init__(
        self,
        ids: Sequence[str],
        settings: Settings,
        *,
        settled: bool,
        clock: Clock,
        beside: bool = True,
        key_name: str | None = None,
    ) -> None:
        self.standings: dict[BatchId, Standing | None] = dict.fromkeys(map(BatchId, ids))
        self.trouble: str | None = None  # why nothing is heard of some at present
        self._settings = settings
        self._settled = settled
        self._clock = clock
        self._beside = beside  # whether a daemon's store may be looked into
        self._key_name = key_name  # what errors call the key, if not by its variable
        self._stack = AsyncExitStack()
        self._views: dict[BatchId, Views] = {}  # where its files are
        self._alone: list[_Alone] = []
        self._theirs: Database | None = None
        self._began_at = clock.monotonic()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def missing(self) -> list[BatchId]:
        """The batches that are not over."""
        return [
            one
            for one, standing in self.standings.items()
            if standing is None or not standing.is_over(settled=self._settled)
        ]

    async def until_over(
        self, *, patience: float | None, tell: Callable[[Wait], None] = lambda _: None
    ) -> bool:
        """Look until all are over, and call ``tell`` after each look; False if ``patience`` ended.

        A LlamaCloud that does not answer holds the last look for a few
        seconds more at most. Raises :class:`NoSuchBatch`, and
        :class:`CloudError` where asking again would not help.
        """
        deadline = None if patience is None else self._clock.monotonic() + patience
        while True:
            left = None if deadline is None else deadline - self._clock.monotonic()
            limit = asyncio.timeout(None if left is None else max(LOOK_AT_LEAST, left))
            try:
                async with limit:
                    pause = await self._look()
            except TimeoutError:
                if not limit.expired():
                    raise
                self.trouble = "LlamaCloud did not answer in time"
                tell(self)
                return False
            tell(self)
            if not self.missing:
                return True
            if deadline is not None:
                left = deadline - self._clock.monotonic()
                if left <= 0:
                    return False
                pause = min(pause, left)
            await self._clock.sleep(pause)

    async def outcome(self, batch_id: BatchId) -> Outcome:
        """What became of a batch, as far as it was waited for."""
        standing = self.standings[batch_id]
        if standing is None:
            return Outcome(str(batch_id), None, Ending.UNFINISHED)
        [row] = await self._views[batch_id].batch(batch_id, watch=standing.watch)
        failures = [
            Failure(
                source_directory_file_id=one["source_directory_file_id"],
                name=one["name"],
                fate=one["fate"],
                error_message=one["job_error"] or one["error_message"],
            )
            for one in row["files"]
            if one["fate"] in TO_RETRY
        ]
        return Outcome(
            str(batch_id),
            str(standing.status),
            standing.ending(settled=self._settled),
            counts={
                "files": standing.files,
                **{fate.value: standing.fates.get(fate, 0) for fate in Fate},
                "open": standing.fates.get(None, 0),
            },
            failures=failures,
        )

    async def _look(self) -> float:
        """Look where each stands; seconds until the next look."""
        self.trouble = None
        followed = await self._look_beside() if self._beside else set()
        mine = [one for one in self.missing if one not in followed]
        pause = STORE_EVERY if followed else float("inf")
        if mine:
            pause = min(pause, await self._look_alone(mine))
        return max(SOONEST, pause)

    async def _look_beside(self) -> set[BatchId]:
        """Read the daemon's store; which of those that are not over it goes on following."""
        url = self._settings.database_url.get_secret_value()
        try:
            if self._theirs is None:
                self._theirs = await Database.open(url, exclusive=False)
                self._stack.push_async_callback(self._theirs.close)
            views = Views(self._theirs)
            found = await self._standings(views, self.missing, of=self._settings.watches)
            polled = await self._polled(self._theirs)
        except StoreError as error:
            log.debug("store.unread", reason=str(error))  # there is none: nobody else follows them
            return set()
        followed = set()
        for standing in found:
            over = standing.is_over(settled=self._settled)
            if over or (standing.watch in polled and standing.is_followed):
                self.standings[standing.id] = standing
                self._views[standing.id] = views
                if not over:
                    followed.add(standing.id)
        return followed

    async def _polled(self, database: Database) -> Collection[str]:
        """The watches that a daemon polls at present."""
        file = file_of(self._settings.database_url.get_secret_value())
        if file is not None:
            return self._settings.watches if holder_of(file) is not None else ()
        held = await Replicas(database).holdings()
        return {one.watch for one in held if one.holder is not None}

    async def _look_alone(self, ids: Sequence[BatchId]) -> float:
        """Ask LlamaCloud; seconds until that makes sense again."""
        if not self._alone:
            await self._prepare()
        errors: list[CloudError] = []
        pauses = []
        for one in self._alone:
            wanted = [
                batch_id
                for batch_id in ids
                if (standing := self.standings[batch_id]) is None or standing.watch == one.name
            ]
            if not wanted:
                continue
            try:
                pauses.append(await one.look(wanted))
            except CloudError as error:
                errors.append(error)
                pauses.append(max(one.interval, error.retry_after or 0.0))
            for standing in await self._standings(one.views, wanted, of=[one.name]):
                self.standings[standing.id] = standing
                self._views[standing.id] = one.views
        self.trouble = str(errors[0]) if errors else None
        unknown = [one for one in ids if self.standings[one] is None]
        if unknown and not any(error.transient for error in errors):
            self._give_up(unknown[0], errors)
        return min(pauses)

    def _give_up(self, unknown: BatchId, errors: Sequence[CloudError]) -> None:
        """Raise why nobody knows a batch, once there is nobody left from whom to expect it."""
        waited = self._clock.monotonic() - self._began_at
        if len(errors) == len(self._alone) or (errors and waited >= UNKNOWN_PATIENCE):
            raise errors[0]
        if waited >= UNKNOWN_PATIENCE:
            raise NoSuchBatch(
                f"no batch {unknown} is known to LlamaCloud with this key. "
                "Is the id whole, and of the project and region that the key belongs to?"
            )

    async def _standings(
        self, views: Views, ids: Collection[BatchId], *, of: Collection[str]
    ) -> list[Standing]:
        """Where these stand for the watches that are meant, the one to believe last.

        Where two see the same batch it is over when one says so, but for one
        that only lost it.
        """
        found = [one for one in await views.standings(ids) if one.watch in of]
        return sorted(found, key=lambda one: (not one.vanished, one.is_over(settled=self._settled)))

    async def _prepare(self) -> None:
        database = await self._stack.enter_async_context(opened(None))
        store = Store(database, Router(defaults={}), self._clock)
        session = await self._stack.enter_async_context(upstream_session())
        for name, configured in self._settings.watches.items():
            # What had ended before anybody looked is just what is asked for.
            watch = replace(watch_of(name, configured), notify_backlog=True)
            cloud = cloud_of(
                configured,
                key_source=self._key_name or key_source(self._settings, name),
                session=session,
                clock=self._clock,
            )
            poller, settler = asking_of(
                watch, cloud=cloud, store=store, clock=self._clock, metrics=Metrics()
            )
            self._alone.append(_Alone(poller, settler, store.views))


class _Alone:
    """One watch that asks for nothing but the batches that are waited for."""

    def __init__(self, poller: Poller, settler: Settler, views: Views) -> None:
        self.name = poller.watch.name
        self.interval = poller.watch.interval
        self.views = views
        self._poller = poller
        self._settler = settler

    async def look(self, ids: Sequence[BatchId]) -> float:
        """Ask for those that have not ended, and for what is missing of the others.

        Seconds until there is something to ask for again. Raises CloudError.
        """
        known = {one.id: one for one in await self.views.standings(ids)}
        running = [
            one
            for one in ids
            if can_be_asked(one) and (one not in known or not known[one].status.is_terminal)
        ]
        if running:
            (await self._poller.look_at(running)).raise_for_none()
        await self._poller.complete()
        await self._settler.settle()
        pauses = [await self._poller.until_results(), await self._settler.until_settle()]
        return min([self.interval, *(one for one in pauses if one is not None)])
