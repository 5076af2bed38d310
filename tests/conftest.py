"""Stores on both engines, for all that says something of what is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

# A busy machine makes an example slow, not wrong.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL, one for each process that runs tests."""
    from tests.support.postgres import a_server  # noqa: PLC0415  # most tests need none

    with a_server() as url:
        yield url


@pytest.fixture
def file_url(tmp_path: Path) -> str:
    """A store of its own in a file, for what is about files."""
    return f"sqlite+aiosqlite:///{tmp_path / 'batchwatch.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
async def store_url(request: pytest.FixtureRequest, file_url: str) -> AsyncIterator[str]:
    """A place for a store of its own, on each of the two engines; nothing is there yet."""
    async for url in _places(request, file_url, made=False):
        yield url


@pytest.fixture
async def shared(postgres: str) -> AsyncIterator[str]:
    """A place for a store on PostgreSQL alone, for what is about several daemons."""
    from tests.support.postgres import a_database  # noqa: PLC0415  # as above

    async for url in a_database(postgres):
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
async def made_url(request: pytest.FixtureRequest, file_url: str) -> AsyncIterator[str]:
    """The same, its tables made where that takes long; for whatever is not about making them."""
    async for url in _places(request, file_url, made=True):
        yield url


@pytest.fixture
async def shared_url(postgres: str) -> AsyncIterator[str]:
    """A store that several may open, its tables made."""
    from tests.support.postgres import a_database  # noqa: PLC0415  # as above

    async for url in a_database(postgres, made=True):
        yield url


async def _places(
    request: pytest.FixtureRequest, file_url: str, *, made: bool
) -> AsyncIterator[str]:
    if request.param == "sqlite":
        yield file_url
        return
    from tests.support.postgres import a_database  # noqa: PLC0415  # as above

    async for url in a_database(request.getfixturevalue("postgres"), made=made):
        yield url
