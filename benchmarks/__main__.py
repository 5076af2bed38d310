"""``python -m benchmarks [NAME …] [--json] [--quick]``; exit code 1 if one could not run."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import platform
import signal
import sqlite3
import sys
import time
import traceback
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from batchwatch import log
from benchmarks import (
    budget,
    deliver,
    hints,
    idle,
    read,
    replicas,
    requests,
    sizes,
    soak,
    web,
    write,
)
from benchmarks.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.results import Finding

    Findings = Mapping[str, list[Finding]]

BENCHMARKS: Final = {
    "requests": requests.run,
    "read": read.run,
    "deliver": deliver.run,
    "replicas": replicas.run,
    "write": write.run,
    "sizes": sizes.run,
    "hints": hints.run,
    "idle": idle.run,
    "web": web.run,
    "budget": budget.run,
    "soak": soak.run,
}
LIMIT: Final = 180.0  # seconds for one benchmark; one that hangs must not hang the others
INTERRUPTED: Final = 130  # the exit code that shells know it by
PLAIN_WIDTH: Final = 120  # columns, where there is no terminal to ask
LIBRARIES: Final = ("aiohttp", "aiosqlite", "llama-cloud", "msgspec", "orjson", "sqlalchemy")


def main() -> int:
    """Run the benchmarks that were asked for, and print what they found."""
    asked = _arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that no child is left behind
    log.configure(style="json", level="warning")  # a line for each batch would be in the way
    machine = _machine()
    found: dict[str, list[Finding]] = {}
    failed: dict[str, str] = {}
    with Progress() as progress:
        for name in asked.names or BENCHMARKS:
            try:
                found[name] = asyncio.run(_bounded(name, progress, quick=asked.quick))
            except KeyboardInterrupt:
                return INTERRUPTED
            except Exception as error:  # noqa: BLE001  # at the border of one benchmark
                failed[name] = f"{type(error).__name__}: {error}"
                traceback.print_exc()
    print_all = _print_json if asked.json else _print_tables
    print_all(found, failed, machine | {"quick": asked.quick})
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure batchwatch beside the bare alternatives.",
        epilog="A goal that is missed is printed; the exit code is 1 only if one could not run.",
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"{', '.join(BENCHMARKS)}; all of them if none is named",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    parser.add_argument("--quick", action="store_true", help="less of everything, for a first look")
    asked = parser.parse_args()
    if unknown := sorted({*asked.names} - {*BENCHMARKS}):
        parser.error(f"no benchmark is named {unknown[0]!r}; there are: {', '.join(BENCHMARKS)}")
    return asked


async def _bounded(name: str, progress: Progress, *, quick: bool) -> list[Finding]:
    async with asyncio.timeout(LIMIT):
        return await BENCHMARKS[name](progress, quick=quick)


def _machine() -> dict[str, Any]:
    """What the figures depend on; the load is that of the neighbours, before we begin."""
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "sqlite": sqlite3.sqlite_version,
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def _print_json(found: Findings, failed: Mapping[str, str], machine: Mapping[str, Any]) -> None:
    benchmarks = {name: [one.for_programs() for one in several] for name, several in found.items()}
    print(json.dumps({"machine": machine, "benchmarks": benchmarks, "failed": failed}, indent=2))


def _print_tables(found: Findings, failed: Mapping[str, str], machine: Mapping[str, Any]) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PLAIN_WIDTH)
    libraries = ", ".join(f"{name} {release}" for name, release in machine["libraries"].items())
    console.print(
        f"Python {machine['python']}, {machine['system']}, {machine['cores']} cores, "
        f"load {machine['load']} before; SQLite {machine['sqlite']}, {libraries}",
        style="dim",
    )
    for one in itertools.chain.from_iterable(found.values()):
        _print_finding(console, one)
    for name, reason in failed.items():
        console.print(Text(f"\n{name} could not run: {reason}", style="bold red"))


def _print_finding(console: Console, one: Finding) -> None:
    console.print()
    console.print(Text(one.title, style="bold"))
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in one.columns:
        table.add_column(column.heading, justify="right" if column.form else "left", no_wrap=True)
    for row in one.rows:
        table.add_row(*(column.shown(row[column.key]) for column in one.columns))
    console.print(table)
    for goal in one.goals:
        mark, style = ("kept", "green") if goal.met else ("missed", "yellow")
        console.print(Text.assemble((mark, style), f": {goal.text}"))
    for note in one.notes:
        console.print(Text(note, style="dim"))


if __name__ == "__main__":
    sys.exit(main())
