"""Ask the simulator over plain HTTP."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aiohttp
from yarl import URL

if TYPE_CHECKING:
    from batchwatch.simulator import Simulator

BATCHES = "/api/v2/batches"


def a_client(sim: Simulator, api_key: str | None = None) -> aiohttp.ClientSession:
    """A plain client, with the right key unless another is given."""
    headers = {"Authorization": f"Bearer {api_key or sim.api_key}"}
    return aiohttp.ClientSession(sim.url, headers=headers)


async def read(http: aiohttp.ClientSession, path: str, **params: Any) -> Any:
    """The JSON behind a path, which must answer 200."""
    async with http.get(path, params=params) as answer:
        assert 200 == answer.status, await answer.text()
        return await answer.json()


async def refused(http: aiohttp.ClientSession, path: str, **params: Any) -> tuple[int, Any]:
    """The status and the ``detail`` of a path that must not answer 200."""
    async with http.get(path, params=params) as answer:
        return answer.status, (await answer.json())["detail"]


async def raw(sim: Simulator, path: str) -> bytes | None:
    """What a socket receives from one GET to the end; None if the connection was reset.

    For faults of the connection, which aiohttp's client hides by asking once more.
    """
    url = URL(sim.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    lines = (
        f"GET {path} HTTP/1.1",
        f"Host: {url.authority}",
        f"Authorization: Bearer {sim.api_key}",
    )
    writer.write("\r\n".join((*lines, "Connection: close", "", "")).encode())
    try:
        return await reader.read()
    except ConnectionResetError:
        return None
    finally:
        writer.close()


async def every_page(http: aiohttp.ClientSession, path: str, **params: Any) -> list[list[Any]]:
    """The items of each page, to the end of the list."""
    page = await read(http, path, **params)
    pages = [page["items"]]
    while page["next_page_token"]:
        page = await read(http, path, page_token=page["next_page_token"], **params)
        pages.append(page["items"])
    return pages


def ids(pages: list[list[Any]]) -> list[str]:
    """The ids on all of these pages, in their order."""
    return [item["id"] for items in pages for item in items]
