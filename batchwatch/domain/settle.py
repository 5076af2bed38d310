"""What became of each file of a batch, counted, and its failures grouped by like messages."""

from __future__ import annotations

import re
from collections import Counter
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from batchwatch.domain.batch import Batch, FileOutcome
    from batchwatch.domain.payload import (
        FailedFile,
        FailedGroup,
        FateCounts,
        RetryManifest,
        SettledData,
    )


class Fate(StrEnum):
    """What became of one file in the end."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"  # its job did
    CANCELLED = "cancelled"  # its job was
    UNMAPPED = "unmapped"  # upstream could not map it to a job
    JOBLESS = "jobless"  # neither job nor error, which upstream shows now and then
    UNKNOWN = "unknown"  # its job may still run, or cannot be asked for


# The types of jobs that upstream can be asked for; an outcome may name others.
JOB_TYPES: Final = ("parse_v2", "extract_v2")
_ENDS: Final[Mapping[str, Fate]] = {
    "COMPLETED": Fate.SUCCEEDED,
    "FAILED": Fate.FAILED,
    "CANCELLED": Fate.CANCELLED,
}
# To be run again. What is unknown is not: it may still be running.
TO_RETRY: Final = frozenset({Fate.FAILED, Fate.CANCELLED, Fate.UNMAPPED, Fate.JOBLESS})

COMPLETE: Final = "complete"  # each file's fate is known
GIVEN_UP: Final = "given_up"  # of some it is not
NO_RESULTS: Final = "no_results"  # upstream never said which files there are

GROUPS_LIMIT: Final = 10
EXAMPLES_LIMIT: Final = 3
FAILED_LIMIT: Final = 50
RETRY_LIMIT: Final = 1_000  # upstream's limit for the files of a batch
RETRY_CHARACTERS: Final = 100_000  # and of their ids together, whatever upstream calls its files
MESSAGE_LIMIT: Final = 500  # characters of one message


def fate_of(file: FileOutcome) -> Fate | None:
    """What became of ``file``; None while that is open, and its job is to be asked for.

    A mapping error wins: whatever job there is beside it does not have the
    whole file. A status that nobody knows yet is not an end.
    """
    if file.error_message is not None:
        return Fate.UNMAPPED
    if file.job_id is None:
        return Fate.JOBLESS
    if ended := _ENDS.get(file.job_status or ""):
        return ended
    return None if file.job_type in JOB_TYPES else Fate.UNKNOWN


def why_of(file: FileOutcome) -> str | None:
    """Upstream's words for its failure, if it gave any."""
    return file.error_message if file.error_message is not None else file.job_error


def merged(stored: Sequence[FileOutcome], fresh: Sequence[FileOutcome]) -> tuple[FileOutcome, ...]:
    """``stored``, with what ``fresh`` results say of those files that had no job.

    Nothing is forgotten: what became of a job stays, and so does a file that
    the fresh ones do not show.
    """
    said: dict[str, FileOutcome] = {}
    for one in fresh:
        if fate_of(one) is not Fate.JOBLESS:
            said.setdefault(one.source_directory_file_id, one)
    known = {one.source_directory_file_id for one in stored}
    found = []
    for place, one in enumerate(stored):
        if fate_of(one) is Fate.JOBLESS:
            name = one.source_directory_file_id
            beside = next(islice(fresh, place, place + 1), one)  # a file may be there twice
            found.append(beside if beside.source_directory_file_id == name else said.get(name, one))
        else:
            found.append(one)
    found += [one for one in fresh if one.source_directory_file_id not in known]
    return tuple(found)


# ------------------------------------------------------------------------------- likeness

# What differs between two messages that mean the same, the longest kinds first.
_VARIABLE: Final = (
    (re.compile(r"\b[a-z][a-z0-9+.-]{1,20}://[^\s\"'<>]+", re.IGNORECASE), "<url>"),
    (re.compile(r"\"[^\"\n]{1,300}\"|`[^`\n]{1,300}`|“[^”\n]{1,300}”|«[^»\n]{1,300}»"), "<name>"),
    (re.compile(r"(?<!\w)'[^'\n]{1,300}'(?!\w)"), "<name>"),
    (
        re.compile(
            r"(?:\b[a-z]{2,5}-)?\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.IGNORECASE
        ),
        "<id>",
    ),
    (re.compile(r"(?<![\w.])(?:[a-z]:\\|~?/)[^\s\"'<>:]+", re.IGNORECASE), "<path>"),
    (re.compile(r"\b(?:pjb|exj|dfl|fil|dir|bat|cfg|prj|org)-[\w-]+", re.IGNORECASE), "<id>"),
    (re.compile(r"(?<![\w.])[\w()+-]{1,200}\.[a-z][a-z0-9]{1,4}\b", re.IGNORECASE), "<name>"),
    (re.compile(r"\b(?:0x)?(?=[a-f]*[0-9])[0-9a-f]{8,}\b", re.IGNORECASE), "<id>"),
    (re.compile(r"\d+(?:[.,]\d+)*"), "<n>"),
)


