"""How a setting is called: its path, as a variable, as a key of the YAML file, and by its user."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

Path = tuple[str, ...]

PREFIX = "BATCHWATCH_"

# What LlamaCloud's own SDK reads keeps its name; of several, the first one that is set counts.
_VARIABLES: Mapping[Path, tuple[str, ...]] = {
    ("llama_cloud_api_key",): ("LLAMA_CLOUD_API_KEY", "LLAMA_PARSE_API_KEY"),
    ("llama_cloud_base_url",): ("LLAMA_CLOUD_BASE_URL",),
}
_PATHS = {name: path for path, names in _VARIABLES.items() for name in names}


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from: its name as the user wrote it, and the place if it is another."""

    name: str
    place: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.place})" if self.place else self.name


def variables(path: Path) -> tuple[str, ...]:
    """Return the variables that can set ``path``, the first of them counting most."""
    return _VARIABLES.get(path) or (f"{PREFIX}{'__'.join(path)}".upper(),)


def variable(path: Path) -> str:
    """Return the variable that sets ``path``."""
    return variables(path)[0]


def key(path: Path) -> str:
    """Return the key of ``path`` in the YAML file, its maps joined with dots."""
    return ".".join(path)


def path_of(variable: str) -> Path | None:
    """Return the path that ``variable`` names, or None if it is none of ours.

    The path need not be that of a setting. Names of watches, endpoints and
    routes arrive in upper case and are meant in lower case.
    """
    if variable in _PATHS:
        return _PATHS[variable]
    if not variable.startswith(PREFIX):
        return None
    path = tuple(variable.removeprefix(PREFIX).lower().split("__"))
    match path:
        case ("llama_cloud_api_key" | "llama_cloud_base_url",):
            return (variable.lower(),)  # they have no second name, and are found by the first
        case (_, _, "headers", header):
            return (*path[:3], header.replace("_", "-"))  # a variable's name has no hyphens
        case _:
            return path
