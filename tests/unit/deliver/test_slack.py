"""A message that Slack takes whatever happened, and that a person likes to read."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from slack_sdk.models.blocks import Block
from yarl import URL

from batchwatch.deliver.slack import FAILURES_SHOWN, STUCK_SHOWN, duration, message
from batchwatch.domain.batch import (
    CANCELLED,
    COMPLETED,
    FAILED,
    NON_TERMINAL,
    PENDING,
    RUNNING,
    TERMINAL,
    THROTTLED,
    BatchId,
    FileOutcome,
    Results,
    Status,
    Stuck,
    WatchName,
)
from batchwatch.domain.coverage import Gap, Kind
from batchwatch.domain.event import (
    BATCH_DISCOVERED,
    BATCH_SETTLED,
    BATCH_STUCK,
    BATCH_UNSTUCK,
    BATCH_VANISHED,
    EVENT_TYPES,
    WATCH_FAILING,
    WATCH_RECOVERED,
    Details,
    Event,
    batch_event,
    gap_event,
    heartbeat_event,
    type_of,
    watch_event,
)
from batchwatch.domain.expect import Past, expect, expected_data
from batchwatch.domain.judging import Slow, slow_event
from batchwatch.domain.settle import settled_data
from batchwatch.domain.stuck import stuck_data
from batchwatch.llamacloud.diagnosis import Asked, refused
from batchwatch.llamacloud.key import ApiKey
from tests.support.builders import BASE_URL, WATCH, a_batch, a_pulse, at

LINK = f"{BASE_URL}/api/v2/batches/bat-1?expand=results"
ENTITY = re.compile(r"&(?:amp|lt|gt);")


def said_of(event: Event) -> dict[str, Any]:
    """The message for an event as it comes out of the store: through JSON."""
    return message(msgspec.json.decode(msgspec.json.encode(event.payload)))


def completed(*outcomes: FileOutcome, **more: Any) -> Event:
    batch = a_batch(
        COMPLETED,
        previous_status=RUNNING,
        results=Results.COMPLETE,
        lasted={"PENDING": 4.5, "RUNNING": 296.0},
        revision=3,
        **{"job_type": "parse_v2", "configuration_id": "cfg-PARSE_AGENTIC"} | more,
    )
    return batch_event(batch, "batch.completed", occurred_at=at(300), link=LINK, outcomes=outcomes)


def failures(count: int, message_: str = "no pages", *, prefix: str = "dfl-") -> list[FileOutcome]:
    return [FileOutcome(f"{prefix}{nth}", error_message=message_) for nth in range(count)]


def texts(said: dict[str, Any], kind: str = "mrkdwn") -> list[str]:
    """Every text of this kind in the blocks, in order."""
    return [one["text"] for one in text_objects(said) if one["type"] == kind]


def text_objects(said: dict[str, Any]) -> list[dict[str, Any]]:
    found = [
        one for block in said["blocks"] for one in (block.get("text"), *block.get("elements", ()))
    ]
    return [one for one in found if one]


def assert_slack_takes(said: dict[str, Any]) -> None:
    """Slack's limits: https://docs.slack.dev/reference/block-kit/blocks."""
    blocks = said["blocks"]
    parsed = Block.parse_all(blocks)
    for block in parsed:
        block.validate_json()
    assert blocks == [block.to_dict() for block in parsed]
    assert 1 <= len(blocks) <= 50
    assert ["header", "context"] == [blocks[0]["type"], blocks[-1]["type"]]
    assert all(1 <= len(one) <= 150 for one in texts(said, "plain_text"))
    assert all(1 <= len(one) <= 3000 for one in texts(said))
    assert 1 <= len(said["text"]) <= 4000
    # Outside of the three entities, these would begin a link, a mention or an entity.
    for text in (*texts(said), said["text"]):
        assert not set("<>") & set(text)
    msgspec.json.encode(said).decode()


def test_a_batch_that_went_well_is_told_in_four_lines() -> None:
    """What, which, how long and how many; the rest is small print."""
    outcomes = [FileOutcome(f"dfl-{nth}", "parse_v2", f"pjb-{nth}") for nth in range(12)]

    said = said_of(completed(*outcomes))

    assert_slack_takes(said)
    assert ["✅ Batch completed"] == texts(said, "plain_text")
    assert texts(said) == [
        "*bat-1*\nRUNNING → *COMPLETED*, 5 min after it was first seen\n12 files, each has its job",
        "watch *default* · parse_v2 cfg-PARSE_AGENTIC · 2026-11-24 08:05:00 UTC",
    ]
    assert "✅ Batch completed: bat-1 (12 files, each has its job)" == said["text"]


