"""Upstream's webhooks come in: what is taken, what is refused, and that nothing else happens."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from batchwatch.domain.batch import COMPLETED, BatchId, Status, WatchName
from batchwatch.domain.hint import OLD
from batchwatch.metrics import Metrics
from batchwatch.store import Database, Hints
from batchwatch.store.errors import StoreFull
from batchwatch.store.schema import hints as table
from batchwatch.web import hooks
from batchwatch.web.access import Access
from batchwatch.web.hooks import LARGEST_BODY, Door, Hooks
from batchwatch.web.server import serve
from tests.support.clock import ManualClock
from tests.support.hints import HINT_SECRET, a_body, signed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

OTHER_SECRET = "another-s3cret-0123456789"
MAIN, SHUT = WatchName("main"), WatchName("shut")
HOUR = OLD.total_seconds()


@dataclass
class Site:
    """The server, what was asked for by what it took, and what it noted."""

    http: aiohttp.ClientSession
    database: Database
    metrics: Metrics
    wanted: list[tuple[BatchId, Status | None]] = field(default_factory=list)

    async def post(
        self, body: bytes, headers: dict[str, str] | None = None, watch: str = "main"
    ) -> tuple[int, dict[str, str]]:
        """Status and answer; signed as it should be, unless ``headers`` are given."""
        headers = signed(body) if headers is None else headers
        path = f"/hooks/llamacloud/{watch}"
        async with self.http.post(path, data=body, headers=headers) as answer:
            return answer.status, await answer.json()

    def counted(self) -> dict[tuple[str, str], float]:
        """How many there were, by watch and outcome."""
        return {
            (one.labels["watch"], one.labels["outcome"]): one.value
            for family in self.metrics.hints.collect()
            for one in family.samples
        }

    async def noted(self) -> list[tuple[Any, ...]]:
        """What the store has."""
        columns = (table.c.watch, table.c.type, table.c.batch_id, table.c.status, table.c.repeats)
        async with self.database.read() as connection:
            rows = await connection.execute(sa.select(*columns).order_by(table.c.id))
            return [tuple(row) for row in rows]


@asynccontextmanager
async def served(folder: Path, *, secrets: Sequence[str] = (HINT_SECRET,)) -> AsyncIterator[Site]:
    """A server with a watch whose hints are on, and one whose are off."""
    database = await Database.open(f"sqlite+aiosqlite:///{folder}/batchwatch.db")
    site = Site(aiohttp.ClientSession(), database, Metrics())
    await site.http.close()
    doors = [
        Door(name, [one.encode() for one in those], "BATCHWATCH_HINT_SECRET", want=wants(site))
        for name, those in ((MAIN, secrets), (SHUT, ()))
    ]
    taking = Hooks(doors, hints=Hints(database), clock=ManualClock(), metrics=site.metrics)
    try:
        async with (
            serve(
                "127.0.0.1",
                0,
                taking.routes(),
                access=Access(token="0123456789abcdef"),
                metrics=site.metrics,
            ) as url,
            aiohttp.ClientSession(url) as http,
        ):
            site.http = http
            yield site
    finally:
        await database.close()


def wants(site: Site) -> Any:
    return lambda batch_id, claims: site.wanted.append((batch_id, claims))


async def test_a_signed_hint_is_noted_and_its_batch_is_asked_for(tmp_path: Path) -> None:
    """Without any token: the signature is the proof."""
    async with served(tmp_path) as site:
        assert (202, {"outcome": "taken"}) == await site.post(a_body())

        assert [("bat-1", COMPLETED)] == site.wanted
        assert [("main", "batch.success", "bat-1", "COMPLETED", 0)] == await site.noted()
        assert {("main", "taken"): 1} == site.counted()


async def test_a_repeat_is_counted_and_asks_for_nothing(tmp_path: Path) -> None:
    """It is answered as the first was, or upstream would try again."""
    async with served(tmp_path) as site:
        answers = [await site.post(a_body()) for _ in range(3)]

        assert [202] * 3 == [status for status, _ in answers]
        assert 1 == len(site.wanted)
        assert [2] == [row[-1] for row in await site.noted()]
        assert {("main", "taken"): 1, ("main", "repeated"): 2} == site.counted()


@pytest.mark.parametrize("after", [-HOUR - 1, HOUR + 1])
async def test_an_old_one_is_noted_for_the_audit_alone(tmp_path: Path, after: float) -> None:
    """Somebody may have kept it; so is one from the future."""
    async with served(tmp_path) as site:
        assert (202, {"outcome": "old"}) == await site.post(a_body(after=after))

        assert ([], 1) == (site.wanted, len(await site.noted()))
        assert {("main", "old"): 1} == site.counted()


async def test_what_is_about_no_batch_is_counted(tmp_path: Path) -> None:
    """A project may have one address for all of its webhooks."""
    async with served(tmp_path) as site:
        assert (202, {"outcome": "unrelated"}) == await site.post(a_body("parse.success"))

        assert ([], []) == (site.wanted, await site.noted())
        assert {("main", "unrelated"): 1} == site.counted()


async def test_an_unknown_type_of_batch_event_has_its_batch_looked_at(tmp_path: Path) -> None:
    """Upstream may add one; what it claims nobody knows."""
    async with served(tmp_path) as site:
        assert (202, {"outcome": "taken"}) == await site.post(a_body("batch.throttled"))
        assert [("bat-1", None)] == site.wanted


@pytest.mark.parametrize(
    "headers",
    [
        {},
        signed(a_body(), OTHER_SECRET),
        signed(a_body() + b" "),
        {"LC-Signature": "sha256="},
        {"Authorization": "Bearer 0123456789abcdef"},
    ],
)
async def test_what_is_not_signed_is_refused(tmp_path: Path, headers: dict[str, str]) -> None:
    """Told how it should be, and warned of once."""
    async with served(tmp_path) as site:
        with capture_logs() as logs:
            answers = [await site.post(a_body(), headers) for _ in range(3)]

        detail = "LC-Signature must be sha256= and the HMAC-SHA256 of the body in hex"
        assert [(401, {"title": "Unauthorized", "status": 401, "detail": detail})] * 3 == answers
        assert ([], []) == (site.wanted, await site.noted())
        assert {("main", "unsigned"): 3} == site.counted()
        assert ["warning", "debug", "debug"] == [one["log_level"] for one in logs]


async def test_while_a_secret_is_changed_both_sign(tmp_path: Path) -> None:
    """Batches keep the one that they were made with."""
    async with served(tmp_path, secrets=[OTHER_SECRET, HINT_SECRET]) as site:
        for number, secret in enumerate((HINT_SECRET, OTHER_SECRET)):
            body = a_body(event_id=f"evt-{number}")
            assert 202 == (await site.post(body, signed(body, secret)))[0]


async def test_a_watch_without_a_secret_says_what_to_set(tmp_path: Path) -> None:
    """Whatever is sent, were it signed with nothing."""
    async with served(tmp_path) as site:
        status, answer = await site.post(a_body(), signed(a_body(), ""), watch="shut")

        assert 404 == status
        assert "this watch takes no webhooks; set BATCHWATCH_HINT_SECRET" == answer["detail"]
        assert ([], {("shut", "off"): 1}) == (site.wanted, site.counted())


async def test_an_unknown_watch_is_no_label(tmp_path: Path) -> None:
    """Or whoever asks could fill the metrics."""
    async with served(tmp_path) as site:
        for name in ("nobodys", "MAIN", "a%2fb", "a" * 900):
            assert 404 == (await site.post(a_body(), watch=name))[0]

        assert {("", "unknown_watch"): 4} == site.counted()


async def test_what_is_too_large_is_refused_unread(tmp_path: Path) -> None:
    """The largest that is taken is judged by its signature like any other."""
    padding = " " * (LARGEST_BODY - len(a_body()))
    async with served(tmp_path) as site:
        assert 413 == (await site.post(b"x" * (LARGEST_BODY + 1)))[0]
        assert 202 == (await site.post(a_body() + padding.encode()))[0]

        assert {("main", "refused"): 1, ("main", "taken"): 1} == site.counted()


async def test_a_body_that_does_not_come_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that is kept open holds nothing up for long."""
    monkeypatch.setattr(hooks, "PATIENCE", 0.05)
    async with served(tmp_path) as site:

        async def never() -> AsyncIterator[bytes]:
            yield b"{"
            await asyncio.Event().wait()

        async with site.http.post("/hooks/llamacloud/main", data=never()) as answer:
            assert 408 == answer.status
        assert {("main", "refused"): 1} == site.counted()


