"""Say of each part whether it is right, or how to mend it, without sending anything to anyone."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections import Counter
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import aiohttp

from batchwatch.domain.batch import Status
from batchwatch.llamacloud.diagnosis import GOES_ON
from batchwatch.llamacloud.errors import CloudError
from batchwatch.parts import cloud_of, guard_of, key_source, keys_of, upstream_session
from batchwatch.settings import Address, format_duration
from batchwatch.settings.problems import SettingsError
from batchwatch.settings.review import describe, overlaps, warnings
from batchwatch.settings.tls import tls_contexts
from batchwatch.store import Database, StoreError, Views
from batchwatch.store.errors import SchemaTooOld
from batchwatch.store.file import check_writable, file_of, holder_of
from batchwatch.store.replicas import Replicas
from batchwatch.store.schema import HEAD
from batchwatch.traces import trouble
from batchwatch.web.hooks import PATH as HOOKS_PATH

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from batchwatch.clock import Clock
    from batchwatch.deliver.guard import Guard
    from batchwatch.deliver.signing import Key
    from batchwatch.settings import EndpointSettings, SecretUrl, Settings, WatchSettings
    from batchwatch.store.replicas import Replica
    from batchwatch.store.views import OutboxDepth

_LATELY: Final = timedelta(days=3)  # in which two watches may have seen the same
_PATIENCE: Final = 2.0  # seconds to wait for what holds our port
_MANY: Final = ("are", "were", "they wait")


class Verdict(StrEnum):
    """How a part is."""

    OK = "ok"
    WARNING = "warning"  # it works, and somebody should know
    WRONG = "wrong"  # it does not work


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    verdict: Verdict
    part: str
    text: str


async def check(settings: Settings, *, clock: Clock) -> AsyncIterator[Finding]:
    """Look at the store, each watch, each endpoint and the address to listen on, in turn."""
    for finding in _settings(settings):
        yield finding
    file = file_of(settings.database_url.get_secret_value())
    daemon = None if file is None else holder_of(file)
    stored = await _look(settings, file=file, is_running=daemon is not None)
    alive = [] if isinstance(stored, Finding) else stored.alive
    if alive:
        ids = ", ".join(one.id for one in alive)
        text = f"running on this store: {ids}; what was changed counts once they restart"
        yield Finding(Verdict.OK, "daemon", text)
        here = any(one.host == socket.gethostname() for one in alive)
        daemon = "" if here else None  # its process is not known
    elif daemon is not None:
        text = f"it is running as process {daemon or '?'}; what was changed counts once it restarts"
        yield Finding(Verdict.OK, "daemon", text)
    for finding in [stored] if isinstance(stored, Finding) else _store(settings, stored):
        yield finding
    for finding in await _watches(settings, clock):
        yield finding
    for name, endpoint in settings.endpoints.items():
        yield await _endpoint(name, endpoint, clock.now())
    if not settings.endpoints:
        yield Finding(
            Verdict.WRONG,
            "endpoints",
            "there is none; set BATCHWATCH_WEBHOOK_URL or BATCHWATCH_SLACK_WEBHOOK_URL",
        )
    if settings.heartbeat_url:
        yield await _switch(settings, settings.heartbeat_url)
    yield await _listen(settings, daemon)


def _settings(settings: Settings) -> Iterator[Finding]:
    for line in describe(settings):
        if line.was_set:
            yield Finding(Verdict.OK, "settings", str(line))
    for text in warnings(settings):
        yield Finding(Verdict.WARNING, "settings", text)
    for text in _tls(settings):
        yield Finding(Verdict.WRONG, "settings", text)
    if why := trouble(os.environ):
        yield Finding(Verdict.WARNING, "traces", why)


def is_complete(settings: Settings) -> bool:
    """Whether all is set that the daemon cannot do without; it would not even start."""
    keys = (watch.api_key.get_secret_value() for watch in settings.watches.values())
    return bool(settings.endpoints) and all(keys)


@dataclass(frozen=True, slots=True)
class _Stored:
    """What a store had to say, all of it asked at once."""

    where: str
    schema: str | None
    statuses: list[dict[str, Any]]
    depths: list[OutboxDepth]
    alive: list[Replica]  # none on a file: that has a lock


async def _look(settings: Settings, *, file: Path | None, is_running: bool) -> _Stored | Finding:
    """Look into the store, and whether it could be written; it is not made, nor migrated."""
    try:
        if file is not None and not is_running and not check_writable(file):
            return Finding(Verdict.OK, "store", f"{file}: not there yet; batchwatch run makes it")
        database = await Database.open(settings.database_url.get_secret_value(), exclusive=False)
        try:
            fleet = await Replicas(database).fleet() if database.is_shared else None
            return _Stored(
                where=database.where,
                schema=database.found,
                statuses=await Views(database).statuses(),
                depths=await Views(database).outbox(),
                alive=[one for one in fleet.replicas if one.is_alive] if fleet else [],
            )
        finally:
            await database.close()
    except StoreError as error:
        verdict = Verdict.OK if isinstance(error, SchemaTooOld) else Verdict.WRONG
        return Finding(verdict, "store", str(error))


def _store(settings: Settings, found: _Stored) -> Iterator[Finding]:
    count = sum(row["count"] for row in found.statuses)
    yield Finding(Verdict.OK, "store", f"{found.where}: {_counted(count, 'batch')}")
    if found.schema is not None and found.schema > HEAD:
        text = f"its schema is {found.schema}, and this version knows {HEAD}: upgrade it, too"
        yield Finding(Verdict.WARNING, "store", text)
    yield from _unwatched(settings, found.statuses)
    yield from _owed(settings, found.depths)


def _unwatched(settings: Settings, statuses: list[dict[str, Any]]) -> Iterator[Finding]:
    """What was being followed under a name that the settings no longer have."""
    active: Counter[str] = Counter()
    for row in statuses:
        if not Status(row["status"]).is_terminal and row["watch"] not in settings.watches:
            active[row["watch"]] += row["count"]
    for watch, count in active.items():
        are = f"{_counted(count, 'batch')} of watch {watch} {'is' if count == 1 else 'are'}"
        text = (
            f"{are} active and no longer watched: nobody will hear of their end. "
            f"Set a watch of that name again, or leave them"
        )
        yield Finding(Verdict.WARNING, f"watch {watch}", text)


def _owed(settings: Settings, depths: list[OutboxDepth]) -> Iterator[Finding]:
    """What waits for nobody, and what was given up."""
    for depth in depths:
        part = f"endpoint {depth.endpoint}"
        count = _counted(depth.count, "delivery")
        are, were, they = ("is", "was", "it waits") if depth.count == 1 else _MANY
        if depth.endpoint not in settings.endpoints:
            text = (
                f"{count} {are} {depth.state} for an endpoint that is not set; "
                f"{they} until one of that name is"
            )
            yield Finding(Verdict.WARNING, part, text)
        elif depth.state == "dead":
            text = f"{count} {were} given up; see batchwatch show BATCH"
            yield Finding(Verdict.WARNING, part, text)


def _counted(number: int, one: str) -> str:
    many = f"{one}es" if one.endswith("h") else f"{one.removesuffix('y')}ies"
    return f"{number} {one if number == 1 else many}"


async def _watch(
    settings: Settings,
    name: str,
    watch: WatchSettings,
    session: aiohttp.ClientSession,
    clock: Clock,
) -> Finding:
    part = f"watch {name}"
    source = key_source(settings, name)
    if not watch.api_key.get_secret_value():
        return Finding(Verdict.WRONG, part, f"it has no API key; set {source}")
    try:
        cloud = cloud_of(watch, key_source=source, session=session, clock=clock)
        begun = clock.monotonic()
        async with aclosing(cloud.list_batches(page_size=1)) as pages:
            page = await anext(pages)
    except CloudError as error:
        # That is the daemon's way; here nobody goes on.
        return Finding(Verdict.WRONG, part, str(error).replace(f"; {GOES_ON}", ""))
    took = round((clock.monotonic() - begun) * 1000)
    sees = "sees batches" if page.items else "sees no batch yet"
    hints = f"come in at {HOOKS_PATH.format(watch=name)}" if watch.hint_secret else "are off"
    text = f"{watch.base_url} accepts the key of {source} and {sees} ({took} ms); hints {hints}"
    return Finding(Verdict.OK, part, text)


async def _watches(settings: Settings, clock: Clock) -> list[Finding]:
    """Each watch, side by side: one alone may take half a minute until nobody has answered."""
    async with upstream_session() as session:
        looks = (_watch(settings, *one, session, clock) for one in settings.watches.items())
        found = await asyncio.gather(*looks)
        return [*found, *await _shared(settings, session, clock)]


async def _shared(
    settings: Settings, session: aiohttp.ClientSession, clock: Clock
) -> list[Finding]:
    """Watches that list the same batches of the last days, as a page of each tells.

    Those that overlap by what is set have been named already.
    """
    told = {other for _, other in overlaps(settings)}
    names = [name for name, one in settings.watches.items() if one.api_key.get_secret_value()]
    if len(set(names) - told) < 2:
        return []
    pages = await asyncio.gather(*(_ids(settings, name, session, clock) for name in names))
    seen = dict(zip(names, pages, strict=True))
    found = []
    for number, other in enumerate(names):
        one = next((one for one in names[:number] if seen[one] & seen[other]), None)
        if one is not None and other not in told:
            both, fewer = len(seen[one] & seen[other]), min(len(seen[one]), len(seen[other]))
            text = (
                f"it and watch {one} see the same batches ({both} of {fewer} of the last "
                f"{_LATELY.days} days), so each event about those is made twice. Remove one of "
                f"them, or give each a directory of its own"
            )
            found.append(Finding(Verdict.WARNING, f"watch {other}", text))
    return found


async def _ids(
    settings: Settings, name: str, session: aiohttp.ClientSession, clock: Clock
) -> set[str]:
    """The batches on the first page of the last days; none where it cannot be had."""
    source = key_source(settings, name)
    cloud = cloud_of(settings.watches[name], key_source=source, session=session, clock=clock)
    try:
        async with aclosing(cloud.list_batches(created_on_or_after=clock.now() - _LATELY)) as pages:
            return {item.id for item in (await anext(pages)).items}
    except CloudError:
        return set()  # which has been told


async def _switch(settings: Settings, url: SecretUrl) -> Finding:
    """Where the pings of the dead man's switch go; none is sent."""
    verdict, where = await _whereabouts(url, guard_of(settings), url.shown)
    if verdict is not Verdict.WRONG:
        where += f"; it is asked every {format_duration(settings.heartbeat_ping_interval)}"
    return Finding(verdict, "heartbeat", where)


