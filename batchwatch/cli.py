"""The command line: tables for people, ``--json`` for programs, and exit codes that stay.

0 all is well, 1 something is not, 2 the command or the settings were wrong,
130 interrupted. What a command needs is imported when it runs, so that the
daemon does not carry the tables, nor ``version`` the daemon.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn, TypeVar

import typer

from batchwatch import __version__

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from datetime import datetime

    from batchwatch.resend import Desk
    from batchwatch.settings import Settings
    from batchwatch.settings.kinds import Kind
    from batchwatch.settings.signing import SigningSecret
    from batchwatch.store import Views, Wanted

_PREVIEWED: Final = 10  # deliveries that are shown before they are replayed
_SHOWN: Final = 500  # characters of a receiver's answer
_CANDIDATES: Final = 10  # that a beginning of an id may have meant, listed
_T = TypeVar("_T")

app = typer.Typer(
    name="batchwatch",
    help="Watch LlamaCloud batches, and tell people and programs what became of them.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,  # they show local variables, and those may be secrets
)

secret = typer.Typer(help="Make secrets that sign.", no_args_is_help=True, rich_markup_mode=None)

Config = Annotated[
    str | None,
    typer.Option("--config", "-c", metavar="FILE", help="A YAML file with settings."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def _print_version(asked: bool) -> None:  # noqa: FBT001  # how typer calls it
    if asked:
        version()
        raise typer.Exit


@app.callback()
def options(
    *,
    version: Annotated[  # its callback does it all
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Take what comes before the command."""


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


def main() -> None:
    """Run the command that was asked for."""
    app()


@app.command()
def run(config: Config = None) -> None:
    """Watch and notify, until SIGTERM or Ctrl-C."""
    settings = _settings(config)
    from batchwatch import daemon, log  # noqa: PLC0415
    from batchwatch.clock import Clock  # noqa: PLC0415
    from batchwatch.llamacloud.errors import CloudError  # noqa: PLC0415
    from batchwatch.settings import SettingsError  # noqa: PLC0415
    from batchwatch.store import StoreError  # noqa: PLC0415
    from batchwatch.web.server import ListenError  # noqa: PLC0415

    log.configure(style=settings.log_format, level=settings.log_level)
    trouble, code = "", 1
    try:
        _until_stopped(lambda stop: daemon.run(settings, stop=stop, clock=Clock()))
    except* SettingsError as group:  # over a file that a setting names
        trouble, code = str(_first(group)), 2
    except* (StoreError, ListenError, CloudError) as group:  # alone, or out of a task
        trouble = str(_first(group))
    except* Exception:  # noqa: BLE001  # a bug, and nothing that somebody could have set
        log.get_logger().exception("daemon.broke")
        trouble = (
            "a bug has ended the daemon; its log has the traceback, please report it. "
            "All that is owed is in the store: start it again"
        )
    if trouble:
        _fail(trouble, code=code)


@app.command()
def check(config: Config = None, *, as_json: Json = False) -> None:
    """Check every part; sends nothing to anyone.

    The settings, the store, LlamaCloud with each key, each endpoint's name, and the address to
    listen on, each with how to mend it.
    """
    from batchwatch import log  # noqa: PLC0415
    from batchwatch.check import Verdict, is_complete  # noqa: PLC0415
    from batchwatch.check import check as look  # noqa: PLC0415
    from batchwatch.clock import Clock  # noqa: PLC0415

    settings = _settings(config, for_run=False)
    log.configure(style="console", level="error")  # the report tells it all
    found: list[dict[str, str]] = []

    async def report() -> None:
        async for one in look(settings, clock=Clock()):
            found.append({"verdict": one.verdict.value, "part": one.part, "text": one.text})
            if not as_json:
                _say_finding(one.verdict.value, one.part, one.text)

    asyncio.run(report())
    wrong = sum(1 for one in found if one["verdict"] == Verdict.WRONG)
    if as_json:
        _print_json({"ok": not wrong, "findings": found})
    elif wrong:
        typer.echo(f"\n{wrong} to mend.")
    elif any(one["part"] == "daemon" for one in found):
        typer.echo("\nAll is well, and the daemon is running.")
    else:
        typer.echo("\nAll is well: batchwatch run will work.")
    raise typer.Exit(0 if not wrong else 1 if is_complete(settings) else 2)


