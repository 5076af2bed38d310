"""The pages over real sockets: each is there, says what is so, and believes nobody's markup."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from functools import partial
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
import sqlalchemy as sa
from yarl import URL

from batchwatch.domain.batch import (
    COMPLETED,
    FAILED,
    RUNNING,
    BatchId,
    FileOutcome,
    Status,
    WatchName,
)
from batchwatch.domain.delivery import Attempt, Failure, Settled, State
from batchwatch.store import StoreError
from batchwatch.store.replicas import Fleet, Holding
from batchwatch.store.schema import coverage, gaps
from batchwatch.web.access import Access
from batchwatch.web.dashboard.export import MOST
from batchwatch.web.health import Troubles
from batchwatch.web.route import Role
from tests.support.builders import WATCH, a_recorder, a_replica, a_sighting, at
from tests.support.site import ENDPOINT, HTML, Site, a_site, a_watch

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from batchwatch.store import Page

PAGES = (
    "/", "/batches", "/deliveries", "/events", "/endpoints", "/watches", "/replicas", "/api",
)  # fmt: skip
# Markup, an end of an attribute, a word that turns what follows around, and a path.
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\u202eevil/../x"


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A store of its own."""
    return f"sqlite+aiosqlite:///{tmp_path / 'batchwatch.db'}"


async def see(
    site: Site,
    batch_id: str = "bat-1",
    status: Status = RUNNING,
    *,
    files: tuple[FileOutcome, ...] | None = None,
    updated: float = 0,
) -> None:
    """A sighting of a batch, with its results if there are any."""
    more = {} if files is None else {"asked_results": True, "results": files}
    seen = a_sighting(status, batch_id=batch_id, updated=updated, seen_at=at(updated), **more)
    decide = partial(a_recorder().record, seen=[seen], now=at(updated))
    await site.store.batches.change(WATCH, {BatchId(batch_id)}, decide)


async def refuse(site: Site, *, response: str = "no", detail: str = "it answered 500") -> None:
    """Have all that is owed given up."""
    while found := await site.store.outbox.claim(ENDPOINT, limit=100):
        await site.store.outbox.settle([
            Settled(
                one,
                Attempt(at(1), 0.02, failure=Failure.SERVER_ERROR, status_code=500,
                        detail=detail, response=response),
                State.DEAD,
                reason="it failed for three days",
            )
            for one in found
        ])  # fmt: skip


