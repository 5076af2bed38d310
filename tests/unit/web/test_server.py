"""What is served: alive, ready or not and why, and the metrics for whoever has the token."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

import aiohttp
import pytest
from aiohttp.test_utils import unused_port
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse
from structlog.testing import capture_logs

from batchwatch import __version__
from batchwatch.metrics import Metrics
from batchwatch.simulator import Simulator, Switch
from batchwatch.web import server
from batchwatch.web.access import Access
from batchwatch.web.health import Health, Troubles
from batchwatch.web.server import ListenError, serve
from tests.support.daemon import environment, running
from tests.support.receiver import Receiver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from batchwatch.store import Hints

TOKEN = "0123456789abcdef-s3cret"
NO_STORE = cast("Hints", None)  # there is no door, so nothing can be noted


@dataclass(frozen=True)
class Site:
    """The server's URL, and a client that asks it."""

    url: str
    http: aiohttp.ClientSession

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    async def asked(self, path: str, *, method: str = "GET", **headers: str) -> tuple[int, str]:
        """Status and text of the answer."""
        async with self.http.request(method, path, headers=headers) as answer:
            return answer.status, await answer.text()


@asynccontextmanager
async def served(
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    token: str | None = None,
    metrics: Metrics | None = None,
    troubles: dict[str, str] | Troubles | None = None,
    keys: Sequence[Mapping[str, str | None]] = (),
) -> AsyncIterator[Site]:
    """The server, with these troubles."""

    async def found() -> Troubles:
        return troubles if isinstance(troubles, Troubles) else Troubles(grave=troubles or {})

    async with (
        serve(
            host,
            port,
            Health(metrics=metrics or Metrics(), troubles=found, keys=lambda: keys).routes(),
            access=Access(token=token),
            metrics=Metrics(),
        ) as url,
        aiohttp.ClientSession(url) as http,
    ):
        yield Site(url, http)


async def test_whoever_answers_is_alive() -> None:
    """Whatever its troubles are: a restart would mend none of them."""
    async with served(troubles={"store": "the disk is full"}) as site:
        assert (200, "ok\n") == await site.asked("/livez")


async def test_who_is_ready_says_what_ails_all_the_same() -> None:
    """A receiver that is down is no reason to start the daemon again, and is no secret."""
    ailing = {"endpoint ops": "HTTP 500"}
    async with (
        served(troubles=Troubles(ailing=ailing)) as site,
        site.http.get("/readyz") as got,
    ):
        assert (200, {"ready": True, "troubles": ailing}) == (got.status, await got.json())


