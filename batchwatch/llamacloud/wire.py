"""JSON as upstream sends it, into what the domain knows.

Upstream's answers are not ours to rely on. What can be read is read, however odd its neighbours:
a page is decoded in one go with typed structs, and only when that fails item by item. Fields that
nobody here needs are not even looked at.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final, Generic, TypeVar

import msgspec

from batchwatch.domain.batch import BatchId, FileOutcome, Observation, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_T = TypeVar("_T")

# Characters of an id, a status and what else is searched by; real ones have some 40. Two of them
# are in one index, whose rows have at most 2,704 bytes in PostgreSQL.
WORD_LIMIT: Final = 300

Body = bytes | bytearray
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=WORD_LIMIT)]
Word = Annotated[str, msgspec.Meta(max_length=WORD_LIMIT)]
Stamp = Word | int | float | None  # documented: a string, RFC 3339; seen elsewhere: Unix time

_EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(2200, 1, 1, tzinfo=UTC)
_MILLISECONDS_FROM: Final = 1e11  # as seconds, that would be the year 5138
_SAME_MOMENT: Final = timedelta(seconds=2)  # HTTP's Date has whole seconds

MOST_ENTRIES: Final = 100_000  # on one page; no more fit in 16 MiB that are real
_MOST_COMMAS: Final = 20 * MOST_ENTRIES
MESSAGE_LIMIT: Final = 2_000  # characters of a message that are kept; an event carries fewer

_A_PAGE: Final = f"a page of at most {MOST_ENTRIES:,} entries"


class Unreadable(ValueError):
    """The body is not what was expected; the message says what was."""


# gc=False spares the collector thousands of objects a page. It is safe, because what these
# structs hold comes straight from JSON, and JSON has no cycles.
class _Job(msgspec.Struct, gc=False, frozen=True):
    type: Word | None = None
    configuration_id: Word | None = None


class _Config(msgspec.Struct, gc=False, frozen=True):
    job: _Job | None = None


class Item(msgspec.Struct, gc=False, frozen=True):
    """A batch as one entry of a page."""

    id: Text
    status: Text
    created_at: Stamp = None
    updated_at: Stamp = None
    project_id: Word | None = None
    source_directory_id: Word | None = None
    config: _Config | None = None

    @property
    def fingerprint(self) -> str:
        """Status and ``updated_at`` as they came: equal means nothing new."""
        return f"{self.status} {self.updated_at}"

    @property
    def created(self) -> datetime | None:
        """When upstream says it was created, if that can be read."""
        return read_moment(self.created_at)

    def observation(
        self,
        seen_at: datetime,
        *,
        asked_at: datetime | None = None,
        asked_results: bool = False,
        results: tuple[FileOutcome, ...] | None = None,
    ) -> Observation:
        """What this entry says of the batch; to be built only where that is news."""
        job = self.config.job if self.config else None
        return Observation(
            id=BatchId(self.id),
            status=Status(self.status),
            seen_at=seen_at,
            fingerprint=self.fingerprint,
            created_at=self.created,
            updated_at=read_moment(self.updated_at),
            project_id=self.project_id,
            source_directory_id=self.source_directory_id,
            job_type=job.type if job else None,
            configuration_id=job.configuration_id if job else None,
            asked_results=asked_results,
            results=results,
            asked_at=asked_at,
        )


@dataclass(slots=True)
class Page:
    """One page of a listing."""

    items: list[Item]
    unreadable: int = 0  # entries without a usable id or a status, or no objects at all
    next_page_token: str | None = None  # None or empty: this is the last one
    date: datetime | None = None  # upstream's clock, when it answered
    asked_at: datetime | None = None  # our clock, when it was asked

    def fingerprints(self) -> dict[str, str]:
        """Every batch of the page and its fingerprint.

        A batch that is on the page twice, with two faces, has the fingerprint
        of both: no store knows that one, so neither sighting is overlooked.
        """
        prints = {item.id: f"{item.status} {item.updated_at}" for item in self.items}
        if len(prints) != len(self.items):
            for item in self.items:
                if item.fingerprint not in prints[item.id].split(" | "):
                    prints[item.id] += f" | {item.fingerprint}"
        return prints

    def newest(self) -> datetime | None:
        """The largest ``created_at`` that can be read, and is not in upstream's own future."""
        latest = self.date + _SAME_MOMENT if self.date else _LATEST
        try:
            # One C loop for the usual page: strings only, all with an offset or all without.
            moments = list(map(datetime.fromisoformat, [item.created_at for item in self.items]))  # type: ignore[arg-type]  # others raise
            newest = _aware(max(moments, default=None))
            if newest is not None and newest > latest:
                newest = max(
                    filter(latest.__ge__, filter(None, map(_aware, moments))), default=None
                )
            return _plausible(newest)
        except (TypeError, ValueError, OverflowError):
            created = (item.created for item in self.items)
            return max((one for one in created if one and one <= latest), default=None)