def test_files_that_failed_are_told_with_their_reasons() -> None:
    """The first few of them, each on a line, and another sign on the message."""
    outcomes = [FileOutcome("dfl-0", "parse_v2", "pjb-0"), FileOutcome("dfl-1")]
    outcomes += failures(2, "the file is\n  not a PDF", prefix="dfl-bad")

    said = said_of(completed(*outcomes))

    assert_slack_takes(said)
    assert ["⚠️ Batch completed"] == texts(said, "plain_text")
    assert "4 files, 2 failed, 1 without a job" == texts(said)[0].splitlines()[-1]
    assert texts(said)[1].splitlines() == [
        "• `dfl-bad0` the file is not a PDF",
        "• `dfl-bad1` the file is not a PDF",
    ]


def settled(*files: FileOutcome, names: dict[str, str] | None = None) -> Event:
    batch = a_batch(COMPLETED, results=Results.COMPLETE, revision=3, source_directory_id="dir-1")
    return batch_event(
        batch,
        BATCH_SETTLED,
        occurred_at=at(300),
        link=LINK,
        outcomes=files,
        details=Details(settled=settled_data(batch, files or None, names or {})),
    )


def test_what_became_of_a_batch_is_told_with_its_reasons() -> None:
    """How many of each, the like failures together, by name, and how many to run again."""
    good = [FileOutcome(f"dfl-{n}", "parse_v2", f"pjb-{n}", None, "COMPLETED") for n in range(90)]
    bad = [
        FileOutcome(
            f"dfl-bad{n}", "parse_v2", f"pjb-bad{n}", None, "FAILED", f"page {n} is <empty>"
        )
        for n in range(4)
    ]

    said = said_of(settled(*good, *bad, FileOutcome("dfl-x"), names={"dfl-bad1": "a & b.pdf"}))

    assert_slack_takes(said)
    assert ["⚠️ Batch settled"] == texts(said, "plain_text")
    assert [
        (
            "*bat-1*\n95 files: 90 succeeded, 4 failed, 1 jobless\n"
            "5 to run again; their ids are in the webhook."
        ),
        (
            "• *4* page 0 is &lt;empty&gt; (`dfl-bad0`, `a &amp; b.pdf`, `dfl-bad2`, …)\n"
            "• *1* jobless (`dfl-x`)"
        ),
    ] == texts(said)[:2]
    assert "Batch settled: bat-1 (95 files: 90 succeeded, 4 failed, 1 jobless)" in said["text"]


def test_a_batch_that_went_well_to_the_end_is_told_shortly() -> None:
    """And one whose results never came is not said to have gone well."""
    well = said_of(settled(FileOutcome("dfl-1", "parse_v2", "pjb-1", None, "COMPLETED")))
    never = said_of(settled())
    unknown = said_of(settled(FileOutcome("dfl-1", "classify_v2", "cjb-1")))

    for said in (well, never, unknown):
        assert_slack_takes(said)
    assert (["🏁 Batch settled"], "*bat-1*\n1 file: 1 succeeded") == (
        texts(well, "plain_text"),
        texts(well)[0],
    )
    assert "never gave its results" in texts(never)[0]
    assert texts(unknown)[0].endswith("1 unknown\nWhat is unknown is no longer asked for.")
    assert ["⚠️ Batch settled"] == texts(never, "plain_text") == texts(unknown, "plain_text")


def test_many_reasons_for_failures_fit_into_a_message() -> None:
    """Slack refuses a whole message for one text that is too long."""
    files = [
        FileOutcome(f"dfl-{n}" * 60, error_message=f"{chr(97 + n)} " + "<&>" * 900)
        for n in range(26)
    ]

    said = said_of(settled(*files))

    assert_slack_takes(said)
    assert texts(said)[1].endswith("… and 21 more reasons")


def test_a_thousand_failures_are_five_lines_and_a_number() -> None:
    """A message is not a report."""
    said = said_of(completed(*failures(1000)))

    assert_slack_takes(said)
    lines = texts(said)[1].splitlines()
    assert (FAILURES_SHOWN + 1, "… and 995 more") == (len(lines), lines[-1])


