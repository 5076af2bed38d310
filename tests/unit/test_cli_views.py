"""``ls`` and ``show``: what the store knows, as tables for people and as JSON for programs."""

from __future__ import annotations

import asyncio
import json
import os
import re
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from batchwatch.domain.batch import (
    COMPLETED,
    RUNNING,
    BatchId,
    FileOutcome,
)
from batchwatch.domain.delivery import Attempt, Failure, Settled, State
from batchwatch.domain.jobs import JobRecorder, JobSeen
from batchwatch.domain.routing import Router
from batchwatch.store import Batches, Database, FileNames, Outbox, Views
from tests.support.builders import WATCH, a_sighting, at
from tests.support.clock import ManualClock
from tests.support.recorded import WEBHOOK, recorded
from tests.unit.commands import called

if TYPE_CHECKING:
    from pathlib import Path


async def told(url: str) -> None:
    """One batch has ended and one goes on; one delivery went well, and one did not."""
    files = (
        FileOutcome("dfl-1", "parse_v2", "pjb-1"),
        FileOutcome("dfl-2", error_message="no [red]pages[/red] in it"),
        FileOutcome("dfl-3"),
    )
    ended = a_sighting(COMPLETED, updated=60, seen_at=at(60), asked_results=True, results=files)
    seen = (
        a_sighting(RUNNING, batch_id="bat-old"),
        a_sighting(RUNNING, batch_id="bat-new", seen_at=at(5)),
        replace(ended, id=BatchId("bat-old")),
    )
    failed = Attempt(at(99), 0.25, Failure.SERVER_ERROR, 500, "HTTP 500", "oops")
    async with recorded(url, *seen) as outbox:
        first, second = await outbox.claim(WEBHOOK, limit=9)
        await outbox.settle(
            [
                Settled(first, Attempt(at(99), 0.012, status_code=204), State.DELIVERED),
                Settled(second, failed, State.PENDING, due_in=5),
            ],
        )


@pytest.fixture
def store(tmp_path: Path) -> dict[str, str]:
    """Settings that lead to such a store."""
    asyncio.run(told(f"sqlite+aiosqlite:///{tmp_path}/batchwatch.db"))
    return {"BATCHWATCH_DATA_DIR": str(tmp_path)}


def test_ls_lists_batches_the_last_changed_first(store: dict[str, str]) -> None:
    """One line each, whole even where no terminal is."""
    result = called("ls", environ=store)

    head, first, second = result.stdout.splitlines()
    assert 0 == result.exit_code
    assert {"batch", "watch", "status", "since", "age", "job"} == set(head.split())
    assert (["bat-old", "COMPLETED"], ["bat-new", "RUNNING"]) == (
        first.split()[:2],
        second.split()[:2],
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ["bat-old", "bat-new"]),
        (["--limit", "1"], ["bat-old"]),
        (["--status", "running"], ["bat-new"]),
        (["--status", "FAILED"], []),
        (["--watch", "default"], ["bat-old", "bat-new"]),
        (["--watch", "other"], []),
    ],
)
def test_ls_for_programs_is_what_the_store_knows(
    arguments: list[str], expected: list[str], store: dict[str, str]
) -> None:
    """Filtered as asked; nothing found is an empty list, and no failure."""
    result = called("ls", "--json", *arguments, environ=store)

    rows = json.loads(result.stdout)
    assert (0, expected) == (result.exit_code, [row["id"] for row in rows])
    for row in rows:
        assert ("default", "parse_v2") == (row["watch"], row["job_type"])
        assert datetime.fromisoformat(row["changed_at"]).tzinfo is not None
        assert isinstance(row["lasted"], dict)


ID = "bat-01234567-89ab-cdef-0123-456789abcdef"


