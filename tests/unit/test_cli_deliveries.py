"""``deliveries`` and ``replay``: what was sent where, and to have it sent again."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

from batchwatch.domain.batch import COMPLETED, EndpointName, FileOutcome
from batchwatch.domain.delivery import Attempt, Failure, Settled, State
from batchwatch.simulator import Simulator
from tests.support.builders import a_sighting, at
from tests.support.daemon import ROOT, environment, running
from tests.support.receiver import Receiver
from tests.support.recorded import recorded
from tests.unit.commands import called, started

if TYPE_CHECKING:
    from pathlib import Path

HOOK, OTHER = EndpointName("hook"), EndpointName("other")
ONE, TWO, THREE, FOUR = 1, 3, 5, 7  # what the hook is owed; the other's lie between
SOON = 20.0  # seconds; a daemon looks every other second for what commands have changed


def url_of(folder: Path) -> str:
    return f"sqlite+aiosqlite:///{folder}/batchwatch.db"


async def owed(folder: Path) -> None:
    """Of the hook's deliveries one was taken, one is dead, one failed and one was not tried."""
    seen = [a_sighting(batch_id=f"bat-{number}") for number in (1, 2, 3)]
    files = (FileOutcome("dfl-1", "parse_v2", "pjb-1"),)  # whose job may still run
    seen.append(a_sighting(COMPLETED, updated=9, asked_results=True, results=files))
    attempt = Attempt(at(9), 0.25, Failure.SERVER_ERROR, 500, "HTTP 500", "oops")
    async with recorded(url_of(folder), *seen, endpoints=(HOOK, OTHER)) as outbox:
        first, second, third = await outbox.claim(HOOK, limit=9)
        await outbox.settle(
            [
                Settled(first, Attempt(at(9), 0.012, status_code=204), State.DELIVERED),
                Settled(second, attempt, State.DEAD, reason="2 tries failed, the last: \x1b[2Jno"),
                Settled(third, attempt, State.PENDING, due_in=3600),
            ],
        )


async def dead(folder: Path, count: int) -> list[str]:
    """So many events that the hook was not sent, for their deliveries are dead; their ids."""
    seen = [a_sighting(batch_id=f"bat-{number:02}") for number in range(count)]
    attempt = Attempt(at(9), 0.25, Failure.SERVER_ERROR, 500)
    async with recorded(url_of(folder), *seen, endpoints=(HOOK,)) as outbox:
        claimed = await outbox.claim(HOOK, limit=count)
        await outbox.settle([Settled(one, attempt, State.DEAD, reason="no") for one in claimed])
    return [one.event_id for one in claimed]


@pytest.fixture
def store(tmp_path: Path) -> dict[str, str]:
    """Settings that lead to such a store."""
    asyncio.run(owed(tmp_path))
    return {"BATCHWATCH_DATA_DIR": str(tmp_path)}


def listed(store: dict[str, str], *arguments: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(
        called("deliveries", "--json", *arguments, environ=store).stdout
    )
    return rows


def state_of(store: dict[str, str], number: int) -> str:
    (row,) = [one for one in listed(store) if one["id"] == number]
    return str(row["state"])


def test_deliveries_are_a_line_each_the_newest_first(store: dict[str, str]) -> None:
    """With what came of the last try."""
    result = called("deliveries", environ=store)

    head, *lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert (0, "id event about endpoint state tries last try (UTC) answer") == (
        result.exit_code,
        head,
    )
    assert [8, 7, 6, 5, 4, 3, 2, 1] == [int(line.split()[0]) for line in lines]
    said = dict(line.split(" ", 1) for line in lines)
    when = "2026-11-24 08:00:09"
    assert f"batch.running bat-1 hook delivered 1 {when} HTTP 204 in 12 ms" == said[f"{ONE}"]
    assert f"batch.running bat-2 hook dead 1 {when} 2 tries failed, the last: [2Jno" == said["3"]
    assert f"batch.running bat-3 hook pending 1 {when} HTTP 500" == said[f"{THREE}"]
    assert "batch.completed bat-1 hook pending 0" == said[f"{FOUR}"]
    assert "batch.completed bat-1 other waiting 0" == said["8"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], [8, 7, 6, 5, 4, 3, 2, 1]),
        (["--limit", "2"], [8, 7]),
        (["--endpoint", "hook"], [7, 5, 3, 1]),
        (["--endpoint", "nobody"], []),
        (["--type", "batch.completed"], [8, 7]),
        (["--type", "batch.*", "--endpoint", "hook"], [7, 5, 3, 1]),
        (["--type", "*"], [8, 7, 6, 5, 4, 3, 2, 1]),
        (["--type", "watch.*"], []),
        (["--batch", "bat-2"], [4, 3]),
        (["--batch", "bat-%"], []),
        (["--state", "dead"], [TWO]),
        (["--state", "DELIVERED"], [ONE]),
        (["--state", "waiting"], [8]),
        (["--since", "2026-11-24T08:00:00Z"], [8, 7, 6, 5, 4, 3, 2, 1]),
        (["--since", "2026-11-24T08:00:01"], []),
        (["--since", "2026-11-24T09:00:00+02:00", "--state", "dead"], [TWO]),
        (["--since", "9999d"], [8, 7, 6, 5, 4, 3, 2, 1]),
        (["--until", "2026-11-24"], []),
        (["--until", "2026-11-25", "--batch", "bat-3"], [6, 5]),
    ],
)
def test_deliveries_are_those_that_match_all_that_is_given(
    arguments: list[str], expected: list[int], store: dict[str, str]
) -> None:
    """Nothing found is an empty list, and no failure."""
    result = called("deliveries", "--json", *arguments, environ=store)

    rows = json.loads(result.stdout)
    assert (0, expected) == (result.exit_code, [row["id"] for row in rows])


