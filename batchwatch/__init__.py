"""batchwatch watches LlamaCloud batches and tells people and programs what became of them.

The pipeline, in order:

    llamacloud  asks the upstream API, within its rate limits
    watching    discovers batches, looks again at the active ones, fetches results
    domain      decides what truly changed, and which events that makes
    store       writes batches, transitions, events and deliveries in one transaction
    deliver     claims what the outbox owes, signs it, sends it, settles it
    web         says whether all of this is well
    daemon      wires it together; settings, clock, log and metrics are the ground
    simulator   stands in for upstream; demo shows the whole pipe against it
    library     the same in a program of yours: batchwatch.watch() and batchwatch.wait()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchwatch.domain.standing import Ending
    from batchwatch.library import Event, wait, watch
    from batchwatch.llamacloud.errors import CloudError
    from batchwatch.settings import SettingsError
    from batchwatch.store import StoreError
    from batchwatch.waiting import Failure, NoSuchBatch, Outcome

__version__ = "0.1.0"
__all__ = [
    "CloudError",
    "Ending",
    "Event",
    "Failure",
    "NoSuchBatch",
    "Outcome",
    "SettingsError",
    "StoreError",
    "wait",
    "watch",
]
_HOMES = {  # of what is not in the library itself
    "CloudError": "batchwatch.llamacloud.errors",
    "Ending": "batchwatch.domain.standing",
    "Failure": "batchwatch.waiting",
    "NoSuchBatch": "batchwatch.waiting",
    "Outcome": "batchwatch.waiting",
    "SettingsError": "batchwatch.settings",
    "StoreError": "batchwatch.store",
}


def __getattr__(name: str) -> Any:
    """Import what the library is made of when it is used: commands need little of it."""
    if name not in __all__:
        raise AttributeError(f"module 'batchwatch' has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415

    return getattr(import_module(_HOMES.get(name, "batchwatch.library")), name)
