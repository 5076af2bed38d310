"""The first page: what runs, what is late, what failed and why, and whether everybody was told."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from batchwatch.domain.settle import likeness
from batchwatch.web.api.batches import QueryOfBatches
from batchwatch.web.api.events import QueryOfDeliveries, QueryOfEvents
from batchwatch.web.api.operation import Asked, Nothing
from batchwatch.web.api.running import QueryOfStats
from batchwatch.web.dashboard.charts import Dot
from batchwatch.web.dashboard.wording import plural

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from aiohttp import web

    from batchwatch.web.api import answers
    from batchwatch.web.api.interface import Api
    from batchwatch.web.dashboard.frame import Frame
    from batchwatch.web.live import Live

SETTLED: Final = 50  # the last batches that reasons of failures are taken from
REASONS: Final = 5
A_DAY: Final = timedelta(days=1)
_NOTHING: Final = Asked({})


@dataclass(frozen=True, slots=True)
class Concern:
    """Something that a person should know, and where there is more of it."""

    tone: str
    text: str
    link: str
    more: str = ""


@dataclass(slots=True)
class Reason:
    """Why files failed, by like messages, whichever batches they are of."""

    message: str | None
    fate: str
    watch: str
    batch: str  # the last one
    files: int = 0
    batches: int = 0


class Overview:
    """Answers with one page."""

    def __init__(self, frame: Frame, live: Live, api: Api) -> None:
        self._frame = frame
        self._live = live
        self._api = api

    async def page(self, request: web.Request) -> web.Response:
        """All of it, by the same questions that programs ask."""
        batches, events, running = self._api.batches, self._api.events, self._api.running
        now = self._live.clock.now()
        stats = await running.get_stats(QueryOfStats(total=False), _NOTHING)
        watches = await running.list_watches(Nothing(), _NOTHING)
        endpoints = await running.list_endpoints(Nothing(), _NOTHING)
        oldest = await batches.list_batches(
            QueryOfBatches(active=True, sort="created", limit=8), _NOTHING
        )
        stuck = await batches.list_batches(
            QueryOfBatches(stuck=True, sort="changed", limit=5), _NOTHING
        )
        failed = await batches.list_batches(
            QueryOfBatches(status="FAILED", since=now - A_DAY, limit=5), _NOTHING
        )
        settled = await events.list_events(
            QueryOfEvents(type="batch.settled", limit=SETTLED), _NOTHING
        )
        latest = await events.list_events(QueryOfEvents(limit=8), _NOTHING)
        dead = await events.list_deliveries(QueryOfDeliveries(state="dead", limit=5), _NOTHING)
        reasons = reasons_of(
            one.payload["data"] for one in settled.items if one.occurred_at >= now - A_DAY
        )
        return self._frame.page(
            request,
            "overview.html",
            stats=stats,
            watches=watches,
            endpoints=endpoints,
            oldest=oldest.items,
            stuck=stuck.items,
            failed=failed.items,
            latest=latest.items,
            dead=dead.items,
            reasons=reasons[:REASONS],
            concerns=list(self._concerns(stats, watches, endpoints)),
            running=sum(one.count for one in stats.active),
            active=_by_status(stats.active),
            dots=[Dot(one.batch_id, one.ended_at, one.seconds) for one in stats.took],
            latencies=stats.latencies,
        )

    def _concerns(
        self,
        stats: answers.Stats,
        watches: Sequence[answers.Watch],
        endpoints: Sequence[answers.Endpoint],
    ) -> Iterator[Concern]:
        """What is not as it should be, the gravest first."""
        link = self._frame.link
        for name, why in stats.troubles.grave.items():
            yield Concern("bad", name, link("watches"), why)
        for name, why in stats.troubles.ailing.items():
            where = link("watches") if name.startswith("watch ") else link("endpoints")
            yield Concern("held", name, where, why)
        yield from self._of_endpoints(endpoints, set(stats.troubles.ailing))
        yield from self._of_figures(stats)
        for watch in watches:
            gaps = watch.coverage.gaps if watch.coverage else []
            if count := sum(1 for one in gaps if one.closed_at is None):
                text = f"watch {watch.name}: {plural(count, 'gap')} in the last day"
                yield Concern("held", text, link("watches"), "batches of then may be unknown")

    def _of_endpoints(
        self, endpoints: Sequence[answers.Endpoint], said: set[str]
    ) -> Iterator[Concern]:
        link = self._frame.link("endpoints")
        if not endpoints:
            yield Concern("held", "nobody is told: no endpoint is set", link)
        for one in endpoints:
            if one.state in {"disabled", "failing"} and f"endpoint {one.name}" not in said:
                text = f"endpoint {one.name} is {one.state}"
                yield Concern("held", text, link, one.reason or "")

    def _of_figures(self, stats: answers.Stats) -> Iterator[Concern]:
        link = self._frame.link
        if stats.dead:
            text = f"{plural(stats.dead, 'notification')} given up"
            yield Concern("bad", text, link("deliveries", state="dead"), "each can be sent again")
        if stats.stuck:
            text = f"{plural(stats.stuck, 'batch is', 'batches are')} stuck"
            where = link("batches", stuck="true")
            yield Concern("bad", text, where, "in one status for longer than it may last")
        if stats.overdue:
            text = f"{plural(stats.overdue, 'batch is', 'batches are')} late"
            where = link("batches", active="true", sort="created")
            yield Concern("held", text, where, "longer than nine in ten like it took")


def reasons_of(told: Iterator[dict[str, Any]]) -> list[Reason]:
    """Why files failed, the most frequent first; from what ``batch.settled`` said of each batch."""
    found: dict[tuple[str, str], Reason] = {}
    for data in told:
        for group in (data.get("settled") or {}).get("groups") or ():
            message = group.get("message")
            key = (group["fate"], likeness(message or ""))
            one = found.setdefault(
                key, Reason(message, group["fate"], data["watch"], data["batch"]["id"])
            )
            one.files += group["count"]
            one.batches += 1
    return sorted(found.values(), key=lambda one: -one.files)


def _by_status(active: Sequence[answers.ActiveCount]) -> dict[str, int]:
    found: dict[str, int] = {}
    for one in active:
        found[one.status] = found.get(one.status, 0) + one.count
    return dict(sorted(found.items(), key=lambda item: -item[1]))
