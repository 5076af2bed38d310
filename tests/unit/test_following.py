"""Server-sent events are read as their standard has it, however they are cut up."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchwatch import following
from batchwatch.following import Messages


def read(*chunks: bytes) -> tuple[list[str], str]:
    messages = Messages()
    data = [text for chunk in chunks for text in messages.feed(chunk)]
    return data, messages.last_id


@pytest.mark.parametrize(
    ("text", "data", "last_id"),
    [
        (b"id: 1\ndata: a\n\n", ["a"], "1"),
        (b"data:a\n\ndata:  b\n\n", ["a", " b"], ""),
        (b"data: a\ndata: b\n\n", ["a\nb"], ""),
        (b"id: 1\ndata: a\n\nid: 2\n\n", ["a"], "2"),
        (b"id: 1\ndata: a\n\nid\n\n", ["a"], ""),
        (b"id: 1\x002\ndata: a\n\n", ["a"], ""),
        (b": still here\n\nevent: x\nretry: 9\ndata: a\nodd: b\n\n", ["a"], ""),
        (b"data: a\r\rdata: b\r\n\r\n", ["a", "b"], ""),
        (b"data: a\n", [], ""),
        (b"id: 7\ndata: a\n", [], ""),
    ],
)
def test_a_stream_is_read_by_its_standard(text: bytes, data: list[str], last_id: str) -> None:
    """What is not ended by an empty line is no message yet, and moves no place."""
    assert (data, last_id) == read(text)


@given(
    messages=st.lists(
        st.tuples(st.integers(0, 99), st.text(alphabet="a é{}:\u2028", max_size=9)), max_size=6
    ),
    end=st.sampled_from(["\n", "\r\n"]),
    cuts=st.lists(st.integers(0, 200), max_size=12),
)
def test_however_it_is_cut_up_it_is_the_same(
    messages: list[tuple[int, str]], end: str, cuts: list[int]
) -> None:
    """Bytes come as the network likes."""
    text = "".join(f"id: {number}{end}data: {data}{end}{end}" for number, data in messages)
    whole = text.encode()
    places = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    chunks = [whole[start:stop] for start, stop in itertools.pairwise(places)]

    assert read(whole) == read(*chunks)
    assert [data for _, data in messages] == read(whole)[0]


def test_a_message_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is at the other end must not take all memory."""
    monkeypatch.setattr(following, "LONGEST_LINE", 100)
    chunks = [b"data: aaaaaaaaaa"] * 20

    with pytest.raises(ValueError, match="100 bytes"):
        read(*chunks)
