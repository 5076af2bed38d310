"""A month at a steady rate: the store stops growing once as much is there as is kept."""

from __future__ import annotations

from benchmarks.soak import A_DAY, growth, month

EACH = 4  # batches at each look
KEPT = 2  # days
DAYS = 9
NEARLY = 1.2  # times: of so few pages, one more is seen; without removal it is twice as large


async def test_a_store_stops_growing_after_its_retention(made_url: str) -> None:
    """In rows and in bytes; and it holds all of the days that are kept, and no more."""
    days = await month(made_url, a_day=EACH * A_DAY, kept=KEPT, days=DAYS)

    steady = [one for one in days if one.number > KEPT + 1]
    assert 1 == len({one.batches for one in steady}) == len({one.rows for one in steady})
    assert EACH * A_DAY * KEPT <= steady[-1].batches <= EACH * A_DAY * (KEPT + 1)
    assert growth(days, kept=KEPT) <= NEARLY
