"""Where a page ended, as text: whatever upstream calls a batch, its list goes on from there."""

from __future__ import annotations

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st

from batchwatch.web import cursor

AN_ID = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=1000
)


@given(moment=st.integers(-(10**18) + 1, 10**18 - 1), id_=AN_ID)
@example(moment=0, id_="bat 1/2~3?ü&=%")
@example(moment=0, id_="b" * 300)
@example(moment=0, id_="a\tb\n")
def test_a_list_goes_on_after_any_batch(moment: int, id_: str) -> None:
    """What is answered as `next` is taken as `cursor`, and is the same place."""
    text = cursor.to_text((moment, "default", id_))
    taken: str = msgspec.convert(text, cursor.OfBatches)

    assert (moment, "default", id_) == cursor.of_batches(taken)
