"""Hear what other replicas have committed: PostgreSQL's notifications.

Whoever misses one looks all the same, only later; so a connection that
breaks is made anew, and loses nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from batchwatch.domain.batch import EndpointName
from batchwatch.log import get_logger
from batchwatch.store.errors import StoreError

if TYPE_CHECKING:
    from batchwatch.clock import Clock
    from batchwatch.store.engine import Database
    from batchwatch.store.outbox import Outbox

log = get_logger()

PAUSES: Final = (0.2, 1.0, 5.0, 15.0)  # seconds between two tries to connect; the last for ever
_NAMES: Final = msgspec.json.Decoder(list[str])


async def heed(database: Database, outbox: Outbox, clock: Clock) -> None:
    """Wake whoever delivers for what others have committed, until cancelled; not with SQLite."""
    if database.dialect == "sqlite":
        return
    failures = 0

    def heard(text: str) -> None:
        nonlocal failures
        if failures:
            log.info("notices.recovered", failures=failures)
        failures = 0
        if not text:
            outbox.signal_all()
            return
        outbox.heard(EndpointName(name) for name in _NAMES.decode(text))

    while True:
        try:
            await database.hear(heard)
            reason = "the connection was closed"
        except StoreError as error:
            reason = str(error)
        (log.debug if failures else log.warning)("notices.missed", reason=reason)
        await clock.sleep(PAUSES[min(failures, len(PAUSES) - 1)])
        failures += 1
