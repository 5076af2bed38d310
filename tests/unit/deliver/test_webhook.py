"""A webhook gets the event itself, signed at the moment it is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from standardwebhooks.webhooks import Webhook as Verifier

from batchwatch.clock import Clock
from batchwatch.deliver.sender import Sender, new_session
from batchwatch.deliver.signing import key_of, new_secret
from batchwatch.deliver.webhook import Webhook
from batchwatch.domain.batch import BatchId, EndpointName, EventId
from batchwatch.domain.delivery import FINAL_FAILURES, Claimed, DeliveryId, Failure
from tests.support.builders import at
from tests.support.receiver import SECRET, Receiver, says

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from tests.support.clock import ManualClock
    from tests.support.receiver import Received

PAYLOAD = '{"type": "batch.running", "data":  {"né": "\U0001f600"}}\n'.encode()


def a_claimed(payload: bytes = PAYLOAD, *, attempt: int = 1) -> Claimed:
    return Claimed(
        id=DeliveryId(1),
        event_id=EventId("evt_1"),
        endpoint=EndpointName("hook"),
        subject="default/bat-1",
        type="batch.running",
        batch_id=BatchId("bat-1"),
        attempt=attempt,
        turn=attempt,
        occurred_at=at(0),
        payload=payload,
    )


def a_webhook(
    sender: Sender,
    clock: Clock,
    url: str,
    *,
    secrets: Sequence[str | tuple[str, datetime]] = (SECRET,),
    headers: dict[str, str] | None = None,
) -> Webhook:
    return Webhook(
        name=EndpointName("hook"),
        url=url,
        sender=sender,
        clock=clock,
        schedule=(5.0,),
        timeout=9.0,
        concurrency=4,
        keys=[key_of(one) if isinstance(one, str) else key_of(*one) for one in secrets],
        headers=headers or {},
    )


async def test_the_payload_goes_out_byte_for_byte(receiver: Receiver) -> None:
    """As it stands in the store: what was signed is what arrives, and a repeat is the same."""
    async with new_session() as session:
        clock = Clock()
        webhook = a_webhook(Sender(session, clock), clock, f"{receiver.url}/hook")
        await webhook.send(a_claimed())
        await webhook.send(a_claimed(attempt=2))

    assert [("evt_1", PAYLOAD)] * 2 == [(one.id, one.body) for one in receiver.received]
    assert {"application/json"} == {one.headers["content-type"] for one in receiver.received}
    for one in receiver.received:
        Verifier(SECRET).verify(one.body, one.headers)


async def test_each_try_is_signed_anew(
    sender: Sender, clock: ManualClock, receiver: Receiver
) -> None:
    """A receiver refuses what is five minutes old, so a retry must not carry the first time."""
    receiver.always = says(500)
    webhook = a_webhook(sender, clock, receiver.url, secrets=())
    await webhook.send(a_claimed())
    clock.advance(3600)
    await webhook.send(a_claimed(attempt=2))

    first, second = (int(one.headers["webhook-timestamp"]) for one in receiver.received)
    assert [int(at(0).timestamp()), 3600] == [first, second - first]
    assert {"evt_1"} == {one.id for one in receiver.received}


async def test_all_tries_of_an_event_share_a_trace(
    sender: Sender, clock: ManualClock, receiver: Receiver
) -> None:
    """And each has a span of its own, so that a receiver's traces tell them apart."""
    webhook = a_webhook(sender, clock, receiver.url, secrets=())
    for attempt in (1, 2):
        await webhook.send(a_claimed(attempt=attempt))

    first, second = (one.headers["traceparent"].split("-") for one in receiver.received)
    assert first[:2] == second[:2]
    assert first[2] != second[2]


async def test_headers_of_its_own_go_along(
    sender: Sender, clock: ManualClock, receiver: Receiver
) -> None:
    """Also in place of those that batchwatch would send, but not of those that sign."""
    headers = {"authorization": "Bearer abc", "user-agent": "mine", "x-team": "ops"}

    await a_webhook(sender, clock, receiver.url, secrets=(), headers=headers).send(a_claimed())

    (received,) = receiver.received
    assert headers == {name: received.headers[name] for name in headers}
    assert "evt_1" == received.id


async def test_what_the_receiver_does_is_told_and_not_raised(
    sender: Sender, clock: ManualClock, receiver: Receiver
) -> None:
    """The attempt is what the dispatcher decides on."""
    receiver.always = says(410, "no more")

    attempt = await a_webhook(sender, clock, receiver.url, secrets=()).send(a_claimed())

    assert (Failure.GONE, 410, "no more") == (
        attempt.failure,
        attempt.status_code,
        attempt.response,
    )


async def test_a_webhook_shows_none_of_its_secrets(sender: Sender, clock: ManualClock) -> None:
    """Neither in a log nor in a traceback: URL, keys and headers stay out of its repr."""
    headers = {"authorization": "s3cret"}

    shown = repr(a_webhook(sender, clock, "http://127.0.0.1:1/s3cret", headers=headers))

    assert "name='hook'" in shown
    assert "s3cret" not in shown
    assert "keys" not in shown


# --------------------------------------------------------------------------------------- rotation


def signers(received: Received, secrets: Sequence[str]) -> list[str]:
    """Which of the secrets have signed, told apart by the standard's own library."""
    moment = at(0).fromtimestamp(int(received.headers["webhook-timestamp"]), at(0).tzinfo)
    signatures = received.headers["webhook-signature"].split(" ")
    found = [
        secret
        for secret in secrets
        if Verifier(secret).sign(received.id, moment, received.body.decode()) in signatures
    ]
    assert len(signatures) == len(found)
    return found


async def test_a_retry_after_an_expiry_is_signed_without_the_old_secret(
    sender: Sender, clock: ManualClock
) -> None:
    """Before it, each message carries both, so that the receiver changes whenever it likes."""
    new, old = new_secret(), new_secret()
    async with Receiver(secret=None) as receiver:
        receiver.always = says(500)
        webhook = a_webhook(sender, clock, receiver.url, secrets=[new, (old, at(3600))])
        await webhook.send(a_claimed())
        clock.advance(3599)
        await webhook.send(a_claimed(attempt=2))
        clock.advance(1)
        await webhook.send(a_claimed(attempt=3))

        assert [[new, old], [new, old], [new]] == [
            signers(one, [new, old]) for one in receiver.received
        ]


async def test_ten_secrets_sign_one_message(sender: Sender, clock: ManualClock) -> None:
    """Each verifies by itself, in their order."""
    secrets = [new_secret() for _ in range(10)]
    async with Receiver(secret=None) as receiver:
        await a_webhook(sender, clock, receiver.url, secrets=secrets).send(a_claimed())

        assert secrets == signers(receiver.received[0], secrets)


async def test_when_every_secret_has_expired_nothing_is_sent(
    sender: Sender, clock: ManualClock, receiver: Receiver
) -> None:
    """Neither unsigned nor with a secret that should be dead; and not for good."""
    ends = [(new_secret(), at(10)), (new_secret(), at(5))]
    webhook = a_webhook(sender, clock, receiver.url, secrets=ends)
    clock.advance(10)

    attempt = await webhook.send(a_claimed())

    assert (Failure.UNSIGNED, "every secret has expired; set a new one", None) == (
        attempt.failure,
        attempt.detail,
        attempt.status_code,
    )
    assert Failure.UNSIGNED not in FINAL_FAILURES
    assert at(10) == attempt.started_at
    assert [] == receiver.received
