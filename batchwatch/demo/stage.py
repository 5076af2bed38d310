"""Put the parts on the stage, let them play, and judge how it went.

The simulator and the daemon are processes of their own, started as a user would start them; the
receivers are here.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

import aiohttp

from batchwatch.demo.chaos import plan_kills
from batchwatch.demo.children import Child, ChildDied, clean_environment
from batchwatch.demo.commands import API_KEY, settings, simulate
from batchwatch.demo.receiver import Receiver
from batchwatch.demo.terms import terms_of
from batchwatch.demo.truth import Truth
from batchwatch.demo.verdict import judge

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine
    from pathlib import Path

    from batchwatch.demo.plain import Plain
    from batchwatch.demo.scene import Scene
    from batchwatch.demo.screen import Screen
    from batchwatch.demo.verdict import Verdict

FRAME: Final = 0.1  # seconds between two pictures
LOOK: Final = 0.25  # seconds between two looks at the truth, and more where that is large
QUIET: Final = 1.0  # seconds without an arrival, after which nothing more is expected
EMPTY: Final = 10.0  # seconds after which a scenario without batches is believed to have none
_SAME_CTRL_C: Final = 0.5  # seconds in which one that ended a child gets here as well


class Ending(Enum):
    """Why the play is over."""

    DONE = auto()  # all batches are over, and all that they owed has arrived
    TIME_UP = auto()
    INTERRUPTED = auto()


@asynccontextmanager
async def set_up(scene: Scene, *, folder: Path, speed: float) -> AsyncIterator[Stage]:
    """Start everything, and end everything whatever happens. Raises :class:`ChildDied`."""
    async with AsyncExitStack() as stack:
        receiver = await stack.enter_async_context(Receiver(scene))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        simulator = Child("simulator", simulate(scene, speed=speed), clean_environment())
        stack.push_async_callback(simulator.stop)
        upstream_url = (await simulator.start())["url"]
        told = settings(
            upstream_url,
            receiver,
            folder=folder,
            requests_per_minute=terms_of(scene.scenario).requests_per_minute,
        )
        daemon = Child("daemon", ["run"], clean_environment(**told))
        stack.push_async_callback(daemon.stop)
        stage = Stage(
            scene,
            simulator=simulator,
            daemon=daemon,
            truth=Truth(session, upstream_url),
            folder=folder,
            speed=speed,
        )
        await stage.start_daemon()
        yield stage


class Stage:
    """One demo: its processes, what they were seen to do, and how long that may go on."""

    def __init__(
        self,
        scene: Scene,
        *,
        simulator: Child,
        daemon: Child,
        truth: Truth,
        folder: Path,
        speed: float,
    ) -> None:
        self.folder = folder
        self.upstream_url = truth.url
        self.api_key = API_KEY
        self.daemon_url = ""
        self._scene = scene
        self._clock = scene.clock
        self._simulator = simulator
        self._daemon = daemon
        self._truth = truth
        self._speed = speed
        self._terms = terms_of(scene.scenario)

    async def start_daemon(self) -> None:
        """Start it, for the first time or again. Raises :class:`ChildDied`."""
        self._scene.daemon = "starting"
        self.daemon_url = (await self._daemon.start())["listen"]
        self._scene.daemon = "running"

    async def play(self, view: Screen | Plain, stop: asyncio.Event) -> Ending:
        """Show what happens until it is over. Raises :class:`ChildDied`."""
        async with AsyncExitStack() as stack:
            works = [self._follow()] + ([self._cause_chaos()] if self._scene.chaos else [])
            tasks = [await stack.enter_async_context(_meanwhile(work)) for work in works]
            while (ending := await self._ending(tasks, stop)) is None:
                view.refresh()
                await self._clock.wait(stop, FRAME)
        return ending

    async def linger(self, view: Plain, stop: asyncio.Event) -> None:
        """Show what happens until ``stop``. Raises :class:`ChildDied`."""
        async with _meanwhile(self._follow()) as following:
            while not stop.is_set():
                view.refresh()
                await self._look_after([following], stop)
                await self._clock.wait(stop, FRAME)

    async def verdict(self, ending: Ending) -> Verdict:
        """Judge what has arrived until now. Raises :class:`ChildDied`."""
        scene = self._scene
        receipts, posts = tuple(scene.receipts), tuple(scene.posts)
        owed_until = self._clock.now()
        if ending is not Ending.DONE:
            owed_until -= timedelta(seconds=self._terms.margin)
        try:
            scene.learn(await self._truth.lives())
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ChildDied(self._simulator, f"does not answer: {error}") from error
        return judge(
            scene.lives.values(),
            receipts,
            posts,
            owed_until=owed_until,
            may_miss=scene.kills > 0 or self._terms.may_miss,
        )

    def some_directory(self) -> str | None:
        """A directory that batches can be made of, if one was heard of."""
        return next((r.directory_id for r in self._scene.receipts if r.directory_id), None)

    # ------------------------------------------------------------------------ until it is over

    async def _ending(self, tasks: list[asyncio.Task[None]], stop: asyncio.Event) -> Ending | None:
        await self._look_after(tasks, stop)
        if stop.is_set():
            return Ending.INTERRUPTED
        since = self._scene.since_first_batch
        if since is None:
            return Ending.TIME_UP if self._scene.elapsed > EMPTY else None
        if since >= self._terms.limit:
            return Ending.TIME_UP
        _, *chaos = tasks
        is_calm = all(task.done() for task in chaos)
        return Ending.DONE if is_calm and self._is_complete() else None

    def _is_complete(self) -> bool:
        """Whether every batch is over, both sides were told, and nothing came for a while."""
        scene = self._scene
        if scene.over < len(scene.lives) or scene.elapsed - scene.last_arrival_at < QUIET:
            return False
        return all(
            scene.told.get(batch_id) == life.status == scene.posted.get(batch_id)
            and not (life.files and life.files.running)
            and (batch_id in scene.settled or not life.fate_is_sealed)
            for batch_id, life in scene.lives.items()
        )

    async def _look_after(self, tasks: list[asyncio.Task[None]], stop: asyncio.Event) -> None:
        """Raise what ended a task, or that a child has died.

        Unless the end is asked for: a Ctrl-C reaches the children as well, and they may be done
        with it before we hear.
        """
        dead = [child for child in (self._simulator, self._daemon) if child.has_died]
        failed = [task for task in tasks if task.done() and task.exception() is not None]
        if not (dead or failed) or await self._clock.wait(stop, _SAME_CTRL_C):
            return
        for task in failed:
            task.result()
        for child in dead:
            raise ChildDied(child, "ended by itself")

    # ------------------------------------------------------------------------------ meanwhile

    async def _follow(self) -> None:
        """Keep the scene's truth up to date, in at most a quarter of the time."""
        while True:
            begun = self._clock.monotonic()
            # If the simulator has died, whoever looks after it will say so.
            with suppress(aiohttp.ClientError, TimeoutError):
                self._scene.learn(await self._truth.lives())
            await self._clock.sleep(max(LOOK, 3 * (self._clock.monotonic() - begun)))

    async def _cause_chaos(self) -> None:
        """Kill the daemon now and then, and start it again with the same folder."""
        scene = self._scene
        while scene.since_first_batch is None:
            await self._clock.sleep(FRAME)
        for kill in plan_kills(scene.seed):
            await self._clock.sleep(kill.after / self._speed - (scene.since_first_batch or 0.0))
            await self._daemon.kill()
            scene.kills += 1
            scene.daemon = "killed"
            scene.note("daemon killed, with SIGKILL", is_grave=True)
            await self._clock.sleep(kill.down / self._speed)
            await self.start_daemon()
            scene.note("daemon is back")


@asynccontextmanager
async def _meanwhile(work: Coroutine[None, None, None]) -> AsyncIterator[asyncio.Task[None]]:
    """Do ``work`` beside the body, which looks at it from time to time, and no longer."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])