async def everything(url: str, path: str) -> bytes:
    """All bytes that come as an answer, until the connection is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", URL(url).port)
    lines = f"GET {path} HTTP/1.1", "Host: localhost", "Accept: text/html", "Connection: close"
    writer.write("\r\n".join((*lines, "", "")).encode())
    raw = await reader.read()
    writer.close()
    await writer.wait_closed()
    return raw


# ------------------------------------------------------------------------------- each page


@pytest.mark.parametrize("path", PAGES)
async def test_each_page_is_there_before_anything_has_happened(path: str, url: str) -> None:
    """Whole, in one frame, and not a word of Python in it."""
    async with a_site(url) as site:
        text = await site.page(path)

    assert text.startswith("<!doctype html>")
    assert '<main id="main"' in text
    assert not re.search(r"\bNone\b|\bUndefined\b|&lt;bound method", text)


@pytest.mark.parametrize("path", [*PAGES, "/batches/default/bat-1", "/nothing"])
async def test_a_page_has_nothing_that_the_policy_forbids(path: str, url: str) -> None:
    """No style and no script in the markup, no handlers, nothing from another host."""
    async with a_site(url) as site:
        await see(site, status=COMPLETED, files=(FileOutcome("dfl-1", error_message="broke"),))
        async with site.http.get(path, headers=HTML) as answer:
            text = await answer.text()

    assert [] == re.findall(r"<[^>]+\s(?:style|on[a-z]+)=", text)
    assert [] == re.findall(r"<style|<script(?![^>]+src=)", text)
    assert [] == re.findall(r'(?:src|href|action)="(?!/|#)[^"]*"', text)


async def test_programs_get_at_the_root_what_they_always_got(url: str) -> None:
    """A browser says that it takes HTML; curl and `batchwatch check` do not."""
    async with a_site(url) as site, site.http.get("/") as answer:
        assert "application/json" == answer.content_type
        assert "/readyz" in (await answer.json())["paths"]


async def test_the_files_of_the_pages_are_kept_for_ever(url: str) -> None:
    """Under an address that changes with them; another one is none."""
    async with a_site(url, role=Role.NONE) as site:
        text = await (await site.http.get("/nothing", headers=HTML)).text()
        found = re.findall(r'"(/static/\w+/[\w.]+)"', text)
        kinds = {}
        for path in found:
            async with site.http.get(path) as answer:
                assert "immutable" in answer.headers["Cache-Control"]
                kinds[path.rpartition("/")[2]] = answer.content_type
        stale = await site.http.get("/static/0123/dashboard.css")

    assert kinds == {
        "mark.svg": "image/svg+xml",
        "dashboard.css": "text/css",
        "dashboard.js": "text/javascript",
    }
    assert 404 == stale.status


async def test_behind_a_prefix_every_link_has_it(url: str) -> None:
    """A proxy that serves under a path gets no link past it."""
    async with a_site(url, prefix="/watch") as site:
        await see(site)
        for path in (*PAGES, "/batches/default/bat-1"):
            text = await site.page(path)
            assert [] == re.findall(r'(?:src|href|action)="(?!/watch/|#)[^"]*"', text)


@pytest.mark.parametrize(("given", "shown"), [("dark", ' data-theme="dark"'), ("<b>", "")])
async def test_the_theme_is_in_the_first_answer(given: str, shown: str, url: str) -> None:
    """From the cookie, so that nothing flashes; what is no theme is none."""
    async with a_site(url) as site:
        cookie = {"Cookie": f"batchwatch_theme={given}"}
        text = await (await site.http.get("/", headers=HTML | cookie)).text()

    assert f'<html lang="en"{shown} data-now=' in text


# -------------------------------------------------------------------------------- contents


async def test_the_overview_says_that_all_is_well_only_when_it_is(url: str) -> None:
    """And else what is not, with a way there."""
    async with a_site(url) as site:
        assert "All is well" in await site.page("/")
        await see(site)
        await refuse(site)
        text = await site.page("/")

    assert "All is well" not in text
    assert re.search(r'href="/deliveries\?state=dead"><bdi>\d notifications? given up', text)


async def test_the_overview_names_troubles_and_why(url: str) -> None:
    """The same that /readyz says."""
    troubles = Troubles(grave={"watch default": "answered 401: check LLAMA_CLOUD_API_KEY"})
    async with a_site(url, troubles=troubles) as site:
        text = await site.page("/")

    assert "1 thing needs you" in text
    assert "answered 401: check LLAMA_CLOUD_API_KEY" in text


@pytest.mark.parametrize(("closed_at", "is_told"), [(None, True), (at(90), False)])
async def test_time_that_nobody_watched_is_a_concern_until_it_is_listed(
    closed_at: datetime | None, url: str, *, is_told: bool
) -> None:
    """What was listed afterwards needs nobody."""
    gap = {"gap_from": at(10), "gap_to": at(60), "kind": "failing", "closed_at": closed_at}
    async with a_site(url) as site:
        site.clock.advance(120)
        window = {"covered_from": at(0), "covered_to": at(120), "passes": 9}
        async with site.store.database.write() as connection:
            await connection.execute(sa.insert(coverage).values(watch=WATCH, **window))
            await connection.execute(sa.insert(gaps).values(watch=WATCH, **gap))
        text = await site.page("/")

    assert is_told is ("1 gap in the last day" in text)
    assert is_told is not ("All is well" in text)


async def test_a_batch_tells_its_story(url: str) -> None:
    """Statuses with their durations, what became of its files and why, and who was told."""
    files = (
        FileOutcome("dfl-1", error_message="page 1 is broken"),
        FileOutcome("dfl-2", error_message="page 22 is broken"),
        FileOutcome("dfl-3", job_type="parse_v2", job_id="pjb-3"),
    )
    async with a_site(url) as site:
        await see(site)
        await see(site, status=COMPLETED, updated=75, files=files)
        await refuse(site)
        text = await site.page("/batches/default/bat-1")
        failed = await site.page("/batches/default/bat-1?fate=unmapped")
        found = await site.page("/batches/default/bat-1?text=PAGE%2022")

    assert "RUNNING" in text
    assert "1 min 15 s" in text
    assert re.search(r'<b class="num">2</b>.*page 1 is broken', text), "one group of like messages"
    assert 'action="/deliveries/1/replay"' in text
    assert "it failed for three days" in text
    assert ("dfl-2" in failed, "dfl-3" in failed) == (True, False)
    assert ("dfl-2" in found, "dfl-1" in found) == (True, False)


async def test_a_delivery_shows_what_was_sent_and_what_came_back(url: str) -> None:
    """Each try, the newest unfolded."""
    async with a_site(url) as site:
        await see(site)
        await refuse(site, response="upstream broke", detail="HTTP 500")
        text = await site.page("/deliveries/1")
        (event,) = set(re.findall(r'href="/events/(evt_\w+)"', text))
        told = await site.page(f"/events/{event}")

    assert "upstream broke" in text
    assert 1 == text.count("HTTP 500"), "what came back is said once"
    assert "&#34;status&#34;: &#34;RUNNING&#34;" in text
    assert 'href="/deliveries/1"' in told


async def test_the_tab_of_a_list_is_the_one_that_is_shown(url: str) -> None:
    """All of them at first, as well."""
    marked = r'aria-current="true">(\w+)'
    async with a_site(url) as site:
        for path in ("/batches", "/deliveries", "/events"):
            assert ["All"] == re.findall(marked, await site.page(path))
        assert ["Watches"] == re.findall(marked, await site.page("/events?type=watch.*"))


async def test_filters_stand_in_the_address_and_in_the_form(url: str) -> None:
    """So that an address can be sent to somebody; empty fields of the form are no filters."""
    async with a_site(url) as site:
        await see(site, "bat-a")
        await see(site, "bat-b", FAILED)
        text = await site.page("/batches?status=FAILED&text=&watch=&since=2026-11-24T00:00&sort=")

    assert ("bat-b" in text, "bat-a" in text) == (True, False)
    assert '<input type="hidden" name="status" value="FAILED">' in text
    assert 'value="2026-11-24T00:00"' in text


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("2026-11-24T08:00:30%2B05:00", "2026-11-24T03:00"),
        ("2026-11-24T08:00", "2026-11-24T08:00"),
        ("2026-11-24", "2026-11-24T00:00"),
        ("0001-01-01T00:00:00%2B05:00", ""),
    ],
)
async def test_a_moment_is_in_the_form_as_it_is_meant_there(
    asked: str, shown: str, url: str
) -> None:
    """In UTC, whatever zone it came in: to send the form again changes nothing."""
    async with a_site(url) as site:
        text = await site.page(f"/batches?since={asked}")

    assert f'name="since" type="datetime-local" value="{shown}"' in text


async def test_pages_of_a_list_follow_each_other(url: str) -> None:
    """By links that keep the filters."""
    async with a_site(url) as site:
        for number in range(5):
            await see(site, f"bat-{number}")
        seen = []
        path: str | None = "/batches?limit=2&active=true"
        while path:
            text = await site.page(path)
            seen += re.findall(r'data-key="default/(bat-\d)"', text)
            older = re.search(r'href="([^"]*cursor=[^"]*)"', text)
            path = older and older[1].replace("&amp;", "&")
            assert path is None or "active=true" in path

    assert ["bat-4", "bat-3", "bat-2", "bat-1", "bat-0"] == seen


async def test_a_page_that_looked_far_and_found_little_says_so(url: str) -> None:
    """It is not the end, and there is a way on."""
    async with a_site(url) as site:
        for number in range(4_100):
            if number % 1_000 == 0:
                seen = [a_sighting(batch_id=f"bat-{number + one}") for one in range(1_000)]
                decide = partial(a_recorder().record, seen=seen, now=at(0))
                await site.store.batches.change(WATCH, {one.id for one in seen}, decide)
        text = await site.page("/batches?text=zzz&watch=default")

    assert "No more batches found so far." in text
    assert "Look further back" in text


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/batches", "Watch <b><bdi>default</bdi></b> looks at <bdi>https://llamacloud.test"),
        ("/deliveries", "The first event goes to"),
        ("/deliveries?state=dead", "Nothing was given up"),
        ("/events", "Nothing has happened yet"),
        ("/events?watch=other", "No event matches"),
        ("/", "No batch and no file has failed in the last 24 hours"),
    ],
)
async def test_what_is_empty_says_why_and_what_to_do(path: str, says: str, url: str) -> None:
    """An empty table helps nobody."""
    async with a_site(url) as site:
        assert says in await site.page(path)


async def test_without_endpoints_it_is_said_how_to_set_one(url: str) -> None:
    """On each page where somebody would look for it."""
    async with a_site(url, endpoints=()) as site:
        for path in ("/", "/endpoints", "/deliveries"):
            assert "BATCHWATCH_WEBHOOK_URL" in await site.page(path)


async def test_filters_without_a_match_say_what_there_is(url: str) -> None:
    """And lead back to it."""
    async with a_site(url) as site:
        await see(site)
        text = await site.page("/batches?status=FAILED")

    assert "No batch matches" in text
    assert "There are 1 running." in text


# --------------------------------------------------------------------------------- hostile


async def test_nothing_that_comes_from_elsewhere_is_markup(url: str) -> None:
    """Ids, file names, messages and answers: wherever they are shown, they are text."""
    batch_id = f"bat-{HOSTILE}"
    where = f"/batches/default/{quote(batch_id, safe='')}"
    async with a_site(url) as site:
        await see(site, batch_id)
        files = (FileOutcome(HOSTILE, error_message=HOSTILE),)
        await see(site, batch_id, COMPLETED, updated=5, files=files)
        await site.store.names.add(WATCH, {HOSTILE: HOSTILE}, now=at(0))
        await refuse(site, response=HOSTILE, detail=HOSTILE)
        texts = [
            await site.page(path)
            for path in (
                *PAGES, where, "/deliveries/1", f"/batches?text={quote(HOSTILE)}",
                f"/events?type={quote(HOSTILE[:90])}",
            )
        ]  # fmt: skip
        texts.append(await site.page(f"/{quote(HOSTILE, safe='')}", status=404))

    for text in texts:
        assert "<script>alert" not in text
        assert "<img src=x" not in text
    assert "&lt;script&gt;alert(1)" in texts[len(PAGES)]
    turned = [one for text in texts for one in re.findall(r"[^\n]*\u202e", text)]
    assert turned
    for text in texts:
        shown = re.sub(r'<title>.*?</title>|"[^"]*"', "", text, flags=re.DOTALL)
        outside = re.sub(r"<bdi>.*?</bdi>", "", shown, flags=re.DOTALL)
        assert "\u202e" not in re.sub(r"<option.*?</option>", "", outside, flags=re.DOTALL)


# --------------------------------------------------------------------------------- exports


async def test_what_is_shown_can_be_had_as_csv(url: str) -> None:
    """The same filters, all pages, with a header, and no cell that a spreadsheet would run."""
    async with a_site(url) as site:
        await see(site, "=cmd()")
        await see(site, "+1")
        await see(site, "@x", FAILED)
        kind, text = await site.file("/batches?active=true&limit=1&format=csv")

    rows = list(csv.DictReader(io.StringIO(text)))
    assert "text/csv" == kind
    assert {"'=cmd()", "'+1"} == {one["id"] for one in rows}
    assert {"expected.median", "stuck.since", "durations"} <= set(rows[0])


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("/batches?format=json", "id"),
        ("/deliveries?format=json", "endpoint"),
        ("/events?format=json", "payload"),
        ("/batches/default/bat-1?format=json", "fate"),
    ],
)
async def test_what_is_shown_can_be_had_as_json(path: str, key: str, url: str) -> None:
    """As the API has it; nothing is an empty list."""
    async with a_site(url) as site:
        await see(site, status=COMPLETED, files=(FileOutcome("dfl-1", error_message="broke"),))
        kind, text = await site.file(path)
        _, none = await site.file("/batches?status=NONE&format=json")

    assert "application/json" == kind
    assert key in json.loads(text)[0]
    assert [] == json.loads(none)


async def test_an_export_has_its_bounds(url: str) -> None:
    """However much there is; the daemon has other work, too."""
    async with a_site(url) as site:
        for start in range(0, MOST + 200, 1_700):
            seen = [a_sighting(batch_id=f"bat-{start + one}") for one in range(1_700)]
            decide = partial(a_recorder().record, seen=seen, now=at(0))
            await site.store.batches.change(WATCH, {one.id for one in seen}, decide)
        _, text = await site.file("/batches?format=csv")

    assert MOST + 1 == len(text.splitlines())


async def test_an_export_that_cannot_go_on_is_broken_off(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No page about it stands in the midst of its rows, and none takes it for whole."""
    async with a_site(url) as site:
        for number in range(201):
            await see(site, f"bat-{number}", updated=number)
        read, asked = site.store.pages.batches, 0

        async def break_down(*args: Any, **more: Any) -> Page:
            nonlocal asked
            asked += 1
            if asked > 1:
                raise StoreError("the disk is gone")
            return await read(*args, **more)

        monkeypatch.setattr(site.store.pages, "batches", break_down)
        raw = await everything(site.url, "/batches?format=csv")

    assert 1 == raw.count(b"HTTP/1.1")
    assert b"bat-1," in raw
    assert not raw.endswith(b"0\r\n\r\n")
    assert [] == caplog.records