@pytest.mark.parametrize("sign", ["&", "<"])
@pytest.mark.parametrize("size", range(3))
def test_long_reasons_full_of_signs_are_not_torn(sign: str, size: int) -> None:
    """What is cut is cut between signs, and the number of the others stays."""
    reason = "x" * size + sign * 400

    said = said_of(completed(*failures(1000, reason)))

    assert_slack_takes(said)
    told = texts(said)[1]
    assert "… and 995 more" == told.splitlines()[-1]
    assert "&" not in ENTITY.sub("", told)


def test_long_names_beside_long_reasons_are_no_trouble() -> None:
    """Ids are short today; whoever relies on that loses a message on the day they are not."""
    said = said_of(completed(*failures(1000, "&" * 400, prefix="d" * 300)))

    assert_slack_takes(said)
    assert "… and 995 more" == texts(said)[1].splitlines()[-1]


def test_what_upstream_says_is_no_markup() -> None:
    """No link, no mention and no channel can be made of a file's error."""
    outcomes = failures(1, "<!channel> <https://evil.test|click> R&D &lt;")

    said = said_of(completed(*outcomes, configuration_id="<@U1>&"))

    assert_slack_takes(said)
    assert texts(said)[1:] == [
        "• `dfl-0` &lt;!channel&gt; &lt;https://evil.test|click&gt; R&amp;D &amp;lt;",
        "watch *default* · parse_v2 &lt;@U1&gt;&amp; · 2026-11-24 08:05:00 UTC",
    ]


def test_what_upstream_says_is_shown_as_it_is() -> None:
    """An error that speaks of @here must not wake a channel, nor one of a.py become a link."""
    said = said_of(completed(*failures(1, "ask @here, or see evil.test/a.py")))

    assert {True} == {one.get("verbatim") for one in text_objects(said) if one["type"] == "mrkdwn"}


@pytest.mark.parametrize(
    ("status", "headline"), [(FAILED, "❌ Batch failed"), (CANCELLED, "🚫 Batch cancelled")]
)
def test_a_batch_that_ended_badly_has_no_files_to_tell_of(status: Status, headline: str) -> None:
    """Upstream has none, and says no reason."""
    batch = a_batch(status, previous_status=RUNNING, results=Results.NONE)

    said = said_of(batch_event(batch, type_of(status), occurred_at=at(0), link=LINK))

    assert_slack_takes(said)
    assert ([headline], f"*bat-1*\nRUNNING → *{status}*") == (
        texts(said, "plain_text"),
        texts(said)[0],
    )


def test_results_that_are_not_there_yet_are_said_to_be_missing() -> None:
    """They follow, and nobody should think that there were no files."""
    batch = a_batch(COMPLETED, previous_status=RUNNING, results=Results.PENDING)

    said = said_of(batch_event(batch, "batch.completed", occurred_at=at(0), link=LINK))

    assert "LlamaCloud has not given the results yet." == texts(said)[0].splitlines()[-1]


def test_the_first_sighting_of_a_batch_comes_from_nowhere() -> None:
    """No arrow without a status before it."""
    said = said_of(batch_event(a_batch(PENDING), "batch.pending", occurred_at=at(0), link=LINK))

    assert "*bat-1*\n*PENDING*" == texts(said)[0]


def test_a_watch_that_fails_says_why_and_what_to_do() -> None:
    """The error's own words, for they name the variable to mend."""
    reason = "GET https://api.test: answered 401: it does not accept the API key. Check <KEY> & co."

    said = said_of(
        watch_event(WATCH, WATCH_FAILING, occurred_at=at(60), since=at(0), reason=reason)
    )

    assert_slack_takes(said)
    assert ["🔥 LlamaCloud cannot be watched"] == texts(said, "plain_text")
    assert texts(said)[0] == reason.replace("& co", "&amp; co").replace("<KEY>", "&lt;KEY&gt;")


@pytest.mark.parametrize("status", [401, 402, 403, 404, 429])
def test_what_to_do_about_a_watch_is_not_cut_off(status: int) -> None:
    """It is what the message is for."""
    url = URL("https://api.cloud.llamaindex.ai/api/v2/batches")
    asked = Asked(url, ApiKey("llx-1", source="LLAMA_CLOUD_API_KEY"))
    error = refused(asked, status, b'{"detail": "Invalid API key or region"}', None)

    said = said_of(
        watch_event(WATCH, WATCH_FAILING, occurred_at=at(60), since=at(0), reason=str(error))
    )

    assert_slack_takes(said)
    assert html.unescape(texts(said)[0]).endswith(error.what_to_do)


