"""Looking at what hints name: at once, by the rules of any look, and never believing a hint."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from batchwatch.domain.batch import COMPLETED, PENDING, RUNNING, BatchId, Status
from batchwatch.llamacloud.client import Scope
from batchwatch.llamacloud.errors import CloudError
from batchwatch.simulator import FileLife, Simulator, Switch, a_life
from batchwatch.store import Batches
from batchwatch.store.errors import StoreBusy
from batchwatch.watching import hints
from batchwatch.watching.hints import AGAIN, Follower, Look
from tests.support.clock import LeapClock, ManualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from batchwatch.watching.fetcher import Tally
    from tests.unit.watching.conftest import Stand, Standing

GETS = "GET /api/v2/batches/{id}"
FOR_EVER = 1e9  # seconds
GOES_ON = (("RUNNING", 0.0), ("COMPLETED", FOR_EVER))
ENDS = (("PENDING", 0.0), ("RUNNING", 2.0), ("COMPLETED", 5.0))
FILES = (FileLife(mapped_after=0, error_message="no pages"),)
NOBODYS = BatchId("bat-nobodys")


class Desk:
    """A follower at work, and a way to wait for what comes of its looks."""

    def __init__(self, at: Stand) -> None:
        self.at = at
        self.follower = Follower(at.poller, batches=at.batches, clock=at.clock, metrics=at.metrics)
        self._news = asyncio.Event()
        self.outcomes: Counter[str] = Counter()
        count = self.follower._count  # noqa: SLF001  # so that no test asks for it again and again

        def note(outcome: Look) -> None:
            count(outcome)
            self.outcomes[outcome.value] += 1
            self._news.set()

        self.follower._count = note  # type: ignore[method-assign]  # noqa: SLF001

    def hint(self, batch_id: str, claims: Status | None) -> None:
        self.follower.want(BatchId(batch_id), claims)

    async def until(self, looks: int) -> dict[str, int]:
        """Wait until so many hints were followed; what came of them."""
        while self.outcomes.total() < looks:
            self._news.clear()
            await self._news.wait()
        return dict(self.outcomes)

    async def status(self, batch_id: str) -> str | None:
        """What the store has."""
        rows = await self.at.views.batch(batch_id)
        return rows[0]["status"] if rows else None


@asynccontextmanager
async def following(at: Stand) -> AsyncIterator[Desk]:
    """A follower, cancelled at the end as by the daemon."""
    desk = Desk(at)
    task = asyncio.create_task(desk.follower.run())
    try:
        yield desk
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


# ----------------------------------------------------------------------------------- look_at


async def test_a_look_records_what_it_shows_and_its_results_follow(stand: Standing) -> None:
    """A new batch, and then its end, each told as after a poll."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock) as at:
        await at.polls()
        batch = sim.world.plant(a_life(*ENDS, files=FILES))
        first = await at.poller.look_at([batch.id])
        pending = await at.told_types()
        clock.advance(5)
        at.poller.recorded.clear()
        await at.poller.look_at([batch.id])
        completed = await at.told()

    assert (1, None) == (first.answered, first.error)
    assert ["batch.pending"] == pending
    assert "batch.completed" == completed[0]["type"]
    assert 1 == completed[0]["data"]["results"]["counts"]["failed"]
    assert at.poller.recorded.is_set()


async def test_a_look_at_what_nobody_knows_writes_nothing(stand: Standing) -> None:
    """Nor does an id that no URL can carry."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock) as at:
        await at.polls()
        await at.poller.look_at([NOBODYS, BatchId(".."), BatchId("")])

        assert 1 == sim.requests[GETS]
        assert [] == await at.views.batches()
        assert [] == await at.told()


async def test_a_batch_of_another_directory_is_not_recorded(stand: Standing) -> None:
    """A GET shows it all the same; once is enough."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim:
        ours, other = (sim.world.plant(a_life(*GOES_ON)) for _ in range(2))
        scope = Scope(source_directory_id=ours.directory.id)
        async with stand(sim, clock, scope=scope) as at:
            await at.polls()
            for _ in range(2):
                await at.poller.look_at([ours.id, other.id])

            assert [ours.id] == [row["id"] for row in await at.views.batches()]
            assert (True, False) == tuple(map(at.poller.is_elsewhere, (other.id, ours.id)))
            assert 3 == sim.requests[GETS]