# -------------------------------------------------------------------------------- replicas


def a_fleet() -> Fleet:
    """One that lives, one that is gone, and a watch of each; the store's clock is a day ahead."""
    now = at(86_400)
    held = Holding(WATCH, "here-1", 7, now + timedelta(seconds=9), now, None, None, now)
    lost = replace(held, watch=WatchName("lost"), holder=None, held_until=now, token=3)
    replicas = [
        a_replica("here-1", started_at=now - timedelta(hours=2), seen_at=now),
        a_replica(HOSTILE, is_alive=False, seen_at=now - timedelta(minutes=3), in_flight=4),
    ]
    return Fleet(now, replicas, {one.watch: one for one in (held, lost)})


async def test_who_polls_what_is_shown_by_the_clock_of_the_store(url: str) -> None:
    """Whatever this host's says; and what nobody polls is said."""
    watches = [
        a_watch(holder="here-1", silence=12.0),
        a_watch(name="lost", holder=None, silence=None, allowance=None, troubles=("nobody",)),
    ]
    async with a_site(url, fleet=a_fleet(), watches=watches) as site:
        texts = {path: in_words(await site.page(path)) for path in ("/replicas", "/watches", "/")}
        whole = await site.page("/replicas")

    told = texts["/replicas"]
    assert "Runs for 2 h Seen just now" in told
    assert "gone" in told
    assert "Seen 3 min ago Polls no watch · 4 deliveries in flight" in told.replace("  ", " ")
    assert "default here-1 just now 12 s ago" in told
    assert "lost nobody just now none yet" in told
    assert "<script>alert" not in whole
    assert "Polled by here-1" in texts["/watches"]
    assert "No replica polls it" in texts["/watches"]
    assert all("Replicas" in text for text in texts.values())


