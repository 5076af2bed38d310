"""What commands found, as tables for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from datetime import datetime

_COLOURS: Final = {
    "PENDING": "yellow",
    "THROTTLED": "magenta",
    "RUNNING": "cyan",
    "COMPLETED": "green",
    "FAILED": "red",
    "CANCELLED": "bright_black",
    "delivered": "green",
    "dead": "red",
}
_MARKS: Final = {"ok": ("✓", "green"), "wrong": ("✗", "red"), "skipped": ("-", "bright_black")}
_FILES_SHOWN: Final = 20
# What a terminal would obey instead of show; rows hold what upstream and receivers said.
_CONTROL: Final = dict.fromkeys((*range(32), *range(127, 160))) | {10: " ", 9: " "}


def _console() -> Console:
    """As wide as the terminal, and as wide as need be where there is none to break lines for."""
    console = Console(markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = 200
    return console


def print_batches(rows: list[dict[str, Any]], *, now: datetime) -> None:
    """One line for each batch."""
    console = _console()
    rows = _printable(rows)
    if not rows:
        console.print("No batches yet.")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("batch", "status", "since", "age", "watch", "job"):
        table.add_column(column, no_wrap=column != "job", overflow="ellipsis")
    for row in rows:
        table.add_row(
            row["id"],
            _status(row["status"], vanished=row["vanished_at"] is not None),
            _ago(row["changed_at"], now),
            _ago(row["created_at"] or row["first_seen_at"], now),
            row["watch"],
            row["job_type"] or "",
        )
    console.print(table)


def print_batch(row: dict[str, Any], *, now: datetime) -> None:
    """Everything that is known of one batch."""
    console = _console()
    row = _printable(row)
    console.print(Text.assemble((row["id"], "bold"), "  watch ", row["watch"]))
    console.print(
        _status(row["status"], vanished=row["vanished_at"] is not None),
        f"since {_ago(row['changed_at'], now)},",
        f"{row['job_type'] or 'job'} with {row['configuration_id'] or '?'}",
    )
    console.print()
    table = Table(box=None, pad_edge=False, header_style="bold", title_justify="left")
    for column in ("#", "status", "observed", "after"):
        table.add_column(column)
    before = None
    for one in row["transitions"]:
        after = "" if before is None else _span((one["observed_at"] - before).total_seconds())
        table.add_row(
            str(one["number"]), _status(one["to_status"]), _moment(one["observed_at"]), after
        )
        before = one["observed_at"]
    console.print(table)
    _print_files(console, row)
    _print_deliveries(console, row)


def print_certified(row: dict[str, Any] | None) -> None:
    """One line for a case, as soon as it is judged; None prints the head of them."""
    line = Table.grid(padding=(0, 1))
    for width in (1, 17, 35, 9, None):
        line.add_column(width=width)
    if row is None:
        line.add_row("", *(Text(one, "bold") for one in ("case", "sent", "should be", "was")))
    else:
        row = _printable(row)
        mark, colour = _MARKS[row["verdict"]]
        line.add_row(
            Text(mark, colour),
            row["case"],
            row["sent"],
            row["expected"],
            Text(row["happened"], "" if row["verdict"] == "ok" else colour),
        )
    _console().print(line)


def print_certificate(rows: list[dict[str, Any]]) -> None:
    """What it comes to, and how to mend what is wrong."""
    console = _console()
    rows = _printable(rows)
    wrong = [row for row in rows if row["verdict"] == "wrong"]
    if not wrong:
        console.print(f"\nAll {len(rows)} cases are as they should be.")
        return
    console.print(f"\n{len(wrong)} of {len(rows)} cases to mend:")
    for row in wrong:
        console.print()
        console.print(
            Text.assemble(
                (row["case"], "bold red"), f"  should be {row['expected']}, was {row['happened']}"
            )
        )
        reasons = Table.grid(padding=(0, 1))
        reasons.add_row("  why ", row["rule"])
        reasons.add_row("  mend", row["mend"])
        console.print(reasons)
    skipped = sum(1 for row in rows if row["verdict"] == "skipped")
    if skipped:
        console.print(f"\n{skipped} more can be judged when the good message is taken.")


def _printable(value: Any) -> Any:
    """``value`` with every string in it free of control characters."""
    if isinstance(value, str):
        return value.translate(_CONTROL)
    if isinstance(value, dict):
        return {key: _printable(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_printable(one) for one in value]
    return value


def _print_files(console: Console, row: dict[str, Any]) -> None:
    files = row["files"]
    if not files:
        if row["results"] in ("awaited", "pending"):
            console.print("\nIts results are asked for, and LlamaCloud has not given them yet.")
        return
    failed = [one for one in files if one["error_message"] is not None]
    jobless = [one for one in files if one["job_id"] is None and one["error_message"] is None]
    console.print(f"\n{len(files)} files, {len(failed)} failed, {len(jobless)} without a job")
    for one in failed[:_FILES_SHOWN]:
        console.print(
            Text.assemble(
                "  ", (one["source_directory_file_id"], "red"), "  ", one["error_message"]
            )
        )
    if len(failed) > _FILES_SHOWN:
        console.print(f"  … and {len(failed) - _FILES_SHOWN} more (--json has all)")


def _print_deliveries(console: Console, row: dict[str, Any]) -> None:
    if not row["deliveries"]:
        console.print("\nNobody was to be told of it.")
        return
    console.print()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("event", "endpoint", "state", "tries", "last answer"):
        table.add_column(column)
    for one in row["deliveries"]:
        last = one["tries"][-1] if one["tries"] else None
        answer = ""
        if last is not None:
            answer = last["detail"] or f"HTTP {last['status_code']} in {last['duration_ms']:.0f} ms"
        table.add_row(
            one["type"],
            one["endpoint"],
            _status(one["state"]),
            str(one["attempts"]),
            Text(one["reason"] or answer),
        )
    console.print(table)


def _status(status: str, *, vanished: bool = False) -> Text:
    text = Text(status, style=_COLOURS.get(status, ""))
    return text.append(" (vanished)", style="red") if vanished else text


def _moment(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def _ago(moment: datetime | None, now: datetime) -> str:
    return "" if moment is None else _span(max(0.0, (now - moment).total_seconds()))


def _span(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
