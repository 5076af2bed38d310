"""Run the daemon, check what it needs, and show it at work."""

from __future__ import annotations

import asyncio
import secrets
from typing import Annotated

import typer

from batchwatch.cli.terminal import (
    Config,
    Json,
    fail,
    print_json,
    say_finding,
    settings_of,
    until_stopped,
)


def run(config: Config = None) -> None:
    """Watch and notify, until SIGTERM or Ctrl-C."""
    settings = settings_of(config)
    from batchwatch import daemon, log  # noqa: PLC0415
    from batchwatch.clock import Clock  # noqa: PLC0415
    from batchwatch.llamacloud.errors import CloudError  # noqa: PLC0415
    from batchwatch.settings import SettingsError  # noqa: PLC0415
    from batchwatch.store import StoreError  # noqa: PLC0415
    from batchwatch.web.server import ListenError  # noqa: PLC0415

    log.configure(style=settings.log_format, level=settings.log_level)
    trouble, code = "", 1
    try:
        until_stopped(lambda stop: daemon.run(settings, stop=stop, clock=Clock()))
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
        fail(trouble, code=code)


def check(config: Config = None, *, as_json: Json = False) -> None:
    """Check every part; sends nothing to anyone.

    The settings, the store, LlamaCloud with each key, each endpoint's name, and the address to
    listen on, each with how to mend it.
    """
    from batchwatch import log  # noqa: PLC0415
    from batchwatch.check import Verdict, is_complete  # noqa: PLC0415
    from batchwatch.check import check as look  # noqa: PLC0415
    from batchwatch.clock import Clock  # noqa: PLC0415

    settings = settings_of(config, for_run=False)
    log.configure(style="console", level="error")  # the report tells it all
    found: list[dict[str, str]] = []

    async def report() -> None:
        async for one in look(settings, clock=Clock()):
            found.append({"verdict": one.verdict.value, "part": one.part, "text": one.text})
            if not as_json:
                say_finding(one.verdict.value, one.part, one.text)

    asyncio.run(report())
    wrong = sum(1 for one in found if one["verdict"] == Verdict.WRONG)
    if as_json:
        print_json({"ok": not wrong, "findings": found})
    elif wrong:
        typer.echo(f"\n{wrong} to mend.")
    elif any(one["part"] == "daemon" for one in found):
        typer.echo("\nAll is well, and the daemon is running.")
    else:
        typer.echo("\nAll is well: batchwatch run will work.")
    raise typer.Exit(0 if not wrong else 1 if is_complete(settings) else 2)


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
        fail(
            f"the scenario {scenario} has no batches but those that clients create, so there is "
            "nothing to show; take another, or serve it: "
            f"batchwatch simulate --scenario {scenario}",
            code=2,
        )
    code = until_stopped(
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
        until_stopped(
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
        fail(f"cannot listen on {host}:{port}: {reason_of(error)}; choose another with --port")


def _known_scenario(name: str) -> None:
    from batchwatch.simulator.scenarios import SCENARIOS  # noqa: PLC0415

    if name in SCENARIOS:
        return
    lines = "\n".join(f"  {known:<14} {one.description}" for known, one in SCENARIOS.items())
    if name == "help":
        typer.echo(lines)
        raise typer.Exit
    fail(f"there is no scenario {name!r}; there are:\n{lines}", code=2)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
