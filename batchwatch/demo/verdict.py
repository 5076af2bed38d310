"""Compare what arrived with what truly happened, and find everything that is not as promised.

Pure, and on the accuser's side: each kind of fault has a test that it is found. The rules are
those of batchwatch's promises, in a receiver's words:

- A batch's last status arrives; its transitions are numbered from 1 without a gap; and whatever
  upstream showed was told. What is missing is LOST.
- A transition never arrives for the first time after a later one of its batch.
- The statuses are a part of the batch's true history, in its order. Anything else is UNTRUE.
- What is said to have become of a batch's files is what truly did, and comes soon after it did.
- The same fact comes under the same webhook-id: repeats are allowed, a second id is not.
- Every signature holds.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from typing import TYPE_CHECKING

from batchwatch.demo.evidence import Answer, short

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from batchwatch.demo.evidence import Life, Post, Receipt, Step


class Kind(StrEnum):
    """How a promise can be broken."""

    LOST = "lost"
    OUT_OF_ORDER = "out of order"
    UNTRUE = "untrue"
    TWO_IDS = "told under two ids"
    UNVERIFIED = "failed verification"


@dataclass(frozen=True, slots=True)
class Fault:
    """One promise that was broken once, in words for people."""

    kind: Kind
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The outcome of a demo."""

    batches: int
    over: int
    transitions: int  # that truly happened
    never_shown: int  # of them, those that no answer of upstream ever held
    missed: int  # shown and not told, with an excuse
    on_their_way: int  # too late to be owed yet, and not arrived
    notified: int  # different notifications that were taken
    settled: int  # batches of whose files all was told
    repeats: int  # arrivals under an id that had arrived before
    asked_for: int  # of them, those that came because the receiver had not taken it
    posts: int  # Slack messages that were taken
    post_repeats: int
    faults: tuple[Fault, ...]

    @property
    def is_good(self) -> bool:
        """Whether every promise was kept, and there was one to keep."""
        return not self.faults and self.notified > 0

    def count(self, kind: Kind) -> int:
        """How often a promise was broken in this way."""
        return sum(fault.kind is kind for fault in self.faults)


def judge(
    lives: Iterable[Life],
    receipts: Sequence[Receipt],
    posts: Sequence[Post],
    *,
    owed_until: datetime,
    may_miss: bool = False,
) -> Verdict:
    """Judge ``receipts`` and ``posts``, in the order of their arrival, by the true ``lives``.

    The lives must have been asked for after the last arrival, or news would look untrue. What
    happened after ``owed_until`` may still be on its way. ``may_miss`` excuses a daemon that did
    not tell of what upstream showed in passing, for it may have been killed over that answer, or
    the answer bore no time that proves it new. A batch's end is owed whatever happens.
    """
    truth = {life.batch_id: life for life in lives}
    verified = [one for one in receipts if one.answer is not Answer.UNVERIFIED]
    news = [one for one in verified if one.announces_status]
    by_batch: dict[str, list[Receipt]] = defaultdict(list)
    for one in news:
        by_batch[one.batch_id or ""].append(one)
    last_words: dict[str, list[Receipt]] = defaultdict(list)
    for one in verified:
        if one.settles:
            last_words[one.batch_id or ""].append(one)
    ended = {(post.batch_id, post.status) for post in posts if post.answer is Answer.TAKEN}

    faults = [*_unverified(receipts), *_ids_used_twice(verified), *_unknown(verified, truth)]
    never_shown = missed = on_their_way = settled = 0
    for life in truth.values():
        arrived = by_batch[life.batch_id]
        taken = {one.transition: one for one in arrived if one.answer is Answer.TAKEN}
        told = [one.status or "" for _, one in sorted(taken.items(), key=_number)]
        faults += _two_ids(life, arrived)
        faults += _out_of_order(life, arrived)
        faults += _gaps(life, {number for number in taken if number is not None})
        faults += _untrue(life, told)
        shown = _changes(life.shown)
        never_shown += len(life.steps) - len(shown)
        untold = _untold(life, shown, told)
        overdue = [step.status for step in untold if step.at <= owed_until]
        on_their_way += len(untold) - len(overdue)
        if may_miss:
            missed += len(overdue)
        elif overdue:
            text = f"{short(life.batch_id)} was shown as {', '.join(overdue)}, which was not told"
            faults.append(Fault(Kind.LOST, text))
        settling = last_words[life.batch_id]
        faults += _miscounted(life, settling)
        if _unsettled(life, arrived, settling):
            text = f"{short(life.batch_id)} was never settled, though all its jobs are over"
            in_time = life.sealed_at + (life.sealed_at - life.steps[-1].at) <= owed_until
            faults += [Fault(Kind.LOST, text)] if in_time else []
            on_their_way += not in_time
        settled += any(one.answer is Answer.TAKEN for one in settling)
        missing = list(_missing_end(life, told, ended))
        if life.steps[-1].at <= owed_until:
            faults += missing
        else:
            on_their_way += len(missing)

    ids = Counter(one.event_id for one in verified)
    taken_ids = {one.event_id for one in verified if one.answer is Answer.TAKEN}
    messages = Counter((p.text, p.blocks) for p in posts if p.answer is Answer.TAKEN)
    return Verdict(
        batches=len(truth),
        over=sum(life.is_over for life in truth.values()),
        transitions=sum(len(life.steps) for life in truth.values()),
        never_shown=never_shown,
        missed=missed,
        on_their_way=on_their_way,
        notified=len(taken_ids),
        settled=settled,
        repeats=ids.total() - len(ids),
        asked_for=_asked_for(verified),
        posts=len(messages),
        post_repeats=messages.total() - len(messages),
        faults=tuple(faults),
    )


