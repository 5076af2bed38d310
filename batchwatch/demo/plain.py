"""The demo as plain lines: for pipes and logs, for ``--plain``, and once the screen has gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self

from rich.text import Text

from batchwatch.demo.evidence import Answer, Move, Post, Receipt, short
from batchwatch.demo.look import ANSWERS, block_lines, colour

if TYPE_CHECKING:
    from rich.console import Console

    from batchwatch.demo.evidence import Entry
    from batchwatch.demo.scene import Scene

_MARGIN: Final = " " * 18  # of what goes on below a line


class Plain:
    """Prints each entry of the scene once."""

    def __init__(self, scene: Scene, console: Console) -> None:
        self._scene = scene
        self._console = console

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.refresh()

    def refresh(self) -> None:
        """Print what is new."""
        while self._scene.unshown:
            entry = self._scene.unshown.popleft()
            for line in _lines(entry):
                self._console.print(line, soft_wrap=True, highlight=False)


def _lines(entry: Entry) -> list[Text]:
    if isinstance(entry, Move):
        status = (entry.status, colour(entry.status))
        return [_line(entry, "batch", f"{short(entry.batch_id)}  ", status)]
    if isinstance(entry, Receipt):
        return [_line(entry, "webhook", *_received(entry))]
    if isinstance(entry, Post):
        first, *rest = [line for block in entry.blocks for line in block_lines(block)]
        said = (f"  {ANSWERS[entry.answer]}" if ANSWERS[entry.answer] else "", "yellow")
        return [_line(entry, "slack", first, said), *(Text(_MARGIN) + line for line in rest)]
    return [_line(entry, "demo", (entry.text, "bold red" if entry.is_grave else ""))]


def _received(receipt: Receipt) -> list[str | tuple[str, str]]:
    if receipt.answer is Answer.UNVERIFIED:
        return [(f"{receipt.event_id}  the signature does not hold", "bold red")]
    about = "" if receipt.batch_id is None else f"{short(receipt.batch_id)}  "
    number = "" if receipt.transition is None else f"#{receipt.transition} "
    parts: list[str | tuple[str, str]] = [
        about,
        (f"{number}{receipt.type}", colour(receipt.status or "")),
        ("  verified", "green"),
    ]
    if receipt.answer is not Answer.TAKEN:
        parts.append((f"  {ANSWERS[receipt.answer]}", "yellow"))
    return parts


def _line(entry: Entry, source: str, *parts: str | Text | tuple[str, str]) -> Text:
    return Text.assemble((f"{entry.at:5.1f} s", "dim"), f"  {source:<9}", *parts)
