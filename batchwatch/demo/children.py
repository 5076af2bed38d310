"""The processes of the demo: started with a clean environment, listened to, and never left behind.

They stay in the demo's own process group, so that whatever ends the group (a closed terminal, a
second Ctrl-C) ends them with it.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

START_LIMIT: Final = 30.0  # seconds; a busy machine may take long to start a Python
GRACE: Final = 4.0  # seconds from SIGTERM to SIGKILL
LAST_WORDS: Final = 12  # lines of a child's log that are kept
_LONGEST_LINE: Final = 1024 * 1024  # bytes; a traceback is one line of JSON
_OURS: Final = ("BATCHWATCH_", "LLAMA_")


class ChildDied(Exception):
    """A child ended, or never was ready, and nobody had asked for it."""

    def __init__(self, child: Child, what: str) -> None:
        super().__init__(f"the {child.name} {what}")
        self.last_words = tuple(child.last_words)


def clean_environment(**settings: str) -> dict[str, str]:
    """The user's environment without any settings of theirs, and with ours."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    return kept | {"PYTHONUNBUFFERED": "1"} | settings


class Child:
    """A ``batchwatch`` command in a process of its own, which can be started again and again."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        *,
        program: Sequence[str] = (sys.executable, "-m", "batchwatch"),
    ) -> None:
        self.name = name
        self.last_words: deque[str] = deque(maxlen=LAST_WORDS)
        self._command = [*program, *arguments]
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None
        self._listening: asyncio.Task[None] | None = None
        self._started: asyncio.Future[Mapping[str, Any]] | None = None
        self._is_wanted = False

    @property
    def exit_code(self) -> int | None:
        """What it ended with, or below zero the signal that ended it; None while it runs."""
        return None if self._process is None else self._process.returncode

    @property
    def has_died(self) -> bool:
        """Whether it ended without having been asked to."""
        return self._is_wanted and self.exit_code is not None

    async def start(self) -> Mapping[str, Any]:
        """Start it; gives the line ``….started`` of its log once that is there.

        Raises :class:`ChildDied` if it ends instead, or takes too long.
        """
        self._started = asyncio.get_running_loop().create_future()
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=_LONGEST_LINE,
        )
        self._is_wanted = True  # not before: what had ended was meant to
        self._listening = asyncio.create_task(self._listen(self._process, self._started))
        try:
            async with asyncio.timeout(START_LIMIT):
                return await self._started
        except TimeoutError:
            raise ChildDied(self, f"was not ready within {START_LIMIT:.0f} s") from None

    async def ended(self) -> None:
        """Return when it has ended, and all that it said is heard."""
        if self._listening is not None:
            await self._listening

    async def kill(self) -> None:
        """SIGKILL: it gets to do nothing more."""
        await self._end(grace=0.0)

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL if that is not enough."""
        await self._end(grace=GRACE)

    async def _end(self, *, grace: float) -> None:
        self._is_wanted = False
        process = self._process
        if process is None:
            return
        with suppress(ProcessLookupError):
            if grace:
                process.terminate()
                with suppress(TimeoutError):
                    async with asyncio.timeout(grace):
                        await process.wait()
            if process.returncode is None:
                process.kill()
        await self.ended()

    async def _listen(
        self, process: asyncio.subprocess.Process, started: asyncio.Future[Mapping[str, Any]]
    ) -> None:
        assert process.stdout is not None  # noqa: S101  # it was asked for
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:  # longer than the limit; what follows is the rest of it
                continue
            if not line:
                break
            self.last_words.append(line.decode("utf-8", "replace").rstrip())
            event = _event(line)
            if str(event.get("event", "")).endswith(".started") and not started.done():
                started.set_result(event)
        await process.wait()
        if not started.done():
            started.set_exception(ChildDied(self, f"ended at once, with {process.returncode}"))
            started.exception()  # seen: nobody may be waiting any more


def _event(line: bytes) -> Mapping[str, Any]:
    """The line of a log, or nothing: warnings of the interpreter are no JSON."""
    try:
        event = msgspec.json.decode(line)
    except msgspec.DecodeError:
        return {}
    return event if isinstance(event, dict) else {}