def test_a_reason_that_is_empty_makes_no_empty_block() -> None:
    """Slack refuses a text without characters."""
    said = said_of(watch_event(WATCH, WATCH_FAILING, occurred_at=at(0), since=at(0), reason=""))

    assert_slack_takes(said)
    assert ["header", "context"] == [block["type"] for block in said["blocks"]]


@pytest.mark.parametrize(
    ("reason", "was"),
    [("HTTP 401: set\nanother key", "\nIt was: HTTP 401: set another key"), ("", "")],
)
def test_the_all_clear_is_no_alarm(reason: str, was: str) -> None:
    """It says how long it lasted, and what it was, as something that is over."""
    event = watch_event(WATCH, WATCH_RECOVERED, occurred_at=at(310), since=at(0), reason=reason)

    said = said_of(event)

    assert_slack_takes(said)
    assert f"It lasted 5 min 10 s.{was}" == texts(said)[0]


def test_a_gap_says_which_time_it_is_about_and_what_to_do() -> None:
    """Whoever reads it can look at LlamaCloud for that time."""
    gap = Gap(at(0), at(60), Kind.UNREADABLE, "1 entry without an id")
    said = said_of(gap_event(WATCH, gap, occurred_at=at(90)))

    assert_slack_takes(said)
    assert "🕳️ Batches may be unknown" == said["text"]
    span, reason, remedy = texts(said)[0].split("\n")
    assert "From 2026-11-24 08:00:00 UTC to 2026-11-24 08:01:00 UTC (unreadable)." == span
    assert (gap.reason, gap.what_to_do) == (reason, remedy)


def test_a_heartbeat_is_a_line_and_one_for_each_trouble() -> None:
    """As far as there is room for them."""
    ill = [
        {"watch": f"w{n}", "last_good_poll": None, "active_batches": 2, "failing": "no <key>"}
        for n in range(FAILURES_SHOWN + 2)
    ]
    for watches, lines in ((a_pulse()["watches"], 1), (ill, 1 + FAILURES_SHOWN + 1)):
        event = heartbeat_event(a_pulse(watches=watches), slot=at(0), store="", occurred_at=at(9))
        said = said_of(event)
        assert_slack_takes(said)
        assert lines == len(texts(said)[0].split("\n"))
    assert "• w0: no &lt;key&gt;" in texts(said)[0]
    assert texts(said)[0].endswith("… and 2 more")


def a_stuck(rule: str = "status", *, type_: str = BATCH_STUCK, told: int = 1) -> Event:
    stuck = Stuck(at(0), rule, limit=7200, told_at=at(600), told=told, alone=True)
    expectation = expect([Past(60.0 * n) for n in range(10, 31)], files=None)
    batch = a_batch(THROTTLED if type_ == BATCH_UNSTUCK else PENDING, created_at=at(-7200))
    data = stuck_data(stuck, PENDING, now=at(600))
    outlook = Details(expected_data(batch, expectation, now=at(600)), data)
    return batch_event(batch, type_, occurred_at=at(600), link=LINK, details=outlook)


def test_a_stuck_batch_says_which_rule_fired_and_what_was_expected() -> None:
    """And that it is a reminder, if it is."""
    took = "\n21 like it took 20 min, most of them 12 min to 28 min."

    by_status, by_history = said_of(a_stuck()), said_of(a_stuck("history", told=3))

    assert_slack_takes(by_status)
    assert_slack_takes(by_history)
    assert [["⏳ Batch is stuck"], ["⏳ Batch is stuck (reminder 2)"]] == [
        texts(one, "plain_text") for one in (by_status, by_history)
    ]
    assert "*bat-1*\n*PENDING* for 2 h 10 min; 2 h are allowed" + took == texts(by_status)[0]
    assert (
        "*bat-1*\n*PENDING*, 2 h 10 min after its creation\n"
        "More than 2 h is far outside of what batches like it take." + took
    ) == texts(by_history)[0]


@pytest.mark.parametrize(
    ("rule", "lasted"),
    [("status", "after 2 h 10 min"), ("history", ", 2 h 10 min after its creation")],
)
def test_a_batch_that_moves_again_says_where_to(rule: str, lasted: str) -> None:
    """And how long that took."""
    said = said_of(a_stuck(rule, type_=BATCH_UNSTUCK))

    assert_slack_takes(said)
    assert ["🏃 Batch moves again"] == texts(said, "plain_text")
    first = texts(said)[0].splitlines()[1]
    assert f"PENDING → *THROTTLED*{lasted if lasted[0] == ',' else ' ' + lasted}" == first


