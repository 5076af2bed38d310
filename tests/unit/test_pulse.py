"""Whether the daemon's own wheels turn, and how it shows that they do not."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import aiohttp
from aiohttp.test_utils import unused_port

from batchwatch.metrics import Metrics
from batchwatch.pulse import LATE, LATELY, SILENT, Pulse
from batchwatch.simulator import Simulator
from tests.support.daemon import environment, running
from tests.support.receiver import Receiver

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


class Watch:
    """True time, moved by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def seen(metrics: Metrics, what: str) -> float:
    return metrics.registry.get_sample_value(f"batchwatch_event_loop_lag_seconds_{what}") or 0.0


def test_a_loop_that_was_late_is_named_for_a_minute() -> None:
    """Then it is forgotten: what is over needs nobody."""
    pulse = Pulse(Metrics(), true_time=Watch())
    pulse.looked(0.002)
    told = [pulse.lateness]
    pulse.looked(LATE + 2.2)
    told.append(pulse.lateness)
    for _ in range(LATELY):
        pulse.looked(0.0)
    told.append(pulse.lateness)

    assert told[0] is None
    assert "7.2 s late" in str(told[1])
    assert told[2] is None


def test_each_look_is_measured_and_none_is_below_nought() -> None:
    """Timers may fire a little early."""
    metrics = Metrics()
    pulse = Pulse(metrics, true_time=Watch())
    pulse.looked(0.25)
    pulse.looked(-0.001)

    assert (2, 0.25) == (seen(metrics, "count"), seen(metrics, "sum"))


async def test_what_holds_the_loop_up_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """In true time, on the true loop: it is that which is measured."""
    metrics = Metrics()
    monkeypatch.setattr("batchwatch.pulse.EVERY", 0.01)
    looks: asyncio.Queue[float] = asyncio.Queue()
    pulse = Pulse(metrics)
    looked = pulse.looked

    def look(late: float) -> None:
        looked(late)
        looks.put_nowait(late)

    monkeypatch.setattr(pulse, "looked", look)
    running = asyncio.create_task(pulse.run())
    await looks.get()
    time.sleep(0.2)  # noqa: ASYNC251  # as a bug would
    await looks.get()
    running.cancel()

    assert seen(metrics, "sum") >= 0.15


async def test_the_daemon_is_not_ready_while_its_jobs_stand_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And says so; that its loop was late is told as well, and is over when somebody reads it."""
    monkeypatch.setattr("batchwatch.pulse.SILENT", -1.0)
    monkeypatch.setattr("batchwatch.pulse.LATE", -1.0)
    port = unused_port()
    url = f"http://127.0.0.1:{port}"
    async with Simulator() as sim, Receiver() as receiver:
        environ = environment(sim, receiver, tmp_path, BATCHWATCH_LISTEN=f"127.0.0.1:{port}")
        async with running(environ), aiohttp.ClientSession(url) as http:
            await sim.asked(2)
            async with http.get("/readyz") as answer:
                status, told = answer.status, await answer.json()

    assert (503, False) == (status, told["ready"])
    assert {"upkeep", "event loop"} == told["troubles"].keys()


async def test_timed_jobs_that_no_longer_run_are_named() -> None:
    """Nothing else would notice: leases stay, and nobody counts what is owed."""
    now = Watch()
    pulse = Pulse(Metrics(), true_time=now)
    now.seconds = SILENT
    told = [pulse.silence]
    now.seconds += 1
    told.append(pulse.silence)
    await pulse.beat()
    told.append(pulse.silence)

    assert [None, "its jobs have not run for 91 s", None] == told
