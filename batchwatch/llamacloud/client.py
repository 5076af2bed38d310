"""The four questions that batchwatch asks of LlamaCloud, all of them GETs: it changes nothing."""

from __future__ import annotations

import re
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import quote

from batchwatch.llamacloud.budget import Priority
from batchwatch.llamacloud.errors import Garbled, PagingLoop, Rejected, Unaskable
from batchwatch.llamacloud.key import ApiKey
from batchwatch.llamacloud.paging import follow
from batchwatch.llamacloud.transport import (
    LIMITS,
    Answer,
    Limits,
    Question,
    RequestReport,
    Transport,
)
from batchwatch.llamacloud.wire import (
    Files,
    Job,
    Jobs,
    Page,
    Unreadable,
    read_batch,
    read_files,
    read_jobs,
    read_page,
)
from batchwatch.traces import OFF

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    import aiohttp

    from batchwatch.clock import Clock
    from batchwatch.domain.batch import BatchId, FileOutcome, Observation, Status
    from batchwatch.llamacloud.budget import Budget
    from batchwatch.llamacloud.wire import Body, Item
    from batchwatch.traces import Traces

T = TypeVar("T")

BATCHES: Final = "/api/v2/batches"
JOBS: Final = {"parse_v2": "/api/v2/parse", "extract_v2": "/api/v2/extract"}
DIRECTORIES: Final = "/api/v1/beta/directories"

