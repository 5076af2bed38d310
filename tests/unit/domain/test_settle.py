"""What becomes of files, how failures are grouped, and what a receiver is told of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchwatch.domain.batch import COMPLETED, FileOutcome
from batchwatch.domain.settle import (
    EXAMPLES_LIMIT,
    FAILED_LIMIT,
    GROUPS_LIMIT,
    JOB_TYPES,
    RETRY_CHARACTERS,
    RETRY_LIMIT,
    TO_RETRY,
    Fate,
    fate_of,
    likeness,
    merged,
    settled_data,
    why_of,
)
from batchwatch.llamacloud.client import JOBS
from tests.support.builders import a_batch

BATCH = a_batch(COMPLETED, source_directory_id="dir-1")
A_FILE = FileOutcome("dfl-1", "parse_v2", "pjb-1")

texts = st.none() | st.sampled_from(["no pages", "no pages in 'a'", "page 3 of 12", ""])
outcomes = st.lists(
    st.builds(
        FileOutcome,
        st.sampled_from([f"dfl-{n}" for n in range(9)]),
        job_type=st.sampled_from(["parse_v2", "extract_v2", "classify_v2", None]),
        job_id=st.none() | st.sampled_from([f"pjb-{n}" for n in range(9)]),
        error_message=texts,
        job_status=st.sampled_from([None, "PENDING", "COMPLETED", "FAILED", "CANCELLED", "NEW"]),
        job_error=texts,
    ),
    max_size=80,
)


@pytest.mark.parametrize(
    ("file", "fate"),
    [
        (replace(A_FILE, job_status="COMPLETED"), Fate.SUCCEEDED),
        (replace(A_FILE, job_status="FAILED", job_error="no"), Fate.FAILED),
        (replace(A_FILE, job_status="CANCELLED"), Fate.CANCELLED),
        (replace(A_FILE, job_status="COMPLETED", error_message="half of it"), Fate.UNMAPPED),
        (FileOutcome("dfl-1", error_message="not a PDF"), Fate.UNMAPPED),
        (FileOutcome("dfl-1"), Fate.JOBLESS),
        (FileOutcome("dfl-1", "classify_v2", "cjb-1"), Fate.UNKNOWN),
        (FileOutcome("dfl-1", None, "job-1"), Fate.UNKNOWN),
        (replace(A_FILE, job_status="RUNNING"), None),
        (replace(A_FILE, job_status="VALIDATING"), None),
        (A_FILE, None),
    ],
)
def test_each_file_has_one_fate_or_is_still_open(file: FileOutcome, fate: Fate | None) -> None:
    """A mapping error wins; a status that nobody knows is no end."""
    assert fate == fate_of(file)


def test_every_type_of_job_that_is_followed_can_be_asked_for() -> None:
    """The domain and the client keep the same list."""
    assert set(JOB_TYPES) == set(JOBS)


@given(outcomes)
def test_counts_failures_groups_and_files_to_retry_agree(files: list[FileOutcome]) -> None:
    """Whatever upstream says, each file is counted once, and told within bounds."""
    data = settled_data(BATCH, files, {"dfl-1": "a.pdf"})

    counts = data["counts"]
    assert counts is not None
    fates = Counter(fate_of(one) or Fate.UNKNOWN for one in files)
    assert {fate.value: fates[fate] for fate in Fate} | {"files": len(files)} == counts
    assert ("given_up" if fates[Fate.UNKNOWN] else "complete") == data["state"]
    failed = [one for one in files if fate_of(one) in TO_RETRY]
    assert min(len(failed), FAILED_LIMIT) == len(data["failures"])
    assert (len(failed) > FAILED_LIMIT) == data["truncated"]
    sizes = [group["count"] for group in data["groups"]]
    assert sorted(sizes, reverse=True) == sizes
    assert len(sizes) <= GROUPS_LIMIT
    assert sum(sizes) == len(failed) or data["more_groups"] > 0
    for group in data["groups"]:
        assert min(group["count"], EXAMPLES_LIMIT) == len(group["examples"])
        assert group["examples"][0]["message"] == group["message"]
    retry = data["retry"]["source_directory_file_ids"]
    assert list(dict.fromkeys(one.source_directory_file_id for one in failed)) == retry


def test_like_failures_are_one_group_with_a_few_examples() -> None:
    """Hundreds of files fail for one reason; each says so with its own names and numbers."""
    files = [
        replace(A_FILE, source_directory_file_id=f"dfl-{n}", job_status="FAILED", job_error=error)
        for n, error in enumerate(
            [f"Page {n} of 'inv {n}.pdf' is encrypted" for n in range(7)] + ["Timeout"]
        )
    ]

    data = settled_data(BATCH, files, {"dfl-0": "inv 0.pdf"})

    assert [("failed", 7), ("failed", 1)] == [(g["fate"], g["count"]) for g in data["groups"]]
    first = data["groups"][0]
    assert "Page 0 of 'inv 0.pdf' is encrypted" == first["message"]
    assert ["inv 0.pdf", None, None] == [one["name"] for one in first["examples"]]
    assert 0 == data["more_groups"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Page 3 of 12 failed", "page 17 of 20  failed"),
        ("Job pjb-0edc0b73-9ad2-46c5-89f4-cc932a9726c7 died", "Job pjb-aa died"),
        ("0edc0b73-9ad2-46c5-89f4-cc932a9726c7 died", "1edc0b73-9ad2-46c5-89f4-cc932a9726c8 died"),
        ("GET https://a.example/x?y=1 timed out", "GET s3://bucket/key timed out"),
        ("cannot open 'a b.pdf'", 'cannot open "c.pdf"'),
        ("/srv/x/a.pdf: no such file", "/var/b: no such file"),
        ("C:\\in\\a.pdf is empty", "D:\\b.pdf is empty"),
        ("alpha.pdf is encrypted", "beta-2.docx is encrypted"),
        ("digest deadbeef01234567 differs", "digest 0011223344556677 differs"),
        ("took 3.5 s", "took 1,200 s"),
    ],
)
def test_messages_that_differ_in_names_and_numbers_are_alike(one: str, other: str) -> None:
    """Ids, names, paths, addresses and numbers are of the file, not of the cause."""
    assert likeness(one) == likeness(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The document is encrypted", "The document is empty"),
        ("", "Timeout"),
        ("can't be read; isn't a PDF", "can't be opened; isn't a PDF"),
    ],
)
def test_other_causes_are_not_alike(one: str, other: str) -> None:
    """A group is one thing to mend."""
    assert likeness(one) != likeness(other)


@given(st.text(max_size=300))
def test_any_message_has_a_likeness_of_its_own(message: str) -> None:
    """Nothing breaks it, and white space around it says nothing."""
    assert likeness(message) == likeness(f"  {message}\n")


def test_the_same_words_for_another_fate_are_another_group() -> None:
    """What could not be mapped is mended elsewhere than what failed."""
    files = [
        FileOutcome("dfl-1", error_message="no pages"),
        replace(A_FILE, job_status="FAILED", job_error="no pages"),
        replace(A_FILE, job_status="CANCELLED"),
        FileOutcome("dfl-2"),
    ]

    groups = settled_data(BATCH, files, {})["groups"]

    assert ["unmapped", "failed", "cancelled", "jobless"] == [group["fate"] for group in groups]
    assert ["no pages", "no pages", None, None] == [group["message"] for group in groups]


def test_what_is_told_stays_small_whatever_upstream_sends() -> None:
    """Relays refuse bodies that are too large; what is left out is said to be."""
    files = [
        FileOutcome(f"dfl-{n}-{'x' * 300}", error_message=f"{chr(97 + n % 26)} {'y' * 9_000}")
        for n in range(3_000)
    ]

    data = settled_data(BATCH, files, {one.source_directory_file_id: "z" * 300 for one in files})

    assert 300_000 > len(str(data))
    assert (True, True, 16) == (
        data["truncated"],
        data["retry"]["truncated"],
        data["more_groups"],
    )
    retry = data["retry"]["source_directory_file_ids"]
    assert len(retry) <= RETRY_LIMIT
    assert len("".join(retry)) <= RETRY_CHARACTERS


def test_what_is_unknown_is_not_run_again() -> None:
    """It may still be running, and would then be paid for twice."""
    data = settled_data(BATCH, [A_FILE, FileOutcome("dfl-2")], {})

    assert ["dfl-2"] == data["retry"]["source_directory_file_ids"]
    assert ["dfl-2"] == [one["source_directory_file_id"] for one in data["failures"]]


def test_without_results_nothing_is_counted() -> None:
    """Null is not nought: nobody knows which files there were."""
    data = settled_data(BATCH, None, {})

    assert ("no_results", None, []) == (data["state"], data["counts"], data["failures"])


# ------------------------------------------------------------------------ a second look


@given(outcomes, outcomes)
def test_a_second_look_forgets_nothing(stored: list[FileOutcome], fresh: list[FileOutcome]) -> None:
    """What became of a job stays; only a file without one may change, and into its own."""
    found = merged(stored, fresh)

    assert len(stored) <= len(found)
    for before, after in zip(stored, found, strict=False):
        assert before.source_directory_file_id == after.source_directory_file_id
        if fate_of(before) is not Fate.JOBLESS:
            assert before == after
    known = {one.source_directory_file_id for one in stored}
    assert [one for one in fresh if one.source_directory_file_id not in known] == list(
        found[len(stored) :]
    )


def test_a_file_that_has_a_job_by_now_gets_it() -> None:
    """Wherever in the list it stands; and one that is there twice gets each of its own."""
    stored = [A_FILE, FileOutcome("dfl-2"), FileOutcome("dfl-3"), FileOutcome("dfl-3")]
    fresh = [
        FileOutcome("dfl-2", error_message="not a PDF"),
        FileOutcome("dfl-1"),
        FileOutcome("dfl-3", "parse_v2", "pjb-3"),
        FileOutcome("dfl-3", "parse_v2", "pjb-4"),
    ]

    assert (A_FILE, fresh[0], fresh[2], fresh[3]) == merged(stored, fresh)
    assert "not a PDF" == why_of(fresh[0])
