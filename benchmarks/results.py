"""What a benchmark found: numbers with their meaning, the same for people and for programs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

Cell: TypeAlias = str | float | None


@dataclass(frozen=True, slots=True)
class Column:
    """One kind of number: its key for programs, its heading and its form for people."""

    key: str
    heading: str
    form: str = ""  # as of format(): ",.0f" for counts, ".2%" for shares

    def shown(self, cell: Cell) -> str:
        """``cell`` as people read it."""
        if cell is None:
            return ""
        return cell if isinstance(cell, str) else format(cell, self.form)


@dataclass(frozen=True, slots=True)
class Goal:
    """What was promised, and whether it was kept. A goal that is missed fails nothing."""

    text: str
    met: bool


@dataclass(frozen=True, slots=True)
class Finding:
    """A table, what was promised of it, and what must be known to judge it."""

    title: str
    columns: tuple[Column, ...]
    rows: list[dict[str, Cell]]
    goals: list[Goal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def for_programs(self) -> dict[str, Any]:
        """As JSON has it: all but the headings."""
        everything = asdict(self)
        del everything["columns"]
        return everything
