"""The server of a shared store: what is said when it refuses, and how it is found again."""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from typing import TYPE_CHECKING

import asyncpg
import pytest
import sqlalchemy as sa

from batchwatch.clock import Clock
from batchwatch.store import Database, StoreError, driver, server
from batchwatch.store.errors import StoreBusy, StoreUnreachable, StoreUnusable
from batchwatch.store.notices import Notice, Notices
from tests.support.front import encrypted
from tests.support.postgres import a_database, a_wheel
from tests.unit.deliver.authority import Authority

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

SECRET = "correct-horse"


@pytest.fixture
async def url(postgres: str) -> AsyncIterator[str]:
    async for one in a_database(postgres, made=True):
        yield one


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def opening(url: str | sa.URL) -> StoreError | None:
    """What is said when the store at ``url`` is opened; None if it could be."""
    text = url if isinstance(url, str) else url.render_as_string(hide_password=False)
    try:
        await (await Database.open(text)).close()
    except StoreError as error:
        return error
    return None


WRONG: dict[str, tuple[dict[str, object], type[StoreError], str]] = {
    "nobody listens": (
        {"host": "127.0.0.1", "port": 9, "query": {}},
        StoreUnreachable,
        "BATCHWATCH_DATABASE_URL names its host and port",
    ),
    "no such host": ({"host": "nowhere.invalid", "query": {}}, StoreUnreachable, "nowhere.invalid"),
    "no such database": ({"database": "nothing"}, StoreUnusable, "CREATE DATABASE"),
    "no such user": ({"username": "nobody"}, StoreUnusable, "check the user and the password"),
    "no such mode": (
        {"host": "127.0.0.1", "port": 9, "query": {"sslmode": "safe"}},
        StoreUnusable,
        "verify-full: check what follows the",
    ),
    "no such setting": ({"more": {"colour": "red"}}, StoreUnusable, "check what follows the"),
    "fewer ports than hosts": (
        {"host": None, "query": {"host": "a.invalid,b.invalid,c.invalid", "port": "1,2"}},
        StoreUnusable,
        "check what follows the",
    ),
    "no such socket": (
        {"host": None, "query": {"host": "/nowhere"}},
        StoreUnreachable,
        "see that it runs",
    ),
    "no such authority": (
        {"more": {"sslrootcert": "/no/ca.pem"}},
        StoreUnusable,
        "sslrootcert names /no/ca.pem, which cannot be read (No such file or directory)",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_what_is_wrong_is_said_with_what_to_do(url: str, wrong: str) -> None:
    """And where, without a login."""
    change, kind, remedy = WRONG[wrong]
    right = sa.make_url(url)
    right = right.set(password=right.password or SECRET)
    changed = dict(change)
    more = changed.pop("more", {})
    assert isinstance(more, dict)
    error = await opening(right.set(**changed).update_query_dict(more))  # type: ignore[arg-type]

    assert type(error) is kind
    assert str(error).startswith("postgresql://")
    assert remedy in str(error)
    assert str(right.password) not in str(error)


async def test_what_urls_for_psql_have_is_taken(url: str) -> None:
    """Those of hosted databases have some of it, and our driver knows nothing of it."""
    of_psql = {"channel_binding": "prefer", "connect_timeout": "5", "keepalives": "1"}
    of_psql |= {"gssencmode": "disable", "application_name": "mine", "sslrootcert": "system"}

    assert await opening(sa.make_url(url).update_query_dict(of_psql)) is None


async def test_a_server_without_tls_that_is_asked_for_it_is_said_to_have_none() -> None:
    """Not that it may not run, or that the host may be wrong: it did answer."""
    refused = asyncio.Event()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(8)  # SSLRequest
        writer.write(b"N")
        writer.close()
        await writer.wait_closed()
        refused.set()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        error = await opening(f"postgresql+asyncpg://u@127.0.0.1:{port}/x?sslmode=require")
        await refused.wait()

    assert isinstance(error, StoreUnusable)
    assert "the server has no TLS, which sslmode asks for" in str(error)


async def test_without_its_driver_it_says_what_to_install(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not everybody needs it, so it is an extra."""
    monkeypatch.setitem(sys.modules, "asyncpg", None)

    assert "pip install asyncpg" in str(await opening(url))


async def test_a_file_that_is_missing_is_said_with_the_variable_that_names_it(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver goes by libpq's, too."""
    monkeypatch.setenv("PGSSLCERT", "/no/own.pem")

    assert "PGSSLCERT names /no/own.pem, which cannot be read" in str(await opening(url))


async def test_a_server_of_which_too_much_is_asked_is_busy(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is there: nobody should look for it elsewhere, and no link of SQLAlchemy's helps."""
    few = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 0.01}
    make = driver.create_async_engine
    monkeypatch.setattr(
        server, "create_async_engine", lambda *args, **kwargs: make(*args, **(kwargs | few))
    )
    database = await Database.open(url)
    async with database.read():
        with pytest.raises(StoreBusy) as caught:
            await database.nudges()
    await database.close()

    assert "no connection became free for" in str(caught.value)
    assert "http" not in str(caught.value)


def test_a_server_without_room_for_more_locks_is_busy() -> None:
    """It says so of its memory, and what to raise in a hint that is not shown."""
    error = server.explain(asyncpg.OutOfMemoryError("out of shared memory"), "postgresql://h/db")

    assert StoreBusy is type(error)
    assert "raise max_locks_per_transaction" in str(error)


async def test_a_server_that_is_verified_is_used_and_one_that_is_not_is_not(
    url: str, authority: Authority, tmp_path: Path
) -> None:
    """``sslmode=verify-full``: by the authority that is named, and by the name."""
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")
    async with encrypted(url, authority.server()) as by_tls:

        def trusting(whom: Authority, **more: str) -> sa.URL:
            query = {"sslmode": "verify-full", "sslrootcert": str(whom.file)} | more
            return by_tls.update_query_dict(query)

        assert await opening(trusting(authority)) is None
        refused = await opening(trusting(other))
        by_name = await opening(trusting(authority).set(host="localhost"))

    assert type(refused) is StoreUnusable
    assert "CERTIFICATE_VERIFY_FAILED" in str(refused)
    assert "localhost" in str(by_name)


async def test_after_a_crash_of_the_server_all_goes_on_by_itself() -> None:
    """What is asked meanwhile fails and says so; those who listen listen again."""
    with a_wheel() as wheel:
        async for url in a_database(wheel.url):
            database = await Database.open(url)
            notices = Notices(database, Clock())
            listens = asyncio.Event()

            def hear(notice: Notice | None, listens: asyncio.Event) -> None:
                if notice is None:
                    listens.set()

            listening = asyncio.create_task(notices.run(partial(hear, listens=listens)))
            await listens.wait()
            listens.clear()
            async with database.read(), database.read():  # more than one connection
                pass

            wheel.crash()
            for _ in range(3):
                with pytest.raises(StoreUnreachable):
                    await database.nudges()
                with pytest.raises(StoreUnreachable):
                    await nudge(database)
            wheel.start()
            await nudge(database)

            assert 1 == await database.nudges()
            await listens.wait()
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            await database.close()


async def nudge(database: Database) -> None:
    async with database.write() as connection:
        await database.nudge(connection)


async def say(server: str, *statements: str) -> None:
    """Have them executed beside the store."""
    plain = sa.make_url(server).set(drivername="postgresql")
    connection = await asyncpg.connect(plain.render_as_string(hide_password=False))
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


async def test_a_primary_that_became_a_standby_is_left_for_the_new_one(
    postgres: str, url: str
) -> None:
    """A connection to it would be read-only for ever; the next one is made anew."""
    database = await Database.open(url)
    await nudge(database)
    name = sa.make_url(url).database
    await say(
        postgres,
        f"ALTER DATABASE {name} SET default_transaction_read_only = on",
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",
    )

    with pytest.raises(StoreError):  # the connection that was ended
        await nudge(database)
    with pytest.raises(StoreBusy, match="it is a standby now"):
        await nudge(database)
    await say(postgres, f"ALTER DATABASE {name} RESET default_transaction_read_only")
    await nudge(database)

    assert 2 == await database.nudges()
    await database.close()


async def test_what_stands_in_the_way_is_said_and_nothing_is_written(url: str) -> None:
    """Nobody waits for ever for what another session has locked."""
    patient = await Database.open(url)
    soon = sa.make_url(url).update_query_dict({"lock_timeout": "50ms"})
    hasty = await Database.open(soon.render_as_string(hide_password=False))
    await nudge(patient)
    async with patient.write() as connection:
        await patient.nudge(connection)
        with pytest.raises(StoreBusy, match="see which session holds it"):
            await nudge(hasty)
    await nudge(hasty)

    assert 3 == await hasty.nudges()
    for one in (patient, hasty):
        await one.close()
