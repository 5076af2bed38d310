"""Several daemons on one PostgreSQL, as each of them shows them all."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import sqlalchemy as sa
from aiohttp.test_utils import unused_port

from batchwatch.clock import Clock
from batchwatch.deliver.connections import Connections
from batchwatch.deliver.dispatcher import Dispatcher
from batchwatch.deliver.guard import Guard
from batchwatch.domain.batch import EndpointName, WatchName
from batchwatch.domain.event import DAEMON_HEARTBEAT
from batchwatch.domain.routing import Router
from batchwatch.domain.watch import Watch
from batchwatch.heartbeat import Heartbeat, Pinger
from batchwatch.metrics import Metrics
from batchwatch.settings import load
from batchwatch.simulator import Simulator, a_life
from batchwatch.store import Database, Store
from batchwatch.store.leases import Leases
from batchwatch.store.schema import events, leases
from batchwatch.waiting import Wait
from batchwatch.watching.health import WatchHealth
from batchwatch.watching.roster import TAKEOVER, Roster
from batchwatch.web import feed
from tests.support.builders import a_replica, at
from tests.support.clock import FastClock, ManualClock
from tests.support.daemon import ROOT, environment, running
from tests.support.postgres import a_database
from tests.support.receiver import Receiver
from tests.unit.commands import called

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path


HOOK = EndpointName("hook")
ONE, TWO = WatchName("one"), WatchName("two")
SPEED = 5.0  # so that who joins is noticed within a second
HELD = "batchwatch_watch_held"
LAST = "batchwatch_last_good_poll_timestamp_seconds"


@pytest.fixture
async def shared(postgres: str) -> AsyncIterator[str]:
    async for url in a_database(postgres, made=True):
        yield url


# ------------------------------------------------------------------------------ two daemons


class Replica:
    """A daemon, asked over HTTP."""

    def __init__(self, environ: dict[str, str], http: aiohttp.ClientSession) -> None:
        self.environ = environ
        self._http = http

    async def got(self, path: str) -> Any:
        async with self._http.get(f"/api/v1{path}") as answer:
            assert 200 == answer.status, await answer.text()
            return await answer.json()

    async def until(self, ask: Callable[[], Awaitable[Any]], enough: Callable[[Any], bool]) -> Any:
        """Ask now and then, as its pages do, until the answer is enough."""
        async with self._http.get("/live") as ticks:
            while not enough(answer := await ask()):
                await ticks.content.readuntil(b"data: changed")
        return answer

    async def holders(self) -> dict[str, str | None]:
        return {one["watch"]: one["holder"] for one in (await self.got("/replicas"))["watches"]}

    async def ready(self) -> tuple[int, dict[str, str]]:
        async with self._http.get("/readyz") as answer:
            return answer.status, (await answer.json())["troubles"]

    async def samples(self, metric: str) -> dict[str, float]:
        """By their watches."""
        async with self._http.get("/metrics") as answer:
            lines = (await answer.text()).splitlines()
        found = (line.rpartition(" ") for line in lines if line.startswith(f"{metric}{{"))
        return {labels.split('"')[1]: float(value) for labels, _, value in found}


@asynccontextmanager
async def a_replica_of(
    sim: Simulator, receiver: Receiver, folder: Path, shared: str
) -> AsyncIterator[Replica]:
    """One more daemon, with two watches."""
    port = unused_port()
    environ = environment(
        sim,
        receiver,
        folder,
        BATCHWATCH_DATABASE_URL=shared,
        BATCHWATCH_LISTEN=f"127.0.0.1:{port}",
        BATCHWATCH_WATCHES__OTHER__REQUESTS_PER_MINUTE="60000",
    )
    async with (
        running(environ, clock=FastClock(SPEED)),
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http,
    ):
        yield Replica(environ, http)


async def said_beside(environ: dict[str, str], *command: str) -> tuple[int | None, str]:
    """The exit code of a command in a process of its own, and what it said."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "batchwatch", *command),
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environ},
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    return process.returncode, said.decode()


def is_all_known(watches: list[dict[str, Any]]) -> bool:
    return all(one["last_good_poll"] and one["budget"] and not one["troubles"] for one in watches)


def steady(found: dict[str, Any]) -> dict[str, Any]:
    """What is told of replicas, without that which moves by itself."""
    moving = {"seen_at", "in_flight", "held_until", "last_good_poll"}
    return {
        "shared": found["shared"],
        **{
            part: [
                dict.fromkeys(one, "moves") | {k: v for k, v in one.items() if k not in moving}
                for one in found[part]
            ]
            for part in ("replicas", "watches")
        },
    }