async def test_a_body_is_judged_as_it_came(tmp_path: Path) -> None:
    """What is packed is not unpacked: the signature is of the bytes that were sent."""
    async with served(tmp_path) as site:
        packed = b"\x1f\x8b not really"
        headers = signed(packed) | {"Content-Encoding": "gzip"}
        assert 400 == (await site.post(packed, headers))[0]


async def test_a_store_that_fails_makes_upstream_try_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the batch is asked for all the same."""

    async def full(*_: object, **__: object) -> object:
        raise StoreFull("no room")

    async with served(tmp_path) as site:
        with monkeypatch.context() as patch:
            patch.setattr(Hints, "note", full)
            assert 503 == (await site.post(a_body()))[0]
        assert 202 == (await site.post(a_body()))[0]

        assert [("bat-1", COMPLETED)] * 2 == site.wanted
        assert {("main", "store_failed"): 1, ("main", "taken"): 1} == site.counted()


async def test_other_methods_are_not_for_it(tmp_path: Path) -> None:
    """There is nothing to read there."""
    async with served(tmp_path) as site:
        for method in ("GET", "PUT", "DELETE"):
            async with site.http.request(method, "/hooks/llamacloud/main") as answer:
                assert 405 == answer.status


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=6,
)
ODD_FIELDS = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("event_id", "event_type", "timestamp", "data", "more"), ODD)
)


@given(
    bodies=st.lists(
        st.binary(max_size=200)
        | ODD.map(json.dumps).map(str.encode)
        | ODD_FIELDS.map(lambda more: a_body(**more)),
        min_size=10,
        max_size=30,
    )
)
@settings(
    deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_body_is_a_fault_of_ours(tmp_path: Path, bodies: list[bytes]) -> None:
    """Whatever bytes are signed or not: an answer that says so, and never 500."""

    async def answered() -> set[int]:
        async with served(tmp_path) as site:
            found = {(await site.post(body))[0] for body in bodies}
            return found | {(await site.post(body, {}))[0] for body in bodies}

    assert asyncio.run(answered()) <= {202, 400, 401}