def likeness(message: str) -> str:
    """``message`` without what differs from file to file: ids, names, paths, URLs, numbers.

    Two messages with the same likeness have the same cause, as far as words tell.
    """
    text = message
    for pattern, stand_in in _VARIABLE:
        text = pattern.sub(stand_in, text)
    return " ".join(text.split()).casefold()


# -------------------------------------------------------------------------------- the event


def settled_data(
    batch: Batch, files: Sequence[FileOutcome] | None, names: Mapping[str, str]
) -> SettledData:
    """What ``batch.settled`` says; bounded, whatever upstream sends.

    ``files`` is None where upstream never gave the results. What is still
    open is unknown, for nobody asks any more. ``names`` are files' names by
    their ids, as far as they are known.
    """
    if files is None:
        return {
            "state": NO_RESULTS,
            "counts": None,
            "failures": [],
            "truncated": False,
            "groups": [],
            "more_groups": 0,
            "retry": _manifest(batch, ()),
        }
    fates = [fate_of(one) or Fate.UNKNOWN for one in files]
    counts = Counter(fates)
    failed = [(fate, one) for fate, one in zip(fates, files, strict=True) if fate in TO_RETRY]
    groups = _groups(failed, names)
    return {
        "state": GIVEN_UP if counts[Fate.UNKNOWN] else COMPLETE,
        "counts": _counts(counts),
        "failures": [_failed(fate, one, names) for fate, one in failed[:FAILED_LIMIT]],
        "truncated": len(failed) > FAILED_LIMIT,
        "groups": groups[:GROUPS_LIMIT],
        "more_groups": max(0, len(groups) - GROUPS_LIMIT),
        "retry": _manifest(batch, [one.source_directory_file_id for _, one in failed]),
    }


def _counts(counts: Mapping[Fate, int]) -> FateCounts:
    return {
        "files": sum(counts.values()),
        "succeeded": counts[Fate.SUCCEEDED],
        "failed": counts[Fate.FAILED],
        "cancelled": counts[Fate.CANCELLED],
        "unmapped": counts[Fate.UNMAPPED],
        "jobless": counts[Fate.JOBLESS],
        "unknown": counts[Fate.UNKNOWN],
    }


def _failed(fate: Fate, file: FileOutcome, names: Mapping[str, str]) -> FailedFile:
    job_id = file.job_id
    return {
        "source_directory_file_id": file.source_directory_file_id,
        "name": names.get(file.source_directory_file_id),
        "fate": fate.value,
        "job_reference": None if job_id is None else {"type": file.job_type, "id": job_id},
        "message": _short(why_of(file)),
    }


def _groups(
    failed: Iterable[tuple[Fate, FileOutcome]], names: Mapping[str, str]
) -> list[FailedGroup]:
    """Like failures together, the largest group first, then the one that came first."""
    alike: dict[tuple[Fate, str], list[FileOutcome]] = {}
    known: dict[str, str] = {}  # most say the same to the letter
    for fate, one in failed:
        message = why_of(one) or ""
        like = known[message] if message in known else known.setdefault(message, likeness(message))
        alike.setdefault((fate, like), []).append(one)
    return [
        {
            "fate": fate.value,
            "count": len(those),
            "message": _short(why_of(those[0])),
            "examples": [
                {
                    "source_directory_file_id": one.source_directory_file_id,
                    "name": names.get(one.source_directory_file_id),
                    "message": _short(why_of(one)),
                }
                for one in those[:EXAMPLES_LIMIT]
            ],
        }
        for (fate, _), those in sorted(alike.items(), key=lambda item: -len(item[1]))
    ]


def _manifest(batch: Batch, ids: Iterable[str]) -> RetryManifest:
    files = list(dict.fromkeys(ids))
    kept: list[str] = []
    room = RETRY_CHARACTERS
    for one in files[:RETRY_LIMIT]:
        room -= len(one)
        if room < 0:
            break
        kept.append(one)
    return {
        "source_directory_id": batch.source_directory_id,
        "source_directory_file_ids": kept,
        "truncated": len(kept) < len(files),
    }


def _short(message: str | None) -> str | None:
    return None if message is None else message[:MESSAGE_LIMIT]
