"""Follow what a daemon tells, event by event."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, Final

import typer

from batchwatch.cli.terminal import (
    INTERRUPTED,
    Config,
    Json,
    fail,
    moment_of,
    settings_of,
    until_stopped,
)

if TYPE_CHECKING:
    import asyncio

    from batchwatch.settings import Settings

TOKENS: Final = ("BATCHWATCH_API_TOKEN", "BATCHWATCH_READ_TOKEN")


def tail(
    config: Config = None,
    *,
    type_: Annotated[
        str | None,
        typer.Option("--type", help="Only events of this type, or of a group: batch.*."),
    ] = None,
    watch: Annotated[str | None, typer.Option(help="Only of this watch.")] = None,
    batch: Annotated[str | None, typer.Option("--batch", help="Only of this batch.")] = None,
    since: Annotated[
        str | None, typer.Option(help="From when on: a time, or how long ago, as 1h.")
    ] = None,
    after: Annotated[
        int | None, typer.Option(min=0, help="After this place (seq); 0 for all that there are.")
    ] = None,
    count: Annotated[
        int | None, typer.Option("--count", "-n", min=1, help="End after so many.")
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Of another daemon; its token is taken from BATCHWATCH_API_TOKEN or "
            "BATCHWATCH_READ_TOKEN.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Follow the events of a running daemon, over HTTP.

    What is new, or what there is since a moment or a place, too. When the daemon is restarted it
    goes on where it was. With --json a line for each event, for pipes.
    """
    from batchwatch.following import Unfollowable  # noqa: PLC0415

    if since is not None and after is not None:
        fail("give --since or --after, and not both", code=2)
    if url is None:
        url, token = _ours(settings_of(config, for_run=False))
    else:
        if not url.startswith(("http://", "https://")):
            fail(f"--url: {url!r} is no URL such as http://127.0.0.1:8080", code=2)
        token = next((found for name in TOKENS if (found := os.environ.get(name))), None)
    moment = moment_of("--since", since)
    fields = {"type": type_, "watch": watch, "batch": batch}
    wanted = {name: value for name, value in fields.items() if value is not None}

    async def work(stop: asyncio.Event) -> int:
        from contextlib import aclosing  # noqa: PLC0415

        from batchwatch.clock import Clock  # noqa: PLC0415
        from batchwatch.following import Daemon, first  # noqa: PLC0415

        daemon = Daemon(url, token=token, clock=Clock())
        place = after if moment is None else await daemon.place_of(moment)
        following = daemon.follow(wanted, after=place, on_lost=_lost)
        shown = 0
        async with aclosing(first(following, count, stop)) as events:
            async for event in events:
                _show(event, as_json=as_json)
                shown += 1
        return 0 if shown == count else INTERRUPTED

    try:
        code = until_stopped(work)
    except Unfollowable as error:
        fail(str(error))
    except BrokenPipeError:
        # Whoever read has gone, as head does; Python would complain of it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    raise typer.Exit(code)


def _ours(settings: Settings) -> tuple[str, str | None]:
    """Where the daemon of these settings listens, and what it wants."""
    listen = settings.listen
    if listen.port == 0:
        fail("the daemon takes any free port; name its address with --url", code=2)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen.host, listen.host)  # noqa: S104  # compared
    host = f"[{host}]" if ":" in host else host
    secret = settings.api_token or settings.read_token
    url = f"http://{host}:{listen.port}{settings.path_prefix or ''}"
    return url, secret.get_secret_value() if secret else None


def _lost(reason: str) -> None:
    typer.echo(f"batchwatch: the connection was lost ({reason}); trying again", err=True)


def _show(event: dict[str, object], *, as_json: bool) -> None:
    if as_json:
        import json  # noqa: PLC0415

        sys.stdout.write(json.dumps(event, ensure_ascii=False) + "\n")
    else:
        from batchwatch import tables  # noqa: PLC0415

        tables.print_event(event)
    sys.stdout.flush()  # a pipe must not have to wait for more
