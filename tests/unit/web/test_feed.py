"""The live feed: whoever was away misses nothing, and whoever listens costs little."""

from __future__ import annotations

import asyncio
import json
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchwatch.clock import Clock
from batchwatch.domain.batch import EventId, WatchName
from batchwatch.domain.delivery import Attempt, Settled, State
from batchwatch.domain.event import Event
from batchwatch.following import Daemon, Messages
from batchwatch.store.retention import Retention
from batchwatch.web import feed
from tests.support.builders import at
from tests.support.site import ENDPOINT, a_site

if TYPE_CHECKING:
    from tests.support.site import Site

STREAM = "/api/v1/events/stream"
TYPES = ("watch.failing", "watch.recovered")


async def tell(
    site: Site, number: int, *, type_: str = TYPES[0], watch: str = "default", size: int = 0
) -> None:
    """Commit one event, and let those know who listen."""
    data = {"padding": "x" * size}
    event = Event(EventId(f"evt_{number:032x}"), type_, WatchName(watch), at(number), data)
    async with site.store.database.write() as connection:
        await site.store.outbox.enqueue(connection, [event])
    site.store.outbox.committed([event])


async def listen(
    site: Site, count: int, *, query: str = "", last_id: str = ""
) -> tuple[list[dict[str, Any]], str]:
    """The next ``count`` events, and the place after them."""
    messages = Messages(last_id=last_id)
    found: list[dict[str, Any]] = []
    headers = {"Last-Event-ID": last_id} if last_id else {}
    async with asyncio.timeout(20), site.http.get(STREAM + query, headers=headers) as answer:
        assert (200, "text/event-stream") == (answer.status, answer.content_type)
        while len(found) < count:
            # Until the next empty line: so it stops in the middle of what was sent at once.
            block = await answer.content.readuntil(b"\n\n")
            found += [json.loads(text) for text in messages.feed(block)]
    return found, messages.last_id


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path / 'batchwatch.db'}"


@settings(max_examples=15, deadline=None)
@given(visits=st.lists(st.tuples(st.integers(0, 4), st.integers(1, 4)), min_size=1, max_size=5))
def test_whoever_comes_and_goes_hears_each_event_once_in_order(
    visits: list[tuple[int, int]],
) -> None:
    """Whatever happens while they are away, and wherever in the stream they leave."""

    async def follow() -> tuple[list[int], int]:
        with tempfile.TemporaryDirectory() as folder:
            async with a_site(f"sqlite+aiosqlite:///{Path(folder) / 'batchwatch.db'}") as site:
                told, last_id = 0, "0"
                heard: list[int] = []
                for more, wanted in visits:
                    for _ in range(more):
                        told += 1
                        await tell(site, told)
                    count = min(wanted, told - len(heard))
                    if count:
                        found, last_id = await listen(site, count, last_id=last_id)
                        heard += [int(one["id"].removeprefix("evt_"), 16) for one in found]
                rest, _ = await listen(site, told - len(heard), last_id=last_id)
                heard += [int(one["id"].removeprefix("evt_"), 16) for one in rest]
                return heard, told

    heard, told = asyncio.run(follow())
    assert list(range(1, told + 1)) == heard


async def test_who_listens_hears_at_once(url: str) -> None:
    """Without a place, of what comes from then on; each as the API shows it."""
    async with a_site(url) as site:
        await tell(site, 1)
        async with asyncio.timeout(10), site.http.get(STREAM) as answer:
            await answer.content.readuntil(b"retry: 2000\n\n")
            place = await answer.content.readuntil(b"\n\n")
            await tell(site, 2)
            block = await answer.content.readuntil(b"\n\n")
        async with site.http.get("/api/v1/events?after=1") as page:
            (expected,) = (await page.json())["items"]

    assert b"id: 1\n\n" == place, "who is cut off now goes on from there"
    assert f"id: {expected['seq']}\ndata: ".encode() == block[: block.index(b"{")]
    assert expected == json.loads(block[block.index(b"{") :])


async def test_only_what_is_wanted_is_heard_and_the_rest_is_passed(url: str) -> None:
    """By type, group and watch; nobody is told again of what was looked through."""
    async with a_site(url) as site:
        for number in range(1, 9):
            await tell(site, number, type_=TYPES[number % 2], watch=f"watch-{number % 3}")
        by_type, _ = await listen(site, 4, query=f"?after=0&type={TYPES[0]}")
        by_watch, _ = await listen(site, 2, query="?after=0&watch=watch-0")
        of_group, _ = await listen(site, 8, query="?after=0&type=watch.*")

    assert [2, 4, 6, 8] == [one["seq"] for one in by_type]
    assert [3, 6] == [one["seq"] for one in by_watch]
    assert list(range(1, 9)) == [one["seq"] for one in of_group]


