"""Hand out senders: endpoints whose rules are the same share their connections, others never."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Self

from batchwatch.deliver.sender import Sender, new_session

if TYPE_CHECKING:
    import ssl

    import aiohttp

    from batchwatch.clock import Clock
    from batchwatch.deliver.guard import Guard


class Connections:
    """The sessions of all endpoints, one for each set of rules.

    A pool keeps connections apart by host, TLS and proxy, but not by guard:
    what one endpoint may connect to, another with stricter rules must not
    find open.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sessions: dict[Guard | None, aiohttp.ClientSession] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def sender(
        self, guard: Guard, *, tls: ssl.SSLContext | None = None, proxy: str | None = None
    ) -> Sender:
        """A sender that keeps to ``guard``; the address of a proxy is whoever set it's choice."""
        rules = None if proxy else guard
        session = self._sessions.get(rules)
        if session is None:
            session = self._sessions[rules] = new_session(rules)
            self._stack.push_async_callback(session.close)
        return Sender(session, self._clock, tls=tls, proxy=proxy, guard=guard)
