"""``audit``: which of upstream's own webhooks were missed, late or out of order."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from batchwatch.domain.batch import (
    CANCELLED,
    COMPLETED,
    PENDING,
    RUNNING,
    BatchId,
    Observation,
    Status,
)
from batchwatch.domain.hint import Hint
from batchwatch.store import Database, Hints
from tests.support.builders import WATCH, a_sighting
from tests.support.recorded import recorded
from tests.unit.commands import called

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result

NOW = datetime.now(UTC)
LIFE = ((PENDING, 0.0), (RUNNING, 60.0), (COMPLETED, 120.0))
Came = dict[str, float]  # seconds by type


def ago(seconds: float) -> datetime:
    """An hour ago, and so many seconds after that."""
    return NOW - timedelta(hours=1) + timedelta(seconds=seconds)


def seen(batch_id: str, *steps: tuple[Status, float]) -> list[Observation]:
    return [
        replace(
            a_sighting(status, batch_id=batch_id, updated=nth),
            updated_at=ago(second),
            seen_at=ago(second + 1),
        )
        for nth, (status, second) in enumerate(steps)
    ]


def audited(
    folder: Path, batches: dict[str, tuple[tuple[Status, float], ...]], came: dict[str, Came]
) -> Any:
    """``audit`` over a store with these batches and these webhooks."""
    url = f"sqlite+aiosqlite:///{folder}/batchwatch.db"

    async def fill() -> None:
        observations = [one for name, steps in batches.items() for one in seen(name, *steps)]
        async with recorded(url, *observations):
            pass
        database = await Database.open(url)
        for name, receipts in came.items():
            for type_, second in receipts.items():
                hint = Hint(f"{type_}-{name}", type_, BatchId(name), ago(second))
                await Hints(database).note(WATCH, hint, now=ago(second))
        await database.close()

    asyncio.run(fill())

    def ask(*arguments: str) -> Result:
        return called("audit", *arguments, environ={"BATCHWATCH_DATA_DIR": str(folder)})

    return ask


WELL = {"batch.pending": 0.1, "batch.running": 60.1, "batch.success": 120.1}
BEFORE = {"bat-before": {"batch.pending": -60.0}}  # so that somebody listened by then
LIES = {"batch.pending": 70.0, "batch.running": 60.1}


def test_where_all_came_it_says_so_and_all_is_well(tmp_path: Path) -> None:
    """Exit code 0, and nothing but the sum."""
    result = audited(tmp_path, {"bat-1": LIFE}, {"bat-1": WELL})()

    expected = (
        "1 batch, 3 webhooks expected: "
        "3 came (100.0%), 0 missed (0.0%), 0 late (0.0%), 0 reordered (0.0%).\n"
    )
    assert (0, expected) == (result.exit_code, result.stdout)


def test_what_is_amiss_is_listed(tmp_path: Path) -> None:
    """Exit code 1; for each webhook how, and for all of them how many."""
    result = audited(tmp_path, {"bat-1": LIFE, "bat-2": LIFE}, {"bat-1": WELL, "bat-2": LIES})()

    head, late, missed, _, total = result.stdout.splitlines()
    assert 1 == result.exit_code
    assert ["batch", "webhook", "is"] == head.split()[:3]
    assert ["bat-2", "batch.pending", "late,", "reordered"] == late.split()[:4]
    assert late.endswith("1m10s later, behind batch.running  default")
    assert ["bat-2", "batch.success", "missed"] == missed.split()[:3]
    assert "never" in missed
    assert total == (
        "2 batches, 6 webhooks expected: "
        "5 came (83.3%), 1 missed (16.7%), 1 late (16.7%), 1 reordered (16.7%)."
    )


def test_for_programs_it_is_json(tmp_path: Path) -> None:
    """The same, with the seconds."""
    ask = audited(tmp_path, {"bat-1": LIFE}, BEFORE | {"bat-1": LIES})
    result = ask("--json", "--since", "2h")

    found = json.loads(result.stdout)
    assert (1, 3, 2, 1) == (
        result.exit_code,
        found["expected"],
        found["came"],
        found["missed"],
    )
    late, missed = found["amiss"]
    assert (["late", "reordered"], 70.0, "batch.running") == (
        late["faults"],
        late["seconds"],
        late["behind"],
    )
    assert (["missed"], None) == (missed["faults"], missed["received_at"])
    assert timedelta(minutes=5) > abs(
        datetime.fromisoformat(found["since"]) - (datetime.now(UTC) - timedelta(hours=2))
    )


def test_batches_without_a_webhook_are_judged_if_all_should_have_one(tmp_path: Path) -> None:
    """A wrong URL shows in no other way."""
    ask = audited(tmp_path, {"bat-1": LIFE}, {})

    alone = ask()
    assert (0, True) == (alone.exit_code, alone.stdout.startswith("No batch with an upstream"))
    assert "the last minute is not judged yet" in alone.stdout  # whoever tries it looks at once
    every = ask("--all", "--since", "2020-01-01")
    assert (2, True) == (every.exit_code, "webhooks are kept for 31 days" in every.stderr)


def test_a_type_that_never_came_is_pointed_out(tmp_path: Path) -> None:
    """It is rather a setting than a loss."""
    result = audited(tmp_path, {"bat-1": LIFE}, BEFORE | {"bat-1": {"batch.success": 120.1}})()

    assert 1 == result.exit_code
    asked = "came at all: is it among the webhook_events of these batches?"
    assert [f"No batch.pending {asked}", f"No batch.running {asked}"] == [
        line for line in result.stdout.splitlines() if line.startswith("No ")
    ][-2:]


def test_that_cancelled_is_sent_is_not_confirmed(tmp_path: Path) -> None:
    """So its absence alone is no failure."""
    steps = ((PENDING, 0.0), (CANCELLED, 60.0))
    result = audited(tmp_path, {"bat-1": steps}, {"bat-1": {"batch.pending": 0.1}})()

    assert 0 == result.exit_code
    assert "1 unconfirmed (50.0%)" in result.stdout
    assert "does not say that it sends it; none came yet" in result.stdout


@pytest.mark.parametrize("since", ["soon", "2026-13-01"])
def test_a_time_that_is_none_is_refused(tmp_path: Path, since: str) -> None:
    """As everywhere."""
    result = called("audit", "--since", since, environ={"BATCHWATCH_DATA_DIR": str(tmp_path)})
    assert (2, True) == (result.exit_code, "--since" in result.stderr)


def test_without_a_store_the_hint_is_to_run_the_daemon(tmp_path: Path) -> None:
    """Exit code 1, and no empty store is made."""
    result = called("audit", environ={"BATCHWATCH_DATA_DIR": str(tmp_path)})

    assert (1, "") == (result.exit_code, result.stdout)
    assert "there is no store yet" in result.stderr
    assert [] == list(tmp_path.iterdir())
