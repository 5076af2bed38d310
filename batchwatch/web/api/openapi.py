"""The API's document (OpenAPI 3.1), made from its operations and their types."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

from batchwatch import __version__
from batchwatch.web.api import answers
from batchwatch.web.api.operation import BASE, IN_PATH
from batchwatch.web.problem import CONTENT_TYPE
from batchwatch.web.route import Role

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from batchwatch.web.api.operation import Operation

PATH: Final = f"{BASE}/openapi.json"
_REFERENCE: Final = "#/components/schemas/{name}"
_NAMES: Final = re.compile(r"{(\w+)}")
_IN_WORDS: Final = {
    "watch": "The name of a watch.",
    "batch_id": "The id of a batch.",
    "event_id": "The id of an event.",
    "delivery_id": "The number of a delivery.",
    "endpoint": "The name of an endpoint.",
}
_TAGS: Final = {
    "overview": "How it goes.",
    "batches": "The batches that are watched.",
    "events": "What was told of them, and of the daemon itself.",
    "deliveries": "Events on their way to endpoints.",
    "endpoints": "Where notifications go.",
    "watches": "What is looked at.",
    "replicas": "The daemons that share the store.",
}
_ANY: Final = {"minLength": 1, "maxLength": 300, "pattern": r"^[^/\x00-\x1f\x7f]+$"}
_UNCHANGED: Final = {"304": {"description": "What you have is what there is."}}
_FAILURES: Final = {
    400: "What was given cannot be read, or contradicts itself.",
    401: "A token is needed.",
    403: "The token is not enough, or the request came from another site.",
    404: "There is none.",
    408: "The body did not come in time.",
    409: "It cannot be done as things are.",
    410: "What comes after that place is no longer kept.",
    413: "The body is too large.",
    414: "The query is too long.",
    415: "The body is not JSON.",
    421: "It was asked for under a name that is not this machine's own.",
    503: "The store does not work at present.",
}


def document(operations: Sequence[Operation], *, prefix: str = "") -> dict[str, Any]:
    """The whole document; ``prefix`` is the path that a proxy serves all of it under."""
    types = [answers.Problem, *_types(operations)]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REFERENCE)
    known = dict(zip(map(repr, types), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for one in operations:
        paths.setdefault(BASE + one.path, {})[one.method.lower()] = _operation(
            one, known, components
        )
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "batchwatch",
            "version": __version__,
            "description": "What batchwatch knows of LlamaCloud batches, whom it told, and how "
            "that went. Times are RFC 3339 in UTC, durations are seconds.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": prefix or "/"}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "security": [{"token": []}, {"session": []}],
        "paths": paths,
        "components": {
            "schemas": dict(components),
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "BATCHWATCH_API_TOKEN, or BATCHWATCH_READ_TOKEN for what only "
                    "reads. Where neither is set, none is needed.",
                },
                "session": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": "batchwatch",
                    "description": "What the login page gives to browsers.",
                },
            },
            "responses": {
                str(status): {
                    "description": text,
                    "content": {CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
                }
                for status, text in _FAILURES.items()
            },
        },
    }


def _types(operations: Iterable[Operation]) -> list[Any]:
    found: dict[str, Any] = {}
    for one in operations:
        for type_ in (one.query, one.answer, one.body):
            if type_ is not None:
                found.setdefault(repr(type_), type_)
    return list(found.values())


def _operation(one: Operation, known: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    failures = [400, 401, 403, 414, 421, 503]
    if one.finds:
        failures.append(404)
    if "after" in one.query.__struct_fields__:
        failures.append(410)
    if one.role is Role.ADMIN:
        failures.append(409)
    if one.body is not None:
        failures += [408, 413, 415]
    found: dict[str, Any] = {
        "operationId": one.name,
        "tags": [one.tag],
        "summary": one.summary,
        "parameters": [*_path_parameters(one), *_query_parameters(one, known, components)],
        "responses": {
            str(one.status): {
                "description": "Here it is.",
                "content": {one.media: {"schema": known[repr(one.answer)]}},
            },
            **(_UNCHANGED if one.method == "GET" and one.media == "application/json" else {}),
            **{str(one): {"$ref": f"#/components/responses/{one}"} for one in sorted(failures)},
        },
    }  # fmt: skip
    if one.text:
        found["description"] = one.text
    if one.body is not None:
        found["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": known[repr(one.body)]}},
        }
    return found


def _path_parameters(one: Operation) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": _IN_WORDS[name],
            "schema": {
                "type": "string",
                **({"pattern": f"^{IN_PATH[name]}$"} if name in IN_PATH else _ANY),
            },
        }
        for name in _NAMES.findall(one.path)
    ]


def _query_parameters(
    one: Operation, known: dict[str, Any], components: dict[str, Any]
) -> list[dict[str, Any]]:
    reference = known[repr(one.query)]
    query = components.get(reference.get("$ref", "").rpartition("/")[2], reference)
    found = []
    for name, schema in query["properties"].items():
        text = schema.pop("description", None)
        described = {"description": text} if text else {}
        found.append({"name": name, "in": "query", "schema": schema, **described})
    return found
