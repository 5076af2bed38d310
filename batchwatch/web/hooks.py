"""Take upstream's webhooks: check the signature, note the hint, and have its batch looked at.

A hint is never a fact. All that one can bring about is a GET for the batch that it names, and
what that shows is recorded by the same rules as whatever a poll shows.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from aiohttp import web

from batchwatch.llamacloud.webhook import HEADER, is_signed, read_hint
from batchwatch.llamacloud.wire import Unreadable
from batchwatch.log import get_logger
from batchwatch.store import StoreError
from batchwatch.web.problem import Problem
from batchwatch.web.route import Role, Route

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from batchwatch.clock import Clock
    from batchwatch.domain.batch import BatchId, Status, WatchName
    from batchwatch.domain.hint import Hint
    from batchwatch.metrics import Metrics
    from batchwatch.store import Hints

log = get_logger()

PATH: Final = "/hooks/llamacloud/{watch}"
LARGEST_BODY: Final = 64 * 1024  # bytes; those of upstream have some hundred
PATIENCE: Final = 10.0  # seconds for a body to come
NO_WATCH: Final = ""  # the label where there is none: no name of a watch is empty


class Outcome(StrEnum):
    """What became of a request."""

    TAKEN = "taken"
    REPEATED = "repeated"  # by its event id
    OLD = "old"  # by the time that it claims
    UNRELATED = "unrelated"  # about no batch
    UNSIGNED = "unsigned"  # or signed with another secret
    UNREADABLE = "unreadable"
    REFUSED = "refused"  # too large, or too slow
    OFF = "off"  # its watch has no secret
    UNKNOWN_WATCH = "unknown_watch"
    STORE_FAILED = "store_failed"


@dataclass(frozen=True, slots=True)
class Door:
    """Where the hints of one watch come in; without ``secrets`` it is shut."""

    watch: WatchName
    secrets: Sequence[bytes]
    setting: str  # that opens it
    want: Callable[[BatchId, Status | None], None]


class Hooks:
    """The route, for all watches."""

    def __init__(
        self, doors: Iterable[Door], *, hints: Hints, clock: Clock, metrics: Metrics
    ) -> None:
        self._doors: dict[str, Door] = {one.watch: one for one in doors}
        self._hints = hints
        self._clock = clock
        self._metrics = metrics
        self._told: set[tuple[WatchName, Outcome]] = set()  # warned of, until one is taken

    def routes(self) -> list[Route]:
        """What is to be served: to everybody, for a signature is theirs."""
        return [Route("POST", PATH, self.take, Role.NONE)]

    async def take(self, request: web.Request) -> web.Response:
        """Answer one request, whatever it is."""
        door = self._doors.get(request.match_info["watch"])
        if door is None:
            return self._refuse(None, Outcome.UNKNOWN_WATCH, 404, "there is no watch of that name")
        if not door.secrets:
            detail = f"this watch takes no webhooks; set {door.setting}"
            return self._refuse(door, Outcome.OFF, 404, detail)
        try:
            async with asyncio.timeout(PATIENCE):
                body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            detail = f"a webhook has at most {LARGEST_BODY} bytes"
            return self._refuse(door, Outcome.REFUSED, 413, detail)
        except TimeoutError:
            detail = f"the body did not come within {PATIENCE:.0f} s"
            return self._refuse(door, Outcome.REFUSED, 408, detail)
        if not is_signed(body, request.headers.get(HEADER, ""), door.secrets):
            detail = f"{HEADER} must be sha256= and the HMAC-SHA256 of the body in hex"
            return self._refuse(door, Outcome.UNSIGNED, 401, detail)
        try:
            hint = read_hint(body)
        except Unreadable as wanted:
            return self._refuse(door, Outcome.UNREADABLE, 400, f"a webhook is {wanted}")
        return await self._follow(door, hint)

    async def _follow(self, door: Door, hint: Hint) -> web.Response:
        """Note a hint, and ask for its batch unless that would be for nothing."""
        if hint.batch_id is None:
            return self._accept(door, hint, Outcome.UNRELATED)
        now = self._clock.now()
        is_old = hint.is_old(now=now)
        try:
            is_first = await self._hints.note(door.watch, hint, now=now)
        except StoreError as error:
            if not is_old:
                door.want(hint.batch_id, hint.claims)
            self._warn(door, Outcome.STORE_FAILED, str(error))
            return self._refuse(door, Outcome.STORE_FAILED, 503, "try again")
        if not is_first:
            return self._accept(door, hint, Outcome.REPEATED)
        if is_old:
            return self._accept(door, hint, Outcome.OLD)
        door.want(hint.batch_id, hint.claims)
        return self._accept(door, hint, Outcome.TAKEN)

    def _accept(self, door: Door, hint: Hint, outcome: Outcome) -> web.Response:
        self._told = {one for one in self._told if one[0] != door.watch}
        self._metrics.hints.labels(door.watch, outcome.value).inc()
        log.debug(
            "hint.received",
            watch=door.watch,
            batch_id=hint.batch_id,
            type=hint.type,
            hint_id=hint.event_id,
            outcome=outcome,
        )
        return web.json_response({"outcome": outcome.value}, status=202)

    def _refuse(
        self, door: Door | None, outcome: Outcome, status: int, detail: str
    ) -> web.Response:
        self._metrics.hints.labels(door.watch if door else NO_WATCH, outcome.value).inc()
        if door is not None and outcome in (Outcome.UNSIGNED, Outcome.UNREADABLE):
            self._warn(door, outcome, detail)
        return Problem(status, detail).answer()

    def _warn(self, door: Door, outcome: Outcome, reason: str) -> None:
        """Say the first of a kind since one was taken; the others are counted."""
        kind = (door.watch, outcome)
        told = kind in self._told
        self._told.add(kind)
        (log.debug if told else log.warning)(
            "hint.refused", watch=door.watch, outcome=outcome, reason=reason
        )
