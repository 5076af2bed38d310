"""/api/v2/parse and /api/v2/extract: the jobs behind the files, by their ids."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Final

import msgspec
from aiohttp import web

from batchwatch.simulator.api.disturb import TROUBLE, as_of, disfigured
from batchwatch.simulator.api.pages import Paging
from batchwatch.simulator.api.query import Query
from batchwatch.simulator.api.refusal import json_answer, not_found

if TYPE_CHECKING:
    from batchwatch.simulator.job import Job, JobType
    from batchwatch.simulator.world import World

_STATUSES: Final = ("PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED")
_key: Final = attrgetter("key")


class JobRoutes:
    """The routes of one product's jobs."""

    def __init__(self, world: World, job_type: JobType) -> None:
        self._world = world
        self._type = job_type
        self._is_parse = job_type == "parse_v2"

    def routes(self) -> list[web.RouteDef]:
        """What to add to the application."""
        path = "/v2/parse" if self._is_parse else "/v2/extract"
        return [web.get(path, self.list), web.get(f"{path}/{{id}}", self.get)]

    async def list(self, request: web.Request) -> web.Response:
        """The jobs of some ids, or all there are; ids that are unknown are passed over.

        How many ids upstream takes is not documented. Here the request line sets the limit: 8 KiB,
        which is room for about 150.
        """
        trouble, query = request[TROUBLE], Query(request)
        paging = Paging(query, trouble)
        ids = query.texts("job_ids")
        since, until = query.time("created_at_on_or_after"), query.time("created_at_on_or_before")
        # Extract documents THROTTLED as a filter, though no job is said to have that status.
        status = query.choice("status", _STATUSES if self._is_parse else (*_STATUSES, "THROTTLED"))
        query.refuse_if_wrong()

        now = self._world.now()
        at = as_of(trouble, self._world.timeline, now)
        meant, jobs = self._world.timeline.meant, self._world.jobs()
        begin, end = meant(since) if since else 0, meant(until) if until else now
        named = [jobs[job_id] for job_id in set(ids) if job_id in jobs] if ids else jobs.values()

        def matches(job: Job) -> bool:
            state = job.status(at)
            return state is not None and (status is None or state == status)

        rows = [
            job for job in named if job.config.type == self._type and begin <= job.created <= end
        ]
        return paging.cut(sorted(rows, key=_key), matches).answer(at, trouble)

    async def get(self, request: web.Request) -> web.Response:
        """One job; parse nests it under "job", extract does not."""
        trouble, now = request[TROUBLE], self._world.now()
        job = self._world.jobs().get(request.match_info["id"])
        if job is None or job.config.type != self._type or job.status(now) is None:
            raise not_found("Job", request.match_info["id"])
        at = max(job.created, as_of(trouble, self._world.timeline, now))
        [row] = disfigured([job.encoded(at)], trouble)
        return json_answer({"job": msgspec.Raw(row)} if self._is_parse else row)
