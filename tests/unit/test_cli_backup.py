"""``backup`` as it is called: what it says, its exit codes, and what it does not do."""

from __future__ import annotations

import asyncio
import json
import shlex
from typing import TYPE_CHECKING

import pytest

from tests.support.builders import a_sighting
from tests.support.recorded import recorded
from tests.unit.commands import called

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """A store with one batch that nobody has open."""

    async def record() -> None:
        async with recorded(f"sqlite+aiosqlite:///{tmp_path}/batchwatch.db", a_sighting()):
            pass

    asyncio.run(record())
    return {"BATCHWATCH_DATA_DIR": str(tmp_path)}


def test_it_says_what_is_in_the_copy(environ: dict[str, str], tmp_path: Path) -> None:
    """In one line for people, and as JSON for programs."""
    to = tmp_path / "copy.db"
    said = called("backup", str(to), environ=environ)
    again = called("backup", str(to), "--force", "--json", environ=environ)

    assert (0, 0) == (said.exit_code, again.exit_code)
    assert said.stdout.startswith(f"{to}: 0.")
    assert f"checked  1 of 1  {to}" in said.stderr.splitlines()
    assert "MB, batches 1, events 2, deliveries 1; as of 2" in said.stdout
    row = json.loads(again.stdout)
    assert (str(to), 1, to.stat().st_size) == (row["file"], row["batches"], row["bytes"])
    assert {"file", "taken_at", "bytes", "schema", "batches", "events", "deliveries"} == row.keys()


def test_a_name_that_is_taken_is_a_wrong_word(environ: dict[str, str], tmp_path: Path) -> None:
    """Exit code 2; a store that is not there is trouble, exit code 1."""
    (tmp_path / "mine").write_text("mine")
    taken = called("backup", str(tmp_path / "mine"), environ=environ)
    elsewhere = {"BATCHWATCH_DATA_DIR": str(tmp_path / "none")}
    missing = called("backup", str(tmp_path / "copy.db"), environ=elsewhere)

    assert (2, 1) == (taken.exit_code, missing.exit_code)
    assert f"batchwatch: {tmp_path / 'mine'}: there is such a file" in taken.stderr
    assert "there is no store yet" in missing.stderr


HOST = "db.example:5433/batches"


@pytest.mark.parametrize(
    ("url", "plain"),
    [
        (f"postgresql://watcher:s3cret%21@{HOST}", HOST),
        (f"postgresql://watcher@{HOST}?password=s3cret%21&ssl=require", HOST),
        ("postgresql://watcher:s3cret%21@/batches?host=/run/pg", "/batches?host=%2Frun%2Fpg"),
        (
            (
                f"postgresql://watcher@{HOST}?sslmode=verify-full&sslrootcert=/ca.pem&sslcert=/own.pem"
                "&sslkey=/own.key&sslpassword=s3cret%21&statement_timeout=1s"
            ),
            f"{HOST}?sslcert=%2Fown.pem&sslkey=%2Fown.key&sslmode=verify-full&sslrootcert=%2Fca.pem",
        ),
        (
            "postgresql://watcher:s3cret%21@db1,[::1]:5433/batches?target_session_attrs=read-write",
            "/batches?host=db1%2C%3A%3A1&port=%2C5433&target_session_attrs=read-write",
        ),
    ],
)
def test_a_postgresql_is_left_to_its_own_tools(url: str, plain: str, tmp_path: Path) -> None:
    """The command is shown, ready to be used, and without the password."""
    to = tmp_path / "my copy"
    result = called("backup", str(to), environ={"BATCHWATCH_DATABASE_URL": url})

    assert (2, "", False) == (result.exit_code, result.stdout, to.exists())
    assert "s3cret" not in result.stderr
    program, form, file, where = shlex.split(result.stderr.splitlines()[1])
    assert ("pg_dump", "--format=custom", f"--file={to}") == (program, form, file)
    assert f"--dbname=postgresql://watcher@{plain}" == where
