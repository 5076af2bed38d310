"""Batches, and one with its whole story."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

from msgspec import UNSET, Meta, Struct
from msgspec.structs import replace

from batchwatch.domain.expect import begun_at
from batchwatch.domain.settle import TO_RETRY, likeness
from batchwatch.web.api import answers
from batchwatch.web.api.batches import FateName, QueryOfBatches, QueryOfFiles
from batchwatch.web.api.operation import Asked, Nothing
from batchwatch.web.cursor import OfNumbers
from batchwatch.web.dashboard.charts import Stay
from batchwatch.web.dashboard.export import exported
from batchwatch.web.dashboard.filters import filters, here
from batchwatch.web.dashboard.frame import tone

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from aiohttp import web

    from batchwatch.web.api.interface import Api
    from batchwatch.web.dashboard.frame import Frame
    from batchwatch.web.live import Live

FILES: Final = 25  # of a page
AT_ONCE: Final = 1_000  # files of one question
UNFOLDED: Final = 20  # deliveries that are shown with all their tries
GROUPS: Final = 10


class WantedOfBatch(Struct, forbid_unknown_fields=True):
    """Which files are shown on the page of a batch."""

    fate: FateName | None = None
    text: Annotated[str, Meta(max_length=200)] | None = None  # in name, id or message
    cursor: OfNumbers | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Files of one fate with like messages."""

    fate: str
    message: str | None
    files: list[answers.File]


@dataclass(frozen=True, slots=True)
class Step:
    """A status that a batch had, since when, and for how long; None: it still lasts."""

    number: int
    status: str
    since: datetime
    seconds: float | None


class BatchPages:
    """The list, and each one."""

    def __init__(self, frame: Frame, live: Live, api: Api) -> None:
        self._frame = frame
        self._live = live
        self._api = api

    async def listed(self, request: web.Request) -> web.StreamResponse:
        """The batches that are asked for."""
        query = filters(request, QueryOfBatches)
        now = self._live.clock.now()
        if "format" in request.query:

            async def ask(cursor: str | None) -> answers.Page[answers.Batch]:
                wanted = replace(query, cursor=cursor or UNSET, limit=200)
                return await self._api.batches.list_batches(wanted, Asked({}))

            return await exported(request, "batches", answers.Batch, ask, now=now)
        page = await self._api.batches.list_batches(query, Asked({}))
        return self._frame.page(
            request,
            "batches.html",
            query=query,
            page=page,
            here=here(request, self._frame.link("batches")),
            known=await self._known() if not page.items else {},
            watches=await self._live.watches(),
        )

    async def one(self, request: web.Request) -> web.StreamResponse:
        """One batch: what it does, did, what became of its files, and who was told."""
        query = filters(request, WantedOfBatch)
        asked = Asked(dict(request.match_info))
        now = self._live.clock.now()
        if "format" in request.query:

            async def ask(cursor: str | None) -> answers.Page[answers.File]:
                found = matching(await self._files(asked), query)
                return sliced(found, cursor, AT_ONCE)

            return await exported(request, "files", answers.File, ask, now=now)
        batch = await self._api.batches.get_batch(Nothing(), asked)
        files = await self._files(asked) if batch.files.files else []
        steps = steps_of(batch)
        root = self._frame.link("batches", batch.watch, batch.id)
        return self._frame.page(
            request,
            "batch.html",
            batch=batch,
            query=query,
            begun=begun_at(batch.created_at, batch.first_seen_at),
            steps=steps,
            stays=[
                Stay(one.status, _lasted(one, now), tone(one.status))
                for one in steps
                if one.seconds is not None or batch.active
            ],
            groups=groups_of(files)[:GROUPS],
            files=sliced(matching(files, query), query.cursor, FILES),
            matches=len(matching(files, query)),
            told=[
                await self._whole(one, place)
                for place, one in enumerate(reversed(batch.deliveries))
            ],
            here=here(request, root),
            root=root,
        )

    async def _whole(self, one: answers.Delivery, place: int) -> answers.WholeDelivery:
        """With its tries: of the first ones all, else the last, which is known of each."""
        if one.attempts > 1 and place < UNFOLDED:
            asked = Asked({"delivery_id": str(one.id)})
            return await self._api.events.get_delivery(Nothing(), asked)
        tries = []
        if one.tried_at is not None:
            tries.append(answers.Attempt(
                number=one.attempts,
                started_at=one.tried_at,
                duration=one.duration or 0.0,
                status_code=one.status_code,
                failure=one.failure,
                detail=one.detail,
                response=None,
            ))  # fmt: skip
        fields = {name: getattr(one, name) for name in one.__struct_fields__}
        return answers.WholeDelivery(**fields, tries=tries)

    async def _files(self, asked: Asked) -> list[answers.File]:
        """All of them, in their order."""
        found: list[answers.File] = []
        cursor: str | None = None
        while True:
            query = QueryOfFiles(limit=AT_ONCE, cursor=cursor or UNSET)
            page = await self._api.batches.list_files(query, asked)
            found += page.items
            cursor = page.next
            if cursor is None:
                return found

    async def _known(self) -> dict[str, int]:
        return await self._live.store.figures.by_status()


def steps_of(batch: answers.WholeBatch) -> list[Step]:
    """Its statuses in order, with how long each lasted."""
    moments = [one.observed_at for one in batch.transitions]
    lasted: list[float | None] = [
        max(0.0, (after - before).total_seconds()) for before, after in itertools.pairwise(moments)
    ]
    return [
        Step(one.number, one.to_status, one.observed_at, seconds)
        for one, seconds in zip(batch.transitions, [*lasted, None], strict=False)
    ]


def groups_of(files: Iterable[answers.File]) -> list[Group]:
    """Files that did not succeed, those with like messages together, the largest group first."""
    found: dict[tuple[str, str], Group] = {}
    for one in files:
        if one.fate in TO_RETRY:
            key = (str(one.fate), likeness(one.message or ""))
            found.setdefault(key, Group(str(one.fate), one.message, [])).files.append(one)
    return sorted(found.values(), key=lambda one: -len(one.files))


def matching(files: Sequence[answers.File], query: WantedOfBatch) -> list[answers.File]:
    """Those that are asked for."""
    text = (query.text or "").casefold()
    return [
        one
        for one in files
        if (query.fate is None or (one.fate or "open") == query.fate)
        and (not text or any(text in (said or "").casefold() for said in _words(one)))
    ]


def sliced(
    files: Sequence[answers.File], cursor: str | None, size: int
) -> answers.Page[answers.File]:
    """Some of them, as the API pages them."""
    start = int(cursor or 0)
    end = start + size
    return answers.Page(list(files[start:end]), str(end) if end < len(files) else None)


def _words(file: answers.File) -> tuple[str | None, ...]:
    return (file.name, file.source_directory_file_id, file.job_id, file.message)


def _lasted(step: Step, now: datetime) -> float:
    if step.seconds is not None:
        return step.seconds
    return max(0.0, (now - step.since).total_seconds())
