"""Upstream's own webhooks: signed, tried three times, and in no order that can be relied on."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import TYPE_CHECKING, Any

from batchwatch.simulator import Simulator, Switch
from tests.simulator.asking import BATCHES, read

if TYPE_CHECKING:
    import aiohttp

    from tests.simulator.receiver import Received, Receiver
    from tests.support.clock import ManualClock

SECRET = "whsec-upstream"
LONG_ENOUGH = 60  # seconds; any life of the calm scenario is over by then


async def a_batch_with_webhooks(
    http: aiohttp.ClientSession, url: str, *, name: str = "documents", **more: Any
) -> str:
    """The id of a batch that notifies an endpoint."""
    async with http.post("/api/v1/beta/directories", json={"name": name}) as answer:
        directory = await answer.json()
    body = {
        "config": {"job": {"type": "parse_v2", "configuration_id": "cfg-X"}},
        "source_directory_id": directory["id"],
        "webhook_configurations": [{"webhook_url": url} | more],
    }
    async with http.post(BATCHES, json=body) as answer:
        assert 200 == answer.status, await answer.text()
        batch_id: str = (await answer.json())["id"]
    return batch_id


def told(received: Received) -> tuple[str, str]:
    """The type of an event and the status that it speaks of."""
    event = json.loads(received.body)
    return event["event_type"], event["data"]["status"]


async def test_each_stage_of_a_batch_is_notified(
    sim: Simulator, http: aiohttp.ClientSession, clock: ManualClock, receiver: Receiver
) -> None:
    """Pending at once, running and success when they come."""
    batch_id = await a_batch_with_webhooks(http, receiver.url)
    events = [told(await receiver.received.get())]
    while "COMPLETED" != (await read(http, f"{BATCHES}/{batch_id}"))["status"]:
        clock.advance(1)
    events += [told(await receiver.received.get()) for _ in range(2)]
    await sim.webhooks.idle()

    assert {
        ("batch.pending", "PENDING"),
        ("batch.running", "RUNNING"),
        ("batch.success", "COMPLETED"),
    } == set(events)
    assert receiver.received.empty()
    assert {"events": 3, "attempts": 3, "delivered": 3} == sim.webhooks.counted


async def test_a_webhook_is_signed_and_says_what_it_is(
    http: aiohttp.ClientSession, receiver: Receiver
) -> None:
    """An HMAC over the raw body, if there is a secret; the headers that upstream documents."""
    await a_batch_with_webhooks(
        http,
        receiver.url,
        webhook_signing_secret=SECRET,
        webhook_headers={"X-Relay": "yes"},
    )
    received = await receiver.received.get()
    event = json.loads(received.body)
    digest = hmac.new(SECRET.encode(), received.body, hashlib.sha256).hexdigest()

    assert {
        "LC-Signature": f"sha256={digest}",
        "Content-Type": "application/json",
        "User-Agent": "llamaindex-webhook-service/1.0",
        "X-Webhook-Event-ID": event["event_id"],
        "X-Webhook-Event-Type": "batch.pending",
        "X-Relay": "yes",
    }.items() <= dict(received.headers).items()
    assert {"event_id", "event_type", "timestamp", "data"} == event.keys()
    assert isinstance(event["timestamp"], float)


async def test_without_a_secret_nothing_is_signed(
    http: aiohttp.ClientSession, receiver: Receiver
) -> None:
    """As upstream does."""
    await a_batch_with_webhooks(http, receiver.url)

    assert "LC-Signature" not in (await receiver.received.get()).headers


async def test_a_failing_receiver_is_tried_three_times_and_then_never_again(
    sim: Simulator, http: aiohttp.ClientSession, clock: ManualClock, receiver: Receiver
) -> None:
    """After one second and after two, and then the event is lost."""
    receiver.answers = [500, 302, 404]
    await a_batch_with_webhooks(http, receiver.url, webhook_events=["batch.pending"])
    ids = [(await receiver.received.get()).headers["X-Webhook-Event-ID"]]
    for number, pause in ((1, 1), (2, 2)):
        await sim.webhooks.attempted(number)
        assert receiver.received.empty()
        clock.advance(pause)
        ids.append((await receiver.received.get()).headers["X-Webhook-Event-ID"])
    await sim.webhooks.idle()

    assert 1 == len(set(ids))
    assert [(1, 500), (2, 302), (3, 404)] == [(a.number, a.status) for a in sim.webhooks.attempts]
    assert {"events": 1, "attempts": 3, "given_up": 1} == sim.webhooks.counted


async def test_a_receiver_that_is_not_there_hurts_nobody_else(
    sim: Simulator, http: aiohttp.ClientSession, receiver: Receiver
) -> None:
    """Nor does a header that cannot be sent."""
    impossible = {"X-Relay": "a\r\nb"}
    nowhere = "http://127.0.0.1:1/hook"
    await a_batch_with_webhooks(http, nowhere, name="nowhere")
    await a_batch_with_webhooks(http, receiver.url, name="impossible", webhook_headers=impossible)
    await sim.webhooks.attempted(2)
    await a_batch_with_webhooks(http, receiver.url)

    assert ("batch.pending", "PENDING") == told(await receiver.received.get())
    assert [None, None] == [attempt.status for attempt in list(sim.webhooks.attempts)[:2]]


async def test_a_cancelled_batch_is_notified_when_it_has_stopped(
    http: aiohttp.ClientSession, clock: ManualClock, receiver: Receiver
) -> None:
    """And nothing of the life that it would have had."""
    batch_id = await a_batch_with_webhooks(http, receiver.url)
    assert "batch.pending" == told(await receiver.received.get())[0]
    async with http.post(f"{BATCHES}/{batch_id}/cancel") as answer:
        assert 200 == answer.status

    clock.advance(LONG_ENOUGH)

    assert ("batch.cancelled", "CANCELLED") == told(await receiver.received.get())


async def test_webhooks_overtake_each_other_and_come_twice(
    sim: Simulator, http: aiohttp.ClientSession, clock: ManualClock, receiver: Receiver
) -> None:
    """Order is not guaranteed upstream; the id tells a repeat."""
    sim.faults.switch_on(Switch(kind="webhook-delayed", for_requests=1, seconds=LONG_ENOUGH))
    batch_id = await a_batch_with_webhooks(http, receiver.url)
    while "RUNNING" != (await read(http, f"{BATCHES}/{batch_id}"))["status"]:
        clock.advance(1)
    assert "batch.running" == told(await receiver.received.get())[0]

    sim.faults.switch_on(Switch(kind="webhook-repeated", for_requests=1))
    clock.advance(LONG_ENOUGH)
    late = [await receiver.received.get() for _ in range(3)]

    assert ["batch.pending", "batch.success", "batch.success"] == sorted(told(r)[0] for r in late)
    assert 2 == len({received.headers["X-Webhook-Event-ID"] for received in late})


async def test_a_saved_webhook_configuration_is_unknown(http: aiohttp.ClientSession) -> None:
    """The simulator keeps none; it says so instead of staying silent later."""
    async with http.post("/api/v1/beta/directories", json={"name": "d"}) as answer:
        directory = await answer.json()
    body = {
        "config": {"job": {"type": "parse_v2", "configuration_id": "cfg-X"}},
        "source_directory_id": directory["id"],
        "webhook_configuration_ids": ["whc-1"],
    }
    async with http.post(BATCHES, json=body) as answer:
        assert 404 == answer.status
