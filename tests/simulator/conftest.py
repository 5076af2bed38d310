"""A simulator whose time is moved by hand, and the two clients that look at it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from llama_cloud import AsyncLlamaCloud

from batchwatch.simulator import Simulator
from tests.simulator.asking import a_client
from tests.simulator.receiver import Receiver
from tests.support.clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import aiohttp


@pytest.fixture
def clock() -> ManualClock:
    """Time that stands still until a test moves it."""
    return ManualClock()


@pytest.fixture
async def sim(clock: ManualClock) -> AsyncIterator[Simulator]:
    """A calm world, in which nothing is but what the test makes."""
    async with Simulator(scenario="calm", seed=1, clock=clock) as simulator:
        yield simulator


@pytest.fixture
async def cloud(sim: Simulator) -> AsyncIterator[AsyncLlamaCloud]:
    """The official client, unchanged; it tries once, so that each refusal is seen."""
    async with AsyncLlamaCloud(
        api_key=sim.api_key, base_url=sim.url, max_retries=0
    ) as official_client:
        yield official_client


@pytest.fixture
async def http(sim: Simulator) -> AsyncIterator[aiohttp.ClientSession]:
    """A plain client with the right key, for what the official one hides."""
    async with a_client(sim) as session:
        yield session


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """An endpoint for upstream's own webhooks."""
    async with Receiver() as listening:
        yield listening
