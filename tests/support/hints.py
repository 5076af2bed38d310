"""Upstream webhooks as upstream makes them, signed by a computation of our own."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from tests.support.clock import EPOCH

HINT_SECRET = "hint-s3cret-0123456789"
_BLOCK = 64  # bytes, of SHA-256


def signature(body: bytes, secret: str = HINT_SECRET) -> str:
    """HMAC-SHA256 by RFC 2104, in hex: the inner and the outer hash, without the hmac module."""
    key = secret.encode()
    key = (hashlib.sha256(key).digest() if len(key) > _BLOCK else key).ljust(_BLOCK, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in key) + body).digest()
    return hashlib.sha256(bytes(byte ^ 0x5C for byte in key) + inner).hexdigest()


def signed(body: bytes, secret: str = HINT_SECRET) -> dict[str, str]:
    """The header that goes with ``body``."""
    return {"LC-Signature": f"sha256={signature(body, secret)}"}


def an_envelope(
    type_: str = "batch.success", batch_id: str = "bat-1", *, after: float = 0.0, **more: Any
) -> dict[str, Any]:
    """What upstream sends; ``after`` is when, in seconds from the tests' beginning of time."""
    return {
        "event_id": f"evt-{type_}-{batch_id}",
        "event_type": type_,
        "timestamp": EPOCH.timestamp() + after,
        "data": {"id": batch_id, "status": "COMPLETED"},
    } | more


def a_body(*given: Any, **more: Any) -> bytes:
    """The same as JSON."""
    return json.dumps(an_envelope(*given, **more)).encode()
