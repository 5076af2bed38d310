"""Watch from a notebook or a pipeline: the daemon's rules, with a loop in place of receivers.

::

    async for event in batchwatch.watch():
        print(event.type, event.batch_id)

What it needs is built as the daemon builds it: the same poller, the same
store, the same outbox. The loop is one more endpoint, which takes an event
when it asks for the next one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
import structlog

from batchwatch.clock import Clock
from batchwatch.deliver.dispatcher import Dispatcher
from batchwatch.domain.batch import BatchId, EndpointName
from batchwatch.domain.delivery import Attempt
from batchwatch.domain.event import EVENT_TYPES
from batchwatch.domain.routing import FOR_PROGRAMS, Router
from batchwatch.metrics import Metrics
from batchwatch.parts import cloud_of, upstream_session, watch_of, watcher_of
from batchwatch.settings import Problem, SettingsError, load
from batchwatch.settings.kinds import Duration
from batchwatch.settings.problems import Invalid
from batchwatch.store import Store
from batchwatch.store.temporary import opened
from batchwatch.waiting import Wait

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Collection, Coroutine, Iterator, Sequence

    from batchwatch.domain.delivery import Claimed
    from batchwatch.settings import Settings
    from batchwatch.waiting import Outcome

NAME: Final = "default"  # of the watch, as where the settings name none
_LOOP: Final = EndpointName("loop")
_ENVIRONMENT: Final = (
    "LLAMA_CLOUD_API_KEY",
    "LLAMA_CLOUD_API_KEY_FILE",
    "LLAMA_PARSE_API_KEY",
    "LLAMA_CLOUD_BASE_URL",
)


# What the parameters are called here, for whoever has to mend one.
_PARAMETERS: Final = {
    ("llama_cloud_api_key",): "api_key",
    ("llama_cloud_base_url",): "base_url",
    ("poll_interval",): "interval",
    ("lookback",): "lookback",
    ("notify_backlog",): "notify_backlog",
    ("watches", NAME, "project_id"): "project_id",
    ("watches", NAME, "organization_id"): "organization_id",
    ("watches", NAME, "source_directory_id"): "source_directory_id",
}

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened: what a receiver of the daemon would be sent.

    ``id`` is the same whenever the same fact is told again. ``data`` is as
    docs/events.md describes it for this ``type``.
    """

    id: str
    type: str
    timestamp: datetime
    data: dict[str, Any]
    batch_id: str | None = None  # None: it is about the watch


async def watch(  # noqa: PLR0913  # each by its name, and none without a meaning
    *,
    api_key: str | None = None,
    base_url: str | None = None,
    project_id: str | None = None,
    organization_id: str | None = None,
    source_directory_id: str | None = None,
    events: Sequence[str] = (),
    interval: float | str = 15.0,
    lookback: float | str = "24h",
    notify_backlog: bool = False,
    store: str | os.PathLike[str] | None = None,
    clock: Clock | None = None,
) -> AsyncGenerator[Event]:
    """Yield what happens to batches, in the order of each, until the loop is left.

    The key and the address come from ``LLAMA_CLOUD_API_KEY`` and
    ``LLAMA_CLOUD_BASE_URL`` where they are not given; the other settings mean
    what they mean for the daemon, durations in seconds or as ``"15s"``.
    ``events`` are the types to yield, such as ``"batch.*"``; without any, all
    that programs are sent unasked.

    With a ``store``, the path of a file, nothing is lost between two runs:
    what happened meanwhile is found, and an event counts as taken only when
    the next one is asked for. A loop that ends in the middle of one is given
    it again, under the same id. Without, it lives in a temporary folder, and
    what had ended before the first look is not told.

    Leave it early within ``contextlib.aclosing``, or it goes on until it is
    collected. Raises :class:`~batchwatch.SettingsError` and
    :class:`~batchwatch.StoreError`. While LlamaCloud does not answer it goes
    on trying, and yields ``watch.failing``.
    """
    settings = settings_of(
        api_key=api_key,
        base_url=base_url,
        project_id=project_id,
        organization_id=organization_id,
        source_directory_id=source_directory_id,
        interval=interval,
        lookback=lookback,
        notify_backlog=notify_backlog,
    )
    types = _types(events)
    clock = clock or Clock()
    async with AsyncExitStack() as stack:
        stack.enter_context(hushed())
        database = await stack.enter_async_context(opened(store))
        kept = Store(database, Router(defaults={_LOOP: types}), clock)
        await kept.outbox.recover()
        loop = _Loop(clock)
        metrics = Metrics()
        dispatcher = Dispatcher(
            kept.outbox,
            [loop],
            records=kept.endpoints,
            clock=clock,
            metrics=metrics,
        )
        configured = settings.watches[NAME]
        watcher = watcher_of(
            watch_of(NAME, configured),
            cloud=cloud_of(
                configured,
                key_source=_key_name(api_key),
                session=await stack.enter_async_context(upstream_session()),
                clock=clock,
            ),
            store=kept,
            clock=clock,
            metrics=metrics,
        )
        # Tasks and no group: a group would cancel whoever runs the loop, in the midst of its body.
        working = [
            asyncio.create_task(watcher.run(asyncio.Event()), name="watch"),
            asyncio.create_task(dispatcher.run(), name="deliver"),
        ]
        try:
            while True:
                yield await _first(loop.next(), working)
                loop.taken()
        finally:
            working[0].cancel()
            dispatcher.stop()
            loop.close()
            await asyncio.gather(*working, return_exceptions=True)


