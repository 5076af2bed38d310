"""A store in a file of its own, or one that is gone afterwards."""

from __future__ import annotations

import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from batchwatch.store.engine import Database

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator


@asynccontextmanager
async def opened(file: str | os.PathLike[str] | None) -> AsyncIterator[Database]:
    """The store in ``file``, made if there is none; without one, a store that nobody else sees.

    Raises :class:`~batchwatch.store.StoreError`, as when a daemon has it.
    """
    with tempfile.TemporaryDirectory(prefix="batchwatch-") as folder:
        database = await Database.open(_url_of(file or Path(folder, "batchwatch.db")))
        try:
            yield database
        finally:
            await database.close()


def _url_of(file: str | os.PathLike[str]) -> str:
    return f"sqlite+aiosqlite:///{quote(str(Path(file).expanduser()))}"