def test_deliveries_for_programs_name_the_event_and_the_try(store: dict[str, str]) -> None:
    """The event's id is what the receiver saw."""
    (row,) = listed(store, "--state", "dead")

    assert row["event_id"].startswith("evt_")
    assert ("bat-2", "default", 500, "HTTP 500") == (
        row["batch_id"],
        row["watch"],
        row["status_code"],
        row["detail"],
    )


def test_no_delivery_is_told_to_people(store: dict[str, str]) -> None:
    """In words."""
    result = called("deliveries", "--batch", "bat-none", environ=store)

    assert (0, "No delivery matches.\n") == (result.exit_code, result.stdout)


WRONG = [
    ["--type", "batch.compleet"],
    ["--type", "batch*"],
    ["--type", ""],
    ["--state", "lost"],
    ["--state", ""],
    ["--since", "yesterday"],
    ["--since", ""],
    ["--since", "99999999999d"],
    ["--until", "2026-13-01"],
]


@pytest.mark.parametrize("command", ["deliveries", "replay"])
@pytest.mark.parametrize("arguments", WRONG)
def test_a_filter_that_means_nothing_is_refused(
    command: str, arguments: list[str], store: dict[str, str]
) -> None:
    """Exit code 2 with its name: to take it for none would mean all."""
    more = ["--yes"] if command == "replay" else []
    result = called(command, *arguments, *more, environ=store)

    assert (2, "", True) == (result.exit_code, result.stdout, arguments[0] in result.stderr)
    assert "Traceback" not in result.stderr
    assert "dead" == state_of(store, TWO)


@pytest.mark.parametrize("command", [["deliveries"], ["replay", "--state", "dead"], ["endpoints"]])
def test_without_a_store_there_is_nothing_to_tell(command: list[str], tmp_path: Path) -> None:
    """Exit code 1, and none is made."""
    result = called(*command, environ={"BATCHWATCH_DATA_DIR": str(tmp_path)})

    assert (1, "") == (result.exit_code, result.stdout)
    assert "there is no store yet" in result.stderr
    assert [] == list(tmp_path.iterdir())


def test_a_replay_of_one_is_shown_and_counted(store: dict[str, str]) -> None:
    """And waits for the daemon, as it says."""
    result = called("replay", f"{TWO}", "--yes", environ=store)

    lines = result.stdout.splitlines()
    assert (0, True) == (result.exit_code, lines[1].startswith(f"{TWO} "))
    assert "1 delivery will be sent again, once the daemon is started." == lines[-1]
    assert "pending" == state_of(store, TWO)


def test_a_replay_of_ids_takes_what_was_delivered_as_well(store: dict[str, str]) -> None:
    """Its receiver may have lost it; it goes before what is still owed of its line."""
    result = called("replay", f"{ONE}", f"{TWO}", "--yes", environ=store)

    assert "2 deliveries will be sent again" in result.stdout
    assert ["pending", "pending"] == [state_of(store, one) for one in (ONE, TWO)]


def test_a_replay_by_a_filter_takes_the_dead_ones(store: dict[str, str]) -> None:
    """And those that were delivered only where that is said."""
    by_endpoint = called("replay", "--endpoint", "hook", "--dry-run", "--json", environ=store)
    delivered = ("--state", "delivered", "--dry-run", "--json")
    by_state = called("replay", *delivered, environ=store)

    assert ([TWO], [ONE]) == tuple(json.loads(one.stdout)["ids"] for one in (by_endpoint, by_state))


def test_a_replay_that_is_only_tried_changes_nothing(store: dict[str, str]) -> None:
    """It is shown, and counted."""
    result = called("replay", "--state", "dead", "--dry-run", environ=store)

    assert (0, "1 delivery would be sent again.") == (
        result.exit_code,
        result.stdout.splitlines()[-1],
    )
    assert "dead" == state_of(store, TWO)


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_replay_where_nobody_can_be_asked_needs_a_yes(
    form: list[str], store: dict[str, str]
) -> None:
    """Exit code 2: in a script it would hang, or mean what nobody has read."""
    result = called("replay", "--state", "dead", *form, environ=store)

    assert (2, True) == (result.exit_code, "say --yes" in result.stderr)
    assert "dead" == state_of(store, TWO)


