"""Waiting for batches: beside a daemon or alone, on the command line or in a program."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from aiohttp.test_utils import unused_port

import batchwatch
from batchwatch.domain.batch import RUNNING, Batch, BatchId, WatchName
from batchwatch.domain.changes import Changes, Recorder
from batchwatch.domain.routing import Router
from batchwatch.settings import load
from batchwatch.simulator import FileLife, JobLife, Simulator, Step, Switch, a_life
from batchwatch.store import Database, Store
from batchwatch.waiting import LOOK_AT_LEAST, UNKNOWN_PATIENCE, NoSuchBatch, Wait
from tests.support.builders import a_sighting, at
from tests.support.clock import LeapClock
from tests.support.daemon import ROOT, environment, running
from tests.support.receiver import Receiver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

ON_A_TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
QUICK = (("PENDING", 0.0), ("RUNNING", 0.2), ("COMPLETED", 0.5))


def a_file(*steps: tuple[str, float], error: str | None = None) -> FileLife:
    return FileLife(mapped_after=0.3, job=JobLife(tuple(Step(*one) for one in steps), error))


GOOD = a_file(("RUNNING", 0.3), ("COMPLETED", 0.4))
SLOW = a_file(("RUNNING", 0.3), ("COMPLETED", 1.5))
BAD = a_file(("RUNNING", 0.3), ("FAILED", 0.9), error="page 3 is no page")
LONG = a_file(("RUNNING", 0.3), ("FAILED", 3_600.0))
UNMAPPED = FileLife(mapped_after=0.3, error_message="no such file")


@dataclass
class Done:
    """What the command said, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> Any:
        return json.loads(self.out)


async def waited(
    sim: Simulator | str,
    folder: Path,
    *arguments: str,
    within: tuple[str, ...] = (),
    **more: str,
) -> Done:
    """Run ``batchwatch wait`` as people do; ``within`` is another command that runs it."""
    url = sim if isinstance(sim, str) else sim.url
    process = await asyncio.create_subprocess_exec(
        *(within or (sys.executable, "-m", "batchwatch", "wait", *arguments)),
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "LLAMA_CLOUD_API_KEY": "llx-simulator",
            "LLAMA_CLOUD_BASE_URL": url,
            "BATCHWATCH_DATA_DIR": str(folder),
            "BATCHWATCH_POLL_INTERVAL": "100ms",
            **more,
        },
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    return Done(process.returncode or 0, out.decode(), err.decode())


@pytest.mark.parametrize(
    ("life", "files", "flags", "code", "ending"),
    [
        (QUICK, (GOOD, GOOD), ["--settled"], 0, "succeeded"),
        (QUICK, (GOOD, SLOW, BAD), ["--settled"], 1, "some_failed"),
        (QUICK, (GOOD, LONG), [], 0, "succeeded"),
        (QUICK, (GOOD, UNMAPPED), [], 1, "some_failed"),
        ((("PENDING", 0.0), ("FAILED", 0.4)), (GOOD,), [], 3, "failed"),
        ((("PENDING", 0.0), ("CANCELLED", 0.4)), (GOOD,), ["--settled"], 3, "cancelled"),
    ],
)
async def test_the_exit_code_says_how_it_ended(
    life: Any, files: Any, flags: list[str], code: int, ending: str, tmp_path: Path
) -> None:
    """As it is documented, and the document for programs says the same."""
    async with Simulator(scenario="calm", seed=1) as sim:
        batch = sim.world.plant(a_life(*life, files=files))
        done = await waited(sim, tmp_path, batch.id, "--json", "--timeout", "60s", *flags)

    [row] = done.rows
    assert (code, ending, batch.id) == (done.code, row["ending"], row["batch_id"])
    assert (code == 0) is row["succeeded"]
    assert not list(tmp_path.iterdir())  # whoever waits alone leaves nothing behind


