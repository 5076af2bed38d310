"""A PostgreSQL to measure: the one that is named for tests, or one of a wheel, safe as usual."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Final

import asyncpg
import sqlalchemy as sa

from tests.support.postgres import NAMED, a_database, a_wheel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

database: Final = asynccontextmanager(a_database)


@contextmanager
def server() -> Iterator[str]:
    """The URL of a server, for as long as the context is held."""
    if url := os.environ.get(NAMED):
        yield url
        return
    with a_wheel() as wheel:
        yield wheel.url


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection without anything of ours between."""
    plain = sa.make_url(url).set(drivername="postgresql")
    connection = await asyncpg.connect(plain.render_as_string(hide_password=False))
    try:
        yield connection
    finally:
        await connection.close()


async def analyse(url: str) -> None:
    """Have it look at its tables, as it does by itself within a minute."""
    async with connected(url) as connection:
        await connection.execute("VACUUM ANALYZE")
