"""The witness, over real sockets: what it takes, what it refuses, and how it misbehaves."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec
import pytest
from standardwebhooks.webhooks import Webhook

from batchwatch.demo.chaos import Mood, Moods
from batchwatch.demo.evidence import Answer, Block
from batchwatch.demo.receiver import Receiver
from tests.demo.found import a_scene

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from batchwatch.demo.scene import Scene

EVENT = {
    "type": "batch.completed",
    "timestamp": "2026-11-24T08:00:00.000000Z",
    "data": {
        "batch": {"id": "bat-1", "status": "COMPLETED", "source_directory_id": "dir-1"},
        "transition": 3,
        "watch": "demo",
    },
}
MESSAGE = {
    "text": "✅ Batch completed: bat-0a1b (2 files, each has its job)",
    "blocks": [
        {"type": "header", "text": {"type": "plain_text", "text": "✅ Batch completed"}},
        {"type": "section", "text": {"type": "mrkdwn", "text": "RUNNING → *COMPLETED*"}},
        {"type": "context", "elements": [{"type": "mrkdwn", "text": "watch *demo*"}]},
    ],
}


@pytest.fixture
def scene() -> Scene:
    return a_scene()


@pytest.fixture
async def receiver(scene: Scene) -> AsyncIterator[Receiver]:
    async with Receiver(scene) as receiver:
        yield receiver


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def signed(secret: str, body: bytes, event_id: str = "evt-1") -> dict[str, str]:
    """The headers of the standard, by its own library."""
    now = datetime.now(UTC)
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign(event_id, now, body.decode()),
    }


def in_mood(monkeypatch: pytest.MonkeyPatch, mood: Mood) -> None:
    monkeypatch.setattr(Moods, "next", lambda _: mood)


async def test_a_signed_event_is_taken_with_all_that_the_verdict_needs(
    receiver: Receiver, scene: Scene, session: aiohttp.ClientSession
) -> None:
    """Id, type, batch, number and status, as they came."""
    body = msgspec.json.encode(EVENT)

    async with session.post(
        receiver.webhook_url, data=body, headers=signed(receiver.secret, body)
    ) as answer:
        assert 204 == answer.status

    [receipt] = scene.receipts
    assert Answer.TAKEN is receipt.answer
    assert ("evt-1", "batch.completed") == (receipt.event_id, receipt.type)
    assert ("bat-1", 3, "COMPLETED") == (receipt.batch_id, receipt.transition, receipt.status)
    assert {"bat-1": "COMPLETED"} == scene.told


@pytest.mark.parametrize(
    "spoilt",
    [
        {"webhook-signature": "v1,bm90IGl0"},
        {"webhook-signature": "nonsense"},
        {"webhook-id": "evt-2"},
        {"webhook-timestamp": "0"},
        {"webhook-signature": ""},
    ],
    ids=["another signature", "no signature at all", "another id", "an old one", "an empty one"],
)
async def test_what_cannot_be_verified_is_refused_and_kept_as_evidence(
    receiver: Receiver, scene: Scene, session: aiohttp.ClientSession, spoilt: dict[str, str]
) -> None:
    """Nothing of what it says is believed."""
    body = msgspec.json.encode(EVENT)
    headers = signed(receiver.secret, body) | spoilt

    async with session.post(receiver.webhook_url, data=body, headers=headers) as answer:
        assert 401 == answer.status

    [receipt] = scene.receipts
    assert (Answer.UNVERIFIED, None) == (receipt.answer, receipt.batch_id)
    assert {} == scene.told


async def test_a_body_that_was_changed_on_the_way_is_refused(
    receiver: Receiver, scene: Scene, session: aiohttp.ClientSession
) -> None:
    """One byte is enough."""
    body = msgspec.json.encode(EVENT)
    headers = signed(receiver.secret, body)

    async with session.post(receiver.webhook_url, data=body + b" ", headers=headers) as answer:
        assert 401 == answer.status

    assert [Answer.UNVERIFIED] == [one.answer for one in scene.receipts]


async def test_an_event_that_is_about_no_batch_is_taken(
    receiver: Receiver, scene: Scene, session: aiohttp.ClientSession
) -> None:
    """Such as watch.failing."""
    body = msgspec.json.encode({"type": "watch.failing", "data": {"watch": "demo"}})

    async with session.post(
        receiver.webhook_url, data=body, headers=signed(receiver.secret, body)
    ) as answer:
        assert 204 == answer.status

    assert [("watch.failing", None)] == [(one.type, one.batch_id) for one in scene.receipts]


async def test_slack_gets_its_ok_and_the_message_is_kept_block_by_block(
    receiver: Receiver, scene: Scene, session: aiohttp.ClientSession
) -> None:
    """And with the end that it tells of."""
    async with session.post(receiver.slack_url, json=MESSAGE) as answer:
        assert "ok" == await answer.text()

    [post] = scene.posts
    assert ("bat-0a1b", "COMPLETED") == (post.batch_id, post.status)
    assert (
        Block("header", "✅ Batch completed"),
        Block("section", "RUNNING → *COMPLETED*"),
        Block("context", "watch *demo*"),
    ) == post.blocks


@pytest.mark.parametrize("message", [[], {"text": "no blocks"}, {"text": "x", "blocks": [{}]}])
async def test_what_is_no_message_is_refused_in_slacks_words(
    receiver: Receiver, scene: Scene, session: aiohttp.ClientSession, message: Any
) -> None:
    """And told to whoever watches, for it would be batchwatch's mistake."""
    async with session.post(receiver.slack_url, json=message) as answer:
        assert (400, "invalid_payload") == (answer.status, await answer.text())

    assert ["Slack was sent what is no message"] == [one.text for one in scene.unshown]  # type: ignore[union-attr]  # a notice, as its text shows


