"""The demo on a terminal: the batches moving on the left, what arrives of it on the right.

It is drawn line by line to the size that the terminal has at that moment. Nothing is to the right
of the Slack messages, for they alone hold signs whose width a terminal may see differently.
"""

from __future__ import annotations

from collections import deque
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Self

from rich.live import Live
from rich.text import Text

from batchwatch.demo.evidence import Answer, Notice, Post, Receipt, short
from batchwatch.demo.look import ANSWERS, COLOURS, block_lines, colour, counted, sign

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console, ConsoleOptions

    from batchwatch.demo.evidence import Life
    from batchwatch.demo.scene import Scene

WIDE: Final = 126  # columns, from which Slack has a pane beside the webhooks
NARROW: Final = 64  # columns, under which only the batches fit
_ROOMY: Final = 12  # lines, from which the legend may have two
_KEPT: Final = 200  # arrivals; no terminal is higher
_SCALES: Final = (12, 24, 60, 120, 600, 3_600, 6 * 3_600, 24 * 3_600)  # seconds to a lifeline

Lines = list[Text]


class Screen:
    """Draws the scene, on the terminal's other screen, which leaves no trace."""

    def __init__(self, scene: Scene, console: Console) -> None:
        self._scene = scene
        self._arrivals: deque[Receipt | Notice] = deque(maxlen=_KEPT)
        self._posts: deque[Post] = deque(maxlen=_KEPT)
        self._live = Live(self, console=console, screen=True, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def refresh(self) -> None:
        """Draw it as it is now."""
        self._live.refresh()

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> Iterator[Text]:
        width = options.max_width
        height = options.height or options.max_height
        self._gather()
        legend = _legend(width, lines=2 if height >= _ROOMY else 1)
        room = max(0, height - 3 - len(legend))  # two lines above, and the last one
        yield self._top(width)
        yield Text()
        yield from self._body(width, room)
        yield from legend
        yield self._bottom(width)

    def _gather(self) -> None:
        while self._scene.unshown:
            entry = self._scene.unshown.popleft()
            if isinstance(entry, Receipt | Notice):
                self._arrivals.append(entry)
            elif isinstance(entry, Post):
                self._posts.append(entry)

    # ------------------------------------------------------------------------------- panes

    def _body(self, width: int, height: int) -> Lines:
        if width < NARROW:
            return _filled(self._batches(width, height), height, width)
        if width >= WIDE:
            left, middle = width * 5 // 16, width * 5 // 16
            right = width - left - middle - 6
            panes = (
                _filled(self._batches(left, height), height, left),
                _filled(self._webhooks(middle, height), height, middle),
                _filled(self._slack(right, height), height, None),
            )
            return [_beside(*lines) for lines in zip(*panes, strict=True)]
        left = min(width // 2, 60) - 1
        right = width - left - 3
        upper = height * 2 // 5  # what is for people takes more room
        arrivals = _filled(self._webhooks(right, upper), upper, None)
        arrivals += _filled(self._slack(right, height - upper), height - upper, None)
        batches = _filled(self._batches(left, height), height, left)
        return [_beside(*lines) for lines in zip(batches, arrivals, strict=True)]

    def _top(self, width: int) -> Text:
        scene = self._scene
        name = Text.assemble((" batchwatch", "bold"), " demo")
        details = [
            Text(f"  {scene.scenario}", "dim"),
            Text(" · chaos" if scene.chaos else "", "bold red"),
            Text(f" · seed {scene.seed}", "dim"),
        ]
        state = Text.assemble(("daemon ", "dim"), (scene.daemon, _daemon_style(scene.daemon)))
        if scene.kills:
            state.append(f" · killed {counted(scene.kills, 'time')}", "red")
        state.append(" ")
        room = width - name.cell_len - state.cell_len - 1
        return _apart(Text.assemble(name, *_fitting(details, room)), state, width)

    def _bottom(self, width: int) -> Text:
        scene = self._scene
        arrived = len(scene.receipts)
        bad = sum(one.answer is Answer.UNVERIFIED for one in scene.receipts)
        verified = (f"{bad} not verified", "bold red") if bad else ("all verified", "green")
        way_out = Text("Ctrl-C ends ", "dim")
        between = Text(" · ", "dim")
        parts = [
            Text(f" {scene.over} of {len(scene.lives)} over"),
            between + Text(counted(arrived, "webhook")),
            Text.assemble(", ", verified) if arrived else Text(),
            between + Text(f"{scene.messages} Slack"),
            between + Text(f"{scene.elapsed:.1f} s"),
            between + Text(counted(scene.repeats, "repeat"), "yellow") if scene.repeats else Text(),
        ]
        room = width - way_out.cell_len - 1
        return _apart(Text().join(_fitting(parts, room)), way_out, width)

    def _batches(self, width: int, height: int) -> Lines:
        lives = list(self._scene.lives.values())
        shown = _chosen(lives, height - 1)
        now = self._scene.clock.now()
        longest = max((life.age(now) for life in shown), default=0.0)
        scale = next((scale for scale in _SCALES if scale >= longest), longest)
        title = _title(" Batches", f"{len(shown)} of {len(lives)}", width)
        return [title, *(self._batch(life, width, scale) for life in shown)]

    def _batch(self, life: Life, width: int, scale: float) -> Text:
        now = self._scene.clock.now()
        age, status = life.age(now), life.status
        is_told = self._scene.told.get(life.batch_id) == status
        room = max(4, width - 27)
        line = _lifeline(life, age, scale, room)
        line.truncate(room, pad=True)
        return Text.assemble(
            (f" {short(life.batch_id)} ", "dim" if life.is_over else ""),
            line,
            (f" {status.lower():<10.10}", colour(status)),
            (f"{_brief(age):>6}", "dim"),
            (" ✓", "green") if is_told else (" …", "dim"),
        )

    def _webhooks(self, width: int, height: int) -> Lines:
        lines = [_title("Webhooks", f"{len(self._scene.receipts)} arrived", width)]
        newest = list(self._arrivals)[-max(0, height - 1) :] if height > 1 else []
        known: set[str] = set()
        lines += [_cut(_arrival(entry, known), width) for entry in newest]
        return lines

    def _slack(self, width: int, height: int) -> Lines:
        arrived, taken = len(self._scene.posts), self._scene.messages
        refused = f", {taken} taken" if taken < arrived else ""
        title = _title("Slack", f"{arrived} arrived{refused}", width)
        feed: Lines = []
        for post in reversed(self._posts):
            if len(feed) >= height:
                break
            feed = [*_card(post, width), Text(), *feed]
        return [title, *feed[:-1][-max(1, height - 1) :]]


# ------------------------------------------------------------------------------------ lines


def _lifeline(life: Life, age: float, scale: float, room: int) -> Text:
    """The statuses of a life along its time, a cell for each part of the scale, and its end."""
    line = Text()
    on_the_way = life.steps[:-1] if life.is_over else life.steps
    cell = scale / max(1, room - 1)  # seconds; one cell is kept for the end
    if on_the_way:
        for nth in range(max(1, min(room - 1, round(age / cell)))):
            at = life.born + timedelta(seconds=(nth + 0.5) * cell)
            status = next(step.status for step in reversed(on_the_way) if step.at <= at)
            line.append(sign(status), colour(status))
    if life.is_over:
        line.append(sign(life.status), colour(life.status))
    return line


def _chosen(lives: Sequence[Life], room: int) -> list[Life]:
    """As many as there is room for, those that still move before those that are over."""
    if len(lives) <= room:
        return list(lives)
    moving = [life for life in lives if not life.is_over][: max(0, room)]
    over = [life for life in lives if life.is_over]
    over.sort(key=lambda life: life.steps[-1].at)
    chosen = {life.batch_id for life in (*moving, *over[len(over) - (room - len(moving)) :])}
    return [life for life in lives if life.batch_id in chosen]


def _arrival(entry: Receipt | Notice, known: set[str]) -> Text:
    line = Text(f"{entry.at:5.1f} ", "dim")
    if isinstance(entry, Notice):
        return line.append(f"  {entry.text}", "bold red" if entry.is_grave else "dim italic")
    if entry.answer is Answer.UNVERIFIED:
        return line.append("✗ the signature does not hold", "bold red")
    line.append("✓ ", "green")
    if entry.batch_id is not None:
        line.append(f"{short(entry.batch_id)} ")
    if entry.transition is not None:
        line.append(f"#{entry.transition} ", "dim")
    line.append(entry.type, colour(entry.status or ""))
    if entry.event_id in known:
        line.append(" again", "yellow")
    known.add(entry.event_id)
    return line.append(f" {ANSWERS[entry.answer]}", "yellow")


def _card(post: Post, width: int) -> Lines:
    bar = ("▎", colour(post.status or ""))
    lines = [line for block in post.blocks for line in block_lines(block)]
    if post.answer is not Answer.TAKEN:
        lines[0].append(f" {ANSWERS[post.answer]}", "yellow")
    return [Text.assemble(bar, " ", _cut(line, width - 3)) for line in lines]


def _legend(width: int, *, lines: int) -> Lines:
    """What the signs mean, in as few lines as it fits into, and in at most so many."""
    signs = [Text.assemble((sign(one), colour(one)), f" {one.lower()}") for one in COLOURS]
    signs.append(Text.assemble(("✓", "green"), " told"))
    whole = _joined(signs)
    if whole.cell_len <= width or lines == 1:
        return [_cut(whole, width)]
    half = (len(signs) + 1) // 2
    return [_cut(_joined(part), width) for part in (signs[:half], signs[half:])]


def _joined(signs: Lines) -> Text:
    return Text.assemble(" ", Text("  ").join(signs), style="dim")


def _fitting(parts: Lines, room: int) -> Lines:
    """The first of ``parts``, which count most, as far as there is room for them."""
    taken: Lines = []
    for part in parts:
        room -= part.cell_len
        if room < 0:
            break
        taken.append(part)
    return taken


def _title(name: str, remark: str, width: int) -> Text:
    title = Text.assemble((f"{name} ", "bold"), (f"{remark} ", "dim"))
    return _cut(title.append("─" * max(0, width - title.cell_len), "bright_black"), width)


def _apart(left: Text, right: Text, width: int) -> Text:
    """Both at their ends of one line; the right one gives way."""
    gap = width - left.cell_len - right.cell_len
    if gap < 1:
        return _cut(left, width)
    return Text.assemble(left, " " * gap, right)


def _beside(*parts: Text) -> Text:
    return Text(" │ ", "bright_black").join(parts)


def _filled(lines: Lines, height: int, width: int | None) -> Lines:
    """Exactly ``height`` lines, each of exactly ``width`` cells unless that is None."""
    lines = [*lines, *(Text() for _ in range(height - len(lines)))][:height]
    if width is not None:
        for line in lines:
            line.truncate(width, overflow="ellipsis", pad=True)
    return lines


def _cut(line: Text, width: int) -> Text:
    line.truncate(max(0, width), overflow="ellipsis")
    return line


def _brief(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} m" if seconds < 6_000 else f"{seconds / 3_600:.0f} h"


def _daemon_style(state: str) -> str:
    return {"running": "green", "killed": "bold red"}.get(state, "yellow")
