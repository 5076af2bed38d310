"""What is found at both ends of a pipe that works, for tests to spoil."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any

from batchwatch.demo.evidence import TERMINAL, Answer, Block, Life, Post, Receipt, Step
from batchwatch.demo.scene import Scene
from batchwatch.demo.verdict import Verdict, judge
from tests.support.clock import EPOCH, ManualClock

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from batchwatch.demo.verdict import Kind

LATER = EPOCH + timedelta(hours=1)  # all that happened is owed by then


def after(seconds: float) -> datetime:
    """The moment ``seconds`` after the beginning."""
    return EPOCH + timedelta(seconds=seconds)


def a_life(*statuses: str, batch_id: str = "bat-1", shown: Iterable[str] | None = None) -> Life:
    """A batch that had these statuses, a second each, and all of them were shown."""
    steps = tuple(Step(status, after(nth)) for nth, status in enumerate(statuses))
    return Life(batch_id, steps, tuple(statuses if shown is None else shown))


def a_receipt(status: str, number: int, *, batch_id: str = "bat-1", **more: Any) -> Receipt:
    """The webhook of a transition, as it should be."""
    receipt = Receipt(
        at=float(number),
        event_id=f"evt-{batch_id}-{number}",
        type=f"batch.{status.lower()}",
        answer=Answer.TAKEN,
        batch_id=batch_id,
        transition=number,
        status=status,
    )
    return replace(receipt, **more)


def a_post(status: str = "COMPLETED", *, batch_id: str = "bat-1", **more: Any) -> Post:
    """The Slack message of an end, as it should be."""
    blocks = (
        Block("header", f"✅ Batch {status.lower()}"),
        Block("section", f"*{batch_id}*\nRUNNING → *{status}*, 6.5 s after it was first seen"),
        Block("context", "watch *demo* · parse_v2"),
    )
    post = Post(1.0, f"✅ Batch: {batch_id}", blocks, Answer.TAKEN, batch_id, status)
    return replace(post, **more)


def all_receipts(life: Life) -> list[Receipt]:
    """What a faithful daemon sends of a life: the changes that were shown, numbered from 1."""
    changes = [status for status, _ in groupby(life.shown)]
    return [
        a_receipt(status, number, batch_id=life.batch_id)
        for number, status in enumerate(changes, start=1)
    ]


def all_posts(lives: Iterable[Life]) -> list[Post]:
    """The messages for the ends of these lives."""
    return [
        a_post(life.status, batch_id=life.batch_id) for life in lives if life.status in TERMINAL
    ]


def judged(
    lives: Sequence[Life],
    receipts: Sequence[Receipt],
    posts: Sequence[Post] | None = None,
    *,
    owed_until: datetime = LATER,
    may_miss: bool = False,
) -> Verdict:
    """The verdict, with the Slack messages that there should be unless they are given."""
    if posts is None:
        posts = all_posts(lives)
    return judge(lives, receipts, posts, owed_until=owed_until, may_miss=may_miss)


def kinds(verdict: Verdict) -> list[Kind]:
    """How promises were broken."""
    return [fault.kind for fault in verdict.faults]


def a_scene(*, chaos: bool = False) -> Scene:
    """A scene in which nothing has happened."""
    return Scene(scenario="lively", seed=7, chaos=chaos, clock=ManualClock())
