"""The API's document as chapters to read: by tag, with parameters, answers and an example."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


_HUGE: Final = 1_000_000  # a limit that says nothing to anybody
_EXAMPLES: Final = {
    "watch": "default",
    "batch_id": "bat-0a1b",
    "event_id": "evt_0a1b",
    "delivery_id": "17",
    "endpoint": "hook",
}


@dataclass(frozen=True, slots=True)
class Field:
    """A parameter, or a field of a body or an answer."""

    name: str
    kind: str
    text: str
    required: bool = False
    place: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One operation."""

    id: str
    method: str
    path: str
    summary: str
    text: str
    parameters: list[Field]
    body: list[Field]
    status: str
    answer: list[Field]
    answer_kind: str
    options: str  # of curl, in an example
    address: str  # a path in an example


@dataclass(frozen=True, slots=True)
class Chapter:
    """The operations of one tag."""

    name: str
    text: str
    entries: list[Entry] = field(default_factory=list)


def chapters_of(document: Mapping[str, Any]) -> list[Chapter]:
    """The document in reading order."""
    chapters = {one["name"]: Chapter(one["name"], one["description"]) for one in document["tags"]}
    base = document["servers"][0]["url"].rstrip("/")
    schemas = document["components"]["schemas"]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            entry = _entry(base + path, method.upper(), operation, schemas)
            chapters[operation["tags"][0]].entries.append(entry)
    return [one for one in chapters.values() if one.entries]


def _entry(
    path: str, method: str, operation: Mapping[str, Any], schemas: Mapping[str, Any]
) -> Entry:
    status = min(operation["responses"])
    (content,) = operation["responses"][status]["content"].values()
    answer = content["schema"]
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    fields = list(_fields(body.get("schema", {}), schemas))
    return Entry(
        id=operation["operationId"],
        method=method,
        path=path,
        summary=operation["summary"],
        text=operation.get("description", ""),
        parameters=[
            Field(
                one["name"],
                kind_of(one["schema"]),
                one.get("description", ""),
                required=one.get("required", False),
                place=one["in"],
            )
            for one in operation["parameters"]
        ],
        body=fields,
        status=status,
        answer=list(_fields(answer, schemas)),
        answer_kind=kind_of(answer),
        options=_options(method, has_body=bool(fields)),
        address=_address(path),
    )


def _fields(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Iterator[Field]:
    """The fields of an object, or of the objects in a list."""
    inner = schema.get("items", schema)
    resolved = schemas.get(inner.get("$ref", "").rpartition("/")[2], inner)
    required = set(resolved.get("required", ()))
    for name, one in resolved.get("properties", {}).items():
        text = one.get("description") or _said(one)
        yield Field(name, kind_of(one), text, required=name in required)


def _said(schema: Mapping[str, Any]) -> str:
    return next((one["description"] for one in schema.get("anyOf", ()) if "description" in one), "")


def kind_of(schema: Mapping[str, Any]) -> str:
    """A schema in a few words."""
    if "anyOf" in schema:
        return " or ".join(kind_of(one) for one in schema["anyOf"])
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2]).replace("_", " ").strip()
    if "enum" in schema:
        return " · ".join(str(one) for one in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {kind_of(schema.get('items', {}))}"
    if schema.get("format") == "date-time":
        return "time"
    if schema.get("type") == "object" and "additionalProperties" in schema:
        return "object"
    kind = schema.get("type", "any")
    if isinstance(kind, list):
        kind = " or ".join(kind)
    limits = [f"{schema[one]}" for one in ("minimum", "maximum") if schema.get(one, _HUGE) < _HUGE]
    return f"{kind} {' to '.join(limits)}" if len(limits) == 2 and kind == "integer" else str(kind)


def _options(method: str, *, has_body: bool) -> str:
    verb = "" if method == "GET" else f" -X {method}"
    data = """ -H 'Content-Type: application/json' -d '{"state": "dead"}'""" if has_body else ""
    return verb + data


def _address(path: str) -> str:
    for name, value in _EXAMPLES.items():
        path = path.replace(f"{{{name}}}", value)
    return path
