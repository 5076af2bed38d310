"""What is wrong with the settings, told so that the person who set them can mend it.

::

    ValueError
    └── Invalid         one text is not what its setting allows; raised by kinds, never leaves here
    Exception
    └── SettingsError   all that is wrong, as a tuple of `Problem`; what callers see
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic import Secret, SecretStr

from batchwatch.settings.names import variable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pydantic import ValidationError

_LONGEST = 250  # characters of a wrong value that is shown; enough for any sensible path

# What looks like a secret is hidden wherever it stands, for people do paste things into the wrong
# place: keys, and all of a URL but its scheme and host. A login ends at the last @ there is, since
# a password may hold one itself.
_KEY = re.compile(r"(llx-|whsec_|whsk_|xox[a-z]-|bearer\s+)[^\s'\"]+", re.IGNORECASE)
_LOGIN = re.compile(r"(//|^)\S*@")
_PATH = re.compile(r"(\w://[^/\s]+/)\S+")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: where it was set, what was found, what is allowed, what to do.

    ``path`` says which setting it is about, whatever spelling set it: empty
    for what is no setting, such as a file that cannot be read.
    """

    name: str
    given: str
    expected: str
    fix: str
    path: tuple[str, ...] = field(default=(), compare=False, repr=False)

    def __str__(self) -> str:
        lines = (("given", self.given), ("allowed", self.expected), ("to do", self.fix))
        return "\n".join((self.name, *(f"  {label:<9}{text}" for label, text in lines if text)))


class SettingsError(Exception):
    """The settings cannot be used; ``problems`` holds everything that is wrong with them.

    ``str()`` is meant for a person at a terminal. No secret is in it, nor in
    any attribute.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        # The same fact may be found twice, by way of what inherits a value.
        self.problems: tuple[Problem, ...] = tuple(dict.fromkeys(problems))
        super().__init__(self.problems)

    def __str__(self) -> str:
        count = len(self.problems)
        title = f"{count} {'problem' if count == 1 else 'problems'} with the settings:"
        return "\n\n".join((title, *map(str, self.problems)))


class Invalid(ValueError):
    """A text is not what its kind allows.

    ``reason`` goes on where "given" ends: ``'99', which is more than 50``.
    ``fix`` and ``given`` replace what the kind would say by itself.
    """

    def __init__(self, reason: str = "", *, fix: str = "", given: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.fix = fix
        self.given = given
        self.expected = ""  # filled in by the kind, which knows


def problems_in(error: ValidationError) -> Iterator[Problem]:
    """Yield what pydantic found, in our words: a user need not know that it exists."""
    for found in error.errors(include_url=False):
        # An endpoint's place is told with its type in the third position.
        place = [str(step) for step in found["loc"] if step != "[key]"]
        if place[0] == "endpoints":
            del place[2:3]
        path = tuple(place)
        reason = found.get("ctx", {}).get("error")
        match found["type"]:
            case _ if isinstance(reason, Invalid):
                yield Problem(variable(path), reason.given, reason.expected, reason.fix, path)
            case "missing":
                yield Problem(variable(path), "nothing", "a value", "Set it.", path)
            case "extra_forbidden":
                kind = "type of endpoint" if path[0] == "endpoints" else "part of the settings"
                given = f"a setting that this {kind} does not have"
                yield Problem(variable(path), given, "", "Remove it.", path)
            case "default_factory_not_called":
                pass  # it waits for a value that is wrong, which is told already
            case _:
                given = shown(found["input"])
                yield Problem(variable(path), given, "a map", "Name its settings below it.", path)


def shown(value: object) -> str:
    """Return how ``value`` may be shown to anybody, quoted and in one short line."""
    if isinstance(value, Secret | SecretStr):
        return f"hidden ({len(value.get_secret_value())} characters)"
    if isinstance(value, Mapping):
        return "a map"
    if isinstance(value, list | tuple):
        return "a list"
    text = str(value)
    # Not cut to fit: the @ that tells where a password ends may stand behind the cut.
    return repr(without_secrets(text)) if len(text) <= _LONGEST else f"{len(text)} characters"


def without_secrets(text: str) -> str:
    """Return ``text`` without the parts that may be secret."""
    return _PATH.sub(r"\1…", _KEY.sub(r"\1…", without_login(text)))


def looks_secret(text: str) -> bool:
    """Whether ``text`` is a key, so that it cannot be meant for anything that is shown."""
    return _KEY.match(text) is not None


def without_login(url: str) -> str:
    """Return ``url`` without user and password."""
    return _LOGIN.sub(r"\1…@", url)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the one of ``known`` that ``word`` was most likely meant to be, or None."""
    from difflib import get_close_matches  # noqa: PLC0415 - only a mistake needs it

    return next(iter(get_close_matches(word, list(known), n=1, cutoff=0.6)), None)
