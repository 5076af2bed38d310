"""Judge upstream's own webhooks: what should have come, and what came."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from batchwatch.cli.terminal import Config, Json, fail, moment_of, print_json, settings_of

if TYPE_CHECKING:
    from datetime import datetime

    from batchwatch.domain.audit import Audit, Course, Judged


def audit(
    config: Config = None,
    *,
    since: Annotated[
        str, typer.Option(help="Changes since then: a time, or how long ago, as 24h.")
    ] = "7d",
    watch: Annotated[str | None, typer.Option(help="Only this watch's.")] = None,
    every: Annotated[
        bool,
        typer.Option("--all", help="Also batches of which no webhook came: all were made with it."),
    ] = False,
    as_json: Json = False,
) -> None:
    """List upstream webhooks that were missed, late or out of order.

    For batches that were made with webhooks to batchwatch: what LlamaCloud should have sent, by
    the statuses that were observed, against what came. Exit code 1 if anything is amiss.
    """
    from batchwatch.clock import Clock  # noqa: PLC0415
    from batchwatch.domain.audit import Fault  # noqa: PLC0415
    from batchwatch.domain.audit import audit as judge  # noqa: PLC0415
    from batchwatch.domain.hint import KEPT  # noqa: PLC0415

    now = Clock().now()
    begin = moment_of("--since", since) or now
    if begin < now - KEPT - timedelta(minutes=1):
        fail(f"--since: webhooks are kept for {KEPT.days} days; say {KEPT.days}d or less", code=2)
    found = judge(_courses(config, since=begin, watch=watch, every=every), now=now)
    if as_json:
        print_json(_summary(found) | {"since": begin, "amiss": [_row(one) for one in found.amiss]})
    else:
        from batchwatch import tables  # noqa: PLC0415

        tables.print_audit([_row(one) for one in found.amiss], _summary(found))
    if any(set(one.faults) != {Fault.UNCONFIRMED} for one in found.amiss):
        raise typer.Exit(1)


def _courses(
    config: str | None, *, since: datetime, watch: str | None, every: bool
) -> list[Course]:
    from batchwatch.store import Database, Hints, StoreError  # noqa: PLC0415

    settings = settings_of(config, for_run=False)

    async def look() -> list[Course]:
        database = await Database.open(settings.database_url.get_secret_value(), exclusive=False)
        try:
            return await Hints(database).courses(since=since, watch=watch, every=every)
        finally:
            await database.close()

    try:
        return asyncio.run(look())
    except StoreError as error:
        fail(str(error))


def _summary(found: Audit) -> dict[str, Any]:
    from batchwatch.domain.audit import Fault  # noqa: PLC0415

    return {
        "batches": found.batches,
        "expected": len(found.judged),
        "came": found.came,
        **{fault.value: found.count(fault) for fault in Fault},
        "repeated": found.repeated,
        "unseen": found.unseen,
        "silent": list(found.silent),
    }


def _row(one: Judged) -> dict[str, Any]:
    late = None if one.received_at is None else (one.received_at - one.changed_at).total_seconds()
    return {
        "watch": one.watch,
        "batch_id": one.batch_id,
        "type": one.type,
        "faults": [fault.value for fault in one.faults],
        "changed_at": one.changed_at,
        "received_at": one.received_at,
        "seconds": late,
        "behind": one.behind,
    }
