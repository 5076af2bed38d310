"""Let contestants run in turns, and compare them turn by turn."""

from __future__ import annotations

import gc
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from benchmarks.progress import Progress
    from benchmarks.results import Cell


class Ratio(NamedTuple):
    """One series beside another."""

    middle: float  # the median of the ratios of each turn
    low: float
    high: float


async def take_turns(
    contestants: Mapping[str, Callable[[], Awaitable[float]]], *, rounds: int, progress: Progress
) -> dict[str, list[float]]:
    """Run each contestant once a round, A B C A B C; give what each of them measured.

    A round before the first is run and forgotten: connections are opened in
    it, statements compiled, caches filled.
    """
    measured: dict[str, list[float]] = {name: [] for name in contestants}
    gc.freeze()  # as the daemon does
    for number in range(rounds + 1):
        for name, run in contestants.items():
            gc.collect()  # nobody pays for another's garbage
            value = await run()
            if number:
                measured[name].append(value)
            progress.step()
    return measured


def compared(
    measured: Mapping[str, Sequence[float]], *, to: str, name: str
) -> list[dict[str, Cell]]:
    """A row for each contestant: the median of its rates, and the ratio to one of them.

    ``name`` is the key under which a row has the contestant's name.
    """
    rows: list[dict[str, Cell]] = []
    for contestant, rates in measured.items():
        beside = ratio(rates, measured[to])
        rows.append(
            {
                name: contestant,
                "per_second": median(rates),
                "ratio": beside.middle,
                "lowest": beside.low,
                "highest": beside.high,
            }
        )
    return rows


def steps(contestants: int, rounds: int) -> int:
    """How many steps of progress :func:`take_turns` makes."""
    return contestants * (rounds + 1)


def ratio(of: Sequence[float], to: Sequence[float]) -> Ratio:
    """One series beside another, turn by turn: what slowed a whole turn down is not in it."""
    ratios = [one / other for one, other in zip(of, to, strict=True)]
    return Ratio(median(ratios), min(ratios), max(ratios))
