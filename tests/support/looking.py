"""Somebody who looks at a page in a browser, and notes what the browser complains of."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from axe_playwright_python.async_playwright import Axe

from batchwatch.simulator.life import Life, Step

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser, ConsoleMessage, Page, Request

    from batchwatch.simulator import Simulator
    from tests.support.receiver import Receiver

DESK = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}


@dataclass
class Place:
    """A daemon after a day of work, and the worlds on both sides of it."""

    url: str
    sim: Simulator
    receiver: Receiver

    def create(self) -> str:
        """Have LlamaCloud begin a batch; its id."""
        life = Life(steps=(Step("PENDING", 0), Step("RUNNING", 1)), mapping=(0, 1))
        return self.sim.world.plant(life, files=1).id


@dataclass
class Look:
    """A tab, with all that went wrong in it."""

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.on("request", self._request)

    async def open(self, path: str) -> None:
        """Go there, and wait until the page stands."""
        await self.page.goto(self.url + path)

    async def is_live(self) -> None:
        """Wait until the page hears of what changes."""
        await self.page.wait_for_selector('#feed[data-state="live"]')

    async def violations(self) -> list[str]:
        """What keeps somebody from using the page."""
        found: dict[str, Any] = (await Axe().run(self.page)).response
        return [
            f"{one['id']}: {node['html'][:200]}"
            for one in found["violations"]
            for node in one["nodes"]
        ]

    async def overflow(self) -> int:
        """By how many pixels the page is wider than the window."""
        found = await self.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        return max(0, int(found))

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(f"{message.type}: {message.text}")

    def _request(self, request: Request) -> None:
        asked = urlsplit(request.url)
        if asked.scheme != "data" and asked.netloc != urlsplit(self.url).netloc:
            self.complaints.append(f"another host was asked: {request.url}")


@asynccontextmanager
async def looking(browser: Browser, url: str, **more: Any) -> AsyncIterator[Look]:
    """A tab of a browser that has never been here."""
    context = await browser.new_context(**{"viewport": DESK, "color_scheme": "light"} | more)
    try:
        yield Look(await context.new_page(), url)
    finally:
        await context.close()