def told_with_others(second: float) -> Stuck:
    return Stuck(at(second), "status", limit=9, told_at=at(99), told=1, alone=False)


def test_many_stuck_batches_are_a_list_of_a_few_and_a_number() -> None:
    """And their end is no word about LlamaCloud."""
    many = [
        a_batch(PENDING, id=BatchId(f"bat-{n:02d}"), stuck=told_with_others(n)) for n in range(30)
    ]
    slow = Slow(at(100), told_at=at(100), told=1)
    over = watch_event(
        WATCH, WATCH_RECOVERED, occurred_at=at(99), since=at(0), reason="many", about="slow"
    )

    said = said_of(slow_event(WATCH, slow, many, count=30, now=at(100)))

    assert_slack_takes(said)
    assert ["🐌 Many batches are stuck"] == texts(said, "plain_text")
    assert "30 batches stand still at once: 30 PENDING" == texts(said)[0]
    lines = texts(said)[1].splitlines()
    assert ("• `bat-00` PENDING since 2026-11-24 08:00", "… and 20 more") == (lines[0], lines[-1])
    assert STUCK_SHOWN + 1 == len(lines)
    assert ["💚 Batches move again"] == texts(said_of(over), "plain_text")


@pytest.mark.parametrize("type_", EVENT_TYPES)
def test_every_type_of_event_has_a_message(type_: str) -> None:
    """Also those whose words are still to be found: these are said by their type."""
    said = said_of(batch_event(a_batch(), type_, occurred_at=at(0), link=LINK))

    assert_slack_takes(said)
    assert said["text"].endswith(": bat-1")


TEXT = st.text(
    st.one_of(
        st.sampled_from("&<>*_~`|@#!:\n\t \\\u202e\N{GRINNING FACE}"), st.characters(codec="utf-8")
    ),
    max_size=300,
)
LONG = st.one_of(TEXT, st.builds(lambda text, times: (text * times)[:2000], TEXT, st.just(99)))
OUTCOMES = st.lists(
    st.builds(
        FileOutcome,
        TEXT,
        job_type=st.none() | TEXT,
        job_id=st.none() | TEXT,
        error_message=st.none() | LONG,
    ),
    max_size=12,
)
STATUSES = st.sampled_from((*NON_TERMINAL, *TERMINAL)) | TEXT.filter(bool).map(Status)
BATCHES = st.builds(
    replace,
    st.just(a_batch()),
    id=TEXT.map(BatchId),
    watch=TEXT.map(WatchName),
    status=STATUSES,
    previous_status=st.none() | STATUSES,
    job_type=st.none() | TEXT,
    configuration_id=st.none() | LONG,
    lasted=st.dictionaries(TEXT, st.floats(0, 1e9), max_size=4),
    results=st.none() | st.sampled_from(Results),
)


@given(batch=BATCHES, outcomes=st.none() | OUTCOMES)
def test_whatever_a_batch_is_like_slack_takes_the_message(
    batch: Any, outcomes: list[FileOutcome] | None
) -> None:
    """Names, reasons and statuses of any length and in any script stay within Slack's rules."""
    for type_ in (type_of(batch.status), BATCH_DISCOVERED, BATCH_VANISHED):
        assert_slack_takes(
            said_of(batch_event(batch, type_, occurred_at=at(0), link=LINK, outcomes=outcomes))
        )


@given(reason=LONG)
def test_whatever_is_wrong_with_a_watch_slack_takes_the_message(reason: str) -> None:
    """A reason may be anything that upstream said."""
    event = watch_event(WATCH, WATCH_FAILING, occurred_at=at(0), since=at(0), reason=reason)

    said = said_of(event)

    assert_slack_takes(said)
    shown = html.unescape(texts(said)[0]) if len(said["blocks"]) > 2 else ""
    assert " ".join(reason.split()).startswith(shown.rstrip("…"))


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (10, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (90, "1 min 30 s"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (86_399.7, "1 d"),
        (90_000, "1 d 1 h"),
        (8_640_000, "100 d"),
    ],
)
def test_a_duration_is_told_by_its_two_largest_units(seconds: float, told: str) -> None:
    """Nobody wants to divide 7500 by 60."""
    assert told == duration(seconds)