async def test_a_store_for_one_daemon_has_no_table_of_replicas(url: str) -> None:
    """Nor a way there; whoever comes by hand is told why."""
    async with a_site(url) as site:
        overview, text = await site.page("/"), await site.page("/replicas")

    assert 'href="/replicas"' not in overview + text
    assert "which has one daemon: this one" in text
    assert "Who polls what" not in text


def in_words(page: str) -> str:
    """What is to be read on it."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


# ----------------------------------------------------------------------------------- deeds

DEEDS = {
    "/deliveries/1/replay": ("replay", [1]),
    "/endpoints/webhook/replay": ("replay", [1]),
    "/endpoints/webhook/enable": ("enable", "webhook"),
    "/endpoints/webhook/disable": ("disable", "webhook"),
    "/watches/default/poll": ("poll", "default"),
}


@pytest.mark.parametrize("path", DEEDS)
async def test_a_deed_is_done_and_leads_back(path: str, url: str) -> None:
    """By a form, without a script; a reload does nothing twice."""
    async with a_site(url) as site:
        await see(site)
        await refuse(site)
        status, where = await site.pressed(path, back="/watches")
        text = await site.page(where)

    assert (303, [DEEDS[path]]) == (status, [(name, what) for name, what in site.asked])
    assert where.startswith("/watches?done=")
    assert 'class="done tone-' in text


async def test_a_test_shows_what_the_endpoint_said(url: str) -> None:
    """At once, for it is kept nowhere."""
    refused = Attempt(
        at(0), 0.2, failure=Failure.CLIENT_ERROR, status_code=403, response="go <away>"
    )
    async with a_site(url, answer=refused) as site:
        status, text = await site.pressed("/endpoints/webhook/test")

    assert 200 == status
    assert ("HTTP 403" in text, "client error" in text, "go &lt;away&gt;" in text) == (True,) * 3


@pytest.mark.parametrize("path", [*DEEDS, "/endpoints/webhook/test"])
async def test_who_only_reads_does_nothing_and_sees_no_buttons(path: str, url: str) -> None:
    """The page looks the same otherwise."""
    async with a_site(url, role=Role.READ) as site:
        await see(site)
        await refuse(site)
        status, _ = await site.pressed(path)
        texts = [
            await site.page(one) for one in (*PAGES, "/batches/default/bat-1", "/deliveries/1")
        ]

    assert 403 == status
    assert [] == site.asked
    assert [] == [one for text in texts for one in re.findall(r'method="post"', text)]


@pytest.mark.parametrize(
    "back",
    [
        "https://evil.test/", "//evil.test", "/\\evil.test", "/deliveries//evil.test",
        "/deliveries/../..//evil.test", "/deliveries\r\nX: y", "javascript:alert(1)", "",
    ],
)  # fmt: skip
async def test_a_deed_never_leads_elsewhere(back: str, url: str) -> None:
    """Whatever the form says."""
    async with a_site(url) as site:
        _, where = await site.pressed("/watches/default/poll", back=back)

    assert "/watches?done=polling" == where


async def test_the_address_puts_no_words_on_the_page(url: str) -> None:
    """What was done is a code of ours, and a number."""
    async with a_site(url) as site:
        unknown = await site.page("/endpoints?done=You+were+hacked&n=3")
        odd = await site.page("/endpoints?done=replayed&n=call+0900")

    assert 'class="done' not in unknown
    assert "0 sent again" in odd


# ---------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/nothing", 404, "There is no such page"),
        ("/batches/default/bat-9", 404, "watch default knows no batch bat-9"),
        ("/deliveries/9", 404, "there is no delivery 9"),
        ("/deliveries/x", 404, "there is nothing at /deliveries/x"),
        ("/events/evt_9", 404, "there is no event evt_9"),
        ("/batches?sort=odd", 400, "parameter sort"),
        ("/batches?nothing=1", 400, "Without filters"),
        ("/batches?cursor=abc", 400, "cursor"),
        ("/batches?format=xls", 400, "csv or json"),
    ],
)
async def test_what_goes_wrong_is_a_page_in_the_same_frame(
    path: str, status: int, says: str, url: str
) -> None:
    """Which says why, and leads on; a program gets the same as a problem."""
    async with a_site(url) as site:
        text = await site.page(path, status=status)
        async with site.http.get(path) as answer:
            problem = await answer.json()

    assert says in text
    assert 'aria-label="Pages"' in text
    assert status == problem["status"]


async def test_while_the_store_cannot_be_read_a_page_says_that(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And where there is more of it."""

    def broken(*_args: object, **_more: object) -> None:
        raise StoreError("the disk is gone")

    async with a_site(url) as site:
        monkeypatch.setattr(site.store.pages, "batches", broken)
        text = await site.page("/batches", status=503)

    assert "the store does not work at present" in text
    assert "the disk is gone" not in text
    assert 'href="/readyz"' in text


