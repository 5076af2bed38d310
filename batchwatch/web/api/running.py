"""What runs: watches, endpoints, and how it all goes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

from msgspec import UNSET, Meta, Struct, UnsetType

from batchwatch.domain.batch import WatchName
from batchwatch.domain.cadence import silence_allowed
from batchwatch.domain.expect import quantile
from batchwatch.domain.proof import proof_of
from batchwatch.store import WantedBatches
from batchwatch.web.api import answers
from batchwatch.web.api.operation import Asked, Moment, Nothing, operation
from batchwatch.web.problem import Problem
from batchwatch.web.route import Role

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchwatch.llamacloud.budget import Allowance
    from batchwatch.store.replicas import Fleet
    from batchwatch.web.live import Live, WatchNow

A_DAY: Final = timedelta(days=1)
OLDEST: Final = 100  # active batches that are compared with what is expected of them
HOURS: Final = 24
_EARLIEST: Final = datetime(1970, 1, 2, tzinfo=UTC)  # nothing was watched before, by any clock


class Since(Struct, forbid_unknown_fields=True):
    """From when on; a day ago if that is not said."""

    since: Moment | UnsetType = UNSET


class QueryOfStats(Struct, forbid_unknown_fields=True):
    """Which figures."""

    total: Annotated[bool, Meta(description="Whether all batches are counted, by status.")] = True


class Running:
    """What the daemon does, and what it can be told to do."""

    def __init__(self, live: Live) -> None:
        self._live = live

    @operation("GET", "/stats", tag="overview")
    async def get_stats(self, query: QueryOfStats, _asked: Asked) -> answers.Stats:
        """Get the figures of the overview.

        The counts of all batches are the only ones that take longer as these grow.
        """
        now = self._live.clock.now()
        figures = self._live.store.figures
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        # One after another: at once, their threads would wait for each other's turns.
        troubles = await self._live.troubles()
        active = await figures.active()
        took, told = await figures.durations(), await figures.latencies()
        owed, dead = await self._owed()
        return answers.Stats(
            now=now,
            started_at=self._live.started_at,
            batches=await figures.by_status() if query.total else None,
            active=[answers.ActiveCount(*one) for one in active],
            stuck=await figures.stuck(),
            overdue=await self._overdue(now),
            ended_today=dict(await figures.ended(since=midnight)),
            hours=[
                answers.Hour(start, ended)
                for start, ended in await figures.by_hour(now=now, hours=HOURS)
            ],
            duration=spread_of([one.seconds for one in took]),
            took=[
                answers.Took(one.watch, one.name, one.ended_at, round(one.seconds, 3))
                for one in took
            ],
            latency=spread_of([one.seconds for one in told]),
            latencies=[round(one.seconds, 3) for one in told],
            troubles=answers.Troubles(dict(troubles.grave), dict(troubles.ailing)),
            owed=owed,
            dead=dead,
        )

    @operation("GET", "/watches", tag="watches")
    async def list_watches(self, query: Nothing, _asked: Asked) -> list[answers.Watch]:
        """List the watches, with their health, budgets, and the coverage of the last day."""
        del query
        now = self._live.clock.now()
        active = await self._live.store.views.active()
        watches = await self._live.watches()
        covered = await self._coverage(now - A_DAY, now, watches)
        return [
            answers.Watch(
                name=one.name,
                base_url=one.base_url,
                project_id=one.project_id,
                organization_id=one.organization_id,
                source_directory_id=one.source_directory_id,
                interval=one.interval,
                holder=one.holder,
                last_good_poll=one.last_good_poll(now),
                active=active.get(one.name, 0),
                takes_hints=one.takes_hints,
                troubles=list(one.troubles),
                budget=None if one.allowance is None else _budget(one.allowance),
                coverage=covered.get(one.name),
            )
            for one in watches
        ]

    @operation("GET", "/watches/{watch}/coverage", tag="watches", finds=True)
    async def get_coverage(self, query: Since, asked: Asked) -> answers.Coverage:
        """Get what was watched since a moment, and what was not.

        As `batchwatch prove` says it, on LlamaCloud's clock.
        """
        one = await self._watch(asked)
        now = self._live.clock.now()
        since = now - A_DAY if query.since is UNSET else max(_EARLIEST, min(query.since, now))
        found = (await self._coverage(since, now, [one])).get(one.name)
        if found is None:
            raise Problem(404, f"watch {one.name} has not begun yet")
        return found

    @operation(
        "POST", "/watches/{watch}/poll", tag="watches", role=Role.ADMIN, status=202, finds=True
    )
    async def poll_watch(self, query: Nothing, asked: Asked) -> answers.Accepted:
        """Look at once, within the watch's budget."""
        del query
        self._live.poll((await self._watch(asked)).name)
        return answers.Accepted(accepted=True)

    @operation("GET", "/replicas", tag="replicas")
    async def list_replicas(self, query: Nothing, _asked: Asked) -> answers.Replicas:
        """List the daemons that share the store, and which of them polls which watch.

        On a store that is a file that is this daemon alone.
        """
        del query
        fleet = await self._live.fleet()
        held = [self._held(one, fleet) for one in await self._live.watches()]
        return answers.Replicas.of(fleet, held, shared=self._live.is_shared)

    @operation("GET", "/endpoints", tag="endpoints")
    async def list_endpoints(self, query: Nothing, _asked: Asked) -> list[answers.Endpoint]:
        """List the endpoints, with their health.

        Those are among them that are no longer set, and owed something.
        """
        del query
        return [await self._endpoint(row) for row in await self._live.endpoints()]

    @operation("GET", "/endpoints/{endpoint}", tag="endpoints", finds=True)
    async def get_endpoint(self, query: Nothing, asked: Asked) -> answers.Endpoint:
        """Get one endpoint, with its health."""
        del query
        return await self._endpoint(await self._row(asked))

    @operation("POST", "/endpoints/{endpoint}/test", tag="endpoints", role=Role.ADMIN, finds=True)
    async def test_endpoint(self, query: Nothing, asked: Asked) -> answers.Answer:
        """Send a test to an endpoint, and wait for what it says.

        Nothing of it is kept. One that is disabled is sent to, too.
        """
        del query
        attempt = await self._live.test(await self._set(asked))
        return answers.Answer(
            delivered=attempt.failure is None,
            started_at=attempt.started_at,
            duration=attempt.duration,
            status_code=attempt.status_code,
            failure=attempt.failure,
            detail=attempt.detail,
            response=attempt.response,
        )

    @operation("POST", "/endpoints/{endpoint}/enable", tag="endpoints", role=Role.ADMIN, finds=True)
    async def enable_endpoint(self, query: Nothing, asked: Asked) -> answers.Changed:
        """Send to a disabled endpoint again, what it is owed first."""
        del query
        return answers.Changed(await self._live.enable(await self._set(asked)))

    @operation(
        "POST", "/endpoints/{endpoint}/disable", tag="endpoints", role=Role.ADMIN, finds=True
    )
    async def disable_endpoint(self, query: Nothing, asked: Asked) -> answers.Changed:
        """Send an endpoint nothing more; what it is owed waits."""
        del query
        return answers.Changed(await self._live.disable(await self._set(asked)))

    async def _watch(self, asked: Asked) -> WatchNow:
        name = asked.path["watch"]
        for one in await self._live.watches():
            if one.name == name:
                return one
        raise Problem(404, f"there is no watch {name}")

    def _held(self, one: WatchNow, fleet: Fleet) -> answers.Held:
        return answers.Held.of(
            one.name,
            fleet.holdings.get(WatchName(one.name)),
            holder=one.holder,
            since=None if self._live.is_shared else self._live.started_at,
            last_good_poll=one.last_good_poll(fleet.now),
        )

    async def _row(self, asked: Asked) -> dict[str, Any]:
        name = asked.path["endpoint"]
        for row in await self._live.endpoints():
            if row["endpoint"] == name:
                return row
        raise Problem(404, f"there is no endpoint {name}")

    async def _set(self, asked: Asked) -> str:
        row = await self._row(asked)
        if row["type"] is None:
            raise Problem(409, f"endpoint {row['endpoint']} is no longer set; there is no URL")
        return str(row["endpoint"])

    async def _endpoint(self, row: dict[str, Any]) -> answers.Endpoint:
        tries = await self._live.store.figures.tries(row["endpoint"])
        return answers.Endpoint(
            name=row["endpoint"],
            type=row["type"],
            url=row["url"],
            state=row["state"],
            since=row["since"],
            reason=row["reason"],
            trouble=row["trouble"],
            owed=row["owed"],
            dead=row["dead"],
            tried=tries.tried,
            success_rate=tries.taken / tries.tried if tries.tried else None,
            p95=spread_of(tries.seconds).p95,
        )

    async def _owed(self) -> tuple[int, int]:
        rows = await self._live.store.views.outbox()
        dead = sum(one.count for one in rows if one.state == "dead")
        return sum(one.count for one in rows) - dead, dead

    async def _overdue(self, now: datetime) -> int:
        wanted = WantedBatches(active=True, by_creation=True, oldest_first=True)
        page = await self._live.store.pages.batches(wanted, limit=OLDEST)
        rows = await self._live.store.views.judgements.with_outlook(page.rows, now=now)
        return sum(1 for row in rows if row["expected"] and row["expected"]["overdue"])

    async def _coverage(
        self, since: datetime, now: datetime, watches: Sequence[WatchNow]
    ) -> dict[str, answers.Coverage]:
        # A little more than asked for, since upstream's clock may be another.
        rows = await self._live.store.views.ledgers(since - A_DAY)
        intervals = {one.name: one.interval for one in watches}
        found = {}
        for row in rows:
            if row["name"] not in intervals:
                continue
            proven = proof_of(
                row["name"],
                row["ledger"],
                skew=row["skew"],
                since=since,
                now=now,
                allowed=silence_allowed(intervals[row["name"]]),
                trouble=row["trouble"],
            )
            found[row["name"]] = answers.Coverage(
                since=proven["since"],
                began=proven["began"],
                kept_from=proven["kept_from"],
                covered_to=proven["covered_to"],
                passes=proven["passes"],
                gaps=[
                    answers.Gap(
                        start=one["from"],
                        end=one["to"],
                        seconds=one["seconds"],
                        kind=one["kind"],
                        reason=one["reason"],
                        closed_at=one["closed_at"],
                    )
                    for one in proven["gaps"]
                ],
            )
        return found


def _budget(allowance: Allowance) -> answers.Budget:
    return answers.Budget(
        left=allowance.left,
        most=allowance.most,
        per_minute=allowance.per_minute,
        configured=allowance.configured,
        paused_for=allowance.paused_for,
    )


def spread_of(seconds: Sequence[float]) -> answers.Spread:
    """How durations are spread."""
    ordered = tuple(sorted(seconds))
    if not ordered:
        return answers.Spread(0, None, None)
    return answers.Spread(len(ordered), quantile(ordered, 0.5), quantile(ordered, 0.95))
