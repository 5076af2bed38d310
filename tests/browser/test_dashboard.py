"""The dashboard as somebody sees it: in a browser, live, by keys, in the dark and on a phone."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from playwright.async_api import expect

from batchwatch.store.replicas import Fleet, Holding
from tests.support.builders import WATCH, a_replica, at
from tests.support.looking import DESK, PHONE, looking
from tests.support.site import a_site, a_watch

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.async_api import Browser

    from tests.support.looking import Place

pytestmark = pytest.mark.asyncio(loop_scope="session")

PAGES = (
    "overview", "batches", "batch", "active", "deliveries", "delivery", "events", "event",
    "endpoints", "watches", "replicas", "api", "no-match",
)  # fmt: skip


async def asked(place: Place, path: str) -> Any:
    """What the API says."""
    async with aiohttp.ClientSession() as http, http.get(f"{place.url}/api/v1{path}") as answer:
        return await answer.json()


async def path_of(place: Place, page: str) -> str:
    """Where a page is, of a thing that has much to show."""
    if page in {"batch", "active"}:
        wanted = "status=COMPLETED" if page == "batch" else "active=true&sort=created"
        items = (await asked(place, f"/batches?limit=100&{wanted}"))["items"]
        one = max(items, key=lambda batch: batch["file_count"] or 0)
        return f"/batches/{one['watch']}/{one['id']}"
    if page == "delivery":
        return f"/deliveries/{(await asked(place, '/deliveries?state=dead'))['items'][0]['id']}"
    if page == "event":
        return f"/events/{(await asked(place, '/events?type=batch.settled'))['items'][0]['id']}"
    return {"overview": "/", "no-match": "/batches?text=nothing-like-it"}.get(page, f"/{page}")


PICTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "overview": ("overview", {"color_scheme": "light"}),
    "overview-dark": ("overview", {"color_scheme": "dark"}),
    "batches": ("batches", {"color_scheme": "light"}),
    "batch": ("active", {"color_scheme": "light"}),
    "batch-dark": ("batch", {"color_scheme": "dark"}),
    "deliveries": ("deliveries", {"color_scheme": "light"}),
    "delivery": ("delivery", {"color_scheme": "light"}),
    "endpoints": ("endpoints", {"color_scheme": "light"}),
    "watches": ("watches", {"color_scheme": "dark"}),
    "phone": ("overview", {"color_scheme": "dark", "viewport": PHONE}),
}


async def test_the_documents_have_their_pictures(
    browser: Browser, place: Place, pictures: Path | None
) -> None:
    """Only when they are asked for: a test run changes no files."""
    if pictures is None:
        pytest.skip("BATCHWATCH_SCREENSHOTS names no folder for pictures")
    for name, (page, more) in PICTURES.items():
        async with looking(browser, place.url, **{"viewport": DESK} | more) as look:
            await look.open(await path_of(place, page))
            await look.is_live()
            await look.page.screenshot(path=pictures / f"{name}.png", animations="disabled")


@pytest.mark.parametrize("page", PAGES)
async def test_each_page_is_for_everybody(browser: Browser, place: Place, page: str) -> None:
    """In both themes and on a phone: no violation, nothing too wide, no complaint."""
    await is_for_everybody(browser, place.url, await path_of(place, page))


async def test_replicas_are_for_everybody(browser: Browser, tmp_path: Path) -> None:
    """The page that only those see whose store is shared, however long their hosts' names are."""
    now, names = at(60), [f"batchwatch-{'7d9c5b6f4d-' * 4}{number}" for number in range(3)]
    fleet = Fleet(
        now,
        [a_replica(name, host=name, is_alive=name != names[2]) for name in names],
        {WATCH: Holding(WATCH, names[0], 3, now, at(0), None, None, now)},
    )
    watches = [a_watch(holder=names[0]), a_watch(name="other", holder=None, silence=None)]
    async with a_site(
        f"sqlite+aiosqlite:///{tmp_path / 'batchwatch.db'}", fleet=fleet, watches=watches
    ) as site:
        await is_for_everybody(browser, site.url, "/replicas")
        async with looking(browser, site.url, viewport=PHONE) as look:
            await look.open("/watches")
            assert 0 == await look.overflow()
            await look.page.keyboard.press("g")
            await look.page.keyboard.press("r")
            await look.page.wait_for_url("**/replicas")
            await expect(look.page.locator("#held")).to_contain_text("nobody")


