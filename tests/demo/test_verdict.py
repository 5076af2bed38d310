"""The verdict: what is right passes, and every way of being wrong is found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchwatch.demo.evidence import Answer, Files, Life, Post, Receipt
from batchwatch.demo.verdict import Kind
from tests.demo.found import (
    a_life,
    a_post,
    a_receipt,
    after,
    all_posts,
    all_receipts,
    judged,
    kinds,
)

A_LIFE = a_life("PENDING", "RUNNING", "THROTTLED", "RUNNING", "COMPLETED")


# ------------------------------------------------------------------------------ what is right


def test_a_run_in_which_all_arrived_is_good() -> None:
    """Every transition once, in order, and the message in Slack."""
    verdict = judged([A_LIFE], all_receipts(A_LIFE))

    assert verdict.is_good
    assert (1, 1, 5, 0, 5, 0, 1) == (
        verdict.batches,
        verdict.over,
        verdict.transitions,
        verdict.never_shown,
        verdict.notified,
        verdict.repeats,
        verdict.posts,
    )


def test_a_status_that_upstream_never_showed_is_owed_by_nobody() -> None:
    """It fell between two polls; it is counted, for honesty's sake."""
    life = replace(A_LIFE, shown=("PENDING", "RUNNING", "COMPLETED"))

    verdict = judged([life], all_receipts(life))

    assert ([], 2) == (kinds(verdict), verdict.never_shown)


def test_a_status_that_was_left_and_taken_up_again_unseen_is_no_change() -> None:
    """RUNNING, and RUNNING again: that it was THROTTLED in between, no answer has shown."""
    life = replace(A_LIFE, shown=("PENDING", "RUNNING", "RUNNING", "COMPLETED"))
    told = [a_receipt("PENDING", 1), a_receipt("RUNNING", 2), a_receipt("COMPLETED", 3)]

    verdict = judged([life], told)

    assert ([], 2) == (kinds(verdict), verdict.never_shown)


def test_a_repeat_under_the_same_id_is_counted_and_no_fault() -> None:
    """At least once is the promise; the id is what receivers dedupe by."""
    receipts = all_receipts(A_LIFE)

    verdict = judged([A_LIFE], [*receipts, receipts[1], receipts[4]])

    assert ([], 2, 0, 5) == (
        kinds(verdict),
        verdict.repeats,
        verdict.asked_for,
        verdict.notified,
    )


def test_a_repeat_after_the_receiver_failed_is_told_apart() -> None:
    """It is the receiver who is to blame for it."""
    refused = [replace(one, answer=Answer.REFUSED) for one in all_receipts(A_LIFE)]

    verdict = judged([A_LIFE], [refused[0], *all_receipts(A_LIFE)])

    assert ([], 1, 1) == (kinds(verdict), verdict.repeats, verdict.asked_for)


def test_a_batch_that_is_not_over_owes_no_end() -> None:
    """Some scenarios have batches that stand still for hours."""
    life = a_life("PENDING", "RUNNING")

    verdict = judged([life], all_receipts(life))

    assert ([], 0) == (kinds(verdict), verdict.over)


def test_an_end_that_came_too_late_may_be_on_its_way() -> None:
    """The demo has a time limit, and batchwatch may wait for results before it tells."""
    told = all_receipts(A_LIFE)[:-1]

    verdict = judged([A_LIFE], told, [], owed_until=after(3))

    assert ([], 2) == (kinds(verdict), verdict.on_their_way)


def test_a_status_that_came_too_late_may_be_on_its_way() -> None:
    """Shown in the last moments to a daemon that was about to tell."""
    life = a_life("PENDING", "RUNNING")

    verdict = judged([life], all_receipts(life)[:-1], owed_until=after(0))

    assert ([], 1) == (kinds(verdict), verdict.on_their_way)


def test_events_about_something_else_than_a_status_are_no_transitions() -> None:
    """They carry the number and status of the batch as it stands."""
    about = a_receipt("COMPLETED", 5, type="batch.settled", event_id="evt-settled")
    watch = Receipt(0.0, "evt-watch", "watch.failing", Answer.TAKEN)

    verdict = judged([A_LIFE], [watch, *all_receipts(A_LIFE), about])

    assert ([], 7) == (kinds(verdict), verdict.notified)


