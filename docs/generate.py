"""Write again what is made from the code: settings in config/ and docs/configuration.md.

With --check nothing is written; the exit code is 1 if anything is stale.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from batchwatch.settings import reference

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


# Each page, and what makes its text from the text it has.
PAGES: dict[str, Callable[[str], str]] = {
    "config/batchwatch.env.example": whole(reference.render_env),
    "config/settings.schema.json": whole(
        lambda: json.dumps(reference.json_schema(), indent=2, ensure_ascii=False) + "\n"
    ),
    "docs/configuration.md": part("settings", reference.render_table),
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
                page.write_text(after, encoding="utf-8")
    for name in stale:
        print(f"{name} is stale; run: make docs" if check else f"wrote {name}")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
