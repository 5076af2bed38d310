"""What batchwatch is told: read once at start, checked as a whole, handed on frozen.

Sources are read (`sources`), looked up in the table of all settings
(`table`), merged and validated (`model`, whose values are of the `kinds`),
and checked against each other (`rules`). Whatever is wrong comes out as one
`SettingsError` that a person can act on (`problems`).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from batchwatch.settings.durations import format_duration, parse_duration
from batchwatch.settings.events import EVENT_TYPES
from batchwatch.settings.model import Settings
from batchwatch.settings.names import Origin
from batchwatch.settings.parts import (
    EndpointSettings,
    RouteSettings,
    SlackSettings,
    WatchSettings,
    WebhookSettings,
)
from batchwatch.settings.problems import Problem, SettingsError
from batchwatch.settings.rules import unready
from batchwatch.settings.sources import Reading
from batchwatch.settings.urls import Address, DatabaseUrl, SecretUrl

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "EVENT_TYPES",
    "Address",
    "DatabaseUrl",
    "EndpointSettings",
    "Origin",
    "Problem",
    "RouteSettings",
    "SecretUrl",
    "Settings",
    "SettingsError",
    "SlackSettings",
    "WatchSettings",
    "WebhookSettings",
    "format_duration",
    "load",
    "parse_duration",
]


def load(
    config: str | os.PathLike[str] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    for_run: bool = True,
    **arguments: object,
) -> Settings:
    """Return the settings from ``arguments``, the environment, the secrets folder and the file.

    ``for_run`` asks for what the daemon cannot do without: a key for each
    watch and one endpoint. Commands that only look at the store or at the
    settings go without; a watch may then have an empty key.

    Raises `SettingsError` with everything that is wrong.
    """
    environ = os.environ if environ is None else environ
    reading = Reading()
    reading.read_all(environ, {**arguments, "config": config})
    problems = list(reading.problems)
    if not reading.is_whole:
        raise SettingsError(problems)  # what seems to be missing may stand in what is unreadable
    if for_run:
        problems += reading.named(unready(reading.tried))
    try:
        settings = Settings.from_layers(reading.layers, reading.origins)
    except SettingsError as error:
        problems += reading.named(error.problems)
    if problems:
        raise SettingsError(problems)
    return settings