@pytest.mark.parametrize(
    ("columns", "heads"),
    [
        (200, ["batch", "status", "since", "age", "watch", "job"]),
        (80, ["batch", "status", "since", "age", "job"]),
        (62, ["batch", "status", "since"]),
        (57, ["batch", "status"]),
        (30, ["batch", "status"]),
    ],
)
def test_ls_leaves_out_what_there_is_no_room_for(
    columns: int, heads: list[str], tmp_path: Path
) -> None:
    """The id is what one copies from here: it is whole in every terminal, and so is its status."""

    async def record() -> None:
        seen = a_sighting(COMPLETED, batch_id=ID, job_type="parse_v2")
        async with recorded(f"sqlite+aiosqlite:///{tmp_path}/batchwatch.db", seen):
            pass

    asyncio.run(record())
    terminal = {"FORCE_COLOR": "1", "COLUMNS": str(columns), "TERM": "xterm"}

    result = called("ls", environ={"BATCHWATCH_DATA_DIR": str(tmp_path), **terminal})

    head, line = re.sub(r"\x1b\[[0-9;]*m", "", result.stdout).splitlines()
    assert heads == head.split()
    assert [ID, "COMPLETED"] == line.split()[:2]


def test_no_line_ends_with_blanks(store: dict[str, str]) -> None:
    """They wrap in narrow terminals, and stand in what is copied."""
    for command in (["ls"], ["show", "bat-old"]):
        lines = called(*command, environ=store).stdout.splitlines()
        assert [line.rstrip() for line in lines] == lines


@pytest.mark.parametrize("arguments", [["--status", "NOPE"], ["--watch", "nope"]])
def test_ls_says_what_there_is_where_nothing_matches(
    arguments: list[str], store: dict[str, str]
) -> None:
    """And in which store it has looked."""
    result = called("ls", *arguments, environ=store)

    file = f"{store['BATCHWATCH_DATA_DIR']}/batchwatch.db"
    assert (0, f"None of the 2 batches in {file} matches. Watches: default. ") == (
        result.exit_code,
        result.stdout.partition("Statuses: ")[0],
    )
    assert "COMPLETED, RUNNING.\n" == result.stdout.partition("Statuses: ")[2]


def test_ls_of_a_store_without_batches_says_so(tmp_path: Path) -> None:
    """People are told, programs get an empty list."""

    async def empty() -> None:
        async with recorded(f"sqlite+aiosqlite:///{tmp_path}/batchwatch.db"):
            pass

    asyncio.run(empty())
    environ = {"BATCHWATCH_DATA_DIR": str(tmp_path)}

    assert f"No batches yet in {tmp_path}/batchwatch.db.\n" == called("ls", environ=environ).stdout
    assert "[]" == called("ls", "--json", environ=environ).stdout.strip()


def test_show_tells_the_whole_story_of_a_batch(store: dict[str, str]) -> None:
    """Its statuses, what became of its files, and who was told with what answer."""
    result = called("show", "bat-old", environ=store)

    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert 0 == result.exit_code
    assert "bat-old watch default" == lines[0]
    assert lines[1].startswith("COMPLETED since ")
    assert "1 RUNNING 2026-11-24 08:00:00 1m" in lines
    assert "2 COMPLETED 2026-11-24 08:01:00" in lines
    assert "3 files: 1 still open, 1 unmapped, 1 jobless" in lines
    assert "dfl-2 no [red]pages[/red] in it" in lines
    assert "dfl-1 parse_v2 pjb-1" in lines
    assert "dfl-3 no job" in lines  # jobless
    assert "batch.running webhook delivered 1 2026-11-24 08:01:39 HTTP 204 in 12 ms" in lines
    assert "batch.completed webhook pending 0" in lines


def test_show_tells_of_a_try_that_failed(store: dict[str, str]) -> None:
    """With the receiver's answer."""
    result = called("show", "bat-new", environ=store)

    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "batch.running webhook pending 1 2026-11-24 08:01:39 HTTP 500" in lines


def test_show_tells_the_first_files_and_how_many_more_there_are(tmp_path: Path) -> None:
    """Of those that failed more than of those that did not: they are what one looks for."""
    files = [FileOutcome(f"dfl-good-{n}", "parse_v2", f"pjb-{n}") for n in range(9)]
    files += [FileOutcome(f"dfl-bad-{n}", error_message="no pages") for n in range(30)]
    seen = a_sighting(COMPLETED, asked_results=True, results=tuple(files))

    async def record() -> None:
        async with recorded(f"sqlite+aiosqlite:///{tmp_path}/batchwatch.db", seen):
            pass

    asyncio.run(record())

    text = called("show", "bat-1", environ={"BATCHWATCH_DATA_DIR": str(tmp_path)}).stdout

    assert "39 files: 30 unmapped, 9 still open" in text
    assert (20, 5) == (text.count("dfl-bad"), text.count("dfl-good"))
    assert "… and 10 more that failed (--json has all)" in text
    assert "… and 4 more that did not fail (--json has all)" in text


