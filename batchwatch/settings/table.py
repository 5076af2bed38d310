"""The table of all settings, made from the models: sources look names up in it, docs print it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from batchwatch.settings.kinds import Kind
from batchwatch.settings.model import Settings
from batchwatch.settings.names import PREFIX, variables
from batchwatch.settings.parts import (
    RouteSettings,
    SlackSettings,
    WatchSettings,
    WebhookSettings,
)
from batchwatch.settings.problems import nearest
from batchwatch.settings.secrets import HeaderValue

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

    from batchwatch.settings.names import Path

# Stands in a path for the name that the user chose for a watch, an endpoint, a route or a header.
NAME = "<NAME>"

GROUPS: Mapping[str, tuple[type[BaseModel], ...]] = {
    "watches": (WatchSettings,),
    "endpoints": (WebhookSettings, SlackSettings),
    "routes": (RouteSettings,),
}

# They say where the other sources are, so they cannot come from one of those.
ONLY_VARIABLES = frozenset({("config",), ("secrets_dir",)})


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its path, how pydantic knows it, and what kind of value it takes."""

    path: Path
    field: FieldInfo
    kind: Kind[Any]


@cache
def settings() -> Mapping[Path, Setting]:
    """Return every setting by its path, in the order of the models."""
    found: dict[Path, Setting] = {}
    for name, field in Settings.model_fields.items():
        for model in GROUPS.get(name, ()):
            for part, inner in model.model_fields.items():
                setting = _setting((name, NAME, part), inner)
                found.setdefault(setting.path, setting)
        if name not in GROUPS:
            found[name,] = _setting((name,), field)
    return found


def _setting(path: Path, field: FieldInfo) -> Setting:
    if path[-1] == "headers":
        return Setting((*path, NAME), field, HeaderValue())
    return Setting(path, field, next(kind for kind in field.metadata if isinstance(kind, Kind)))


def setting_at(path: Path) -> Setting | None:
    """Return the setting that ``path`` leads to, or None if there is none."""
    return settings().get(_pattern(path))


def is_map(path: Path) -> bool:
    """Whether ``path`` leads to a map of further settings."""
    match path:
        case ():
            return True
        case (group,) | (group, _):
            return group in GROUPS
        case (_, _, part):
            return part == "headers"
        case _:
            return False


def nearest_variable(name: str) -> str | None:
    """Return the variable that ``name`` was most likely meant to be."""
    part = [*name.split("__"), "NAME"][1]
    # Compared without the prefix that most of them share, which would make all of them alike.
    known = {
        found.removeprefix(PREFIX): found
        for path in settings()
        for variable in variables(path)
        for found in [variable.replace(NAME, part, 1).replace(NAME, "NAME")]
    }
    near = nearest(name.removeprefix(PREFIX), known)
    return known[near] if near else None


def nearest_path(path: Path) -> Path | None:
    """Return the path that ``path`` was most likely meant to be, with a slip in its last step."""
    above, here = _pattern(path)[:-1], len(path) - 1
    known = {p[here]: None for p in settings() if len(p) > here and p[:here] == above}
    near = nearest(path[-1], known)
    return (*path[:-1], near) if near else None


def _pattern(path: Path) -> Path:
    match path:
        case (group, _, "headers", _):
            return (group, NAME, "headers", NAME)
        case (group, _, *parts):
            return (group, NAME, *parts)
        case _:
            return path