async def test_a_look_at_what_ended_before_the_watch_began_is_told_to_nobody(
    stand: Standing,
) -> None:
    """It is recorded, as what the first pass finds; only no window would ever have shown it."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock) as at:
        week = timedelta(days=7)
        over = sim.world.plant(a_life(*ENDS), created=clock.now() - week)
        active = sim.world.plant(a_life(*GOES_ON), created=clock.now() - week)
        await at.polls()
        await at.poller.look_at([over.id, active.id])

        assert {over.id, active.id} == {row["id"] for row in await at.views.batches()}
        assert {active.id} == {one["data"]["batch"]["id"] for one in await at.told()}


async def test_what_is_being_asked_for_is_asked_for_again_afterwards(stand: Standing) -> None:
    """That answer is from before the change; the one that matters comes after it."""
    clock = ManualClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock) as at:
        batch = sim.world.plant(a_life(("RUNNING", 0), ("COMPLETED", 100), files=FILES))
        await at.polls()
        for kind, seconds in (("latency", 9), ("stale", 60)):
            path = f"/api/v2/batches/{batch.id}"
            sim.faults.switch_on(Switch(kind=kind, seconds=seconds, path=path, for_requests=1))
        refresh = asyncio.create_task(at.poller.refresh(None))
        await clock.next_sleeper()  # upstream, over the answer
        clock.advance(100 - clock.monotonic())
        looks = [asyncio.create_task(at.poller.look_at([batch.id])) for _ in range(2)]
        await asyncio.sleep(0)
        clock.advance(9)
        await refresh
        shown: list[Tally] = await asyncio.gather(*looks)

        assert [1, 1] == [one.answered for one in shown]
        assert 3 == sim.requests[GETS]
        (row,) = await at.views.batch(batch.id)
        assert "COMPLETED" == row["status"]


async def test_a_look_that_upstream_refuses_is_raised(stand: Standing) -> None:
    """Whoever asked decides what that means; nobody is woken for it."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock) as at:
        batch = sim.world.plant(a_life(*GOES_ON))
        await at.polls()
        await at.told()
        sim.faults.switch_on(Switch(kind="429-retry-after", seconds=600))
        with pytest.raises(CloudError):
            await at.poller.look_at([batch.id])

        assert [] == await at.told()


# ------------------------------------------------------------------------------------- hints


async def test_a_hint_has_its_batch_looked_at(stand: Standing) -> None:
    """A batch that no poll has shown yet, and then each of its steps."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock) as at:
        await at.polls()
        batch = sim.world.plant(a_life(*ENDS, files=FILES))
        async with following(at) as desk:
            for number, (claims, after) in enumerate(((PENDING, 0), (RUNNING, 2), (COMPLETED, 3))):
                clock.advance(after)
                desk.hint(batch.id, claims)
                await desk.until(number + 1)
        told = await at.told_types()

    assert ["batch.pending", "batch.running", "batch.completed"] == told[:3]
    assert {"shown": 3} == desk.outcomes


async def test_a_hint_is_never_a_fact(stand: Standing) -> None:
    """A lie, however well signed, costs a few requests and changes nothing."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock) as at:
        batch = sim.world.plant(a_life(*GOES_ON))
        await at.polls()
        await at.told()
        async with following(at) as desk:
            desk.hint(batch.id, COMPLETED)
            outcomes = await desk.until(1)

        assert {"behind": 1} == outcomes
        assert "RUNNING" == await desk.status(batch.id)
        assert [] == await at.told()
        assert 1 + len(AGAIN) == sim.requests[GETS]


async def test_a_hint_about_what_nobody_knows_is_harmless(stand: Standing) -> None:
    """A replica that lags may not know it yet, so it is asked for a few times."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock) as at:
        await at.polls()
        async with following(at) as desk:
            desk.hint(NOBODYS, PENDING)
            assert {"unknown": 1} == await desk.until(1)

        assert 1 + len(AGAIN) == sim.requests[GETS]
        assert [] == await at.views.batches()


async def test_a_hint_about_another_directorys_batch_is_asked_for_once(stand: Standing) -> None:
    """However many there are."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim:
        ours, other = (sim.world.plant(a_life(*GOES_ON)) for _ in range(2))
        scope = Scope(source_directory_id=ours.directory.id)
        async with stand(sim, clock, scope=scope) as at:
            await at.polls()
            async with following(at) as desk:
                for number in range(3):
                    desk.hint(other.id, RUNNING)
                    await desk.until(number + 1)

            assert ({"unknown": 3}, 1) == (desk.outcomes, sim.requests[GETS])
            assert [ours.id] == [row["id"] for row in await at.views.batches()]


