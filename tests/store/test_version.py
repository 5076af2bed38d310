"""Which schema a store has: made, migrated, newer than ours, and while replicas use it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from batchwatch.clock import Clock
from batchwatch.domain.batch import COMPLETED
from batchwatch.domain.delivery import Attempt, Settled, State
from batchwatch.store import Database, StoreError, Views
from batchwatch.store.errors import SchemaInUse, SchemaTooNew, SchemaTooOld, StoreBusy
from batchwatch.store.leases import Leases
from batchwatch.store.migrations import scripts, upgrade
from batchwatch.store.schema import HEAD, OLDEST, compatibility, metadata, replicas
from batchwatch.store.version import bring_up_to_date
from tests.store.conftest import HOOK, Store
from tests.support.builders import WATCH, a_sighting, at
from tests.support.definitions import definitions
from tests.support.newer import make_newer

BEFORE = "0005"  # the first that PostgreSQL ever had


async def an_older(url: str, version: str) -> Database:
    """A store of an older version, with nothing in it; open, and as it is."""
    database = await Database.attach(url, lock=True, writes=True)
    async with database.write() as connection:
        await connection.run_sync(lambda sync: upgrade(sync, to=version))
    return database


@pytest.mark.filterwarnings("ignore:Skipped unsupported reflection of expression-based index")
@pytest.mark.filterwarnings("ignore:autogenerate skipping metadata-specified expression-based")
async def test_the_migrations_lead_to_the_same_schema(store_url: str) -> None:
    """A new store is made in one step, an older one by migrations; nobody can tell which."""
    assert HEAD == scripts().get_current_head()

    def differences(connection: sa.Connection) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, metadata))

    database = await an_older(store_url, HEAD)
    async with database.write() as connection:
        assert [] == await connection.run_sync(differences)
        migrated = await definitions(database, connection)
        await connection.run_sync(metadata.drop_all)
        await connection.run_sync(metadata.create_all)
        assert await definitions(database, connection) == migrated
    await database.close()


@pytest.mark.filterwarnings("ignore:Skipped unsupported reflection of expression-based index")
async def test_what_replicas_of_the_last_release_use_is_only_added_to(store_url: str) -> None:
    """From OLDEST to HEAD nothing goes, changes its type, or must be given by who knows it not."""
    assert OLDEST <= HEAD
    database = await an_older(store_url, OLDEST)
    async with database.write() as connection:
        before = await connection.run_sync(_shapes)
        await connection.run_sync(upgrade)
        after = await connection.run_sync(_shapes)
    await database.close()

    for table, (columns, unique) in before.items():
        now, unique_now = after[table]
        assert columns == {name: now.get(name) for name in columns}, table
        assert unique == unique_now, table
        for name in now.keys() - columns.keys():
            assert now[name]["optional"], f"{table}.{name}"


def _shapes(connection: sa.Connection) -> dict[str, tuple[dict[str, Any], set[str]]]:
    """By table: its columns, and what must be unique in it."""
    inspector = sa.inspect(connection)
    return {
        table: (
            {
                one["name"]: {
                    "type": repr(one["type"]),
                    "optional": one["nullable"] or one["default"] is not None,
                }
                for one in inspector.get_columns(table)
            },
            {
                str(one["column_names"])
                for one in (
                    *inspector.get_unique_constraints(table),
                    *(index for index in inspector.get_indexes(table) if index["unique"]),
                )
            },
        )
        for table in inspector.get_table_names()
    }


async def test_a_newer_schema_that_allows_it_is_used(store_url: str) -> None:
    """What a newer version has added is no business of ours: all is read and written as before."""
    database = await Database.open(store_url)
    await Store(database).watches.begin(WATCH, now=at(0))
    async with database.write() as connection:
        await make_newer(connection, oldest=HEAD)
    await database.close()

    database = await Database.open(store_url)
    store = Store(database)
    assert ("9999", "9999") == (database.found, await database.version())
    await store.see(a_sighting())
    await store.see(a_sighting(COMPLETED, updated=9, asked_results=True, results=()), second=9)
    claimed = await store.outbox.claim(HOOK, limit=9)
    taken = Attempt(at(9), 0.1, status_code=204)
    await store.outbox.settle([Settled(one, taken, State.DELIVERED) for one in claimed])
    assert 1 == len(await store.views.batches())
    await database.close()
    reader = await Database.open(store_url, exclusive=False)
    assert ["default"] == [one["name"] for one in await Views(reader).watches()]
    await reader.close()


@pytest.mark.parametrize("oldest", ["9998", None])
async def test_a_newer_schema_that_does_not_allow_it_is_refused(
    store_url: str, oldest: str | None
) -> None:
    """An old binary must not write into what it does not understand; it is told which can."""
    database = await Database.open(store_url)
    async with database.write() as connection:
        await make_newer(connection, oldest=oldest)
    await database.close()

    named = rf"9999.*know {oldest or 9999} or newer.*knows {HEAD}.*newer version"
    for exclusive in (True, False):
        with pytest.raises(SchemaTooNew, match=named):
            await Database.open(store_url, exclusive=exclusive)


async def test_who_migrates_says_who_may_use_it(store_url: str) -> None:
    """So does who makes it; and it is migrated once."""
    await (await an_older(store_url, BEFORE)).close()
    with pytest.raises(SchemaTooOld, match="batchwatch migrate"):
        await Database.open(store_url, exclusive=False)
    found = []
    for _ in range(2):
        database = await Database.open(store_url)
        async with database.read() as connection:
            found.append(
                (database.found, await connection.scalar(sa.select(compatibility.c.oldest)))
            )
        await database.close()

    assert [(BEFORE, OLDEST), (HEAD, OLDEST)] == found


async def test_a_migration_that_has_to_wait_lets_others_pass(
    shared: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a long read: it steps back, and is tried again; the replica that runs goes on."""
    monkeypatch.setattr("batchwatch.store.engine._LOCK_TIMEOUT", 50)
    monkeypatch.setattr("batchwatch.store.version.PAUSES", [0.01] * 500)
    waits = asyncio.Event()
    log = SimpleNamespace(warning=lambda *_, **__: waits.set())
    monkeypatch.setattr("batchwatch.store.version.log", log)
    older = await an_older(shared, BEFORE)
    row = {"id": "old", "host": "", "version": "0.1.0", "started_at": at(0), "seen_at": at(0)}
    newer = await Database.attach(shared, lock=True, writes=True)
    async with older.write() as reader:
        await reader.execute(sa.select(replicas.c.id))
        migrating = asyncio.create_task(bring_up_to_date(newer, may_write=True))
        async with asyncio.timeout(10):
            await waits.wait()
            for number in range(20):
                await reader.execute(sa.insert(replicas), row | {"id": str(number)})
                async with older.read() as another:
                    await another.execute(sa.select(replicas.c.id))
        assert not migrating.done()
    async with asyncio.timeout(10):
        assert BEFORE == await migrating
    await newer.close()
    await older.close()


