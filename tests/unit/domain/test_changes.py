"""From sightings to what is written: events, and the wait for results."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from batchwatch.domain.batch import (
    CANCELLED,
    COMPLETED,
    FAILED,
    RUNNING,
    BatchId,
    FileOutcome,
    Results,
    Status,
)
from batchwatch.domain.cadence import MISSED_TO_VANISH, RESULTS_ASKS, RESULTS_PATIENCE
from tests.support.builders import a_batch, a_recorder, a_sighting, at

if TYPE_CHECKING:
    from batchwatch.domain.changes import Changes

BAT = BatchId("bat-1")
FILES = (FileOutcome("dfl-1", "parse_v2", "pjb-1"), FileOutcome("dfl-2", error_message="no pages"))


def types(changes: Changes) -> list[str]:
    return [event.type for event in changes.events]


def test_a_new_batch_is_told_by_its_discovery_and_by_its_status() -> None:
    """Two facts; an endpoint hears of the first only if it asks for it."""
    changes = a_recorder().record({}, [a_sighting(RUNNING)], now=at(0))

    assert ["batch.discovered", "batch.running"] == types(changes)


def test_a_completed_batch_waits_for_its_results() -> None:
    """`batch.completed` always carries the outcome of every file, where it can be had."""
    changes = a_recorder().record({BAT: a_batch()}, [a_sighting(COMPLETED, updated=5)], now=at(5))

    assert [] == types(changes)
    assert Results.AWAITED == changes.batches[BAT].results


def test_the_event_and_the_outcomes_are_written_together() -> None:
    """Both stand in the same changes, and so in the same transaction."""
    seen = a_sighting(COMPLETED, updated=5, asked_results=True, results=FILES)

    changes = a_recorder().record({BAT: a_batch()}, [seen], now=at(5))

    assert ["batch.completed"] == types(changes)
    assert FILES == changes.outcomes[BAT]
    results = changes.events[0].data["results"]
    assert {"files": 2, "with_job": 1, "failed": 1, "without_job": 0} == results["counts"]
    assert "complete" == results["state"]


def test_missing_results_do_not_hold_the_event_for_ever() -> None:
    """After the patience it goes out once, `results.state` pending; they are still asked for."""
    recorder = a_recorder()
    patience = RESULTS_PATIENCE.total_seconds()
    null = a_sighting(COMPLETED, updated=5, asked_results=True)
    told: list[str] = []
    batch = a_batch(COMPLETED, updated=5, results=Results.AWAITED, results_due_at=at(0))
    for second in (1, 5, patience - 1, patience, patience + 100):
        changes = recorder.record({BAT: batch}, [null], now=at(second))
        batch = changes.batches[BAT]
        told += types(changes)
        assert batch.results_due_at is not None
        assert at(second) < batch.results_due_at

    assert ["batch.completed"] == told
    assert Results.PENDING == batch.results

    late = a_sighting(COMPLETED, updated=5, asked_results=True, results=FILES)
    changes = recorder.record({BAT: batch}, [late], now=at(500))
    assert (Results.COMPLETE, FILES, []) == (
        changes.batches[BAT].results,
        changes.outcomes[BAT],
        types(changes),
    )


def test_a_result_that_cannot_be_fetched_is_waited_for_like_a_missing_one() -> None:
    """An outage must not hold the event back for longer than null does."""
    batch = a_batch(COMPLETED, results=Results.AWAITED)

    changes = a_recorder().unanswered(
        {BAT: batch}, outage=True, now=at(RESULTS_PATIENCE.total_seconds())
    )

    assert ["batch.completed"] == types(changes)


def test_an_end_is_told_in_time_whether_its_results_were_asked_for_or_not() -> None:
    """With a short budget that may take long; the promise is half a minute."""
    batch = a_batch(COMPLETED, results=Results.AWAITED, results_due_at=at(0))
    patience = RESULTS_PATIENCE.total_seconds()

    early = a_recorder().overdue({BAT: batch}, now=at(patience - 1))
    late = a_recorder().overdue({BAT: batch}, now=at(patience))
    again = a_recorder().overdue(late.batches, now=at(patience + 1))

    assert [[], ["batch.completed"], []] == [types(early), types(late), types(again)]
    assert batch.results_due_at == late.batches[BAT].results_due_at  # still to be asked for


def test_results_that_never_come_are_given_up() -> None:
    """One request each ten minutes for ever would be waste."""
    batch = a_batch(COMPLETED, results=Results.PENDING, results_asks=RESULTS_ASKS - 1)

    outage = a_recorder().unanswered({BAT: batch}, outage=True, now=at(99_999))
    changes = a_recorder().unanswered({BAT: batch}, outage=False, now=at(99_999))

    assert Results.PENDING == outage.batches[BAT].results  # that was no answer about this batch
    assert (Results.GIVEN_UP, None) == (
        changes.batches[BAT].results,
        changes.batches[BAT].results_due_at,
    )


def test_null_is_an_answer_for_a_batch_that_failed() -> None:
    """FAILED has no reliable results; nobody waits for them."""
    for status in (FAILED, CANCELLED):
        seen = a_sighting(status, updated=5, asked_results=True)
        changes = a_recorder().record({BAT: a_batch()}, [seen], now=at(5))
        assert Results.NONE == changes.batches[BAT].results
        assert [f"batch.{status.lower()}"] == types(changes)


def test_an_answer_from_before_the_end_says_nothing_of_the_results() -> None:
    """A replica that lags shows no results yet, and must not be taken at its word."""
    batch = a_batch(CANCELLED, updated=9, results=Results.AWAITED)
    late = a_sighting(RUNNING, updated=5, asked_results=True)

    changes = a_recorder().record({BAT: batch}, [late], now=at(1))

    assert (Results.AWAITED, []) == (changes.batches[BAT].results, types(changes))


def test_the_baseline_is_recorded_and_nobody_hears_of_it() -> None:
    """Terminal on the first pass ever: it ended before anybody watched."""
    recorder = a_recorder(backlog_before=at(100))

    changes = recorder.record({}, [a_sighting(COMPLETED)], now=at(101))

    assert [] == types(changes)
    assert (1, None) == (len(changes.transitions), changes.batches[BAT].results)


def test_what_ended_while_the_first_pass_failed_is_no_backlog() -> None:
    """It was created before we watched, and ended after."""
    recorder = a_recorder(backlog_before=at(100))

    changes = recorder.record({}, [a_sighting(COMPLETED, updated=150)], now=at(200))

    assert Results.AWAITED == changes.batches[BAT].results


def test_a_batch_that_has_ended_and_answers_404_is_told_all_the_same() -> None:
    """Its results are waited for like any others, and then its end is told without them."""
    batch = a_batch(COMPLETED, results=Results.AWAITED, results_due_at=at(0))

    soon = a_recorder().miss({BAT: batch}, now=at(1)).batches[BAT]
    told = a_recorder().miss({BAT: batch}, now=at(RESULTS_PATIENCE.total_seconds()))

    assert soon.results_due_at is not None
    assert soon.results_due_at > at(1)
    assert ["batch.completed"] == types(told)


@pytest.mark.parametrize("clock_behind", [0, 1.9])
@pytest.mark.parametrize("whole_seconds", [False, True])
def test_clocks_that_are_no_better_than_they_are_make_no_end_backlog(
    clock_behind: float,
    whole_seconds: bool,  # noqa: FBT001
) -> None:
    """What ends half a second after the watch began is told, whatever upstream's stamps are."""
    ended = 100.5 - clock_behind
    seen = a_sighting(COMPLETED, updated=int(ended) if whole_seconds else ended)

    changes = a_recorder(backlog_before=at(100)).record({}, [seen], now=at(103))

    assert Results.AWAITED == changes.batches[BAT].results


