"""How all commands read what they are given, speak, and end."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn, TypeVar

import typer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from datetime import datetime

    from batchwatch.settings import Settings
    from batchwatch.settings.kinds import Kind
    from batchwatch.store import Views
    from batchwatch.store.replicas import Fleet


_T = TypeVar("_T")

INTERRUPTED: Final = 130  # by Ctrl-C or SIGTERM


Config = Annotated[
    str | None,
    typer.Option("--config", "-c", metavar="FILE", help="A YAML file with settings."),
]


Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def settings_of(config: str | None, *, for_run: bool = True) -> Settings:
    """What is set; what is wrong with it ends the command. ``for_run`` asks for all of it."""
    from batchwatch.settings import SettingsError, load  # noqa: PLC0415

    try:
        return load(config, for_run=for_run)
    except SettingsError as error:
        fail(str(error), code=2)


def read(name: str, kind: Kind[_T], text: str) -> _T:
    """``text`` as a setting of this kind would read it; wrong ones are told in the same way."""
    from batchwatch.settings.problems import Invalid, Problem  # noqa: PLC0415

    try:
        return kind.parse(text)
    except Invalid as wrong:
        fail(str(Problem(name, wrong.given, wrong.expected, wrong.fix)), code=2)


def moment_of(name: str, text: str | None) -> datetime | None:
    """A moment as people say it: a time, or how long ago."""
    from datetime import UTC, datetime, timedelta  # noqa: PLC0415

    from batchwatch.settings.durations import EXAMPLES, parse_duration  # noqa: PLC0415

    if text is None:
        return None
    try:
        return datetime.now(UTC) - timedelta(seconds=parse_duration(text))
    except (ValueError, OverflowError):
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        fail(
            f"{name}: {text!r} is neither a time such as 2026-11-24T08:00:00Z nor how long ago, "
            f"such as {EXAMPLES}",
            code=2,
        )
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def from_store(config: str | None, ask: Callable[[Views], Awaitable[_T]]) -> _T:
    """What ``ask`` finds in the store; one that cannot be read ends the command."""
    from batchwatch.store import Database, StoreError, Views  # noqa: PLC0415

    settings = settings_of(config, for_run=False)

    async def look() -> _T:
        database = await Database.open(settings.database_url.get_secret_value(), exclusive=False)
        try:
            return await ask(Views(database))
        finally:
            await database.close()

    try:
        return asyncio.run(look())
    except StoreError as error:
        fail(str(error))


def fleet_of(settings: Settings) -> Fleet:
    """Who shares the store; one that cannot be read ends the command."""
    from batchwatch.store import Database, StoreError  # noqa: PLC0415
    from batchwatch.store.replicas import Replicas  # noqa: PLC0415

    async def look() -> Fleet:
        database = await Database.open(settings.database_url.get_secret_value(), exclusive=False)
        try:
            return await Replicas(database).fleet()
        finally:
            await database.close()

    try:
        return asyncio.run(look())
    except StoreError as error:
        fail(str(error))


def known_watch(settings: Settings, name: str) -> None:
    """End the command if there is no such watch."""
    if name not in settings.watches:
        names = ", ".join(settings.watches)
        fail(f"there is no watch {name}; those that are set: {names}", code=2)


def known_endpoint(settings: Settings, name: str) -> None:
    """End the command if there is no such endpoint."""
    if name not in settings.endpoints:
        names = ", ".join(settings.endpoints) or "none"
        fail(f"there is no endpoint {name}; those that are set: {names}", code=2)


def until_stopped(work: Callable[[asyncio.Event], Coroutine[Any, Any, _T]]) -> _T:
    """Run ``work`` with an event that the first SIGTERM or Ctrl-C sets; the second is not kind."""

    async def supervised() -> _T:
        stop = asyncio.Event()

        def on_signal() -> None:
            if stop.is_set():
                os._exit(INTERRUPTED)  # everything that matters is in the store
            stop.set()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal)
        return await work(stop)

    return asyncio.run(supervised())


def print_json(value: object) -> None:
    """For programs, on several lines: people read it, too."""
    import msgspec  # noqa: PLC0415

    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    typer.echo(text)


def say_finding(verdict: str, part: str, text: str) -> None:
    """A line of a report: a mark, what it is about, and how that is."""
    mark, colour = {
        "ok": ("✓", typer.colors.GREEN),
        "warning": ("!", typer.colors.YELLOW),
        "wrong": ("✗", typer.colors.RED),
    }[verdict]
    if not os.environ.get("NO_COLOR"):  # https://no-color.org
        mark = typer.style(mark, fg=colour, bold=True)
    typer.echo(f"{mark} {part:<20} {text}")


def fail(text: str, *, code: int = 1) -> NoReturn:
    """Say what is wrong and what to do, and end the command."""
    typer.echo(f"batchwatch: {text}", err=True)
    raise typer.Exit(code)
