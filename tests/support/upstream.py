"""A LlamaCloud that lives by a plan, answers in bytes, and errs as such services do.

It stands where aiohttp's session stands, so that all of the client is part of
a test and no socket is: hundreds of histories take seconds. It shares nothing
with batchwatch or its simulator but the documented form of answers.

What it does stays within what upstream can plausibly do:

- A replica lags by less than a minute (``LAG``), and shows what truly was,
  with a stamp that tells that it is old or without one.
- A new batch is listed within five minutes of its creation.
- A 404 for what is there passes, and listings go on showing it.
"""

from __future__ import annotations

import asyncio
import json
from bisect import bisect_right
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import aiohttp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from random import Random

    from yarl import URL

    from tests.support.clock import ManualClock

LAG: Final = 45.0  # seconds
PAGE: Final = 3  # batches; so small that listings have several
TERMINAL: Final = ("COMPLETED", "FAILED", "CANCELLED")
STAMPS: Final = ("exact", "coarse", "null", "sometimes", "ahead")
BREAKS: Final = ("500", "502", "503", "429", "html", "truncated", "reset", "timeout")


@dataclass(frozen=True)
class Plan:
    """A batch's whole life, in seconds of the test's time."""

    name: str
    created: float
    steps: tuple[tuple[str, float], ...]  # each status, and how long after the one before
    stamps: str = "exact"  # one of STAMPS
    listed_late: float = 0.0
    results_late: float = 0.0

    @property
    def moments(self) -> list[float]:
        """When each status began."""
        found, moment = [], self.created
        for _, after in self.steps:
            moment += after
            found.append(moment)
        return found


