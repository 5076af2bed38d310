"""Run the daemon and kill it, from inside, at one exact point: ``CLASS.METHOD:when:count``.

As ``kill -9``: nothing is flushed, closed or caught. ``when`` is before or
after the call, ``count`` which call it is.
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import sys
from typing import Any

from batchwatch import daemon
from batchwatch.clock import Clock
from batchwatch.deliver.webhook import Webhook
from batchwatch.llamacloud.client import LlamaCloud
from batchwatch.log import configure
from batchwatch.settings import load
from batchwatch.store import Batches, Outbox, Watches
from batchwatch.store.leases import Leases

POINTS: dict[str, tuple[type, str]] = {
    "begin": (Watches, "begin"),
    "news": (Batches, "news"),
    "change": (Batches, "change"),
    "get": (LlamaCloud, "get_batch"),
    "jobs": (LlamaCloud, "jobs"),
    "follow": (Batches, "follow"),
    "passed": (Watches, "passed"),
    "claim": (Outbox, "claim"),
    "send": (Webhook, "send"),
    "settle": (Outbox, "settle"),
    # Within a transaction: all of it is undone by the database itself.
    "write": (Batches, "_write"),
    "enqueue": (Outbox, "enqueue"),
    "move_up": (Outbox, "_move_up"),
}
# Where several daemons share the database.
SHARED_POINTS: dict[str, tuple[type, str]] = {
    "beat": (Leases, "beat"),
    "take": (Leases, "take"),
    "guard": (Leases, "guard"),  # within a transaction, which holds the lease then
}


def arm(point: str) -> None:
    """Make the process kill itself at ``point``."""
    name, when, count = point.split(":")
    owner, method = (POINTS | SHARED_POINTS)[name]
    original = getattr(owner, method)
    calls = 0

    @functools.wraps(original)
    async def armed(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        mine = calls == int(count)
        if mine and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = await original(*args, **kwargs)
        if mine and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, method, armed)


async def main() -> None:
    """The daemon as it is, until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await daemon.run(load(), stop=stop, clock=Clock())


if __name__ == "__main__":
    if sys.argv[1]:
        arm(sys.argv[1])
    configure(style="json", level="error")
    asyncio.run(main())
