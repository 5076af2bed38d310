"""That the daemon is alive: told to those who ask, and to a switch outside that misses it."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import structlog
from aiohttp import web

from batchwatch.deliver.connections import Connections
from batchwatch.deliver.dispatcher import Dispatcher
from batchwatch.deliver.guard import Guard
from batchwatch.domain.batch import EndpointName
from batchwatch.domain.delivery import Attempt, Failure, Settled, State
from batchwatch.domain.event import DAEMON_HEARTBEAT
from batchwatch.domain.routing import Router
from batchwatch.heartbeat import Heartbeat, Pinger
from batchwatch.metrics import Metrics
from batchwatch.simulator import Simulator, Switch
from batchwatch.store import Database, Endpoints, Outbox, Store, Views, Watches
from batchwatch.store.errors import StoreFull
from batchwatch.watching.roster import Roster
from tests.support.builders import WATCH, a_replica, at
from tests.support.clock import ManualClock
from tests.support.daemon import environment, running
from tests.support.receiver import Answer, Receiver, says

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

HOOK, OTHER = EndpointName("hook"), EndpointName("other")
HOUR = 3_600.0
PATH = "/ping/5f3c-s3cret-path"


@dataclass(frozen=True)
class Parts:
    """A store with one watch, and who sends what it owes."""

    clock: ManualClock
    outbox: Outbox
    views: Views
    watches: Watches
    dispatcher: Dispatcher
    records: Endpoints
    roster: Roster

    def heartbeat(self) -> Heartbeat:
        """As a daemon makes it when it starts."""
        return Heartbeat(
            self.dispatcher,
            views=self.views,
            records=self.records,
            roster=self.roster,
            endpoints=[HOOK],
            interval=HOUR,
        )

    async def told(self, endpoint: EndpointName = HOOK) -> list[str]:
        """Take what is owed; the id of each."""
        claimed = await self.outbox.claim(endpoint, limit=99)
        attempt = Attempt(self.clock.now(), 0.0)
        await self.outbox.settle([Settled(one, attempt, State.DELIVERED) for one in claimed])
        return [one.event_id for one in claimed]


@asynccontextmanager
async def opened(folder: Path, *heard_by: EndpointName) -> AsyncIterator[Parts]:
    """The store in ``folder``, and who is sent heartbeats."""
    clock, metrics = ManualClock(), Metrics()
    database = await Database.open(f"sqlite+aiosqlite:///{folder}/batchwatch.db")
    defaults = {one: frozenset({DAEMON_HEARTBEAT}) for one in heard_by}
    store = Store(database, Router(defaults), clock)
    await store.watches.begin(WATCH, now=at(0))
    dispatcher = Dispatcher(store.outbox, [], records=store.endpoints, clock=clock, metrics=metrics)
    roster = Roster([], watchers=[], this=a_replica(), replicas=store.replicas, clock=clock)
    yield Parts(
        clock, store.outbox, store.views, store.watches, dispatcher, store.endpoints, roster
    )
    await database.close()


async def test_there_is_one_for_each_slot_of_time_however_often_it_starts(tmp_path: Path) -> None:
    """The same slot has the same id, and a receiver that deduplicates sees it once."""
    async with opened(tmp_path, HOOK) as parts:
        beats = parts.heartbeat()
        for _ in range(3):
            await beats.beat()
            parts.clock.advance(60)
        (first,) = await parts.told()
        await parts.heartbeat().beat()
        assert [] == await parts.told()
        parts.clock.advance(HOUR)
        await beats.beat()
        (second,) = await parts.told()

    assert first != second


async def test_what_nobody_asked_for_is_not_even_written(tmp_path: Path) -> None:
    """A store must not fill with what goes to no one."""
    async with opened(tmp_path) as parts:
        await parts.heartbeat().beat()
        async with parts.views._database.read() as connection:  # noqa: SLF001  # no view shows it
            count = (await connection.exec_driver_sql("SELECT count(*) FROM events")).scalar_one()

    assert 0 == count


async def test_an_endpoint_that_takes_nothing_is_owed_one_and_no_more(tmp_path: Path) -> None:
    """Days of them would be no news to anybody; the others are told all the same."""
    async with opened(tmp_path, HOOK, OTHER) as parts:
        heard = []
        beats = parts.heartbeat()
        for _ in range(5):
            await beats.beat()
            heard += await parts.told(OTHER)
            parts.clock.advance(HOUR)
        depths = {one.endpoint: one.count for one in await parts.views.outbox()}

        assert (5, {HOOK: 1}) == (len(set(heard)), depths)
        assert heard[:1] == await parts.told()
        await beats.beat()
        assert 1 == len(await parts.told())


async def test_two_daemons_that_tell_one_receiver_are_two(tmp_path: Path) -> None:
    """Each has a store of its own, and a slot of time of both has two ids."""
    ids = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        async with opened(tmp_path / name, HOOK) as parts:
            if name == "other":
                await parts.watches.begin(WATCH, now=at(1), scope={"base_url": "a"})
                await parts.watches.begin(WATCH, now=at(1), scope={"base_url": "b"})
            await parts.heartbeat().beat()
            ids += await parts.told()

    assert 2 == len(set(ids))


@asynccontextmanager
async def switch(parts: Parts, receiver: Receiver) -> AsyncIterator[Pinger]:
    """What pings the receiver as a dead man's switch."""
    async with Connections(parts.clock) as connections:
        yield Pinger(
            f"{receiver.url}{PATH}",
            sender=connections.sender(Guard()),
            dispatcher=parts.dispatcher,
            watches=parts.watches,
            roster=parts.roster,
        )


