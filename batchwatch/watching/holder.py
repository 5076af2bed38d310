"""Which watches are polled from here: all of them, or this replica's share, by leases."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Final

from batchwatch.domain.batch import Status
from batchwatch.log import get_logger
from batchwatch.store import StoreError
from batchwatch.store.leases import RENEWALS
from batchwatch.store.notices import LookAt, PollNow

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from batchwatch.clock import Clock
    from batchwatch.domain.batch import BatchId, WatchName
    from batchwatch.metrics import Metrics
    from batchwatch.store.leases import Leases
    from batchwatch.watching.watcher import Watcher

log = get_logger()

LOOK: Final = 1.0  # seconds between two looks at what is free; a takeover is that late at most
PEACE: Final = 2.0  # seconds that a pass may take to its end, where it is to be the last
UNWANTED: Final = 5.0  # seconds that a watch is free until it is taken beyond our share


class Holder:
    """Runs the watches that this replica holds; alone with its database, that is every one."""

    def __init__(
        self,
        watches: Mapping[WatchName, Callable[[], Watcher]],
        *,
        leases: Leases | None,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        """``watches`` make what polls each: anew for each time that it is held.

        What it remembered would be older than what another has recorded since.
        """
        self._watches = watches
        self._leases = leases
        self._clock = clock
        self._metrics = metrics
        self._held: dict[WatchName, int] = {}  # with their tokens
        self._running: dict[WatchName, tuple[Watcher, asyncio.Task[None], asyncio.Event]] = {}
        self._renewed_at = -math.inf  # monotonic
        self._alive = 0  # replicas, when they were counted last
        self._free_since: dict[WatchName, float] = {}  # monotonic
        self._unwanted: set[WatchName] = set()  # held beyond our share, for nobody else came
        # Of what is held, in the order of the settings.
        self.watchers = [] if leases else [make() for make in watches.values()]
        self.trouble: str | None = None  # why it is not known what is held, if it is not
        metrics.replicas.set(1)
        for name in watches if leases else ():
            metrics.polls_elsewhere(name)

    async def run(self, stop: asyncio.Event) -> None:
        """Poll what is held until ``stop``, or until cancelled; then give it back."""
        async with asyncio.TaskGroup() as group:
            try:
                if self._leases is None:
                    for name in self._watches:
                        self._start(group, name)
                    await stop.wait()
                    return
                while not stop.is_set():
                    try:
                        await self._turn(group, self._leases)
                        if self.trouble:
                            log.info("leases.recovered")
                        self.trouble = None
                    except StoreError as error:
                        await self._lose_sight(error)
                    await self._clock.wait(stop, LOOK)
            finally:
                await self._end(*self._running, in_peace=True)
                if self._leases is not None:
                    await self._give_back(list(self._held), self._leases.retire())

    def want(self, name: WatchName, batch_id: BatchId, claims: Status | None) -> None:
        """Have a batch looked at, of which a hint came: here, or where its watch is polled."""
        if name not in self._running and self._leases is not None:
            self._leases.notices.tell(LookAt(name, batch_id, claims))
        self._look_at(name, batch_id, claims)

    def poll_now(self, name: WatchName) -> None:
        """Have a watch polled at once: here, or where it is."""
        if name not in self._running and self._leases is not None:
            self._leases.notices.tell(PollNow(name))
        self._poll(name)

    def heard(self, notice: LookAt | PollNow) -> None:
        """Do what another replica was asked for, if this one holds the watch."""
        if isinstance(notice, PollNow):
            self._poll(notice.watch)
        else:
            claims = None if notice.claims is None else Status(notice.claims)
            self._look_at(notice.watch, notice.batch_id, claims)

    def _look_at(self, name: WatchName, batch_id: BatchId, claims: Status | None) -> None:
        for watcher in self.watchers:
            if watcher.watch.name == name and watcher.follower is not None:
                watcher.follower.want(batch_id, claims)

    def _poll(self, name: WatchName) -> None:
        for watcher in self.watchers:
            if watcher.watch.name == name:
                watcher.poll_now()

    async def _turn(self, group: asyncio.TaskGroup, leases: Leases) -> None:
        """Renew what is held when it is time for it, and take what is free, up to our share."""
        life = leases.life.total_seconds()
        now = self._clock.monotonic()
        if now - self._renewed_at >= life / RENEWALS:
            await self._take(group, leases, list(self._held))
            self._renewed_at = now
        # Counted each time: the share of one that is gone is free as soon as what it held is.
        alive = await leases.count()
        self._metrics.replicas.set(alive)
        if alive > self._alive:
            self._unwanted.clear()  # whoever has come may want some
        self._alive = alive
        share = math.ceil(len(self._watches) / alive)
        self._unwanted &= self._held.keys()
        counted = [name for name in self._held if name not in self._unwanted]
        if spare := counted[share:]:
            await self._end(*spare, in_peace=True)
            await self._give_back(spare, leases.give_back(spare))
            self._free_since = {}  # whoever is to have them has all the time for it
        elif names := await self._free(leases, share - len(counted)):
            await self._take(group, leases, [*self._held, *names])

    async def _free(self, leases: Leases, room: int) -> list[WatchName]:
        """What is free and to be taken: as many as there is ``room`` for, and what nobody takes.

        Others may have other settings, as while a watch is added to one
        replica after another, and leave watches to nobody.
        """
        others = [name for name in self._watches if name not in self._held]
        free = await leases.free(others) if others else []
        now = self._clock.monotonic()
        self._free_since = {name: self._free_since.get(name, now) for name in free}
        ours = free[: max(0, room)]
        left = {name for name in free if now - self._free_since[name] >= UNWANTED} - set(ours)
        self._unwanted |= left
        return [*ours, *left]

    async def _take(
        self,
        group: asyncio.TaskGroup,
        leases: Leases,
        names: list[WatchName],
    ) -> None:
        if not names:
            return
        said = {name: one.health.written() for name, (one, *_) in self._running.items()}
        taken = await leases.take(names, said)
        for name in [one for one, token in self._held.items() if taken.get(one) != token]:
            log.warning("watch.lost", watch=name)
            await self._end(name)
            del self._held[name]
        for name, token in taken.items():
            if name not in self._held:
                log.info("watch.taken", watch=name, token=token)
                self._held[name] = token
                self._start(group, name)

    async def _lose_sight(self, error: StoreError) -> None:
        """The store cannot be asked: what cannot be renewed in time is no longer polled."""
        (log.debug if self.trouble else log.error)("leases.unread", reason=str(error))
        self.trouble = str(error)
        assert self._leases is not None  # noqa: S101  # without, nothing is asked
        if self._clock.monotonic() - self._renewed_at > self._leases.life.total_seconds():
            for name in self._held:
                log.warning("watch.lost", watch=name)
            await self._end(*self._held)
            self._held.clear()

    async def _give_back(self, names: list[WatchName], giving: Awaitable[None]) -> None:
        for name in names:
            self._held.pop(name, None)
        try:
            await giving
        except StoreError as error:
            log.warning("leases.kept", watches=names, reason=str(error))  # they end by themselves
        else:
            log.info("watch.given_back", watches=names)

    def _start(self, group: asyncio.TaskGroup, name: WatchName) -> None:
        watcher, ending = self._made(name), asyncio.Event()
        task = group.create_task(watcher.run(ending), name=f"watch.{name}")
        self._running[name] = (watcher, task, ending)
        self._metrics.polls_from_here(name)
        self._show()

    def _made(self, name: WatchName) -> Watcher:
        alone = [one for one in self.watchers if self._leases is None and one.watch.name == name]
        return alone[0] if alone else self._watches[name]()

    async def _end(self, *names: WatchName, in_peace: bool = False) -> None:
        """End their polling, at any moment: all that they saw is in the store, or seen again.

        But for what was shown and is over by then; so where there is time, an
        answer that is just coming in is recorded first.
        """
        ending = [self._running[name] for name in names if name in self._running]
        for _, _, end in ending if in_peace else ():
            end.set()
        tasks = [task for _, task, _ in ending]
        if in_peace and tasks:
            await asyncio.wait(tasks, timeout=PEACE)
        for name in names:
            self._running.pop(name, None)
            if self._leases is not None:
                self._metrics.polls_elsewhere(name)
        self._show()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _show(self) -> None:
        if self._leases is not None:
            self.watchers[:] = [
                self._running[name][0] for name in self._watches if name in self._running
            ]
