"""``--keep``: where everything is, and what to try with it."""

from __future__ import annotations

import shlex
import shutil
import sys
from typing import TYPE_CHECKING

import msgspec
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchwatch.demo.stage import Stage


def what_to_try(stage: Stage) -> Iterator[Text]:
    """Addresses first, then commands that can be copied as they are."""
    batchwatch = "batchwatch"
    if shutil.which(batchwatch) is None:
        batchwatch = f"{shlex.quote(sys.executable)} -m batchwatch"
    upstream = stage.upstream_url
    yield Text("Everything is still up; Ctrl-C ends it and removes its folder.", "bold")
    yield _row("simulator", f"{upstream}   key {stage.api_key}")
    yield _row("dashboard", stage.daemon_url)
    yield _row("daemon", f"{stage.daemon_url}/readyz   and /metrics")
    yield _row("store", str(stage.folder))
    yield Text()
    folder = f"BATCHWATCH_DATA_DIR={shlex.quote(str(stage.folder))}"
    yield _row("list", f"{folder} {batchwatch} ls")
    if directory := stage.some_directory():
        job = {"type": "parse_v2", "configuration_id": "cfg-PARSE_AGENTIC"}
        batch = {"source_directory_id": directory, "config": {"job": job}}
        headers = f"-H 'Authorization: Bearer {stage.api_key}' -H 'Content-Type: application/json'"
        data = msgspec.json.encode(batch).decode()
        yield _row("create", f"curl -sS {upstream}/api/v2/batches {headers} -d '{data}'")
    yield _row("disturb", f"""curl -sS {upstream}/sim/faults -d '{{"kind":"5xx"}}'""")
    yield _row("relieve", f"curl -sS -X DELETE {upstream}/sim/faults")
    yield _row("truth", f"curl -sS {upstream}/sim/history")
    yield Text()


def _row(name: str, value: str) -> Text:
    return Text.assemble((f"  {name:<11}", "dim"), value)
