"""The settings as documentation: tables for people, a schema for editors, a file to start from.

All of it is made from the models; ``docs/generate.py`` writes it where it is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchwatch.settings.model import INHERITED
from batchwatch.settings.names import key, variable, variables
from batchwatch.settings.parts import NAME as NAME_KIND
from batchwatch.settings.table import GROUPS, NAME, ONLY_VARIABLES, settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from batchwatch.settings.names import Path
    from batchwatch.settings.table import Setting

_TITLES = {
    "": "General",
    "watches": "Watches: what to look at",
    "endpoints": "Endpoints: whom to notify",
    "routes": "Routes: what goes where",
}

# Defaults that depend on something; the others are read from the models.
_DEPENDENT: dict[Path, str] = {
    ("data_dir",): "`~/.local/state/batchwatch`",
    ("database_url",): "`batchwatch.db` in `data_dir`",
    ("endpoints", NAME, "type"): "by the URL",
    ("endpoints", NAME, "concurrency"): "`16`, for Slack `1`",
    **{
        (group, NAME, own): f"as `{key((general,))}`"
        for group, inherited in INHERITED.items()
        for own, general in inherited.items()
    },
}

_NEEDED = (("llama_cloud_api_key",), ("webhook_url",), ("slack_webhook_url",))


def render_table() -> str:
    """Return the settings as Markdown: one table for each part."""
    lines = []
    for group, title in _TITLES.items():
        lines += [f"### {title}", ""]
        lines += ["| Variable | YAML key | Default | Meaning | Allowed |", "|---|---|---|---|---|"]
        lines += [_row(setting) for setting in _of_group(group)]
        lines += [""]
    return "\n".join(lines)


def render_env() -> str:
    """Return all variables as an environment file, each commented out beside its default."""
    lines = [
        "# Every variable that batchwatch reads, with its default where it has one. An empty one",
        "# counts as unset. Values are taken as they stand, so put no quotes around them. A secret",
        "# can also be read from a file: give the path as NAME_FILE.",
        "",
        "# ---- All that is needed: a key, and one of the two URLs",
    ]
    for path in _NEEDED:
        lines += ["", f"# {_meaning(settings()[path])}", f"{variable(path)}="]
    for group, title in _TITLES.items():
        lines += ["", f"# ---- {title}"]
        if group:
            lines += [f"# NAME is yours to choose; have as many {group} as you like."]
        for setting in _of_group(group):
            if setting.path not in _NEEDED:
                name = variable(setting.path).replace(NAME, "NAME")
                lines += ["", f"# {_meaning(setting)}", f"#{name}={_default(setting)}"]
    return "\n".join(lines) + "\n"


def json_schema() -> dict[str, object]:
    """Return the JSON Schema of the YAML file, in the draft that editors know."""
    groups = {
        group: {
            "type": "object",
            "propertyNames": NAME_KIND.schema(),
            "additionalProperties": _object(_of_group(group)),
        }
        for group in GROUPS
    }
    general = _object(setting for setting in _of_group("") if setting.path not in ONLY_VARIABLES)
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Settings of batchwatch",
        **general,
        "properties": {**general["properties"], **groups},
        "patternProperties": {"^x-": {"description": "Ignored: a place to put anchors on."}},
    }


def _object(members: Iterable[Setting]) -> dict[str, Any]:
    """Return the schema of a map; a secret may also be given as the file that holds it."""
    properties: dict[str, object] = {}
    required: list[object] = []
    for setting in members:
        name = setting.path[2] if len(setting.path) > 1 else setting.path[0]
        schema = {"description": _meaning(setting), **setting.kind.schema()}
        if setting.path[-1] == NAME:  # headers, which have names of their own
            properties[name] = {"type": "object", "additionalProperties": schema}
            continue
        if default := _default(setting):
            schema["default"] = _plain(default)
        properties[name] = schema
        if setting.kind.secret:
            file = f"{name}_file"
            properties[file] = {"type": "string", "description": f"The file that holds {name}."}
        if setting.field.is_required():
            ways = [name, f"{name}_file"] if setting.kind.secret else [name]
            required.append({"anyOf": [{"required": [way]} for way in ways]})
    schema = {"type": "object", "additionalProperties": False, "properties": properties}
    return {**schema, "allOf": required} if required else schema


def _of_group(group: str) -> Iterator[Setting]:
    for path, setting in settings().items():
        if (path[0] if len(path) > 1 else "") == group:
            yield setting


def _row(setting: Setting) -> str:
    names = ", ".join(f"`{name}`" for name in variables(setting.path))
    in_yaml = "" if setting.path in ONLY_VARIABLES else f"`{key(setting.path)}`"
    default = _default(setting) and f"`{_default(setting)}`"
    if setting.field.is_required():
        default = "required"
    default = _DEPENDENT.get(setting.path, default)
    allowed = f"{'secret: ' if setting.kind.secret else ''}{setting.kind.allowed}"
    cells = (names, in_yaml, default, _meaning(setting), allowed)
    return f"| {' | '.join(cells)} |".replace(NAME, "NAME")


def _meaning(setting: Setting) -> str:
    models = GROUPS.get(setting.path[0], ())
    everywhere = all(setting.path[2] in model.model_fields for model in models)
    return f"{setting.field.description}{'' if everywhere else ' For webhooks only.'}"


def _default(setting: Setting) -> str:
    """Return the default as a user would write it, empty if there is none or it depends."""
    if setting.path in _DEPENDENT or setting.field.is_required():
        return ""
    value = setting.field.get_default()
    return setting.kind.show(value) if value or value is False else ""


def _plain(default: str) -> object:
    """Return a default as JSON has it."""
    plain = {"true": True, "false": False}
    return plain.get(default, int(default) if default.isdigit() else default)