def test_a_status_that_batchwatch_has_no_name_for_counts_as_told() -> None:
    """It comes as batch.unknown, with upstream's word for it."""
    life = a_life("PENDING", "VALIDATING", "COMPLETED")
    told = [
        a_receipt("PENDING", 1),
        a_receipt("VALIDATING", 2, type="batch.unknown"),
        a_receipt("COMPLETED", 3),
    ]

    assert [] == kinds(judged([life], told))


SETTLED = replace(A_LIFE, files=Files({"succeeded": 2, "failed": 1}, 0, after(6)))
COUNTS = {"files": 3, "succeeded": 2, "failed": 1, "cancelled": 0}


def with_results(life: Life) -> list[Receipt]:
    """What is told of a life whose end came with its results."""
    return [
        replace(one, results="complete" if one.status == "COMPLETED" else None)
        for one in all_receipts(life)
    ]


def a_settling(counts: dict[str, int] | None = None, **more: Any) -> Receipt:
    """The last word on a batch's files."""
    told = {"type": "batch.settled", "event_id": "evt-settled", "results": "complete"}
    return a_receipt("COMPLETED", 5, **(told | {"counts": counts or COUNTS} | more))


def test_what_became_of_the_files_is_compared_with_the_truth() -> None:
    """All of it, and once; a repeat under the same id is no second word."""
    verdict = judged([SETTLED], [*with_results(SETTLED), a_settling(), a_settling()])

    assert ([], 1, 0) == (kinds(verdict), verdict.settled, verdict.on_their_way)


@pytest.mark.parametrize(
    "files",
    [
        Files({"succeeded": 1}, 1, None),  # a job still runs
        Files({"succeeded": 1, "jobless": 1}, 0, after(6)),  # that one is looked for again
    ],
)
def test_files_that_may_still_change_are_not_owed(files: Files) -> None:
    """Not in a demo, which does not last that long."""
    life = replace(A_LIFE, files=files)

    assert ([], 0) == (kinds(judged([life], with_results(life))), 0)


def test_files_whose_jobs_ended_too_late_may_be_on_their_way() -> None:
    """The pauses between looks grow with the time since the end."""
    verdict = judged([SETTLED], with_results(SETTLED), owed_until=after(7))

    assert ([], 1) == (kinds(verdict), verdict.on_their_way)


# ------------------------------------------------------------------------------ what is wrong


def test_a_batch_that_is_never_settled_is_lost() -> None:
    """Its results were told, and all its jobs are over."""
    assert [Kind.LOST] == kinds(judged([SETTLED], with_results(SETTLED)))


def test_a_wrong_count_is_untrue() -> None:
    """Also if only one file of thousands is told wrongly."""
    wrong = a_settling({"files": 3, "succeeded": 3})

    assert [Kind.UNTRUE] == kinds(judged([SETTLED], [*with_results(SETTLED), wrong]))


def test_a_batch_that_is_settled_twice_has_two_ids() -> None:
    """It is one fact."""
    again = a_settling(event_id="evt-again")

    verdict = judged([SETTLED], [*with_results(SETTLED), a_settling(), again])

    assert [Kind.TWO_IDS] == kinds(verdict)


@pytest.mark.parametrize("missing", range(5))
def test_a_transition_that_never_arrived_is_lost(missing: int) -> None:
    """The last one by the truth, those before it by the gap in the numbers."""
    told = all_receipts(A_LIFE)
    del told[missing]

    assert Kind.LOST in kinds(judged([A_LIFE], told))


def test_what_the_receiver_did_not_take_is_lost_unless_it_comes_again() -> None:
    """A 500 is no receipt."""
    told = all_receipts(A_LIFE)
    told[-1] = replace(told[-1], answer=Answer.REFUSED)

    assert [Kind.LOST] == kinds(judged([A_LIFE], told))


