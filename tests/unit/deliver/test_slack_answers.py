"""What Slack says to a message: what is worth another try, what is final, what is a pause."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from slack_sdk.models.blocks import Block

from batchwatch.deliver.slack import Slack
from batchwatch.domain.batch import BatchId, EndpointName, EventId
from batchwatch.domain.delivery import Claimed, DeliveryId, Failure
from batchwatch.domain.event import batch_event
from tests.support.builders import BASE_URL, a_batch, at
from tests.support.receiver import says

if TYPE_CHECKING:
    from batchwatch.deliver.sender import Sender
    from tests.support.receiver import Receiver

PATH = "/services/T0001/B0002/s3cret"


def a_slack(sender: Sender, receiver: Receiver) -> Slack:
    return Slack(
        name=EndpointName("ops"),
        url=f"{receiver.url}{PATH}",
        sender=sender,
        schedule=(5.0,),
        timeout=9.0,
        concurrency=1,
    )


def a_claimed() -> Claimed:
    event = batch_event(a_batch(), "batch.running", occurred_at=at(0), link=BASE_URL)
    return Claimed(
        id=DeliveryId(1),
        event_id=EventId(event.id),
        endpoint=EndpointName("ops"),
        subject=event.subject,
        type=event.type,
        batch_id=BatchId("bat-1"),
        attempt=1,
        turn=1,
        occurred_at=at(0),
        payload=msgspec.json.encode(event.payload),
    )


async def test_a_message_is_posted_as_json_with_blocks_and_a_plain_text(
    sender: Sender, receiver: Receiver
) -> None:
    """The text is what a notification on a phone shows, and a client that knows no blocks."""
    attempt = await a_slack(sender, receiver).send(a_claimed())

    (received,) = receiver.received
    assert (None, "ok") == (attempt.failure, attempt.response)
    assert ("application/json", PATH) == (received.headers["content-type"], received.path)
    assert "▶️ Batch runs: bat-1" == received.event["text"]
    assert 3 == len(Block.parse_all(received.event["blocks"]))


@pytest.mark.parametrize(
    ("status", "said", "failure"),
    [
        (400, "invalid_payload", Failure.REFUSED),
        (400, "invalid_blocks", Failure.REFUSED),
        (400, "user_not_found", Failure.CLIENT_ERROR),
        (403, "action_prohibited", Failure.CLIENT_ERROR),
        (403, "invalid_token", Failure.CLIENT_ERROR),
        (404, "channel_not_found", Failure.CLIENT_ERROR),
        (404, "no_service", Failure.CLIENT_ERROR),
        (410, "channel_is_archived", Failure.GONE),
        (500, "rollup_error", Failure.SERVER_ERROR),
    ],
)
async def test_an_error_of_slack_is_of_its_kind(
    status: int, said: str, failure: Failure, sender: Sender, receiver: Receiver
) -> None:
    """Only a message that Slack cannot read is never sent again; channels and tokens can be mended.

    https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks#handling_errors
    """
    receiver.always = says(status, said)

    attempt = await a_slack(sender, receiver).send(a_claimed())

    assert (failure, status, said) == (attempt.failure, attempt.status_code, attempt.response)


@pytest.mark.parametrize("status", [400, 403, 404])
async def test_slacks_word_for_an_error_is_told(
    status: int, sender: Sender, receiver: Receiver
) -> None:
    """It is what one looks up."""
    receiver.always = says(status, "no_service\n")

    attempt = await a_slack(sender, receiver).send(a_claimed())

    assert f"HTTP {status}: no_service" == attempt.detail


SIGN_IN = "<!doctype html>\n<title>Sign in</title>\n<p>before you go on"


@pytest.mark.parametrize("status", [200, 202])
@pytest.mark.parametrize(
    ("said", "failure", "detail"),
    [
        (SIGN_IN, Failure.PROTOCOL, "but what came back is not Slack's answer"),
        ("", Failure.PROTOCOL, "but what came back is not Slack's answer"),
        ("okay", Failure.PROTOCOL, "but what came back is not Slack's answer"),
        ('{"ok": "yes"}', Failure.PROTOCOL, "but what came back is not Slack's answer"),
        ("[true]", Failure.PROTOCOL, "but what came back is not Slack's answer"),
        ('{"ok": false}', Failure.CLIENT_ERROR, "but not ok"),
        ('{"ok": false, "error": "no_service"}', Failure.CLIENT_ERROR, "but not ok: no_service"),
        ('{"ok": false, "error": "\x1b]0;x"}', Failure.PROTOCOL, "but what came back is not"),
        ('{"ok": false, "error": "<b>No</b>"}', Failure.CLIENT_ERROR, "but not ok"),
    ],
)
async def test_a_message_is_taken_when_slack_says_so(
    status: int, said: str, failure: Failure, detail: str, sender: Sender, receiver: Receiver
) -> None:
    """A 200 alone may be a proxy's page to sign in on: it is a failure, and tried again."""
    receiver.always = says(status, said)

    attempt = await a_slack(sender, receiver).send(a_claimed())

    assert (failure, status) == (attempt.failure, attempt.status_code)
    assert attempt.detail is not None
    assert attempt.detail.startswith(f"HTTP {status}, {detail}")
    assert attempt.detail.isprintable()
    assert "<" not in attempt.detail


@pytest.mark.parametrize("said", ["ok", "ok\n", '{"ok":true}', '{"ok": true, "ts": "1.2"}'])
async def test_slacks_ok_comes_as_a_word_or_as_json(
    said: str, sender: Sender, receiver: Receiver
) -> None:
    """Webhooks of its workflows say it in JSON."""
    receiver.always = says(200, said)

    attempt = await a_slack(sender, receiver).send(a_claimed())

    assert (None, None) == (attempt.failure, attempt.detail)


async def test_slacks_rate_limit_says_how_long_to_wait(sender: Sender, receiver: Receiver) -> None:
    """Its limit is for the channel; the dispatcher holds back the others as well."""
    receiver.always = says(429, "rate_limited", Retry_After="30")

    attempt = await a_slack(sender, receiver).send(a_claimed())

    assert (Failure.RATE_LIMITED, 30.0) == (attempt.failure, attempt.retry_after)


@pytest.mark.parametrize(
    "said",
    [f"Cannot POST {PATH}", "<!doctype html>\n<title>404</title>\n<p>not here"],
    ids=["the path", "a page"],
)
async def test_what_is_no_word_of_slack_is_not_repeated(
    said: str, sender: Sender, receiver: Receiver
) -> None:
    """A detail is one line and never a secret; what came back is kept with the attempt."""
    receiver.always = says(404, said)

    attempt = await a_slack(sender, receiver).send(a_claimed())

    assert "HTTP 404" == attempt.detail


async def test_a_channel_shows_its_name_and_not_its_url(sender: Sender, receiver: Receiver) -> None:
    """Whoever has the URL can post."""
    shown = repr(a_slack(sender, receiver))

    assert ("name='ops'" in shown, "s3cret" in shown) == (True, False)
