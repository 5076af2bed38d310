"""All that speaks to one open database: what is told of a change goes into the same outbox."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchwatch.store.batches import Batches
from batchwatch.store.endpoints import Endpoints
from batchwatch.store.figures import Figures
from batchwatch.store.hints import Hints
from batchwatch.store.outbox import Outbox
from batchwatch.store.outcomes import FileNames
from batchwatch.store.pages import Pages
from batchwatch.store.replicas import Replicas
from batchwatch.store.views import Views
from batchwatch.store.watches import Watches
from batchwatch.traces import OFF

if TYPE_CHECKING:
    from batchwatch.clock import Clock
    from batchwatch.domain.routing import Router
    from batchwatch.store.engine import Database
    from batchwatch.traces import Traces


class Store:
    """Every part of the store, over one database."""

    def __init__(
        self,
        database: Database,
        router: Router,
        clock: Clock,
        *,
        beside: bool = False,
        traces: Traces = OFF,
    ) -> None:
        """``router`` says who is owed what; ``beside`` is for commands, as for :class:`Outbox`."""
        self.database = database
        self.outbox = Outbox(database, router, clock, beside=beside, traces=traces)
        self.batches = Batches(database, self.outbox)
        self.watches = Watches(database, self.outbox)
        self.endpoints = Endpoints(database, self.outbox)
        self.names = FileNames(database)
        self.hints = Hints(database)
        self.views = Views(database)
        self.pages = Pages(database)
        self.figures = Figures(database)
        self.replicas = Replicas(database)
