"""Read upstream's JSON: whatever comes, what can be read is read."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchwatch.llamacloud.wire import (
    WORD_LIMIT,
    Page,
    Unreadable,
    read_batch,
    read_jobs,
    read_moment,
    read_page,
)
from tests.support.clock import EPOCH
from tests.unit.llamacloud.upstream import a_batch

AT = datetime(2026, 11, 24, 7, 59, 56, tzinfo=UTC)


def page_of(*items: Any, token: Any = None) -> Page:
    """A page with these items."""
    return read_page(json.dumps({"items": items, "next_page_token": token}).encode())


# ---------------------------------------------------------------------------------- moments


@pytest.mark.parametrize(
    ("stamp", "expected"),
    [
        ("2026-11-24T07:59:56Z", AT),
        ("2026-11-24T07:59:56", AT),
        ("2026-11-24 07:59:56+00:00", AT),
        ("2026-11-24t07:59:56z", AT),
        (" 2026-11-24T07:59:56Z\n", AT),
        ("2026-11-24T09:59:56+02:00", AT),
        ("2026-11-24T02:29:56-05:30", AT),
        ("2026-11-24T09:59:56+0200", AT),
        ("2026-11-24T07:59:56.1Z", AT.replace(microsecond=100_000)),
        ("2026-11-24T07:59:56.117Z", AT.replace(microsecond=117_000)),
        ("2026-11-24T07:59:56.461830+00:00", AT.replace(microsecond=461_830)),
        ("2026-11-24T07:59:56.123456789Z", AT.replace(microsecond=123_456)),
        (1_795_507_196, AT),
        (1_795_507_196.5, AT.replace(microsecond=500_000)),
        (1_795_507_196_500, AT.replace(microsecond=500_000)),
        (None, None),
        ("", None),
        ("yesterday", None),
        ("2026-13-24T07:59:56Z", None),
        ("0001-01-01T00:00:00+14:00", None),
        ("9999-12-31T23:59:59-14:00", None),
        ("\x00", None),
        (10**400, None),
        (-(10**30), None),
        (float("inf"), None),
        (float("nan"), None),
    ],
)
def test_a_time_is_read_in_any_shape_and_is_utc(
    stamp: str | float | None, expected: datetime | None
) -> None:
    """Any number of digits, Z or an offset or neither, or Unix time; what is no time is None."""
    moment = read_moment(stamp)
    assert expected == moment
    assert moment is None or moment.tzinfo is UTC


@pytest.mark.parametrize("stamp", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
def test_a_time_that_no_batch_can_have_is_none(stamp: str) -> None:
    """Go writes null as the year 1; arithmetic with either would break a whole watch."""
    page = read_page(
        b'{"items": [{"id": "a", "status": "RUNNING", "created_at": "%b"},'
        b' {"id": "b", "status": "RUNNING", "created_at": "2026-11-24T08:00:00Z"}]}'
        % stamp.encode()
    )

    assert read_moment(stamp) is None
    assert datetime(2026, 11, 24, 8, tzinfo=UTC) == page.newest()


@given(
    st.datetimes(
        min_value=datetime(1970, 1, 2),  # noqa: DTZ001  # the zone comes from the strategy
        max_value=datetime(2199, 12, 30),  # noqa: DTZ001  # likewise
        timezones=st.sampled_from([UTC, timezone(timedelta(hours=-7))]),
    )
)
def test_a_time_as_python_or_pydantic_writes_it_comes_back(moment: datetime) -> None:
    """Within the years that a batch can be from."""
    try:
        expected = moment.astimezone(UTC)
    except OverflowError:
        assert read_moment(moment.isoformat()) is None
    else:
        assert expected == read_moment(moment.isoformat())
        assert expected == read_moment(expected.isoformat().replace("+00:00", "Z"))


# ------------------------------------------------------------------------------------ pages


def test_a_page_has_its_items_and_the_way_to_the_next() -> None:
    """Unknown fields are not looked at."""
    page = page_of(a_batch("bat-1", new_field={"deep": [1]}), a_batch("bat-2"), token="t1")
    assert (["bat-1", "bat-2"], 0, "t1") == (
        [item.id for item in page.items],
        page.unreadable,
        page.next_page_token,
    )


@pytest.mark.parametrize(("token", "expected"), [(None, None), ("", ""), (7, "7"), ("a b", "a b")])
def test_a_token_is_text_whatever_its_type(token: Any, expected: str | None) -> None:
    """It is sent back as it came, and looked into by nobody."""
    assert expected == page_of(token=token).next_page_token


@pytest.mark.parametrize("token", [{}, [], True, 1.5])
def test_a_token_that_can_be_none_makes_the_page_unreadable(token: Any) -> None:
    """To ignore it would be to end the listing early."""
    with pytest.raises(Unreadable):
        page_of(token=token)


def test_a_fingerprint_is_status_and_updated_at_as_they_came() -> None:
    """The same in a listing and in a GET, or each GET would be news."""
    batch = a_batch("bat-1", "RUNNING", updated_at="2026-11-24T07:30:00.250Z")
    item, _ = read_batch(json.dumps(batch).encode())
    expected = "RUNNING 2026-11-24T07:30:00.250Z"
    assert {"bat-1": expected} == page_of(batch).fingerprints()
    assert expected == item.fingerprint == item.observation(EPOCH).fingerprint


def test_a_null_updated_at_has_a_fingerprint_too() -> None:
    """Then the status alone tells what is news."""
    page = page_of(a_batch(updated_at=None, created_at=None))
    assert {"bat-1": "RUNNING None"} == page.fingerprints()
    assert None is page.newest()


def test_a_batch_that_is_twice_on_a_page_is_overlooked_in_neither_face() -> None:
    """Its fingerprint is then one that no store knows."""
    page = page_of(
        a_batch("bat-1", "COMPLETED", updated_at="2"),
        a_batch("bat-2"),
        a_batch("bat-2"),
        a_batch("bat-1", "RUNNING", updated_at="1"),
    )
    expected = {
        "bat-1": "RUNNING 1 | COMPLETED 2",
        "bat-2": "RUNNING 2026-11-24T07:30:00.25Z",
    }
    assert expected == page.fingerprints()


@pytest.mark.parametrize(
    ("stamps", "expected"),
    [
        ([], None),
        ([None], None),
        (["2026-11-24T07:59:55Z", "2026-11-24T07:59:56Z", "2026-11-24T07:59:54Z"], AT),
        (["2026-11-24T07:59:56", "2026-11-24T07:59:55"], AT),
        (["2026-11-24T07:59:56", "2026-11-24T07:59:55Z", None], AT),
        (["2026-11-24T09:59:56+02:00", "2026-11-24T09:59:55Z"[:11] + "07:59:55Z"], AT),
        (["yesterday", "2026-11-24T07:59:56Z", 0, True, {}], AT),
        (["9999-12-31T23:59:59-14:00", "2026-11-24T07:59:56Z"], AT),
    ],
)
def test_the_newest_is_found_among_stamps_of_any_shape(
    stamps: list[Any], expected: datetime | None
) -> None:
    """One unreadable stamp must not hold the cursor back."""
    page = page_of(*(a_batch(f"bat-{n}", created_at=one) for n, one in enumerate(stamps)))
    assert expected == page.newest()


@pytest.mark.parametrize("field", ["created_at", "updated_at", "project_id", "config"])
@pytest.mark.parametrize("value", [True, {}, [], 1.5, {"job": 5}, {"job": {"type": 5}}, None])
def test_a_field_of_the_wrong_type_does_not_cost_the_batch(field: str, value: Any) -> None:
    """Only the id and the status are needed to follow it."""
    page = page_of(a_batch("bat-1"), a_batch("bat-2", **{field: value}), a_batch("bat-3"))
    assert (["bat-1", "bat-2", "bat-3"], 0) == ([item.id for item in page.items], page.unreadable)

    observation = page.items[1].observation(EPOCH)
    assert "RUNNING" == observation.status
    if field == "project_id":
        assert observation.project_id is None


def test_a_number_beyond_all_bounds_does_not_cost_the_batch() -> None:
    """JSON allows it, no float holds it."""
    said = b'{"items":[{"id":"bat-1","status":"RUNNING","created_at":1e999,"updated_at":-1e999}]}'
    (item,) = read_page(said).items
    assert (None, "RUNNING -inf") == (item.created, item.fingerprint)


@pytest.mark.parametrize(
    "where", ["status", "updated_at", "project_id", "source_directory_id", "type"]
)
def test_a_text_that_no_index_takes_is_cut_and_does_not_cost_the_batch(where: str) -> None:
    """One that is so long is no word of upstream's; its batch is followed all the same."""
    long = {where: "x" * (WORD_LIMIT + 1)}
    more = {"config": {"job": long}} if where == "type" else long
    page = page_of(a_batch("bat-1", **more), a_batch("bat-2"))
    seen = page.items[0].observation(EPOCH)

    cut = "x" * WORD_LIMIT
    assert (["bat-1", "bat-2"], 0) == ([item.id for item in page.items], page.unreadable)
    assert cut == {
        "status": seen.status,
        "updated_at": seen.fingerprint.removeprefix("RUNNING "),
        "project_id": seen.project_id,
        "source_directory_id": seen.source_directory_id,
        "type": seen.job_type,
    }[where]  # fmt: skip


