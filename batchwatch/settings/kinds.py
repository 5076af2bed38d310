"""The kinds of values: how each is read from text, what it allows, and how it is shown again.

The environment knows only text, and the YAML file is read as text too, so
that a value means the same in both: ``secret: 0123`` keeps its zero.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar, get_args

from pydantic import Secret, SecretStr
from pydantic_core import core_schema

from batchwatch.settings.durations import EXAMPLES, format_duration, parse_duration
from batchwatch.settings.problems import Invalid, looks_secret, nearest, shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import GetCoreSchemaHandler

T = TypeVar("T")


class Kind(ABC, Generic[T]):
    """One kind of value, named in a field's annotation: ``Annotated[int, Whole(1, 256)]``.

    ``allowed`` says what may be given and ``fix`` what to do when something
    else was; a subclass reads a text or raises `Invalid`. The rest follows
    from that: validation, errors, documentation, schema.
    """

    secret: ClassVar[bool] = False

    def __init__(self, allowed: str, fix: str) -> None:
        self.allowed = allowed
        self.fix = fix

    @abstractmethod
    def read(self, text: str) -> T:
        """Return the value that ``text`` stands for; raise `Invalid` if it stands for none."""

    def show(self, value: T) -> str:
        """Return ``value`` as a user would write it, or that it is hidden."""
        return "hidden" if isinstance(value, SecretStr) else str(value)

    def show_wrong(self, text: str) -> str:
        """Return how a refused text may be shown: it may hold a secret all the same."""
        return shown(SecretStr(text) if self.secret else text)

    def schema(self) -> dict[str, object]:
        """Return the JSON Schema of what may stand in the YAML file."""
        return {"type": "string"}

    def parse(self, given: object) -> T:
        """Read what a source holds; an `Invalid` that leaves here is complete and safe to show."""
        try:
            text = text_of(given)
        except Invalid as invalid:
            invalid.expected = self.allowed
            raise
        try:
            return self.read(text if self.secret else text.strip())
        except Invalid as invalid:
            if not invalid.given:
                invalid.given = self.show_wrong(text)
            if invalid.reason:
                invalid.given += f", {invalid.reason}"
            invalid.fix = invalid.fix or self.fix
            invalid.expected = self.allowed
            raise

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        """Have pydantic validate the annotated field by `parse` alone."""
        plain = core_schema.no_info_plain_validator_function(self.parse)
        return core_schema.nullable_schema(plain) if NoneType in get_args(source) else plain


class Duration(Kind[float]):
    """A span of time between two bounds, kept as seconds."""

    def __init__(self, minimum: str, maximum: str) -> None:
        super().__init__(
            allowed=f"a duration from {minimum} to {maximum}",
            fix=f"Write it like {EXAMPLES}.",
        )
        self.minimum = parse_duration(minimum)
        self.maximum = parse_duration(maximum)
        self._unit = minimum.lstrip("0123456789.")

    def read(self, text: str) -> float:
        """Return seconds."""
        try:
            seconds = parse_duration(text)
        except ValueError:
            raise Invalid from None
        try:
            return _within(seconds, self.minimum, self.maximum, format_duration)
        except Invalid as invalid:
            invalid.fix = self._guess(text, seconds)
            raise

    def _guess(self, text: str, seconds: float) -> str:
        """Ask whether a plain number meant the unit of the least that is allowed."""
        if seconds >= self.minimum or not text.isdecimal():
            return ""
        meant = f"{text}{self._unit}"
        if not self.minimum <= parse_duration(meant) <= self.maximum:
            return ""
        return f"Did you mean {meant}? A plain number is seconds."

    def show(self, value: float) -> str:
        """Return it with its units."""
        return format_duration(value)

    def schema(self) -> dict[str, object]:
        """Allow a number of seconds as well."""
        number = {"type": "number", "minimum": self.minimum, "maximum": self.maximum}
        return {"anyOf": [{"type": "string", "pattern": "[0-9]"}, number]}


class Whole(Kind[int]):
    """A whole number between two bounds."""

    def __init__(self, minimum: int, maximum: int) -> None:
        super().__init__(
            allowed=f"a whole number from {minimum} to {maximum}",
            fix="Write a number within these bounds, in digits.",
        )
        self.minimum = minimum
        self.maximum = maximum

    def read(self, text: str) -> int:
        """Return the number; ``int`` alone would take ``1_000``, too, and a million digits."""
        if not (text.isascii() and text.isdigit() and len(text) < len(str(2**63))):
            raise Invalid
        return _within(int(text), self.minimum, self.maximum, str)

    def schema(self) -> dict[str, object]:
        """Give the bounds."""
        return {"type": "integer", "minimum": self.minimum, "maximum": self.maximum}


class Rate(Kind[float]):
    """So many in a second, a minute or an hour; read as so many in a second."""

    _SECONDS: ClassVar = {"s": 1.0, "m": 60.0, "h": 3600.0}
    _PATTERN = r"([0-9]{1,6})/(s|m|h)"

    def __init__(self) -> None:
        super().__init__(
            allowed="a number from 1 to 999999 per s, m or h, such as 10/s or 100/m",
            fix="Write how many, a slash, and the unit of time.",
        )

    def read(self, text: str) -> float:
        """Return how many in a second."""
        match = re.fullmatch(self._PATTERN, text)
        if match is None or not int(match[1]):
            raise Invalid
        return int(match[1]) / self._SECONDS[match[2]]

    def show(self, value: float) -> str:
        """Return it in the smallest unit that needs no fraction."""
        for unit, seconds in self._SECONDS.items():
            count = value * seconds
            if round(count) >= 1 and abs(count - round(count)) < 1e-6 * count:
                return f"{round(count)}/{unit}"
        return f"{round(value * 3600)}/h"

    def schema(self) -> dict[str, object]:
        """Give the form."""
        return {"type": "string", "pattern": f"^{self._PATTERN}$"}


class Flag(Kind[bool]):
    """Yes or no, as YAML and people write it."""

    _MEANINGS: ClassVar = {
        **dict.fromkeys(("true", "yes", "on", "1"), True),
        **dict.fromkeys(("false", "no", "off", "0"), False),
    }

    def __init__(self) -> None:
        super().__init__(
            allowed="true or false (also yes and no, on and off, 1 and 0)",
            fix="Write true or false.",
        )

    def read(self, text: str) -> bool:
        """Return what the word means."""
        try:
            return self._MEANINGS[text.lower()]
        except KeyError:
            raise Invalid from None

    def show(self, value: bool) -> str:  # noqa: FBT001 - the value itself
        """Return ``true`` or ``false``."""
        return str(value).lower()

    def schema(self) -> dict[str, object]:
        """Allow YAML's own booleans."""
        return {"type": "boolean"}