def _tls(settings: Settings) -> list[str]:
    try:
        tls_contexts(settings)
    except SettingsError as error:
        return [
            f"{one.name}: {one.given}; needed is {one.expected}. {one.fix}"
            for one in error.problems
        ]
    return []


async def _endpoint(name: str, endpoint: EndpointSettings, now: datetime) -> Finding:
    """Whether it can be reached, and how its messages are signed."""
    reach, where = await _reach(endpoint)
    if reach is Verdict.WRONG:
        return Finding(reach, f"endpoint {name}", where)
    signing, text = _signing(keys_of(endpoint), now)
    verdict = next(one for one in reversed(Verdict) if one in (reach, signing))
    return Finding(verdict, f"endpoint {name}", "; ".join(filter(None, (where, text))))


async def _reach(endpoint: EndpointSettings) -> tuple[Verdict, str]:
    """Whether its host, or the proxy that leads there, has an address, and one that we may use."""
    guard = guard_of(endpoint)
    said = f"{endpoint.url.shown} ({endpoint.type})"
    if not endpoint.proxy:
        return await _whereabouts(endpoint.url, guard, said)
    found = await _addresses(endpoint.proxy)
    if isinstance(found, str):
        return Verdict.WRONG, found
    if why := guard.refusal_of_literal(endpoint.url.host):
        return Verdict.WRONG, f"{said}: {why}"
    where = ", ".join(found[:3])
    return Verdict.OK, f"{said} is reached by the proxy {endpoint.proxy.shown} at {where}"


