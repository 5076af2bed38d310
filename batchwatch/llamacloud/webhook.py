"""Upstream's own webhooks: whether one is truly from there, and what it is about.

The signature covers the body and nothing else, so nothing else is read. What the data of a batch's
webhook looks like is documented nowhere; its id is looked for in each likely place.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

from batchwatch.domain.batch import BatchId
from batchwatch.domain.hint import Hint
from batchwatch.llamacloud.client import can_be_asked
from batchwatch.llamacloud.wire import Unreadable, read_moment

if TYPE_CHECKING:
    from collections.abc import Iterable

HEADER: Final = "LC-Signature"
_PREFIX: Final = "sha256="
_ABOUT_BATCHES: Final = "batch."
_WORD: Final = re.compile(r"[\x21-\x7e]{1,200}")  # no id of upstream has other characters


def is_signed(body: bytes, signature: str, secrets: Iterable[bytes]) -> bool:
    """Whether ``signature``, a header of upstream's, was made of ``body`` with one of ``secrets``.

    Every secret is tried and compared in constant time, so that how long it
    takes tells nothing.
    """
    given = signature.strip().lower().encode(errors="replace")
    good = False
    for secret in secrets:
        digest = hmac.new(secret, body, hashlib.sha256).hexdigest()
        good |= hmac.compare_digest(given, f"{_PREFIX}{digest}".encode())
    return good


def read_hint(body: bytes) -> Hint:
    """What a webhook says. Raises :class:`Unreadable` if it is none.

    By ``webhook_output_format``, JSON may stand in it as a string: all of it,
    or its data.
    """
    envelope = _unwrapped(_decoded(body))
    event_id, type_ = _word(envelope.get("event_id")), _word(envelope.get("event_type"))
    if not (event_id and type_):
        raise Unreadable('a JSON object with an "event_id" and an "event_type"')
    batch_id = None
    if type_.startswith(_ABOUT_BATCHES):
        batch_id = _batch_id(_unwrapped(envelope.get("data")))
    stamp = envelope.get("timestamp")
    readable = isinstance(stamp, str | int | float) and not isinstance(stamp, bool)
    return Hint(event_id, type_, batch_id, read_moment(stamp) if readable else None)


def _batch_id(data: dict[str, Any]) -> BatchId:
    inner = data.get("batch")
    # The likeliest last: `id` alone may also be that of something else.
    for given in (
        data.get("batch_id"),
        inner.get("id") if isinstance(inner, dict) else inner,
        data.get("id"),
    ):
        found = BatchId(_word(given))
        if can_be_asked(found):
            return found
    keys = ", ".join(key[:40] for key in list(data)[:10] if _word(key)) or "none"
    raise Unreadable(f'"data" with a batch\'s "id", "batch_id" or "batch.id"; its keys are: {keys}')


def _unwrapped(value: Any) -> dict[str, Any]:
    """The object that ``value`` is, or that it holds as text."""
    if isinstance(value, str):
        value = _decoded(value)
    return value if isinstance(value, dict) else {}


def _decoded(body: bytes | str) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _word(value: object) -> str:
    """``value`` if it can be an id or a type, else nothing."""
    return value if isinstance(value, str) and _WORD.fullmatch(value) else ""
