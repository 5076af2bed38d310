"""All watches that are set, whoever polls them: ours as they are, others' as they were said."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import msgspec

from batchwatch.store.replicas import Fleet
from batchwatch.watching.health import WatchHealth

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from batchwatch.clock import Clock
    from batchwatch.domain.batch import WatchName
    from batchwatch.domain.watch import Watch
    from batchwatch.store.replicas import Holding, Replica, Replicas
    from batchwatch.watching.watcher import Watcher

TAKEOVER: Final = timedelta(seconds=5)  # that it may take beyond the life of a lease


@dataclass(frozen=True, slots=True)
class Watched:
    """A watch, who polls it, and how that goes."""

    watch: Watch
    holder: str | None  # a replica; None: nobody polls it
    is_ours: bool
    health: WatchHealth
    is_orphaned: bool = False  # nobody polls it, for longer than a takeover takes

    @property
    def trouble_here(self) -> str | None:
        """Why it is not well, if it is this replica that should see to that."""
        return "; ".join(self.health.troubles) or None if self.is_ours else None

    @property
    def trouble_elsewhere(self) -> str | None:
        """The same of what another polls, or nobody where somebody should by now.

        That is to be told by all, and is no reason to take any out of
        service: it would mend nothing.
        """
        if self.is_ours or not (self.holder or self.is_orphaned):
            return None
        why = "; ".join(self.health.troubles) or None
        return f"{why} ({self.holder} polls it)" if why and self.holder else why


class Roster:
    """Who polls what; on the store of one daemon that is the daemon itself."""

    def __init__(
        self,
        watches: Sequence[Watch],
        *,
        watchers: Sequence[Watcher],
        this: Replica,
        replicas: Replicas,
        clock: Clock,
    ) -> None:
        """``watchers`` are those of what is polled from here, at each moment."""
        self._watches = watches
        self._watchers = watchers
        self._this = this
        self._replicas = replicas
        self._clock = clock
        self._began_at = clock.monotonic()

    def ours(self) -> list[Watched]:
        """What is polled from here."""
        return [
            Watched(one.watch, self._this.id, is_ours=True, health=one.health)
            for one in self._watchers
        ]

    async def watched(self) -> list[Watched]:
        """Every watch that is set here, in that order. Raises StoreError."""
        ours = {one.watch.name: one for one in self.ours()}
        held: Mapping[WatchName, Holding] = {}
        if self._replicas.is_shared and len(ours) < len(self._watches):
            held = {one.watch: one for one in await self._replicas.holdings()}
        return [
            ours.get(one.name) or self._elsewhere(one, held.get(one.name)) for one in self._watches
        ]

    async def fleet(self) -> Fleet:
        """Who there is. Raises StoreError."""
        if self._replicas.is_shared:
            return await self._replicas.fleet()
        in_flight = sum((await self._replicas.in_flight()).values())
        now = self._clock.now()
        return Fleet(now, [replace(self._this, seen_at=now, in_flight=in_flight)], {})

    def _elsewhere(self, watch: Watch, held: Holding | None) -> Watched:
        patience = self._replicas.life + TAKEOVER
        if held is None:
            free = timedelta(seconds=self._clock.monotonic() - self._began_at)
            health = WatchHealth(troubles=("nobody has polled it yet",))
            return Watched(watch, None, is_ours=False, health=health, is_orphaned=free > patience)
        health = health_of(held)
        if held.holder is None:
            since = f"{held.held_until:%Y-%m-%d %H:%M:%S}"
            health = WatchHealth(health.silence, troubles=(f"nobody polls it since {since} UTC",))
        return Watched(
            watch,
            held.holder,
            is_ours=False,
            health=health,
            is_orphaned=held.holder is None and held.now - held.held_until > patience,
        )


def health_of(held: Holding) -> WatchHealth:
    """How a watch goes, by what its holder said last, and by the time since.

    Nothing is known of one that has said nothing yet, or is of a version that
    does not; what was said before it came was of another.
    """
    health = WatchHealth.read(held.said)
    if health is None or held.said_at is None or held.said_at < held.taken_at:
        return WatchHealth()
    if health.silence is None:
        return health
    silence = health.silence + (held.now - held.said_at).total_seconds()
    return msgspec.structs.replace(health, silence=silence)
