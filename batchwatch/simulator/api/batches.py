"""/api/v2/batches: create, list, get, cancel."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from http import HTTPStatus
from operator import attrgetter
from typing import TYPE_CHECKING, Final

import msgspec
from aiohttp import web

from batchwatch.simulator.api.disturb import TROUBLE, as_of, disfigured
from batchwatch.simulator.api.forms import BatchForm, filled_in
from batchwatch.simulator.api.pages import Paging
from batchwatch.simulator.api.query import Query
from batchwatch.simulator.api.refusal import Refusal, json_answer, not_found
from batchwatch.simulator.job import JobConfig
from batchwatch.simulator.life import TERMINAL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchwatch.simulator.batch import Batch
    from batchwatch.simulator.webhooks import Webhooks
    from batchwatch.simulator.world import World

STATUSES: Final = ("PENDING", "THROTTLED", "RUNNING", "COMPLETED", "FAILED", "CANCELLED")
MOST_FILES: Final = 1_000  # in a batch, as upstream documents
_created: Final = attrgetter("created")


class BatchRoutes:
    """The routes of batches."""

    def __init__(self, world: World, webhooks: Webhooks) -> None:
        self._world = world
        self._webhooks = webhooks

    def routes(self) -> list[web.RouteDef]:
        """What to add to the application."""
        return [
            web.post("/v2/batches", self.create),
            web.get("/v2/batches", self.list),
            web.get("/v2/batches/{id}", self.get),
            web.post("/v2/batches/{id}/cancel", self.cancel),
        ]

    async def create(self, request: web.Request) -> web.Response:
        """Create a batch over the files that its directory holds now.

        Upstream documents no answer to more than 1,000 files; here it is 400.
        """
        form = await filled_in(request, BatchForm)
        directory = self._world.directory(form.source_directory_id)
        if directory is None:
            raise not_found("Directory", form.source_directory_id)
        if directory.size > MOST_FILES:
            detail = f"A batch takes at most {MOST_FILES} files, the directory has {directory.size}"
            raise Refusal(HTTPStatus.BAD_REQUEST, detail)
        for saved in form.webhook_configuration_ids or ():
            raise not_found("Webhook configuration", saved)
        job = form.config.job
        batch = self._world.make_batch(directory, JobConfig(job.type, job.configuration_id))
        self._webhooks.follow(batch, form.webhook_configurations or [])
        return json_answer(batch.encoded(batch.created))

    async def list(self, request: web.Request) -> web.Response:
        """The batches of a window of time, both of whose ends are part of it."""
        trouble, query = request[TROUBLE], Query(request)
        paging = Paging(query, trouble)
        since, until = query.time("created_at_on_or_after"), query.time("created_at_on_or_before")
        status = query.choice("status", STATUSES)
        directory_id = query.text("source_directory_id")
        query.refuse_if_wrong()

        at = as_of(trouble, self._world.timeline, self._world.now())
        rows: Sequence[Batch] = self._world.batches
        meant = self._world.timeline.meant
        begin = bisect_left(rows, meant(since), key=_created) if since else 0
        end = bisect_right(rows, meant(until), key=_created) if until else len(rows)

        def matches(batch: Batch) -> bool:
            return (
                batch.listed <= at
                and (status is None or batch.status(at) == status)
                and (directory_id is None or batch.directory.id == directory_id)
            )

        page = paging.cut(rows[begin:end], matches)
        if not trouble.spoils_answer:
            for batch in page.rows:
                batch.note_seen(at)
        return page.answer(at, trouble)

    async def get(self, request: web.Request) -> web.Response:
        """One batch, with the outcomes of its files if they are asked for and there are any."""
        trouble, query = request[TROUBLE], Query(request)
        expand = query.choices("expand", ("results",))
        query.refuse_if_wrong()
        batch = self._found(request)
        past = as_of(trouble, self._world.timeline, self._world.now())
        at = max(past, batch.created)  # a stale answer never denies a batch
        if not trouble.spoils_answer:
            batch.note_seen(at)
        [row] = disfigured([batch.encoded(at)], trouble)
        results = batch.results(at) if expand else None
        if results is None or trouble.strikes("null-results"):
            return json_answer(row)
        return json_answer(msgspec.json.decode(row) | {"results": results})

    async def cancel(self, request: web.Request) -> web.Response:
        """Begin to cancel; the answer shows the batch as it is now.

        "A batch in a terminal status cannot be cancelled": upstream documents no status code for
        that, here it is 409.
        """
        batch, now = self._found(request), self._world.now()
        if (status := batch.status(now)) in TERMINAL:
            detail = f"Batch {batch.id} is {status} and cannot be cancelled"
            raise Refusal(HTTPStatus.CONFLICT, detail)
        self._world.cancel(batch)
        self._webhooks.look_again(batch)
        return json_answer(batch.encoded(now))

    def _found(self, request: web.Request) -> Batch:
        batch_id = request.match_info["id"]
        batch = self._world.batch(batch_id)
        if batch is None:
            raise not_found("Batch", batch_id)
        return batch