async def test_each_replica_shows_every_watch_and_who_polls_it(
    tmp_path: Path, shared: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the API, to the command line and in metrics; and what one loses it no longer claims."""
    monkeypatch.setattr(feed, "QUIET", 1.0)
    async with Simulator(scenario="calm", seed=1) as sim, Receiver() as receiver:
        async with a_replica_of(sim, receiver, tmp_path, shared) as first:
            await sim.asked(1)  # it serves by then
            await first.until(
                lambda: first.samples(LAST), lambda found: all(found.values()) and len(found) > 1
            )
            async with a_replica_of(sim, receiver, tmp_path, shared) as second:
                both = (first, second)
                shares = await first.until(
                    first.holders,
                    lambda found: None not in found.values() and len(set(found.values())) > 1,
                )
                assert shares == await second.holders()
                seen = [await one.until(partial(one.got, "/watches"), is_all_known) for one in both]
                assert [shares] * 2 == [
                    {one["name"]: one["holder"] for one in found} for found in seen
                ]
                assert [(200, {})] * 2 == [await one.ready() for one in both]

                held = [await one.samples(HELD) for one in both]
                assert {"default": 1.0, "other": 1.0} == {
                    name: held[0][name] + held[1][name] for name in shares
                }
                for of, replica in zip(held, both, strict=True):
                    mine = {name for name, value in of.items() if value}
                    for metric in (LAST, "batchwatch_budget_requests", "batchwatch_stuck_batches"):
                        assert mine == set(await replica.samples(metric)), metric

                code, said = await said_beside(first.environ, "replicas")
                assert 0 == code
                for watch, holder in shares.items():
                    assert re.search(rf"^{watch} +{holder} .* ago +in ", said, re.MULTILINE), said
                    assert re.search(rf"^{holder} +alive ", said, re.MULTILINE), said
                _, said = await said_beside(first.environ, "replicas", "--json")
                assert steady(await second.got("/replicas")) == steady(json.loads(said))
            await first.until(first.holders, lambda found: 1 == len(set(found.values()) - {None}))
        result = await asyncio.to_thread(called, "replicas", environ=first.environ)
        rows = await asyncio.to_thread(called, "replicas", "--json", environ=first.environ)

    assert (1, 1) == (result.exit_code, rows.exit_code)
    assert "No replica is alive, so nobody polls default, other" in result.stdout
    assert {"default": None, "other": None} == {
        one["watch"]: one["holder"] for one in json.loads(rows.stdout)["watches"]
    }


async def test_what_nobody_polls_is_waited_for_alone(tmp_path: Path, shared: str) -> None:
    """A server is there though no daemon is; the store alone would never say more."""
    async with Simulator(scenario="calm", seed=1) as sim, Receiver() as receiver:
        batch = sim.world.plant(a_life(("PENDING", 0.0), ("RUNNING", 0.1), ("COMPLETED", 1.5)))
        async with a_replica_of(sim, receiver, tmp_path, shared) as replica:
            await receiver.until(lambda got: any(one.batch_id == batch.id for one in got))
        waiting = Wait([batch.id], load(environ=replica.environ), settled=False, clock=Clock())
        async with waiting:
            assert await waiting.until_over(patience=20)


# ----------------------------------------------------------------------------- what is said


@pytest.fixture
async def stores(shared: str) -> AsyncIterator[list[Store]]:
    """Those of two replicas, with one who asks for heartbeats."""
    router = Router({HOOK: frozenset({DAEMON_HEARTBEAT})})
    databases = [await Database.open(shared) for _ in range(2)]
    yield [Store(one, router, ManualClock()) for one in databases]
    for one in databases:
        await one.close()


def leases_of(store: Store, replica: str) -> Leases:
    return Leases(store.database, ManualClock(), replica=replica)


def roster_of(store: Store, clock: ManualClock | None = None) -> Roster:
    watches = [
        Watch(name, "https://llamacloud.test", 15.0, timedelta(hours=24)) for name in (ONE, TWO)
    ]
    return Roster(
        watches,
        watchers=[],
        this=a_replica("this"),
        replicas=store.replicas,
        clock=clock or ManualClock(),
    )


async def age(store: Store, *, seconds: float) -> None:
    """Let so much time go by for the leases."""
    micros = round(seconds * 1e6)
    times = {
        name: sa.type_coerce(leases.c[name], sa.BigInteger) - micros
        for name in ("held_until", "taken_at", "said_at")
    }
    async with store.database.write() as connection:
        await connection.execute(sa.update(leases).values(times))


async def test_what_a_holder_says_of_a_watch_is_what_others_show(stores: list[Store]) -> None:
    """With the time since then; what is taken over has nothing said of it yet."""
    mine, others = stores
    said = WatchHealth(silence=2.0, troubles=("poll: LlamaCloud answers 503",))
    await leases_of(others, "there").take([ONE], {ONE: said.written()})
    await age(others, seconds=4)
    (one, two) = await roster_of(mine).watched()

    assert ("there", False, said.troubles) == (one.holder, one.is_ours, one.health.troubles)
    assert one.health.silence is not None
    assert 6.0 <= one.health.silence < 60.0
    assert "poll: LlamaCloud answers 503 (there polls it)" == one.trouble_elsewhere
    assert (None, ("nobody has polled it yet",)) == (two.holder, two.health.troubles)

    await age(others, seconds=60)
    await leases_of(others, "elsewhere").take([ONE])
    (one, _) = await roster_of(mine).watched()
    assert ("elsewhere", None) == (one.holder, one.health.silence)


async def test_what_nobody_polls_is_said_at_once_and_troubles_after_a_takeover_would_have_been(
    stores: list[Store],
) -> None:
    """Whoever died, died between two renewals; another takes over a moment after its lease."""
    mine, others = stores
    clock = ManualClock()
    roster = roster_of(mine, clock)
    holder = leases_of(others, "there")
    await holder.take([ONE], {ONE: WatchHealth(silence=1.0).written()})
    late = (holder.life + TAKEOVER).total_seconds()

    await age(others, seconds=holder.life.total_seconds() + 1)
    (one, two) = await roster.watched()
    assert one.holder is None
    assert one.health.troubles[0].startswith("nobody polls it since ")
    assert [None, None] == [one.trouble_elsewhere, two.trouble_elsewhere]

    await age(others, seconds=late)
    clock.advance(late + 1)
    (one, two) = await roster.watched()
    assert list(one.health.troubles) == [one.trouble_elsewhere]
    assert "nobody has polled it yet" == two.trouble_elsewhere


async def test_a_replica_of_another_version_may_say_what_this_one_does_not_know(
    stores: list[Store],
) -> None:
    """Who polls is known all the same."""
    mine, others = stores
    for said in ('{"silence": 3, "mood": "good"}', '{"silence": "long"}', "no JSON"):
        await leases_of(others, "there").take([ONE], {ONE: said})
        (one, _) = await roster_of(mine).watched()
        assert "there" == one.holder


async def test_a_heartbeat_is_told_once_for_all_replicas(stores: list[Store]) -> None:
    """Whoever is first tells it; for a slot of time it is the same fact."""
    await stores[0].watches.begin(ONE, now=at(0))
    beats = []
    for store in stores:
        dispatcher = Dispatcher(
            store.outbox, [], records=store.endpoints, clock=ManualClock(), metrics=Metrics()
        )
        beats.append(
            Heartbeat(
                dispatcher,
                views=store.views,
                records=store.endpoints,
                roster=roster_of(store),
                endpoints=[HOOK],
                interval=3_600.0,
            )
        )
    await asyncio.gather(*(one.beat() for one in beats))
    (claimed,) = await stores[0].outbox.claim(HOOK, limit=9)

    async with stores[0].database.read() as connection:
        assert 1 == await connection.scalar(sa.select(sa.func.count()).select_from(events))
    assert DAEMON_HEARTBEAT == claimed.type


async def test_the_switch_goes_off_when_a_watch_stands_still_whoever_polls_it(
    stores: list[Store],
) -> None:
    """Each replica withholds its ping, for the others would keep the switch from its alarm."""
    mine, others = stores
    held = leases_of(others, "there")
    dispatcher = Dispatcher(
        mine.outbox, [], records=mine.endpoints, clock=ManualClock(), metrics=Metrics()
    )
    async with Receiver() as receiver, Connections(ManualClock()) as connections:
        pinger = Pinger(
            f"{receiver.url}/ping",
            sender=connections.sender(Guard()),
            dispatcher=dispatcher,
            watches=mine.watches,
            roster=roster_of(mine),
        )
        await held.take([ONE, TWO], {TWO: WatchHealth(troubles=("LlamaCloud is away",)).written()})
        await pinger.ping()
        assert (1, None) == (len(receiver.received), pinger.trouble)

        await held.take([ONE, TWO], {TWO: WatchHealth(is_stalled=True).written()})
        await pinger.ping()
        assert "withheld: no longer going round: two" == str(pinger.trouble)

        await age(others, seconds=(held.life + TAKEOVER + held.life).total_seconds())
        await pinger.ping()
        assert "withheld: no longer going round: one, two" == str(pinger.trouble)
        assert 1 == len(receiver.received)
