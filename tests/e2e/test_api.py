"""The API of a running daemon, judged by those who know what an API should be."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp.test_utils import unused_port
from openapi_spec_validator import OpenAPIV31SpecValidator

from batchwatch.domain.routing import FOR_PROGRAMS
from batchwatch.simulator import Simulator
from batchwatch.store import Pages, WantedEvents
from batchwatch.web import feed
from tests.support.daemon import environment, running
from tests.support.receiver import Receiver, says
from tests.unit.deliver.authority import Authority

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from batchwatch.store.pages import Key, Page

TOKEN = "0123456789abcdef-admin"
EXAMPLES = os.environ.get("BATCHWATCH_TEST_EXAMPLES", "15")  # of requests for each operation
ENDED = {"batch.completed", "batch.failed", "batch.cancelled"}


@asynccontextmanager
async def site(
    folder: Path, *, gone: str = "", **more: str
) -> AsyncIterator[tuple[str, aiohttp.ClientSession]]:
    """A daemon whose batches have ended, with one receiver that takes all and one that is gone."""
    async with (
        Simulator(scenario="failing", seed=4, speed=20) as sim,
        Receiver() as receiver,
    ):
        port = unused_port()
        environ = environment(
            sim,
            receiver,
            folder,
            BATCHWATCH_LISTEN=f"127.0.0.1:{port}",
            BATCHWATCH_API_TOKEN=TOKEN,
            BATCHWATCH_ENDPOINTS__GONE__URL=gone or f"http://127.0.0.1:{unused_port()}/",
            BATCHWATCH_ENDPOINTS__GONE__RETRY_SCHEDULE="100ms",
            **more,
        )
        url = f"http://127.0.0.1:{port}"
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with running(environ), aiohttp.ClientSession(url, headers=headers) as http:
            await receiver.until(
                lambda got: (
                    20 <= len({one.batch_id for one in got if one.event.get("type") in ENDED})
                )
            )
            yield url, http


async def until(
    http: aiohttp.ClientSession,
    ask: Callable[[], Awaitable[Any]],
    enough: Callable[[Any], bool],
) -> Any:
    """Ask again whenever anything has changed, until the answer is enough."""
    async with http.get("/live") as ticks:
        while not enough(answer := await ask()):
            await ticks.content.readuntil(b"data: changed")
    return answer


async def got(http: aiohttp.ClientSession, path: str, **query: Any) -> Any:
    async with http.get(f"/api/v1{path}", params=query) as answer:
        assert 200 == answer.status, await answer.text()
        return await answer.json()


@pytest.mark.timeout(240)
async def test_a_tester_that_asks_whatever_the_document_allows_finds_nothing(
    tmp_path: Path,
) -> None:
    """No 5xx, nothing outside of the schema, no nonsense accepted, no sense refused, no way past.

    Schemathesis asks with all its checks but for the stream, which has no
    end. Ask more of it with BATCHWATCH_TEST_EXAMPLES.
    """
    (tmp_path / "data").mkdir()
    async with site(tmp_path / "data") as (url, http):
        document = await got(http, "/openapi.json")
        tester = await asyncio.create_subprocess_exec(
            Path(sys.executable).parent / "st",
            "run",
            f"{url}/api/v1/openapi.json",
            f"--header=Authorization: Bearer {TOKEN}",
            "--checks=all",
            "--exclude-operation-id=stream_events",
            f"--max-examples={EXAMPLES}",
            "--generation-deterministic",
            "--no-color",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=tmp_path,
        )
        said, _ = await tester.communicate()

    operations = sum(len(one) for one in document["paths"].values())
    assert 0 == tester.returncode, said.decode()[-8_000:]
    assert f"{operations - 1} selected / {operations} total" in said.decode()


async def test_the_document_is_valid(tmp_path: Path) -> None:
    """By the OpenAPI 3.1 meta-schema; anybody may read it."""
    async with (
        site(tmp_path) as (url, _),
        aiohttp.ClientSession(url) as stranger,
        stranger.get("/api/v1/openapi.json") as answer,
    ):
        document = await answer.json()

    OpenAPIV31SpecValidator(document).validate()


async def test_programs_read_the_same_as_people_are_told(tmp_path: Path) -> None:
    """Each batch with its timeline, its files, and a delivery to each endpoint for each event."""
    async with site(tmp_path) as (_, http):
        batches = (await got(http, "/batches", limit=200))["items"]
        for batch in batches:
            whole = await got(http, f"/batches/{batch['watch']}/{batch['id']}")
            files = await got(http, f"/batches/{batch['watch']}/{batch['id']}/files", limit=1000)
            assert batch["status"] == whole["transitions"][-1]["to_status"]
            assert [n for n, _ in enumerate(whole["transitions"], 1)] == [
                one["number"] for one in whole["transitions"]
            ]
            assert whole["files"]["files"] == len(files["items"])
            assert sum(whole["files"].values()) == 2 * whole["files"]["files"]
            told = {
                (one["id"], name)
                for one in whole["events"]
                if one["type"] in FOR_PROGRAMS
                for name in ("gone", "hook")
            }
            assert told == {(one["event_id"], one["endpoint"]) for one in whole["deliveries"]}
        stats = await got(http, "/stats")

    assert 20 == len(batches)
    assert {"COMPLETED", "FAILED", "CANCELLED"} >= stats["batches"].keys()
    assert 20 == sum(stats["batches"].values()) == sum(stats["ended_today"].values())
    assert 0 < stats["duration"]["median"] <= stats["duration"]["p95"]


async def test_who_pulls_gets_every_event_once_in_order(tmp_path: Path) -> None:
    """A consumer behind a firewall needs nothing but its last seq."""
    async with site(tmp_path) as (_, http):
        after, pulled = 0, []
        while page := (await got(http, "/events", after=after, limit=7))["items"]:
            pulled += page
            after = page[-1]["seq"]
        newest_first = []
        cursor: dict[str, str] = {}
        while True:
            some = await got(http, "/events", limit=9, **cursor)
            newest_first += some["items"]
            if some["next"] is None:
                break
            cursor = {"cursor": some["next"]}

    assert sorted(one["seq"] for one in pulled) == [one["seq"] for one in pulled]
    assert pulled == newest_first[::-1]
    assert 60 < len(pulled) == len({one["id"] for one in pulled})


async def test_a_listener_that_remembers_a_lost_store_hears_what_is_new(tmp_path: Path) -> None:
    """Its last id may be far beyond the end; it does not wait until the new store gets there."""
    beyond = {"Last-Event-ID": "999999999"}
    async with (
        site(tmp_path) as (_, http),
        http.get("/api/v1/events/stream", headers=beyond) as stream,
    ):
        await stream.content.readuntil(b"retry: 2000\n\n")
        async with http.post("/api/v1/endpoints/gone/disable") as answer:
            assert 200 == answer.status
        async with asyncio.timeout(10):
            heard = await stream.content.readuntil(b"endpoint.disabled")

    assert b"id: " in heard


@pytest.mark.parametrize("path", ["/live", "/api/v1/events/stream"])
async def test_who_leaves_makes_room_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """Pages are left again and again; none holds its place until there is something to say."""
    monkeypatch.setattr(feed, "STREAMS", 1)
    async with Simulator() as sim, Receiver() as receiver:
        port = unused_port()
        quiet = {"BATCHWATCH_LISTEN": f"127.0.0.1:{port}", "BATCHWATCH_POLL_INTERVAL": "1h"}
        environ = environment(sim, receiver, tmp_path, **quiet)
        async with running(environ), aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
            await sim.asked(1)
            async with http.get(path) as first:
                assert 200 == first.status
            async with asyncio.timeout(feed.SIGN_OF_LIFE / 2):
                while True:
                    async with http.get(path) as second:
                        if second.status == 200:
                            break


async def test_what_a_listener_is_not_meant_to_hear_is_looked_through_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a hundred of them would keep a processor busy while nothing happens."""
    looks: asyncio.Queue[Key | None] = asyncio.Queue()
    events = Pages.events

    async def noted(
        pages: Pages, wanted: WantedEvents, *, after: Key | None = None, limit: int
    ) -> Page:
        looks.put_nowait(after)
        return await events(pages, wanted, after=after, limit=limit)

    async with site(tmp_path) as (_, http):
        newest = (await got(http, "/events", limit=1))["items"][0]["seq"]
        monkeypatch.setattr(Pages, "events", noted)
        async with http.get("/api/v1/events/stream?after=0&watch=other"):
            assert (0,) == await looks.get()
            async with http.post("/api/v1/endpoints/gone/disable") as answer:
                assert 200 == answer.status
            again = await looks.get()

    assert again is not None
    assert (newest,) <= again


