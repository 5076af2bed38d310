"""From the settings to the wire: what an endpoint was told to do is what its requests do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batchwatch.simulator import Simulator, a_life
from tests.support.daemon import environment, running
from tests.support.receiver import Receiver
from tests.unit.deliver.authority import Authority
from tests.unit.deliver.proxy import proxying
from tests.unit.deliver.sockets import an_answer, saying

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


async def test_an_event_goes_by_proxy_and_mutual_tls_with_a_login_and_a_trace(
    authority: Authority, tmp_path: Path
) -> None:
    """All at once, as in a company; the receiver can say who it was and find it in its traces."""
    async with (
        Simulator() as sim,
        Receiver() as receiver,
        proxying("batchwatch:proxy-s3cret") as proxy,
        saying(an_answer("200 OK"), tls=authority.server(asks=True)) as line,
    ):
        hook = {
            "URL": f"{line.url}/hook",
            "PROXY": proxy.url,
            "TLS_CA": str(authority.file),
            "TLS_CERTIFICATE": str(authority.certificate("client")),
            "BEARER_TOKEN": "token-s3cret",
        }
        environ = environment(sim, receiver, tmp_path, BATCHWATCH_NOTIFY_BACKLOG="true")
        environ |= {f"BATCHWATCH_ENDPOINTS__HOOK__{name}": text for name, text in hook.items()}
        sim.world.plant(a_life(("RUNNING", 0.0)))
        async with running(environ):
            await line.asked.wait()

    head = line.requests[0].partition(b"\r\n\r\n")[0].decode()
    sent = dict(one.lower().split(": ", 1) for one in head.splitlines()[1:])
    assert "bearer token-s3cret" == sent["authorization"]
    assert sent["webhook-id"].removeprefix("evt_") == sent["traceparent"].split("-")[1]
    assert proxy.heads[0].startswith(b"CONNECT ")


async def test_an_endpoint_that_may_only_be_public_is_sent_nothing_next_door(
    tmp_path: Path,
) -> None:
    """And another one, which may be anywhere, is sent all of it."""
    async with Simulator() as sim, Receiver() as receiver:
        environ = environment(sim, receiver, tmp_path, BATCHWATCH_NOTIFY_BACKLOG="true")
        environ |= {
            "BATCHWATCH_PUBLIC_ONLY": "true",
            "BATCHWATCH_ENDPOINTS__HOOK__PUBLIC_ONLY": "false",
            "BATCHWATCH_ENDPOINTS__STRICT__URL": f"{receiver.url}/strict",
        }
        sim.world.plant(a_life(("RUNNING", 0.0)))
        async with running(environ):
            await receiver.until(lambda received: len(received) > 0)

    assert {"/hook"} == {one.path for one in receiver.received}
