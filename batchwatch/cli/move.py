"""Bring a store up to date, and move it into another one."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated

import typer

from batchwatch.cli.terminal import (
    INTERRUPTED,
    Config,
    Json,
    fail,
    print_json,
    read,
    settings_of,
    until_stopped,
)

if TYPE_CHECKING:
    from batchwatch.settings.urls import DatabaseUrl
    from batchwatch.store.copying import Copy


def migrate(
    config: Config = None,
    *,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit with 1 if there is work to do.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Bring the store's schema up to date.

    The daemon does so at its start; this is for a job before a rollout. Replicas of the version
    before may go on meanwhile.
    """
    from batchwatch import log  # noqa: PLC0415
    from batchwatch.store import Database, StoreError  # noqa: PLC0415
    from batchwatch.store.file import file_of  # noqa: PLC0415
    from batchwatch.store.schema import HEAD  # noqa: PLC0415

    url = settings_of(config, for_run=False).database_url.get_secret_value()
    log.configure(style="console", level="warning")  # tells what it waits for
    file = file_of(url)

    async def look() -> tuple[str, str | None]:
        if file is not None and not file.exists():
            return str(file), None
        database = await Database.attach(url, lock=False, writes=False)
        try:
            return database.where, await database.version()
        finally:
            await database.close()

    async def act() -> tuple[str, str | None, bool]:
        where, version = await look()
        if check or (version is not None and version >= HEAD):
            return where, version, version is None or version < HEAD
        database = await Database.open(url)
        await database.close()
        return where, database.found, False

    try:
        where, before, pending = asyncio.run(act())
    except StoreError as error:
        fail(str(error))
    after = max(before or HEAD, HEAD)
    if as_json:
        print_json({"store": where, "from": before, "to": after, "pending": pending})
    else:
        typer.echo(f"{where}: {_in_words(before, HEAD, pending=pending)}")
    raise typer.Exit(1 if pending else 0)


def copy(
    config: Config = None,
    *,
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="URL", help="Without it, the store that is set."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option("--to", metavar="URL", help="An empty one; without it, the one that is set."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Copy the whole store into an empty one.

    From SQLite to PostgreSQL, or back. One of the two may be the store that is set, so that no
    password need be an argument. No daemon may run on either. Both are compared in the end; if it
    is interrupted, the same command goes on where it was.
    """
    from batchwatch import log  # noqa: PLC0415
    from batchwatch.cli.progress import Work  # noqa: PLC0415
    from batchwatch.clock import Clock  # noqa: PLC0415
    from batchwatch.store import StoreError  # noqa: PLC0415
    from batchwatch.store.copying import opened  # noqa: PLC0415

    urls = _urls(config, source, target)
    log.configure(style="console", level="warning")
    clock = Clock()
    begun = clock.monotonic()

    async def act(stop: asyncio.Event) -> Copy | None:
        async with opened(*(one.get_secret_value() for one in urls)) as job:
            with Work(clock) as work:
                async with aclosing(job.run()) as steps:
                    async for one in steps:
                        work.tell(one.work, one.about, done=one.done, total=one.total)
                        if stop.is_set():
                            return None
            return job

    try:
        done = until_stopped(act)
    except StoreError as error:
        fail(str(error))
    if done is None:
        fail("interrupted; the same command goes on where it was", code=INTERRUPTED)
    seconds = clock.monotonic() - begun
    if as_json:
        print_json({
            "from": done.source.where,
            "to": done.target.where,
            "rows": done.rows,
            "replaced": done.replaced,
            "seconds": round(seconds, 3),
        })  # fmt: skip
        return
    for table, count in done.rows.items():
        if count:
            typer.echo(f"{table:<16} {count:>12,}")
    if done.replaced:
        typer.echo(
            f"{done.replaced:,} texts held NUL characters; each is now \N{REPLACEMENT CHARACTER}."
        )
    typer.echo(
        f"{done.target.where} holds the same as {done.source.where}, after {seconds:.0f} s. Set "
        "BATCHWATCH_DATABASE_URL to it, and start the daemon."
    )


def _in_words(before: str | None, head: str, *, pending: bool) -> str:
    if pending:
        now = "there is no store yet" if before is None else f"its schema is {before}"
        return f"{now}; batchwatch migrate brings it to {head}"
    if before is None:
        return f"made, with the schema {head}"
    if before < head:
        return f"migrated from the schema {before} to {head}"
    if before > head:
        return f"its schema is {before}, newer than {head}, and can be used; nothing to do"
    return f"its schema is {head}; nothing to do"


def _urls(config: str | None, source: str | None, target: str | None) -> list[DatabaseUrl]:
    """Where from and where to; at most one of them is the store that is set."""
    from batchwatch.settings.urls import Database  # noqa: PLC0415

    if source is None and target is None:
        fail(
            "say where from, with --from, or where to, with --to; the other is what is set", code=2
        )
    urls = [
        settings_of(config, for_run=False).database_url
        if given is None
        else read(name, Database(), given)
        for name, given in (("--from", source), ("--to", target))
    ]
    if urls[0].get_secret_value() == urls[1].get_secret_value():
        fail(f"{urls[0].shown} is both where from and where to; name another for one", code=2)
    return urls