@app.command()
def certify(
    url: Annotated[str, typer.Argument(metavar="URL", help="Where the receiver takes messages.")],
    *,
    secret: Annotated[
        str | None,
        typer.Option(
            metavar="WHSEC",
            help="What it verifies with. Better: BATCHWATCH_WEBHOOK_SECRET, or the path of a file "
            "in BATCHWATCH_WEBHOOK_SECRET_FILE; others can see a command line.",
        ),
    ] = None,
    timeout: Annotated[
        str, typer.Option(metavar="DURATION", help="How long each answer may take.")
    ] = "15s",
    as_json: Json = False,
) -> None:
    """Try a receiver, and tell what it does wrong.

    Sends what it will meet in life: good messages, repeats, forgeries, stale and large ones. Tells
    what it took and should have refused, and what it refused and should have taken, each with how
    to mend it. All are of the watch "certify", and of batches whose ids begin with bat-certify-.
    """
    from batchwatch import log  # noqa: PLC0415
    from batchwatch.certify import Verdict  # noqa: PLC0415
    from batchwatch.certify import certify as judge  # noqa: PLC0415
    from batchwatch.clock import Clock  # noqa: PLC0415
    from batchwatch.deliver.signing import key_of  # noqa: PLC0415
    from batchwatch.settings.kinds import Duration  # noqa: PLC0415
    from batchwatch.settings.urls import EndpointUrl  # noqa: PLC0415

    place = _read("URL", EndpointUrl(), url)
    if place.is_slack:
        _fail(
            "URL: Slack takes its own messages and no others; there is nothing to certify", code=2
        )
    patience = _read("--timeout", Duration("100ms", "5m"), timeout)
    keys = [key_of(one.text.get_secret_value(), one.expires_at) for one in _signing_secrets(secret)]
    log.configure(style="console", level="error")  # the report tells it all
    found: list[dict[str, Any]] = []

    async def report() -> None:
        async for one in judge(
            place.get_secret_value(), keys=keys, timeout=patience, clock=Clock()
        ):
            found.append(one.as_row())
            if not as_json:
                tables.print_certified(found[-1])

    if not as_json:
        from batchwatch import tables  # noqa: PLC0415

        tables.print_certified(None)
    asyncio.run(report())
    ok = all(one["verdict"] == Verdict.OK for one in found)
    if as_json:
        _print_json({"ok": ok, "url": place.shown, "cases": found})
    else:
        tables.print_certificate(found)
    raise typer.Exit(0 if ok else 1)


@app.command()
def demo(
    *,
    scenario: Annotated[str, typer.Option(help="What the simulated LlamaCloud does.")] = "lively",
    seed: Annotated[int | None, typer.Option(help="Repeat a run; random without.")] = None,
    chaos: Annotated[bool, typer.Option("--chaos", help="Kill the daemon now and then.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Stay up afterwards, to play with.")] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Lines, even on a terminal.")] = False,
) -> None:
    """Show the whole pipe, and prove it.

    A simulated LlamaCloud, the daemon and receivers; at the end what was told is compared with
    what truly happened, and the exit code is 1 if anything was lost, out of order or not signed.
    """
    from batchwatch import demo as demonstration  # noqa: PLC0415
    from batchwatch.simulator.scenarios import SCENARIOS  # noqa: PLC0415

    _known_scenario(scenario)
    if not SCENARIOS[scenario].batches:
        _fail(
            f"the scenario {scenario} has no batches but those that clients create, so there is "
            "nothing to show; take another, or serve it: "
            f"batchwatch simulate --scenario {scenario}",
            code=2,
        )
    code = _until_stopped(
        lambda stop: demonstration.run(
            scenario=scenario,
            seed=seed,
            chaos=chaos,
            keep=keep,
            stop=stop,
            plain=True if plain else None,
        )
    )
    raise typer.Exit(code)


@app.command()
def simulate(  # one for each option
    *,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8090,
    host: Annotated[str, typer.Option(help="Loopback, unless said otherwise.")] = "127.0.0.1",
    seed: Annotated[
        int | None, typer.Option(help="The same seed, the same batches; random without.")
    ] = None,
    speed: Annotated[
        float, typer.Option(min=0.001, max=100_000, help="How much faster batches live.")
    ] = 1.0,
    scenario: Annotated[
        str, typer.Option(help="What happens; --scenario help lists them.")
    ] = "calm",
    api_key: Annotated[str, typer.Option(help="The key that clients must send.")] = "llx-simulator",
) -> None:
    """Serve a simulated LlamaCloud.

    On a local port, faithful enough for the official SDK, with batches that live and die by a
    scenario, and with faults.
    """
    _known_scenario(scenario)
    from batchwatch import log, simulator  # noqa: PLC0415
    from batchwatch.clock import Clock  # noqa: PLC0415
    from batchwatch.web.server import reason_of  # noqa: PLC0415

    log.configure()
    # A seed also makes the ids; the same ones again would be known, and over, in a kept store.
    chosen = secrets.randbelow(2**31) if seed is None else seed
    try:
        _until_stopped(
            lambda stop: simulator.serve(
                host=host,
                port=port,
                seed=chosen,
                speed=speed,
                scenario=scenario,
                api_key=api_key,
                stop=stop,
                clock=Clock(),
            )
        )
    except (OSError, UnicodeError) as error:
        _fail(f"cannot listen on {host}:{port}: {reason_of(error)}; choose another with --port")