async def test_who_holds_connections_without_a_word_does_not_take_our_files(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One too many is refused, told once, and there is room again when one has gone."""
    monkeypatch.setattr(server, "CONNECTIONS", 2)
    with capture_logs() as logs:
        async with served() as site, asyncio.timeout(10):
            mute = [await asyncio.open_connection("127.0.0.1", site.port) for _ in range(2)]
            for _ in range(2):
                reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
                assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
                writer.close()
            mute[0][1].close()
            while (await site.asked("/livez"))[0] != HTTPStatus.OK:
                pass
            mute[1][1].close()

    assert [("connections.refused", 2)] == [(one["event"], one["limit"]) for one in logs]


async def test_ready_is_who_has_no_trouble() -> None:
    """In a form that programs read."""
    async with served() as site, site.http.get("/readyz") as answer:
        assert (200, "application/json") == (answer.status, answer.content_type)
        assert {"ready": True, "troubles": {}} == await answer.json()


async def test_the_root_names_what_there_is() -> None:
    """For whoever asks it first; in a line that ends."""
    async with served() as site, site.http.get("/") as answer:
        said = await answer.json()
        ends = (await answer.text()).endswith("}\n")
        of_health = [path for path in said["paths"] if path.count("/") == 1 or "keys" in path]
        asked = [(await site.asked(path))[0] for path in of_health]

    assert (__version__, os.getpid(), True) == (said["batchwatch"], said["process"], ends)
    assert [HTTPStatus.OK] * 4 == asked


async def test_who_is_not_ready_names_every_trouble_and_why() -> None:
    """With 503, so that a load balancer or an alarm understands as well."""
    troubles = {"store": "the disk is full", "watch": "answered 401"}

    async with served(troubles=troubles) as site, site.http.get("/readyz") as answer:
        assert HTTPStatus.SERVICE_UNAVAILABLE == answer.status
        assert {"ready": False, "troubles": troubles} == await answer.json()


async def test_a_daemon_is_ready_after_its_first_poll_and_not_while_upstream_refuses_it(
    tmp_path: Path,
) -> None:
    """And again when the key is accepted, without a restart."""
    async with Simulator() as sim, Receiver() as receiver:
        sim.faults.switch_on(Switch(kind="status", status=401))
        port = unused_port()
        environ = environment(sim, receiver, tmp_path, BATCHWATCH_LISTEN=f"127.0.0.1:{port}")
        url = f"http://127.0.0.1:{port}"
        async with running(environ), aiohttp.ClientSession(url) as http:
            site = Site(url, http)
            await sim.asked(2)
            refused, text = await site.asked("/readyz")
            sim.faults.clear()
            times = 2
            while (await site.asked("/readyz"))[0] != HTTPStatus.OK:
                times += 1
                await sim.asked(times)

    assert HTTPStatus.SERVICE_UNAVAILABLE == refused
    assert "watch default" in text
    assert "LLAMA_CLOUD_API_KEY" in text
    assert "llx-simulator" not in text


@pytest.mark.parametrize("version", ["zzz", "1.", "1.x.0"])
async def test_a_version_of_metrics_that_is_none_is_taken_for_none(version: str) -> None:
    """And is no bug of ours with a traceback."""
    headers = {"Accept": f"application/openmetrics-text; version={version}"}
    async with served() as site, site.http.get("/metrics", headers=headers) as answer:
        assert HTTPStatus.OK == answer.status
        assert "batchwatch_delivery_attempts" in await answer.text()


@pytest.mark.parametrize("accept", ["", "text/plain", "application/openmetrics-text"])
async def test_metrics_can_be_read_by_prometheus(accept: str) -> None:
    """In both of its formats, judged by its own parsers."""
    metrics = Metrics()
    metrics.attempts.labels("hook", "delivered").inc()
    metrics.delivery_latency.labels('a "quoted" \\ name').observe(0.2)

    headers = {"Accept": accept} if accept else {}
    async with (
        served(metrics=metrics) as site,
        site.http.get("/metrics", headers=headers) as answer,
    ):
        text = await answer.text()

    read = parse_openmetrics if "openmetrics" in answer.headers["Content-Type"] else parse
    found = {
        sample.name: sample.labels | {"value": sample.value}
        for family in read(text)
        for sample in family.samples
    }
    assert ("openmetrics" in accept) == ("openmetrics" in answer.headers["Content-Type"])
    assert found["batchwatch_delivery_attempts_total"] == {
        "endpoint": "hook",
        "outcome": "delivered",
        "value": 1.0,
    }
    assert 'a "quoted" \\ name' == found["batchwatch_delivery_latency_seconds_count"]["endpoint"]


async def test_without_a_token_metrics_are_open() -> None:
    """Then the address is a loopback one; the settings see to that."""
    async with served() as site:
        status, _ = await site.asked("/metrics")

    assert HTTPStatus.OK == status


@pytest.mark.parametrize(
    "given",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN.upper()}",
        f"Basic {TOKEN}",
        TOKEN,
        "Bearer s\u00e9same",
    ],
)
async def test_with_a_token_metrics_are_for_whoever_sends_it(given: str | None) -> None:
    """The others learn how to ask, and nothing else."""
    headers = {} if given is None else {"Authorization": given}
    async with served(token=TOKEN) as site, site.http.get("/metrics", headers=headers) as answer:
        problem = await answer.json()

    assert HTTPStatus.UNAUTHORIZED == answer.status
    assert 'Bearer realm="batchwatch"' == answer.headers["WWW-Authenticate"]
    assert problem == {
        "title": "Unauthorized",
        "status": 401,
        "detail": "send Authorization: Bearer BATCHWATCH_API_TOKEN",
    }


async def test_a_token_that_is_no_text_is_a_wrong_token() -> None:
    """Whatever bytes are sent: 401 is the answer, and the log stays quiet."""
    async with served(token=TOKEN) as site:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer \xff\r\n\r\n")
        line = await reader.readline()
        writer.close()

    assert b"HTTP/1.1 401 Unauthorized\r\n" == line


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_token_opens_the_metrics(scheme: str) -> None:
    """The scheme's name is in any case, as RFC 9110 has it."""
    async with served(token=TOKEN) as site:
        status, text = await site.asked("/metrics", Authorization=f"{scheme} {TOKEN}")

    assert HTTPStatus.OK == status
    assert "# HELP batchwatch_polls_total" in text


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_health_needs_no_token(path: str) -> None:
    """What asks for it is a container engine, and has none."""
    async with served(token=TOKEN) as site:
        assert HTTPStatus.OK == (await site.asked(path))[0]


async def test_public_keys_need_no_token() -> None:
    """They are there to be known, and a receiver has no secret of ours."""
    key = {"endpoint": "hook", "key": "whpk_abc", "expires_at": None}
    async with (
        served(token=TOKEN, keys=[key]) as site,
        site.http.get("/.well-known/webhook-keys") as answer,
    ):
        assert ("application/json", {"keys": [key]}) == (answer.content_type, await answer.json())

    async with served() as site:
        assert (HTTPStatus.OK, '{"keys": []}') == await site.asked("/.well-known/webhook-keys")


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/.well-known/webhook-keys"])
async def test_head_is_answered_like_get_without_the_body(path: str) -> None:
    """As HTTP has it; some probes ask like that."""
    async with served() as site:
        assert (HTTPStatus.OK, "") == await site.asked(path, method="HEAD")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/dashboard", HTTPStatus.NOT_FOUND),
        ("GET", "/livez/", HTTPStatus.NOT_FOUND),
        ("GET", "/../etc/passwd", HTTPStatus.NOT_FOUND),
        ("POST", "/livez", HTTPStatus.METHOD_NOT_ALLOWED),
        ("DELETE", "/metrics", HTTPStatus.METHOD_NOT_ALLOWED),
    ],
)
async def test_what_is_not_there_is_said_as_a_problem(
    method: str, path: str, status: HTTPStatus
) -> None:
    """And logs nothing: scanners knock at every door."""
    with capture_logs() as logs:
        async with served() as site:
            found, text = await site.asked(path, method=method)

    assert (status, status.phrase) == (found, json.loads(text)["title"])
    assert [] == logs


