"""The processes of the demo, with programs that behave in every way a child may."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

from batchwatch.demo import children
from batchwatch.demo.children import Child, ChildDied, clean_environment

GOOD = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (os.write(1, b"bye"), sys.exit(0)))
print('a line that is no JSON', flush=True)
print('{"event": "test.started", "listen": "http://127.0.0.1:1"}', flush=True)
time.sleep(60)
"""
DEAF = GOOD.replace('(os.write(1, b"bye"), sys.exit(0))', "None")


def a_child(program: str, **environment: str) -> Child:
    return Child("child", [], environment, program=[sys.executable, "-c", program])


async def last_words(child: Child) -> list[str]:
    """Everything that it said, once it has ended by itself."""
    with pytest.raises(ChildDied):
        await child.start()
    return list(child.last_words)


async def test_a_child_is_ready_when_its_log_says_so() -> None:
    """The line carries what the demo needs to know, such as a port."""
    child = a_child(GOOD)

    started = await child.start()

    assert "http://127.0.0.1:1" == started["listen"]
    assert not child.has_died
    await child.stop()


async def test_a_child_is_asked_to_end_and_its_last_words_are_heard() -> None:
    """SIGTERM first; that it ends then is as it should be."""
    child = a_child(GOOD)
    await child.start()

    await child.stop()

    assert "bye" == child.last_words[-1]
    assert not child.has_died


async def test_a_child_that_does_not_listen_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the grace, so that nothing is ever left behind."""
    monkeypatch.setattr(children, "GRACE", 0.1)
    child = a_child(DEAF)
    await child.start()

    await child.stop()

    assert -9 == child.exit_code


async def test_a_child_that_was_killed_can_be_started_again() -> None:
    """It is what --chaos does all the time."""
    child = a_child(GOOD)
    await child.start()
    await child.kill()
    killed = child.exit_code

    again = await child.start()

    assert (-9, "test.started") == (killed, again["event"])
    await child.stop()


async def test_a_child_that_is_about_to_be_started_again_has_not_died() -> None:
    """Whoever looks in that moment sees a process that was meant to end."""
    child = a_child(GOOD)
    await child.start()
    await child.kill()

    starting = asyncio.create_task(child.start())
    looks = []
    while not starting.done():
        looks.append(child.has_died)
        await asyncio.sleep(0)

    assert {False} == set(looks)
    await child.stop()


async def test_a_child_that_ends_by_itself_has_died() -> None:
    """Whatever it ended with: nobody had asked it to."""
    child = a_child(GOOD.replace("time.sleep(60)", ""))
    await child.start()

    await child.ended()

    assert child.has_died
    await child.stop()


async def test_a_child_that_never_gets_ready_is_an_error_with_its_last_words() -> None:
    """What it said is all there is to find out why."""
    child = a_child("import sys; print('no such option', file=sys.stderr); sys.exit(2)")

    with pytest.raises(ChildDied, match="the child ended at once, with 2") as death:
        await child.start()

    assert ("no such option",) == death.value.last_words


async def test_a_child_that_takes_too_long_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than a demo that waits for ever."""
    monkeypatch.setattr(children, "START_LIMIT", 0.05)
    child = a_child("import time; time.sleep(60)")

    with pytest.raises(ChildDied, match="was not ready within"):
        await child.start()

    await child.kill()


async def test_a_line_that_is_longer_than_any_limit_does_not_deafen_the_demo() -> None:
    """A traceback is one line of JSON; a child whose log nobody reads would stand still."""
    child = a_child("print('x' * 3_000_000); print('the end')")

    assert "the end" == (await last_words(child))[-1]


async def test_a_child_that_was_never_started_can_be_stopped() -> None:
    """As when something before it failed."""
    await a_child(GOOD).stop()


async def test_no_setting_of_the_user_leaks_into_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """Least of all a key of the real service."""
    for name in ("BATCHWATCH_CONFIG", "LLAMA_CLOUD_API_KEY", "LLAMA_PARSE_API_KEY_FILE"):
        monkeypatch.setenv(name, "the user's")
    monkeypatch.setenv("HOME", "/home/somebody")

    environment: dict[str, Any] = clean_environment(BATCHWATCH_LISTEN="127.0.0.1:0")

    assert "/home/somebody" == environment["HOME"]
    ours = {name for name in environment if name.startswith(("BATCHWATCH_", "LLAMA_"))}
    assert {"BATCHWATCH_LISTEN"} == ours
