"""``prove``: that every moment was watched, or which were not, for people and for programs."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from batchwatch.domain.coverage import Gap, Kind, Look
from batchwatch.domain.routing import Router
from batchwatch.domain.watch import Work
from batchwatch.store import Database, Outbox, Watches
from batchwatch.store.file import take_lock
from batchwatch.store.retention import Retention
from tests.support.builders import WATCH
from tests.support.clock import ManualClock
from tests.unit.commands import called

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from typer.testing import Result

NOW = datetime.now(UTC)  # or up to as long before as the tests take until they come here
SLACK = 1_200  # seconds that may be


def ago(**more: float) -> datetime:
    return NOW - timedelta(**more)


def looked(start: datetime, end: datetime, *, skew: float = 0.0) -> Look:
    """A whole pass, on a host whose clock is so many seconds behind upstream's."""
    return Look(start, end, end - timedelta(seconds=skew), monotonic=0.0)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """With an interval so long that the last pass may be as old as these tests are."""
    return {
        "BATCHWATCH_DATA_DIR": str(tmp_path),
        "LLAMA_CLOUD_API_KEY": "llx-key",
        "BATCHWATCH_POLL_INTERVAL": f"{SLACK / 10}s",
    }


def kept(
    folder: Path,
    *passes: tuple[Look, Sequence[Gap]],
    began: datetime | None = None,
    failing: str | None = None,
    scopes: Sequence[Mapping[str, str]] = (),
) -> None:
    """A store with this ledger in it."""

    async def keep() -> None:
        database = await Database.open(f"sqlite+aiosqlite:///{folder}/batchwatch.db")
        watches = Watches(database, Outbox(database, Router({}), ManualClock()))
        await watches.begin(WATCH, now=began or ago(days=9), scope=next(iter(scopes), None))
        for look, gaps in passes:
            await watches.passed(WATCH, look, newest=None, now=look.covered_to, gaps=gaps)
        for scope in scopes[1:]:
            await watches.begin(WATCH, now=NOW, scope=scope)
        if failing:
            await watches.failed(WATCH, Work.DISCOVERY, failing, now=NOW, may_pass=True)
        await database.close()

    asyncio.run(keep())


def proven(environ: Mapping[str, str], *more: str) -> tuple[int, dict[str, Any]]:
    """The exit code, and what programs are told of the one watch."""
    result = called("prove", "--json", *more, environ=environ)
    (proof,) = json.loads(result.stdout)
    return result.exit_code, proof


def said(result: Result) -> list[str]:
    return [re.sub(" +", " ", line) for line in result.stdout.splitlines()]


def test_a_day_without_a_gap_is_proven(environ: dict[str, str], tmp_path: Path) -> None:
    """In one line, and with exit code 0."""
    kept(tmp_path, (looked(ago(days=10), ago(seconds=20)), []))
    result = called("prove", environ=environ)
    code, proof = proven(environ, "--since", "2d")

    (line,) = said(result)
    assert (0, 0, True, []) == (result.exit_code, code, proof["proven"], proof["gaps"])
    assert line.startswith("✓ watch default every moment from ")
    assert f"to {ago(seconds=20):%Y-%m-%d %H:%M:%S} was watched (1 passes in all" in line


STOPPED = Gap(
    ago(hours=3),
    ago(hours=2),
    Kind.STOPPED,
    closed_at=ago(hours=2),
    listed_from=ago(hours=5),
    found=3,
)


def test_a_gap_that_was_closed_is_named_and_proves_all_the_same(
    environ: dict[str, str], tmp_path: Path
) -> None:
    """With what was done about it."""
    kept(tmp_path, (looked(ago(days=10), ago(seconds=20)), [STOPPED]))
    result = called("prove", environ=environ)
    _, proof = proven(environ)

    gap, rest = said(result)
    assert 0 == result.exit_code
    assert f"{ago(hours=2):%H:%M:%S}, 1h, stopped. Closed at " in gap
    assert gap.endswith(f"by listing again from {ago(hours=5):%Y-%m-%d %H:%M:%S}, 3 changes found")
    assert "every other moment" in rest
    assert [3600.0] == [one["seconds"] for one in proof["gaps"]]
    assert 0 == proven(environ, "--since", "1h")[0]


def test_a_gap_that_cannot_be_closed_is_an_exit_code(
    environ: dict[str, str], tmp_path: Path
) -> None:
    """And says what somebody can do about it."""
    gap = Gap(ago(hours=3), ago(hours=2), Kind.UNREADABLE, "1 entry \x1b[31mwithout an id")
    kept(tmp_path, (looked(ago(days=10), ago(seconds=20)), [gap]))
    result = called("prove", environ=environ)

    line, _ = said(result)
    assert (1, "✗") == (result.exit_code, line[0])
    assert "unreadable: 1 entry [31mwithout an id. Not closed. Look at LlamaCloud" in line
    assert 0 == called("prove", "--since", "1h", environ=environ).exit_code


