"""CloudEvents, as the official SDK reads what came over the wire."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_binary, from_http_event
from cloudevents.core.formats.json import JSONFormat
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook as Verifier

from batchwatch.clock import Clock
from batchwatch.deliver.cloudevents import binary, structured
from batchwatch.deliver.sender import Sender, new_session
from batchwatch.deliver.signing import key_of
from batchwatch.deliver.webhook import Webhook
from batchwatch.domain.batch import COMPLETED, BatchId, EndpointName, WatchName
from batchwatch.domain.delivery import Claimed, DeliveryId
from batchwatch.domain.event import WATCH_FAILING, Event, batch_event, rfc3339, watch_event
from tests.support.builders import WATCH, a_batch, at
from tests.support.receiver import SECRET, Received, Receiver, says

if TYPE_CHECKING:
    from cloudevents.core.base import BaseCloudEvent

    from batchwatch.deliver.webhook import Write

NAME = EndpointName("hook")


def told(event: Event) -> Claimed:
    """The delivery of this event, as the store gives it out."""
    return Claimed(
        id=DeliveryId(1),
        event_id=event.id,
        endpoint=NAME,
        subject=event.subject,
        type=event.type,
        batch_id=event.batch_id,
        attempt=1,
        turn=1,
        occurred_at=event.occurred_at,
        payload=json.dumps(event.payload, ensure_ascii=False).encode(),
    )


def an_end(batch_id: str = "bat-1", watch: str = "default") -> Event:
    batch = replace(a_batch(COMPLETED), id=BatchId(batch_id), watch=WatchName(watch))
    return batch_event(batch, "batch.completed", occurred_at=at(9), link="https://cloud.test/é")


A_TROUBLE = watch_event(
    WATCH, WATCH_FAILING, occurred_at=at(9), since=at(0), reason="HTTP 503, «später»"
)


async def received(event: Event, write: Write) -> Received:
    """The message as it came out of a socket; the receiver has verified its signature."""
    async with Receiver() as receiver, new_session() as session:
        clock = Clock()
        webhook = Webhook(
            name=NAME,
            url=receiver.url,
            sender=Sender(session, clock),
            clock=clock,
            schedule=(),
            timeout=9.0,
            concurrency=1,
            keys=[key_of(SECRET)],
            write=write,
        )
        assert (await webhook.send(told(event))).failure is None
    (one,) = receiver.received
    Verifier(SECRET).verify(one.body, one.headers, json_parse=False)
    return one


def read(one: Received) -> BaseCloudEvent:
    return from_http_event(HTTPMessage(one.headers, one.body), JSONFormat())


@pytest.mark.parametrize("write", [structured, binary])
@pytest.mark.parametrize("event", [an_end(), A_TROUBLE], ids=lambda event: event.type)
async def test_the_official_sdk_reads_it_whole(event: Event, write: Write) -> None:
    """Each attribute, and the data to the last field; signed as the bytes that were sent."""
    one = await received(event, write)
    found = read(one)

    attributes: dict[str, Any] = {
        "specversion": "1.0",
        "id": event.id,
        "source": "/batchwatch/default",
        "type": f"com.batchwatch.{event.type}",
        "time": event.occurred_at,
        "datacontenttype": "application/json",
    }
    if event.batch_id is not None:
        attributes["subject"] = event.batch_id
    assert attributes == found.get_attributes()
    assert event.data == found.get_data()
    assert event.id == one.id


async def test_in_the_structured_mode_all_is_in_the_body() -> None:
    """And the content type says so."""
    one = await received(an_end(), structured)

    assert "application/cloudevents+json" == one.headers["content-type"]
    assert not [name for name in one.headers if name.startswith("ce-")]
    assert rfc3339(at(9)) == json.loads(one.body)["time"]


async def test_in_the_binary_mode_the_body_is_the_data_as_it_is_stored() -> None:
    """Byte for byte; the attributes are headers, and the media type is the data's."""
    event = an_end()
    one = await received(event, binary)

    assert "application/json" == one.headers["content-type"]
    assert "ce-datacontenttype" not in one.headers
    assert json.dumps(event.data, ensure_ascii=False).encode() == one.body


async def test_a_header_carries_any_id() -> None:
    """Percent-encoded as the binding says, with its own example."""
    one = await received(an_end(batch_id='Euro € 😀 "100%"'), binary)

    assert "Euro%20%E2%82%AC%20%F0%9F%98%80%20%22100%25%22" == one.headers["ce-subject"]
    assert 'Euro € 😀 "100%"' == read(one).get_subject()


@given(batch_id=st.text(min_size=1, max_size=40))
def test_every_header_is_printable_ascii_and_read_back_as_it_was(batch_id: str) -> None:
    """Nothing that upstream calls a batch can break a request, or smuggle in a header."""
    headers, body = binary(replace(told(an_end()), batch_id=BatchId(batch_id)))

    assert all(0x21 <= ord(letter) <= 0x7E for letter in headers["ce-subject"])
    assert batch_id == from_binary(HTTPMessage(headers, body), JSONFormat()).get_subject()


@pytest.mark.parametrize("write", [structured, binary])
async def test_a_repeat_is_the_same_event(write: Write) -> None:
    """By source and id, which is what CloudEvents deduplicates by."""
    first, second = [read(await received(an_end(), write)) for _ in range(2)]

    assert (first.get_source(), first.get_id()) == (second.get_source(), second.get_id())
    assert "/batchwatch/eu" == read(await received(an_end(watch="eu"), write)).get_source()


async def test_an_id_that_a_receiver_complains_about_can_be_read() -> None:
    """It is no secret, and who looks into it needs it."""
    event = an_end()
    async with Receiver() as receiver, new_session() as session:
        receiver.always = says(422, f"unknown {event.id} of bat-1 in /batchwatch/default")
        clock = Clock()
        headers, body = binary(told(event))
        attempt = await Sender(session, clock).post(receiver.url, body, headers, timeout=9.0)

    assert f"unknown {event.id} of bat-1 in /batchwatch/default" == attempt.response
