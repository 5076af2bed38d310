"""What only the running daemon knows and can do, as the web is given it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncio import Event
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime

    from batchwatch.clock import Clock
    from batchwatch.domain.delivery import Attempt
    from batchwatch.llamacloud.budget import Allowance
    from batchwatch.store import Store
    from batchwatch.store.replicas import Fleet
    from batchwatch.web.health import Troubles


@dataclass(frozen=True, slots=True)
class WatchNow:
    """A watch as its watcher knows it, here or on another replica."""

    name: str
    base_url: str
    project_id: str | None
    organization_id: str | None
    source_directory_id: str | None
    interval: float  # seconds between passes while batches are active
    holder: str | None  # the replica that polls it; None: none does
    silence: float | None  # seconds since its last good poll; None: none is known of
    allowance: Allowance | None
    troubles: Sequence[str]
    takes_hints: bool

    def last_good_poll(self, now: datetime) -> datetime | None:
        """When that was, by the clock that says ``now``."""
        return None if self.silence is None else now - timedelta(seconds=self.silence)


@dataclass(frozen=True, slots=True)
class Live:
    """The store, and the daemon's hands. Each deed returns when it is in the store, or begun."""

    store: Store
    clock: Clock
    started_at: datetime
    stopping: Event  # what lasts, ends
    is_shared: bool  # whether other daemons may use the store
    watches: Callable[[], Awaitable[Sequence[WatchNow]]]
    fleet: Callable[[], Awaitable[Fleet]]
    endpoints: Callable[[], Awaitable[list[dict[str, Any]]]]  # as `Desk.endpoints`, and `trouble`
    troubles: Callable[[], Awaitable[Troubles]]
    replay: Callable[[Sequence[int]], Awaitable[int]]  # how many of these had ended, and go again
    enable: Callable[[str], Awaitable[bool]]  # whether that changed anything
    disable: Callable[[str], Awaitable[bool]]
    test: Callable[[str], Awaitable[Attempt]]  # what the endpoint answered
    poll: Callable[[str], None]  # begins a pass of that watch

    @property
    def listening(self) -> Callable[[], AbstractContextManager[Event]]:
        """See :meth:`~batchwatch.store.Outbox.listening`."""
        return self.store.outbox.listening
