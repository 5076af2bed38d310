"""Show who shares the store, and who polls which watch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from batchwatch.cli.terminal import Config, Json, fleet_of, print_json, settings_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from batchwatch.settings import Settings
    from batchwatch.store.replicas import Fleet
    from batchwatch.web.api.answers import Replicas


def replicas(config: Config = None, *, as_json: Json = False) -> None:
    """Show which replica polls which watch.

    Those are the daemons that share a PostgreSQL; times are by its clock. The exit code is 1 if a
    watch that is set here is polled by nobody. An SQLite file has one daemon: whether it runs is
    told, and the exit code is 0 either way.
    """
    from batchwatch.store.file import file_of  # noqa: PLC0415

    settings = settings_of(config, for_run=False)
    file = file_of(settings.database_url.get_secret_value())
    if file is not None:
        _print_the_only_one(settings, file, as_json=as_json)
        return
    found = _found(settings, fleet_of(settings))
    if as_json:
        print_json(found)
    else:
        from datetime import datetime  # noqa: PLC0415

        import msgspec  # noqa: PLC0415

        from batchwatch import tables  # noqa: PLC0415

        tables.print_replicas(msgspec.to_builtins(found, builtin_types=(datetime,)))
    troubles = list(_troubles(found))
    for text in troubles if not as_json else ():
        typer.echo(text)
    raise typer.Exit(1 if troubles else 0)


def _found(settings: Settings, fleet: Fleet) -> Replicas:
    """The same as ``GET /api/v1/replicas``, and watches that others poll without being set here."""
    from datetime import timedelta  # noqa: PLC0415

    from batchwatch.domain.batch import WatchName  # noqa: PLC0415
    from batchwatch.watching.roster import health_of  # noqa: PLC0415
    from batchwatch.web.api.answers import Held, Replicas  # noqa: PLC0415

    others = [name for name, one in fleet.holdings.items() if one.holder is not None]
    watches = []
    for name in dict.fromkeys((*map(WatchName, settings.watches), *others)):
        lease = fleet.holdings.get(name)
        silence = None if lease is None else health_of(lease).silence
        last = None if silence is None else fleet.now - timedelta(seconds=silence)
        holder = None if lease is None else lease.holder
        watches.append(Held.of(name, lease, holder=holder, last_good_poll=last))
    return Replicas.of(fleet, watches, shared=True)


def _troubles(found: Replicas) -> Iterator[str]:
    """What is not as it should be, in sentences."""
    alone = [one.watch for one in found.watches if one.holder is None]
    if not alone:
        return
    names = ", ".join(alone)
    if not any(one.alive for one in found.replicas):
        yield f"\nNo replica is alive, so nobody polls {names}: start one with batchwatch run."
        return
    yield (
        f"\nNobody polls {names}. A replica that is alive should have taken over within seconds: "
        "is it set there, and what does its log say?"
    )


def _print_the_only_one(settings: Settings, file: Path, *, as_json: bool) -> None:
    from batchwatch.store.file import holder_of  # noqa: PLC0415

    process = holder_of(file)
    if as_json:
        print_json(_row_of_the_only_one(settings, process))
        return
    runs = (
        "none runs; batchwatch run starts it"
        if process is None
        else f"it runs as process {process or '?'} and polls {', '.join(settings.watches)}"
    )
    typer.echo(
        f"{file} is a store for one daemon: {runs}. "
        "Several share a PostgreSQL: see BATCHWATCH_DATABASE_URL."
    )


def _row_of_the_only_one(settings: Settings, process: str | None) -> dict[str, Any]:
    """In the form of the others; what only the daemon knows is null."""
    import socket  # noqa: PLC0415

    from batchwatch.clock import Clock  # noqa: PLC0415

    unknown = dict.fromkeys(("version", "started_at", "seen_at", "in_flight"))
    only = {"id": process, "host": socket.gethostname(), "alive": True, **unknown}
    of_a_watch = dict.fromkeys(("since", "token", "held_until", "last_good_poll"))
    names = list(settings.watches)
    return {
        "now": Clock().now(),
        "shared": False,
        "replicas": [] if process is None else [only | {"watches": names}],
        "watches": [{"watch": one, "holder": process, **of_a_watch} for one in names],
    }
