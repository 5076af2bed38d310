"""The ledger as passes write it: every stop and every outage has its row."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest

from batchwatch.domain.cadence import OVERLAP, SILENCE_TO_ALARM
from batchwatch.domain.coverage import Gap, Kind, Look
from batchwatch.domain.watch import Work
from batchwatch.simulator import FileLife, Simulator, Switch, a_life
from batchwatch.watching.ledger import HELD, LEDGER_EVERY
from tests.support.clock import EPOCH, LeapClock, ManualClock
from tests.unit.llamacloud.upstream import Reply, a_batch, a_page, serving

if TYPE_CHECKING:
    from aiohttp import web

    from tests.unit.watching.conftest import Stand, Standing

LIFE = (("PENDING", 0.0), ("COMPLETED", 10.0))
FILES = (FileLife(mapped_after=0),)


async def gaps(at: Stand) -> list[Gap]:
    """What the store has of them, in order."""
    (row,) = await at.views.ledgers(EPOCH - timedelta(days=365))
    return list(row["ledger"].gaps)


def counted(at: Stand, kind: Kind, outcome: str) -> float:
    labels = {"watch": at.watch.name, "kind": kind.value, "outcome": outcome}
    found = at.metrics.registry.get_sample_value("batchwatch_coverage_gaps_total", labels)
    assert found is not None
    return found


async def test_a_daemon_that_was_stopped_leaves_a_gap_that_the_next_one_closes(
    stand: Standing,
) -> None:
    """With how far back it listed, and how many changes that showed."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim:
        async with stand(sim, clock) as at:
            await at.polls()
        stopped_at = clock.now()
        clock.advance(3_600)
        sim.world.plant(a_life(*LIFE, files=FILES), created=clock.now() - timedelta(minutes=30))
        async with stand(sim, clock) as at:
            await at.polls(every=0)
            (gap,) = await gaps(at)

            assert (stopped_at, Kind.STOPPED, 1) == (gap.start, gap.kind, gap.found)
            assert timedelta(hours=1) == gap.end - gap.start
            assert gap.closed_at is not None
            assert gap.listed_from is not None
            assert gap.listed_from <= gap.start
            assert (1, 0) == tuple(counted(at, Kind.STOPPED, one) for one in ("closed", "open"))
            assert "watch.gap" not in await at.told_types()


async def test_an_outage_is_a_gap_with_its_reason(stand: Standing) -> None:
    """Of that alone which was too long; what went by between two passes as usual is none."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock) as at:
        await at.polls(3, every=SILENCE_TO_ALARM / 2)
        assert [] == await gaps(at)
        sim.faults.switch_on(Switch(kind="status", status=503, probability=1))
        clock.advance(2 * SILENCE_TO_ALARM)
        await at.poller.failed(Work.DISCOVERY, "HTTP 503", may_pass=True)
        sim.faults.clear()
        await at.polls()
        (gap,) = await gaps(at)

    assert (Kind.FAILING, "HTTP 503", False) == (gap.kind, gap.reason, gap.is_open)


async def test_a_restart_in_an_outage_is_told_apart_from_the_outage(stand: Standing) -> None:
    """Two gaps side by side: no daemon, and then no LlamaCloud."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim:
        async with stand(sim, clock) as at:
            await at.polls()
        clock.advance(1_000)
        async with stand(sim, clock) as at:
            clock.advance(500)
            await at.poller.failed(Work.DISCOVERY, "HTTP 503", may_pass=True)
            await at.polls(every=0)
            first, second = await gaps(at)

    assert (Kind.STOPPED, Kind.FAILING) == (first.kind, second.kind)
    assert first.end == second.start
    assert timedelta(seconds=500) == second.end - second.start


async def test_a_pause_of_our_own_is_slow(stand: Standing) -> None:
    """The store was full, or the budget short: nothing that LlamaCloud did."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock) as at:
        await at.polls()
        at.poller.ledger.held_up(Kind.SLOW, "the disk is full")
        await at.polls(every=1_000)
        (gap,) = await gaps(at)

    assert (Kind.SLOW, "the disk is full", False) == (gap.kind, gap.reason, gap.is_open)


@pytest.mark.parametrize("jump", [7_200, -7_200])
async def test_a_clock_that_is_set_makes_no_gap(stand: Standing, jump: float) -> None:
    """LlamaCloud's clock and the monotonic one go on as ever."""
    clock, true = ManualClock(), LeapClock()
    async with Simulator(clock=true) as sim, stand(sim, clock) as at:
        await at.polls(every=0)
        clock.jump(jump)
        for _ in range(3):
            true.advance(LEDGER_EVERY)
            await at.polls(every=LEDGER_EVERY)
        (row,) = await at.views.ledgers(EPOCH)

    assert [] == list(row["ledger"].gaps)
    assert true.now() == row["ledger"].windows[-1].end
    assert -jump == row["skew"]


