"""What each type of message looks like (JSON Schema), made from the types of its payload."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from batchwatch.domain import event, payload

if TYPE_CHECKING:
    from collections.abc import Mapping

_OF_GROUPS: Final[Mapping[str, Any]] = {
    "watch": payload.WatchData,
    "endpoint": payload.EndpointData,
    "daemon": payload.DaemonData,
}
_OF_TYPES: Final[Mapping[str, Any]] = {
    event.WATCH_SLOW: payload.WatchSlowData,
    event.WATCH_GAP: payload.GapData,
}


def schema_of(type_: str) -> dict[str, Any]:
    """The schema of one type's whole message, which stands by itself."""
    its = _OF_TYPES.get(type_) or _OF_GROUPS.get(type_.partition(".")[0], payload.BatchData)
    (whole,), components = msgspec.json.schema_components(
        [payload.Envelope], ref_template="#/$defs/{name}"
    )
    (body,), parts = msgspec.json.schema_components([its], ref_template="#/$defs/{name}")
    envelope = components[whole["$ref"].rpartition("/")[2]]
    envelope["properties"]["type"] = {"const": type_}
    envelope["properties"]["timestamp"] = {"type": "string", "format": "date-time"}
    envelope["properties"]["data"] = body
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": type_,
        "description": event.MEANINGS[type_],
        **{key: value for key, value in envelope.items() if key not in ("title", "description")},
        "$defs": parts,
    }