def test_show_tells_what_became_of_each_file(tmp_path: Path) -> None:
    """By what its directory calls it, and in its job's own words; programs get all of it."""
    files = (
        FileOutcome("dfl-1", "parse_v2", "pjb-1"),
        FileOutcome("dfl-2", "parse_v2", "pjb-2"),
        FileOutcome("dfl-3", "parse_v2", "pjb-3"),
    )
    seen = a_sighting(COMPLETED, asked_results=True, results=files)
    url = f"sqlite+aiosqlite:///{tmp_path}/batchwatch.db"
    rules = JobRecorder(WATCH, "https://llamacloud.test", deadline=timedelta(hours=24))
    jobs = {"pjb-1": JobSeen("COMPLETED"), "pjb-2": JobSeen("FAILED", "it is encrypted")}
    late = replace(rules, deadline=timedelta(0))

    async def record() -> None:
        async with recorded(url, seen):
            database = await Database.open(url, exclusive=False, writes=True)
            batches = Batches(database, Outbox(database, Router({}), ManualClock()))
            await FileNames(database).add(WATCH, {"dfl-2": "invoice.pdf"}, now=at(0))
            for one in (rules, late):  # the third is given up
                follow = partial(one.follow, seen=jobs, over={seen.id: True}, now=at(9))
                await batches.follow(WATCH, [seen.id], follow)
            await database.close()

    asyncio.run(record())
    environ = {"BATCHWATCH_DATA_DIR": str(tmp_path)}

    text = called("show", "bat-1", environ=environ).stdout
    (row,) = json.loads(called("show", "bat-1", "--json", environ=environ).stdout)

    assert "3 files: 1 succeeded, 1 failed, 1 unknown" in text
    assert "dfl-2  invoice.pdf  it is encrypted" in text
    assert "dfl-1  parse_v2 pjb-1  COMPLETED" in text
    assert [
        ("succeeded", "COMPLETED", None, None),
        ("failed", "FAILED", "it is encrypted", "invoice.pdf"),
        ("unknown", None, None, None),
    ] == [(one["fate"], one["job_status"], one["job_error"], one["name"]) for one in row["files"]]
    assert ("given_up", 3) == (row["settling"], row["file_count"])


@pytest.mark.parametrize("beginning", ["bat-o", "o", "ol", "bat-old"])
def test_show_takes_as_much_of_an_id_as_is_unique(beginning: str, store: dict[str, str]) -> None:
    """As git does; logs and the demo have six characters."""
    result = called("show", beginning, environ=store)

    assert (0, True) == (result.exit_code, result.stdout.startswith("bat-old  watch default"))


@pytest.mark.parametrize("beginning", ["bat-", "", "b"])
def test_a_beginning_of_several_ids_is_told_with_all_of_them(
    beginning: str, store: dict[str, str]
) -> None:
    """To choose from."""
    result = called("show", beginning, environ=store)

    assert (1, "") == (result.exit_code, result.stdout)
    assert ["  bat-new", "  bat-old"] == result.stderr.splitlines()[1:]


def test_a_percent_sign_begins_nothing(store: dict[str, str]) -> None:
    """It is a pattern to the database, and no part of an id."""
    assert "no batch %" in called("show", "%", environ=store).stderr