class Upstream:
    """The service: a plan for each batch, and a die for what goes wrong."""

    def __init__(self, plans: Sequence[Plan], *, clock: ManualClock, random: Random) -> None:
        self.plans = {plan.name: plan for plan in plans}
        self.trouble = 0.0  # the chance that something is wrong with an answer
        self.shown: dict[str, set[int]] = {plan.name: set() for plan in plans}  # places in its life
        self._clock = clock
        self._random = random
        self._began = clock.now()
        self._frozen_at = float("inf")
        self._lists: dict[str, tuple[list[str], int]] = {}  # by token: what, and from where on

    @property
    def time(self) -> float:
        """Upstream's own time, which no jump of ours moves."""
        return self._clock.monotonic()

    def freeze(self) -> None:
        """Nothing happens any more."""
        self._frozen_at = self.time

    def place(self, name: str, at: float | None = None) -> int:
        """How many of its statuses have begun, less one; -1: it is not there yet."""
        at = min(self.time if at is None else at, self._frozen_at)
        return bisect_right(self.plans[name].moments, at) - 1

    def history(self, name: str) -> list[str]:
        """Each status that it truly had."""
        return [status for status, _ in self.plans[name].steps[: self.place(name) + 1]]

    # What aiohttp's session has, as far as the client uses it.
    @asynccontextmanager
    async def get(self, url: URL, **_: Any) -> AsyncIterator[Response]:
        """Answer as a replica of now, or of a little earlier, would; or break."""
        asked_at = self.time
        for _turn in range(self._random.choice((0, 0, 1, 3))):
            await asyncio.sleep(0)  # so that answers overtake each other
        if self._goes_wrong():
            yield self._broken()
            return
        found = url.path.removeprefix("/api/v2/batches").strip("/")
        if found:
            yield self._one(unquote(found), asked_at)
        else:
            yield self._page(url.query, asked_at)

    def _goes_wrong(self) -> bool:
        return self._random.random() < self.trouble

    def _broken(self) -> Response:
        how = self._random.choice(BREAKS)
        if how == "reset":
            raise aiohttp.ServerDisconnectedError
        if how == "timeout":
            raise aiohttp.ServerTimeoutError
        if how == "html":
            return Response(200, b"<html>maintenance</html>", self._headers("text/html"))
        if how == "truncated":
            return Response(200, b'{"items": [{"id": "bat-', self._headers())
        return Response(int(how), b'{"detail": "no"}', self._headers(retry_after=how == "429"))

    def _headers(
        self, type_: str = "application/json", *, retry_after: bool = False
    ) -> dict[str, str]:
        date = self._began + timedelta(seconds=self.time)
        headers = {
            "Content-Type": type_,
            "Date": format_datetime(date.astimezone(UTC), usegmt=True),
        }
        return headers | ({"Retry-After": "1"} if retry_after else {})

    def _answer(self, value: Any) -> Response:
        return Response(200, json.dumps(value).encode(), self._headers())

    def _one(self, name: str, asked_at: float) -> Response:
        plan = self.plans.get(name)
        place = -1 if plan is None else self.place(name)
        if plan is None or place < 0 or self._goes_wrong():  # a gateway that has lost a route
            return Response(404, b'{"detail": "not found"}', self._headers())
        item = self._item(name, asked_at)
        ended = plan.moments[-1] if plan.steps[-1][0] in TERMINAL else float("inf")
        if item["status"] == "COMPLETED" and self.time >= ended + plan.results_late:
            item["results"] = [{"source_directory_file_id": f"dfl-{name}"}]
        return self._answer(item)

    def _page(self, query: Any, asked_at: float) -> Response:
        names, start = self._lists.get(query.get("page_token", ""), (None, 0))
        if names is None:
            names = [name for name in self.plans if self._is_listed(name, query)]
            self._random.shuffle(names)
        on_it = names[start : start + PAGE]
        items = [self._item(name, asked_at) for name in on_it if self.place(name) >= 0]
        if names and self._goes_wrong():  # one more time, as a replica may have it
            items.insert(0, self._item(self._random.choice(names), asked_at))
        token = None
        if start + PAGE < len(names):
            there = start if self._goes_wrong() else start + PAGE  # in circles
            token = f"{len(self._lists)}-{there}"
            self._lists[token] = (names, there)
        return self._answer({"items": items, "next_page_token": token})

    def _is_listed(self, name: str, query: Any) -> bool:
        plan = self.plans[name]
        place = self.place(name)
        if place < 0 or self.time < plan.created + plan.listed_late:
            return False
        created = self._began + timedelta(seconds=plan.created)
        since, until = query.get("created_at_on_or_after"), query.get("created_at_on_or_before")
        return (
            (since is None or created >= datetime.fromisoformat(since))
            and (until is None or created <= datetime.fromisoformat(until))
            and query.get("status", plan.steps[place][0]) == plan.steps[place][0]
        )

    def _item(self, name: str, asked_at: float) -> dict[str, Any]:
        """The batch as this answer shows it: now, or when it was asked, or as a replica has it."""
        plan = self.plans[name]
        place = self.place(name)
        if self._goes_wrong():
            older = max(0, self.place(name, self.time - self._random.uniform(0, LAG)))
        else:
            older = max(0, self.place(name, asked_at))
        place = min(place, older)
        self.shown[name].add(place)
        stamp = self._stamp(plan, place)
        if plan.stamps == "sometimes" and place == self.place(name) and self._goes_wrong():
            stamp = None
        return {
            "id": name,
            "status": plan.steps[place][0],
            "created_at": (self._began + timedelta(seconds=plan.created)).isoformat(),
            "updated_at": stamp,
            "results": None,
        }

    def _stamp(self, plan: Plan, place: int) -> str | None:
        if plan.stamps == "null":
            return None
        moment = self._began + timedelta(seconds=plan.moments[place])
        if plan.stamps == "coarse":
            moment = moment.replace(microsecond=0)
        if plan.stamps == "ahead":
            moment += timedelta(minutes=7)
        return moment.isoformat()


class Response:
    """What aiohttp's response has, as far as the client uses it."""

    def __init__(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.status = status
        self.headers = headers
        self.content = self
        self._body = body

    async def readany(self) -> bytes:
        """All of the body, and then its end."""
        body, self._body = self._body, b""
        return body
