"""A backup that was taken while the daemon ran is put back: all is told, and no fact twice anew."""

from __future__ import annotations

import asyncio
import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
import sqlalchemy as sa

from batchwatch.simulator import FileLife, Simulator, a_life
from batchwatch.simulator.life import JobLife, Step
from batchwatch.store import Database, Pages, WantedEvents
from batchwatch.store.backup import ROOM, pg_dump
from tests.support.daemon import ROOT, environment, running, spawned
from tests.support.postgres import a_database, a_server, tool
from tests.support.receiver import Receiver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from tests.support.receiver import Received

JOB = JobLife((Step("PENDING", 0.2), Step("COMPLETED", 1.9)))
LIFE = a_life(
    ("PENDING", 0.0), ("RUNNING", 0.2), ("COMPLETED", 1.8), files=(FileLife(0.3, job=JOB),)
)
BATCHES = 6


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with a_server() as url:
        yield url


def settled(count: int) -> Callable[[list[Received]], bool]:
    """Whether so many batches were told to their very end."""

    def enough(got: list[Received]) -> bool:
        return count <= len({one.batch_id for one in got if one.event["type"] == "batch.settled"})

    return enough


def settled_since(told: int, wanted: set[str | None], got: list[Received]) -> bool:
    """Whether the wanted batches were, after so many messages."""
    return wanted <= {one.batch_id for one in got[told:] if one.event["type"] == "batch.settled"}


def open_in(events: list[dict[str, Any]]) -> set[str | None]:
    """The batches whose end is not among these events."""
    over = {row["batch_id"] for row in events if row["type"] == "batch.settled"}
    return {row["batch_id"] for row in events} - over


def running_ones(got: list[Received]) -> bool:
    """Whether half of the batches were told as running, so that there is something in between."""
    told = {one.batch_id for one in got if one.event["type"] == "batch.running"}
    return 2 * len(told) >= BATCHES


async def call(*command: str, env: Mapping[str, str]) -> None:
    process = await asyncio.create_subprocess_exec(
        *command,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **env},
        cwd=ROOT,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    assert 0 == process.returncode, said.decode()


async def all_events(url: str, *, after: int = 0) -> list[dict[str, Any]]:
    """What is in the store, from a place on, as whoever pulls gets it."""
    database = await Database.open(url, exclusive=False)
    wanted = WantedEvents(oldest_first=True)
    page = await Pages(database).events(wanted, after=(after,), limit=1_000)
    await database.close()
    return page.rows


def assert_each_fact_has_one_id(receiver: Receiver) -> None:
    """Whatever was told again is told under the id that it had, and nothing else is."""
    ids: dict[tuple[str, str, int], set[str]] = {}
    facts: dict[str, set[tuple[str, str, int]]] = {}
    for one in receiver.received:
        fact = (one.batch_id, one.event["type"], one.event["data"]["transition"])
        ids.setdefault(fact, set()).add(one.id)
        facts.setdefault(one.id, set()).add(fact)
    assert {1} == {len(some) for some in ids.values()} | {len(some) for some in facts.values()}


def assert_nobody_passes_over_anything(*several: list[dict[str, Any]]) -> None:
    """Whoever pulls, and remembers a place from before the end, is given all that is new since.

    What is not in the backup is given, and among it what was told before under the same ids.
    """
    before, known, since, now = ({row["id"] for row in some} for some in several)
    assert now - known == since
    assert since & before
    assert all(row["seq"] > ROOM for row in several[2])


async def test_an_sqlite_backup_is_put_back(tmp_path: Path) -> None:
    """Taken beside the daemon, which is killed later: every batch is told to its end."""
    backup = tmp_path / "backup.db"
    folder = tmp_path / "data"
    url = f"sqlite+aiosqlite:///{folder}/batchwatch.db"
    async with Simulator() as sim, Receiver() as receiver:
        environ = environment(sim, receiver, folder)
        async with running(environ):
            await sim.asked(2)
        async with spawned(environ):
            await sim.asked(sim.requests.total() + 1)
            for _ in range(BATCHES):
                sim.world.plant(LIFE)
            await receiver.until(running_ones)
            await call(sys.executable, "-m", "batchwatch", "backup", str(backup), env=environ)
            later = [sim.world.plant(LIFE).id for _ in range(BATCHES)]
            await receiver.until(settled(2 * BATCHES))
        before = await all_events(url)
        for end in ("-wal", "-shm"):
            (folder / f"batchwatch.db{end}").unlink(missing_ok=True)
        backup.replace(folder / "batchwatch.db")
        known = await all_events(url)
        told = len(receiver.received)
        async with running(environ):
            await receiver.until(partial(settled_since, told, open_in(known).union(later)))
        since = await all_events(url, after=before[-1]["seq"])

    assert_each_fact_has_one_id(receiver)
    # Steps that went by since the backup are not told again; so an end may have a smaller number.
    ends: dict[str, list[int]] = {}
    for one in receiver.received:
        if one.event["type"] == "batch.completed":
            ends.setdefault(one.batch_id, []).append(one.event["data"]["transition"])
    assert all(sorted(some, reverse=True) == some for some in ends.values())
    assert any(1 < len(set(some)) for some in ends.values())
    assert_nobody_passes_over_anything(before, known, since, await all_events(url))


@pytest.mark.timeout(120)
async def test_a_dump_of_postgresql_is_put_back(tmp_path: Path, postgres: str) -> None:
    """As docs/backup.md says it: into a database of its own, with room for places."""
    dump = tmp_path / "batchwatch.dump"
    async for one in a_database(postgres):
        async for other in a_database(postgres):
            async with Simulator() as sim, Receiver() as receiver:
                environ = environment(sim, receiver, tmp_path, BATCHWATCH_DATABASE_URL=one)
                async with running(environ):
                    await sim.asked(2)
                async with spawned(environ):
                    await sim.asked(sim.requests.total() + 1)
                    for _ in range(BATCHES):
                        sim.world.plant(LIFE)
                    await receiver.until(running_ones)
                    program, *arguments = pg_dump(one, str(dump))
                    await call(tool(program), *arguments, env={})
                    later = [sim.world.plant(LIFE).id for _ in range(BATCHES)]
                    await receiver.until(settled(BATCHES))
                before = await all_events(one)
                await put_back(dump, other)
                known = await all_events(other)
                told = len(receiver.received)
                environ["BATCHWATCH_DATABASE_URL"] = other
                async with running(environ):
                    await receiver.until(partial(settled_since, told, open_in(known).union(later)))
                since = await all_events(other, after=before[-1]["seq"])
                now = await all_events(other)

    assert_each_fact_has_one_id(receiver)
    assert_nobody_passes_over_anything(before, known, since, now)


async def put_back(dump: Path, url: str) -> None:
    """What the page says; and the one that was killed is known to be dead, as it is after 15 s."""
    plain = sa.make_url(url).set(drivername="postgresql")
    where = plain.render_as_string(hide_password=False)
    await call(tool("pg_restore"), f"--dbname={where}", "--no-owner", str(dump), env={})
    connection = await asyncpg.connect(where)
    await connection.execute(
        "SELECT setval('events_seq_seq', (SELECT last_value + $1::bigint FROM events_seq_seq))",
        ROOM,
    )
    await connection.execute("UPDATE leases SET held_until = 0")
    await connection.execute("DELETE FROM replicas")
    await connection.close()
