"""Receive batchwatch's webhooks with aiohttp: verify, write down, answer, and only then work.

pip install aiohttp standardwebhooks
WEBHOOK_SECRET=whsec_... python aiohttp_receiver.py
"""

import asyncio
import json
import logging
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing, suppress
from typing import Any

from aiohttp import web
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

LARGEST = 1024 * 1024  # bytes; no message of batchwatch is larger
SCHEMA = """
    CREATE TABLE IF NOT EXISTS inbox (
        id TEXT PRIMARY KEY, body TEXT NOT NULL, done INTEGER NOT NULL DEFAULT 0
    );
    CREATE TABLE IF NOT EXISTS batches (
        watch TEXT, id TEXT, transition INTEGER NOT NULL, status TEXT NOT NULL,
        PRIMARY KEY (watch, id)
    );
"""
NEWEST = """
    INSERT INTO batches (watch, id, transition, status) VALUES (?, ?, ?, ?)
    ON CONFLICT (watch, id) DO UPDATE SET transition = excluded.transition, status = excluded.status
    WHERE excluded.transition > batches.transition
"""
log = logging.getLogger("receiver")
webhook = Webhook(os.environ["WEBHOOK_SECRET"])
news = asyncio.Event()


def opened() -> closing[sqlite3.Connection]:
    """One connection for each piece of work: they are cheap, and threads may not share any."""
    return closing(sqlite3.connect(os.environ.get("DATABASE", "inbox.db")))


async def receive(request: web.Request) -> web.Response:
    """Answer 204 once the message is written down, and 401 if it is not from your batchwatch."""
    body = await request.read()  # the bytes that were signed, not JSON that was read and written
    try:
        webhook.verify(body, dict(request.headers), json_parse=False)
    except (WebhookVerificationError, ValueError):  # the latter for headers of no sense at all
        return web.Response(status=401)
    # If this fails, aiohttp answers 500, and the message comes again.
    await asyncio.to_thread(keep, request.headers["webhook-id"], body.decode())
    news.set()
    return web.Response(status=204)


def keep(message_id: str, body: str) -> None:
    """Write a message down, once, however often it comes."""
    with opened() as db, db:
        sql = "INSERT INTO inbox (id, body) VALUES (?, ?) ON CONFLICT (id) DO NOTHING"
        db.execute(sql, (message_id, body))


def work_off() -> None:
    """Do what is not done yet, what an earlier process left among it."""
    with opened() as db:
        todo = "SELECT id, body FROM inbox WHERE NOT done ORDER BY rowid"
        for message_id, body in db.execute(todo).fetchall():
            try:
                with db:  # the work and its mark are written together, or neither
                    work(db, json.loads(body))
                    db.execute("UPDATE inbox SET done = 1 WHERE id = ?", (message_id,))
            except Exception:  # it is tried again with the next message, and holds up no other
                log.exception("message %s is not done", message_id)


def work(db: sqlite3.Connection, event: dict[str, Any]) -> None:
    """Your own work goes here."""
    data = event["data"]
    if "batch" not in data:
        return  # the troubles of a watch, and what later versions may send
    row = (data["watch"], data["batch"]["id"], data["transition"], data["batch"]["status"])
    is_news = db.execute(NEWEST, row).rowcount > 0  # not after something later
    if is_news and data["watch"] != "certify":  # what batchwatch certify sends is made up
        print(*row)


async def working(_: web.Application) -> AsyncIterator[None]:
    """Work beside the server, for as long as it runs."""
    with opened() as db:
        db.execute("PRAGMA journal_mode = wal")
        db.executescript(SCHEMA)

    async def work_on() -> None:
        while True:
            news.clear()  # before the look, so that what comes meanwhile is not missed
            try:
                await asyncio.to_thread(work_off)
            except sqlite3.Error:
                log.exception("the inbox cannot be read")
            await news.wait()

    task = asyncio.create_task(work_on())
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


app = web.Application(client_max_size=LARGEST)
app.router.add_post("/hooks/batches", receive)
app.cleanup_ctx.append(working)

if __name__ == "__main__":
    web.run_app(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))
