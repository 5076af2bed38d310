"""``batchwatch tail`` beside a real daemon, that is restarted, and without one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp.test_utils import unused_port

from batchwatch.simulator import Simulator, a_life
from tests.support.daemon import ROOT, environment, running
from tests.support.receiver import Receiver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

TOKEN = "0123456789abcdef-admin"
LIFE = (("PENDING", 0.0), ("RUNNING", 0.2), ("COMPLETED", 0.5))


@asynccontextmanager
async def tailing(
    environ: Mapping[str, str], *options: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "batchwatch", "tail", *options),
        env={**environ, "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def lines(process: asyncio.subprocess.Process, count: int) -> list[dict[str, Any]]:
    assert process.stdout is not None
    async with asyncio.timeout(20):
        return [json.loads(await process.stdout.readline()) for _ in range(count)]


def settings(sim: Simulator, receiver: Receiver, folder: Path, **more: str) -> dict[str, str]:
    listen = {"BATCHWATCH_LISTEN": f"127.0.0.1:{unused_port()}"}
    return environment(sim, receiver, folder, **(listen | more))


async def all_events(environ: Mapping[str, str], token: str = "") -> list[dict[str, Any]]:
    url = f"http://{environ['BATCHWATCH_LISTEN']}{environ.get('BATCHWATCH_PATH_PREFIX', '')}"
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.get(f"{url}/api/v1/events?after=0&limit=200") as answer,
    ):
        items: list[dict[str, Any]] = (await answer.json())["items"]
        return items


async def test_who_is_cut_off_goes_on_where_it_was(tmp_path: Path) -> None:
    """The daemon is stopped and started; another batch comes to its end meanwhile."""
    async with Simulator() as sim, Receiver() as receiver:
        environ = settings(sim, receiver, tmp_path)
        sim.world.plant(a_life(*LIFE), files=1)
        async with AsyncExitStack() as stack:
            daemon = await stack.enter_async_context(AsyncExitStack())
            await daemon.enter_async_context(running(environ))
            process = await stack.enter_async_context(
                tailing(environ, "--json", "--after", "0", "--type", "batch.*")
            )
            seen = await lines(process, 4)
            await daemon.aclose()
            assert process.stderr is not None
            lost = (await process.stderr.readline()).decode()
            sim.world.plant(a_life(*LIFE), files=1)
            async with running(environ):
                seen += await lines(process, 4)
                process.send_signal(signal.SIGINT)
                code = await process.wait()
                everything = await all_events(environ)

    assert "connection was lost" in lost
    assert 130 == code
    assert len(seen) == len({one["id"] for one in seen})
    told = [one["seq"] for one in everything if one["type"].startswith("batch.")]
    assert [one["seq"] for one in seen] == told[: len(seen)]


async def test_for_people_it_is_a_line_for_each_event(tmp_path: Path) -> None:
    """With a token and below a prefix, both from the settings; it ends after as many as asked."""
    async with Simulator() as sim, Receiver() as receiver:
        environ = settings(
            sim,
            receiver,
            tmp_path,
            BATCHWATCH_API_TOKEN=TOKEN,
            BATCHWATCH_PATH_PREFIX="/ops",
        )
        batch = sim.world.plant(a_life(*LIFE), files=1)
        async with running(environ), tailing(environ, "--since", "1h", "-n", "3") as process:
            out, err = await process.communicate()

    assert (0, b"") == (process.returncode, err)
    printed = out.decode().splitlines()
    assert 3 == len(printed)
    assert all(batch.id in line for line in printed)
    assert "batch.pending" in printed[1]


async def test_what_keeps_it_from_following_is_said(tmp_path: Path) -> None:
    """No daemon, a wrong token, something else at that address; each with what to do."""
    async with Simulator() as sim, Receiver() as receiver:
        environ = settings(sim, receiver, tmp_path, BATCHWATCH_API_TOKEN=TOKEN)
        said = {}
        async with tailing(environ) as process:
            said["nobody"] = (await process.communicate())[1].decode(), process.returncode
        other = {key: value for key, value in environ.items() if "TOKEN" not in key}
        url = f"http://{environ['BATCHWATCH_LISTEN']}"
        async with running(environ), tailing(other, "--url", url) as process:
            said["stranger"] = (await process.communicate())[1].decode(), process.returncode
        async with tailing(other, "--url", sim.url) as process:
            said["other"] = (await process.communicate())[1].decode(), process.returncode

    assert all(code == 1 for _, code in said.values())
    assert "no daemon answers" in said["nobody"][0]
    assert "batchwatch run" in said["nobody"][0]
    assert "401" in said["stranger"][0]
    assert "BATCHWATCH_API_TOKEN" in said["stranger"][0]
    assert "batchwatch" in said["other"][0]
    assert all("Traceback" not in text and TOKEN not in text for text, _ in said.values())


async def test_a_pipe_that_is_closed_ends_it_quietly(tmp_path: Path) -> None:
    """As `head` does."""
    async with Simulator() as sim, Receiver() as receiver:
        environ = settings(sim, receiver, tmp_path)
        for _ in range(3):
            sim.world.plant(a_life(*LIFE), files=1)
        async with running(environ):
            await receiver.until(lambda got: len(got) >= 9)
            command = f"{sys.executable} -m batchwatch tail --json --after 0 | head -n 2"
            process = await asyncio.create_subprocess_shell(
                command,
                env={**environ, "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
                cwd=ROOT,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            async with asyncio.timeout(20):
                out, err = await process.communicate()

    assert (2, b"") == (len(out.splitlines()), err)
