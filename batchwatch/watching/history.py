"""What is to be expected of the batches of a watch, learned from those that have completed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from batchwatch.domain.expect import LEAST_SAMPLES, Experience

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batchwatch.clock import Clock
    from batchwatch.domain.batch import Batch, Observation, WatchName
    from batchwatch.domain.expect import Expectation
    from batchwatch.store import Judgements

Kind: TypeAlias = tuple[str, str]  # type and configuration of the job

RELEARNT: Final = 300.0  # seconds until what a kind took is read again
SOON: Final = 30.0  # the same, while it is too little to tell anything
KINDS_LIMIT: Final = 200  # kinds that are remembered, some 20 kB each


class History:
    """Asked for each batch, and read from the store for each kind every few minutes.

    What is decided within a transaction must not read the store, so a kind
    is learnt beforehand; of one that was not, nothing is expected.
    """

    def __init__(self, watch: WatchName, *, judgements: Judgements, clock: Clock) -> None:
        self._watch = watch
        self._judgements = judgements
        self._clock = clock
        self._learnt: dict[Kind, tuple[Experience, float]] = {}  # and until when (monotonic)

    async def learn(self, batches: Iterable[Batch | Observation]) -> None:
        """Read what the kinds of these took, where that was not done lately."""
        now = self._clock.monotonic()
        for kind in {kind for one in batches if (kind := _kind_of(one)) is not None}:
            learnt = self._learnt.get(kind)
            if learnt is not None and now < learnt[1]:
                continue
            past = await self._judgements.past(self._watch, *kind)
            if len(self._learnt) >= KINDS_LIMIT:
                self._learnt.clear()
            lasts = RELEARNT if len(past) >= LEAST_SAMPLES else SOON
            self._learnt[kind] = Experience(past), now + lasts

    def expectation_of(self, batch: Batch) -> Expectation | None:
        """What to expect of ``batch``, as far as its kind was learnt."""
        kind = _kind_of(batch)
        learnt = None if kind is None else self._learnt.get(kind)
        return None if learnt is None else learnt[0].of(batch.source_directory_id)


def _kind_of(batch: Batch | Observation) -> Kind | None:
    job_type, configuration_id = batch.job_type, batch.configuration_id
    return (job_type, configuration_id) if job_type and configuration_id else None