async def test_what_has_not_changed_is_not_sent_again(tmp_path: Path) -> None:
    """By its ETag."""
    async with site(tmp_path) as (_, http):
        async with http.get("/api/v1/batches") as first:
            tag, body = first.headers["ETag"], await first.read()
        async with http.get("/api/v1/batches", headers={"If-None-Match": tag}) as second:
            assert (304, b"", tag) == (second.status, await second.read(), second.headers["ETag"])
        async with http.get("/api/v1/batches", headers={"If-None-Match": '"other"'}) as third:
            assert (200, body) == (third.status, await third.read())


async def test_what_was_given_up_is_sent_again_when_asked(tmp_path: Path) -> None:
    """One by its number, many by what they have in common, each under its event's id."""
    few = {
        "BATCHWATCH_ENDPOINTS__GONE__FINAL_STATUSES": "422",  # dead at the first try
        "BATCHWATCH_ROUTES__GONE__ENDPOINTS": "gone",
        "BATCHWATCH_ROUTES__GONE__EVENTS": "batch.cancelled",  # too few to be held back for
    }
    async with AsyncExitStack() as stack:
        refusing = await stack.enter_async_context(Receiver())
        refusing.always = says(422)
        _, http = await stack.enter_async_context(site(tmp_path, gone=refusing.url, **few))
        found = await until(
            http,
            lambda: got(http, "/deliveries", state="dead", limit=2),
            lambda page: len(page["items"]) == 2,
        )
        dead = found["items"]
        refusing.always = None  # it takes all again
        async with http.post(f"/api/v1/deliveries/{dead[0]['id']}/replay") as answer:
            assert {"replayed": 1, "more": False} == await answer.json()
        chosen = {"ids": [dead[1]["id"]], "state": "dead", "endpoint": "gone"}
        async with http.post("/api/v1/deliveries/replay", json=chosen) as answer:
            assert {"replayed": 1, "more": False} == await answer.json()
        deep = b'{"ids": ' + b"[" * 20_000 + b"]" * 20_000 + b"}"
        for body in (b"{}", b"{", deep, b'{"ids": ' + b"[" * 900 + b"]" * 900 + b"}"):
            of_json = {"Content-Type": "application/json"}
            async with http.post("/api/v1/deliveries/replay", data=body, headers=of_json) as answer:
                assert 400 == answer.status
        again = await until(
            http,
            lambda: got(http, f"/deliveries/{dead[0]['id']}"),
            lambda delivery: delivery["state"] == "delivered",
        )

    assert dead[0]["event_id"] == again["event_id"]
    assert [422, 200] == [one["status_code"] for one in again["tries"]]