@app.command(name="ls")
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

    async def ask(views: Views) -> tuple[list[dict[str, Any]], list[dict[str, Any]], str]:
        wanted = status.upper() if status else None
        rows = await views.batches(watch=watch, status=wanted, limit=limit)
        return rows, [] if rows else await views.statuses(), views.where

    rows, others, where = _from_store(config, ask)
    if as_json:
        _print_json(rows)
        return
    from batchwatch import tables  # noqa: PLC0415

    if rows:
        tables.print_batches(rows, now=Clock().now())
    else:
        tables.print_none(others, where=where)


@app.command()
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

    rows = _from_store(config, lambda views: _batch(views, batch, watch))
    if as_json:
        _print_json(rows)
        return
    from batchwatch import tables  # noqa: PLC0415

    for row in rows:
        tables.print_batch(row, now=Clock().now())


@app.command()
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
    rows = _from_store(config, lambda views: views.deliveries(wanted, limit=limit))
    if as_json:
        _print_json(rows)
        return
    from batchwatch import tables  # noqa: PLC0415

    tables.print_deliveries(rows)


@app.command()
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
        _fail("name deliveries, or say which: --state dead for all that were given up", code=2)
    if state is None and not ids:
        state = "dead"
    wanted = _wanted(tuple(ids or ()), endpoint, type_, batch, state, since, until)

    found, first = _from_store(config, lambda views: _replayable(views, wanted))
    if not found:
        _fail("no delivery that has ended matches; batchwatch deliveries lists what there is")
    if not as_json:
        _preview(first, more=len(found) - len(first))
    what = _so_many(len(found))
    if not dry_run and not yes:
        _confirm(what, can_ask=sys.stdin.isatty() and not as_json)
    done = 0 if dry_run else _at_desk(config, lambda desk: desk.replay(found))
    if as_json:
        _print_json({"matched": len(found), "replayed": done, "ids": found})
    elif dry_run:
        typer.echo(f"{what} would be sent again.")
    else:
        typer.echo(f"{_so_many(done)} will be sent again, {_by_whom(config)}.")


@app.command(name="test")
def send_a_test(
    endpoint: Annotated[str, typer.Argument(metavar="ENDPOINT", help="Its name in the settings.")],
    config: Config = None,
    *,
    as_json: Json = False,
) -> None:
    """Send a test event to an endpoint, and tell what came back."""
    from batchwatch import log  # noqa: PLC0415
    from batchwatch.clock import Clock  # noqa: PLC0415
    from batchwatch.resend import send_test  # noqa: PLC0415
    from batchwatch.settings import SettingsError  # noqa: PLC0415

    settings = _settings(config, for_run=False)
    _known_endpoint(settings, endpoint)
    log.configure(style="console", level="error")
    try:
        attempt = asyncio.run(send_test(settings, endpoint, Clock()))
    except SettingsError as error:
        _fail(str(error), code=2)
    ok = attempt.failure is None
    if as_json:
        _print_json({
            "ok": ok,
            "status_code": attempt.status_code,
            "failure": attempt.failure,
            "detail": attempt.detail,
            "response": attempt.response,
            "duration_ms": round(attempt.duration * 1000, 1),
        })  # fmt: skip
    else:
        took = f"{attempt.duration * 1000:.0f} ms"
        said = f"HTTP {attempt.status_code}" if attempt.status_code else "no answer"
        _say_finding("ok" if ok else "wrong", endpoint, attempt.detail or f"{said} in {took}")
        if attempt.response:
            typer.echo(_one_line(attempt.response))
    raise typer.Exit(0 if ok else 1)


@app.command()
def endpoints(config: Config = None, *, as_json: Json = False) -> None:
    """List endpoints, and how they are."""
    rows = _at_desk(config, lambda desk: desk.endpoints(), writes=False)
    if as_json:
        _print_json(rows)
        return
    from batchwatch import tables  # noqa: PLC0415

    tables.print_endpoints(rows)


