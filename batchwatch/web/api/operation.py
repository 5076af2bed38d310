"""One question of the API: what is asked, what is answered, and how that is read and written."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar, get_type_hints

import msgspec
from aiohttp import web

from batchwatch.web.problem import Problem
from batchwatch.web.route import Role, Route

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

BASE: Final = "/api/v1"
LARGEST_QUERY: Final = 4_096  # characters of a query string
_ENCODER: Final = msgspec.json.Encoder()


class Nothing(msgspec.Struct, forbid_unknown_fields=True):
    """A query or a body that holds nothing."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a handler is given besides its query."""

    path: dict[str, str]
    body: Any = None


S = TypeVar("S", bound=msgspec.Struct)
Handler = Callable[..., Awaitable[Any]]
H = TypeVar("H", bound=Handler)


@dataclass(frozen=True, slots=True)
class Operation:
    """A method of a path, with the types of what goes in and comes out."""

    method: str
    path: str  # below BASE
    name: str
    tag: str
    summary: str
    text: str
    role: Role
    query: type[msgspec.Struct]
    body: type[msgspec.Struct] | None
    answer: Any
    status: int
    finds: bool  # whether it may find nothing
    handler: Handler

    def route(self) -> Route:
        """The same, to be served."""
        return Route(self.method, BASE + self.path, self.take, self.role)

    async def take(self, request: web.Request) -> web.Response:
        """Read what is asked, have it answered, write the answer."""
        query = read_query(request, self.query)
        body = await self._body(request) if self.body is not None else None
        answer = await self.handler(query, Asked(dict(request.match_info), body))
        return written(request, answer, status=self.status)

    async def _body(self, request: web.Request) -> msgspec.Struct:
        assert self.body is not None  # noqa: S101  # asked before
        if request.content_type != "application/json":
            raise Problem(415, "the body must be application/json")
        try:
            return msgspec.json.decode(await request.read(), type=self.body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Problem(400, f"the body cannot be read: {_at(error, 'field')}") from error


def read_query(request: web.Request, kind: type[S]) -> S:
    """The query of ``request``; raises Problem over what is none of ``kind``."""
    if len(request.query_string) > LARGEST_QUERY:
        raise Problem(414, f"a query has at most {LARGEST_QUERY} characters")
    given = request.query
    if repeated := [name for name in given if len(given.getall(name)) > 1]:
        raise Problem(400, f"{repeated[0]} is given more than once")
    return query_of(dict(given), kind)


def query_of(given: Mapping[str, str], kind: type[S]) -> S:
    """The same from names and texts."""
    if any("\0" in text for text in given.values()):
        raise Problem(400, "a query holds no NUL characters")
    try:
        return msgspec.convert(dict(given), kind, strict=False)
    except msgspec.ValidationError as error:
        raise Problem(400, f"the query cannot be read: {_at(error, 'parameter')}") from error


def written(request: web.Request, answer: Any, *, status: int = 200) -> web.Response:
    """``answer`` as JSON; of what has not changed since the asker's ETag, only that."""
    body = _ENCODER.encode(answer)
    response = web.Response(body=body, status=status, content_type="application/json")
    response.headers["Cache-Control"] = "no-store" if status != 200 else "private, no-cache"
    if request.method in {"GET", "HEAD"}:
        tag = hashlib.blake2b(body, digest_size=12).hexdigest()
        response.etag = tag
        if any(one.value in {"*", tag} for one in request.if_none_match or ()):
            return web.Response(status=304, headers={"ETag": f'"{tag}"'})
    return response


def operation(  # noqa: PLR0913  # what one says of an operation
    method: str,
    path: str,
    *,
    tag: str,
    role: Role = Role.READ,
    body: type[msgspec.Struct] | None = None,
    status: int = 200,
    finds: bool = False,
) -> Callable[[H], H]:
    """Mark a method of a class as an operation.

    Its first argument is the query, a Struct, and what it returns is the
    answer; its docstring says what it does, the first line in short.
    """

    def mark(handler: H) -> H:
        handler.operation = (method, path, tag, role, body, status, finds)  # type: ignore[attr-defined]  # read back below
        return handler

    return mark


def operations_of(api: object) -> Iterator[Operation]:
    """The operations among the methods of ``api``, in the order they are written in."""
    for name, function in vars(type(api)).items():
        marked = getattr(function, "operation", None)
        if marked is None:
            continue
        method, path, tag, role, body, status, finds = marked
        hints = get_type_hints(function, include_extras=True)
        summary, _, text = (function.__doc__ or "").partition("\n")
        yield Operation(
            method=method,
            path=path,
            name=name,
            tag=tag,
            summary=summary.strip(),
            text=" ".join(text.split()),
            role=role,
            query=hints["query"],
            body=body,
            answer=hints["return"],
            status=status,
            finds=finds,
            handler=getattr(api, name),
        )


def _at(error: Exception, what: str) -> str:
    """Msgspec's words, with its path in ours."""
    text, _, path = str(error).partition(" - at `$")
    named = path.strip("`.")
    return f"{what} {named}: {text}" if named else text
