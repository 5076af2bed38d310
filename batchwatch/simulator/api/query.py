"""Read the query of a request as strictly as the API does."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from batchwatch.simulator.api.refusal import Problems

if TYPE_CHECKING:
    from collections.abc import Collection

    from aiohttp import web


class Query:
    """The query of one request. Read all of it, then call :meth:`refuse_if_wrong`.

    Parameters that nobody reads are ignored, as FastAPI does.
    """

    def __init__(self, request: web.Request) -> None:
        self._given = request.query
        self._problems = Problems()

    def text(self, name: str) -> str | None:
        """A parameter as it came."""
        return self._given.get(name)

    def texts(self, name: str) -> list[str]:
        """All values of a parameter that may be repeated."""
        return self._given.getall(name, [])

    def number(self, name: str, default: int, *, least: int, most: int) -> int:
        """A whole number between two others."""
        given = self._given.get(name)
        if given is None:
            return default
        try:
            number = int(given)
        except ValueError:
            self.wrong(name, "int_parsing", "Input should be a valid integer", given)
            return default
        if number < least:
            message = f"Input should be greater than or equal to {least}"
            self.wrong(name, "greater_than_equal", message, given)
        if number > most:
            message = f"Input should be less than or equal to {most}"
            self.wrong(name, "less_than_equal", message, given)
        return number

    def time(self, name: str) -> datetime | None:
        """A date and time, in UTC if it does not say.

        A "+" that was not encoded arrives as a blank and is refused, as it is upstream.
        """
        given = self._given.get(name)
        if given is None:
            return None
        try:
            time = datetime.fromisoformat(given)
        except ValueError:
            message = "Input should be a valid datetime, invalid character in input"
            self.wrong(name, "datetime_parsing", message, given)
            return None
        return time if time.tzinfo else time.replace(tzinfo=UTC)

    def choice(self, name: str, allowed: Collection[str]) -> str | None:
        """One of a few words."""
        given = self._given.get(name)
        if given is not None and given not in allowed:
            self.wrong(name, "enum", f"Input should be {_either(allowed)}", given)
        return given

    def choices(self, name: str, allowed: Collection[str]) -> list[str]:
        """Any number of a few words."""
        given = self.texts(name)
        for one in given:
            if one not in allowed:
                self.wrong(name, "enum", f"Input should be {_either(allowed)}", one)
        return given

    def wrong(self, name: str, kind: str, message: str, given: str) -> None:
        """Note that a parameter is wrong."""
        self._problems.add(kind, ("query", name), message, given)

    def refuse_if_wrong(self) -> None:
        """Raise 422 that names all that is wrong."""
        self._problems.refuse()


def _either(allowed: Collection[str]) -> str:
    *first, last = (f"'{word}'" for word in sorted(allowed))
    return f"{', '.join(first)} or {last}" if first else last
