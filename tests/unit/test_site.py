"""What the web is given of the running daemon: what is done by hand holds when it has returned."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from batchwatch.domain.delivery import Settled, State
from batchwatch.settings import load
from batchwatch.site import live_of
from batchwatch.watching.roster import Roster
from batchwatch.web.health import Troubles
from tests.support.builders import a_replica
from tests.support.clock import ManualClock
from tests.unit.deliver.outbox import HOOK, Desk, Store, asleep, dispatching, opened, refused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from batchwatch.deliver.dispatcher import Dispatcher
    from batchwatch.web.live import Live

VARIABLES = {
    "LLAMA_CLOUD_API_KEY": "llx-0123456789",
    "BATCHWATCH_ENDPOINTS__HOOK__URL": "http://127.0.0.1:9/",
}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def store(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Store]:
    async with opened(f"sqlite+aiosqlite:///{tmp_path / 'batchwatch.db'}", clock) as store:
        yield store


def live_with(dispatcher: Dispatcher, store: Store, clock: ManualClock) -> Live:
    """A daemon's hands, without what looks for commands every two seconds."""

    async def untroubled() -> Troubles:
        return Troubles()

    return live_of(
        load(environ=VARIABLES),
        store=store,
        clock=clock,
        dispatcher=dispatcher,
        roster=Roster([], watchers=[], this=a_replica(), replicas=store.replicas, clock=clock),
        poll=lambda _: None,
        troubles=untroubled,
        stopping=asyncio.Event(),
    )


async def test_what_is_disabled_or_enabled_is_so_at_once(store: Store, clock: ManualClock) -> None:
    """Not when the daemon next looks for what commands have changed."""
    desk = Desk()
    async with dispatching(store, clock, desk) as dispatcher:
        live = live_with(dispatcher, store, clock)
        assert await live.disable(HOOK)
        assert "disabled: by hand" in dispatcher.troubles()[HOOK]
        await store.see("bat-1")
        assert await live.enable(HOOK)
        await desk.until(1)

    assert ["bat-1"] == desk.told


async def test_what_is_replayed_is_sent_at_once(store: Store, clock: ManualClock) -> None:
    """The clock stands still, so nobody looks by it."""
    await store.see("bat-1")
    (given_up,) = await store.outbox.claim(HOOK, limit=9)
    await store.outbox.settle([Settled(given_up, refused(), State.DEAD, reason="over")])
    desk = Desk()
    async with dispatching(store, clock, desk) as dispatcher:
        await asleep(clock, at_most=60)  # it has found nothing to do
        live = live_with(dispatcher, store, clock)
        assert 1 == await live.replay([given_up.id])
        await desk.until(1)

    assert [given_up.event_id] == [one.event_id for one in desk.sent]
