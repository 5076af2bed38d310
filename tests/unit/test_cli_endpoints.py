"""``test``, ``endpoints``, ``enable`` and ``disable``: one endpoint, by hand."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from standardwebhooks.webhooks import Webhook

from batchwatch.domain.batch import EndpointName
from batchwatch.simulator import Simulator, a_life
from tests.support.builders import a_sighting
from tests.support.daemon import environment
from tests.support.receiver import SECRET, Received, Receiver, says
from tests.support.recorded import recorded
from tests.unit.commands import called, started

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from typer.testing import Result

PATH = "/services/T0001/B0002/path-s3cret"
SOON = 20.0  # seconds; a daemon looks every other second for what commands have changed


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as open_receiver:
        yield open_receiver


async def calls(environ: dict[str, str], *command: str) -> Result:
    """A command beside the loop that its receivers live in."""
    return await asyncio.to_thread(called, *command, environ=environ)


def settings(receiver: Receiver, folder: Path, **more: str) -> dict[str, str]:
    """A webhook and a channel, whose paths and headers nobody may see."""
    return {
        "BATCHWATCH_DATA_DIR": str(folder),
        "BATCHWATCH_ENDPOINTS__HOOK__URL": f"{receiver.url}{PATH}?token=query-s3cret",
        "BATCHWATCH_ENDPOINTS__HOOK__SECRET": SECRET,
        "BATCHWATCH_ENDPOINTS__HOOK__HEADERS__X_KEY": "header-s3cret",
        "BATCHWATCH_ENDPOINTS__CHAT__URL": f"{receiver.url}{PATH}",
        "BATCHWATCH_ENDPOINTS__CHAT__TYPE": "slack",
    } | more


def written(folder: Path) -> dict[str, int]:
    """When each file in ``folder`` was written."""
    return {one.name: one.stat().st_mtime_ns for one in folder.iterdir()}


async def test_a_test_is_an_event_like_any_other(receiver: Receiver, tmp_path: Path) -> None:
    """Signed, with its own id, and told in a line; nothing of it is kept."""
    environ = settings(receiver, tmp_path)
    results = [await calls(environ, "test", "hook") for _ in range(2)]

    first, second = receiver.received
    for one in (first, second):
        Webhook(SECRET).verify(one.body, one.headers)
        assert ("endpoint.test", "hook") == (one.event["type"], one.event["data"]["endpoint"])
        assert "header-s3cret" == one.headers["x-key"]
    assert first.id != second.id
    for result in results:
        mark, name, *rest = result.stdout.splitlines()[0].split()
        assert (0, "✓", "hook", ["HTTP", "200"]) == (result.exit_code, mark, name, rest[:2])
    assert {} == written(tmp_path)


async def test_a_test_of_a_channel_is_a_message(receiver: Receiver, tmp_path: Path) -> None:
    """As it will look there."""
    result = await calls(settings(receiver, tmp_path), "test", "chat", "--json")

    (received,) = receiver.received
    assert received.event["text"].startswith("🧪 A test of batchwatch")
    told = json.loads(result.stdout)
    assert (0, True, 200, "ok") == (
        result.exit_code,
        told["ok"],
        told["status_code"],
        told["response"],
    )


async def test_a_channel_behind_a_page_to_sign_in_on_does_not_pass(
    receiver: Receiver, tmp_path: Path
) -> None:
    """Which comes with 200."""
    receiver.always = says(200, "<title>Sign in</title>")

    result = await calls(settings(receiver, tmp_path), "test", "chat")

    assert (1, True) == (result.exit_code, "not Slack's answer" in result.stdout)


@pytest.mark.parametrize("form", [[], ["--json"]])
@pytest.mark.parametrize("endpoint", ["hook", "chat"])
async def test_a_test_that_is_refused_says_what_came_back_and_no_secret(
    endpoint: str, form: list[str], receiver: Receiver, tmp_path: Path
) -> None:
    """Exit code 1. A receiver that repeats what it was sent gives nothing away."""
    said = f"no {PATH}?token=query-s3cret for header-s3cret and {SECRET}"
    receiver.always = says(403, said)

    result = await calls(settings(receiver, tmp_path), "test", endpoint, *form)

    assert (1, True) == (result.exit_code, "HTTP 403" in result.stdout)
    assert "no " in result.stdout
    hidden = ["path-s3cret", "/services/", "T0001"]
    hidden += ["query-s3cret", "header-s3cret"] if endpoint == "hook" else []
    assert not [one for one in hidden if one in result.output]
    if form:
        told = json.loads(result.stdout)
        assert (False, 403, "client_error") == (
            told["ok"],
            told["status_code"],
            told["failure"],
        )
    else:
        assert "✗" == result.stdout[0]


async def test_a_test_of_nobody_who_listens_says_so(receiver: Receiver, tmp_path: Path) -> None:
    """Without its URL."""
    environ = settings(receiver, tmp_path, BATCHWATCH_ENDPOINTS__HOOK__URL="http://127.0.0.1:1/x9")

    result = await calls(environ, "test", "hook")

    assert (1, 1) == (result.exit_code, len(result.stdout.splitlines()))
    assert "x9" not in result.output


async def test_a_terminal_obeys_nothing_of_an_answer(receiver: Receiver, tmp_path: Path) -> None:
    """Neither its colours nor its commands, in one or in eight bits."""
    receiver.always = says(500, "one\x1b]0;owned\x07\n\ttwo \x9b31m three\u202e " + "x" * 9_000)

    result = await calls(settings(receiver, tmp_path), "test", "hook")

    _, said = result.stdout.splitlines()
    assert "one?]0;owned? two ?31m three? xxx" == said[:33]
    assert said.isprintable()
    assert 500 >= len(said)


@pytest.mark.parametrize("command", ["test", "enable", "disable"])
async def test_an_endpoint_that_is_not_set_is_told_with_those_that_are(
    command: str, receiver: Receiver, tmp_path: Path
) -> None:
    """Exit code 2, and nothing is sent or made."""
    result = await calls(settings(receiver, tmp_path), command, "hok")

    assert (2, "") == (result.exit_code, result.stdout)
    assert "there is no endpoint hok; those that are set: hook, chat" in result.stderr
    assert [] == receiver.received
    assert {} == written(tmp_path)


async def owed(folder: Path) -> None:
    """A store that owes something to two that are set, and to one that is no longer."""
    names = tuple(map(EndpointName, ("hook", "chat", "gone")))
    url = f"sqlite+aiosqlite:///{folder}/batchwatch.db"
    async with recorded(url, a_sighting(), a_sighting(batch_id="bat-2"), endpoints=names):
        pass


async def test_endpoints_are_listed_with_what_they_are_owed(
    receiver: Receiver, tmp_path: Path
) -> None:
    """Those that are no longer set as well: it waits for them."""
    await owed(tmp_path)
    environ = settings(receiver, tmp_path)

    result = await calls(environ, "endpoints")
    rows = json.loads((await calls(environ, "endpoints", "--json")).stdout)

    assert [("hook", "well", 2, 0), ("chat", "well", 2, 0), ("gone", "not set", 2, 0)] == [
        (one["endpoint"], one["state"], one["owed"], one["dead"]) for one in rows
    ]
    assert 0 == result.exit_code
    assert ["hook", "chat", "gone"] == [line.split()[0] for line in result.stdout.splitlines()[1:]]
    assert not [one for one in ("s3cret", SECRET) if one in result.output]


async def test_to_list_endpoints_changes_nothing(receiver: Receiver, tmp_path: Path) -> None:
    """Not even beside the file."""
    await owed(tmp_path)
    before = written(tmp_path)

    await calls(settings(receiver, tmp_path), "endpoints")

    assert before == written(tmp_path)


async def test_what_is_disabled_already_or_not_disabled_is_said(
    receiver: Receiver, tmp_path: Path
) -> None:
    """And is no failure: it is as it was asked to be."""
    await owed(tmp_path)
    environ = settings(receiver, tmp_path)
    said = [
        await calls(environ, *one.split())
        for one in ("enable hook", "disable hook", "disable hook", "enable hook")
    ]

    assert {0} == {one.exit_code for one in said}
    assert [
        "hook was not disabled.\n",
        "hook is disabled; what it is owed waits. batchwatch enable hook\n",
        "hook was disabled already.\n",
        "hook is enabled; what it is owed is sent, once the daemon is started.\n",
    ] == [one.stdout for one in said]


def types(got: list[Received]) -> list[str]:
    return [one.event["type"] for one in got]


async def until_it_shows(listen: str, line: str) -> None:
    """Wait until ``line`` is among the metrics of the daemon that listens there."""
    async with aiohttp.ClientSession() as session:
        while True:
            async with session.get(f"{listen}/metrics") as answer:
                if line in await answer.text():
                    return


async def state_of(environ: dict[str, str]) -> dict[str, Any]:
    rows = json.loads((await calls(environ, "endpoints", "--json")).stdout)
    return {one["endpoint"]: one for one in rows}


async def test_a_running_daemon_obeys_within_seconds_and_the_others_are_told(
    tmp_path: Path,
) -> None:
    """Nothing goes to what is disabled; once it is enabled all that it is owed does, in order."""
    async with Simulator() as sim, Receiver() as hook, Receiver() as other:
        environ = environment(
            sim,
            hook,
            tmp_path,
            BATCHWATCH_ENDPOINTS__OTHER__URL=f"{other.url}/other",
            BATCHWATCH_ENDPOINTS__OTHER__SECRET=SECRET,
        )
        async with started(environ, "run") as daemon:
            listen = json.loads(await daemon.says("daemon.started"))["listen"]
            await calls(environ, "disable", "hook")
            async with asyncio.timeout(SOON):
                await other.until(lambda got: "endpoint.disabled" in types(got))
                await until_it_shows(listen, 'batchwatch_endpoint_state{endpoint="hook"} 2.0')
            sim.world.plant(a_life(("PENDING", 0.0), ("RUNNING", 0.5), ("COMPLETED", 1.0)))
            await other.until(lambda got: "batch.completed" in types(got))
            assert [] == hook.received
            before = (await state_of(environ))["hook"]

            result = await calls(environ, "enable", "hook")
            async with asyncio.timeout(SOON):
                await hook.until(lambda got: "batch.completed" in types(got))
                await other.until(lambda got: "endpoint.recovered" in types(got))
            after = (await state_of(environ))["hook"]
            daemon.is_sent(signal.SIGTERM)
            code, _ = await daemon.ends()

    told = [one for one in types(other.received) if one.startswith("batch.")]
    assert told == types(hook.received)
    assert (0, "disabled", "by hand", len(told)) == (
        code,
        before["state"],
        before["reason"],
        before["owed"],
    )
    assert "by the daemon that is running" in result.stdout
    assert "well" == after["state"]


async def test_what_was_disabled_stays_so_when_the_daemon_is_started_anew(tmp_path: Path) -> None:
    """It stands in the store; the other hears of it even if no daemon ran."""
    await owed(tmp_path)
    async with Simulator() as sim, Receiver() as hook, Receiver() as other:
        environ = environment(
            sim,
            hook,
            tmp_path,
            BATCHWATCH_ENDPOINTS__CHAT__URL=f"{other.url}/other",
            BATCHWATCH_ENDPOINTS__CHAT__SECRET=SECRET,
        )
        await calls(environ, "disable", "hook")
        async with started(environ, "run") as daemon:
            await other.until(lambda got: len(got) == 3)
            daemon.is_sent(signal.SIGTERM)
            await daemon.ends()

    assert ["batch.running", "batch.running", "endpoint.disabled"] == sorted(types(other.received))
    assert [] == hook.received
