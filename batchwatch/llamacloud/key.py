"""The API key, kept out of everything that people and machines read."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

_MASK: Final = "***"
_TELLING: Final = 4  # characters; "llx-" starts every key


class _Header(str):
    """The header's value. Its repr hides it, also where aiohttp puts it into a repr of its own."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"'Bearer {_MASK}'"


class ApiKey:
    """A key and the variable it came from, which is what errors name."""

    __slots__ = ("_header", "_written", "source")

    def __init__(self, value: str, *, source: str) -> None:
        self.source = source
        self._header = _Header(f"Bearer {value.strip()}")
        self._written = (value.strip(), quote(value.strip(), safe=""))
        sound = value.strip().isascii() and value.strip().isprintable() and bool(value.strip())
        del value  # a traceback may show locals
        if not sound:
            raise ValueError(f"{source} holds no API key: printable ASCII is expected, llx-…")

    def __repr__(self) -> str:
        return f"ApiKey({_MASK!r}, source={self.source!r})"

    def __reduce__(self) -> str:
        raise TypeError("an API key is not to be written anywhere")

    def header(self) -> str:
        """The value of the ``Authorization`` header."""
        return self._header

    def redact(self, text: str) -> str:
        """``text`` without the key, should upstream repeat it; nor its start, where it was cut."""
        for written in self._written:
            text = text.replace(written, _MASK)
            for length in range(len(written) - 1, _TELLING, -1):
                if text.endswith(written[:length]):
                    text = text[:-length] + _MASK
        return text
