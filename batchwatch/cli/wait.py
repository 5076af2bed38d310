"""Wait for batches, with an exit code by what became of them."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Annotated, Final

import typer

from batchwatch.cli.terminal import (
    INTERRUPTED,
    Config,
    Json,
    fail,
    known_watch,
    print_json,
    read,
    settings_of,
)

if TYPE_CHECKING:
    from batchwatch.settings import Settings
    from batchwatch.waiting import Outcome

UNUSABLE: Final = 2
CODES: Final = {  # by how a batch has ended; the highest counts
    "succeeded": 0,
    "some_failed": 1,
    "unknown": 1,
    "failed": 3,
    "cancelled": 3,
    "vanished": 3,
    "unfinished": 4,
}


def wait(
    batches: Annotated[
        list[str], typer.Argument(metavar="BATCH...", help="The batches' ids, whole.")
    ],
    config: Config = None,
    *,
    settled: Annotated[
        bool, typer.Option("--settled", help="Wait for the jobs behind the files, too.")
    ] = False,
    timeout: Annotated[
        str | None, typer.Option(metavar="DURATION", help="How long at most, such as 2h.")
    ] = None,
    watch: Annotated[str | None, typer.Option(help="As this watch sees them.")] = None,
    as_json: Json = False,
) -> None:
    """Wait until batches have ended, and tell by the exit code how.

    0: every file succeeded, or has its job where --settled was not asked for. 1: some files failed,
    or it cannot be known. 2: the command, the settings or an id was wrong. 3: a batch failed, was
    cancelled or vanished. 4: time was up. Of several the highest counts. A daemon that runs is not
    asked twice: what it follows is read from its store, the rest is asked of LlamaCloud.
    """
    from batchwatch import log  # noqa: PLC0415
    from batchwatch.llamacloud.errors import CloudError  # noqa: PLC0415
    from batchwatch.settings.kinds import Duration  # noqa: PLC0415
    from batchwatch.waiting import NoSuchBatch  # noqa: PLC0415

    settings = _those_that_can_ask(settings_of(config, for_run=False), watch)
    patience = None if timeout is None else read("--timeout", Duration("0s", "365d"), timeout)
    if "" in batches:
        fail("BATCH: an empty id, perhaps of a variable that was never set", code=UNUSABLE)
    log.configure(style="console", level="error")
    try:
        outcomes = asyncio.run(
            _wait(settings, batches, settled=settled, patience=patience, quiet=as_json)
        )
    except (NoSuchBatch, CloudError) as error:
        fail(str(error), code=UNUSABLE)
    except asyncio.CancelledError:
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        print_json([one.as_row() for one in outcomes])
    else:
        from batchwatch import tables  # noqa: PLC0415

        for outcome in outcomes:
            tables.print_outcome(outcome)
    raise typer.Exit(max(CODES[one.ending] for one in outcomes))


async def _wait(
    settings: Settings, ids: list[str], *, settled: bool, patience: float | None, quiet: bool
) -> list[Outcome]:
    from batchwatch.clock import Clock  # noqa: PLC0415
    from batchwatch.waiting import Wait  # noqa: PLC0415

    if (task := asyncio.current_task()) is not None:
        # As Ctrl-C does, so that nothing is left behind.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with Wait(ids, settings, settled=settled, clock=Clock()) as waiting:
        if quiet:
            await waiting.until_over(patience=patience)
        else:
            from batchwatch.cli.progress import Progress  # noqa: PLC0415

            with Progress() as progress:
                await waiting.until_over(patience=patience, tell=progress.tell)
        return [await waiting.outcome(one) for one in waiting.standings]


def _those_that_can_ask(settings: Settings, watch: str | None) -> Settings:
    """The settings with the watches that have a key, or with the one that is meant."""
    if watch is not None:
        known_watch(settings, watch)
    names = [watch] if watch is not None else list(settings.watches)
    chosen = {
        name: settings.watches[name]
        for name in names
        if settings.watches[name].api_key.get_secret_value()
    }
    if not chosen:
        fail("there is no key to ask LlamaCloud with; set LLAMA_CLOUD_API_KEY", code=UNUSABLE)
    return settings.model_copy(update={"watches": chosen})