async def is_for_everybody(browser: Browser, url: str, path: str) -> None:
    for more in (
        {"color_scheme": "light"},
        {"color_scheme": "dark"},
        {"color_scheme": "light", "viewport": PHONE},
        {"color_scheme": "dark", "viewport": {"width": 360, "height": 740}},
    ):
        async with looking(browser, url, **more) as look:
            await look.open(path)
            assert [] == await look.violations(), more
            assert 0 == await look.overflow(), more
            assert [] == look.complaints, more


async def test_a_new_batch_appears_without_a_reload(browser: Browser, place: Place) -> None:
    """And what is unfolded, focused and scrolled stays as it was."""
    async with looking(browser, place.url) as look:
        await look.open("/")
        await look.is_live()
        await look.page.evaluate("window.same = true")
        await look.page.click("#charts details summary >> nth=0")
        await look.page.focus("#charts details summary >> nth=0")

        batch = place.create()

        await expect(look.page.locator("#latest")).to_contain_text(batch, timeout=15_000)
        assert await look.page.evaluate("window.same")
        assert await look.page.evaluate("document.querySelector('#charts details').open")
        assert "SUMMARY" == await look.page.evaluate("document.activeElement.tagName")
        assert [] == look.complaints


async def test_nothing_changes_under_somebody_who_types(browser: Browser, place: Place) -> None:
    """The page says that it waits, and goes on when the field is left."""
    async with looking(browser, place.url) as look:
        await look.open("/batches")
        await look.is_live()
        await look.page.fill("main input[name=text]", "half a word")

        batch = place.create()

        await look.page.wait_for_selector('#feed[data-state="held"]')
        await expect(look.page.locator("#feed")).to_contain_text("paused while you type")
        assert 0 == await look.page.get_by_text(batch).count()
        await look.page.focus("main")
        await expect(look.page.locator("#list")).to_contain_text(batch, timeout=15_000)
        assert "half a word" == await look.page.input_value("main input[name=text]")


async def test_a_lost_connection_is_said_in_words(browser: Browser, place: Place) -> None:
    """Whoever looks at an old page must know that it is one."""
    async with looking(browser, place.url) as look:
        await look.page.route("**/live", lambda route: route.abort())
        await look.page.clock.install()
        await look.open("/")

        await expect(look.page.locator("#feed")).to_contain_text("reconnecting")
        await expect(look.page.locator("#stale")).to_be_hidden()
        await look.page.clock.run_for(15_000)
        await expect(look.page.locator("#stale")).to_contain_text("does not answer")
        assert [] == await look.violations()


async def test_batches_are_filtered_and_the_address_says_so(browser: Browser, place: Place) -> None:
    """What is sent to somebody shows the same."""
    async with looking(browser, place.url) as look:
        await look.open("/batches")
        await look.page.click("nav.tabs >> text=Failed")
        failed = await look.page.locator("#list tbody tr").count()
        badges = await look.page.locator("#list .badge").all_inner_texts()
        first = await look.page.locator("#list tbody .id").first.get_attribute("title") or ""
        await look.page.fill("main input[name=text]", first[:12])
        await look.page.press("main input[name=text]", "Enter")
        await expect(look.page.locator("#list tbody tr")).to_have_count(1)
        address = look.page.url

        assert failed > 0
        assert {"FAILED"} == set(badges)
        assert "status=FAILED" in address
        await look.open("/")
        await look.page.goto(address)
        await expect(look.page.locator("#list tbody tr")).to_have_count(1)
        assert [] == look.complaints


