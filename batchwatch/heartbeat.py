"""Say that the daemon is alive: an event for those who ask for it, and a ping for a switch.

Who is dead says nothing. So a dead man's switch outside, such as
Healthchecks.io, expects a ping now and then and raises its alarm without one.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from batchwatch import __version__
from batchwatch.domain.batch import EndpointName
from batchwatch.domain.event import heartbeat_event, rfc3339
from batchwatch.domain.health import Record
from batchwatch.log import get_logger
from batchwatch.store import StoreError

if TYPE_CHECKING:
    from collections.abc import Collection

    from batchwatch.deliver.dispatcher import Dispatcher
    from batchwatch.deliver.sender import Sender
    from batchwatch.domain.payload import DaemonData, EndpointPulse, WatchPulse
    from batchwatch.store import Endpoints, Views, Watches
    from batchwatch.watching.roster import Roster

log = get_logger()

TICK: Final = 60.0  # seconds; a heartbeat is that late at most
PING_SECONDS: Final = 10.0  # for one ping in all
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Heartbeat:
    """Makes ``daemon.heartbeat``, one for each slot of ``interval`` seconds."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        *,
        views: Views,
        records: Endpoints,
        roster: Roster,
        endpoints: Collection[str],
        interval: float,
    ) -> None:
        self._outbox = dispatcher.outbox
        self._clock = dispatcher.clock
        self._views = views
        self._records = records
        self._roster = roster
        self._endpoints = endpoints
        self._interval = timedelta(seconds=interval)
        self._started_at = self._clock.now()
        self._began = self._clock.monotonic()
        self._slot: datetime | None = None  # that was told

    async def beat(self) -> None:
        """Make one, if it is time for it and a route sends it to anybody.

        Endpoints that are still owed one are left out: a heartbeat of
        yesterday is no news, and a dead endpoint must not gather them.
        """
        now = self._clock.now()
        slot = _EPOCH + (now - _EPOCH) // self._interval * self._interval
        if slot == self._slot:
            return
        watches = await self._views.watches()
        # By that, two daemons that tell the same receiver are not taken for one.
        store = rfc3339(min((row["started_at"] for row in watches), default=_EPOCH))
        event = heartbeat_event(await self._data(now), slot=slot, store=store, occurred_at=now)
        await self._outbox.announce(event)
        self._slot = slot

    async def _data(self, now: datetime) -> DaemonData:
        return {
            "version": __version__,
            "started_at": rfc3339(self._started_at),
            "observed_at": rfc3339(now),
            "uptime": round(self._clock.monotonic() - self._began, 3),
            "watches": await self._watches(now),
            "endpoints": await self._owed(),
        }

    async def _watches(self, now: datetime) -> list[WatchPulse]:
        active = await self._views.active()
        pulses: list[WatchPulse] = []
        for one in await self._roster.watched():
            silence = one.health.silence
            pulses.append({
                "watch": one.watch.name,
                "last_good_poll": (
                    None if silence is None else rfc3339(now - timedelta(seconds=silence))
                ),
                "active_batches": active.get(one.watch.name, 0),
                "failing": "; ".join(one.health.troubles) or None,
            })  # fmt: skip
        return pulses

    async def _owed(self) -> list[EndpointPulse]:
        records = await self._records.records()
        depths = await self._views.outbox()
        pulses: list[EndpointPulse] = []
        for name in self._endpoints:
            of_it = [one for one in depths if one.endpoint == name]
            dead = sum(one.count for one in of_it if one.state == "dead")
            pulses.append({
                "endpoint": name,
                "state": records.get(EndpointName(name), Record(EndpointName(name))).state,
                "owed": sum(one.count for one in of_it) - dead,
                "dead": dead,
            })  # fmt: skip
        return pulses


class Pinger:
    """Asks for the URL of a dead man's switch, as long as the work is done.

    That is: the watches go round, here or on another replica, and the store
    takes what is written. An outage of LlamaCloud is no reason to stop: it has
    an alarm of its own. Nor is a replica that died, as long as others go on.
    """

    def __init__(
        self,
        url: str | None,
        *,
        sender: Sender,
        dispatcher: Dispatcher,
        watches: Watches,
        roster: Roster,
    ) -> None:
        self._url = url  # a secret: whoever has it can keep the switch from its alarm
        self._sender = sender
        self._dispatcher = dispatcher
        self._watches = watches
        self._roster = roster
        self.trouble: str | None = None  # why the last one did not arrive, if it did not

    async def ping(self) -> None:
        """Send one, or withhold it; the first of a row that does not arrive is told."""
        if self._url is None:
            return
        outcome, reason = "withheld", await self._unwell()
        if reason is None:
            attempt = await self._sender.post(
                self._url, b"", {}, timeout=PING_SECONDS, method="GET"
            )
            outcome, reason = attempt.failure or "ok", attempt.detail
        self._dispatcher.metrics.pings.labels(outcome).inc()
        if outcome == "ok":
            if self.trouble is not None:
                log.info("heartbeat.recovered", was=self.trouble)
            self.trouble = None
            return
        (log.warning if self.trouble is None else log.debug)(
            "heartbeat.missed", outcome=outcome, reason=reason
        )
        self.trouble = f"{outcome}: {reason}"

    async def _unwell(self) -> str | None:
        try:
            await self._watches.touch()
            watched = await self._roster.watched()
        except StoreError as error:
            return str(error)
        stalled = [one.watch.name for one in watched if one.health.is_stalled or one.is_orphaned]
        if stalled:
            return f"no longer going round: {', '.join(stalled)}"
        return self._dispatcher.store_trouble
