"""Say of each part whether it is right, or how to mend it, without sending anything to anyone."""

from __future__ import annotations

import asyncio
import socket
from contextlib import aclosing
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from batchwatch.daemon import cloud_of, key_source, upstream_session
from batchwatch.llamacloud.errors import CloudError
from batchwatch.settings.review import describe, warnings
from batchwatch.store import Database, StoreError, Views
from batchwatch.store.errors import StoreInUse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import aiohttp

    from batchwatch.clock import Clock
    from batchwatch.settings import EndpointSettings, Settings, WatchSettings


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
    for line in describe(settings):
        if line.was_set:
            yield Finding(Verdict.OK, "settings", str(line))
    for text in warnings(settings):
        yield Finding(Verdict.WARNING, "settings", text)
    running = False
    async for finding, in_use in _store(settings):
        running = running or in_use
        yield finding
    async with upstream_session() as session:
        for name, watch in settings.watches.items():
            yield await _watch(settings, name, watch, session, clock)
    for name, endpoint in settings.endpoints.items():
        yield await _endpoint(name, endpoint)
    if not settings.endpoints:
        yield Finding(
            Verdict.WRONG,
            "endpoints",
            "there is none; set BATCHWATCH_WEBHOOK_URL or BATCHWATCH_SLACK_WEBHOOK_URL",
        )
    yield _listen(settings, running=running)


async def _store(settings: Settings) -> AsyncIterator[tuple[Finding, bool]]:
    url = settings.database_url.get_secret_value()
    in_use = False
    try:
        try:
            database = await Database.open(url)
        except StoreInUse:
            in_use = True
            database = await Database.open(url, exclusive=False)
        try:
            statuses = await Views(database).statuses()
            depths = await Views(database).outbox()
        finally:
            await database.close()
    except StoreError as error:
        yield Finding(Verdict.WRONG, "store", str(error)), in_use
        return
    count = sum(row["count"] for row in statuses)
    used = ", in use by a running daemon" if in_use else ""
    yield Finding(Verdict.OK, "store", f"{database.where}: {count} batches{used}"), in_use
    for depth in depths:
        if depth.endpoint not in settings.endpoints:
            text = (
                f"{depth.count} deliveries are {depth.state} for an endpoint that is not set; "
                "they wait until one of that name is"
            )
            yield Finding(Verdict.WARNING, f"endpoint {depth.endpoint}", text), in_use
        elif depth.state == "dead":
            text = f"{depth.count} deliveries were given up; see batchwatch show BATCH"
            yield Finding(Verdict.WARNING, f"endpoint {depth.endpoint}", text), in_use


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
        return Finding(Verdict.WRONG, part, str(error))
    took = round((clock.monotonic() - begun) * 1000)
    sees = "sees batches" if page.items else "sees no batch yet"
    return Finding(
        Verdict.OK, part, f"{watch.base_url} accepts the key of {source} and {sees} ({took} ms)"
    )


async def _endpoint(name: str, endpoint: EndpointSettings) -> Finding:
    part = f"endpoint {name}"
    parts = urlsplit(endpoint.url.get_secret_value())
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # the latter for what can be no host's name
        reason = getattr(error, "strerror", None) or "it is none"
        return Finding(
            Verdict.WRONG,
            part,
            f"{endpoint.url.shown}: the name {host} cannot be resolved ({reason}); "
            "check the URL and this machine's DNS",
        )
    addresses = ", ".join(sorted({str(entry[4][0]) for entry in found})[:3])
    return Finding(Verdict.OK, part, f"{endpoint.url.shown} ({endpoint.type}) is at {addresses}")


def _listen(settings: Settings, *, running: bool) -> Finding:
    address = settings.listen
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, address.port))
        except OSError as error:
            if running:
                return Finding(Verdict.OK, "listen", f"{address} is in use, as by a running daemon")
            return Finding(
                Verdict.WRONG,
                "listen",
                f"{address}: {error.strerror}; set BATCHWATCH_LISTEN to a free address",
            )
    return Finding(Verdict.OK, "listen", f"{address} is free")
