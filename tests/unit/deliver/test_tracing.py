"""A trace for each event, and a span for each try."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchwatch.deliver.tracing import traceparent
from batchwatch.domain.batch import BatchId, EventId, WatchName
from batchwatch.domain.event import event_id

# https://www.w3.org/TR/trace-context/#traceparent-header: neither id may be zero.
FORM = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-01")


def test_all_tries_of_an_event_are_one_trace() -> None:
    """Which is found by the id that the receiver was given anyway."""
    event = event_id(WatchName("default"), BatchId("bat-1"), 2, "batch.running")
    found = [FORM.fullmatch(traceparent(event)) for _ in range(9)]

    assert {event.removeprefix("evt_")} == {one[1] for one in found if one}
    assert 9 == len({one[2] for one in found if one})


@pytest.mark.parametrize("text", ["evt_1", "", f"evt_{'0' * 32}", f"evt_{'A' * 32}", "é" * 99])
def test_an_id_of_another_form_makes_a_trace_as_well(text: str) -> None:
    """The same one each time."""
    first, second = (FORM.fullmatch(traceparent(EventId(text))) for _ in range(2))

    assert first
    assert second
    assert first[1] == second[1]


@given(text=st.text(st.characters(codec="utf-8")))
def test_any_id_makes_a_header_that_can_be_sent(text: str) -> None:
    """And that every reader of the standard takes."""
    assert FORM.fullmatch(traceparent(EventId(text)))
