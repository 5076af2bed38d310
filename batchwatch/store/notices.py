"""What replicas tell each other at once, by PostgreSQL's notifications.

Nothing hangs on a notice: whoever misses one finds out all the same, only
later. So a connection that breaks is made anew, and loses nothing.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import msgspec

from batchwatch.domain.batch import BatchId, EndpointName, WatchName
from batchwatch.log import get_logger
from batchwatch.store.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchwatch.clock import Clock
    from batchwatch.store.engine import Database

log = get_logger()

MOST: Final = 1_000  # notices that wait to be told; more are left to be found out
PAUSES: Final = (0.2, 1.0, 5.0, 15.0)  # seconds between two tries to connect; the last for ever


class Owed(msgspec.Struct, frozen=True, tag="owed"):
    """Something was committed that these are owed."""

    endpoints: list[EndpointName]


class LookAt(msgspec.Struct, frozen=True, tag="look"):
    """A hint came that this batch has come to ``claims``; for whoever holds its watch."""

    watch: WatchName
    batch_id: BatchId
    claims: str | None = None  # a status


class PollNow(msgspec.Struct, frozen=True, tag="poll"):
    """Somebody wants the next pass of this watch at once."""

    watch: WatchName


class HeldBack(msgspec.Struct, frozen=True, tag="held"):
    """An endpoint keeps failing: it was found so, or a probe has failed."""

    endpoint: EndpointName
    reason: str
    by: str  # the replica that found it, and probes it


class Resumed(msgspec.Struct, frozen=True, tag="resumed"):
    """An endpoint that was held back has taken something."""

    endpoint: EndpointName
    by: str


class Paused(msgspec.Struct, frozen=True, tag="paused"):
    """An endpoint asked to be left alone for so many seconds."""

    endpoint: EndpointName
    seconds: float
    by: str


Notice = Owed | LookAt | PollNow | HeldBack | Resumed | Paused

_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(Notice)


def written(notice: Notice) -> str:
    """A notice as it travels."""
    return _ENCODER.encode(notice).decode()


class Notices:
    """What this replica tells the others, and hears of them and of itself."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._untold: list[Notice] = []
        self._something = asyncio.Event()
        self._failures = 0  # to listen, in a row

    def tell(self, notice: Notice) -> None:
        """Have the others told, soon and outside of any transaction."""
        if len(self._untold) < MOST:
            self._untold.append(notice)
            self._something.set()

    async def run(self, heard: Callable[[Notice | None], None]) -> None:
        """Hand on what is heard, and tell what is to be told, until cancelled.

        ``None`` comes first on each new connection: until then notices may have been missed.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen(heard), name="notices.listen")
            group.create_task(self._tell(), name="notices.tell")

    async def _tell(self) -> None:
        while True:
            await self._something.wait()
            self._something.clear()
            told, self._untold = self._untold, []
            try:
                await self._database.tell_now([written(one) for one in told])
            except StoreError as error:
                log.debug("notices.untold", count=len(told), reason=str(error))

    async def _listen(self, heard: Callable[[Notice | None], None]) -> None:
        def take(text: str) -> None:
            if self._failures:
                log.info("notices.recovered", failures=self._failures)
            self._failures = 0
            try:
                heard(_DECODER.decode(text) if text else None)
            except msgspec.MsgspecError as error:
                # A replica of another version has a word that this one does not know.
                log.debug("notices.unknown", reason=str(error))

        while True:
            try:
                await self._database.hear(take)
                reason = "the connection was closed"
            except StoreError as error:
                reason = str(error)
            (log.debug if self._failures else log.warning)("notices.missed", reason=reason)
            await self._clock.sleep(PAUSES[min(self._failures, len(PAUSES) - 1)])
            self._failures += 1
