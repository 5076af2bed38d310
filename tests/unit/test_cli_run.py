"""``run`` and ``simulate``: in processes of their own, with signals and exit codes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING

import pytest

from batchwatch.simulator import Simulator, a_life
from tests.support.daemon import ROOT, environment, running
from tests.support.receiver import Receiver, says
from tests.unit.commands import started

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from aiohttp import web


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator() as simulator:
        yield simulator


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as open_receiver:
        yield open_receiver


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_run_ends_well_when_it_is_told_to(
    number: signal.Signals, sim: Simulator, receiver: Receiver, tmp_path: Path
) -> None:
    """By a service manager or by Ctrl-C, within a moment when nothing is under way."""
    async with started(environment(sim, receiver, tmp_path), "run") as daemon:
        await daemon.says("daemon.started")
        await sim.asked(1)
        daemon.is_sent(number)
        code, said = await daemon.ends()

    assert 0 == code
    assert "daemon.stopping" in said
    assert "daemon.stopped" in said.splitlines()[-1]
    assert "Traceback" not in said


async def test_a_delivery_under_way_is_finished_before_the_end(
    sim: Simulator, receiver: Receiver, tmp_path: Path
) -> None:
    """The receiver takes its time; what it took is written, and is not sent again."""
    asked, may_answer = asyncio.Event(), asyncio.Event()

    async def in_a_moment(request: web.Request) -> web.StreamResponse:
        asked.set()
        await may_answer.wait()
        return await says(200)(request)

    receiver.always = in_a_moment
    environ = environment(sim, receiver, tmp_path, BATCHWATCH_NOTIFY_BACKLOG="true")
    sim.world.plant(a_life(("RUNNING", 0.0)))
    async with started(environ, "run") as daemon:
        await asked.wait()
        daemon.is_sent(signal.SIGTERM)
        await daemon.says("daemon.stopping")
        may_answer.set()
        code, _ = await daemon.ends()
    async with running(environ):
        await sim.asked(sim.requests.total() + 2)

    assert (0, 1) == (code, len(receiver.received))


async def test_when_the_grace_is_over_the_daemon_ends_all_the_same(
    sim: Simulator, receiver: Receiver, tmp_path: Path
) -> None:
    """With exit code 0: what was interrupted is sent by the next start, under the same id."""
    asked = asyncio.Event()
    ids: list[str] = []

    async def never(request: web.Request) -> web.StreamResponse:
        ids.append(request.headers["webhook-id"])
        asked.set()
        await asyncio.Event().wait()
        return await says(200)(request)

    receiver.answers = [never]
    environ = environment(sim, receiver, tmp_path, BATCHWATCH_SHUTDOWN_GRACE="100ms")
    sim.world.plant(a_life(("RUNNING", 0.0)))
    async with started(environ, "run") as daemon:
        await asked.wait()
        daemon.is_sent(signal.SIGTERM)
        code, said = await daemon.ends()
    async with running(environ):
        await receiver.until(lambda got: len(got) == 1)

    assert (0, True) == (code, "deliveries.interrupted" in said)
    assert ids == [one.id for one in receiver.received]


async def test_a_second_signal_ends_it_at_once(
    sim: Simulator, receiver: Receiver, tmp_path: Path
) -> None:
    """For whoever cannot wait: everything that matters is in the store."""
    asked = asyncio.Event()

    async def never(request: web.Request) -> web.StreamResponse:
        asked.set()
        await asyncio.Event().wait()
        return await says(200)(request)

    receiver.answers = [never]
    sim.world.plant(a_life(("RUNNING", 0.0)))
    async with started(environment(sim, receiver, tmp_path), "run") as daemon:
        await asked.wait()
        daemon.is_sent(signal.SIGINT)
        await daemon.says("daemon.stopping")
        daemon.is_sent(signal.SIGINT)
        code, _ = await daemon.ends()

    assert 130 == code


async def test_a_second_daemon_on_a_store_is_told_who_has_it(
    sim: Simulator, receiver: Receiver, tmp_path: Path
) -> None:
    """Exit code 1 and one line: the process, and what to do."""
    environ = environment(sim, receiver, tmp_path)
    async with running(environ):
        await sim.asked(1)
        async with started(environ, "run") as second:
            code, said = await second.ends()

    assert (1, 1) == (code, len(said.splitlines()))
    assert f"(process {os.getpid()})" in said
    assert "BATCHWATCH_DATA_DIR" in said


async def test_what_is_probably_not_meant_is_logged_at_the_start(
    sim: Simulator, receiver: Receiver, tmp_path: Path
) -> None:
    """As check tells it: two watches of the same batches look well until everything comes twice."""
    environ = environment(
        sim,
        receiver,
        tmp_path,
        BATCHWATCH_WATCHES__AGAIN__REQUESTS_PER_MINUTE="60000",
    )
    async with started(environ, "run") as daemon:
        line = json.loads(await daemon.says("settings.doubted"))
        await daemon.says("daemon.started")

    assert "again" in line["reason"]
    assert "twice" in line["reason"]


@pytest.mark.parametrize(
    ("command", "way_out"),
    [
        ("run", ": set BATCHWATCH_LISTEN to a free address"),
        pytest.param(
            "simulate",
            "; choose another with --port",
        ),
    ],
)
async def test_a_port_that_is_taken_is_told(
    command: str, way_out: str, sim: Simulator, receiver: Receiver, tmp_path: Path
) -> None:
    """Exit code 1 and one line with the way to another port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        environ = environment(sim, receiver, tmp_path, BATCHWATCH_LISTEN=f"127.0.0.1:{port}")
        arguments = ["--port", str(port)] if command == "simulate" else []
        async with started(environ, command, *arguments) as daemon:
            code, said = await daemon.ends()

    where = f"batchwatch: cannot listen on 127.0.0.1:{port}: Address already in use"
    assert (1, f"{where}{way_out}\n") == (code, said)
    assert [] == receiver.received