@pytest.mark.parametrize("path", ["webhook", "slack"])
async def test_a_refusal_is_a_500_and_no_receipt(
    receiver: Receiver,
    scene: Scene,
    session: aiohttp.ClientSession,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
) -> None:
    """It arrived, so it is evidence; it was not taken, so it must come again."""
    in_mood(monkeypatch, Mood.REFUSES)
    body = msgspec.json.encode(EVENT if path == "webhook" else MESSAGE)
    url = receiver.webhook_url if path == "webhook" else receiver.slack_url

    async with session.post(url, data=body, headers=signed(receiver.secret, body)) as answer:
        assert 500 == answer.status

    arrived = scene.receipts if path == "webhook" else scene.posts
    assert [Answer.REFUSED] == [one.answer for one in arrived]
    assert ({}, {}) == (scene.told, scene.posted)


async def test_a_dropped_connection_has_no_answer(
    receiver: Receiver,
    scene: Scene,
    session: aiohttp.ClientSession,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not even a status."""
    in_mood(monkeypatch, Mood.DROPS)
    body = msgspec.json.encode(EVENT)

    with pytest.raises(aiohttp.ClientConnectionError):
        await session.post(receiver.webhook_url, data=body, headers=signed(receiver.secret, body))

    assert [Answer.DROPPED] == [one.answer for one in scene.receipts]


async def test_a_hanging_answer_has_a_status_and_no_end_and_holds_up_nobody_who_leaves(
    scene: Scene, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The receiver itself can still be closed at once: the clock of this test stands still."""
    in_mood(monkeypatch, Mood.HANGS)
    body = msgspec.json.encode(EVENT)

    async with Receiver(scene) as receiver:
        answer = await session.post(
            receiver.webhook_url, data=body, headers=signed(receiver.secret, body)
        )
        assert 200 == answer.status
        assert b"one moment, " == await answer.content.readany()
    with pytest.raises(aiohttp.ClientPayloadError):
        await answer.read()

    assert [Answer.HUNG] == [one.answer for one in scene.receipts]
