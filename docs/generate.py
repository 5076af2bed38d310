"""Write again what is made from the code: settings, events, metrics, commands and receivers.

With --check nothing is written; the exit code is 1 if anything is stale.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from typer.main import get_command

from batchwatch.certify.cases import CASES, IN_TIME
from batchwatch.cli import app
from batchwatch.domain import event
from batchwatch.domain.routing import FOR_PEOPLE, FOR_PROGRAMS
from batchwatch.metrics import Metrics
from batchwatch.settings import reference
from batchwatch.web.api import asyncapi, schemas

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parent.parent


def whole(render: Callable[[], str]) -> Callable[[str], str]:
    """Make a page that is generated from its first line to its last."""
    return lambda _: render()


def part(name: str, render: Callable[[], str]) -> Callable[[str], str]:
    """Make a page that is generated between the two comments that carry ``name``."""
    begin, end = f"<!-- generated: {name} -->\n", f"<!-- end: {name} -->"

    def replace(page: str) -> str:
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        page, count = pattern.subn(lambda _: f"{begin}\n{render()}\n{end}", page)
        if count != 1:
            raise ValueError(f"expected one part named {name}, found {count}")
        return page

    return replace


def events() -> str:
    """Every type, what it means, and who hears of it unasked."""
    rows = ["| Type | When | Unasked to |", "|---|---|---|"]
    for type_ in event.EVENT_TYPES:
        unasked = [
            name
            for name, types in (("webhooks", FOR_PROGRAMS), ("Slack", FOR_PEOPLE))
            if type_ in types
        ]
        link = f"[`{type_}`](schemas/{type_}.json)"
        rows.append(f"| {link} | {event.MEANINGS[type_]} | {', '.join(unasked) or 'nobody'} |")
    return "\n".join(rows)


def schema_of(type_: str) -> str:
    """The JSON Schema of one type's message."""
    return json.dumps(schemas.schema_of(type_), indent=2, ensure_ascii=False) + "\n"


def metrics() -> str:
    """Every metric with its labels."""
    rows = ["| Metric | Kind | Labels | Meaning |", "|---|---|---|---|"]
    for collector in Metrics().collectors:
        (family,) = collector.describe()
        suffix = "_total" if family.type == "counter" else ""
        labels = ", ".join(f"`{label}`" for label in collector._labelnames)  # noqa: SLF001  # no other way to them
        rows.append(
            f"| `{family.name}{suffix}` | {family.type} | {labels} | {family.documentation} |"
        )
    return "\n".join(rows)


def commands() -> str:
    """Every command with its options, as its --help has them."""
    group = get_command(app)
    lines = []
    found = group.commands  # type: ignore[attr-defined]  # typer's own group
    for name, command in list(found.items()):
        inner = getattr(command, "commands", {})  # those of a group, such as `secret new`
        found |= {f"{name} {one}": below for one, below in inner.items()}
    for name, command in sorted(found.items()):
        lines += [f"### `batchwatch {name}`", "", command.help or "", ""]
        rows = []
        for parameter in command.params:
            words = ", ".join(f"`{one}`" for one in parameter.opts)
            if parameter.param_type_name == "argument":
                words = f"`{parameter.metavar or parameter.human_readable_name}`"
            given = parameter.default
            default = "" if given is None or isinstance(given, bool) else f"`{given}`"
            rows.append(f"| {words} | {default} | {getattr(parameter, 'help', None) or ''} |")
        if rows:
            lines += ["| Option | Default | Meaning |", "|---|---|---|", *rows, ""]
    return "\n".join(lines).rstrip()


def cases() -> str:
    """What certify tries, and why."""
    rows = ["| Case | What is sent | Should be | Why |", "|---|---|---|---|"]
    rows += [
        f"| `{one.name}` | {one.sent} | {one.expected} | {one.rule} |" for one in (*CASES, IN_TIME)
    ]
    return "\n".join(rows)


def receivers() -> str:
    """The examples, whole, as the tests try them."""
    lines = []
    for name, title, language in (
        ("aiohttp_receiver.py", "Python, aiohttp", "python"),
        ("fastapi_receiver.py", "Python, FastAPI", "python"),
        ("receiver.ts", "TypeScript, Node", "ts"),
        ("receiver.go", "Go", "go"),
    ):
        code = (ROOT / "docs" / "receivers" / name).read_text(encoding="utf-8").rstrip()
        lines += [f"### {title}", "", f"[{name}](receivers/{name})", ""]
        lines += [f"```{language}", code, "```", ""]
    return "\n".join(lines).rstrip()


def receiving(page: str) -> str:
    """Put both into their page."""
    return part("receivers", receivers)(part("cases", cases)(page))


# Each page, and what makes its text from the text it has.
PAGES: dict[str, Callable[[str], str]] = {
    "config/batchwatch.env.example": whole(reference.render_env),
    "config/settings.schema.json": whole(
        lambda: json.dumps(reference.json_schema(), indent=2, ensure_ascii=False) + "\n"
    ),
    "docs/configuration.md": part("settings", reference.render_table),
    "docs/events.md": part("events", events),
    "docs/receiving.md": receiving,
    "docs/operating.md": part("metrics", metrics),
    "docs/cli.md": part("commands", commands),
    "docs/asyncapi.json": whole(
        lambda: json.dumps(asyncapi.document(), indent=2, ensure_ascii=False) + "\n"
    ),
    **{f"docs/schemas/{type_}.json": whole(partial(schema_of, type_)) for type_ in event.MEANINGS},
}


def main() -> int:
    """Write the stale pages, or name them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 if stale")
    check = parser.parse_args().check
    stale = []
    for name, make in PAGES.items():
        page = ROOT / name
        before = page.read_text(encoding="utf-8") if page.exists() else ""
        after = make(before)
        if after != before:
            stale.append(name)
            if not check:
                page.parent.mkdir(exist_ok=True)
                page.write_text(after, encoding="utf-8")
    for name in stale:
        print(f"{name} is stale; run: make docs" if check else f"wrote {name}")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
