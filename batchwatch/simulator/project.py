"""The project that everything belongs to, and what its rows have in common."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from random import Random
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import UUID

import msgspec

if TYPE_CHECKING:
    from batchwatch.simulator.timeline import Micros, Timeline

Origin: TypeAlias = tuple[str, int]  # who made it, and which of theirs it is: ("posted", 3)


def stream(seed: int, *name: object) -> Random:
    """A random stream that depends on the seed and its own name, and on no other stream."""
    return Random(_path(seed, name))  # repeatable, not secret


def identifier(seed: int, prefix: str, *name: object) -> str:
    """An id in the API's form, such as ``bat-3f0c…``: a prefix and a UUID."""
    digest = blake2b(_path(seed, name).encode(), digest_size=16).digest()
    return f"{prefix}-{UUID(bytes=digest, version=4)}"


def _path(seed: int, name: tuple[object, ...]) -> str:
    return "/".join(map(str, (seed, *name)))


@dataclass(frozen=True, slots=True)
class Project:
    """The project of the one key. Every id in it derives from the seed."""

    seed: int
    timeline: Timeline
    id: str = field(init=False)
    organization_id: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", self.name("prj", "project"))
        object.__setattr__(self, "organization_id", self.name("org", "organization"))

    def stream(self, *name: object) -> Random:
        """A random stream of this name."""
        return stream(self.seed, *name)

    def name(self, prefix: str, *name: object) -> str:
        """The id of what goes by this name."""
        return identifier(self.seed, prefix, *name)


class Row:
    """What a list of the API shows: it has an id and a moment of creation.

    Rows are kept by ``key``, oldest first; the id in it puts those of one microsecond in order.
    """

    __slots__ = ("created", "id", "key")

    def __init__(self, row_id: str, created: Micros) -> None:
        self.id = row_id
        self.created = created
        self.key = (created, row_id)

    def picture(self, at: Micros) -> dict[str, Any]:
        """The row as the API's JSON shows it at a moment."""
        raise NotImplementedError

    def encoded(self, at: Micros) -> bytes:
        """The picture as JSON."""
        return msgspec.json.encode(self.picture(at))
