"""All that survives a crash, and all SQL: one SQLAlchemy Core store."""

from batchwatch.store.batches import Batches
from batchwatch.store.endpoints import Endpoints
from batchwatch.store.engine import Database
from batchwatch.store.errors import StoreError
from batchwatch.store.figures import Figures
from batchwatch.store.hints import Hints
from batchwatch.store.judgements import Judgements
from batchwatch.store.outbox import Outbox
from batchwatch.store.outcomes import FileNames
from batchwatch.store.pages import Page, Pages, WantedBatches, WantedDeliveries, WantedEvents
from batchwatch.store.store import Store
from batchwatch.store.views import Views, Wanted
from batchwatch.store.watches import Watches

__all__ = [
    "Batches",
    "Database",
    "Endpoints",
    "Figures",
    "FileNames",
    "Hints",
    "Judgements",
    "Outbox",
    "Page",
    "Pages",
    "Store",
    "StoreError",
    "Views",
    "Wanted",
    "WantedBatches",
    "WantedDeliveries",
    "WantedEvents",
    "Watches",
]