async def _whereabouts(url: SecretUrl, guard: Guard, said: str) -> tuple[Verdict, str]:
    """Which addresses the host of ``url`` has, and whether ``guard`` lets us connect to them."""
    found = await _addresses(url)
    if isinstance(found, str):
        return Verdict.WRONG, found
    where = ", ".join(found[:3])
    refused = [why for one in found if (why := guard.refusal(one))]
    if len(refused) == len(found):
        return Verdict.WRONG, f"{said}: {refused[0]}"
    if refused:
        return Verdict.WARNING, f"{said} is at {where}, of which {refused[0]}"
    return Verdict.OK, f"{said} is at {where}"


async def _addresses(url: SecretUrl) -> list[str] | str:
    """The addresses of its host, or why there are none."""
    parts = urlsplit(url.get_secret_value())
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # the latter for what can be no host's name
        reason = getattr(error, "strerror", None) or "it is none"
        text = (
            f"the name {host} cannot be resolved ({reason}); check the URL and this machine's DNS"
        )
        return f"{url.shown}: {text}"
    return sorted({str(entry[4][0]) for entry in found})


def _signing(keys: Sequence[Key], now: datetime) -> tuple[Verdict, str]:
    """How many secrets sign, and when each ends."""
    if not keys:
        return Verdict.OK, ""
    signing = [key for key in keys if key.signs_at(now)]
    if not signing:
        text = "every secret has expired; put a new one in front, from: batchwatch secret new"
        return Verdict.WRONG, text
    ends = [
        f"{key.version} until {key.expires_at:%Y-%m-%dT%H:%M:%SZ}"
        if key.expires_at
        else f"{key.version} without end"
        for key in signing
    ]
    count = "1 secret signs" if len(signing) == 1 else f"{len(signing)} secrets sign"
    expired = len(keys) - len(signing)
    more = f"; {expired} expired, and can be removed" if expired else ""
    return Verdict.OK, f"{count}: {', '.join(ends)}{more}"


async def _listen(settings: Settings, daemon: str | None) -> Finding:
    address = settings.listen
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, address.port))
        except OSError as error:
            is_taken = error.errno == errno.EADDRINUSE and daemon is not None
            if is_taken and await _is_held_by(daemon or "", address):
                return Finding(Verdict.OK, "listen", f"{address} is held by the running daemon")
            return Finding(
                Verdict.WRONG,
                "listen",
                f"{address}: {error.strerror}; set BATCHWATCH_LISTEN to a free address",
            )
    return Finding(Verdict.OK, "listen", f"{address} is free")


async def _is_held_by(daemon: str, address: Address) -> bool:
    """Whether it is process ``daemon`` that answers at ``address``, and not anything else."""
    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)  # noqa: S104  # not to bind
    url = f"http://{Address(local, address.port)}/"
    patience = aiohttp.ClientTimeout(total=_PATIENCE)
    try:
        async with (
            aiohttp.ClientSession(timeout=patience) as session,
            session.get(url, allow_redirects=False) as answer,
        ):
            said = await answer.json()
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return False
    return isinstance(said, dict) and daemon in ("", str(said.get("process")))