async def wait(  # noqa: PLR0913  # as watch()
    batch_id: str,
    *,
    api_key: str | None = None,
    base_url: str | None = None,
    project_id: str | None = None,
    organization_id: str | None = None,
    settled: bool = False,
    timeout: float | str | None = None,  # noqa: ASYNC109  # with words for a person, and "2h"
    interval: float | str = 15.0,
    clock: Clock | None = None,
) -> Outcome:
    """Return what became of a batch when it has ended, or with ``settled`` when its jobs have.

    A batch that fails is an outcome like any other. The key and the address
    as for :func:`watch`; an outage is waited out. Raises ``TimeoutError``,
    :class:`~batchwatch.NoSuchBatch` when nobody has known the batch for half
    a minute, :class:`~batchwatch.CloudError` when the key is refused, and
    :class:`~batchwatch.SettingsError`.
    """
    settings = settings_of(
        api_key=api_key,
        base_url=base_url,
        project_id=project_id,
        organization_id=organization_id,
        interval=interval,
    )
    patience = None if timeout is None else _seconds("timeout", timeout)
    waiting = Wait(
        [batch_id],
        settings,
        settled=settled,
        clock=clock or Clock(),
        beside=False,
        key_name=_key_name(api_key),
    )
    with hushed():
        async with waiting:
            if not await waiting.until_over(patience=patience):
                standing = waiting.standings[BatchId(batch_id)]
                status = f"it is {standing.status}" if standing else "it was never seen"
                why = f": {waiting.trouble}" if waiting.trouble else ""
                raise TimeoutError(f"batch {batch_id} is not over, {status}{why}")
            return await waiting.outcome(BatchId(batch_id))


def _key_name(given: str | None) -> str:
    return "api_key" if given else "LLAMA_CLOUD_API_KEY"


def _seconds(name: str, given: float | str) -> float:
    try:
        return Duration("0s", "365d").parse(given)
    except Invalid as wrong:
        raise SettingsError([Problem(name, wrong.given, wrong.expected, wrong.fix)]) from None


