"""The document of what is sent (AsyncAPI 3.0): to receivers by POST, to listeners as a stream."""

from __future__ import annotations

from typing import Any, Final

from batchwatch import __version__
from batchwatch.domain.event import EVENT_TYPES, MEANINGS
from batchwatch.web.api.operation import BASE
from batchwatch.web.api.schemas import schema_of

PATH: Final = f"{BASE}/asyncapi.json"
_SCHEMA: Final = "application/schema+json;version=draft-2020-12"
_HEADERS: Final = {
    "type": "object",
    "required": ["webhook-id", "webhook-timestamp"],
    "properties": {
        "webhook-id": {
            "type": "string",
            "description": "The event's id: the same for each repeat, so that it can be told.",
        },
        "webhook-timestamp": {
            "type": "string",
            "pattern": "^[0-9]+$",
            "description": "When this try was sent, in seconds since 1970.",
        },
        "webhook-signature": {
            "type": "string",
            "description": "Signatures by Standard Webhooks, where the endpoint has secrets.",
        },
        "traceparent": {"type": "string", "description": "W3C Trace Context."},
    },
}


def document(*, prefix: str = "") -> dict[str, Any]:
    """The whole document; ``prefix`` is the path that a proxy serves the site under."""
    messages = {_name(type_): _message(type_) for type_ in EVENT_TYPES}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "batchwatch",
            "version": __version__,
            "description": "What batchwatch tells of LlamaCloud batches, and of itself. Events of "
            "one batch come in order; what is repeated has the same id.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "receiver": {
                "host": "receiver.example",
                "protocol": "https",
                "description": "Yours: the URL of an endpoint in the settings.",
            },
            "batchwatch": {
                "host": "127.0.0.1:8080",
                "pathname": prefix or "/",
                "protocol": "http",
                "description": "Where batchwatch listens.",
                "security": [{"$ref": "#/components/securitySchemes/token"}],
            },
        },
        "channels": {
            "webhook": {
                "address": "/",
                "description": "A message to an endpoint, signed by Standard Webhooks.",
                "servers": [{"$ref": "#/servers/receiver"}],
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
            },
            "feed": {
                "address": f"{BASE}/events/stream",
                "description": "Server-sent events: their id is a place in the order of all, their "
                "data has the message as `payload`.",
                "servers": [{"$ref": "#/servers/batchwatch"}],
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
            },
        },
        "operations": {
            "tell": {
                "action": "send",
                "channel": {"$ref": "#/channels/webhook"},
                "summary": "POST an event to an endpoint; any 2xx is an acknowledgement.",
                "bindings": {"http": {"method": "POST", "bindingVersion": "0.3.0"}},
            },
            "stream": {
                "action": "send",
                "channel": {"$ref": "#/channels/feed"},
                "summary": "Send events to whoever listens.",
                "bindings": {"http": {"method": "GET", "bindingVersion": "0.3.0"}},
            },
        },
        "components": {
            "messages": messages,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "BATCHWATCH_READ_TOKEN or BATCHWATCH_API_TOKEN.",
                }
            },
        },
    }


def _name(type_: str) -> str:
    return type_.replace(".", "_")  # what a component may be called


def _message(type_: str) -> dict[str, Any]:
    return {
        "name": type_,
        "title": type_,
        "summary": MEANINGS[type_],
        "contentType": "application/json",
        "headers": _HEADERS,
        "payload": {"schemaFormat": _SCHEMA, "schema": schema_of(type_)},
    }