def test_without_a_stamp_only_the_first_listing_shows_backlog() -> None:
    """What a later one shows as ended may have ended since."""
    seen = a_sighting(COMPLETED, updated=None)
    results = [
        a_recorder(backlog_before=at(100), first_listing=first)
        .record({}, [seen], now=at(103))
        .batches[BAT]
        .results
        for first in (True, False)
    ]

    assert [None, Results.AWAITED] == results


def test_an_end_from_the_future_has_waited_long_enough() -> None:
    """The wall clock was set back; nobody is to wait until it is there again."""
    batch = a_batch(COMPLETED, results=Results.AWAITED, changed_at=at(3600))

    told = [
        types(a_recorder().overdue({BAT: batch}, now=at(0))),
        types(a_recorder().unanswered({BAT: batch}, outage=True, now=at(0))),
    ]

    assert [["batch.completed"]] * 2 == told


def test_what_is_created_during_the_first_pass_is_no_backlog() -> None:
    """It ran while we watched, however short it was."""
    recorder = a_recorder(backlog_before=at(100))

    changes = recorder.record({}, [a_sighting(COMPLETED, created_at=at(100))], now=at(101))

    assert ["batch.discovered"] == types(changes)
    assert Results.AWAITED == changes.batches[BAT].results


def test_items_that_come_twice_make_one_transition() -> None:
    """On one page or on two: each sighting meets what the one before made of it."""
    twice = [a_sighting(RUNNING), a_sighting(RUNNING), a_sighting(Status("PENDING"), updated=-5)]

    changes = a_recorder().record({}, twice, now=at(0))

    assert (1, RUNNING) == (len(changes.transitions), changes.batches[BAT].status)