def test_nothing_is_claimed_of_time_that_is_no_longer_kept(
    environ: dict[str, str], tmp_path: Path
) -> None:
    """Neither that it was watched nor that it was not; of the rest it is proven as before."""
    old = Gap(ago(days=8), ago(days=7), Kind.UNREADABLE, "1 entry")
    kept(tmp_path, (looked(ago(days=10), ago(days=7)), [old]), began=ago(days=9))
    kept(tmp_path, (looked(ago(days=7), ago(seconds=20)), []))

    async def remove() -> None:
        database = await Database.open(f"sqlite+aiosqlite:///{tmp_path}/batchwatch.db")
        async for _ in Retention(database).remove(now=NOW, older_than=timedelta(days=5)):
            pass
        await database.close()

    asyncio.run(remove())
    result = called("prove", "--since", "30d", environ=environ)
    code, proof = proven(environ, "--since", "30d")

    _, removed, rest = said(result)
    assert (1, 1, False, []) == (result.exit_code, code, proof["proven"], proof["gaps"])
    until = f"{ago(days=5):%Y-%m-%d %H:%M:%S}"
    assert (
        f"✗ watch default what was before {until} is removed; see BATCHWATCH_RETENTION" == removed
    )
    assert rest.startswith(f"✓ watch default every moment from {until} to ")
    assert 0 == proven(environ, "--since", "4d")[0]


@pytest.mark.parametrize("runs", [True, False])
@pytest.mark.parametrize("failing", ["HTTP 503", None])
def test_a_watch_that_is_behind_now_is_an_open_gap(
    environ: dict[str, str], tmp_path: Path, failing: str | None, *, runs: bool
) -> None:
    """Though nobody has written it down; the store knows why, or nobody holds it."""
    kept(tmp_path, (looked(ago(days=10), ago(hours=1)), []), failing=failing)
    lock = take_lock(tmp_path / "batchwatch.db") if runs else None
    code, proof = proven(environ)
    if lock is not None:
        import os  # noqa: PLC0415

        os.close(lock)

    (gap,) = proof["gaps"]
    kind = "stopped" if not runs else "failing" if failing else "slow"
    assert (1, False, kind) == (code, proof["proven"], gap["kind"])
    assert 3_600 <= gap["seconds"] < 3_600 + SLACK
    if runs and failing:
        assert failing == gap["reason"]


@pytest.mark.parametrize("skew", [7_200.0, -7_200.0])
def test_a_host_whose_clock_is_wrong_proves_as_well(
    environ: dict[str, str], tmp_path: Path, skew: float
) -> None:
    """The ledger is on LlamaCloud's clock, and so is the question then."""
    there = ago(seconds=20) + timedelta(seconds=skew)
    kept(tmp_path, (looked(ago(days=10), there, skew=skew), []))
    code, proof = proven(environ)

    assert (0, True, []) == (code, proof["proven"], proof["gaps"])


def test_what_was_before_the_watch_is_no_gap_and_is_said(
    environ: dict[str, str], tmp_path: Path
) -> None:
    """Nobody promised anything for it."""
    kept(tmp_path, (looked(ago(days=2), ago(seconds=20)), []), began=ago(hours=5))
    result = called("prove", environ=environ)

    first, second = said(result)
    assert 0 == result.exit_code
    assert f"watched since {ago(hours=5):%Y-%m-%d %H:%M:%S}: it began then" in first
    assert f"every moment from {ago(hours=5):%Y-%m-%d %H:%M:%S}" in second


def test_a_scope_that_was_changed_begins_its_proof_anew(
    environ: dict[str, str], tmp_path: Path
) -> None:
    """What was watched before was something else."""
    scopes = [{"base_url": "https://a.example"}, {"base_url": "https://b.example"}]
    kept(tmp_path, (looked(ago(days=2), ago(seconds=200)), []), scopes=scopes)
    first, *_ = said(called("prove", environ=environ))

    assert "what it is asked for was changed then" in first


def test_a_watch_that_never_began_is_not_proven(environ: dict[str, str], tmp_path: Path) -> None:
    """Beside one that is well."""
    kept(tmp_path, (looked(ago(days=10), ago(seconds=20)), []))
    names = {f"BATCHWATCH_WATCHES__{name}__LOOKBACK": "1h" for name in ("DEFAULT", "OTHER")}
    result = called("prove", environ=environ | names)
    alone = called("prove", "--watch", "default", environ=environ | names)

    assert (1, 0) == (result.exit_code, alone.exit_code)
    assert "✗ watch other it has never been watched; batchwatch run begins" == said(result)[-1]


@pytest.mark.parametrize(
    "wrong", [["--since", "soon"], ["--since", "2999-01-01"], ["--watch", "x"]]
)
def test_what_cannot_be_meant_is_refused(environ: dict[str, str], wrong: list[str]) -> None:
    """As a wrong setting is."""
    result = called("prove", *wrong, environ=environ)

    assert (2, "") == (result.exit_code, result.stdout)


def test_without_a_store_there_is_nothing_to_prove(environ: dict[str, str]) -> None:
    """Where it should be is said."""
    result = called("prove", environ=environ)

    assert (1, True) == (result.exit_code, "batchwatch.db" in result.stderr)


def test_a_piece_of_a_gap_is_as_long_as_what_was_asked_for(
    environ: dict[str, str], tmp_path: Path
) -> None:
    """A stop of days is an hour of the last hour."""
    gap = replace(STOPPED, start=ago(days=3), end=ago(minutes=30))
    kept(tmp_path, (looked(ago(days=10), ago(seconds=20)), [gap]))
    _, proof = proven(environ, "--since", "1h")

    (piece,) = proof["gaps"]
    assert 1_800 - SLACK < piece["seconds"] <= 1_800
