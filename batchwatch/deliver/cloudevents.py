"""Write an event as CloudEvents 1.0: all of it in the body, or its attributes in the headers.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import msgspec

if TYPE_CHECKING:
    from batchwatch.domain.delivery import Claimed

# Theirs is the domain that says what a type means, so that no other's batch.completed is ours.
TYPE_PREFIX: Final = "com.batchwatch."
_JSON: Final = "application/json"
# Printable ASCII but for the space, the quote and the percent sign: the rest is escaped.
_PLAIN: Final = "".join(map(chr, range(0x21, 0x7F))).replace('"', "").replace("%", "")


class _Envelope(msgspec.Struct):
    """What is stored, with ``data`` left as it stands there."""

    type: str
    timestamp: str
    data: msgspec.Raw


def structured(delivery: Claimed) -> tuple[dict[str, str], bytes]:
    """Headers and body of the structured mode: one JSON object holds attributes and data."""
    envelope = _read(delivery)
    event: dict[str, Any] = {
        **_attributes(delivery, envelope),
        "datacontenttype": _JSON,
        "data": envelope.data,
    }
    return {"Content-Type": "application/cloudevents+json"}, msgspec.json.encode(event)


def binary(delivery: Claimed) -> tuple[dict[str, str], bytes]:
    """Headers and body of the binary mode: the body is the data, as it is stored."""
    envelope = _read(delivery)
    attributes = _attributes(delivery, envelope).items()
    headers = {f"ce-{name}": quote(value, _PLAIN, errors="replace") for name, value in attributes}
    return {"Content-Type": _JSON, **headers}, bytes(envelope.data)


def _read(delivery: Claimed) -> _Envelope:
    return msgspec.json.decode(delivery.payload, type=_Envelope)


def _attributes(delivery: Claimed, envelope: _Envelope) -> dict[str, str]:
    """What is said of the data.

    The source is a path, for a daemon has no address of its own that would
    stay: the watch is what its events come from, wherever it runs. The id
    alone tells events apart, as the id of a Standard Webhooks message does.
    """
    watch = delivery.subject.partition("/")[0]
    about_us = delivery.type.startswith("endpoint.")
    attributes = {
        "specversion": "1.0",
        "id": delivery.event_id,
        "source": "/batchwatch" if about_us else f"/batchwatch/{quote(watch, '')}",
        "type": TYPE_PREFIX + envelope.type,
        "time": envelope.timestamp,
    }
    if delivery.batch_id is not None:
        attributes["subject"] = delivery.batch_id
    return attributes