async def test_a_replica_that_lags_is_asked_again(stand: Standing) -> None:
    """Within seconds, and the poll after that need not come."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock) as at:
        batch = sim.world.plant(a_life(("RUNNING", 0), ("COMPLETED", 60), files=FILES))
        await at.polls()
        clock.advance(60)
        sim.faults.switch_on(Switch(kind="stale", seconds=30, for_requests=2))
        async with following(at) as desk:
            desk.hint(batch.id, COMPLETED)
            assert {"shown": 1} == await desk.until(1)

        assert "COMPLETED" == await desk.status(batch.id)
        assert 3 == sim.requests[GETS]


async def test_what_is_known_already_is_not_asked_for(stand: Standing) -> None:
    """An earlier status' hint that comes late, or one that a poll was faster than."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock) as at:
        batch = sim.world.plant(a_life(*GOES_ON))
        await at.polls()
        async with following(at) as desk:
            for number, claims in enumerate((PENDING, RUNNING)):
                desk.hint(batch.id, claims)
                await desk.until(number + 1)
            assert ({"known": 2}, 0) == (desk.outcomes, sim.requests[GETS])
            desk.hint(batch.id, None)
            assert {"known": 2, "shown": 1} == await desk.until(3)

    assert 1 == sim.requests[GETS]


async def test_a_hint_before_the_first_pass_waits_for_its_end(stand: Standing) -> None:
    """Or what ended before anybody watched would be news."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock) as at:
        over = sim.world.plant(a_life(*ENDS), created=clock.now() - timedelta(hours=2))
        async with following(at) as desk:
            desk.hint(over.id, COMPLETED)
            desk.hint(NOBODYS, COMPLETED)
            await at.polls()
            assert {"known": 1, "unknown": 1} == await desk.until(2)

        assert [] == await at.told()


async def test_after_a_restart_a_hint_waits_for_no_pass(stand: Standing) -> None:
    """The baseline is in the store; a listing that fails holds no hint up."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim:
        async with stand(sim, clock) as at:
            await at.polls()
        batch = sim.world.plant(a_life(*GOES_ON))
        async with stand(sim, clock) as at, following(at) as desk:
            sim.faults.switch_on(Switch(kind="status", status=403, for_requests=1))
            await at.polls(bad=True)
            desk.hint(batch.id, RUNNING)
            assert {"shown": 1} == await desk.until(1)


async def test_a_hint_during_a_look_leads_to_another(stand: Standing) -> None:
    """The first may have been answered from before the change."""
    clock = ManualClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock) as at:
        batch = sim.world.plant(a_life(("PENDING", 0), ("RUNNING", 50), ("COMPLETED", 100)))
        await at.polls()
        clock.advance(60)
        for kind, seconds in (("latency", 60), ("stale", 50)):
            path = f"/api/v2/batches/{batch.id}"
            sim.faults.switch_on(Switch(kind=kind, seconds=seconds, path=path, for_requests=1))
        async with following(at) as desk:
            desk.hint(batch.id, RUNNING)
            await clock.next_sleeper()  # upstream, over the answer
            desk.hint(batch.id, PENDING)
            desk.hint(batch.id, COMPLETED)
            desk.hint(batch.id, RUNNING)
            clock.advance(60)
            assert 2 == sum((await desk.until(2)).values())

        assert "COMPLETED" == await desk.status(batch.id)
        assert 2 == sim.requests[GETS]


async def test_a_flood_takes_bounded_room_and_each_batch_one_request_at_a_time(
    stand: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What does not fit is counted and left to the polls."""
    monkeypatch.setattr(hints, "MOST", 50)
    clock = LeapClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock) as at:
        await at.polls()
        async with following(at) as desk:
            for _ in range(3):
                for number in range(80):
                    desk.hint(f"bat-{number}", None)
            outcomes = await desk.until(3 * 30 + 50)

        assert {"dropped": 3 * 30, "unknown": 50} == outcomes
        assert 50 * (1 + len(AGAIN)) == sim.requests[GETS]


@pytest.mark.parametrize("fault", ["upstream", "store"])
async def test_a_look_that_fails_is_left_to_the_polls_and_alarms_nobody(
    stand: Standing, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is counted, and the next hint is followed as ever."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock) as at:
        batch = sim.world.plant(a_life(*GOES_ON))
        await at.polls()
        await at.told()
        async with following(at) as desk:
            with monkeypatch.context() as patch:
                if fault == "upstream":
                    sim.faults.switch_on(Switch(kind="5xx"))
                else:
                    patch.setattr(Batches, "known", failing)
                desk.hint(batch.id, COMPLETED)
                assert {"failed": 1} == await desk.until(1)
            sim.faults.clear()
            desk.hint(batch.id, None)
            assert {"failed": 1, "shown": 1} == await desk.until(2)

        assert [] == await at.told()
        state = await at.watches.state(at.watch.name)
        assert state is not None
        assert {} == state.troubles


async def failing(*_: object, **__: object) -> object:
    raise StoreBusy("another process holds it")
