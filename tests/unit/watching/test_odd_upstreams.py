"""Upstreams that are odd in ways of their own: routes, clocks, ids and stamps that mislead."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from batchwatch.domain.cadence import (
    MISSED_TO_VANISH,
    MISSES_TO_VANISH,
    RESULTS_PATIENCE,
    VANISHED_AGAIN,
)
from batchwatch.simulator import SCENARIOS, FileLife, Simulator, Switch, a_life
from tests.support.clock import LeapClock
from tests.unit.llamacloud.upstream import a_batch, a_page, serving

if TYPE_CHECKING:
    from tests.unit.watching.conftest import Stand, Standing

FOR_EVER = 1e9
ENDLESS = (("RUNNING", 0), ("COMPLETED", FOR_EVER))
MINUTES = MISSED_TO_VANISH.total_seconds()


class Fake:
    """An upstream that lists what it is told to list, and finds nothing by its id."""

    def __init__(self, clock: LeapClock, *pages: list[dict[str, Any]]) -> None:
        self.url, self.api_key = "", "llx-fake"
        self.clock = clock
        self.behind = 0.0  # seconds by which its clock is
        self.pages = list(pages)
        self.asked: list[str] = []

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append(request.path)
        if request.path != "/api/v2/batches":
            return web.json_response({"detail": "Not Found"}, status=404)
        since = datetime.fromisoformat(request.query["created_at_on_or_after"])
        until = request.query.get("created_at_on_or_before", "2100-01-01T00:00:00+00:00")
        number = int(request.query.get("page_token", "0"))
        rows = [
            row
            for row in self.pages[number]
            if since <= datetime.fromisoformat(row["created_at"]) <= datetime.fromisoformat(until)
        ]
        token = str(number + 1) if number + 1 < len(self.pages) else None
        answer = a_page(*rows, token=token).response()
        answer.headers["Date"] = format_datetime(
            self.clock.now() - timedelta(seconds=self.behind), usegmt=True
        )
        return answer


def row(
    clock: LeapClock, id_: str = "bat-1", status: str = "RUNNING", *, age: float = 0, **more: Any
) -> dict[str, Any]:
    """A batch that was created ``age`` seconds ago."""
    created = (clock.now() - timedelta(seconds=age)).isoformat()
    return a_batch(id_, status, **{"created_at": created, "updated_at": created, **more})


async def ids_told(at: Stand) -> list[tuple[str, str]]:
    """What is told, and of which batch."""
    return [(one["type"], one["data"]["batch"]["id"]) for one in await at.told()]


# ---------------------------------------------------------------------------------- vanishing


async def test_what_a_listing_shows_has_not_vanished(stand: Standing) -> None:
    """A gateway that has lost the route of single batches answers 404 for each of them."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock) as at:
        old = [sim.world.plant(a_life(*ENDLESS)) for _ in range(3)]
        await at.polls()
        clock.advance(12 * 3600)
        sim.world.plant(a_life(*ENDLESS))
        await at.polls(2)
        await at.told()
        sim.faults.switch_on(
            Switch(kind="status", status=404, probability=1, path="/api/v2/batches/")
        )
        sim.world.vanish(old[2])
        before = sim.requests["GET /api/v2/batches"]
        passes = 40
        await at.polls(passes, every=30)

        assert [("batch.vanished", old[2].id)] == await ids_told(at)
        assert {old[0].id, old[1].id} < {*await at.batches.unseen(at.watch.name, seen=[])}
        extra = sim.requests["GET /api/v2/batches"] - before - passes
        assert extra <= 2  # a listing each ten minutes, for all of them


async def test_what_vanished_is_looked_for_often_and_then_each_hour(stand: Standing) -> None:
    """Upstream may have been wrong; mostly that shows soon."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock) as at:
        batch = sim.world.plant(a_life(*ENDLESS))
        await at.polls()
        sim.world.vanish(batch)
        await at.polls(MISSES_TO_VANISH, every=MINUTES)
        assert "batch.vanished" in await at.told_types()
        counts = []
        for _ in range(6):
            before = sim.requests["GET /api/v2/batches/{id}"]
            await at.polls(30, every=120)
            counts.append(sim.requests["GET /api/v2/batches/{id}"] - before)

    soon, late = (int(3600 / one.total_seconds()) for one in VANISHED_AGAIN)
    assert (soon, late) == (max(counts), min(counts))
    assert counts == sorted(counts, reverse=True)


@pytest.mark.parametrize("id_", [".", ".."])
async def test_a_batch_whose_id_no_url_can_carry_is_followed_by_listings(
    stand: Standing, id_: str
) -> None:
    """It is not said to be missing, for nobody asked; its end is told without results."""
    clock = LeapClock()
    fake = Fake(clock, [row(clock, id_)])
    async with serving(handler=fake.answer) as upstream:
        fake.url = upstream.url
        async with stand(fake, clock) as at:
            await at.polls()
            clock.advance(12 * 3600)
            fake.pages[0].append(row(clock, "bat-2"))
            await at.polls(MISSES_TO_VANISH + 2, every=MINUTES)
            fake.pages[0][0]["status"] = "COMPLETED"
            await at.polls(2, every=RESULTS_PATIENCE.total_seconds())
            told = await at.told()

    assert ["batch.running", "batch.running", "batch.completed"] == [e["type"] for e in told]
    assert (id_, "pending") == (
        told[-1]["data"]["batch"]["id"],
        told[-1]["data"]["results"]["state"],
    )
    assert {"/api/v2/batches"} == set(fake.asked)


# ------------------------------------------------------------------------------------- clocks


async def test_a_row_from_the_future_hides_no_batch_of_a_clock_that_is_behind(
    stand: Standing,
) -> None:
    """The cursor is upstream's time: what it creates now is in the next window."""
    clock = LeapClock()
    fake = Fake(clock, [row(clock, "bat-future", age=-90 * 24 * 3600)])
    fake.behind = 3600
    async with serving(handler=fake.answer) as upstream:
        fake.url = upstream.url
        async with stand(fake, clock) as at:
            await at.polls(3)
            fake.pages[0].append(row(clock, "bat-new", age=3600))
            await at.polls(2)
            assert ["bat-future", "bat-new"] == [id_ for _, id_ in await ids_told(at)]
            clock.advance(1800)
            fake.pages[0].append(row(clock, "bat-newer", age=3600))
            await at.polls()
            assert ["bat-newer"] == [id_ for _, id_ in await ids_told(at)]


