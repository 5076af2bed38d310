"""A site that has tokens, and one behind a proxy's prefix: signing in, looking, signing out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from aiohttp.test_utils import unused_port
from playwright.async_api import expect

from batchwatch.simulator import Simulator
from tests.support.daemon import environment, running
from tests.support.looking import PHONE, Place, looking
from tests.support.receiver import Receiver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser

    from tests.support.looking import Look

pytestmark = pytest.mark.asyncio(loop_scope="session")

ADMIN = "0123456789abcdef-admin"
READER = "0123456789abcdef-reader"
PREFIX = "/ops/batchwatch"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def guarded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    """A daemon that wants tokens, below a path."""
    folder = tmp_path_factory.mktemp("guarded")
    port = unused_port()
    async with Simulator() as sim, Receiver() as receiver:
        environ = environment(
            sim,
            receiver,
            folder,
            BATCHWATCH_LISTEN=f"127.0.0.1:{port}",
            BATCHWATCH_API_TOKEN=ADMIN,
            BATCHWATCH_READ_TOKEN=READER,
            BATCHWATCH_PATH_PREFIX=PREFIX,
        )
        async with running(environ):
            await sim.asked(2)
            yield Place(f"http://127.0.0.1:{port}{PREFIX}", sim, receiver)


async def sign_in(look: Look, token: str) -> None:
    await look.page.fill("input[name=token]", token)
    async with look.page.expect_navigation():
        await look.page.keyboard.press("Enter")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_whoever_signs_in_comes_to_where_they_wanted_and_out_again(
    browser: Browser, guarded: Place, scheme: str
) -> None:
    """With a wrong token first; by keys alone, on a phone, without a violation or a complaint."""
    async with looking(browser, guarded.url, color_scheme=scheme, viewport=PHONE) as look:
        await look.open("/endpoints")
        assert look.page.url.startswith(f"{guarded.url}/login?next=")
        assert [] == await look.violations()
        await sign_in(look, "0123456789abcdef-wrong")
        await expect(look.page.locator("main")).to_contain_text("token")
        assert [] == await look.violations()
        assert 0 == await look.overflow()
        look.complaints.clear()  # that it was refused is one

        await sign_in(look, ADMIN)

        await expect(look.page).to_have_url(f"{guarded.url}/endpoints")
        await look.is_live()
        await expect(look.page.get_by_role("button", name="Test").first).to_be_visible()
        (cookie,) = await look.page.context.cookies()
        assert (True, "Lax", PREFIX) == (cookie["httpOnly"], cookie["sameSite"], cookie["path"])
        assert [] == await look.violations()
        await look.page.get_by_role("button", name="Log out").click()
        await look.open("/batches")
        assert look.page.url.startswith(f"{guarded.url}/login?next=")
        assert [] == look.complaints


async def test_who_only_looks_finds_no_buttons(browser: Browser, guarded: Place) -> None:
    """And all pages; a new batch is seen live."""
    async with looking(browser, guarded.url) as look:
        await look.open("/login")
        await sign_in(look, READER)
        await expect(look.page).to_have_url(f"{guarded.url}/")
        await look.is_live()
        batch = guarded.create()
        await expect(look.page.locator("main")).to_contain_text(batch, timeout=15_000)
        for path in ("/endpoints", "/watches", "/batches", "/deliveries", "/events", "/api"):
            await look.open(path)
            assert 0 == await look.page.locator("main form[method=post]").count(), path
        assert [] == look.complaints


async def test_a_button_does_what_it_says_in_a_session(browser: Browser, guarded: Place) -> None:
    """The form's own token passes what keeps other sites away."""
    async with looking(browser, guarded.url) as look:
        await look.open("/login")
        await sign_in(look, ADMIN)
        await look.open("/endpoints")
        await look.page.get_by_role("button", name="Test").first.click()
        await expect(look.page.locator("main")).to_contain_text("200")
        await look.open("/watches")
        await look.page.get_by_role("button", name="Look now").first.click()
        await expect(look.page).to_have_url(re.compile(f"{guarded.url}/watches"))
        assert [] == look.complaints