def _number(item: tuple[int | None, Receipt]) -> int:
    return item[0] or 0


def _unverified(receipts: Iterable[Receipt]) -> Iterator[Fault]:
    for one in receipts:
        if one.answer is Answer.UNVERIFIED:
            yield Fault(Kind.UNVERIFIED, f"the message {one.event_id or 'without an id'}")


def _ids_used_twice(receipts: Iterable[Receipt]) -> Iterator[Fault]:
    """An id is a fact's: two facts under one would make a receiver drop the second."""
    facts: dict[str, set[tuple[object, ...]]] = defaultdict(set)
    for one in receipts:
        facts[one.event_id].add((one.type, one.batch_id, one.transition, one.status))
    for event_id, told in facts.items():
        if len(told) > 1:
            yield Fault(Kind.UNTRUE, f"{event_id} was the id of {len(told)} different events")


def _unknown(receipts: Iterable[Receipt], truth: Collection[str]) -> Iterator[Fault]:
    strangers = {one.batch_id for one in receipts if one.batch_id is not None} - set(truth)
    for batch_id in sorted(strangers):
        yield Fault(Kind.UNTRUE, f"{short(batch_id)} was told of, and there is no such batch")


def _two_ids(life: Life, arrived: Iterable[Receipt]) -> Iterator[Fault]:
    ids: dict[int | None, set[str]] = defaultdict(set)
    for one in arrived:
        ids[one.transition].add(one.event_id)
    for number, used in ids.items():
        if len(used) > 1:
            text = f"transition {number} of {short(life.batch_id)} came under {len(used)} ids"
            yield Fault(Kind.TWO_IDS, text)


def _out_of_order(life: Life, arrived: Iterable[Receipt]) -> Iterator[Fault]:
    """What was not taken counts as well: its place in the line was before what came after it."""
    latest, known = 0, set()
    for one in arrived:
        number = one.transition or 0
        if one.event_id not in known and number < latest:
            text = f"transition {number} of {short(life.batch_id)} came after {latest}"
            yield Fault(Kind.OUT_OF_ORDER, text)
        known.add(one.event_id)
        latest = max(latest, number)


def _gaps(life: Life, numbers: set[int]) -> Iterator[Fault]:
    for number in range(1, max(numbers, default=0)):
        if number not in numbers:
            text = f"transition {number} of {short(life.batch_id)}, though a later one came"
            yield Fault(Kind.LOST, text)


def _untrue(life: Life, told: Sequence[str]) -> Iterator[Fault]:
    true = [step.status for step in life.steps]
    rest = iter(true)
    for nth, status in enumerate(told):
        if status not in rest:  # takes from it, so that the order counts
            before = f" after {told[nth - 1]}" if nth else ""
            text = f"{short(life.batch_id)} was never {status}{before}; it was {' → '.join(true)}"
            yield Fault(Kind.UNTRUE, text)
            return


def _changes(shown: Iterable[str]) -> list[str]:
    """What was shown, as changes: with nothing shown between them, twice the same is none."""
    return [status for status, _ in groupby(shown)]


def _untold(life: Life, shown: Sequence[str], told: Sequence[str]) -> list[Step]:
    """What was shown and not told, but for the end, which is owed even if it was not shown.

    Which of its equal steps was shown is not known, so the latest is taken that it can have been.
    """
    steps = reversed(life.steps)
    latest = [next(step for step in steps if step.status == status) for status in reversed(shown)]
    untold: list[Step] = []
    rest = iter(told)
    wanted = next(rest, None)
    for step in reversed(latest):
        if step.status == wanted:
            wanted = next(rest, None)
        elif not (life.is_over and step is life.steps[-1]):
            untold.append(step)
    return untold


def _missing_end(
    life: Life, told: Collection[str], posted: Collection[tuple[str | None, str | None]]
) -> Iterator[Fault]:
    if not life.is_over:
        return
    if life.status not in told:
        text = f"{short(life.batch_id)} is {life.status}, and no webhook said so"
        yield Fault(Kind.LOST, text)
    if (life.batch_id, life.status) not in posted:
        text = f"{short(life.batch_id)} is {life.status}, and Slack was not told"
        yield Fault(Kind.LOST, text)


def _miscounted(life: Life, settling: Iterable[Receipt]) -> Iterator[Fault]:
    """What was told of the files, if it is not what became of them; each batch is told once."""
    if len({one.event_id for one in settling}) > 1:
        yield Fault(Kind.TWO_IDS, f"{short(life.batch_id)} was settled twice")
    for one in settling:
        if life.files is None or one.counts is None:
            continue
        told = {fate: count for fate, count in one.counts.items() if count and fate != "files"}
        if told != {fate: count for fate, count in life.files.counts.items() if count}:
            true = _listed(life.files.counts)
            text = f"{short(life.batch_id)} was settled with {_listed(told)}; it was {true}"
            yield Fault(Kind.UNTRUE, text)


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {fate}" for fate, count in sorted(counts.items())) or "no files"


def _unsettled(life: Life, arrived: Iterable[Receipt], settling: Iterable[Receipt]) -> bool:
    """Whether its files' fates are owed: whoever has the results can find them out."""
    if not life.fate_is_sealed or any(one.answer is Answer.TAKEN for one in settling):
        return False
    return any(one.status == life.status and one.results == "complete" for one in arrived)


def _asked_for(receipts: Iterable[Receipt]) -> int:
    """The repeats that followed an arrival which the receiver did not take."""
    last: dict[str, Answer] = {}
    asked = 0
    for one in receipts:
        asked += last.get(one.event_id, Answer.TAKEN) is not Answer.TAKEN
        last[one.event_id] = one.answer
    return asked
