"""``ls`` and ``show`` of batches that go on: when they should end, and why they are stuck."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from batchwatch.domain.batch import COMPLETED, RUNNING, BatchId, Observation
from batchwatch.domain.judging import Court
from batchwatch.domain.routing import Router
from batchwatch.domain.stuck import Patience
from batchwatch.store import Batches, Database, Outbox, Watches
from tests.support.builders import BASE_URL, WATCH, a_recorder, a_sighting
from tests.support.clock import ManualClock
from tests.unit.commands import called

if TYPE_CHECKING:
    from pathlib import Path

MINUTE = timedelta(minutes=1)


def lives(now: datetime) -> list[Observation]:
    """Nine batches took a quarter of an hour to half of one; one is young, one old, one new."""
    seen = []
    for number in range(9):
        begun = now - 90 * MINUTE
        one = partial(a_sighting, batch_id=f"bat-{number}", created_at=begun, updated_at=begun)
        end = begun + (15 + 2 * number) * MINUTE
        seen += [one(RUNNING, seen_at=begun), one(COMPLETED, seen_at=end)]
    for batch_id, ago in (("bat-young", 2), ("bat-old", 80)):
        begun = now - ago * MINUTE
        times: dict[str, Any] = dict.fromkeys(("seen_at", "created_at", "updated_at"), begun)
        seen.append(a_sighting(RUNNING, batch_id=batch_id, **times))
    new = a_sighting(RUNNING, batch_id="bat-new", seen_at=now, configuration_id="cfg-new")
    return [*seen, new]


async def record(url: str) -> None:
    database = await Database.open(url)
    outbox = Outbox(database, Router({}), ManualClock())
    batches = Batches(database, outbox)
    now = datetime.now(UTC)
    await Watches(database, outbox).begin(WATCH, now=now)
    for one in lives(now):
        decide = partial(a_recorder().record, seen=[one], now=one.seen_at)
        await batches.change(WATCH, [one.id], decide)
    court = Court(WATCH, BASE_URL, Patience(running=3600.0))
    await batches.judge(WATCH, [BatchId("bat-old")], partial(court.judge, now=now))
    await database.close()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Settings that lead to such a store."""
    folder: Path = tmp_path_factory.mktemp("outlook")
    asyncio.run(record(f"sqlite+aiosqlite:///{folder}/batchwatch.db"))
    return {"BATCHWATCH_DATA_DIR": str(folder)}


def test_ls_says_when_each_should_end(store: dict[str, str]) -> None:
    """Or by how much it is late, and that it is stuck; nothing of what nobody can tell."""
    lines = [line.split() for line in called("ls", environ=store).stdout.splitlines()]

    rows = {line[0]: line[1:] for line in lines}
    assert "ETA" == lines[0][2]
    assert ["RUNNING", "in"] == rows["bat-young"][:2]
    assert rows["bat-young"][2].startswith(("20m", "21m"))
    assert ["RUNNING", "(stuck)", "late", "by"] == rows["bat-old"][:4]
    assert rows["bat-old"][4].startswith("50m")
    assert "in" not in rows["bat-new"]
    assert "in" not in rows["bat-8"]


@pytest.mark.parametrize(("columns", "shown"), [(90, True), (36, False)])
def test_a_narrow_terminal_keeps_the_id_and_the_status(
    columns: int,
    shown: bool,  # noqa: FBT001
    store: dict[str, str],
) -> None:
    """And the ETA for longer than anything else."""
    terminal = {"FORCE_COLOR": "1", "COLUMNS": str(columns), "TERM": "xterm"}

    head = called("ls", environ=store | terminal).stdout.splitlines()[0]

    assert shown is ("ETA" in head)


def test_show_says_what_is_expected_and_why_it_is_stuck(store: dict[str, str]) -> None:
    """With the spread, and how many batches tell that; and how long each status lasted."""
    lines = [
        " ".join(line.split())
        for line in called("show", "bat-old", environ=store).stdout.splitlines()
    ]

    assert lines[1].startswith("RUNNING (stuck) since 1h20m")
    assert lines[2].startswith("9 like it took 23m, most of them 16m")
    assert "; it is late by 50m" in lines[2]
    assert re.fullmatch(r"stuck for 20m\w*: 1h in RUNNING are allowed", lines[3])
    assert lines[6].endswith("1h20m so far")

    young = called("show", "bat-young", environ=store).stdout
    assert "; it should end in 2" in young
    assert "stuck" not in young


def test_programs_get_all_of_it(store: dict[str, str]) -> None:
    """As events have it; null for what has ended."""
    rows: dict[str, Any] = {
        row["id"]: row for row in json.loads(called("ls", "--json", environ=store).stdout)
    }

    old, ended = rows["bat-old"], rows["bat-0"]
    assert (1380.0, 9, True) == tuple(
        old["expected"][name] for name in ("median", "samples", "overdue")
    )
    assert ("status", 3600.0, 1) == tuple(old["stuck"][name] for name in ("rule", "limit", "told"))
    assert (None, None, None) == (ended["expected"], ended["stuck"], rows["bat-new"]["expected"])