async def test_who_may_not_read_is_led_to_the_login_from_the_root(url: str) -> None:
    """And sees nothing of what is behind it; a wrong token leads nowhere."""
    async with a_site(url, access=Access(token="0123456789abcdef")) as site:
        async with site.http.get("/", headers=HTML, allow_redirects=False) as answer:
            found = answer.status, answer.headers["Location"]
        wrong = HTML | {"Authorization": "Bearer fedcba9876543210"}
        async with site.http.get("/", headers=wrong) as answer:
            refused, text = answer.status, await answer.text()

    assert ((303, "/login"), 401) == (found, refused)
    assert "Log in" in text
    assert "Finished today" not in text


@pytest.mark.parametrize("path", PAGES)
async def test_without_a_token_no_page_is_shown_under_anothers_name(path: str, url: str) -> None:
    """A site that gives its name to 127.0.0.1 could read it, the first page as any other."""
    async with (
        a_site(url, access=Access(token=None)) as site,
        site.http.get(path, headers=HTML | {"Host": "evil.example"}) as answer,
    ):
        assert 421 == answer.status
        assert "evil.example" not in await answer.text()


async def test_examples_are_for_who_asks_from_beyond_the_proxy(url: str) -> None:
    """A token must not be sent in the clear to where the page was got by https."""
    access = Access(token="0123456789abcdef", proxies=[ip_network("127.0.0.0/8")])
    asked = HTML | {
        "Authorization": "Bearer 0123456789abcdef",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "batches.example",
    }
    async with (
        a_site(url, access=access) as site,
        site.http.get("/api", headers=asked) as answer,
    ):
        text = await answer.text()

    assert "https://batches.example/api/v1/batches" in text
    assert "http://" not in text.replace("http://www.w3.org", "")


def test_what_makes_pages_is_loaded_when_somebody_looks() -> None:
    """A daemon that nobody looks at starts without it."""
    loads = "import sys, batchwatch.daemon; print('jinja2' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", loads], capture_output=True, check=True)

    assert b"False" == found.stdout.strip()


async def test_no_path_makes_a_link_to_another_host(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two slashes at its beginning would."""

    def broken(*_args: object, **_more: object) -> None:
        raise StoreError("the disk is gone")

    async with a_site(url) as site:
        monkeypatch.setattr(site.store.pages, "batches", broken)
        text = await (await site.http.get(f"{site.url}//evil.test/x", headers=HTML)).text()
        later = await site.page("/batches?text=a%22b", status=503)

    assert 'href="//' not in text
    assert 'href="/batches?text=a%22b">Try again' in later
