"""The whole pipe, live: a simulated LlamaCloud, the daemon, and receivers that check everything.

How it fits together::

    stage      starts simulator and daemon as processes, lets them play, ends them
    children   those processes; commands is what they are told
    receiver   the witness: webhooks with verified signatures, Slack messages
    chaos      --chaos: when the daemon dies, and what the receivers do wrong
    truth      what truly happened, from the simulator's own history
    evidence   the words for what was found at either end
    scene      all of it so far, for the views: screen or plain, both of one look
    verdict    the truth against the evidence, on the scenario's terms; summary shows it
    keep       --keep: what to try afterwards

The demo uses nothing of the parts that it shows. It starts them as a user would, talks to them
over HTTP, and judges them by what arrives.
"""

from __future__ import annotations

import asyncio
import io
import random
import signal
import sys
import tempfile
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.text import Text

from batchwatch.clock import Clock
from batchwatch.demo.children import ChildDied
from batchwatch.demo.keep import what_to_try
from batchwatch.demo.plain import Plain
from batchwatch.demo.scene import Scene
from batchwatch.demo.screen import Screen
from batchwatch.demo.stage import Ending, set_up
from batchwatch.demo.summary import so_far, summary

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["run"]

GOOD: Final = 0
BAD: Final = 1
INTERRUPTED: Final = 130


async def run(  # noqa: PLR0913  # the options of the command
    *,
    scenario: str = "lively",
    seed: int | None = None,
    chaos: bool = False,
    keep: bool = False,
    stop: asyncio.Event,
    plain: bool | None = None,
    speed: float = 1.0,
) -> int:
    """Show the demo until it is over or ``stop`` is set; the exit code.

    0 if every promise was kept, 1 if one was broken or a process died, 130 if
    it was stopped. ``plain`` of None is lines where there is no terminal.
    ``speed`` is that of the simulated lives.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # better a ? in a line than no line
    console = Console(highlight=False)
    if plain is None:
        plain = not sys.stdout.isatty() or console.is_dumb_terminal
    scene = Scene(
        scenario=scenario,
        seed=random.randrange(10_000) if seed is None else seed,
        chaos=chaos,
        clock=Clock(),
    )
    with tempfile.TemporaryDirectory(prefix="batchwatch-demo-") as folder, _told_by_signals(stop):
        try:
            return await _perform(
                scene,
                console,
                Plain(scene, console) if plain else Screen(scene, console),
                folder=Path(folder),
                speed=speed,
                keep=keep,
                stop=stop,
            )
        except ChildDied as death:
            if stop.is_set():  # it died of the same Ctrl-C
                console.print(so_far(scene), soft_wrap=True)
                return INTERRUPTED
            console.print(Text.assemble(("✗ ", "bold red"), f"{death}. Its last words:"))
            for line in death.last_words:
                console.print(Text(f"  {line}", "dim"), soft_wrap=True)
            return BAD


async def _perform(  # noqa: PLR0913
    scene: Scene,
    console: Console,
    view: Screen | Plain,
    *,
    folder: Path,
    speed: float,
    keep: bool,
    stop: asyncio.Event,
) -> int:
    async with AsyncExitStack() as stack:
        with view:
            view.refresh()
            stage = await stack.enter_async_context(set_up(scene, folder=folder, speed=speed))
            ending = await stage.play(view, stop)
            verdict = None if ending is Ending.INTERRUPTED else await stage.verdict(ending)
        if verdict is None:
            console.print(so_far(scene), soft_wrap=True)
            return INTERRUPTED
        console.print()
        console.print(_heading(scene))
        for part in summary(verdict, kills=scene.kills):
            console.print(part)
        if keep:
            console.print()
            for line in what_to_try(stage):
                console.print(line, soft_wrap=True)
            await stage.linger(Plain(scene, console), stop)
            return INTERRUPTED
    return GOOD if verdict.is_good else BAD


def _heading(scene: Scene) -> Text:
    heading = Text.assemble((" batchwatch demo", "bold"), f" · {scene.scenario}")
    again = f" · seed {scene.seed}{' · chaos' if scene.chaos else ''} · {scene.elapsed:.1f} s"
    return heading.append(again, "dim")


@contextmanager
def _told_by_signals(stop: asyncio.Event) -> Iterator[None]:
    """Set ``stop`` on every signal that asks for an end, and as often as it comes.

    A second Ctrl-C or a terminal that is closed must not leave the children
    and the folder behind; putting them away takes seconds at most.
    """
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    with suppress(ValueError, RuntimeError):  # not the main thread: signals are not for us
        for number in signals:
            loop.add_signal_handler(number, stop.set)
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
