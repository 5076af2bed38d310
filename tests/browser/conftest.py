"""A browser, and a daemon to look at."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from aiohttp.test_utils import unused_port
from playwright.async_api import Error, async_playwright

from batchwatch.simulator import Simulator
from tests.support.daemon import environment, running
from tests.support.looking import Place
from tests.support.receiver import Receiver
from tests.support.scenery import Scene, paint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser

NAMES = ("chromium", "chromium-browser", "google-chrome")


def installed() -> str | None:
    """Where a browser is; None: perhaps playwright has its own."""
    if given := os.environ.get("BATCHWATCH_TEST_BROWSER"):
        return given
    return next((path for path in map(shutil.which, NAMES) if path), None)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """One for all tests."""
    async with async_playwright() as playwright:
        try:
            found = await playwright.chromium.launch(
                executable_path=installed(), args=["--no-sandbox", "--disable-gpu"]
            )
        except Error:
            pytest.skip("no browser: set BATCHWATCH_TEST_BROWSER, or put chromium on the PATH")
        yield found
        await found.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    """One for all tests, which leave each other's batches alone."""
    folder = tmp_path_factory.mktemp("place")
    scene = Scene(batches=int(os.environ.get("BATCHWATCH_SCENE", "30")), dislikes={"ops": 0.35})
    store = f"sqlite+aiosqlite:///{folder / 'batchwatch.db'}"
    await paint(store, scene, now=datetime.now(UTC))
    port = unused_port()
    async with Simulator() as sim, Receiver() as receiver:
        environ = environment(
            sim,
            receiver,
            folder,
            BATCHWATCH_LISTEN=f"127.0.0.1:{port}",
            BATCHWATCH_ENDPOINTS__OPS__URL=f"{receiver.url}/ops",
        )
        async with running(environ):
            await sim.asked(2)
            yield Place(f"http://127.0.0.1:{port}", sim, receiver)


@pytest.fixture(scope="session")
def pictures() -> Path | None:
    """Where the documents' pictures go, if they are asked for."""
    folder = os.environ.get("BATCHWATCH_SCREENSHOTS")
    return Path(folder) if folder else None