PAGE_SIZE: Final = 1_000  # asked for; no maximum is documented, and fewer may come
SMALLEST_PAGE: Final = 10  # below this upstream's own default is asked for
RELEARNT: Final = 3600.0  # seconds after which a page size that was too large is tried again
GET_SECONDS: Final = 15.0  # for one batch, retries included: the store asks again by itself
IDS_AT_ONCE: Final = 100  # job ids in one URL, which then has about 5,000 characters
FILE_PAGES: Final = 10  # of a directory; a batch has a thousand files at most
_TOO_LONG: Final = frozenset({413, 414, 431})
_NO_PATH: Final = ("", ".", "..")
_COMPLAINS_OF_SIZE: Final = frozenset({400, 422})
_NAMED_LIMIT: Final = re.compile(
    r"(?:less than or equal to|at most|max\w*|<=)\D{0,12}(\d+)", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Scope:
    """Which part of what the key may see; normally all of it, for keys belong to one project."""

    project_id: str | None = None
    organization_id: str | None = None
    source_directory_id: str | None = None


class LlamaCloud:
    """The upstream API behind one key.

    ``key_source`` is the variable that the key came from; errors name it.
    ``on_request`` hears of every try, the failed ones included; ``permit`` is
    called before each, and raises what forbids it. Every question raises
    :class:`CloudError`, after a few tries where those make sense.
    """

    def __init__(  # noqa: PLR0913  # what a watch has settings for, each by its name
        self,
        *,
        base_url: str,
        api_key: str,
        key_source: str,
        session: aiohttp.ClientSession,
        budget: Budget,
        clock: Clock,
        scope: Scope = Scope(),
        on_request: Callable[[RequestReport], None] | None = None,
        permit: Callable[[], None] | None = None,
        limits: Limits = LIMITS,
        traces: Traces = OFF,
    ) -> None:
        key = ApiKey(api_key, source=key_source)
        del api_key  # a traceback may show locals
        self._transport = Transport(
            base_url=base_url,
            key=key,
            session=session,
            budget=budget,
            clock=clock,
            traces=traces,
        )
        self._transport.on_request = on_request
        self._transport.permit = permit
        self.traces = traces  # for whoever asks, to tell what for
        self.budget = budget
        self._clock = clock
        self._scope = scope
        self._limits = limits
        self._single = replace(limits, total=min(limits.total, GET_SECONDS))
        # By path: as many as upstream let us have, and when (monotonic) that was learnt.
        self._page_sizes: dict[str, tuple[int | None, float]] = {}
        self._ids_at_once: dict[str, tuple[int, float]] = {}  # likewise

    @property
    def requests(self) -> int:
        """How many were sent so far, retries included."""
        return self._transport.requests

    @property
    def paused_for(self) -> float:
        """Seconds for which upstream has asked for no requests; 0 if it has not."""
        return self.budget.blocked_for

    def covers(self, seen: Observation) -> bool:
        """Whether a listing would show ``seen``; a GET has no filter for the directory."""
        return self._scope.source_directory_id in (None, seen.source_directory_id)

    async def list_batches(
        self,
        *,
        created_on_or_after: datetime | None = None,
        created_on_or_before: datetime | None = None,
        status: Status | None = None,
        page_size: int | None = None,
        priority: Priority = Priority.DISCOVER,
    ) -> AsyncGenerator[Page]:
        """Yield the listing page by page, in upstream's order, which is not documented.

        While the caller has a page, the next one is fetched already: close
        the generator (``contextlib.aclosing``) when leaving it early. Raises
        :class:`PagingLoop`, after what came, when the listing does not end.
        """
        filters = self._scoped()
        if self._scope.source_directory_id:
            filters.append(("source_directory_id", self._scope.source_directory_id))
        if created_on_or_after is not None:
            filters.append(("created_at_on_or_after", _rfc3339(created_on_or_after)))
        if created_on_or_before is not None:
            filters.append(("created_at_on_or_before", _rfc3339(created_on_or_before)))
        if status is not None:
            filters.append(("status", status))

        async def fetch(token: str | None) -> Page:
            params = _with_token(filters, token)
            question = Question("list_batches", BATCHES, params, read_page, priority, self._limits)
            asked_at = self._clock.now()
            answer = await self._sized(question, page_size or PAGE_SIZE, smallest=SMALLEST_PAGE)
            answer.value.date, answer.value.asked_at = answer.date, asked_at
            return answer.value

        where = self._transport.where(BATCHES)
        async with aclosing(follow(fetch, where=where, ahead=True)) as pages:
            async for page in pages:
                yield page

    async def get_batch(
        self, batch_id: BatchId, *, results: bool, priority: Priority
    ) -> Observation:
        """One batch as it is now, with its results where ``results`` and upstream has them.

        Raises :class:`Unaskable` for an id that :func:`can_be_asked` refuses.
        """
        path = f"{BATCHES}/{quote(batch_id, safe='', errors='replace')}"
        if not can_be_asked(batch_id):
            raise Unaskable(
                f"not asked, for an id of {batch_id!r} would be another path",
                where=self._transport.where(BATCHES),
                what_to_do="Its status is read from listings, and its results cannot be had: "
                "report the id to LlamaCloud, which listed it.",
            )

        def read(body: Body) -> tuple[Item, tuple[FileOutcome, ...] | None]:
            item, outcomes = read_batch(body)
            if item.id != batch_id:
                raise Unreadable("the batch of that id")
            return item, outcomes

        params = self._scoped()
        if results:
            params.append(("expand", "results"))
        question = Question(
            "get_batch", path, params, read, priority, self._single, f"{BATCHES}/{{batch_id}}"
        )
        asked_at = self._clock.now()
        answer = await self._transport.get(question)
        item, outcomes = answer.value
        return item.observation(
            self._clock.now(),
            asked_at=asked_at,
            asked_results=results,
            results=outcomes if results else None,
        )

    async def jobs(self, job_type: str, ids: Sequence[str], *, priority: Priority) -> list[Job]:
        """The jobs of one type (``parse_v2``, ``extract_v2``), as far as upstream knows them.

        An id that upstream does not show, or shows unreadably, has no job in
        the result. Raises :class:`Rejected` for a type that no endpoint is
        known for; :data:`JOBS` has those that are.
        """
        if job_type not in JOBS:
            raise Rejected(
                f"not asked, for batchwatch knows no endpoint for jobs of the type {job_type!r}",
                where=self._transport.where("/api/v2"),
                what_to_do="Look for a newer batchwatch, or report this line.",
            )
        found, _ = await self._jobs(job_type, list(dict.fromkeys(ids)), priority)
        return found

    async def _jobs(
        self, job_type: str, ids: Sequence[str], priority: Priority
    ) -> tuple[list[Job], bool]:
        """The jobs of these ids, and whether that took one question; by halves where it must.

        How many ids upstream takes is documented nowhere, nor how it says that
        they are too many: a URL that is too long is a bad request to some
        servers. An id that is refused by itself has no job, and holds up no
        other.
        """
        path = JOBS[job_type]
        parts = _parts(ids, self._most_ids(path))
        refused = False
        if len(parts) == 1:
            try:
                return await self._jobs_at_once(job_type, ids, priority), True
            except Rejected as error:
                too_long = error.status in _TOO_LONG
                if not (too_long or error.status in _COMPLAINS_OF_SIZE):
                    raise
                if len(ids) == 1:
                    if too_long:
                        raise
                    return [], False
            refused = True
            parts = _parts(ids, -(-len(ids) // 2))
        found: list[Job] = []
        whole = True
        for some in parts:
            more, at_once = await self._jobs(job_type, some, priority)
            found += more
            whole = whole and at_once
        if refused and whole:  # so it was their number, and not one of them
            self._ids_at_once[path] = (len(parts[0]), self._clock.monotonic())
        return found, False

    def _most_ids(self, path: str) -> int:
        """How many ids may be named at once; what was learnt is tried anew after an hour."""
        allowed, learnt_at = self._ids_at_once.get(path, (IDS_AT_ONCE, 0.0))
        return IDS_AT_ONCE if self._clock.monotonic() - learnt_at > RELEARNT else allowed

    async def directory_files(self, directory_id: str, *, priority: Priority) -> dict[str, str]:
        """What the files of a directory are called, by their ids.

        Raises :class:`NotFound` where there is no such directory any more:
        ephemeral ones are cleaned up.
        """
        template = f"{DIRECTORIES}/{{directory_id}}/files"
        path = f"{DIRECTORIES}/{quote(directory_id, safe='', errors='replace')}/files"
        if directory_id in _NO_PATH:
            raise Unaskable(
                f"not asked, for an id of {directory_id!r} would be another path",
                where=self._transport.where(DIRECTORIES),
                what_to_do="Its files are known by their ids alone.",
            )

        async def fetch(token: str | None) -> Files:
            params = _with_token(self._scoped(), token)
            question = Question(
                "list_files", path, params, read_files, priority, self._limits, template
            )
            return (await self._sized(question, PAGE_SIZE, smallest=SMALLEST_PAGE)).value

        names: dict[str, str] = {}
        pages = follow(fetch, where=self._transport.where(path), most=FILE_PAGES, ahead=False)
        async with aclosing(pages):
            async for page in pages:
                names |= {file.id: file.name for file in page.items}
        return names

    async def _jobs_at_once(
        self, job_type: str, ids: Sequence[str], priority: Priority
    ) -> list[Job]:
        path = JOBS[job_type]
        filters = [*self._scoped(), *(("job_ids", one) for one in ids)]
        read = partial(read_jobs, job_type=job_type)

        async def fetch(token: str | None) -> Jobs:
            params = _with_token(filters, token)
            question = Question("list_jobs", path, params, read, priority, self._limits)
            return (await self._sized(question, len(ids), smallest=1)).value

        # Upstream may know the parameter by another name, and then lists every job there is:
        # only what was asked for counts, and once that is there nothing more is fetched.
        missing = set(ids)
        found: list[Job] = []
        pages = follow(fetch, where=self._transport.where(path), most=len(ids) + 1, ahead=False)
        try:
            async with aclosing(pages):
                async for page in pages:
                    for job in page.items:
                        if job.id in missing:
                            missing.remove(job.id)
                            found.append(job)
                    if not missing:
                        break
        except PagingLoop:
            if not found:
                raise
        return found

    async def _sized(self, question: Question[T], wanted: int, *, smallest: int) -> Answer[T]:
        """Ask for a page of ``wanted`` entries, or of as many as upstream allows.

        Its limit is documented nowhere. Where it complains, or sends more
        than we can take, less is asked for, now and for an hour; but never so
        few, below ``smallest``, that a listing would take for ever.
        """
        while True:
            size = self._page_size(question.path, wanted)
            params = question.params
            if size is not None:
                params = [*params, ("page_size", str(size))]
            try:
                return await self._transport.get(replace(question, params=params))
            except Rejected as error:
                if size is None or error.status not in _COMPLAINS_OF_SIZE:
                    raise
                if "page_size" in error.detail:
                    self._learn(question.path, _smaller(size, error.detail))
                else:  # it may mean the size and not say so; without one it has nothing to refuse
                    answer = await self._transport.get(question)
                    self._learn(question.path, None)
                    return answer
            except Garbled as error:
                if size is None or size <= smallest or not error.oversized:
                    raise
                self._learn(question.path, max(smallest, size // 2))

    def _page_size(self, path: str, wanted: int) -> int | None:
        """``wanted``, or what upstream allowed instead; None is its own default."""
        allowed, learnt_at = self._page_sizes.get(path, (wanted, 0.0))
        if self._clock.monotonic() - learnt_at > RELEARNT:
            return wanted  # it may have been a fault that has passed
        return None if allowed is None else min(allowed, wanted)

    def _learn(self, path: str, size: int | None) -> None:
        self._page_sizes[path] = (size, self._clock.monotonic())

    def _scoped(self) -> list[tuple[str, str]]:
        scope = self._scope
        pairs = (("project_id", scope.project_id), ("organization_id", scope.organization_id))
        return [(name, value) for name, value in pairs if value]


def can_be_asked(batch_id: BatchId) -> bool:
    """Whether a URL can carry this id: no encoding keeps `..` from being the folder above."""
    return batch_id not in _NO_PATH


def _parts(ids: Sequence[str], size: int) -> list[Sequence[str]]:
    """``ids`` in order, ``size`` of them at most in each part."""
    return [ids[start : start + size] for start in range(0, len(ids), size)]


def _with_token(filters: list[tuple[str, str]], token: str | None) -> list[tuple[str, str]]:
    """The filters again on every page, as the official SDK does, and the token if there is one."""
    return filters if token is None else [*filters, ("page_token", token)]


def _smaller(size: int, detail: str) -> int | None:
    """What to ask for instead of ``size``: the limit that ``detail`` names, or half."""
    named = _NAMED_LIMIT.search(detail)
    limit = int(named[1]) if named else 0
    smaller = limit if 0 < limit < size else size // 2
    return smaller if smaller >= SMALLEST_PAGE else None


def _rfc3339(moment: datetime) -> str:
    """``moment`` in UTC, with microseconds always, as the official SDK writes it."""
    if moment.tzinfo is None:
        raise ValueError(f"a time without its offset: {moment}")
    return moment.astimezone(UTC).isoformat(timespec="microseconds")
