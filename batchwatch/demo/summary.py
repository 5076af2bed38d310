"""The table at the end: what truly happened, what arrived, and every promise that was broken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from batchwatch.demo.evidence import Answer
from batchwatch.demo.look import counted
from batchwatch.demo.verdict import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from batchwatch.demo.scene import Scene
    from batchwatch.demo.verdict import Verdict

FAULTS_SHOWN: Final = 12

_MEANINGS: Final = {
    Kind.LOST: "of all that upstream showed",
    Kind.OUT_OF_ORDER: "within a batch",
    Kind.UNTRUE: "not in the true history",
    Kind.TWO_IDS: "the same transition as two events",
    Kind.UNVERIFIED: "with the library standardwebhooks",
}


def summary(verdict: Verdict, *, kills: int) -> Iterator[RenderableType]:
    """The table, then a line that says how it went, then what went wrong."""
    table = Table(box=SIMPLE_HEAD, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", style="bold")
    table.add_column(style="dim")
    for nth, group in enumerate((_truth(verdict, kills), _arrivals(verdict), _promises(verdict))):
        if nth:
            table.add_section()
        for label, number, remark, style in group:
            table.add_row(Text(label, style), Text(f"{number:,}", style), remark)
    yield table
    yield _sentence(verdict)
    for fault in verdict.faults[:FAULTS_SHOWN]:
        yield Text.assemble(("   ✗ ", "red"), (f"{fault.kind}: ", "bold"), fault.text)
    if (more := len(verdict.faults) - FAULTS_SHOWN) > 0:
        yield Text(f"   … and {more:,} more", "dim")


def so_far(scene: Scene) -> Text:
    """One line for a demo that was stopped: what was seen until then, without a verdict."""
    bad = sum(one.answer is Answer.UNVERIFIED for one in scene.receipts)
    verified = f"{bad} of them not verified" if bad else "all verified"
    received = counted(len(scene.receipts), "webhook")
    parts = [
        f"{scene.over} of {counted(len(scene.lives), 'batch', 'batches')} over",
        f"{received}, {verified}" if scene.receipts else received,
        counted(scene.messages, "Slack message"),
    ]
    return Text(f" Stopped after {scene.elapsed:.1f} s: {'; '.join(parts)}. Nothing was judged.")


_Row = tuple[str, int, str, str]


def _truth(verdict: Verdict, kills: int) -> Iterator[_Row]:
    still = verdict.batches - verdict.over
    yield "Batches", verdict.batches, f"{still:,} of them not over yet" if still else "", ""
    yield "Transitions in truth", verdict.transitions, "from the simulator's own history", ""
    unseen = "between two polls, or in an answer cut short"
    yield "  never shown", verdict.never_shown, unseen, ""
    if kills or verdict.missed:
        excuse = "the daemon died over it" if kills else "without a time to prove it new"
        yield "  shown in passing", verdict.missed, excuse, ""
    if kills:
        yield "Daemon killed", kills, "with SIGKILL, and started again", ""


def _arrivals(verdict: Verdict) -> Iterator[_Row]:
    yield "Notifications received", verdict.notified, "answered with 200, each id counted once", ""
    yield "  batches settled", verdict.settled, "what became of every file, as it truly did", ""
    remark = "under the same webhook-id, as promised"
    if verdict.asked_for:
        remark = f"same webhook-id; {verdict.asked_for:,} after a bad answer"
    yield "  duplicated", verdict.repeats, remark, ""
    remark = f"and {verdict.post_repeats:,} of them again" if verdict.post_repeats else ""
    yield "Slack messages", verdict.posts, remark, ""
    if verdict.on_their_way:
        late = "too late to be owed yet"
        yield "On their way", verdict.on_their_way, late, "yellow"


def _promises(verdict: Verdict) -> Iterator[_Row]:
    for kind in Kind:
        count = verdict.count(kind)
        label = kind.value.capitalize()
        yield label, count, _MEANINGS[kind], "bold red" if count else "green"


def _sentence(verdict: Verdict) -> Text:
    if verdict.faults:
        return Text(f" ✗ {counted(len(verdict.faults), 'fault')}:", "bold red")
    if not verdict.is_good:
        return Text(" ✗ Nothing happened, so nothing is proven.", "bold red")
    return Text(" ✓ Nothing lost, all in order, every signature verified.", "bold green")