def test_a_replay_of_nothing_in_particular_is_refused(store: dict[str, str]) -> None:
    """It would be everything."""
    result = called("replay", "--yes", environ=store)

    assert (2, True) == (result.exit_code, "--state dead" in result.stderr)


@pytest.mark.parametrize("arguments", [["99"], ["--batch", "bat-3"], [f"{THREE}"]])
def test_a_replay_that_matches_nothing_fails(arguments: list[str], store: dict[str, str]) -> None:
    """Exit code 1; what is still being tried is no match, and is left alone."""
    result = called("replay", *arguments, "--yes", environ=store)

    assert (1, "") == (result.exit_code, result.stdout)
    assert "no delivery that has ended matches" in result.stderr
    assert "pending" == state_of(store, THREE)


@pytest.mark.parametrize("number", ["0", f"{2**63}", "1.5", "bat-1"])
def test_what_cannot_be_an_id_is_refused(number: str, store: dict[str, str]) -> None:
    """As a wrong option is."""
    result = called("replay", number, "--yes", environ=store)

    assert (2, "") == (result.exit_code, result.stdout)
    assert "Traceback" not in result.stderr


def test_a_replay_leaves_alone_what_is_open(store: dict[str, str]) -> None:
    """Even by name: it is sent as it is."""
    result = called("replay", f"{TWO}", f"{THREE}", "--yes", "--json", environ=store)

    assert {"matched": 1, "replayed": 1, "ids": [TWO]} == json.loads(result.stdout)
    (row,) = [one for one in listed(store) if one["id"] == THREE]
    assert ("pending", 1) == (row["state"], row["attempts"])


def test_a_large_replay_shows_the_last_of_them_and_counts_the_rest(tmp_path: Path) -> None:
    """Ten lines are read, a hundred are not."""
    asyncio.run(dead(tmp_path, 14))
    environ = {"BATCHWATCH_DATA_DIR": str(tmp_path)}

    result = called("replay", "--state", "dead", "--dry-run", environ=environ)

    *lines, more, last = result.stdout.splitlines()
    assert (11, "… and 4 more") == (len(lines), more)
    assert "14 deliveries would be sent again." == last


@pytest.mark.parametrize(("said", "code", "state"), [("y\n", 0, "pending"), ("n\n", 1, "dead")])
async def test_on_a_terminal_it_asks(said: str, code: int, state: str, tmp_path: Path) -> None:
    """And does nothing without a yes."""
    await owed(tmp_path)
    environ = {"BATCHWATCH_DATA_DIR": str(tmp_path)}
    ours, theirs = os.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "batchwatch", "replay", "--state", "dead"),
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environ},
        stdin=theirs,
        stdout=asyncio.subprocess.PIPE,
    )
    os.write(ours, said.encode())
    written, _ = await process.communicate()
    for one in (ours, theirs):
        os.close(one)

    assert (code, True) == (process.returncode, b"Send 1 delivery again? [y/N]" in written)
    assert state == await asyncio.to_thread(state_of, environ, TWO)


async def test_a_running_daemon_sends_a_replay_within_seconds(tmp_path: Path) -> None:
    """Under the ids that the receiver would have seen, and with nobody's help."""
    ids = await dead(tmp_path, 3)
    async with Simulator() as sim, Receiver() as receiver:
        environ = environment(sim, receiver, tmp_path)
        async with started(environ, "run") as daemon:
            await daemon.says("daemon.started")
            arguments = ("replay", "--state", "dead", "--yes")
            result = await asyncio.to_thread(called, *arguments, environ=environ)
            async with asyncio.timeout(SOON):
                await receiver.until(lambda got: len(got) == 3)

    assert (0, True) == (result.exit_code, "by the daemon that is running." in result.stdout)
    assert sorted(ids) == sorted(one.id for one in receiver.received)


async def test_a_replay_without_a_daemon_goes_with_the_next(tmp_path: Path) -> None:
    """It stands in the store."""
    ids = await dead(tmp_path, 2)
    async with Simulator() as sim, Receiver() as receiver:
        environ = environment(sim, receiver, tmp_path)
        arguments = ("replay", "--state", "dead", "--yes")
        await asyncio.to_thread(called, *arguments, environ=environ)
        assert [] == receiver.received
        async with running(environ):
            await receiver.until(lambda got: len(got) == 2)

    assert sorted(ids) == sorted(one.id for one in receiver.received)


async def test_what_was_delivered_is_sent_again_under_its_id(tmp_path: Path) -> None:
    """So that a receiver that has it drops it; also right after the start."""
    await owed(tmp_path)
    async with Simulator() as sim, Receiver() as receiver:
        environ = environment(sim, receiver, tmp_path)
        (row,) = await asyncio.to_thread(listed, environ, "--state", "delivered")
        async with running(environ):
            await receiver.until(lambda got: len(got) >= 2)  # what was open
            await asyncio.to_thread(called, "replay", f"{ONE}", "--yes", environ=environ)
            async with asyncio.timeout(SOON):
                await receiver.until(lambda got: len(got) >= 3)

    assert row["event_id"] == receiver.received[-1].id
