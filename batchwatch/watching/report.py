"""Say what changed, in the log and in numbers, and warn once of what is odd about it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final, TypeVar

from batchwatch.domain.batch import Results
from batchwatch.domain.event import BATCH_SETTLED
from batchwatch.log import get_logger
from batchwatch.traces import OFF

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from batchwatch.domain.batch import BatchId, Transition, WatchName
    from batchwatch.domain.changes import Changes
    from batchwatch.domain.event import Event
    from batchwatch.metrics import Metrics
    from batchwatch.traces import Traces

log = get_logger()

_T = TypeVar("_T")

WARNED_LIMIT: Final = 1_000  # things of a kind of which is remembered that they were warned of


class Reporter:
    """What one watch says of its changes."""

    def __init__(self, watch: WatchName, *, metrics: Metrics, traces: Traces = OFF) -> None:
        self._watch = watch
        self._traces = traces
        self._metrics = metrics
        self._contradicted: set[BatchId] = set()
        self._unknown: set[str] = set()  # statuses

    def tell(
        self,
        changes: Changes,
        *,
        began_at: datetime | None = None,
        ahead: timedelta = timedelta(0),
    ) -> None:
        """Log and count what was written.

        ``began_at`` is when the watch did, and ``ahead`` how far upstream's
        clock is before ours: how late a change was seen is counted from there.
        """
        for transition in changes.transitions:
            self._changed(transition)
            if began_at is not None:
                self._count_lag(transition, began_at, ahead)
        for event in changes.events:
            if event.type == BATCH_SETTLED:
                self._settled(event)
        for batch in changes.batches.values():
            if batch.results is Results.GIVEN_UP:
                log.warning(
                    "results.given_up",
                    watch=self._watch,
                    batch_id=batch.id,
                    asks=batch.results_asks,
                )
        for oddity, count in changes.oddities.items():
            self._metrics.oddities.labels(self._watch, oddity.value).inc(count)
        for batch_id in _first(self._contradicted, changes.contradicted):
            log.warning("status.contradicted", watch=self._watch, batch_id=batch_id)

    def _changed(self, transition: Transition) -> None:
        status = transition.to_status
        label = str(status) if status.is_known else "other"
        self._metrics.transitions.labels(self._watch, label).inc()
        if self._traces.is_on:
            self._traces.mark("batch.changed", _described(transition))
        log.info(
            "batch.changed",
            watch=self._watch,
            batch_id=transition.batch_id,
            transition=transition.number,
            previous=transition.from_status,
            status=status,
        )
        if not status.is_known and _first(self._unknown, [status]):
            log.warning(
                "status.unknown",
                watch=self._watch,
                batch_id=transition.batch_id,
                status=status,
            )

    def _count_lag(self, transition: Transition, began_at: datetime, ahead: timedelta) -> None:
        """Count how late a change was seen; what was before the watch began nobody could see."""
        changed_at = transition.updated_at
        if changed_at is not None and changed_at >= began_at:
            lag = transition.observed_at + ahead - changed_at
            self._metrics.detection_lag.labels(self._watch).observe(max(0.0, lag.total_seconds()))

    def _settled(self, event: Event) -> None:
        settled = event.data["settled"]
        counts = {fate: count for fate, count in (settled["counts"] or {}).items() if count}
        log.info(
            "batch.settled",
            watch=self._watch,
            batch_id=event.batch_id,
            state=settled["state"],
            **counts,
        )
        for fate, count in counts.items():
            if fate != "files":
                self._metrics.settled_files.labels(self._watch, fate).inc(count)


def _described(transition: Transition) -> dict[str, str | int | None]:
    return {
        "batchwatch.watch": transition.watch,
        "batchwatch.batch_id": transition.batch_id,
        "batchwatch.transition": transition.number,
        "batchwatch.from": transition.from_status,
        "batchwatch.to": transition.to_status,
    }


def _first(warned: set[_T], of: Iterable[_T]) -> set[_T]:
    """Which ``of`` these are not in ``warned`` yet; from now on they are."""
    new = set(of) - warned
    if len(warned) > WARNED_LIMIT:
        warned.clear()
    warned |= new
    return new