async def test_what_failed_is_named_with_why(tmp_path: Path) -> None:
    """The job's own words and the mapping's, and what to run again."""
    async with Simulator(scenario="calm", seed=2) as sim:
        batch = sim.world.plant(a_life(*QUICK, files=(GOOD, BAD, UNMAPPED)))
        done = await waited(sim, tmp_path, batch.id, "--settled", "--json")
        lines = await waited(sim, tmp_path, batch.id, "--settled")

    [row] = done.rows
    said = {one["fate"]: one["error_message"] for one in row["failures"]}
    assert {"failed": "page 3 is no page", "unmapped": "no such file"} == said
    assert [batch.files[1].source.id, batch.files[2].source.id] == row["retry"]
    assert {"files": 3, "succeeded": 1, "failed": 1, "unmapped": 1} == {
        name: count for name, count in row["counts"].items() if count
    }
    assert "page 3 is no page" in lines.out
    assert "2 of 3 files failed" in lines.out


async def test_of_several_the_worst_counts(tmp_path: Path) -> None:
    """One that goes on is worse than one that failed: nobody knows its end."""
    async with Simulator(scenario="calm", seed=3) as sim:
        good = sim.world.plant(a_life(*QUICK, files=(GOOD,)))
        failed = sim.world.plant(a_life(("PENDING", 0.0), ("FAILED", 0.3)))
        for_ever = sim.world.plant(a_life(("PENDING", 0.0), ("RUNNING", 0.3)))
        both = await waited(sim, tmp_path, good.id, failed.id, "--json")
        done = await waited(
            sim, tmp_path, good.id, failed.id, for_ever.id, "--json", "--timeout", "2s"
        )

    assert 3 == both.code
    assert 4 == done.code
    assert ["succeeded", "failed", "unfinished"] == [one["ending"] for one in done.rows]


async def test_without_a_terminal_each_change_is_a_line(tmp_path: Path) -> None:
    """And no more than that, for it goes into somebody's log."""
    async with Simulator(scenario="calm", seed=4) as sim:
        late = a_file(("RUNNING", 0.3), ("COMPLETED", 9.0))
        batch = sim.world.plant(a_life(*QUICK, files=(GOOD, late)))
        done = await waited(sim, tmp_path, batch.id, "--settled")

    lines = done.out.splitlines()
    assert len(lines) == len(set(lines))
    assert any("1 of 2 files have ended" in line for line in lines)
    assert f"✓ {batch.id}  COMPLETED  2 files, none failed" == lines[-1]
    assert not done.err


@asynccontextmanager
async def followed(tmp_path: Path) -> AsyncIterator[tuple[Simulator, str, Path]]:
    """A batch that a daemon follows, in a store that it has."""
    folder = tmp_path / "data"
    async with Simulator(scenario="calm", seed=5) as sim, Receiver() as receiver:
        batch = sim.world.plant(a_life(("PENDING", 0.0), ("COMPLETED", 3.0), files=(GOOD, BAD)))
        async with running(environment(sim, receiver, folder)):
            await receiver.until(lambda got: any(one.batch_id == batch.id for one in got))
            yield sim, batch.id, folder


async def test_beside_a_daemon_nothing_is_asked_twice(tmp_path: Path) -> None:
    """What it follows is read from its store: LlamaCloud need not even be reachable from here."""
    nobody = f"http://127.0.0.1:{unused_port()}"
    async with followed(tmp_path) as (_, batch_id, folder):
        done = await waited(nobody, folder, batch_id, "--settled", "--json")

    [row] = done.rows
    assert (1, "some_failed", 1) == (done.code, row["ending"], len(row["failures"]))


async def test_a_daemon_that_ends_leaves_the_wait_to_us(tmp_path: Path) -> None:
    """What nobody follows any more is asked for here."""
    async with Simulator(scenario="calm", seed=6) as sim, Receiver() as receiver:
        batch = sim.world.plant(a_life(("PENDING", 0.0), ("COMPLETED", 4.0), files=(GOOD,)))
        async with running(environment(sim, receiver, tmp_path)):
            await receiver.until(lambda got: any(one.batch_id == batch.id for one in got))
            waiting = asyncio.create_task(waited(sim, tmp_path, batch.id, "--json"))
            await asyncio.sleep(0)  # it has begun, or will: either way it comes to its end
        done = await waiting

    assert (0, "succeeded") == (done.code, done.rows[0]["ending"])


