"""How often an address may be wrong, and the word in the log that it was."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_network
from typing import TYPE_CHECKING, Final

from batchwatch.log import get_logger

if TYPE_CHECKING:
    from batchwatch.clock import Clock
    from batchwatch.web.outside import IPAddress

log = get_logger()

AT_ONCE: Final = 5
ONE_MORE_AFTER: Final = 60.0  # seconds
QUIET: Final = 60.0  # seconds between two lines about one address
ADDRESSES: Final = 10_000  # that are remembered: those that were wrong last


@dataclass(slots=True)
class _Record:
    clear_at: float  # when it will be as if it had never been wrong
    told_at: float | None = None
    untold: int = 0


class Attempts:
    """Wrong tokens by address: five at once, then one a minute.

    In IPv6 a /64 counts as one address, for whoever has any has all of it.
    The log has a line named ``event`` for each failure, once a minute for
    each address at most, with how many there were; what was given is in none.
    """

    def __init__(self, event: str, clock: Clock) -> None:
        self._event = event
        self._clock = clock
        self._records: OrderedDict[str, _Record] = OrderedDict()

    def __len__(self) -> int:
        return len(self._records)

    def wait(self, client: IPAddress | None) -> float:
        """Seconds until ``client`` may try again; 0 when it may."""
        record = self._records.get(_who(client))
        if record is None:
            return 0.0
        return max(0.0, record.clear_at - (AT_ONCE - 1) * ONE_MORE_AFTER - self._clock.monotonic())

    def fail(self, client: IPAddress | None) -> None:
        """Count an attempt that was wrong, and say so."""
        who = _who(client)
        now = self._clock.monotonic()
        record = self._records.setdefault(who, _Record(now))
        self._records.move_to_end(who)
        if len(self._records) > ADDRESSES:
            self._records.popitem(last=False)
        # At most as late as if all of them had been just now: who never stops waits no longer.
        record.clear_at = min(
            max(record.clear_at, now) + ONE_MORE_AFTER, now + AT_ONCE * ONE_MORE_AFTER
        )
        record.untold += 1
        if record.told_at is None or now - record.told_at >= QUIET:
            log.warning(self._event, client=who, times=record.untold)
            record.told_at, record.untold = now, 0


def _who(client: IPAddress | None) -> str:
    if isinstance(client, IPv6Address):
        return str(ip_network((client, 64), strict=False))
    return str(client or "unknown")
