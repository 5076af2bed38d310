"""Look at what the store holds, and change what is owed."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from batchwatch.cli.terminal import (
    Config,
    Json,
    fail,
    fleet_of,
    from_store,
    known_endpoint,
    moment_of,
    print_json,
    read,
    settings_of,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from batchwatch.desk import Desk
    from batchwatch.store import Views, Wanted


_PREVIEWED: Final = 10  # deliveries that are shown before they are replayed


_CANDIDATES: Final = 10  # that a beginning of an id may have meant, listed


_T = TypeVar("_T")


OfEndpoint = Annotated[str | None, typer.Option("--endpoint", help="Only to this endpoint.")]


OfType = Annotated[
    str | None, typer.Option("--type", help="Only events of this type, or of a group: batch.*.")
]


OfBatch = Annotated[str | None, typer.Option("--batch", help="Only of this batch.")]


OfState = Annotated[
    str | None,
    typer.Option("--state", help="waiting, pending, in_flight, delivered, dead or cancelled."),
]


Since = Annotated[
    str | None, typer.Option(help="Only those owed since then: a time, or how long ago, as 24h.")
]


Until = Annotated[str | None, typer.Option(help="Only those owed until then.")]


def list_batches(
    config: Config = None,
    *,
    watch: Annotated[str | None, typer.Option(help="Only this watch's.")] = None,
    status: Annotated[str | None, typer.Option(help="Only with this status.")] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=100_000, help="The most that are listed.")
    ] = 50,
    as_json: Json = False,
) -> None:
    """List batches, the last changed first."""
    from batchwatch.clock import Clock  # noqa: PLC0415

    now = Clock().now()

    async def ask(views: Views) -> tuple[list[dict[str, Any]], list[dict[str, Any]], str]:
        wanted = status.upper() if status else None
        rows = await views.batches(watch=watch, status=wanted, limit=limit)
        others = [] if rows else await views.statuses()
        return await views.judgements.with_outlook(rows, now=now), others, views.where

    rows, others, where = from_store(config, ask)
    if as_json:
        print_json(rows)
        return
    from batchwatch import tables  # noqa: PLC0415

    if rows:
        tables.print_batches(rows, now=now)
    else:
        tables.print_none(others, where=where)


def show(
    batch: Annotated[
        str, typer.Argument(metavar="BATCH", help="The batch's id, or as much of it as is unique.")
    ],
    config: Config = None,
    *,
    watch: Annotated[str | None, typer.Option(help="As this watch sees it.")] = None,
    as_json: Json = False,
) -> None:
    """Show one batch: its timeline, its files, and who was told."""
    from batchwatch.clock import Clock  # noqa: PLC0415

    now = Clock().now()

    async def ask(views: Views) -> list[dict[str, Any]]:
        rows = await _batch(views, batch, watch)
        return await views.judgements.with_outlook(rows, now=now)

    rows = from_store(config, ask)
    if as_json:
        print_json(rows)
        return
    from batchwatch import tables  # noqa: PLC0415

    for row in rows:
        tables.print_batch(row, now=now)


def deliveries(
    config: Config = None,
    *,
    endpoint: OfEndpoint = None,
    type_: OfType = None,
    batch: OfBatch = None,
    state: OfState = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=100_000, help="The most that are listed.")
    ] = 50,
    as_json: Json = False,
) -> None:
    """List deliveries, the newest first.

    What was sent where, and what came of its last try.
    """
    wanted = _wanted((), endpoint, type_, batch, state, since, until)
    rows = from_store(config, lambda views: views.deliveries(wanted, limit=limit))
    if as_json:
        print_json(rows)
        return
    from batchwatch import tables  # noqa: PLC0415

    tables.print_deliveries(rows)


def replay(
    ids: Annotated[
        list[int] | None,
        typer.Argument(metavar="ID", help="Deliveries, as batchwatch deliveries lists them."),
    ] = None,
    config: Config = None,
    *,
    endpoint: OfEndpoint = None,
    type_: OfType = None,
    batch: OfBatch = None,
    state: OfState = None,
    since: Since = None,
    until: Until = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell what would be sent again.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Send deliveries again: these, or all that match.

    Without a --state those that were given up. Each keeps its event's id, so that its receiver
    can tell it from news, and starts its retries anew. What is still being tried is left alone.
    """
    if not ids and all(one is None for one in (endpoint, type_, batch, state, since, until)):
        fail("name deliveries, or say which: --state dead for all that were given up", code=2)
    if state is None and not ids:
        state = "dead"
    wanted = _wanted(tuple(ids or ()), endpoint, type_, batch, state, since, until)

    found, first = from_store(config, lambda views: _replayable(views, wanted))
    if not found:
        fail("no delivery that has ended matches; batchwatch deliveries lists what there is")
    if not as_json:
        _preview(first, more=len(found) - len(first))
    what = _so_many(len(found))
    if not dry_run and not yes:
        _confirm(what, can_ask=sys.stdin.isatty() and not as_json)
    done = 0 if dry_run else _at_desk(config, lambda desk: desk.replay(found))
    if as_json:
        print_json({"matched": len(found), "replayed": done, "ids": found})
    elif dry_run:
        typer.echo(f"{what} would be sent again.")
    else:
        typer.echo(f"{_so_many(done)} will be sent again, {_by_whom(config)}.")


