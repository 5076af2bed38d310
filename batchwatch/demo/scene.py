"""Everything that has happened so far, for whoever shows it and for the verdict."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from batchwatch.demo.evidence import Answer, Life, Move, Notice, Post, Receipt

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchwatch.clock import Clock
    from batchwatch.demo.evidence import Entry

_UNSHOWN: Final = 5_000  # entries that wait to be shown; a view that is slower misses the oldest


class Scene:
    """The one thing that the receivers, the stage and the views share.

    ``entries`` are in the order in which they became known. A view takes from
    ``unshown`` what it prints once and for all.
    """

    def __init__(self, *, scenario: str, seed: int, chaos: bool, clock: Clock) -> None:
        self.scenario = scenario
        self.seed = seed
        self.chaos = chaos
        self.clock = clock
        self.lives: Mapping[str, Life] = {}
        self.receipts: list[Receipt] = []
        self.posts: list[Post] = []
        self.unshown: deque[Entry] = deque(maxlen=_UNSHOWN)
        self.settled: set[str] = set()  # batches that were told to be
        self.told: dict[str, str] = {}  # by batch, the status of its latest transition that came
        self.posted: dict[str, str] = {}  # by batch, the end that Slack was told of
        self.messages = 0  # of Slack, taken
        self.repeats = 0
        self.kills = 0
        self.daemon = "starting"
        self.first_batch_at: float | None = None  # seconds since the demo began
        self.last_arrival_at = 0.0
        self._begun = clock.monotonic()
        self._ids: set[str] = set()
        self._numbers: dict[str, int] = {}

    @property
    def elapsed(self) -> float:
        """Seconds since the demo began."""
        return self.clock.monotonic() - self._begun

    @property
    def since_first_batch(self) -> float | None:
        """Seconds since upstream had something to tell."""
        return None if self.first_batch_at is None else self.elapsed - self.first_batch_at

    @property
    def over(self) -> int:
        """How many batches will not change any more."""
        return sum(life.is_over for life in self.lives.values())

    def learn(self, lives: Mapping[str, Life]) -> None:
        """Take over what truly happened."""
        if lives and self.first_batch_at is None:
            age = (self.clock.now() - min(life.born for life in lives.values())).total_seconds()
            # Some scenarios have batches that are older than the demo itself.
            self.first_batch_at = max(0.0, self.elapsed - max(0.0, age))
        for batch_id, life in lives.items():
            known = self.lives.get(batch_id)
            steps = life.steps[len(known.steps) :] if known else life.steps
            self.unshown += (Move(self.elapsed, batch_id, step.status) for step in steps)
        self.lives = lives

    def note(self, text: str, *, is_grave: bool = False) -> None:
        """Tell of something that the demo did, or that befell it."""
        self.unshown.append(Notice(self.elapsed, text, is_grave=is_grave))

    def receive(self, receipt: Receipt) -> None:
        """A webhook arrived."""
        self.receipts.append(receipt)
        self.unshown.append(receipt)
        self.last_arrival_at = self.elapsed
        if receipt.answer is Answer.UNVERIFIED:
            return
        self.repeats += receipt.event_id in self._ids
        self._ids.add(receipt.event_id)
        if receipt.answer is Answer.TAKEN and receipt.settles and receipt.batch_id:
            self.settled.add(receipt.batch_id)
        if receipt.answer is Answer.TAKEN and receipt.announces_status and receipt.batch_id:
            number = receipt.transition or 0
            if number >= self._numbers.get(receipt.batch_id, 0):
                self._numbers[receipt.batch_id] = number
                self.told[receipt.batch_id] = receipt.status or ""

    def read(self, post: Post) -> None:
        """A Slack message arrived."""
        self.posts.append(post)
        if post.answer is Answer.TAKEN:
            self.messages += 1
            if post.batch_id is not None and post.status is not None:
                self.posted[post.batch_id] = post.status
        self.unshown.append(post)
        self.last_arrival_at = self.elapsed
