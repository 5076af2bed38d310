"""Where a page of a list ended, as text that is handed back to get the next one."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Final

import msgspec

from batchwatch.web.problem import Problem

if TYPE_CHECKING:
    from batchwatch.store.pages import Key

LARGEST: Final = 1_000  # characters
BIGGEST: Final = 2**63 - 1  # a number that both databases can compare
OF_BATCHES: Final = (int, str, str)
OF_NUMBERS: Final = (int,)


def to_text(key: Key | None) -> str | None:
    """The cursor for ``key``; None where there is no next page."""
    if key is None:
        return None
    return base64.urlsafe_b64encode(msgspec.json.encode(key)).decode().rstrip("=")


def to_key(text: str | None, kinds: tuple[type, ...]) -> Key | None:
    """The key in ``text``, if there is one; raises Problem if it is none of such a list."""
    if text is None:
        return None
    try:
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        found = msgspec.json.decode(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, binascii.Error, msgspec.DecodeError):
        found = None
    if (
        not isinstance(found, list)
        or [type(one) for one in found] != list(kinds)
        or any(isinstance(one, int) and abs(one) > BIGGEST for one in found)
        or any(isinstance(one, str) and "\0" in one for one in found)
    ):
        raise Problem(400, "cursor: give the `next` of a page of the same list, as it is")
    return tuple(found)