async def test_a_poll_is_begun_by_hand(tmp_path: Path) -> None:
    """However long the interval is."""
    slow = {"BATCHWATCH_POLL_INTERVAL": "1h"}
    async with Simulator() as sim, Receiver() as receiver:
        port = unused_port()
        environ = environment(
            sim, receiver, tmp_path, BATCHWATCH_LISTEN=f"127.0.0.1:{port}", **slow
        )
        async with running(environ), aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
            await sim.asked(1)
            async with http.post("/api/v1/watches/default/poll") as answer:
                assert 202 == answer.status
            await sim.asked(2)


async def test_an_endpoint_is_tested_disabled_and_enabled(tmp_path: Path) -> None:
    """And its state is shown as it is."""
    async with site(tmp_path) as (_, http):

        async def done(what: str, name: str = "hook") -> tuple[int, Any]:
            async with http.post(f"/api/v1/endpoints/{name}/{what}") as answer:
                return answer.status, json.loads(await answer.text())

        _, tested = await done("test")
        _, failed = await done("test", "gone")
        changes = [await done("disable"), await done("disable")]
        disabled = await got(http, "/endpoints/hook")
        changes += [await done("enable")]
        enabled = await got(http, "/endpoints/hook")
        missing = await done("test", "other")

    assert (True, 200) == (tested["delivered"], tested["status_code"])
    assert (False, "connect") == (failed["delivered"], failed["failure"])
    assert [(200, {"changed": one}) for one in (True, False, True)] == changes
    assert ("disabled", "by hand", "well") == (
        disabled["state"],
        disabled["reason"],
        enabled["state"],
    )
    assert 404 == missing[0]


async def test_a_test_that_cannot_be_sent_says_why(tmp_path: Path) -> None:
    """A file for TLS that has gone, or was renewed badly, is no bug of ours."""
    authorities = Authority(tmp_path).file
    async with Simulator() as sim, Receiver() as receiver:
        port = unused_port()
        environ = environment(
            sim,
            receiver,
            tmp_path,
            BATCHWATCH_LISTEN=f"127.0.0.1:{port}",
            BATCHWATCH_ENDPOINTS__HOOK__TLS_CA=str(authorities),
        )
        async with running(environ), aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
            await sim.asked(1)
            authorities.unlink()
            async with http.post("/api/v1/endpoints/hook/test") as answer:
                said = await answer.json()

    assert 409 == said["status"]
    assert str(authorities) in said["detail"]
    assert "TLS_CA" in said["detail"]