class Choice(Kind[str]):
    """One of a few words, in any case."""

    def __init__(self, *words: str) -> None:
        super().__init__(
            allowed=f"{', '.join(words[:-1])} or {words[-1]}",
            fix="Use one of these words.",
        )
        self.words = words

    def read(self, text: str) -> str:
        """Return the word in lower case."""
        word = text.lower()
        if word not in self.words:
            near = nearest(word, self.words)
            raise Invalid(fix=f"Did you mean {near}?" if near else "")
        return word

    def schema(self) -> dict[str, object]:
        """List the words."""
        return {"enum": list(self.words)}


class Word(Kind[str]):
    """A text of a known form, such as a name or an id."""

    def __init__(self, form: str, *, allowed: str, fix: str) -> None:
        super().__init__(allowed, fix)
        self.form = re.compile(form)

    def read(self, text: str) -> str:
        """Return ``text`` as it is."""
        if not self.form.fullmatch(text) or looks_secret(text):
            raise Invalid
        return text

    def schema(self) -> dict[str, object]:
        """Give the form."""
        return {"type": "string", "pattern": f"^(?:{self.form.pattern})$"}


class Location(Kind[Path]):
    """A file or a folder: ``~`` is the home folder, a relative one is seen from where we run."""

    def __init__(self) -> None:
        super().__init__(allowed="a path", fix="Give the path of a file or a folder.")

    def read(self, text: str) -> Path:
        """Return the path, with ``~`` resolved."""
        if "://" in text or not text.isprintable():
            raise Invalid("which is no path")
        try:
            return Path(text).expanduser()
        except RuntimeError:
            raise Invalid("whose home folder is not known", fix="Write it without ~.") from None


class ListOf(Kind[tuple[T, ...]], Generic[T]):
    """Several values of one kind: a list in YAML, or one text with commas anywhere."""

    def __init__(self, item: Kind[T], *, least: int = 1, most: int = 1_000) -> None:
        super().__init__(
            allowed=f"a list of {least} to {most} entries, each {item.allowed}",
            fix="Give at least one entry, and put commas between several.",
        )
        self.item = item
        self.least = least
        self.most = most

    def read(self, text: str) -> tuple[T, ...]:
        """Return the entries between the commas."""
        return self.parse(split_list(text))

    def parse(self, given: object) -> tuple[T, ...]:
        """Read each entry; the first wrong one is named by its number."""
        if not isinstance(given, list | tuple):
            return super().parse(given)
        values = tuple(self._entry(number, entry) for number, entry in enumerate(given, 1))
        if not self.least <= len(values) <= self.most:
            raise self._refusal(f"a list of {len(values)} entries", self.fix)
        return values

    def _entry(self, number: int, given: object) -> T:
        try:
            return self.item.parse(given)
        except Invalid as invalid:
            raise self._refusal(f"{invalid.given} as entry {number}", invalid.fix) from None

    def _refusal(self, given: str, fix: str) -> Invalid:
        invalid = Invalid(given=given, fix=fix)
        invalid.expected = self.allowed
        return invalid

    def show(self, value: tuple[T, ...]) -> str:
        """Return it in one line."""
        return ", ".join(map(self.item.show, value))

    def schema(self) -> dict[str, object]:
        """Allow both forms."""
        many = {
            "type": "array",
            "items": self.item.schema(),
            "minItems": self.least,
            "maxItems": self.most,
        }
        return {"anyOf": [many, {"type": "string"}]}


def text_of(given: object) -> str:
    """Return the text behind ``given``, a secret's too; raise `Invalid` for a list or a map."""
    if isinstance(given, SecretStr | Secret):
        return str(given.get_secret_value())
    if isinstance(given, Mapping | list | tuple | set | frozenset):
        raise Invalid(given=shown(given), fix="Give one value.")
    return str(given)


def split_list(text: str) -> list[str]:
    """Return the entries of a list that was written in one line."""
    return [entry for part in text.split(",") if (entry := part.strip())]


N = TypeVar("N", int, float)


def _within(value: N, minimum: N, maximum: N, show: Callable[[N], str]) -> N:
    if value < minimum:
        raise Invalid(f"which is less than {show(minimum)}")
    if value > maximum:
        raise Invalid(f"which is more than {show(maximum)}")
    return value
