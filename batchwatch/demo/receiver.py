"""The witness: takes the webhooks and the Slack messages, and trusts neither.

Every signature is verified with a library that is not batchwatch's. What is not verified is refused
and counts as a fault. With ``--chaos`` it is also as unreliable as receivers are.
"""

from __future__ import annotations

import asyncio
import base64
import re
import secrets
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec
from aiohttp import web
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from batchwatch.demo.chaos import Mood, Moods
from batchwatch.demo.evidence import TERMINAL, Answer, Block, Post, Receipt

if TYPE_CHECKING:
    from batchwatch.demo.scene import Scene

HANGS_FOR: Final = 4.0  # seconds; longer than the daemon waits
_LARGEST_BODY: Final = 16 * 1024 * 1024  # bytes
_BATCH_ID: Final = re.compile(r"\bbat-[0-9a-f-]+")
_END: Final = re.compile(rf"\b(?:{'|'.join(sorted(TERMINAL))})\b")

_ANSWERS: Final = {
    Mood.WELL: Answer.TAKEN,
    Mood.SLOW: Answer.TAKEN,
    Mood.REFUSES: Answer.REFUSED,
    Mood.HANGS: Answer.HUNG,
    Mood.DROPS: Answer.DROPPED,
}


class _Batch(msgspec.Struct):
    id: str
    status: str
    source_directory_id: str | None = None


class _Results(msgspec.Struct):
    state: str


class _Settled(msgspec.Struct):
    state: str
    counts: dict[str, int] | None


class _Data(msgspec.Struct):
    batch: _Batch | None = None
    transition: int | None = None
    results: _Results | None = None
    settled: _Settled | None = None


class _Envelope(msgspec.Struct):
    """What the demo reads of a notification, written down from its description."""

    type: str
    data: _Data


class Receiver:
    """Listens while it is entered, and puts whatever arrives into the scene.

    ``secret`` is what the daemon is to sign with. With the scene's chaos, its
    moods are drawn from the scene's seed.
    """

    def __init__(self, scene: Scene) -> None:
        chaos = scene.seed if scene.chaos else None
        self.secret: Final = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
        self.webhook_url = ""  # known once it listens, as is the other
        self.slack_url = ""
        self._scene = scene
        self._judge = Webhook(self.secret)
        self._moods = {"webhook": Moods(chaos, "webhook"), "slack": Moods(chaos, "slack")}
        self._closing = asyncio.Event()
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=_LARGEST_BODY)
        app.router.add_post("/webhook", self._webhook)
        app.router.add_post("/slack", self._slack)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        base = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        self.webhook_url, self.slack_url = f"{base}/webhook", f"{base}/slack"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing.set()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _webhook(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        event_id = request.headers.get("webhook-id", "")
        try:
            self._judge.verify(body, dict(request.headers), json_parse=False)
            envelope = msgspec.json.decode(body, type=_Envelope)
        except (WebhookVerificationError, ValueError):  # the library also lets its own mistakes out
            self._scene.receive(Receipt(self._scene.elapsed, event_id, "", Answer.UNVERIFIED))
            return web.Response(status=401, text="the signature does not hold\n")
        mood = await self._mood("webhook")
        batch, results, settled = envelope.data.batch, envelope.data.results, envelope.data.settled
        self._scene.receive(
            Receipt(
                self._scene.elapsed,
                event_id,
                envelope.type,
                _ANSWERS[mood],
                batch_id=batch.id if batch else None,
                transition=envelope.data.transition,
                status=batch.status if batch else None,
                directory_id=batch.source_directory_id if batch else None,
                results=results.state if results else None,
                counts=settled.counts if settled else None,
            )
        )
        return await self._answer(request, mood, web.Response(status=204))

    async def _slack(self, request: web.Request) -> web.StreamResponse:
        """Slack answers ``ok``, or the name of the mistake: api.slack.com/messaging/webhooks."""
        try:
            message = msgspec.json.decode(await request.read())
            text, blocks = message["text"], tuple(_read(block) for block in message["blocks"])
        except (ValueError, KeyError, TypeError):
            self._scene.note("Slack was sent what is no message", is_grave=True)
            return web.Response(status=400, text="invalid_payload")
        mood = await self._mood("slack")
        named = _BATCH_ID.search(text)
        ends = _END.findall("\n".join(block.text for block in blocks))
        self._scene.read(
            Post(
                self._scene.elapsed,
                text,
                blocks,
                _ANSWERS[mood],
                batch_id=named.group() if named else None,
                status=ends[-1] if ends else None,
            )
        )
        return await self._answer(request, mood, web.Response(text="ok"))

    async def _mood(self, who: str) -> Mood:
        moods = self._moods[who]
        mood = moods.next()
        if mood is Mood.SLOW:
            await self._scene.clock.wait(self._closing, moods.slowness())
        return mood

    async def _answer(
        self, request: web.Request, mood: Mood, good: web.Response
    ) -> web.StreamResponse:
        if mood is Mood.REFUSES:
            return web.Response(status=500, text="not today\n")
        if mood is Mood.HANGS:
            unfinished = web.StreamResponse(headers={"Content-Length": "100"})
            await unfinished.prepare(request)
            await unfinished.write(b"one moment, ")
            await self._scene.clock.wait(self._closing, HANGS_FOR)
        if mood in (Mood.HANGS, Mood.DROPS) and request.transport is not None:
            request.transport.abort()
        return good


def _read(block: dict[str, Any]) -> Block:
    """A block as text; a context has several elements, which Slack shows side by side."""
    parts = [block["text"]] if "text" in block else block["elements"]
    return Block(block["type"], "  ".join(part["text"] for part in parts))