def test_show_for_programs_is_all_that_the_store_knows(store: dict[str, str]) -> None:
    """The same as the store's own view, as JSON, and what is to be expected."""

    async def view() -> list[dict[str, Any]]:
        url = f"sqlite+aiosqlite:///{store['BATCHWATCH_DATA_DIR']}/batchwatch.db"
        database = await Database.open(url, exclusive=False)
        rows = await Views(database).batch("bat-old")
        await database.close()
        return rows

    result = called("show", "bat-old", "--json", environ=store)

    (row,) = json.loads(result.stdout)
    (known,) = asyncio.run(view())
    assert (0, {*known, "expected"}) == (result.exit_code, set(row))
    assert [1, 2] == [one["number"] for one in row["transitions"]]
    assert known["files"] == row["files"]
    assert ["delivered", "pending"] == [one["state"] for one in row["deliveries"]]
    assert [204] == [one["status_code"] for one in row["deliveries"][0]["tries"]]


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["bat-none"], "no batch bat-none is known in {}/batchwatch.db; batchwatch ls lists"),
        (
            ["bat-old", "--watch", "other"],
            "batch bat-old is not known to a watch other, but to: default",
        ),
    ],
)
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_show_of_an_unknown_batch_fails_with_a_hint(
    arguments: list[str], hint: str, form: list[str], store: dict[str, str]
) -> None:
    """Exit code 1, for a program that looks whether it is there."""
    result = called("show", *arguments, *form, environ=store)

    assert (1, "") == (result.exit_code, result.stdout)
    assert hint.format(store["BATCHWATCH_DATA_DIR"]) in result.stderr


@pytest.mark.parametrize("command", [["ls"], ["ls", "--json"], ["show", "bat-1"]])
def test_without_a_store_the_hint_is_to_run_the_daemon(command: list[str], tmp_path: Path) -> None:
    """Exit code 1, and no empty store is made."""
    result = called(*command, environ={"BATCHWATCH_DATA_DIR": str(tmp_path)})

    assert (1, "") == (result.exit_code, result.stdout)
    assert "there is no store yet; has the daemon ever run?" in result.stderr
    assert str(tmp_path) in result.stderr
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize(("command", "times"), [(["ls"], 1), (["show", "bat-1"], 4)])
@pytest.mark.parametrize(
    "words",
    [
        pytest.param("cfg-[/x]", id="a closing tag"),
        pytest.param("cfg-[b]x", id="an opening tag"),
        pytest.param("cfg-\x1b]0;owned\x07", id="a terminal's control sequence"),
    ],
)
def test_what_upstream_says_is_no_markup_for_the_terminal(
    words: str, command: list[str], times: int, tmp_path: Path
) -> None:
    """Neither rich's, nor that of the terminal itself."""
    seen = a_sighting(
        COMPLETED,
        job_type=words,
        configuration_id=words,
        asked_results=True,
        results=(FileOutcome(words, error_message=words),),
    )

    async def record() -> None:
        async with recorded(f"sqlite+aiosqlite:///{tmp_path}/batchwatch.db", seen):
            pass

    asyncio.run(record())

    result = called(*command, environ={"BATCHWATCH_DATA_DIR": str(tmp_path)})

    assert "\x1b" not in result.stdout
    shown = words.replace("\x1b", "").replace("\x07", "")
    assert (0, times) == (result.exit_code, result.stdout.count(shown))


async def test_replicas_of_a_file_are_one_daemon_which_runs_or_not(tmp_path: Path) -> None:
    """Either is no trouble; programs get the form that a shared store has."""
    environ = {"BATCHWATCH_DATA_DIR": str(tmp_path)}

    def told() -> tuple[int, str, Any]:
        text, rows = (called("replicas", *more, environ=environ) for more in ((), ("--json",)))
        return text.exit_code + rows.exit_code, text.stdout, json.loads(rows.stdout)

    code, text, found = told()
    assert 0 == code
    assert "is a store for one daemon: none runs; batchwatch run starts it." in text
    assert (False, [], [None]) == (
        found["shared"],
        found["replicas"],
        [one["holder"] for one in found["watches"]],
    )

    async with recorded(f"sqlite+aiosqlite:///{tmp_path}/batchwatch.db"):
        code, text, found = told()
    assert 0 == code
    assert f"it runs as process {os.getpid()} and polls default." in text
    assert [["default"]] == [one["watches"] for one in found["replicas"]]
    assert [str(os.getpid())] == [one["holder"] for one in found["watches"]]