def counted(parts: Parts, outcome: str) -> float | None:
    return parts.dispatcher.metrics.registry.get_sample_value(
        "batchwatch_heartbeat_pings_total", {"outcome": outcome}
    )


async def test_a_ping_is_a_get_without_a_word(tmp_path: Path) -> None:
    """What such switches expect."""
    async with (
        opened(tmp_path) as parts,
        Receiver() as receiver,
        switch(parts, receiver) as pinger,
    ):
        await pinger.ping()

    (got,) = receiver.received
    assert ("GET", PATH, b"") == (got.method, got.path, got.body)
    assert (1, None) == (counted(parts, "ok"), pinger.trouble)


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (says(404, PATH), Failure.CLIENT_ERROR),
        (says(302, Location="/elsewhere"), Failure.REDIRECT),
    ],
)
async def test_a_switch_that_does_not_answer_well_is_told_once(
    tmp_path: Path, answer: Answer, failure: Failure
) -> None:
    """Without its secret path, which it may repeat; and the recovery is told."""
    async with opened(tmp_path) as parts, Receiver() as receiver:
        receiver.answers = [answer, answer]
        async with switch(parts, receiver) as pinger:
            with structlog.testing.capture_logs() as logs:
                await pinger.ping()
                await pinger.ping()
                trouble = pinger.trouble
                await pinger.ping()

    told = [(one["log_level"], one["event"]) for one in logs]
    assert [
        ("warning", "heartbeat.missed"),
        ("debug", "heartbeat.missed"),
        ("info", "heartbeat.recovered"),
    ] == told
    assert trouble is not None
    assert failure in trouble
    assert "s3cret" not in f"{logs} {trouble}"
    assert (2, 1) == (counted(parts, failure), counted(parts, "ok"))
    assert not receiver.on("/elsewhere")


async def test_a_store_that_takes_nothing_lets_the_switch_go_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No ping is sent: its absence is the alarm."""

    async def full(_self: Watches) -> None:
        raise StoreFull("the disk is full: make room on it")

    async with (
        opened(tmp_path) as parts,
        Receiver() as receiver,
        switch(parts, receiver) as pinger,
    ):
        with monkeypatch.context() as patch:
            patch.setattr(Watches, "touch", full)
            await pinger.ping()
            assert "the disk is full" in str(pinger.trouble)
            assert [] == receiver.received
        await pinger.ping()

    assert (1, 1) == (counted(parts, "withheld"), counted(parts, "ok"))
    assert "None" == str(pinger.trouble)


async def test_a_store_that_is_looked_at_is_what_it_was(tmp_path: Path) -> None:
    """The write that proves it changes nothing."""
    async with opened(tmp_path) as parts:
        before = await parts.views.watches()
        await parts.watches.touch()

        assert before == await parts.views.watches()


async def test_a_daemon_tells_how_its_watches_and_endpoints_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a route, and to the switch; an outage of LlamaCloud stops neither."""
    monkeypatch.setattr("batchwatch.upkeep.SOON", 0.0)
    async with Simulator() as sim, Receiver() as receiver:
        sim.faults.switch_on(Switch(kind="status", status=500, probability=1))
        environ = environment(
            sim,
            receiver,
            tmp_path,
            BATCHWATCH_HEARTBEAT_URL=f"{receiver.url}{PATH}",
            BATCHWATCH_ROUTES__ALL__EVENTS="daemon.heartbeat",
            BATCHWATCH_ROUTES__ALL__ENDPOINTS="hook",
        )
        async with running(environ):
            await receiver.until(lambda got: {"/hook", PATH} <= {one.path for one in got})

    (told,) = receiver.on("/hook")
    data = told.event["data"]
    assert "daemon.heartbeat" == told.event["type"]
    (watch,) = data["watches"]
    assert ("default", None, 0) == (
        watch["watch"],
        watch["last_good_poll"],
        watch["active_batches"],
    )
    assert watch["failing"]
    assert [{"endpoint": "hook", "state": "well", "owed": 0, "dead": 0}] == data["endpoints"]
    assert data["started_at"] <= data["observed_at"]


async def test_a_switch_that_cannot_be_reached_is_in_readyz_and_never_grave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon is ready all the same."""
    import aiohttp  # noqa: PLC0415

    monkeypatch.setattr("batchwatch.upkeep.SOON", 0.0)
    async with Simulator() as sim, Receiver() as receiver:

        async def refuse(request: web.Request) -> web.Response:
            return web.Response(status=500 if request.path == PATH else 204)

        receiver.always = refuse
        environ = environment(
            sim, receiver, tmp_path, BATCHWATCH_HEARTBEAT_URL=f"{receiver.url}{PATH}"
        )
        with structlog.testing.capture_logs() as logs:
            async with running(environ), aiohttp.ClientSession() as session:
                await receiver.until(lambda got: PATH in {one.path for one in got})
                await sim.asked(3)
                (listen,) = [one["listen"] for one in logs if one["event"] == "daemon.started"]
                found: dict[str, object] = {}
                while "heartbeat" not in found:
                    async with session.get(f"{listen}/readyz") as answer:
                        status, text = answer.status, await answer.text()
                        found = json.loads(text)["troubles"]

    assert (200, {"heartbeat": "server_error: HTTP 500"}) == (status, found)
