"""How things look, on the screen and in lines: colours, signs and words.

A sign or a word says all that a colour says, for terminals without colours and for eyes that
tell few of them apart. All signs are one cell wide in every terminal.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from rich.text import Text

from batchwatch.demo.evidence import Answer

if TYPE_CHECKING:
    from batchwatch.demo.evidence import Block

COLOURS: Final = {
    "PENDING": "yellow",
    "THROTTLED": "magenta",
    "RUNNING": "cyan",
    "COMPLETED": "green",
    "FAILED": "red",
    "CANCELLED": "bright_black",
}
UNKNOWN_COLOUR: Final = "blue"
SIGNS: Final = {
    "PENDING": "·",
    "THROTTLED": "╌",
    "RUNNING": "━",
    "COMPLETED": "●",
    "FAILED": "✗",
    "CANCELLED": "○",
}
UNKNOWN_SIGN: Final = "?"

ANSWERS: Final = {
    Answer.TAKEN: "",
    Answer.REFUSED: "← 500",
    Answer.HUNG: "← hangs",
    Answer.DROPPED: "← drops",
    Answer.UNVERIFIED: "← 401",
}

_ENTITIES: Final = (("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&"))  # the last one last
_MARKUP: Final = re.compile(r"\*(?P<bold>[^*\n]+)\*|`(?P<code>[^`\n]+)`")
# It asks for the coloured form of a sign. Terminals disagree on how wide that is, and a line
# whose width is not known ruins those beside it.
_EMOJI_FORM: Final = "\N{VARIATION SELECTOR-16}"


def colour(status: str) -> str:
    """The colour of a status."""
    return COLOURS.get(status, UNKNOWN_COLOUR)


def sign(status: str) -> str:
    """The sign of a status, one cell wide."""
    return SIGNS.get(status, UNKNOWN_SIGN)


def block_lines(block: Block) -> list[Text]:
    """A block of a Slack message as Slack would show it, line by line."""
    lines = [_marked_up(line) for line in block.text.replace(_EMOJI_FORM, "").splitlines()]
    style = {"header": "bold", "context": "dim"}.get(block.type)
    if style is not None:
        for line in lines:
            line.stylize(style)
    return lines


def _marked_up(line: str) -> Text:
    """Slack's mrkdwn, as far as batchwatch writes it."""
    text = Text(end="", no_wrap=True)
    at = 0
    for found in _MARKUP.finditer(line):
        text.append(_plain(line[at : found.start()]))
        text.append(_plain(found["bold"] or found["code"]), "bold" if found["bold"] else "italic")
        at = found.end()
    return text.append(_plain(line[at:]))


def _plain(escaped: str) -> str:
    for entity, character in _ENTITIES:
        escaped = escaped.replace(entity, character)
    return escaped


def counted(number: int, one: str, many: str = "") -> str:
    """``1 batch``, ``2 batches``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
