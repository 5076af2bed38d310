"""Say what is being measured while it is: a bar on a terminal, a line for each stage elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

if TYPE_CHECKING:
    from rich.progress import TaskID


class Progress:
    """On stderr, so that what is found can be piped.

    Drawn only at a step, never by a thread in between: a bar that moves
    while something is measured is measured with it.
    """

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            auto_refresh=False,
            disable=not self._console.is_terminal,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def stage(self, text: str, *, steps: int = 1) -> None:
        """Begin a part of ``steps`` steps; the one before is over."""
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(text, total=steps)
        self._bar.refresh()
        if not self._console.is_terminal:
            self._console.print(f"{text} …", highlight=False)

    def step(self) -> None:
        """One step of the stage is done."""
        if self._task is not None:
            self._bar.advance(self._task)
            self._bar.refresh()