def test_each_event_names_the_one_before() -> None:
    """A receiver can see that it missed one; the discovery stands beside the chain."""
    recorder = a_recorder()
    first = recorder.record({}, [a_sighting(RUNNING)], now=at(0))
    seen = a_sighting(FAILED, updated=1, asked_results=True)
    second = recorder.record(first.batches, [seen], now=at(1))

    assert first.events[1].id == second.events[0].data["previous_event_id"]
    assert first.events[1].data["previous_event_id"] is None


def test_the_same_fact_has_the_same_id() -> None:
    """A repeat after a crash must not look like news."""
    ids = [
        [event.id for event in a_recorder().record({}, [a_sighting()], now=at(n)).events]
        for n in range(2)
    ]

    assert ids[0] == ids[1]
    assert 2 == len(set(ids[0]))


def test_one_404_is_no_end() -> None:
    """Several in a row must say it, for some minutes, and no listing show it: then it is told."""
    recorder, batch, told = a_recorder(), a_batch(), []
    enough = MISSED_TO_VANISH.total_seconds()
    for second in (0, 10, 20, enough - 1, enough, enough + 9):
        batch = recorder.miss({BAT: batch}, now=at(second)).batches.get(BAT, batch)
        changes = recorder.vanish({BAT: batch}, now=at(second))
        told.append(types(changes))
        batch = changes.batches.get(BAT, batch)

    assert [[], [], [], [], ["batch.vanished"], []] == told
    assert not batch.is_active
    assert a_sighting(RUNNING).fingerprint != batch.fingerprint  # coming back is news


def test_an_event_stays_small_whatever_upstream_sends() -> None:
    """Counts are of all files; items and failures up to a limit, and the rest behind a link."""
    many = tuple(FileOutcome(f"dfl-{n}", error_message="x" * 5_000) for n in range(1_000))
    seen = a_sighting(COMPLETED, updated=5, asked_results=True, results=many)

    results = a_recorder().record({BAT: a_batch()}, [seen], now=at(5)).events[0].data["results"]

    assert (1_000, True) == (results["counts"]["failed"], results["truncated"])
    assert 200_000 > len(str(results))
    assert results["link"].endswith("/api/v2/batches/bat-1?expand=results")


@pytest.mark.parametrize(
    ("what", "is_news"),
    [
        ({}, False),
        ({"updated_at": None}, False),
        ({"status": RUNNING}, True),
        ({"updated_at": at(9 * 86_400)}, True),
        ({"created_at": at(86_400)}, True),
        ({"created_at": None}, True),
    ],
    ids=["removed", "end unknown", "active", "ended just now", "in the window", "age unknown"],
)
def test_what_has_long_ended_and_no_window_shows_is_no_news(
    what: dict[str, Any], *, is_news: bool
) -> None:
    """It was known, and has been removed: whoever asks for the time of others may be shown it."""
    seen = replace(a_sighting(COMPLETED, updated=60), **what)
    rules = a_recorder(window_start=at(86_400))

    assert is_news == bool(rules.record({}, [seen], now=at(9 * 86_400 + 60)).batches)
    assert a_recorder().record({}, [seen], now=at(10 * 86_400)).batches


def test_what_is_known_is_followed_however_long_ago_it_began() -> None:
    """Only what nobody knows may be passed over."""
    seen = a_sighting(COMPLETED, updated=60)
    rules = a_recorder(window_start=at(86_400))

    assert (
        COMPLETED == rules.record({BAT: a_batch(RUNNING)}, [seen], now=at(1e6)).batches[BAT].status
    )
