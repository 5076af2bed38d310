"""What is asked of batchwatch itself, in numbers: by templates, with nothing that anybody sends."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from batchwatch.metrics import Metrics
from batchwatch.web.measured import measured
from batchwatch.web.route import Route, mount

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def thing(request: web.Request) -> web.Response:
    """Answers by what the path names."""
    if request.match_info["name"] == "missing":
        raise web.HTTPNotFound
    if request.match_info["name"] == "gone":
        raise ConnectionResetError
    if request.match_info["name"] == "stopped":
        raise asyncio.CancelledError
    if request.match_info["name"] == "broken":
        raise RuntimeError
    return web.Response(text="ok")


@asynccontextmanager
async def served(metrics: Metrics) -> AsyncIterator[aiohttp.ClientSession]:
    app = web.Application()
    mounted = mount(app, [Route("GET", "/things/{name}", thing)], prefix="/below")
    app.middlewares.append(measured(metrics, mounted))
    async with (
        TestServer(app) as server,
        aiohttp.ClientSession(server.make_url("/")) as http,
    ):
        yield http


def counted(metrics: Metrics) -> dict[tuple[str, str, str], float]:
    """By route, method and status."""
    return {
        (one.labels["route"], one.labels["method"], one.labels["status"]): one.value
        for family in metrics.http_requests.collect()
        for one in family.samples
    }


@pytest.mark.parametrize(
    ("method", "path", "labels"),
    [
        ("GET", "/things/one", ("/things/{name}", "GET", "200")),
        ("HEAD", "/things/one", ("/things/{name}", "HEAD", "200")),
        ("GET", "/below/things/one", ("/things/{name}", "GET", "200")),
        ("GET", "/things/missing", ("/things/{name}", "GET", "404")),
        ("GET", "/things/broken", ("/things/{name}", "GET", "500")),
        ("GET", "/things/one?secret=1", ("/things/{name}", "GET", "200")),
        ("GET", "/wp-login.php", ("other", "GET", "404")),
        ("POST", "/things/one", ("other", "POST", "405")),
        ("PURGE", "/things/one", ("other", "other", "405")),
    ],
)
async def test_a_request_is_counted_by_the_template_of_its_path(
    method: str, path: str, labels: tuple[str, str, str]
) -> None:
    """A series for each path that somebody tries would be the end of a Prometheus."""
    metrics = Metrics()
    async with served(metrics) as http, http.request(method, path) as answer:
        await answer.read()

    assert {labels: 1.0} == counted(metrics)
    took = metrics.registry.get_sample_value(
        "batchwatch_http_request_duration_seconds_count", {"route": labels[0]}
    )
    assert 1.0 == took


@pytest.mark.parametrize("path", ["/things/gone", "/things/stopped"])
async def test_an_answer_that_nobody_waits_for_is_no_fault_of_ours(path: str) -> None:
    """A live feed ends so, each time that somebody closes its page or the daemon stops."""
    metrics = Metrics()
    async with served(metrics) as http:
        with suppress(aiohttp.ClientError):
            await http.get(path)

    assert {("/things/{name}", "GET", "499")} == counted(metrics).keys()  # clients ask again