async def test_a_host_whose_clock_is_wrong_all_the_time_makes_no_gap(stand: Standing) -> None:
    """Not with each restart, either, nor when it is mended between two of them."""
    clock, true = ManualClock(), LeapClock()
    clock.jump(-86_400)
    async with Simulator(clock=true) as sim:
        async with stand(sim, clock) as at:
            await at.polls(every=0)
        clock.jump(86_400)
        clock.advance(1)
        true.advance(1)
        async with stand(sim, clock) as at:
            await at.polls(every=0)
            (gap,) = await gaps(at)

    assert timedelta(seconds=1) == gap.end - gap.start


async def test_passes_are_counted_and_written_once_a_minute(stand: Standing) -> None:
    """So many there were, however few entries."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim, stand(sim, clock) as at:
        await at.polls(9, every=LEDGER_EVERY / 4)
        (row,) = await at.views.ledgers(EPOCH)

    (window,) = row["ledger"].windows
    assert 9 == window.passes
    assert clock.now() == window.end


async def test_time_that_no_window_reaches_back_to_is_told_and_what_is_behind_it_is_closed(
    stand: Standing,
) -> None:
    """A cursor from a clock that was wrong: what it hides is no secret."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim:
        async with stand(sim, clock) as at:
            await at.polls(every=0)
            look = Look(EPOCH, clock.now(), clock.now(), monotonic=0.0)
            ahead = clock.now() + timedelta(hours=1)
            await at.watches.passed(at.watch.name, look, newest=ahead, now=ahead)
        clock.advance(2 * 3_600)
        async with stand(sim, clock) as at:
            await at.polls(every=0)
            (told,) = await at.told()
            left, shut = await gaps(at)
            assert (1, 1) == tuple(counted(at, Kind.STOPPED, one) for one in ("closed", "open"))

    assert ("watch.gap", "stopped") == (told["type"], told["data"]["kind"])
    assert (True, False) == (left.is_open, shut.is_open)
    assert ahead - OVERLAP == left.end == shut.start
    assert (EPOCH, EPOCH + timedelta(hours=2)) == (left.start, shut.end)


GARBLED = {"id": 7, "status": None}