async def test_what_a_daemon_knows_the_end_of_costs_no_request(tmp_path: Path) -> None:
    """Also when it no longer runs."""
    nobody = f"http://127.0.0.1:{unused_port()}"
    async with Simulator(scenario="calm", seed=7) as sim, Receiver() as receiver:
        batch = sim.world.plant(a_life(*QUICK, files=(GOOD,)))
        async with running(environment(sim, receiver, tmp_path)):
            await receiver.until(
                lambda got: any(one.event["type"] == "batch.settled" for one in got)
            )
    done = await waited(nobody, tmp_path, batch.id, "--settled", "--json")

    assert (0, "succeeded") == (done.code, done.rows[0]["ending"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([""], "an empty id"),
        (["bat-1", "--timeout", "soon"], "--timeout"),
        (["bat-1", "--watch", "nobody"], "there is no watch nobody"),
        ([], "Missing argument"),
    ],
)
async def test_what_cannot_be_meant_is_refused(
    arguments: list[str], said: str, tmp_path: Path
) -> None:
    """With 2, before anything is asked."""
    done = await waited("http://127.0.0.1:9", tmp_path, *arguments)

    assert 2 == done.code
    assert said in done.err


async def test_a_key_that_is_refused_ends_it(tmp_path: Path) -> None:
    """With what to check, and without the key."""
    async with Simulator(scenario="calm", seed=8) as sim:
        done = await waited(sim, tmp_path, "bat-1", LLAMA_CLOUD_API_KEY="llx-wrong")

    assert 2 == done.code
    assert "LLAMA_CLOUD_API_KEY" in done.err
    assert "llx-wrong" not in done.err


async def test_an_outage_is_waited_out() -> None:
    """It says nothing of the batch."""
    clock = LeapClock()
    async with Simulator(scenario="calm", seed=9, clock=clock) as sim:
        batch = sim.world.plant(a_life(("PENDING", 0.0), ("COMPLETED", 100.0), files=(GOOD,)))
        sim.faults.switch_on(Switch(kind="5xx", for_requests=40))
        outcome = await batchwatch.wait(
            batch.id, api_key="llx-simulator", base_url=sim.url, settled=True, clock=clock
        )

    assert outcome.succeeded
    assert batch.id == outcome.batch_id


async def test_a_batch_that_nobody_knows_is_given_time_and_no_more() -> None:
    """It may just have been created; after half a minute it is a mistake."""
    clock = LeapClock()
    async with Simulator(scenario="calm", seed=10, clock=clock) as sim:
        begun = clock.monotonic()
        with pytest.raises(batchwatch.NoSuchBatch, match=r"bat-nobody .* Is the id whole"):
            await batchwatch.wait(
                "bat-nobody", api_key="llx-simulator", base_url=sim.url, clock=clock
            )

    assert UNKNOWN_PATIENCE <= clock.monotonic() - begun <= 3 * UNKNOWN_PATIENCE


async def test_time_that_is_up_is_an_error_in_a_program() -> None:
    """It says how far the batch is."""
    clock = LeapClock()
    async with Simulator(scenario="calm", seed=11, clock=clock) as sim:
        batch = sim.world.plant(a_life(("PENDING", 0.0), ("RUNNING", 5.0)))
        with pytest.raises(TimeoutError, match="RUNNING"):
            await batchwatch.wait(
                batch.id, api_key="llx-simulator", base_url=sim.url, timeout="2m", clock=clock
            )


async def test_each_watch_is_asked_until_one_knows_it(tmp_path: Path) -> None:
    """Whoever waits need not know whose key sees a batch."""
    clock = LeapClock()
    async with (
        Simulator(scenario="calm", seed=12, clock=clock) as one,
        Simulator(scenario="calm", seed=13, clock=clock) as two,
    ):
        batch = two.world.plant(a_life(*QUICK, files=(GOOD,)))
        environ = {
            "BATCHWATCH_DATA_DIR": str(tmp_path),
            "LLAMA_CLOUD_API_KEY": "llx-simulator",
            "BATCHWATCH_WATCHES__ONE__BASE_URL": one.url,
            "BATCHWATCH_WATCHES__TWO__BASE_URL": two.url,
        }
        settings = load(environ=environ, for_run=False)
        async with Wait([batch.id], settings, settled=True, clock=clock) as waiting:
            assert await waiting.until_over(patience=600.0)
            outcome = await waiting.outcome(next(iter(waiting.standings)))
        with pytest.raises(NoSuchBatch):
            async with Wait(["bat-none"], settings, settled=True, clock=clock) as waiting:
                await waiting.until_over(patience=600.0)

    assert outcome.succeeded