async def test_a_server_whose_calendar_is_behind_hides_nothing(stand: Standing) -> None:
    """As above, with a simulator that knows nothing of it."""
    clock = LeapClock()
    behind = replace(SCENARIOS["calm"], skew=-3600.0)
    async with Simulator(scenario=behind, clock=clock) as sim, stand(sim, clock) as at:
        for _ in range(4):
            sim.world.plant(a_life(*ENDLESS))
            await at.polls(every=1200)

        assert 4 == len(await at.told())


async def test_a_wall_clock_that_is_set_back_holds_up_no_end(stand: Standing) -> None:
    """What was to be asked for, or told, in half a minute is not to wait for an hour."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock) as at:
        await at.polls()
        late = a_life(
            ("RUNNING", 0), ("COMPLETED", 10), files=(FileLife(mapped_after=0),), results_late=20
        )
        batch = sim.world.plant(late)
        await at.polls(2, every=6)
        clock.jump(-3600)
        await at.polls(every=25)
        (shown,) = await at.views.batch(batch.id)

    assert {"batch.running", "batch.completed"} == {one["type"] for one in shown["deliveries"]}
    assert "complete" == shown["results"]


# ------------------------------------------------------------------------------------- stamps


async def test_what_a_second_listing_shows_as_ended_is_no_backlog_without_a_stamp(
    stand: Standing,
) -> None:
    """The first pass ever broke off; a batch that it did not show may have ended since."""
    clock = LeapClock()
    rows = [row(clock, f"bat-{n}", "FAILED", age=600, updated_at=None) for n in range(2)]
    fake = Fake(clock, rows[:1], rows[1:])
    broken = True

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if broken and "page_token" in request.query:
            return web.json_response({"detail": "no"}, status=422)
        return await fake.answer(request)

    async with serving(handler=answer) as upstream:
        fake.url = upstream.url
        async with stand(fake, clock) as at:
            await at.polls(bad=True)
            broken = False
            await at.polls(2, every=RESULTS_PATIENCE.total_seconds() + 1)
            assert [("batch.failed", "bat-1")] == await ids_told(at)


async def test_a_status_that_nothing_proves_is_told_when_it_stays(stand: Standing) -> None:
    """Stamps in whole seconds, and a batch that is back within one of them; over a restart."""
    clock = LeapClock()
    stamp = clock.now().isoformat()
    fake = Fake(clock, [row(clock, status="RUNNING")])
    shown = fake.pages[0][0]
    async with serving(handler=fake.answer) as upstream:
        fake.url = upstream.url
        async with stand(fake, clock) as at:
            for status in ("RUNNING", "THROTTLED", "RUNNING"):
                shown.update(status=status, updated_at=stamp)
                await at.polls(every=61)
            assert ["batch.running", "batch.throttled"] == await at.told_types()
        async with stand(fake, clock) as at:
            await at.polls(7, every=10)
            assert ["batch.running"] == await at.told_types()
            passes = len(fake.asked)
            await at.polls(2, every=10)
            assert 2 == len(fake.asked) - passes


async def test_each_batch_that_leaves_its_end_is_warned_of_once(stand: Standing) -> None:
    """Not the first of them alone; and not on each pass."""
    clock = LeapClock()
    rows = [row(clock, f"bat-{n}", "COMPLETED", age=600) for n in range(2)]
    fake = Fake(clock, rows)
    async with serving(handler=fake.answer) as upstream:
        fake.url = upstream.url
        async with stand(fake, clock) as at:
            await at.polls()
            with capture_logs() as logs:
                for one in rows:
                    one.update(status="RUNNING", updated_at=clock.now().isoformat())
                    await at.polls(3)

    warned = [one["batch_id"] for one in logs if one["event"] == "status.contradicted"]
    assert ["bat-0", "bat-1"] == warned
