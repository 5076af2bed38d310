"""The handshake: a receiver is asked before the first message, once, and its word counts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from batchwatch.clock import Clock
from batchwatch.deliver.handshake import Handshake
from batchwatch.deliver.sender import Sender, new_session
from batchwatch.deliver.webhook import Webhook
from batchwatch.domain.batch import BatchId, EndpointName, EventId
from batchwatch.domain.delivery import FINAL_FAILURES, Claimed, DeliveryId, Failure
from tests.support.builders import at
from tests.support.receiver import Receiver, says
from tests.unit.deliver.sockets import a_closed_port, saying

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp import web

    from batchwatch.domain.delivery import Attempt
    from tests.support.receiver import Answer

ORIGIN = "batchwatch.example.com"
AGREED = {"WebHook_Allowed_Origin": ORIGIN, "WebHook_Allowed_Rate": "100"}


def a_claimed(number: int = 1) -> Claimed:
    return Claimed(
        id=DeliveryId(number),
        event_id=EventId(f"evt_{number}"),
        endpoint=EndpointName("hook"),
        subject="default/bat-1",
        type="batch.running",
        batch_id=BatchId("bat-1"),
        attempt=1,
        turn=1,
        occurred_at=at(0),
        payload=b"{}",
    )


def answering(options: Answer, post: Answer = says(204)) -> Answer:  # noqa: B008 - it keeps nothing
    """Another answer for each method."""

    async def answer(request: web.Request) -> web.StreamResponse:
        return await (options if request.method == "OPTIONS" else post)(request)

    return answer


@pytest.fixture
async def sender() -> AsyncIterator[Sender]:
    async with new_session() as session:
        yield Sender(session, Clock())


def a_webhook(url: str, sender: Sender, *, timeout: float = 9.0) -> Webhook:
    name = EndpointName("hook")
    return Webhook(
        name=name,
        url=url,
        sender=sender,
        clock=Clock(),
        schedule=(),
        timeout=timeout,
        concurrency=16,
        headers={"authorization": "Bearer abc"},
        handshake=Handshake(name, origin=ORIGIN),
    )


async def sent(receiver: Receiver, sender: Sender, *answers: Answer) -> Attempt:
    """What becomes of a first message to a receiver that answers OPTIONS so."""
    (options,) = answers
    receiver.always = answering(options)
    return await a_webhook(f"{receiver.url}/hook?sig=1", sender).send(a_claimed())


@pytest.mark.parametrize("allowed", [ORIGIN, "*", "Batchwatch.Example.COM", f" {ORIGIN} "])
async def test_who_agrees_is_sent_to(receiver: Receiver, sender: Sender, allowed: str) -> None:
    """Asked at the very URL, by the name that each message then carries."""
    attempt = await sent(receiver, sender, says(200, WebHook_Allowed_Origin=allowed))

    assert (None, 204) == (attempt.failure, attempt.status_code)
    options, post = receiver.received
    assert ("OPTIONS", "/hook", b"") == (options.method, options.path, options.body)
    assert ("POST", "/hook", b"{}") == (post.method, post.path, post.body)
    for one in (options, post):
        assert ORIGIN == one.headers["webhook-request-origin"]
        assert "Bearer abc" == one.headers["authorization"]
    assert not {"webhook-id", "webhook-signature", "ce-id"} & options.headers.keys()


@pytest.mark.parametrize("status", [200, 204, 404, 405])
async def test_the_header_alone_is_consent(receiver: Receiver, sender: Sender, status: int) -> None:
    """Many answer OPTIONS kindly and mean nothing by it, and some unkindly and mean yes."""
    refused = await sent(receiver, sender, says(status, Allow="POST"))
    agreed = await sent(receiver, sender, says(status, **AGREED))

    assert (Failure.NOT_ALLOWED, status) == (refused.failure, refused.status_code)
    assert (
        f"the receiver did not agree to messages from {ORIGIN}: "
        f"its answer to OPTIONS (HTTP {status}) has no WebHook-Allowed-Origin"
    ) == refused.detail
    assert agreed.failure is None
    assert 1 == len(receiver.asked("POST"))


@pytest.mark.parametrize("other", ["other.example.com", "", "null", f"{ORIGIN}.evil.example"])
async def test_consent_to_another_is_none(receiver: Receiver, sender: Sender, other: str) -> None:
    """Nor is what it says repeated to anybody."""
    attempt = await sent(receiver, sender, says(200, WebHook_Allowed_Origin=other))

    assert Failure.NOT_ALLOWED is attempt.failure
    assert str(attempt.detail).endswith("(HTTP 200) allows another origin")
    assert [] == receiver.asked("POST")


async def test_a_refusal_is_not_for_good(receiver: Receiver, sender: Sender) -> None:
    """Somebody may switch it on; each try asks again, until the receiver agrees."""
    webhook = a_webhook(receiver.url, sender)
    receiver.answers = [says(410), says(200), says(200, **AGREED), says(204), says(204)]

    failures = [(await webhook.send(a_claimed(number))).failure for number in range(4)]

    assert [Failure.NOT_ALLOWED, Failure.NOT_ALLOWED, None, None] == failures
    assert Failure.NOT_ALLOWED not in FINAL_FAILURES
    assert ["OPTIONS"] * 3 + ["POST"] * 2 == [one.method for one in receiver.received]


async def test_a_receiver_is_asked_once_however_much_is_due(
    receiver: Receiver, sender: Sender
) -> None:
    """Sixteen deliveries begin at once, and one of them asks for all."""
    receiver.always = answering(says(200, **AGREED))
    webhook = a_webhook(receiver.url, sender)

    attempts = await asyncio.gather(*(webhook.send(a_claimed(number)) for number in range(16)))

    assert {None} == {one.failure for one in attempts}
    assert (1, 16) == (len(receiver.asked("OPTIONS")), len(receiver.asked("POST")))


async def test_one_refusal_is_for_all_that_wait(receiver: Receiver, sender: Sender) -> None:
    """Else they would ask one after the other, and the last for longer than its claim holds."""
    receiver.always = answering(says(405))
    webhook = a_webhook(receiver.url, sender)

    attempts = await asyncio.gather(*(webhook.send(a_claimed(number)) for number in range(16)))

    assert {Failure.NOT_ALLOWED} == {one.failure for one in attempts}
    assert ["OPTIONS"] == [one.method for one in receiver.received]


@pytest.mark.parametrize(
    ("status", "failure"), [(429, Failure.RATE_LIMITED), (503, Failure.SERVER_ERROR)]
)
async def test_who_is_busy_has_not_refused(
    receiver: Receiver, sender: Sender, status: int, failure: Failure
) -> None:
    """Nobody has decided yet; how long to wait is heeded."""
    attempt = await sent(receiver, sender, says(status, Retry_After="7"))

    assert (failure, 7.0) == (attempt.failure, attempt.retry_after)
    assert f"asking by OPTIONS: HTTP {status}" == attempt.detail


async def test_who_cannot_be_reached_has_not_refused(sender: Sender) -> None:
    """The reason is the true one."""
    attempt = await a_webhook(await a_closed_port(), sender).send(a_claimed())

    assert (Failure.CONNECT, "asking by OPTIONS: no connection: Connection refused") == (
        attempt.failure,
        attempt.detail,
    )


async def test_a_redirect_is_no_consent_and_not_followed(
    receiver: Receiver, sender: Sender
) -> None:
    """As with a message."""
    attempt = await sent(receiver, sender, says(307, Location=f"{receiver.url}/elsewhere"))

    assert Failure.NOT_ALLOWED is attempt.failure
    assert ["/hook"] == [one.path for one in receiver.received]


async def test_asking_takes_half_of_the_time_at_most(sender: Sender) -> None:
    """So that a try takes no longer than its endpoint says."""
    async with saying(b"", then="hang") as line:
        attempt = await a_webhook(line.url, sender, timeout=0.4).send(a_claimed())

    assert (Failure.TIMEOUT, "asking by OPTIONS: no whole answer within 0.2 s") == (
        attempt.failure,
        attempt.detail,
    )
    assert attempt.duration < 0.4


async def test_without_a_handshake_nobody_is_asked(receiver: Receiver, sender: Sender) -> None:
    """It is for receivers that know it."""
    webhook = Webhook(
        name=EndpointName("hook"),
        url=receiver.url,
        sender=sender,
        clock=Clock(),
        schedule=(),
        timeout=9.0,
        concurrency=1,
    )
    await webhook.send(a_claimed())

    (one,) = receiver.received
    assert ("POST", None) == (one.method, one.headers.get("webhook-request-origin"))