def endpoints(config: Config = None, *, as_json: Json = False) -> None:
    """List endpoints, and how they are."""
    rows = _at_desk(config, lambda desk: desk.endpoints(), writes=False)
    if as_json:
        print_json(rows)
        return
    from batchwatch import tables  # noqa: PLC0415

    tables.print_endpoints(rows)


def enable(
    endpoint: Annotated[str, typer.Argument(metavar="ENDPOINT", help="Its name in the settings.")],
    config: Config = None,
) -> None:
    """Send to a disabled endpoint again.

    What it is owed goes in order, what is older first.
    """
    known_endpoint(settings_of(config, for_run=False), endpoint)
    if _at_desk(config, lambda desk: desk.enable(endpoint)):
        typer.echo(f"{endpoint} is enabled; what it is owed is sent, {_by_whom(config)}.")
    else:
        typer.echo(f"{endpoint} was not disabled.")


def disable(
    endpoint: Annotated[str, typer.Argument(metavar="ENDPOINT", help="Its name in the settings.")],
    config: Config = None,
) -> None:
    """Send an endpoint nothing more.

    What it is owed waits until it is enabled.
    """
    known_endpoint(settings_of(config, for_run=False), endpoint)
    if _at_desk(config, lambda desk: desk.disable(endpoint)):
        typer.echo(f"{endpoint} is disabled; what it is owed waits. batchwatch enable {endpoint}")
    else:
        typer.echo(f"{endpoint} was disabled already.")


async def _batch(views: Views, beginning: str, watch: str | None) -> list[dict[str, Any]]:
    """The one batch whose id begins so, as each watch sees it, or only ``watch``."""
    ids = await views.named(beginning)
    if not ids:
        fail(f"no batch {beginning} is known in {views.where}; batchwatch ls lists those that are")
    if len(ids) > 1 and ids[0] != beginning:
        shown = "".join(f"\n  {one}" for one in ids[:_CANDIDATES])
        more = "\n  …" if len(ids) > _CANDIDATES else ""
        fail(f"{beginning} begins more than one batch; say more of it:{shown}{more}")
    rows = await views.batch(ids[0])
    seen = [row for row in rows if watch in (None, row["watch"])]
    if not seen:
        names = ", ".join(row["watch"] for row in rows)
        fail(f"batch {ids[0]} is not known to a watch {watch}, but to: {names}")
    return seen


def _at_desk(
    config: str | None, work: Callable[[Desk], Awaitable[_T]], *, writes: bool = True
) -> _T:
    """Look at the store, or change it, beside the daemon if one runs."""
    from batchwatch.clock import Clock  # noqa: PLC0415
    from batchwatch.desk import opened  # noqa: PLC0415
    from batchwatch.store import StoreError  # noqa: PLC0415

    settings = settings_of(config, for_run=False)

    async def act() -> _T:
        async with opened(settings, Clock(), writes=writes) as desk:
            return await work(desk)

    try:
        return asyncio.run(act())
    except StoreError as error:
        fail(str(error))


async def _replayable(views: Views, wanted: Wanted) -> tuple[list[int], list[dict[str, Any]]]:
    """The ids of what may be replayed, and the first of them as rows to show."""
    ids = await views.replayable(wanted)
    first = replace(wanted, ids=tuple(ids[:_PREVIEWED]))
    return ids, await views.deliveries(first, limit=_PREVIEWED) if ids else []


def _preview(rows: list[dict[str, Any]], *, more: int) -> None:
    from batchwatch import tables  # noqa: PLC0415

    tables.print_deliveries(rows)
    if more:
        typer.echo(f"… and {more} more")


def _so_many(count: int) -> str:
    return "1 delivery" if count == 1 else f"{count} deliveries"


def _confirm(what: str, *, can_ask: bool) -> None:
    if not can_ask:
        fail(f"to send {what} again without being asked, say --yes", code=2)
    typer.confirm(f"Send {what} again?", abort=True)


def _by_whom(config: str | None) -> str:
    from batchwatch.store.file import file_of, holder_of  # noqa: PLC0415

    settings = settings_of(config, for_run=False)
    file = file_of(settings.database_url.get_secret_value())
    if file is None:
        runs = any(one.is_alive for one in fleet_of(settings).replicas)
        return "by a replica that is running" if runs else "once a replica is started"
    runs = holder_of(file) is not None
    return "by the daemon that is running" if runs else "once the daemon is started"


def _wanted(
    ids: tuple[int, ...],
    endpoint: str | None,
    type_: str | None,
    batch: str | None,
    state: str | None,
    since: str | None,
    until: str | None,
) -> Wanted:
    """What the options of a command mean."""
    from batchwatch.domain.delivery import State  # noqa: PLC0415
    from batchwatch.settings.events import EventPattern  # noqa: PLC0415
    from batchwatch.settings.kinds import Choice  # noqa: PLC0415
    from batchwatch.store import Wanted  # noqa: PLC0415

    if beyond := [one for one in ids if not 0 < one < 2**63]:
        fail(f"there is no delivery {beyond[0]}; batchwatch deliveries lists what there is", code=2)
    # An empty one is a variable that was never set: refused, for without it more is meant.
    pattern = None if type_ is None else read("--type", EventPattern(), type_)
    return Wanted(
        ids=ids,
        endpoint=endpoint,
        type=None if pattern == "*" else pattern,
        batch=batch,
        state=None if state is None else read("--state", Choice(*State), state),
        since=moment_of("--since", since),
        until=moment_of("--until", until),
    )
