"""Ask the simulator what truly happened, and what of it upstream's answers have shown."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING, Final

import msgspec

from batchwatch.demo.evidence import Files, Life, Step

if TYPE_CHECKING:
    import aiohttp


class _Step(msgspec.Struct):
    status: str
    at: datetime


class _Job(msgspec.Struct):
    history: list[_Step]


class _File(msgspec.Struct):
    error_message: str | None
    job: _Job | None


class _Told(msgspec.Struct):
    id: str
    history: list[_Step]
    files: list[_File]


class _Shown(msgspec.Struct):
    id: str
    statuses: list[str]


class _History(msgspec.Struct):
    batches: list[_Told]


class _Seen(msgspec.Struct):
    batches: list[_Shown]


_ENDS: Final = {"COMPLETED": "succeeded", "FAILED": "failed", "CANCELLED": "cancelled"}
_decode_history = msgspec.json.Decoder(_History).decode
_decode_seen = msgspec.json.Decoder(_Seen).decode


class Truth:
    """The simulator's own record, which no fault of any scenario touches."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self.url = url

    async def lives(self) -> dict[str, Life]:
        """Every batch by its id, the oldest first. Raises aiohttp.ClientError, TimeoutError.

        What was shown is asked for first: nothing can have been shown that did not happen.
        """
        seen = _decode_seen(await self._get("/sim/seen"))
        history = _decode_history(await self._get("/sim/history"))
        shown = {one.id: tuple(one.statuses) for one in seen.batches}
        lives = (
            Life(
                one.id,
                tuple(Step(s.status, s.at) for s in one.history),
                shown.get(one.id, ()),
                _became(one.files),
            )
            for one in history.batches
        )
        return {life.batch_id: life for life in sorted(lives, key=lambda life: life.born)}

    async def _get(self, path: str) -> bytes:
        async with self._session.get(self.url + path, raise_for_status=True) as answer:
            return await answer.read()


def _became(files: list[_File]) -> Files:
    counts: Counter[str] = Counter()
    running = 0
    ends = []
    for file in files:
        if file.error_message is not None:
            counts["unmapped"] += 1
        elif file.job is None:
            counts["jobless"] += 1
        elif fate := _ENDS.get(file.job.history[-1].status):
            counts[fate] += 1
            ends.append(file.job.history[-1].at)
        else:
            running += 1
    return Files(counts, running, max(ends, default=None))