async def test_entries_that_nobody_can_read_are_told_once_and_again_when_they_come_back(
    stand: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not on each poll; and closed when they can be read while they are still listed."""
    clock = LeapClock()
    pages = [a_page(), a_page(GARBLED), a_page(GARBLED, GARBLED), a_page(GARBLED), a_page()]
    pages += [a_page(GARBLED), a_page()]
    async with Simulator(clock=clock) as sim, serving(*_dated(pages, clock)) as upstream:
        monkeypatch.setattr(sim, "url", upstream.url)
        async with stand(sim, clock) as at:
            await at.polls(4)
            (told,) = await at.told()
            (gap,) = await gaps(at)
            assert ("watch.gap", "unreadable") == (told["type"], told["data"]["kind"])
            assert (True, gap.start) == (gap.is_open, _moment(told["data"]["from"]))
            assert "LlamaCloud listed 1 entry" in told["data"]["reason"]
            await at.polls()
            assert ([], False) == (await at.told(), (await gaps(at))[0].is_open)
            await at.polls(2)
            assert ["watch.gap"] == await at.told_types()
            assert [2, 2] == [counted(at, Kind.UNREADABLE, one) for one in ("open", "closed")]


async def test_a_restart_does_not_tell_again_what_is_still_listed(
    stand: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That it lasts is in the store."""
    clock = LeapClock()
    async with (
        Simulator(clock=clock) as sim,
        serving(*_dated([a_page(GARBLED)], clock)) as upstream,
    ):
        monkeypatch.setattr(sim, "url", upstream.url)
        for told in (["watch.gap"], []):
            async with stand(sim, clock) as at:
                await at.polls(3)
                assert told == await at.told_types()
                clock.advance(600)


async def test_what_becomes_readable_while_it_is_listed_is_told(
    stand: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The window waits for it, though others have been created since; but not for ever."""
    clock = LeapClock()
    old, new = (EPOCH - timedelta(minutes=one) for one in (120, 1))
    late = a_batch("bat-1", "PENDING", created_at=old.isoformat(), updated_at=None)
    other = a_batch("bat-2", "RUNNING", created_at=new.isoformat(), updated_at=None)

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        since = datetime.fromisoformat(request.query["created_at_on_or_after"])
        shown = late if is_readable else GARBLED
        items = [*([shown] if since <= old else []), other]
        return _dated([a_page(*items)], clock)[0].response()

    async def cursor() -> datetime | None:
        state = await at.watches.state(at.watch.name)
        assert state is not None
        found: datetime | None = state.cursor
        return found

    is_readable = False
    async with Simulator(clock=clock) as sim, serving(handler=answer) as upstream:
        monkeypatch.setattr(sim, "url", upstream.url)
        async with stand(sim, clock) as at:
            for _ in range(3):
                await at.poller.discover()
                clock.advance(HELD / 3)
            assert await cursor() is None
            is_readable = True
            await at.poller.discover()
            assert {"bat-1", "bat-2"} == {one["id"] for one in await at.views.batches()}
            assert new == await cursor()


async def test_the_window_does_not_wait_for_ever(
    stand: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listing from the beginning of time with each pass would be no watching any more."""
    clock = LeapClock()
    other = a_batch("bat-2", "RUNNING", created_at=EPOCH.isoformat(), updated_at=None)
    replies = _dated([a_page(GARBLED, other)], clock)
    async with Simulator(clock=clock) as sim, serving(*replies) as upstream:
        monkeypatch.setattr(sim, "url", upstream.url)
        async with stand(sim, clock) as at:
            await at.poller.discover()
            clock.advance(HELD)
            await at.poller.discover()
            state = await at.watches.state(at.watch.name)

    assert state is not None
    assert EPOCH == state.cursor


async def test_another_scope_under_the_same_name_begins_anew(stand: Standing) -> None:
    """What is active there is found, however old; what has ended is told to nobody."""
    clock = LeapClock()
    forever = (("PENDING", 0.0), ("COMPLETED", 1e9))
    async with Simulator(clock=clock) as one, Simulator(clock=clock, seed=5) as other:
        async with stand(one, clock) as at:
            one.world.plant(a_life(*forever))
            await at.polls()
            await at.told()
        found = other.world.plant(a_life(*forever), created=clock.now() - timedelta(hours=5))
        other.world.plant(a_life(*LIFE), created=clock.now() - timedelta(hours=5))
        async with stand(other, clock) as at:
            await at.polls(3, every=60)
            told = await at.told()
            (row,) = await at.views.ledgers(EPOCH)
            followed = await at.batches.unseen(at.watch.name, seen=[found.id])

    assert [found.id] == [event["data"]["batch"]["id"] for event in told]
    assert {"base_url": other.url} == msgspec.json.decode(row["scope"])
    assert row["started_at"] > EPOCH + timedelta(seconds=1)
    assert [] == list(row["ledger"].gaps)
    assert 2 == len(row["ledger"].windows)
    assert 1 == len(followed)  # of the scope before; it is asked for until it ends or vanishes


async def test_a_store_without_scopes_takes_over_the_one_that_is_set(stand: Standing) -> None:
    """From an older version: nothing begins anew."""
    clock = LeapClock()
    async with Simulator(clock=clock) as sim:
        async with stand(sim, clock) as at:
            began = await at.watches.begin(at.watch.name, now=clock.now())
            assert began.scope is None
        clock.advance(60)
        async with stand(sim, clock) as at:
            await at.polls()
            state = await at.watches.state(at.watch.name)

    assert state is not None
    assert (began.started_at, {"base_url": sim.url}) == (state.started_at, state.scope)


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _dated(replies: list[Reply], clock: ManualClock) -> list[Reply]:
    """The same with upstream's clock being ours, and not that of the machine."""
    for one in replies:
        one.headers["Date"] = f"{clock.now():%a, %d %b %Y %H:%M:%S GMT}"
    return replies