async def test_the_browsers_place_counts_more_than_the_addresss(url: str) -> None:
    """A browser that connects again asks for the same address, with the id that it saw last."""
    async with a_site(url) as site:
        for number in range(1, 4):
            await tell(site, number)
        found, _ = await listen(site, 1, query="?after=0", last_id="2")

    assert [3] == [one["seq"] for one in found]


@pytest.mark.parametrize("last_id", ["x", "-1", "1.5", "9" * 40])
async def test_a_place_that_is_none_is_a_problem(url: str, last_id: str) -> None:
    """Said before the stream begins."""
    async with (
        a_site(url) as site,
        site.http.get(STREAM, headers={"Last-Event-ID": last_id}) as answer,
    ):
        assert (400, "application/problem+json") == (answer.status, answer.content_type)


async def test_there_are_so_many_streams_and_no_more(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who leaves makes room."""
    monkeypatch.setattr(feed, "STREAMS", 2)
    async with a_site(url) as site:
        async with (
            site.http.get(STREAM),
            site.http.get("/live"),
            site.http.get(STREAM) as refused,
        ):
            assert (503, "30") == (refused.status, refused.headers["Retry-After"])
        async with asyncio.timeout(10):
            while True:  # until the server has looked, and seen that both are gone
                site.clock.advance(feed.LOOK)
                async with site.http.get(STREAM) as answer:
                    if answer.status == 200:
                        break


async def test_who_leaves_is_no_longer_told(url: str) -> None:
    """Nothing is kept for somebody who has gone."""
    async with a_site(url) as site:
        outbox = site.store.outbox
        async with site.http.get(STREAM) as answer:
            await answer.content.readuntil(b"id: 0\n\n")
            await tell(site, 1)
            await answer.content.readuntil(b"\n\n")
            assert outbox._listeners  # noqa: SLF001  # there is no other way to see it
        async with asyncio.timeout(10):
            while outbox._listeners:  # noqa: SLF001  # as above
                site.clock.advance(feed.LOOK)
                await asyncio.sleep(0)


async def test_who_takes_nothing_is_cut_off(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a hundred of them would keep all others out, for an hour each."""
    monkeypatch.setattr(feed, "SLOWEST", 0.2)
    async with a_site(url) as site:
        for number in range(1, 41):
            await tell(site, number, size=1_000_000)
        host, _, port = site.url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1_000)
        writer.write(f"GET {STREAM}?after=0 HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        async with asyncio.timeout(20):
            for begun in (True, False):  # until it listens, and until it listens no longer
                while bool(site.store.outbox._listeners) is not begun:  # noqa: ASYNC110, SLF001  # there is no other way to see it
                    await asyncio.sleep(0)
        writer.close()
        del reader


async def test_head_begins_no_stream(url: str) -> None:
    """It says what would come."""
    async with a_site(url) as site, site.http.head(STREAM) as answer:
        assert (200, "text/event-stream") == (answer.status, answer.content_type)


async def remove(site: Site, *, before: float) -> None:
    """Have all events of before sent, and then removed."""
    attempt = Attempt(at(0), 0.1, status_code=204)
    while claimed := await site.store.outbox.claim(ENDPOINT, limit=9):
        await site.store.outbox.settle([Settled(one, attempt, State.DELIVERED) for one in claimed])
    steps = Retention(site.store.database).remove(now=at(before), older_than=timedelta(0))
    async for _ in steps:
        pass


async def test_who_goes_on_where_something_was_removed_is_told_so(url: str) -> None:
    """And where to go on; not who begins, nor who wants none of that."""
    async with a_site(url) as site:
        for number in range(1, 9):
            await tell(site, number, type_=TYPES[number > 4])
        await remove(site, before=4.5)
        for path, headers in (
            ("/api/v1/events?after=2", {}),
            (f"{STREAM}?after=2", {}),
            (STREAM, {"Last-Event-ID": "2"}),
            (f"{STREAM}?type=watch.*", {"Last-Event-ID": "2"}),
        ):
            async with site.http.get(path, headers=headers) as answer:
                said = (await answer.json())["detail"]
            assert 410 == answer.status
            assert "of what came after 2 some is no longer kept, up to 4" in said
        found, _ = await listen(site, 4, last_id="0")
        lately, _ = await listen(site, 4, last_id="4")
        wanted, _ = await listen(site, 4, query=f"?type={TYPES[1]}", last_id="2")
        async with site.http.get("/api/v1/events?after=0") as answer:
            listed = (await answer.json())["items"]

    assert [5, 6, 7, 8] == [one["seq"] for one in found]
    assert found == lately == wanted == listed


async def test_a_moment_that_is_no_longer_kept_has_the_place_of_what_is(url: str) -> None:
    """So that whoever follows from then on is not refused."""
    async with a_site(url) as site:
        for number in range(1, 9):
            await tell(site, number)
        await remove(site, before=4.5)
        daemon = Daemon(site.url, token=None, clock=Clock())
        places = [await daemon.place_of(at(moment)) for moment in (1, 5, 7)]

    assert [4, 4, 6] == places
