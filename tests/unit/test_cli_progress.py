"""What is shown of batches that are waited for."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from batchwatch.cli.progress import Progress

ID = "bat-00000000-0000-0000-0000-000000000001"


@pytest.mark.parametrize("status", ["COMPLETED", "CANCELLED"])
def test_the_bar_of_a_large_batch_cuts_no_id(status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is what one copies, and 80 columns are what a terminal has at first."""
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=True, color_system=None)
    monkeypatch.setattr("batchwatch.cli.progress.Console", lambda **_: console)
    standing = SimpleNamespace(status=status, vanished=False, files=10_000, fates={None: 9_997})

    with Progress() as progress:
        progress.tell(SimpleNamespace(standings={ID: standing}, missing=[ID], trouble=None))  # type: ignore[arg-type]  # all that it reads

    assert f"{ID} {status} " in out.getvalue()
    assert "3/10000 files 0:00:0" in out.getvalue()