@dataclass(frozen=True, slots=True)
class Job:
    """A parse or extract job behind a file of a batch."""

    type: str
    id: str
    status: str  # as it came: an open set, like a batch's
    error_message: str | None = None


@dataclass(slots=True)
class Jobs:
    """One page of a listing of jobs."""

    items: list[Job]
    unreadable: int = 0
    next_page_token: str | None = None


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A file as its directory lists it."""

    id: str
    name: str


@dataclass(slots=True)
class Files:
    """One page of the files of a directory."""

    items: list[NamedFile]
    unreadable: int = 0
    next_page_token: str | None = None


class _Reference(msgspec.Struct, gc=False, frozen=True):
    type: Word | None = None
    id: Word | None = None


class _Result(msgspec.Struct, gc=False, frozen=True):
    source_directory_file_id: Text
    job_reference: _Reference | None = None
    error_message: str | None = None

    def outcome(self) -> FileOutcome:
        job = self.job_reference
        return FileOutcome(
            self.source_directory_file_id,
            job_type=(job.type or None) if job else None,
            job_id=(job.id or None) if job else None,
            error_message=_short(self.error_message),
        )


class _Results(msgspec.Struct, gc=False, frozen=True):
    results: list[_Result] | None = None


class _LooseResults(msgspec.Struct, gc=False, frozen=True):
    results: list[msgspec.Raw] | None = None


class _JobRow(msgspec.Struct, gc=False, frozen=True):
    id: Text
    status: Text
    error_message: str | None = None


class _FileRow(msgspec.Struct, gc=False, frozen=True):
    id: Text
    display_name: Text


class _Listing(msgspec.Struct, Generic[_T], gc=False, frozen=True):
    items: list[_T]
    next_page_token: str | int | None = None


_ANYTHING: Final = msgspec.json.Decoder(float_hook=float)
_ITEM: Final = msgspec.json.Decoder(Item)
_ITEMS: Final = msgspec.json.Decoder(_Listing[Item])
_JOB: Final = msgspec.json.Decoder(_JobRow)
_JOBS: Final = msgspec.json.Decoder(_Listing[_JobRow])
_FILES: Final = msgspec.json.Decoder(_Listing[_FileRow])
_RAW: Final = msgspec.json.Decoder(_Listing[msgspec.Raw])
_RESULT: Final = msgspec.json.Decoder(_Result)
_RESULTS: Final = msgspec.json.Decoder(_Results)
_LOOSE_RESULTS: Final = msgspec.json.Decoder(_LooseResults)

_FAILS: Final = (ValueError, RecursionError)  # msgspec's own errors are ValueErrors


def read_page(body: Body) -> Page:
    """A page of a listing of batches. Raises :class:`Unreadable` if it is none."""
    items, unreadable, token = _listing(body, _ITEMS, _salvage_item)
    return Page(items, unreadable, token)


def read_jobs(body: Body, job_type: str) -> Jobs:
    """A page of a listing of jobs. Raises :class:`Unreadable` if it is none."""
    rows, unreadable, token = _listing(body, _JOBS, _salvage_job)
    jobs = [Job(job_type, row.id, row.status, _short(row.error_message)) for row in rows]
    return Jobs(jobs, unreadable, token)


def read_files(body: Body) -> Files:
    """A page of a directory's files. Raises :class:`Unreadable` if it is none."""
    rows, unreadable, token = _listing(body, _FILES, _salvage_file)
    files = [NamedFile(row.id, row.display_name) for row in rows]
    return Files(files, unreadable, token)