def test_what_was_shown_and_skipped_is_lost_even_without_a_gap() -> None:
    """A daemon that forgets a status would number the others without it."""
    told = [a_receipt("PENDING", 1), a_receipt("RUNNING", 2), a_receipt("COMPLETED", 3)]

    verdict = judged([A_LIFE], told)

    assert [Kind.LOST] == kinds(verdict)
    assert "THROTTLED, RUNNING" in verdict.faults[0].text


def test_what_was_shown_to_a_daemon_that_was_killed_over_it_is_not_lost() -> None:
    """It was gone before anybody could look again; it is counted in a row of its own."""
    told = [a_receipt("PENDING", 1), a_receipt("RUNNING", 2), a_receipt("COMPLETED", 3)]

    verdict = judged([A_LIFE], told, may_miss=True)

    assert ([], 2) == (kinds(verdict), verdict.missed)


def test_a_status_that_was_shown_long_ago_and_is_not_told_is_lost() -> None:
    """Even if the batch stands still in it, so that nothing later can show the gap."""
    life = a_life("PENDING", "RUNNING")

    verdict = judged([life], all_receipts(life)[:-1])

    assert [Kind.LOST] == kinds(verdict)


def test_a_run_in_which_nothing_arrived_is_not_good() -> None:
    """Though there was nothing that could have been lost."""
    verdict = judged([], [])

    assert ([], False) == (kinds(verdict), verdict.is_good)


def test_an_end_that_slack_was_not_told_is_lost() -> None:
    """Each endpoint is promised everything."""
    assert [Kind.LOST] == kinds(judged([A_LIFE], all_receipts(A_LIFE), []))


@pytest.mark.parametrize(
    "wrong",
    [a_post("FAILED"), a_post(batch_id="bat-2"), a_post(answer=Answer.DROPPED)],
    ids=["another end", "another batch", "not taken"],
)
def test_a_message_that_is_not_of_this_end_does_not_count(wrong: Post) -> None:
    """Slack must name the batch and what became of it."""
    assert [Kind.LOST] == kinds(judged([A_LIFE], all_receipts(A_LIFE), [wrong]))


def test_a_transition_that_comes_after_a_later_one_is_out_of_order() -> None:
    """Even if everything is there in the end."""
    told = all_receipts(A_LIFE)
    told[2], told[3] = told[3], told[2]

    assert [Kind.OUT_OF_ORDER] == kinds(judged([A_LIFE], told))


def test_overtaking_one_that_was_refused_is_out_of_order_too() -> None:
    """The one that was refused should have held its place in the line."""
    first, second, *rest = all_receipts(A_LIFE)
    told = [second, replace(first, answer=Answer.REFUSED), first, *rest]

    assert [Kind.OUT_OF_ORDER] == kinds(judged([A_LIFE], told))


def test_a_repeat_of_an_older_transition_is_not_out_of_order() -> None:
    """Order is that of the first arrivals; a receiver drops the repeat."""
    told = all_receipts(A_LIFE)

    assert [] == kinds(judged([A_LIFE], [*told, told[0]]))


def test_one_transition_under_two_ids_is_a_fault() -> None:
    """A receiver would act on it twice."""
    told = all_receipts(A_LIFE)

    verdict = judged([A_LIFE], [*told, replace(told[4], event_id="evt-other")])

    assert [Kind.TWO_IDS] == kinds(verdict)


def test_one_id_for_two_transitions_is_a_fault() -> None:
    """A receiver would drop the second as a repeat."""
    told = all_receipts(A_LIFE)
    told[1] = replace(told[1], event_id=told[0].event_id)

    assert [Kind.UNTRUE] == kinds(judged([A_LIFE], told))


def test_a_status_that_the_batch_never_had_is_untrue() -> None:
    """Whatever its number."""
    told = all_receipts(A_LIFE)
    told[2] = a_receipt("CANCELLED", 3)

    assert Kind.UNTRUE in kinds(judged([A_LIFE], told))


def test_true_statuses_in_another_order_are_untrue() -> None:
    """Back to PENDING: each was true once, and not like that."""
    life = a_life("PENDING", "RUNNING", "COMPLETED")
    told = [
        *(a_receipt("PENDING", 1), a_receipt("RUNNING", 2)),
        *(a_receipt("PENDING", 3), a_receipt("COMPLETED", 4)),
    ]

    assert [Kind.UNTRUE] == kinds(judged([life], told))


