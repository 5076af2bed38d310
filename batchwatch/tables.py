"""What commands found, as tables for a terminal."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from batchwatch.domain.batch import Status

if TYPE_CHECKING:
    from batchwatch.waiting import Outcome

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
_HEALTH: Final = {"well": "green", "disabled": "red"}
_ALARMS: Final = {
    "batch.settled": "green",
    "batch.stuck": "red",
    "batch.vanished": "red",
    "watch.failing": "red",
    "watch.slow": "red",
    "watch.gap": "red",
    "endpoint.failing": "red",
    "endpoint.disabled": "red",
}
_LONGEST_TYPE: Final = 18  # characters
_FATES: Final = {"cancelled": "its job was cancelled", "jobless": "it was never given to a job"}
_FAILED_SHOWN: Final = 20
_OTHERS_SHOWN: Final = 5
# What a terminal would obey instead of show; rows hold what upstream and receivers said.
_CONTROL: Final = dict.fromkeys((*range(32), *range(127, 160))) | {10: " ", 9: " "}


_AS_IT_IS: Final[dict[str, Any]] = {"markup": False, "highlight": False, "emoji": False}
_GAP: Final = "  "

Columns = Mapping[str, Sequence[Text]]


def print_batches(rows: list[dict[str, Any]], *, now: datetime) -> None:
    """One line for each batch; what there is no room for is left out, and never the id."""
    console = Console(**_AS_IT_IS)
    rows = printable(rows)
    columns = {
        "batch": [Text(row["id"]) for row in rows],
        "status": [_status_of(row) for row in rows],
        "ETA": [_eta(row["expected"], now) for row in rows],
        "since": [Text(_ago(row["changed_at"], now)) for row in rows],
        "age": [Text(_ago(row["created_at"] or row["first_seen_at"], now)) for row in rows],
        "watch": [Text(row["watch"]) for row in rows],
        "job": [Text(row["job_type"] or "") for row in rows],
    }
    if not any(columns["ETA"]):
        del columns["ETA"]
    if console.is_terminal:
        dispensable = ["job", "age", "since", "watch"]
        if len({row["watch"] for row in rows}) == 1:
            dispensable.insert(0, dispensable.pop())  # it says nothing
        dispensable.append("ETA")
        for name in dispensable:
            if (
                name in columns
                and sum(_widths(columns)) + len(_GAP) * (len(columns) - 1) > console.width
            ):
                del columns[name]
    _print_table(console, columns)


def print_none(others: list[dict[str, Any]], *, where: str) -> None:
    """Why there is nothing to list: what ``others`` there are in the store, by status."""
    console = Console(**_AS_IT_IS)
    if not others:
        console.print(f"No batches yet in {where}.", soft_wrap=True)
        return
    count = sum(row["count"] for row in others)
    watches = ", ".join(sorted({row["watch"] for row in others}))
    statuses = ", ".join(sorted({row["status"] for row in others}))
    batches = "the one batch" if count == 1 else f"the {count} batches"
    text = f"None of {batches} in {where} matches. Watches: {watches}. Statuses: {statuses}."
    console.print(printable(text), soft_wrap=True)


def print_batch(row: dict[str, Any], *, now: datetime) -> None:
    """Everything that is known of one batch."""
    console = Console(**_AS_IT_IS)
    row = printable(row)
    console.print(Text.assemble((row["id"], "bold"), "  watch ", row["watch"]), soft_wrap=True)
    console.print(
        _status_of(row),
        f"since {_ago(row['changed_at'], now)},",
        f"{row['job_type'] or 'job'} with {row['configuration_id'] or '?'}",
        soft_wrap=True,
    )
    _print_outlook(console, row, now)
    console.print()
    steps = row["transitions"]
    moments = [one["observed_at"] for one in steps]
    lasted = [
        _span((moment - before).total_seconds()) for before, moment in itertools.pairwise(moments)
    ]
    if _goes_on(row):
        lasted.append(f"{_ago(row['changed_at'], now)} so far")
    columns = {
        "#": [Text(str(one["number"])) for one in steps],
        "status": [_status(one["to_status"]) for one in steps],
        "observed (UTC)": [Text(_moment(moment)) for moment in moments],
        "lasted": [Text(one) for one in (*lasted, "")[: len(steps)]],
    }
    _print_table(console, columns)
    _print_files(console, row)
    _print_deliveries(console, row)


def _print_outlook(console: Console, row: dict[str, Any], now: datetime) -> None:
    """How long it should take in all, and why it is stuck, if it is."""
    expected, stuck = row["expected"], row["stuck"]
    if expected is not None:
        low, high = _span(expected["low"]), _span(expected["high"])
        text = f"{expected['samples']} like it took {_span(expected['median'])}, "
        text += f"most of them {low} to {high}; "
        text += "it is " if expected["overdue"] else "it should end "
        console.print(text + _eta(expected, now).plain, soft_wrap=True)
    if stuck is not None:
        allowed = f"{_span(stuck['limit'])} in {row['status']} are allowed"
        if stuck["rule"] == "history":
            allowed = f"more than {_span(stuck['limit'])} in all is far outside of that"
        text = f"stuck for {_ago(stuck['since'], now)}: {allowed}"
        console.print(Text(text, "red"), soft_wrap=True)


def print_deliveries(rows: list[dict[str, Any]]) -> None:
    """One line for each delivery, with what came of its last try."""
    console = Console(**_AS_IT_IS)
    rows = printable(rows)
    if not rows:
        console.print("No delivery matches.")
        return
    _print_table(
        console,
        {
            "id": [Text(str(row["id"])) for row in rows],
            "event": [Text(row["type"]) for row in rows],
            "about": [Text(row["batch_id"] or row["watch"]) for row in rows],
            "endpoint": [Text(row["endpoint"]) for row in rows],
            "state": [_status(row["state"]) for row in rows],
            "tries": [Text(str(row["attempts"])) for row in rows],
            "last try (UTC)": [
                Text(_moment(row["tried_at"]) if row["tried_at"] else "") for row in rows
            ],
            "answer": [Text(row["reason"] or _answer(row)) for row in rows],
        },
    )


def print_event(event: dict[str, Any]) -> None:
    """One line for an event: when (UTC), what, about what, and why, if it says so."""
    console = Console(**_AS_IT_IS)
    event = printable(event)
    data = event["payload"].get("data", {})
    type_ = event["type"]
    about = event["batch_id"] or data.get("endpoint") or event["watch"] or ""
    reason = data.get("reason") or ""
    colour = _COLOURS.get(type_.partition(".")[2].upper(), _ALARMS.get(type_, ""))
    line = [
        Text(_moment(datetime.fromisoformat(event["occurred_at"]))),
        Text(type_.ljust(_LONGEST_TYPE), colour),
        Text(about),
        *([Text(reason, "bright_black")] if reason else []),
    ]
    console.print(Text(_GAP).join(line), soft_wrap=True)


def print_endpoints(rows: list[dict[str, Any]]) -> None:
    """One line for each endpoint."""
    console = Console(**_AS_IT_IS)
    rows = printable(rows)
    if not rows:
        console.print("No endpoint is set.")
        return
    _print_table(
        console,
        {
            "endpoint": [Text(row["endpoint"]) for row in rows],
            "state": [Text(row["state"], _HEALTH.get(row["state"], "yellow")) for row in rows],
            "since (UTC)": [Text(_moment(row["since"]) if row["since"] else "") for row in rows],
            "owed": [Text(str(row["owed"])) for row in rows],
            "dead": [Text(str(row["dead"]), "red" if row["dead"] else "") for row in rows],
            "url": [Text(row["url"] or "") for row in rows],
            "reason": [Text(row["reason"] or "") for row in rows],
        },
    )


def print_replicas(found: dict[str, Any]) -> None:
    """One line for each replica, and one for each watch with who polls it."""
    console = Console(**_AS_IT_IS)
    found = printable(found)
    now, rows, watches = found["now"], found["replicas"], found["watches"]
    if rows:
        columns = {
            "replica": [Text(row["id"]) for row in rows],
            "state": [
                Text("alive", "green") if row["alive"] else Text("gone", "red") for row in rows
            ],
            "seen": [Text(f"{_ago(row['seen_at'], now)} ago") for row in rows],
            "up": [Text(_ago(row["started_at"], now)) for row in rows],
            "host": [Text(row["host"]) for row in rows],
            "version": [Text(row["version"]) for row in rows],
            "in flight": [Text(str(row["in_flight"])) for row in rows],
            "polls": [
                Text(f"{len(row['watches'])}: {', '.join(row['watches'])}")
                if row["watches"]
                else Text("0")
                for row in rows
            ],
        }
        _print_table(console, columns)
        console.print()
    columns = {
        "watch": [Text(row["watch"]) for row in watches],
        "polled by": [
            Text(row["holder"]) if row["holder"] else Text("nobody", "red") for row in watches
        ],
        "for": [Text(_ago(row["since"], now)) for row in watches],
        "last good pass": [
            Text(f"{_ago(row['last_good_poll'], now)} ago" if row["last_good_poll"] else "")
            for row in watches
        ],
        "lease ends": [
            Text(f"in {_ago(now, row['held_until'])}" if row["held_until"] else "")
            for row in watches
        ],
        "token": [Text("" if row["token"] is None else str(row["token"])) for row in watches],
    }
    _print_table(console, columns)


def proof_lines(row: dict[str, Any]) -> list[tuple[str, str]]:
    """What is proven of a watch: the verdict on each line, and the line."""
    row = printable(row)
    if row["began"] is None:
        return [("wrong", "it has never been watched; batchwatch run begins")]
    kept_from = row["kept_from"]
    start = _moment(max(row["since"], row["began"], kept_from or row["began"]))
    lines = []
    if row["began"] > row["since"]:
        why = "what it is asked for was changed then" if row["rescoped"] else "it began then"
        lines.append(("ok", f"watched since {_moment(row['began'])}: {why}"))
    if kept_from:
        until = _moment(kept_from)
        lines.append(("wrong", f"what was before {until} is removed; see BATCHWATCH_RETENTION"))
    lines += [("ok" if one["closed_at"] else "wrong", _gap(one)) for one in row["gaps"]]
    passes = f"({row['passes']:,} passes in all, times in UTC)"
    if not row["gaps"]:
        until = _moment(row["covered_to"] or row["until"])
        lines.append(("ok", f"every moment from {start} to {until} was watched {passes}"))
    else:
        lines.append(("ok", f"every other moment from {start} on was watched {passes}"))
    return lines


def _gap(one: dict[str, Any]) -> str:
    spanned = f"{_moment(one['from'])} to {_moment(one['to'])}, {_span(one['seconds'])}"
    text = f"{spanned}, {one['kind']}" + (f": {one['reason']}" if one["reason"] else "")
    if one["closed_at"] is None:
        return f"{text}. Not closed. {one['what_to_do']}"
    found = "1 change" if one["found"] == 1 else f"{one['found'] or 0} changes"
    back = f" by listing again from {_moment(one['listed_from'])}" if one["listed_from"] else ""
    return f"{text}. Closed at {_moment(one['closed_at'])}{back}, {found} found"


def print_outcome(outcome: Outcome) -> None:
    """How a batch that was waited for has ended, and which of its files failed."""
    console = Console(**_AS_IT_IS)
    ending = outcome.ending.value
    good = outcome.succeeded
    mark, colour = _MARKS["ok" if good else "skipped" if ending == "unfinished" else "wrong"]
    counts = outcome.counts
    files = counts.get("files", 0)
    failed = len(outcome.failures)
    said = {
        "succeeded": f"{_files(files)}, none failed",
        "some_failed": f"{failed} of {_files(files)} failed",
        "unknown": "it cannot be known what became of its files",
        "vanished": "LlamaCloud no longer knows it",
        "unfinished": "it goes on; time was up",
    }.get(ending, _files(files) if files else "")
    if outcome.status is None:
        said = "time was up before LlamaCloud showed it"
    if good and counts.get("open"):
        said = f"{_files(files)}, of which {counts['open']} have jobs that may still run or fail"
    line = [Text(printable(outcome.batch_id), "bold"), _status(printable(outcome.status or ""))]
    text = Text(_GAP).join(one for one in (*line, Text(said)) if one)
    console.print(Text.assemble((f"{mark} ", colour), text), soft_wrap=True)
    for one in outcome.failures[:_FAILED_SHOWN]:
        console.print(
            Text.assemble(
                "  ",
                (printable(one.name or one.source_directory_file_id), "red"),
                _GAP,
                printable(one.error_message or _FATES.get(one.fate, one.fate)),
            ),
            soft_wrap=True,
        )
    if failed > _FAILED_SHOWN:
        console.print(f"  … and {failed - _FAILED_SHOWN} more (--json has all)")


def print_audit(rows: list[dict[str, Any]], summary: dict[str, Any]) -> None:
    """One line for each webhook that is amiss, and what it comes to."""
    console = Console(**_AS_IT_IS)
    if not summary["expected"]:
        console.print(
            "No batch with an upstream webhook has changed in that time; "
            "the last minute is not judged yet. "
            "Were all made with it, --all judges them all; docs/hints.md has how to make one.",
            soft_wrap=True,
        )
        return
    rows = printable(rows)
    if rows:
        columns = {
            "batch": [Text(row["batch_id"]) for row in rows],
            "webhook": [Text(row["type"]) for row in rows],
            "is": [Text(", ".join(row["faults"]), "red") for row in rows],
            "changed (UTC)": [Text(_moment(row["changed_at"])) for row in rows],
            "came": [Text(_came(row)) for row in rows],
            "watch": [Text(row["watch"]) for row in rows],
        }
        _print_table(console, columns)
        console.print()
    console.print(_audited(summary), soft_wrap=True)
    for type_ in summary["silent"]:
        text = f"No {type_} came at all: is it among the webhook_events of these batches?"
        console.print(text, soft_wrap=True)
    if summary["unconfirmed"]:
        text = "LlamaCloud lists batch.cancelled and does not say that it sends it; none came yet."
        console.print(text, soft_wrap=True)


def _came(row: dict[str, Any]) -> str:
    if row["seconds"] is None:
        return "never"
    behind = f", behind {row['behind']}" if row["behind"] else ""
    return f"{_span(max(0.0, row['seconds']))} later{behind}"


def _audited(summary: dict[str, Any]) -> str:
    expected = summary["expected"]
    counts = "1 batch" if summary["batches"] == 1 else f"{summary['batches']} batches"
    shares = [
        f"{summary[what]} {what} ({summary[what] / expected:.1%})"
        for what in ("came", "missed", "late", "reordered", "unconfirmed")
        if summary[what] or what != "unconfirmed"
    ]
    beside = [
        f"{summary[what]} {text}"
        for what, text in (("repeated", "repeated"), ("unseen", "of statuses that nobody saw"))
        if summary[what]
    ]
    text = f"{counts}, {expected} webhooks expected: {', '.join(shares)}."
    return f"{text} Beside them: {', '.join(beside)}." if beside else text


def print_certified(row: dict[str, Any] | None) -> None:
    """One line for a case, as soon as it is judged; None prints the head of them."""
    line = Table.grid(padding=(0, 1))
    for width in (1, 17, 35, 9, None):
        line.add_column(width=width)
    if row is None:
        line.add_row("", *(Text(one, "bold") for one in ("case", "sent", "should be", "was")))
    else:
        row = printable(row)
        mark, colour = _MARKS[row["verdict"]]
        line.add_row(
            Text(mark, colour),
            row["case"],
            row["sent"],
            row["expected"],
            Text(row["happened"], "" if row["verdict"] == "ok" else colour),
        )
    _report().print(line)


def print_certificate(rows: list[dict[str, Any]]) -> None:
    """What it comes to, and how to mend what is wrong."""
    console = _report()
    rows = printable(rows)
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


def _report() -> Console:
    """As wide as the terminal, and as wide as need be where there is none to break lines for."""
    console = Console(**_AS_IT_IS)
    if not console.is_terminal:
        console.width = 200
    return console


def printable(value: Any) -> Any:
    """``value`` with every string in it free of control characters."""
    if isinstance(value, str):
        return value.translate(_CONTROL)
    if isinstance(value, dict):
        return {key: printable(one) for key, one in value.items()}
    if isinstance(value, list):
        return [printable(one) for one in value]
    return value


def _print_files(console: Console, row: dict[str, Any]) -> None:
    files = row["files"]
    if not files:
        if row["results"] in ("awaited", "pending"):
            console.print("\nIts results are asked for, and LlamaCloud has not given them yet.")
        return
    failed = [one for one in files if one["fate"] not in (None, "succeeded", "unknown")]
    count = "1 file" if len(files) == 1 else f"{len(files)} files"
    fates = Counter(one["fate"] or "still open" for one in files)
    console.print(
        f"\n{count}: " + ", ".join(f"{many} {fate}" for fate, many in fates.most_common())
    )
    others = [one for one in files if one not in failed]
    for some, most in ((failed, _FAILED_SHOWN), (others, _OTHERS_SHOWN)):
        for one in some[:most]:
            console.print(_file(one), soft_wrap=True)
        if len(some) > most:
            which = "that failed" if some is failed else "that did not fail"
            console.print(f"  … and {len(some) - most} more {which} (--json has all)")


def _file(one: dict[str, Any]) -> Text:
    """A file with why it failed, or with the job that it has."""
    name = one["source_directory_file_id"]
    if one["name"]:
        name += f"{_GAP}{one['name']}"
    job = f"{one['job_type'] or 'job'} {one['job_id']}" if one["job_id"] else "no job"
    if one["fate"] in (None, "succeeded", "unknown"):
        status = one["job_status"] or ""
        return Text(f"  {name}{_GAP}{job}{_GAP}{status}".rstrip())
    why = one["error_message"] or one["job_error"] or one["job_status"] or job
    return Text.assemble("  ", (name, "red"), _GAP, why)


def _print_deliveries(console: Console, row: dict[str, Any]) -> None:
    if not row["deliveries"]:
        console.print("\nNobody was to be told of it.")
        return
    console.print()
    sent = row["deliveries"]
    lasts = [one["tries"][-1] if one["tries"] else None for one in sent]
    columns = {
        "event": [Text(one["type"]) for one in sent],
        "endpoint": [Text(one["endpoint"]) for one in sent],
        "state": [_status(one["state"]) for one in sent],
        "tries": [Text(str(one["attempts"])) for one in sent],
        "last try (UTC)": [
            Text("" if last is None else _moment(last["started_at"])) for last in lasts
        ],
        "answer": [
            Text(one["reason"] or _answer(last)) for one, last in zip(sent, lasts, strict=True)
        ],
    }
    _print_table(console, columns)


def _answer(last: dict[str, Any] | None) -> str:
    if last is None:
        return ""
    if last["duration_ms"] is None:
        return ""  # it was never tried
    return last["detail"] or f"HTTP {last['status_code']} in {last['duration_ms']:.0f} ms"


def _widths(columns: Columns) -> list[int]:
    return [max(cell_len(head), *(one.cell_len for one in of)) for head, of in columns.items()]


def _print_table(console: Console, columns: Columns) -> None:
    """The columns side by side, in lines that end where their text ends.

    A terminal that is too narrow breaks them itself, so that nothing is cut.
    """
    widths = _widths(columns)
    heads = [Text(head, "bold") for head in columns]
    for cells in (heads, *zip(*columns.values(), strict=True)):
        line = Text(_GAP).join(
            Text.assemble(cell, " " * (width - cell.cell_len))
            for cell, width in zip(cells, widths, strict=True)
        )
        line.rstrip()
        console.print(line, soft_wrap=True)


def _status(status: str, *, vanished: bool = False) -> Text:
    text = Text(status, style=_COLOURS.get(status, ""))
    return text.append(" (vanished)", style="red") if vanished else text


def _status_of(row: dict[str, Any]) -> Text:
    """A batch's status, and what is odd about it."""
    text = _status(row["status"], vanished=row["vanished_at"] is not None)
    return text.append(" (stuck)", style="red") if row["stuck"] is not None else text


def _goes_on(row: dict[str, Any]) -> bool:
    return row["vanished_at"] is None and not Status(row["status"]).is_terminal


def _eta(expected: dict[str, Any] | None, now: datetime) -> Text:
    """When it should end: ``in 12m``, or ``late by 3h``."""
    if expected is None:
        return Text()
    left = (datetime.fromisoformat(expected["ends_at"]) - now).total_seconds()
    if expected["overdue"]:
        return Text(f"late by {_span(max(0.0, -left))}", "yellow")
    return Text(f"in {_span(max(0.0, left))}")


def _moment(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def _ago(moment: datetime | None, now: datetime) -> str:
    return "" if moment is None else _span(max(0.0, (now - moment).total_seconds()))


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"


def _span(seconds: float) -> str:
    """As settings have durations, by the two largest units: ``1m``, ``2h5m``, ``6.3s``."""
    whole = round(seconds)
    for size, unit, smaller, name in (
        (86_400, "d", 3_600, "h"), (3_600, "h", 60, "m"), (60, "m", 1, "s"),
    ):  # fmt: skip
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size}{unit}" + (f"{rest}{name}" if rest else "")
    return f"{seconds:.1f}s" if seconds < 10 else f"{whole}s"
