"""The command line: tables for people, ``--json`` for programs, and exit codes that stay.

0 all is well, 1 something is not, 2 the command or the settings were wrong,
130 interrupted. What a command needs is imported when it runs, so that the
daemon does not carry the tables, nor ``version`` the daemon.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from batchwatch import __version__
from batchwatch.cli import (
    backup,
    daemon,
    hints,
    move,
    proof,
    receivers,
    replicas,
    store,
    tail,
    wait,
)
from batchwatch.cli.terminal import Json, print_json

if TYPE_CHECKING:
    from collections.abc import Callable

app = typer.Typer(
    name="batchwatch",
    help="Watch LlamaCloud batches, and tell people and programs what became of them.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,  # they show local variables, and those may be secrets
)
secret = typer.Typer(help="Make secrets that sign.", no_args_is_help=True, rich_markup_mode=None)


def main() -> None:
    """Run the command that was asked for."""
    app()


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


def version(*, as_json: Json = False) -> None:
    """Print the version."""
    if as_json:
        print_json({"version": __version__})
    else:
        typer.echo(f"batchwatch {__version__}")


COMMANDS: Final[dict[str, Callable[..., None]]] = {  # as --help lists them
    "run": daemon.run,
    "check": daemon.check,
    "certify": receivers.certify,
    "demo": daemon.demo,
    "simulate": daemon.simulate,
    "ls": store.list_batches,
    "show": store.show,
    "wait": wait.wait,
    "tail": tail.tail,
    "prove": proof.prove,
    "audit": hints.audit,
    "deliveries": store.deliveries,
    "replay": store.replay,
    "test": receivers.send_a_test,
    "endpoints": store.endpoints,
    "enable": store.enable,
    "disable": store.disable,
    "replicas": replicas.replicas,
    "backup": backup.backup,
    "migrate": move.migrate,
    "copy": move.copy,
    "version": version,
}
for name, command in COMMANDS.items():
    app.command(name=name)(command)
app.add_typer(secret, name="secret")
secret.command()(receivers.new)
