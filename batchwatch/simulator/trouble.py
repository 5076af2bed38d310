"""Draw what goes wrong with each request, from a random stream of its own.

Lives depend on the seed alone. Faults depend on the seed and on the number of the request, so they
are the same again only for clients that ask the same in the same order.

Faults that a scenario brings are bounded, so that a client that tries again gets through: on one
path at most ``LONGEST_STREAK`` answers in a row are broken, and a request that writes is only ever
broken before it took effect. Outages end, and what is switched on at run time does as it is told.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from batchwatch.simulator.faults import KINDS, OF_REQUESTS, OF_WEBHOOKS, REFUSING, SPOILING, Switch
from batchwatch.simulator.project import stream
from batchwatch.simulator.timeline import NEVER, SECOND

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping
    from random import Random

    from batchwatch.simulator.scenarios import Scenario
    from batchwatch.simulator.timeline import Micros, Timeline

LONGEST_STREAK: Final = 3
_BREAKING: Final = REFUSING.keys() | SPOILING.keys()


@dataclass(frozen=True, slots=True)
class Trouble:
    """The faults drawn for one request; each is counted when it strikes, for not all get to."""

    rng: Random
    drawn: Mapping[str, Switch]
    counted: Counter[str]

    def strikes(self, kind: str) -> bool:
        """Whether this fault is to happen now; the caller sees to it."""
        if kind not in self.drawn:
            return False
        self.counted[kind] += 1
        return True

    def seconds(self, kind: str, least: float, most: float) -> float:
        """How long the fault takes: as its switch says, or at random."""
        told = self.drawn[kind].seconds
        return self.rng.uniform(least, most) if told is None else told

    @property
    def spoils_answer(self) -> bool:
        """Whether the answer will not reach the client whole."""
        return not SPOILING.keys().isdisjoint(self.drawn)


@dataclass(slots=True)
class _On:
    switch: Switch
    until: Micros
    remaining: int | None  # requests; None for any number

    def is_over(self, now: Micros) -> bool:
        return now >= self.until or self.remaining == 0


class Faults:
    """Deals out trouble, by the scenario's chances and by what is switched on."""

    def __init__(self, scenario: Scenario, *, seed: int, timeline: Timeline) -> None:
        self.injected: Counter[str] = Counter()  # by kind
        self._seed = seed
        self._timeline = timeline
        self._chances = {kind: scenario.faults.get(kind, 0.0) for kind in KINDS}
        self._outages = scenario.outages
        self._on: list[_On] = []
        self._dealt: Counter[str] = Counter()  # by the kind of stream
        self._streaks: Counter[str] = Counter()  # of broken answers, by path

    def switch_on(self, switch: Switch) -> None:
        """Let a fault strike from now on."""
        lasting = switch.for_seconds
        until = NEVER if lasting is None else self._timeline.now() + round(lasting * SECOND)
        self._on.append(_On(switch, until, switch.for_requests))

    def clear(self) -> None:
        """Let nothing go wrong any more, whatever the scenario says."""
        self._on.clear()
        self._chances = dict.fromkeys(KINDS, 0.0)
        self._outages = None

    def switched_on(self) -> list[Switch]:
        """What is switched on and not yet over."""
        now = self._timeline.now()
        self._on = [each for each in self._on if not each.is_over(now)]
        return [each.switch for each in self._on]

    def for_request(self, path: str, *, writes: bool) -> Trouble:
        """What goes wrong with the next request, which is for this path."""
        rng = self._stream("request")
        drawn = self._chosen(rng, OF_REQUESTS)
        if writes:
            drawn -= {"truncated", "invalid-json"}
        if self._streaks[path] >= LONGEST_STREAK:
            drawn -= _BREAKING
        if drawn.isdisjoint(_BREAKING):
            del self._streaks[path]
        else:
            self._streaks[path] += 1
        if self._is_out():
            drawn = drawn - _BREAKING | {"outage"}
        return self._trouble(rng, drawn, self._switched(rng, OF_REQUESTS, path))

    def for_webhook(self, url: str) -> Trouble:
        """What goes wrong with the next upstream webhook, which goes to this URL."""
        rng = self._stream("webhook")
        drawn, path = self._chosen(rng, OF_WEBHOOKS), urlsplit(url).path or "/"
        return self._trouble(rng, drawn, self._switched(rng, OF_WEBHOOKS, path))

    def _stream(self, kind: str) -> Random:
        self._dealt[kind] += 1
        return stream(self._seed, "faults", kind, self._dealt[kind])

    def _chosen(self, rng: Random, kinds: Iterable[str]) -> set[str]:
        """The kinds that chance chooses; of those that break an answer, no more than one."""
        chosen = [kind for kind in kinds if rng.random() < self._chances[kind]]
        breaking = [kind for kind in chosen if kind in _BREAKING]
        return set(chosen) - set(breaking[1:])

    def _is_out(self) -> bool:
        if self._outages is None:
            return False
        seconds = (self._timeline.now() - self._timeline.start) / SECOND
        return seconds % self._outages.every >= self._outages.every - self._outages.lasting

    def _switched(self, rng: Random, kinds: Container[str], path: str) -> dict[str, Switch]:
        """The switches that strike a request for this path; those that concern it run down."""
        now, struck = self._timeline.now(), {}
        for each in self._on:
            switch = each.switch
            if each.is_over(now) or switch.kind not in kinds or not path.startswith(switch.path):
                continue
            if each.remaining is not None:
                each.remaining -= 1
            if rng.random() < switch.probability:
                struck[switch.kind] = switch
        return struck

    def _trouble(self, rng: Random, drawn: set[str], switched: dict[str, Switch]) -> Trouble:
        by_chance = {kind: Switch(kind=kind) for kind in drawn}
        return Trouble(rng, by_chance | switched, self.injected)