async def test_a_migration_that_waits_for_too_long_says_so(
    shared: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And has changed nothing."""
    monkeypatch.setattr("batchwatch.store.engine._LOCK_TIMEOUT", 50)
    monkeypatch.setattr("batchwatch.store.version.PAUSES", ())
    older = await an_older(shared, BEFORE)
    async with older.write() as reader:
        await reader.execute(sa.select(replicas.c.id))
        with pytest.raises(StoreBusy, match="see which session holds it"):
            await Database.open(shared)
    assert BEFORE == await older.version()
    await older.close()


async def test_no_replica_is_left_behind_that_could_not_go_on(
    shared: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A migration for newer versions only waits until the older ones are gone."""
    database = await Database.open(shared)
    await Leases(database, Clock(), replica="old-1", version="0.1.0").beat()
    monkeypatch.setattr("batchwatch.store.schema.HEAD", "9998")
    monkeypatch.setattr("batchwatch.store.schema.OLDEST", "9998")

    with pytest.raises(SchemaInUse, match=rf"old-1 \(0\.1\.0, schema {HEAD}\); stop it first"):
        await Database.open(shared)

    monkeypatch.setattr("batchwatch.store.schema.OLDEST", HEAD)
    await (await Database.open(shared)).close()
    await database.close()


async def test_a_plan_that_no_longer_holds_fails_once(shared: str) -> None:
    """Where a newer version should ever change a type: what is tried again goes through."""
    database = await Database.open(shared)
    store = Store(database)
    await store.watches.begin(WATCH, now=at(0))
    async with database.write() as connection:
        await connection.execute(sa.text("ALTER TABLE watches ALTER cursor TYPE numeric"))

    with pytest.raises(StoreError, match="cached statement plan is invalid"):
        await store.watches.state(WATCH)
    state = await store.watches.state(WATCH)

    assert state is not None
    await database.close()