async def test_of_two_that_wait_in_a_program_the_first_to_end_leaves_the_other_hushed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What batchwatch has to say to operators has no place in a program's output."""
    structlog.reset_defaults()
    clock = LeapClock()
    async with Simulator(scenario="calm", seed=21, clock=clock) as sim:
        ids = [
            sim.world.plant(a_life(("PENDING", 0.0), ("COMPLETED", end), files=(GOOD,))).id
            for end in (5.0, 500.0)
        ]
        capsys.readouterr()
        await asyncio.gather(
            *(
                batchwatch.wait(one, api_key="llx-simulator", base_url=sim.url, clock=clock)
                for one in ids
            )
        )

    assert "batch.changed" not in capsys.readouterr().out
    assert not structlog.is_configured()


async def test_what_another_watch_sees_is_not_what_was_asked_for(tmp_path: Path) -> None:
    """With ``--watch``, the store is read as that watch sees it: here it has another account."""
    async with (
        Simulator(scenario="calm", seed=17) as sim,
        Simulator(scenario="calm", seed=18) as elsewhere,
        Receiver() as receiver,
    ):
        batch = sim.world.plant(a_life(("PENDING", 0.0), ("RUNNING", 0.1)))
        other = {"BATCHWATCH_WATCHES__OTHER__BASE_URL": elsewhere.url}
        async with running(environment(sim, receiver, tmp_path, **other)):
            await receiver.until(lambda got: any(one.batch_id == batch.id for one in got))
            done = await waited(
                sim,
                tmp_path,
                *(batch.id, "--watch", "other", "--timeout", "1s", "--json"),
                BATCHWATCH_WATCHES__OTHER__BASE_URL=elsewhere.url,
            )

    assert 4 == done.code
    assert None is done.rows[0]["status"]


async def test_what_one_watch_has_lost_and_another_follows_is_not_over(tmp_path: Path) -> None:
    """Two watches may see the same batch, and a 404 proves little."""
    environ = {
        "BATCHWATCH_DATA_DIR": str(tmp_path),
        "LLAMA_CLOUD_API_KEY": "llx-simulator",
        "BATCHWATCH_WATCHES__ONE__PROJECT_ID": "prj-1",
        "BATCHWATCH_WATCHES__TWO__PROJECT_ID": "prj-2",
    }
    settings, clock = load(environ=environ, for_run=False), LeapClock()
    database = await Database.open(settings.database_url.get_secret_value())  # as a daemon has it
    store, seen = Store(database, Router({}), clock), a_sighting(RUNNING)
    for name in map(WatchName, settings.watches):
        await store.watches.begin(name, now=at(0))
        rules = Recorder(name, "https://llamacloud.test")
        await store.batches.change(name, [seen.id], partial(rules.record, seen=[seen], now=at(0)))
    for name, is_over in ((WatchName("two"), False), (WatchName("one"), True)):

        def lose(known: Mapping[BatchId, Batch]) -> Changes:
            return Changes({one.id: replace(one, vanished_at=at(9)) for one in known.values()})

        await store.batches.change(name, [seen.id], lose)
        async with Wait([seen.id], settings, settled=False, clock=clock) as waiting:
            assert is_over is await waiting.until_over(patience=0.0)
    await database.close()