def test_a_batch_that_does_not_exist_is_untrue() -> None:
    """Nothing may be made up."""
    told = [*all_receipts(A_LIFE), a_receipt("PENDING", 1, batch_id="bat-9")]

    assert [Kind.UNTRUE] == kinds(judged([A_LIFE], told))


def test_a_signature_that_does_not_hold_is_a_fault_and_its_content_counts_for_nothing() -> None:
    """It may be anybody's."""
    told = all_receipts(A_LIFE)
    told[-1] = replace(told[-1], answer=Answer.UNVERIFIED)

    assert [Kind.UNVERIFIED, Kind.LOST] == kinds(judged([A_LIFE], told))


# ------------------------------------------------------------------------------ whatever comes

ON_THE_WAY = st.lists(st.sampled_from(["PENDING", "RUNNING", "THROTTLED"]), min_size=1, max_size=6)


@st.composite
def some_lives(draw: st.DrawFn) -> list[Life]:
    """Batches that are over, of whose statuses upstream showed the last one and some others."""
    lives = []
    for number in range(draw(st.integers(1, 4))):
        end = draw(st.sampled_from(["COMPLETED", "FAILED", "CANCELLED"]))
        steps = [*draw(ON_THE_WAY), end]
        shown = [status for status in steps[:-1] if draw(st.booleans())]
        lives.append(a_life(*steps, batch_id=f"bat-{number}", shown=[*shown, end]))
    return lives


@st.composite
def deliveries(draw: st.DrawFn, lives: list[Life]) -> list[Receipt]:
    """What a faithful daemon sends of them: each in order, all mingled, with tries that failed."""
    queues = [all_receipts(life) for life in lives]
    arrived: list[Receipt] = []
    while any(queues):
        queue = draw(st.sampled_from([queue for queue in queues if queue]))
        answer = draw(st.sampled_from([Answer.TAKEN, Answer.TAKEN, Answer.REFUSED, Answer.HUNG]))
        arrived.append(replace(queue[0], answer=answer))
        if answer is Answer.TAKEN and draw(st.integers(0, 4)) > 0:  # else it comes once more
            queue.pop(0)
        elif answer is Answer.TAKEN:
            arrived.append(queue.pop(0))
    return arrived


@given(st.data())
def test_whatever_a_faithful_daemon_sends_is_good(data: st.DataObject) -> None:
    """Polls that miss statuses, receivers that fail and repeats are no faults."""
    lives = data.draw(some_lives())
    arrived = data.draw(deliveries(lives))

    verdict = judged(lives, arrived)

    assert [] == kinds(verdict)
    assert len(arrived) == verdict.notified + verdict.repeats


@given(st.data())
def test_whatever_is_left_out_is_found_lost(data: st.DataObject) -> None:
    """All arrivals of one transition, of any batch."""
    lives = data.draw(some_lives())
    arrived = data.draw(deliveries(lives))
    lost = data.draw(st.sampled_from(arrived)).event_id

    verdict = judged(lives, [one for one in arrived if one.event_id != lost])

    assert Kind.LOST in kinds(verdict)


@given(st.data())
def test_whatever_overtakes_is_found_out_of_order(data: st.DataObject) -> None:
    """Two transitions of one batch, the later one first."""
    [life, *_] = data.draw(some_lives().filter(lambda lives: len(all_receipts(lives[0])) > 1))
    told = all_receipts(life)
    nth = data.draw(st.integers(0, len(told) - 2))
    told[nth], told[nth + 1] = told[nth + 1], told[nth]

    assert Kind.OUT_OF_ORDER in kinds(judged([life], told))


@given(st.data())
def test_whatever_is_made_up_is_found_untrue(data: st.DataObject) -> None:
    """A status that the batch never had, in the place of any that was told."""
    life = data.draw(some_lives())[0]
    told = all_receipts(life)
    nth = data.draw(st.integers(0, len(told) - 1))
    told[nth] = a_receipt("DREAMING", nth + 1, batch_id=life.batch_id, type="batch.unknown")

    assert Kind.UNTRUE in kinds(judged([life], told, all_posts([life])))
