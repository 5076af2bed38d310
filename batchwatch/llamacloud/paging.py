"""Follow ``next_page_token`` to the end of a listing, and no further."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from batchwatch.llamacloud.errors import PagingLoop

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

EMPTY_PAGES: Final = 3
FAMILIAR_PAGES: Final = 20
MOST_PAGES: Final = 10_000


class Entry(Protocol):
    """What all entries have."""

    @property
    def id(self) -> str:
        """Upstream's name for it."""


class Paged(Protocol):
    """What all pages have, whatever they list."""

    unreadable: int
    next_page_token: str | None

    @property
    def items(self) -> Sequence[Entry]:
        """Its entries, as far as they can be read."""


P = TypeVar("P", bound=Paged)


async def follow(
    fetch: Callable[[str | None], Awaitable[P]],
    *,
    where: str,
    most: int = MOST_PAGES,
    ahead: bool,
) -> AsyncGenerator[P]:
    """Yield page after page; ``ahead`` fetches the next one while the caller has this one.

    A listing ends with the page that has no token. Two things are decided
    here that upstream does not document:

    - An empty page with a token: the official SDK stops there. We go on, for
      a filter may leave a page empty in the middle, but the third in a row is
      taken for the end, as the SDK would have taken the first.
    - A token that was there before would lead round in circles, and so would
      fresh ones to pages that show nothing new, twenty in a row; and more than
      ``most`` pages are no listing: what came is yielded, then
      :class:`PagingLoop` raised, so that the caller knows it is not all.
    """
    seen: set[str] = set()
    shown: set[str] = set()  # ids
    empty = familiar = 0
    following: asyncio.Future[P] | None = None
    page = await fetch(None)
    try:
        for number in range(1, most + 1):
            token = page.next_page_token
            empty = 0 if page.items or page.unreadable else empty + 1
            ends = not token or empty >= EMPTY_PAGES
            if number > FAMILIAR_PAGES:  # the usual listing is at its end by now
                fresh = {one.id for one in page.items} - shown
                shown |= fresh
                familiar = 0 if fresh else familiar + 1
            circles = token in seen or familiar >= FAMILIAR_PAGES
            endless = not ends and (circles or number == most)
            if token and ahead and not (ends or endless):
                following = asyncio.ensure_future(fetch(token))
            yield page
            if ends:
                return
            if endless or token is None:
                break
            seen.add(token)
            page = await (following or fetch(token))
            following = None
    finally:
        if following is not None:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
    if token in seen:
        what = f"page {number} of the listing names a next page that was there before"
    elif familiar >= FAMILIAR_PAGES:
        what = f"the last {familiar} of {number} pages of the listing showed nothing new"
    else:
        what = f"the listing has more than {number} pages"
    raise _loop(where, what)


def _loop(where: str, what: str) -> PagingLoop:
    return PagingLoop(
        f"{what}, where the last page was expected to come some time",
        where=where,
        what_to_do="What the pages showed is used, and the window is asked for again. If this "
        "lasts, report it to LlamaCloud.",
        status=200,
    )