BROKEN = """
import asyncio
from batchwatch import daemon
from batchwatch.cli import main
from batchwatch.store import StoreError

async def run(*_, **__):
    async def task():
        raise {error}
    async with asyncio.TaskGroup() as group:
        group.create_task(task())

daemon.run = run
main()
"""


@pytest.mark.parametrize(
    ("error", "last", "tracebacks"),
    [
        ('KeyError("a bug")', "a bug has ended the daemon; its log has the traceback", 1),
        ('StoreError("/data: no room: make some")', "/data: no room: make some", 0),
    ],
)
async def test_what_ends_a_task_of_the_daemon_is_told_in_a_line(
    error: str, last: str, tracebacks: int, sim: Simulator, receiver: Receiver, tmp_path: Path
) -> None:
    """Exit code 1; a bug with its traceback in the log, once, and what can be mended without."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", BROKEN.format(error=error), "run"),
        env={"PYTHONPATH": str(ROOT), **environment(sim, receiver, tmp_path)},
        stderr=asyncio.subprocess.PIPE,
    )
    _, written = await process.communicate()

    *logged, told = written.decode().splitlines()
    assert (1, tracebacks) == (process.returncode, len(logged))
    assert told.startswith(f"batchwatch: {last}")
    assert all("KeyError" in json.loads(line)["exception"] for line in logged)


async def test_simulate_ends_well_when_it_is_told_to() -> None:
    """It says where it listens, and what it takes to repeat the run."""
    async with started({}, "simulate", "--port", "0", "--seed", "7") as simulator:
        line = json.loads(await simulator.says("simulator.started"))
        simulator.is_sent(signal.SIGTERM)
        code, said = await simulator.ends()

    assert (0, "calm", 7) == (code, line["scenario"], line["seed"])
    assert line["url"].startswith("http://127.0.0.1:")
    assert "simulator.stopped" in said


async def test_a_file_that_a_setting_names_and_that_cannot_be_used_keeps_it_from_starting(
    sim: Simulator, receiver: Receiver, tmp_path: Path
) -> None:
    """As any wrong setting does, and with the same words."""
    tls = {"BATCHWATCH_ENDPOINTS__HOOK__TLS_CA": "/nowhere/ca.pem"}
    async with started(environment(sim, receiver, tmp_path, **tls), "run") as daemon:
        code, said = await daemon.ends()

    assert 2 == code
    assert "BATCHWATCH_ENDPOINTS__HOOK__TLS_CA" in said
    assert "'/nowhere/ca.pem', no such file" in said
    assert "Traceback" not in said
    assert not (tmp_path / "batchwatch.db").exists()  # the daemon is gone


async def test_what_is_doubtful_is_said_at_the_start(
    sim: Simulator, receiver: Receiver, tmp_path: Path
) -> None:
    """Not only to those who run check."""
    tls = {"BATCHWATCH_ENDPOINTS__HOOK__TLS_VERIFY": "false"}
    async with started(environment(sim, receiver, tmp_path, **tls), "run") as daemon:
        line = json.loads(await daemon.says("settings.doubted"))

    assert "warning" == line["level"]
    assert line["reason"].startswith("endpoints.hook has tls_verify set to false: ")
