"""Signing as it is run: both kinds of keys, CloudEvents, the handshake, and the keys served."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import aiohttp
from aiohttp.test_utils import unused_port
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from cloudevents.core.formats.json import JSONFormat
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from batchwatch.deliver.signing import new_pair
from batchwatch.simulator import Simulator, a_life
from tests.support.daemon import environment, running
from tests.support.receiver import SECRET, Receiver, says

if TYPE_CHECKING:
    from pathlib import Path

    from aiohttp import web

    from tests.support.receiver import Received

LIFE = (("PENDING", 0.0), ("RUNNING", 0.3), ("COMPLETED", 0.6))


async def agreeing(request: web.Request) -> web.StreamResponse:
    """A receiver that knows the handshake."""
    if request.method == "OPTIONS":
        origin = request.headers["WebHook-Request-Origin"]
        return await says(200, WebHook_Allowed_Origin=origin)(request)
    return await says(204)(request)


async def test_a_receiver_needs_nothing_but_the_key_that_is_served(tmp_path: Path) -> None:
    """Of two kinds of secrets in one setting: whoever has the v1 secret verifies as well.

    The receiver of this test does so with the standard's own library.
    """
    private, public = new_pair()
    listen = f"127.0.0.1:{unused_port()}"
    async with Simulator() as sim, Receiver() as receiver:
        receiver.always = agreeing
        sim.world.plant(a_life(*LIFE))
        environ = environment(
            sim,
            receiver,
            tmp_path,
            BATCHWATCH_LISTEN=listen,
            BATCHWATCH_ENDPOINTS__HOOK__SECRET=f"{private} {SECRET}@2099-12-31",
            BATCHWATCH_ENDPOINTS__HOOK__FORMAT="cloudevents",
            BATCHWATCH_ENDPOINTS__HOOK__HANDSHAKE="true",
            BATCHWATCH_ENDPOINTS__HOOK__ORIGIN="batchwatch.example.com",
        )
        async with running(environ), aiohttp.ClientSession() as http:
            await receiver.until(is_over)
            async with http.get(f"http://{listen}/.well-known/webhook-keys") as answer:
                served = await answer.json()

    assert {"keys": [{"endpoint": "hook", "key": public, "expires_at": None}]} == served
    first, *messages = receiver.received
    assert ["OPTIONS"] + ["POST"] * len(messages) == [one.method for one in receiver.received]
    assert "batchwatch.example.com" == first.headers["webhook-request-origin"]
    for one in messages:
        assert from_http_event(HTTPMessage(one.headers, one.body), JSONFormat()).get_id() == one.id
        verify(served["keys"][0]["key"], one)


def is_over(received: list[Received]) -> bool:
    return any(b"batch.completed" in one.body for one in received)


def verify(public: str, one: Received) -> None:
    """By the standard's text; raises if it does not."""
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public.removeprefix("whpk_")))
    signature = one.headers["webhook-signature"].split(" ")[0].removeprefix("v1a,")
    signed = f"{one.id}.{one.headers['webhook-timestamp']}.".encode() + one.body
    key.verify(base64.b64decode(signature), signed)