def test_an_id_that_no_index_takes_is_counted_and_does_not_cost_the_others() -> None:
    """Cut, two of them might become one."""
    longest = "x" * WORD_LIMIT
    page = page_of(a_batch(f"{longest}y"), a_batch(longest), a_batch("bat-2"))

    assert ([longest, "bat-2"], 1) == ([item.id for item in page.items], page.unreadable)


def test_bytes_that_are_no_utf_8_do_not_cost_the_page() -> None:
    """They become U+FFFD, as a terminal would show them."""
    said = b'{"items":[{"id":"bat-\xff","status":"RUNNING"},{"id":"bat-2","status":"RUNNING"}]}'
    assert ["bat-\ufffd", "bat-2"] == [item.id for item in read_page(said).items]


@pytest.mark.parametrize("entry", [b"0", b"{}", b'{"id":"a","status":"b"}'])
def test_a_page_of_millions_of_entries_is_refused_as_a_whole(entry: bytes) -> None:
    """One by one they would take a processor and a gigabyte, which the other watches need."""
    body = b'{"items":[' + b",".join([entry] * 2_100_000) + b"]}"

    with pytest.raises(Unreadable, match="at most 100,000 entries"):
        read_page(body)


def test_a_batch_with_millions_of_results_has_none() -> None:
    """They are asked for again, as any that are missing; the batch itself is read."""
    results = b",".join([b"0"] * 2_100_000)
    item, outcomes = read_batch(b'{"id":"bat-1","status":"COMPLETED","results":[' + results + b"]}")

    assert ("bat-1", None) == (item.id, outcomes)