async def test_a_watch_that_is_refused_does_not_speak_for_one_that_is_out(tmp_path: Path) -> None:
    """The outage is waited out, for the batch may be there; a refusal is told when it is over."""
    clock = LeapClock()
    async with (
        Simulator(scenario="calm", seed=19, clock=clock) as one,
        Simulator(scenario="calm", seed=20, clock=clock) as two,
    ):
        batch = two.world.plant(a_life(*QUICK, files=(GOOD,)))
        two.faults.switch_on(Switch(kind="5xx", for_requests=20))
        environ = {
            "BATCHWATCH_DATA_DIR": str(tmp_path),
            "LLAMA_CLOUD_API_KEY": "llx-simulator",
            "BATCHWATCH_WATCHES__ONE__BASE_URL": one.url,
            "BATCHWATCH_WATCHES__ONE__API_KEY": "llx-revoked",
            "BATCHWATCH_WATCHES__TWO__BASE_URL": two.url,
        }
        settings = load(environ=environ, for_run=False)
        async with Wait([batch.id], settings, settled=True, clock=clock) as waiting:
            assert await waiting.until_over(patience=600.0)
            outcome = await waiting.outcome(next(iter(waiting.standings)))
        with pytest.raises(batchwatch.CloudError):
            async with Wait(["bat-none"], settings, settled=True, clock=clock) as waiting:
                await waiting.until_over(patience=600.0)

    assert outcome.succeeded


async def test_on_a_terminal_there_is_a_bar_for_each_batch(tmp_path: Path) -> None:
    """Full when the batch is over, whatever is known of its files."""
    async with Simulator(scenario="calm", seed=14) as sim:
        lives = (a_life(*QUICK, files=(GOOD,)), a_life(("PENDING", 0.0), ("FAILED", 0.4)))
        ids = [sim.world.plant(life).id for life in lives]
        command = [sys.executable, "-m", "batchwatch", "wait", *ids, "--settled"]
        done = await waited(sim, tmp_path, within=(sys.executable, "-c", ON_A_TERMINAL, *command))

    assert 3 == done.code
    assert "\x1b[?25l" in done.out  # the cursor is hidden while bars are drawn
    assert "\x1b[?25h" in done.out  # and comes back
    assert all(one in done.out for one in ids)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_whoever_interrupts_it_finds_nothing_left_behind(
    number: signal.Signals, tmp_path: Path
) -> None:
    """No store of its own, no traceback, and the exit code of all commands."""
    async with Simulator(scenario="calm", seed=15) as sim:
        batch = sim.world.plant(a_life(("PENDING", 0.0), ("RUNNING", 0.1)))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "batchwatch", "wait", batch.id,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(ROOT),
                "PYTHONUNBUFFERED": "1",
                "TMPDIR": str(tmp_path),
                "LLAMA_CLOUD_API_KEY": "llx-simulator",
                "LLAMA_CLOUD_BASE_URL": sim.url,
                "BATCHWATCH_DATA_DIR": str(tmp_path / "data"),
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        await process.stdout.readline()  # it has looked once
        process.send_signal(number)
        _, err = await process.communicate()

    assert (130, b"") == (process.returncode, err)
    assert not list(tmp_path.iterdir())


async def test_a_key_that_is_refused_is_called_by_its_parameter() -> None:
    """A program has no option of a command."""
    async with Simulator(scenario="calm", seed=16) as sim:
        with pytest.raises(batchwatch.CloudError, match="Check api_key"):
            await batchwatch.wait("bat-1", api_key="llx-wrong", base_url=sim.url)


async def test_a_cloud_that_does_not_answer_holds_nobody_beyond_his_time() -> None:
    """A request may take far longer than whoever waits has; what was seen before is told."""
    async with Simulator(scenario="calm", seed=17) as sim:
        batch = sim.world.plant(a_life(("PENDING", 0.0)))
        settings = load(
            environ={"LLAMA_CLOUD_API_KEY": "llx-simulator", "LLAMA_CLOUD_BASE_URL": sim.url},
            for_run=False,
        )
        clock = LeapClock()
        async with Wait([batch.id], settings, settled=True, clock=clock, beside=False) as waiting:
            assert not await waiting.until_over(patience=0.0)
            sim.faults.switch_on(Switch(kind="latency", seconds=3_600.0))
            async with asyncio.timeout(2 * LOOK_AT_LEAST):
                assert not await waiting.until_over(patience=0.0)
            outcome = await waiting.outcome(next(iter(waiting.standings)))

    assert ("PENDING", "unfinished") == (outcome.status, outcome.ending)
    assert "did not answer" in (waiting.trouble or "")
