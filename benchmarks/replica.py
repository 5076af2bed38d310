"""A daemon as far as it delivers, in a process of its own, over a store that it may share.

Run as ``python -m benchmarks.replica STORE RECEIVER``, by URLs. It says ``ready``, begins with the
first line of its stdin, ends when that is closed, and then says how it went.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
import uuid
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from batchwatch import log
from batchwatch.deliver.sender import new_session
from batchwatch.deliver.signing import key_of
from benchmarks.child import child
from benchmarks.pipe import SECRET, dispatcher_of, open_store, webhook_at

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

READY: Final = "ready"


class Report(msgspec.Struct):
    """How it went: the monotonic moment at which all was acknowledged, and what that took."""

    ended: float
    cpu: float  # seconds, from the first line on


@dataclass(frozen=True, slots=True)
class Replica:
    """One of them, as seen from the process that started it."""

    process: asyncio.subprocess.Process

    def begin(self) -> None:
        """Have it deliver."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"go\n")

    async def end(self) -> Report:
        """Have it acknowledge what it has sent, and stop."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        return msgspec.json.decode(await self.process.stdout.readline(), type=Report)


@asynccontextmanager
async def replica(store: str, receiver: str) -> AsyncIterator[Replica]:
    """One that is ready to begin; it goes with this process however that ends."""
    async with child("benchmarks.replica", store, receiver) as (process, said):
        if said != READY:
            raise RuntimeError("a replica did not start")
        yield Replica(process)


async def main(store_url: str, receiver: str) -> None:
    """Deliver all that is owed, until stdin is closed."""
    async with open_store(store_url) as store, new_session() as session:
        if store.database.is_shared:
            store.outbox.replica = uuid.uuid4().hex  # as the daemon does
        dispatcher = dispatcher_of(store, webhook_at(receiver, session, [key_of(SECRET)]))
        gc.collect()
        gc.freeze()  # as the daemon does
        print(READY, flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        cpu = time.process_time()
        delivering = asyncio.create_task(dispatcher.run())
        await asyncio.to_thread(sys.stdin.read)
        dispatcher.stop()
        await delivering  # which writes all acknowledgements before it returns
        report = Report(ended=time.monotonic(), cpu=time.process_time() - cpu)
        print(msgspec.json.encode(report).decode(), flush=True)


if __name__ == "__main__":
    log.configure(style="json", level="warning")
    asyncio.run(main(*sys.argv[1:]))