def test_jobs_are_read_as_tolerantly() -> None:
    """A failed job without a readable reason is still a failed job."""
    rows = [
        {"id": "job-1", "status": "FAILED", "error_message": ["no"]},
        {"id": "job-2", "status": "FAILED", "error_message": ""},
        {"id": "job-3"},
    ]
    page = read_jobs(json.dumps({"items": rows}).encode(), "parse_v2")
    assert [("job-1", None), ("job-2", None)] == [(job.id, job.error_message) for job in page.items]
    assert 1 == page.unreadable


# ------------------------------------------------------------------------------- properties

NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)  # all that JSON has
SCALARS = st.none() | st.booleans() | NUMBERS | st.text()
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
FIELDS = ["id", "status", "created_at", "updated_at", "project_id", "config", "results", "job"]
OBJECTS = st.dictionaries(st.sampled_from(FIELDS), ANYTHING, max_size=6)
IDS = st.text(min_size=1)
GOOD = st.builds(lambda id_, status, more: {**more, "id": id_, "status": status}, IDS, IDS, OBJECTS)


def dumped(value: object) -> bytes:
    """JSON, with half surrogate pairs as Python writes them."""
    return json.dumps(value).encode()


@given(st.lists(GOOD | OBJECTS | ANYTHING, max_size=8), st.none() | st.text() | st.integers())
@settings(deadline=None)
def test_every_item_is_read_or_counted(items: list[Any], token: str | int | None) -> None:
    """Of any mixture, those with an id and a status come, in order; the rest is counted."""
    page = read_page(dumped({"items": items, "next_page_token": token}))

    def text(value: object) -> bool:
        return isinstance(value, str) and bool(value)

    readable = [
        one
        for one in items
        if isinstance(one, dict)
        and text(one.get("id"))
        and len(one["id"]) <= WORD_LIMIT
        and text(one.get("status"))
    ]
    assert (len(readable), len(items) - len(readable)) == (len(page.items), page.unreadable)
    for one, item in zip(readable, page.items, strict=True):
        assert one["id"].replace("\x00", "\ufffd") == item.id
        item.observation(EPOCH)
    assert {item.id for item in page.items} == set(page.fingerprints())
    page.newest()


@given(st.binary(max_size=80) | ANYTHING.map(dumped))
@settings(deadline=None)
def test_no_body_raises_anything_but_unreadable(body: bytes) -> None:
    """Or one odd answer would end a watch."""
    for read in (read_page, read_batch, lambda said: read_jobs(said, "parse_v2")):
        with suppress(Unreadable):
            read(body)


@given(st.lists(ANYTHING, max_size=8))
@settings(deadline=None)
def test_every_file_of_the_results_has_its_outcome(results: list[Any]) -> None:
    """As many as came, whatever they are."""
    _, outcomes = read_batch(dumped(a_batch(results=results)))
    assert outcomes is not None
    assert len(results) == len(outcomes)
    assert all(one.source_directory_file_id for one in outcomes)
    assert not [text for one in outcomes for text in (one.error_message, one.job_id) if text == ""]