@app.command()
def enable(
    endpoint: Annotated[str, typer.Argument(metavar="ENDPOINT", help="Its name in the settings.")],
    config: Config = None,
) -> None:
    """Send to a disabled endpoint again.

    What it is owed goes in order, what is older first.
    """
    _known_endpoint(_settings(config, for_run=False), endpoint)
    if _at_desk(config, lambda desk: desk.enable(endpoint)):
        typer.echo(f"{endpoint} is enabled; what it is owed is sent, {_by_whom(config)}.")
    else:
        typer.echo(f"{endpoint} was not disabled.")


@app.command()
def disable(
    endpoint: Annotated[str, typer.Argument(metavar="ENDPOINT", help="Its name in the settings.")],
    config: Config = None,
) -> None:
    """Send an endpoint nothing more.

    What it is owed waits until it is enabled.
    """
    _known_endpoint(_settings(config, for_run=False), endpoint)
    if _at_desk(config, lambda desk: desk.disable(endpoint)):
        typer.echo(f"{endpoint} is disabled; what it is owed waits. batchwatch enable {endpoint}")
    else:
        typer.echo(f"{endpoint} was disabled already.")


app.add_typer(secret, name="secret")


@secret.command()
def new(
    *,
    asymmetric: Annotated[
        bool,
        typer.Option(
            "--asymmetric", help="A pair, by Ed25519: one half signs, the other verifies."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Print a fresh secret that signs what goes to an endpoint.

    A whsec_ is for both sides. With --asymmetric, the first line is the whsk_ for the daemon and
    the second the whpk_ that its receivers verify with.
    """
    from batchwatch.deliver.signing import ExtraMissing, new_pair, new_secret  # noqa: PLC0415

    if not asymmetric:
        made = {"secret": new_secret()}
    else:
        try:
            private, public = new_pair()
        except ExtraMissing as error:
            _fail(str(error))
        made = {"secret": private, "public_key": public}
    if as_json:
        _print_json(made)
    else:
        typer.echo("\n".join(made.values()))


@app.command()
def version(*, as_json: Json = False) -> None:
    """Print the version."""
    if as_json:
        _print_json({"version": __version__})
    else:
        typer.echo(f"batchwatch {__version__}")


def _settings(config: str | None, *, for_run: bool = True) -> Settings:
    from batchwatch.settings import SettingsError, load  # noqa: PLC0415

    try:
        return load(config, for_run=for_run)
    except SettingsError as error:
        _fail(str(error), code=2)


def _read(name: str, kind: Kind[_T], text: str) -> _T:
    """``text`` as a setting of this kind would read it; wrong ones are told in the same way."""
    from batchwatch.settings.problems import Invalid, Problem  # noqa: PLC0415

    try:
        return kind.parse(text)
    except Invalid as wrong:
        _fail(str(Problem(name, wrong.given, wrong.expected, wrong.fix)), code=2)


def _signing_secrets(given: str | None) -> tuple[SigningSecret, ...]:
    """The secrets of the option, of the environment, or of the file that the environment names."""
    from batchwatch.settings.files import UnreadableError, read_secret  # noqa: PLC0415
    from batchwatch.settings.kinds import Location  # noqa: PLC0415
    from batchwatch.settings.signing import SigningSecrets  # noqa: PLC0415

    name = "BATCHWATCH_WEBHOOK_SECRET"
    text = given or os.environ.get(name)
    if given:
        typer.echo(
            f"batchwatch: others can see a secret on the command line; set {name} instead", err=True
        )
        name = "--secret"
    elif not text and (file := os.environ.get(f"{name}_FILE")):
        try:
            text = read_secret(_read(f"{name}_FILE", Location(), file))
        except UnreadableError as error:
            _fail(f"{name}_FILE: {error}; {error.fix}", code=2)
    if not text:
        _fail(f"without the receiver's secret there is nothing to certify; set {name}", code=2)
    return _read(name, SigningSecrets(), text)


def _known_scenario(name: str) -> None:
    from batchwatch.simulator.scenarios import SCENARIOS  # noqa: PLC0415

    if name in SCENARIOS:
        return
    lines = "\n".join(f"  {known:<14} {one.description}" for known, one in SCENARIOS.items())
    if name == "help":
        typer.echo(lines)
        raise typer.Exit
    _fail(f"there is no scenario {name!r}; there are:\n{lines}", code=2)


async def _batch(views: Views, beginning: str, watch: str | None) -> list[dict[str, Any]]:
    """The one batch whose id begins so, as each watch sees it, or only ``watch``."""
    ids = await views.named(beginning)
    if not ids:
        _fail(f"no batch {beginning} is known in {views.where}; batchwatch ls lists those that are")
    if len(ids) > 1 and ids[0] != beginning:
        shown = "".join(f"\n  {one}" for one in ids[:_CANDIDATES])
        more = "\n  …" if len(ids) > _CANDIDATES else ""
        _fail(f"{beginning} begins more than one batch; say more of it:{shown}{more}")
    rows = await views.batch(ids[0])
    seen = [row for row in rows if watch in (None, row["watch"])]
    if not seen:
        names = ", ".join(row["watch"] for row in rows)
        _fail(f"batch {ids[0]} is not known to a watch {watch}, but to: {names}")
    return seen


def _from_store(config: str | None, ask: Callable[[Views], Awaitable[_T]]) -> _T:
    from batchwatch.store import Database, StoreError, Views  # noqa: PLC0415

    settings = _settings(config, for_run=False)

    async def look() -> _T:
        database = await Database.open(settings.database_url.get_secret_value(), exclusive=False)
        try:
            return await ask(Views(database))
        finally:
            await database.close()

    try:
        return asyncio.run(look())
    except StoreError as error:
        _fail(str(error))


def _at_desk(
    config: str | None, work: Callable[[Desk], Awaitable[_T]], *, writes: bool = True
) -> _T:
    """Look at the store, or change it, beside the daemon if one runs."""
    from batchwatch.clock import Clock  # noqa: PLC0415
    from batchwatch.resend import opened  # noqa: PLC0415
    from batchwatch.store import StoreError  # noqa: PLC0415

    settings = _settings(config, for_run=False)

    async def act() -> _T:
        async with opened(settings, Clock(), writes=writes) as desk:
            return await work(desk)

    try:
        return asyncio.run(act())
    except StoreError as error:
        _fail(str(error))


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
        _fail(f"to send {what} again without being asked, say --yes", code=2)
    typer.confirm(f"Send {what} again?", abort=True)


def _by_whom(config: str | None) -> str:
    from batchwatch.store.engine import file_of, holder_of  # noqa: PLC0415

    file = file_of(_settings(config, for_run=False).database_url.get_secret_value())
    runs = file is None or holder_of(file) is not None
    return "by the daemon that is running" if runs else "once the daemon is started"


def _known_endpoint(settings: Settings, name: str) -> None:
    if name not in settings.endpoints:
        names = ", ".join(settings.endpoints) or "none"
        _fail(f"there is no endpoint {name}; those that are set: {names}", code=2)


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
        _fail(
            f"there is no delivery {beyond[0]}; batchwatch deliveries lists what there is", code=2
        )
    # An empty one is a variable that was never set: refused, for without it more is meant.
    pattern = None if type_ is None else _read("--type", EventPattern(), type_)
    return Wanted(
        ids=ids,
        endpoint=endpoint,
        type=None if pattern == "*" else pattern,
        batch=batch,
        state=None if state is None else _read("--state", Choice(*State), state),
        since=_moment("--since", since),
        until=_moment("--until", until),
    )


def _moment(name: str, text: str | None) -> datetime | None:
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
        _fail(
            f"{name}: {text!r} is neither a time such as 2026-11-24T08:00:00Z nor how long ago, "
            f"such as {EXAMPLES}",
            code=2,
        )
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _one_line(text: str) -> str:
    """The beginning of what a receiver said, with nothing that a terminal would obey."""
    line = " ".join(text.split())[:_SHOWN]
    return "".join(one if one.isprintable() else "?" for one in line)


def _until_stopped(work: Callable[[asyncio.Event], Coroutine[Any, Any, _T]]) -> _T:
    """Run ``work`` with an event that the first SIGTERM or Ctrl-C sets; the second is not kind."""

    async def supervised() -> _T:
        stop = asyncio.Event()

        def on_signal() -> None:
            if stop.is_set():
                os._exit(130)  # everything that matters is in the store
            stop.set()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal)
        return await work(stop)

    return asyncio.run(supervised())


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _print_json(value: object) -> None:
    import msgspec  # noqa: PLC0415

    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    typer.echo(text)


def _say_finding(verdict: str, part: str, text: str) -> None:
    mark, colour = {
        "ok": ("✓", typer.colors.GREEN),
        "warning": ("!", typer.colors.YELLOW),
        "wrong": ("✗", typer.colors.RED),
    }[verdict]
    if not os.environ.get("NO_COLOR"):  # https://no-color.org
        mark = typer.style(mark, fg=colour, bold=True)
    typer.echo(f"{mark} {part:<20} {text}")


def _fail(text: str, *, code: int = 1) -> NoReturn:
    typer.echo(f"batchwatch: {text}", err=True)
    raise typer.Exit(code)
