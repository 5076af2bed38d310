"""One question of the API: what is asked, what is answered, and how that is read and written."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar, get_args, get_type_hints

import msgspec
from aiohttp import web

from batchwatch.web.problem import Problem
from batchwatch.web.route import Role, Route

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

BASE: Final = "/api/v1"
PATIENCE: Final = 10.0  # seconds for a body to come
LARGEST_QUERY: Final = 4_096  # characters of a query string
_A_MOMENT: Final = "2026-11-24T08:00:00Z"
_IS_MOMENT: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]")
_ENCODER: Final = msgspec.json.Encoder()


PRINTABLE: Final = r"[^\x00-\x1f\x7f]"  # not all databases take a NUL
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=300, pattern=f"^{PRINTABLE}+$")]
Moment = Annotated[datetime, msgspec.Meta(tz=True)]
Limit = Annotated[int, msgspec.Meta(ge=1, le=200, description="The most items of a page.")]
# What stands in a path, where it is not just any text. So no name is taken for an id.
IN_PATH: Final = {"delivery_id": r"[0-9]{1,18}", "event_id": r"evt_[0-9a-f]{1,64}"}


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
    body: Any  # of a Struct; None: there is none
    answer: Any
    status: int
    finds: bool  # whether it may find nothing
    handler: Handler
    media: str = "application/json"

    def route(self) -> Route:
        """The same, to be served."""
        return Route(self.method, BASE + strict(self.path), self.take, self.role)

    async def take(self, request: web.Request) -> web.Response:
        """Read what is asked, have it answered, write the answer."""
        path = dict(request.match_info)
        if not all(re.fullmatch(f"{PRINTABLE}+", one) for one in path.values()):
            raise Problem(404, "there is nothing of such a name")
        query = read_query(request, self.query)
        body = await self._body(request) if self.body is not None else None
        answer = await self.handler(query, Asked(path, body))
        return written(request, answer, status=self.status)

    async def _body(self, request: web.Request) -> msgspec.Struct:
        if request.content_type != "application/json":
            raise Problem(415, "the body must be application/json")
        try:
            async with asyncio.timeout(PATIENCE):
                came = await request.read()
        except TimeoutError as error:
            raise Problem(408, f"the body did not come within {PATIENCE:.0f} s") from error
        try:
            body: msgspec.Struct = msgspec.convert(_whole(msgspec.json.decode(came)), self.body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Problem(400, f"the body cannot be read: {_at(error, 'field')}") from error
        except RecursionError:
            raise Problem(400, "the body cannot be read: it is nested too deeply") from None
        return body


def strict(path: str) -> str:
    """``path`` for the router, which then takes no name for an id."""
    return re.sub(r"{(\w+)}", lambda name: f"{{{name[1]}:{IN_PATH.get(name[1], '[^/]+')}}}", path)


def given(struct: msgspec.Struct) -> dict[str, Any]:
    """The fields of a query or body that were given, or have a default."""
    return {
        name: value
        for name, value in msgspec.structs.asdict(struct).items()
        if value is not msgspec.UNSET
    }


def read_query(request: web.Request, kind: type[S]) -> S:
    """The query of ``request``; raises Problem over what is none of ``kind``."""
    if len(request.query_string) > LARGEST_QUERY:
        raise Problem(414, f"a query has at most {LARGEST_QUERY} characters")
    query = request.query
    if repeated := [name for name in query if len(query.getall(name)) > 1]:
        raise Problem(400, f"{repeated[0]} is given more than once")
    return query_of(dict(query), kind)


def query_of(query: Mapping[str, str], kind: type[S]) -> S:
    """The same from names and texts."""
    for name in _moments(kind):
        if name in query and not _IS_MOMENT.match(query[name]):
            wanted = f"parameter {name}: Expected a time such as {_A_MOMENT}"
            raise Problem(400, f"the query cannot be read: {wanted}")
    try:
        return msgspec.convert(dict(query), kind, strict=False)
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
    body: Any = None,
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


def _whole(value: Any) -> Any:
    """``value`` with 3.0 as 3: to JSON that is the same number, and to its schemas an integer."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_whole(one) for one in value]
    if isinstance(value, dict):
        return {name: _whole(one) for name, one in value.items()}
    return value


def _moments(kind: type[msgspec.Struct]) -> list[str]:
    """The fields that are times; a number would be taken for one, too."""
    return [
        one.name
        for one in msgspec.structs.fields(kind)
        if any(getattr(part, "__origin__", None) is datetime for part in get_args(one.type))
    ]


def _at(error: Exception, what: str) -> str:
    """Msgspec's words, with its path in ours."""
    text, _, path = str(error).partition(" - at `$")
    named = path.strip("`.")
    return f"{what} {named}: {text}" if named else text