async def test_what_was_given_up_is_sent_again_by_one_press(browser: Browser, place: Place) -> None:
    """The receiver gets it under the same id, and the page shows it delivered."""
    (dead, *_) = (await asked(place, "/deliveries?state=dead"))["items"]
    async with looking(browser, place.url) as look:
        await look.open(f"/deliveries/{dead['id']}")
        await look.page.click("button:has-text('Replay')")

        await expect(look.page.locator("main > .done")).to_contain_text("1 sent again")
        badge = look.page.locator("header.head .badge")
        await expect(badge).to_contain_text("delivered", timeout=15_000)
        assert dead["event_id"] in [one.id for one in place.receiver.received]
        assert [] == look.complaints


async def test_an_endpoint_is_tested_disabled_and_enabled(browser: Browser, place: Place) -> None:
    """Each by one press, and each says what it did."""
    async with looking(browser, place.url) as look:
        await look.open("/endpoints")
        await look.page.click("button[aria-label='Test: ops']")
        await expect(look.page.locator("main")).to_contain_text("it was taken")
        await look.page.click("text=Back to the endpoints")
        await look.page.click("button[aria-label='Disable: ops']")
        await expect(look.page.locator("main > .done")).to_contain_text("Disabled")
        await look.page.click("button[aria-label='Enable: ops']")
        await expect(look.page.locator("main > .done")).to_contain_text("Enabled")
        assert [] == look.complaints


async def test_the_theme_stays_as_it_was_chosen(browser: Browser, place: Place) -> None:
    """On each page, from the first moment on; else it is the system's."""
    async with looking(browser, place.url, color_scheme="light") as look:
        await look.open("/")
        ground = "getComputedStyle(document.body).backgroundColor"
        light = await look.page.evaluate(ground)
        await look.page.click("#theme")
        dark = await look.page.evaluate(ground)
        await look.open("/watches")

        assert light != dark
        assert dark == await look.page.evaluate(ground)
        async with look.page.expect_response("**/batches") as answered:
            await look.open("/batches")
        assert 'data-theme="dark"' in await (await answered.value).text()


async def test_all_goes_by_keys(browser: Browser, place: Place) -> None:
    """Past the bar, to a field, to another page, and to what keys there are."""
    async with looking(browser, place.url) as look:
        page = look.page
        await look.open("/")
        await page.keyboard.press("Tab")
        assert "Skip to the content" == await page.evaluate("document.activeElement.textContent")
        await page.keyboard.press("Enter")
        assert "main" == await page.evaluate("document.activeElement.id")
        await page.keyboard.press("/")
        assert "find" == await page.evaluate("document.activeElement.id")
        await page.keyboard.type("bat-")
        await page.keyboard.press("Enter")
        await page.wait_for_url(re.compile(r"/batches\?text=bat-$"))
        await page.keyboard.press("g")
        await page.keyboard.press("w")
        await page.wait_for_url("**/watches")
        await page.keyboard.press("?")
        await expect(page.locator("#help")).to_be_visible()
        assert [] == await look.violations()
        await page.keyboard.press("Escape")
        await expect(page.locator("#help")).to_be_hidden()
        assert [] == look.complaints


async def test_without_a_script_all_of_it_works(browser: Browser, place: Place) -> None:
    """By links, forms and reloads."""
    async with looking(browser, place.url, java_script_enabled=False) as look:
        await look.open("/")
        await expect(look.page.locator("#feed")).to_contain_text("reload to update")
        await look.page.click("nav >> text=Watches")
        await look.page.click("button[aria-label^='Look now']")
        await expect(look.page.locator("main > .done")).to_contain_text("looked at now")


async def test_nothing_jumps_while_the_page_loads(browser: Browser, place: Place) -> None:
    """Measured as browsers do: the layout shifts by nothing."""
    async with looking(browser, place.url) as look:
        await look.page.add_init_script(
            "window.shift = 0; new PerformanceObserver((list) => { for (const one of"
            " list.getEntries()) window.shift += one.value; })"
            ".observe({ type: 'layout-shift', buffered: true });"
        )
        await look.open("/")
        await look.is_live()

        assert await look.page.evaluate("window.shift") < 0.01