class _Loop:
    """The loop as an endpoint: it is sent an event when it has asked for one."""

    name: Final = _LOOP
    schedule: Final = ()
    timeout: Final = 86_400.0  # seconds; what it does with an event is its own affair
    concurrency: Final = 1
    rate: Final = None
    final_statuses: Final = frozenset[int]()

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offered: asyncio.Queue[tuple[Claimed, asyncio.Future[None]]] = asyncio.Queue()
        self._present: asyncio.Future[None] | None = None
        self._closed = False

    async def send(self, delivery: Claimed) -> Attempt:
        """Offer the event; return when the loop is done with it."""
        began, begun = self._clock.now(), self._clock.monotonic()
        taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._closed:
            taken.cancel()
        self._offered.put_nowait((delivery, taken))
        await taken
        return Attempt(began, self._clock.monotonic() - begun)

    async def next(self) -> Event:
        """The next event, when there is one."""
        delivery, self._present = await self._offered.get()
        payload = msgspec.json.decode(delivery.payload)
        return Event(
            id=delivery.event_id,
            type=delivery.type,
            timestamp=datetime.fromisoformat(payload["timestamp"]),
            data=payload["data"],
            batch_id=delivery.batch_id,
        )

    def taken(self) -> None:
        """The loop is done with the event that it was given last."""
        if self._present is not None and not self._present.done():
            self._present.set_result(None)
        self._present = None

    def close(self) -> None:
        """The loop was left: what it was not done with stays owed to it."""
        self._closed = True
        if self._present is not None:
            self._present.cancel()
        while not self._offered.empty():
            self._offered.get_nowait()[1].cancel()


async def _first(coming: Coroutine[Any, Any, _T], working: Collection[asyncio.Task[None]]) -> _T:
    """What is ``coming``; raises why the work has ended instead, which it does not by itself."""
    waiting = asyncio.ensure_future(coming)
    try:
        await asyncio.wait({waiting, *working}, return_when=asyncio.FIRST_COMPLETED)
        for task in working:
            if task.done():
                task.result()
                raise RuntimeError(f"{task.get_name()} has ended; a bug, please report it")
        return waiting.result()
    finally:
        waiting.cancel()


def settings_of(**given: object) -> Settings:
    """The settings that parameters make, with LlamaCloud's own variables behind them.

    Nothing else of the environment is read: variables of batchwatch are the
    daemon's. Raises SettingsError, with the names of the parameters.
    """
    given = {name: value for name, value in given.items() if value is not None}
    tree: dict[str, Any] = {}
    for path, parameter in _PARAMETERS.items():
        if parameter in given:
            branch = tree
            for step in path[:-1]:
                branch = branch.setdefault(step, {})
            branch[path[-1]] = given[parameter]
    environ = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    try:
        settings = load(environ=environ, for_run=False, **tree)
    except SettingsError as error:
        raise SettingsError(
            replace(one, name=_PARAMETERS[one.path]) if _PARAMETERS.get(one.path) in given else one
            for one in error.problems
        ) from None  # the other one names options of a command
    if not settings.watches[NAME].api_key.get_secret_value():
        raise SettingsError([
            Problem(
                "api_key",
                given="nothing",
                expected="an API key of LlamaCloud",
                fix="Give it, or set LLAMA_CLOUD_API_KEY.",
            )
        ])  # fmt: skip
    return settings


def _types(patterns: Sequence[str]) -> frozenset[str]:
    if isinstance(patterns, str):
        patterns = [patterns]
    chosen = {one for pattern in patterns for one in EVENT_TYPES if fnmatchcase(one, pattern)}
    if patterns and not chosen:
        known = ", ".join(EVENT_TYPES)
        raise SettingsError([
            Problem("events", repr(list(patterns)), f"types of events, or batch.*: {known}", "")
        ])  # fmt: skip
    return frozenset(chosen) if patterns else FOR_PROGRAMS


_hushing: Final[set[object]] = set()  # who goes on, while it was us who decided on the log


@contextmanager
def hushed() -> Iterator[None]:
    """Have nothing but warnings logged, on stderr, unless somebody has decided on it.

    Until the last of those that go on at the same time has ended.
    """
    if structlog.is_configured() and not _hushing:
        yield
        return
    me = object()
    if not _hushing:
        structlog.configure(
            wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
            logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        )
    _hushing.add(me)
    try:
        yield
    finally:
        _hushing.discard(me)
        if not _hushing:
            structlog.reset_defaults()
