"""How a watch goes, as whoever polls it says it; to other replicas it travels as JSON."""

from __future__ import annotations

from typing import Final, Self

import msgspec

from batchwatch.llamacloud.budget import Allowance


class WatchHealth(msgspec.Struct, frozen=True):
    """What can be known of a watch by its watcher alone.

    Each field has a default, for a replica of another version may say less.
    """

    silence: float | None = None  # seconds since its last good pass; None: there was none yet
    allowance: Allowance | None = None
    troubles: tuple[str, ...] = ()
    is_stalled: bool = False  # no longer going round, whatever upstream does

    def written(self) -> str:
        """The same as JSON."""
        return _ENCODER.encode(self).decode()

    @classmethod
    def read(cls, said: str | None) -> Self | None:
        """What was :meth:`written`; None if nothing was, or nothing that this version knows."""
        try:
            return msgspec.json.decode(said, type=cls) if said else None
        except msgspec.MsgspecError:
            return None


_ENCODER: Final = msgspec.json.Encoder()