def read_batch(body: Body) -> tuple[Item, tuple[FileOutcome, ...] | None]:
    """A single batch, and its results if they came. Raises :class:`Unreadable` if it is none."""
    body = _mended(body)
    item = _salvage_item(msgspec.Raw(body))
    if item is None:
        raise Unreadable('a JSON object with an "id" and a "status"')
    return item, _results(body)


def read_moment(stamp: Stamp) -> datetime | None:
    """A timestamp, aware and in UTC; None if it is absent or cannot be read.

    Without an offset it is UTC. Digits beyond microseconds are cut off. A
    number is Unix time in seconds, or in milliseconds when it is that large.
    """
    try:
        if isinstance(stamp, str):
            return _plausible(_aware(_from_text(stamp)))
        if stamp is None:
            return None
        seconds = stamp / 1000 if abs(stamp) >= _MILLISECONDS_FROM else stamp
        return _plausible(datetime.fromtimestamp(seconds, UTC))
    except (ValueError, OverflowError, OSError):
        return None


def _plausible(moment: datetime | None) -> datetime | None:
    """``moment``, unless it can be no time of a batch: 0001-01-01 is how Go writes null."""
    return moment if moment is not None and _EARLIEST <= moment <= _LATEST else None


def _from_text(stamp: str) -> datetime:
    try:
        return datetime.fromisoformat(stamp)
    except ValueError:
        return datetime.fromisoformat(stamp.strip().upper())  # RFC 3339 allows a small t and z


def _aware(moment: datetime | None) -> datetime | None:
    if moment is None or moment.tzinfo is UTC:
        return moment
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _listing(
    body: Body,
    decoder: msgspec.json.Decoder[_Listing[_T]],
    salvage: Callable[[msgspec.Raw], _T | None],
) -> tuple[list[_T], int, str | None]:
    """The entries of a listing, how many could not be read, and the next page's token."""
    body = _mended(body)
    unreadable = 0
    try:
        listing = decoder.decode(body)
        items = listing.items
        token = listing.next_page_token
    except _FAILS:
        raw = _raw_listing(body)
        token = raw.next_page_token
        salvaged = [salvage(entry) for entry in raw.items]
        items = [entry for entry in salvaged if entry is not None]
        unreadable = len(salvaged) - len(items)
    if len(items) > MOST_ENTRIES:
        raise Unreadable(_A_PAGE)
    return items, unreadable, None if token is None else str(token)


def _raw_listing(body: Body) -> _Listing[msgspec.Raw]:
    # Eight million noughts in a list would take a gigabyte, and one by one a quarter of a minute in
    # which the other watches get half of a processor.
    if body.count(b",") > _MOST_COMMAS:
        raise Unreadable(_A_PAGE)
    try:
        return _RAW.decode(body)
    except _FAILS:
        raise Unreadable('a JSON object with a list "items"') from None


def _salvage_item(entry: msgspec.Raw) -> Item | None:
    try:
        return _ITEM.decode(entry)
    except _FAILS:
        loose = _object(entry)
    id_, status = _id(loose), _word(loose, "status")
    if not (id_ and status):
        return None
    job = _child(_child(loose, "config"), "job")
    return Item(
        id_,
        status,
        created_at=_stamp(loose.get("created_at")),
        updated_at=_stamp(loose.get("updated_at")),
        project_id=_word(loose, "project_id"),
        source_directory_id=_word(loose, "source_directory_id"),
        config=_Config(_Job(_word(job, "type"), _word(job, "configuration_id"))),
    )


