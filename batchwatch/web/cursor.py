"""Where a page of a list ended, as text that is handed back to get the next one.

Plain text of a form that the API's document can say, so that whatever has
this form is a place in the list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from msgspec import Meta

if TYPE_CHECKING:
    from batchwatch.store.pages import Key

_TEXT: Final = "The `next` of the page before."
_NUMBER: Final = "[0-9]{1,18}"

OfNumbers = Annotated[str, Meta(pattern=f"^{_NUMBER}$", description=_TEXT)]
OfEvents = Annotated[str, Meta(pattern=f"^[<>]{_NUMBER}$", description=_TEXT)]
# An id is whatever text upstream says: one that is refused here would be the end of its list.
OfBatches = Annotated[
    str,
    Meta(pattern=rf"^-?{_NUMBER}~[a-z0-9_-]{{1,63}}~[^\x00]{{1,1000}}$", description=_TEXT),
]


def to_text(key: Key | None) -> str | None:
    """The cursor for ``key``; None where there is no next page."""
    return None if key is None else "~".join(str(one) for one in key)


def of_numbers(text: str | None) -> Key | None:
    """The key that :func:`to_text` made of one number."""
    return None if text is None else (int(text),)


def of_batches(text: str | None) -> Key | None:
    """The key that :func:`to_text` made of a moment, a watch and an id."""
    if text is None:
        return None
    moment, watch, batch_id = text.split("~", 2)
    return int(moment), watch, batch_id