async def test_a_port_that_is_taken_is_said_with_the_way_out() -> None:
    """In one line, before anything else of the daemon has begun to work."""
    async with served() as site:
        with pytest.raises(ListenError) as refusal:
            async with served(port=site.port):
                pass

    assert str(refusal.value) == (
        f"cannot listen on 127.0.0.1:{site.port}: Address already in use: "
        "set BATCHWATCH_LISTEN to a free address"
    )


@pytest.mark.parametrize(
    ("host", "said"),
    [
        pytest.param(
            "nowhere.test",
            "Name or service not known",
        ),
        pytest.param(
            "nowhere..test",
            "",
        ),
    ],
)
async def test_a_host_that_is_none_is_said(
    host: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what is wrong with it."""
    resolve = socket.getaddrinfo

    def unresolved(name: Any, *rest: Any, **more: Any) -> Any:
        if name == "nowhere.test":  # no test asks the real DNS
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve(name, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", unresolved)

    with pytest.raises(ListenError, match=f"cannot listen on {host}:0: {said}"):
        async with served(host):
            pass


async def test_an_address_that_is_not_this_machines_is_said() -> None:
    """192.0.2.1 is nobody's: it is for documentation."""
    with pytest.raises(ListenError, match=r"192\.0\.2\.1:0.*BATCHWATCH_LISTEN"):
        async with served("192.0.2.1"):
            pass


async def test_the_true_port_is_told_and_is_free_again_afterwards() -> None:
    """Port 0 is any free one."""
    async with served() as first:
        pass
    async with served(port=first.port) as second:
        pass

    assert f"http://127.0.0.1:{first.port}" == first.url == second.url


async def test_an_ipv6_address_is_told_in_brackets() -> None:
    """So that it can be clicked."""
    try:
        async with served("::1") as site:
            assert f"http://[::1]:{site.port}" == site.url
    except ListenError:
        pytest.skip("this machine has no IPv6")