def _salvage_job(entry: msgspec.Raw) -> _JobRow | None:
    try:
        return _JOB.decode(entry)
    except _FAILS:
        loose = _object(entry)
    id_, status = _id(loose), _word(loose, "status")
    return _JobRow(id_, status, _text(loose, "error_message")) if id_ and status else None


def _salvage_file(entry: msgspec.Raw) -> _FileRow | None:
    loose = _object(entry)
    id_, name = _id(loose), _word(loose, "display_name")
    return _FileRow(id_, name) if id_ and name else None


def _results(body: Body) -> tuple[FileOutcome, ...] | None:
    """The outcome of each file; None if upstream has none yet, or sent something else."""
    try:
        results: Sequence[_Result] | None = _RESULTS.decode(body).results
    except _FAILS:
        if body.count(b",") > _MOST_COMMAS:
            return None  # as for a page; a batch has a thousand files
        try:
            entries = _LOOSE_RESULTS.decode(body).results or []
        except _FAILS:
            return None
        results = [_salvage_result(entry, place) for place, entry in enumerate(entries, start=1)]
    return None if results is None else tuple(result.outcome() for result in results)


def _salvage_result(entry: msgspec.Raw, place: int) -> _Result:
    """One file's result, whatever came: a file that nobody can name still has its row.

    It is called by its place in the list, and is a failure unless it has a
    job, so that somebody looks at it.
    """
    try:
        return _RESULT.decode(entry)
    except _FAILS:
        loose = _object(entry)
    reference = _child(loose, "job_reference")
    job = _Reference(_word(reference, "type"), _word(reference, "id"))
    file_id = _word(loose, "source_directory_file_id")
    message = _text(loose, "error_message")
    if not (file_id or job.id or message):
        message = "LlamaCloud sent a result that cannot be read"
    return _Result(file_id or f"unreadable-{place}", job if job.id else None, message)


def _object(entry: msgspec.Raw) -> dict[str, Any]:
    try:
        loose = _ANYTHING.decode(entry)
    except _FAILS:
        return {}
    return loose if isinstance(loose, dict) else {}


def _child(loose: dict[str, Any], key: str) -> dict[str, Any]:
    child = loose.get(key)
    return child if isinstance(child, dict) else {}


def _short(message: str | None) -> str | None:
    return message[:MESSAGE_LIMIT] if message else None


def _text(loose: dict[str, Any], key: str) -> str | None:
    text = loose.get(key)
    return text if isinstance(text, str) and text else None


def _word(loose: dict[str, Any], key: str) -> str | None:
    text = _text(loose, key)
    return text[:WORD_LIMIT] if text else None


def _id(loose: dict[str, Any]) -> str | None:
    """What names something: not cut, or two of them might become one."""
    text = _text(loose, "id")
    return text if text and len(text) <= WORD_LIMIT else None


def _stamp(value: object) -> Stamp:
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    # As text, so that it still tells one state from the next, and is read as no time at all.
    return str(value)[:WORD_LIMIT]


# Escapes, one by one: a pair of surrogates, what cannot be kept (the group), and any other.
# What cannot be kept is NUL, for PostgreSQL has no such text, and half a pair of surrogates,
# which Python writes for a file name that was not UTF-8.
_ESCAPE: Final = re.compile(
    rb"\\(?:ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}|(u0000|ud[89a-f][0-9a-f]{2})|[\s\S])",
    re.IGNORECASE,
)


_SUSPECT: Final = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")


def _mended(body: Body) -> Body:
    """``body`` with U+FFFD for characters that cannot be stored, or are none at all.

    One such character, in a file name in an error message, would otherwise
    make the whole page unreadable for as long as it is listed.
    """
    if b"\\" in body and _SUSPECT.search(body):  # most bodies have neither
        body = _ESCAPE.sub(lambda found: rb"\ufffd" if found[1] else found[0], body)
    if not body.isascii():
        body = body.decode(errors="replace").encode()
    return body
