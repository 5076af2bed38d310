"""How far it is, what is waited for or done: bars on a terminal, else lines."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Self

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from batchwatch.tables import printable

if TYPE_CHECKING:
    from rich.progress import TaskID

    from batchwatch.clock import Clock
    from batchwatch.domain.batch import BatchId
    from batchwatch.domain.standing import Standing
    from batchwatch.waiting import Wait


PACE: Final = 5.0  # seconds between two lines about a work, where there are no bars


class Progress:
    """Shows where each batch stands, after each look."""

    def __init__(self) -> None:
        self._console = Console(markup=False, highlight=False, emoji=False)
        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            TextColumn("{task.fields[status]}", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[files]}", markup=False),
            TimeElapsedColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._tasks: dict[BatchId, TaskID] = {}
        self._said: dict[str, str] = {}  # what was told last, by what it is about

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def tell(self, waiting: Wait) -> None:
        """Show what a look brought."""
        missing = set(waiting.missing)
        for batch_id, standing in waiting.standings.items():
            status, files = _in_words(standing)
            if self._console.is_terminal:
                self._move(batch_id, standing, status)
                if batch_id not in missing:
                    self._fill(batch_id)
            self._say(batch_id, f"{batch_id}  {status}  {files}".rstrip())
        self._say("", waiting.trouble or "")

    def _move(self, batch_id: BatchId, standing: Standing | None, status: str) -> None:
        if batch_id not in self._tasks:
            shown = printable(batch_id)
            self._tasks[batch_id] = self._bars.add_task(shown, total=None, status="", files="")
        total = standing.files if standing else 0
        ended = total - standing.fates.get(None, 0) if standing else 0
        self._bars.update(
            self._tasks[batch_id],
            status=status,
            # Short: with more words, 80 columns would cut the batch's id.
            files=f"{ended}/{total} files" if total else "",
            total=total or None,
            completed=ended,
        )

    def _fill(self, batch_id: BatchId) -> None:
        """It is over: a full bar, also where no files are known."""
        task = self._bars.tasks[self._tasks[batch_id]]
        total = task.total or 1
        self._bars.update(task.id, total=total, completed=total)

    def _say(self, about: str, text: str) -> None:
        """A line, where it says something new; on a terminal only what has no bar."""
        if self._said.get(about, "") == text:
            return
        self._said[about] = text
        if text and (not about or not self._console.is_terminal):
            self._bars.console.print(printable(text), soft_wrap=True)


class Work:
    """Shows how far each part of a long work is, on stderr: what it gives is for stdout."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._console = Console(stderr=True, markup=False, highlight=False, emoji=False)
        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.completed:,}/{task.total:,}", markup=False),
            TextColumn("{task.fields[about]}", markup=False),
            TimeElapsedColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._said_at = -math.inf

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def tell(self, part: str, about: str, *, done: int, total: int) -> None:
        """Show that of ``part``, which is at ``about``, so much is done."""
        if self._console.is_terminal:
            if part not in self._tasks:
                self._tasks[part] = self._bars.add_task(part, total=total, about="")
            self._bars.update(
                self._tasks[part], completed=done, about="" if done == total else about
            )
            return
        now = self._clock.monotonic()
        if now - self._said_at >= PACE or done == total:
            self._said_at = now
            self._console.print(f"{part}  {done:,} of {total:,}  {about}", soft_wrap=True)


def _in_words(standing: Standing | None) -> tuple[str, str]:
    if standing is None:
        return "not seen yet", ""
    status = f"{standing.status} (vanished)" if standing.vanished else str(standing.status)
    files = standing.files
    if not files:
        return status, ""
    open_ = standing.fates.get(None, 0)
    return status, f"{files - open_} of {files} files have ended" if open_ else f"{files} files"
