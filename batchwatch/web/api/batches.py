"""Batches, with their stories and files."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from batchwatch.domain.settle import Fate
from batchwatch.store import WantedBatches, WantedDeliveries, WantedEvents
from batchwatch.web import cursor
from batchwatch.web.api import answers
from batchwatch.web.api.events import delivery_of
from batchwatch.web.api.operation import (
    PRINTABLE,
    Asked,
    Limit,
    Moment,
    Nothing,
    Text,
    given,
    operation,
)
from batchwatch.web.problem import Problem

if TYPE_CHECKING:
    from batchwatch.web.live import Live

STORY: Final = 200  # events and deliveries that come with a batch, the newest

FateName = Literal["open", "succeeded", "failed", "cancelled", "unmapped", "jobless", "unknown"]


class QueryOfBatches(Struct, forbid_unknown_fields=True):
    """Which batches; those that match all that is given."""

    watch: Text | UnsetType = UNSET
    status: Text | UnsetType = UNSET
    active: Annotated[bool, Meta(description="Only those that are followed.")] = False
    stuck: Annotated[bool, Meta(description="Only those that are told of as stuck.")] = False
    directory: Text | UnsetType = UNSET
    text: (
        Annotated[
            str,
            Meta(
                min_length=1,
                max_length=200,
                pattern=f"^{PRINTABLE}+$",
                description="The beginning of a batch's id, or else a part of the id of a "
                "directory, configuration or project.",
            ),
        ]
        | UnsetType
    ) = UNSET
    since: Annotated[Moment, Meta(description="Of what they are sorted by.")] | UnsetType = UNSET
    until: Moment | UnsetType = UNSET
    sort: Literal["changed", "-changed", "created", "-created"] = "-changed"
    limit: Limit = 50
    cursor: cursor.OfBatches | UnsetType = UNSET


class QueryOfFiles(Struct, forbid_unknown_fields=True):
    """Which files of a batch."""

    fate: FateName | UnsetType = UNSET
    limit: Annotated[int, Meta(ge=1, le=1000)] = 200
    cursor: cursor.OfNumbers | UnsetType = UNSET


class Batches:
    """What is known of batches."""

    def __init__(self, live: Live) -> None:
        self._live = live

    @operation("GET", "/batches", tag="batches")
    async def list_batches(
        self, query: QueryOfBatches, _asked: Asked
    ) -> answers.Page[answers.Batch]:
        """List batches, the last changed first.

        Filtered, sorted and searched by what is given.
        """
        fields = given(query)
        sort, limit = fields.pop("sort"), fields.pop("limit")
        after = cursor.of_batches(fields.pop("cursor", None))
        wanted = WantedBatches(
            **fields, by_creation=sort.endswith("created"), oldest_first=not sort.startswith("-")
        )
        page = await self._live.store.pages.batches(wanted, after=after, limit=limit)
        rows = await self._outlook(page.rows)
        return answers.Page([batch_of(row) for row in rows], cursor.to_text(page.after))

    @operation("GET", "/batches/{watch}/{batch_id}", tag="batches", finds=True)
    async def get_batch(self, query: Nothing, asked: Asked) -> answers.WholeBatch:
        """Get one batch, with its timeline, its files in numbers, and who was told.

        Of its events and deliveries the newest 200; the lists of these have all.
        """
        del query
        row = await self._found(asked)
        pages = self._live.store.pages
        watch, batch_id = row["watch"], row["id"]
        told = await pages.events(
            WantedEvents(batch=batch_id, watch=watch), limit=STORY, whole=False
        )
        sent = await pages.deliveries(WantedDeliveries(batch=batch_id, watch=watch), limit=STORY)
        return answers.WholeBatch(
            **_fields(row),
            transitions=[
                answers.Transition(
                    number=one["number"],
                    from_status=one["from_status"],
                    to_status=one["to_status"],
                    observed_at=one["observed_at"],
                    updated_at=one["updated_at"],
                )
                for one in await self._live.store.views.transitions(watch, batch_id)
            ],
            files=fates_of(await self._live.store.views.files(row)),
            events=[
                answers.Told(one["id"], one["type"], one["transition"], one["occurred_at"])
                for one in reversed(told.rows)
            ],
            deliveries=[delivery_of(one) for one in reversed(sent.rows)],
        )

    @operation("GET", "/batches/{watch}/{batch_id}/files", tag="batches", finds=True)
    async def list_files(self, query: QueryOfFiles, asked: Asked) -> answers.Page[answers.File]:
        """List the files of a batch, and what became of each.

        In the order of its results; there are none before it has ended.
        """
        row = await self._found(asked)
        start = 0 if query.cursor is UNSET else int(query.cursor)
        # By their places among all: those of a fate become more and fewer meanwhile.
        files = [
            (place, one)
            for place, one in enumerate(await self._live.store.views.files(row), start=1)
            if place > start and query.fate in (UNSET, one["fate"] or "open")
        ]
        some = files[: query.limit]
        return answers.Page(
            [_file(one) for _, one in some],
            str(some[-1][0]) if len(files) > len(some) else None,
        )

    async def _found(self, asked: Asked) -> dict[str, Any]:
        watch, batch_id = asked.path["watch"], asked.path["batch_id"]
        row = await self._live.store.pages.batch(watch, batch_id)
        if row is None:
            raise Problem(404, f"watch {watch} knows no batch {batch_id}")
        return (await self._outlook([row]))[0]

    async def _outlook(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        judgements = self._live.store.views.judgements
        return await judgements.with_outlook(rows, now=self._live.clock.now())


def batch_of(row: dict[str, Any]) -> answers.Batch:
    """A row of batches as it is answered."""
    return answers.Batch(**_fields(row))


def fates_of(files: list[dict[str, Any]]) -> answers.Fates:
    """How many files had which fate."""
    counts = Counter("open" if one["fate"] is None else str(one["fate"]) for one in files)
    return answers.Fates(
        files=len(files), open=counts["open"], **{one.value: counts[one.value] for one in Fate}
    )


def _fields(row: dict[str, Any]) -> dict[str, Any]:
    expected, stuck = row["expected"], row["stuck"]
    return {
        name: row[name]
        for name in (
            "watch", "id", "status", "previous_status", "project_id", "source_directory_id",
            "job_type", "configuration_id", "created_at", "updated_at", "first_seen_at",
            "changed_at", "vanished_at", "file_count", "results", "settling",
        )
    } | {
        "active": bool(row["active"]),
        "durations": row["lasted"],
        "expected": None if expected is None else answers.Expected(
            **{**expected, "ends_at": datetime.fromisoformat(expected["ends_at"])}
        ),
        "stuck": None if stuck is None else answers.Stuck(
            since=stuck["since"],
            rule=stuck["rule"],
            limit=stuck["limit"],
            reminders=stuck["told"],
        ),
    }  # fmt: skip


def _file(row: dict[str, Any]) -> answers.File:
    return answers.File(
        source_directory_file_id=row["source_directory_file_id"],
        name=row["name"],
        fate=row["fate"],
        job_type=row["job_type"],
        job_id=row["job_id"],
        job_status=row["job_status"],
        message=row["error_message"] or row["job_error"],
    )
