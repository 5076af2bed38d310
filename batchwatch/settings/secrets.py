"""The kinds of secrets that end up in a header; `signing` has those that sign.

All of them are hidden from the moment a source has read them. What cannot
stand in a header is refused here, where the setting can still be named:
a line break in a key would otherwise smuggle in a header of its own.
"""

from __future__ import annotations

import re

from pydantic import SecretStr

from batchwatch.settings.kinds import Kind, ListOf, Word
from batchwatch.settings.problems import Invalid

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Key(Kind[SecretStr]):
    """A key or token that is sent as ``Authorization: Bearer …``."""

    secret = True

    def __init__(self, *, fix: str, minimum: int = 1) -> None:
        length = f" of at least {minimum} characters" if minimum > 1 else ""
        super().__init__(allowed=f"text{length} without white space", fix=fix)
        self.minimum = minimum

    def read(self, text: str) -> SecretStr:
        """Return it hidden."""
        _check_header(text)
        if any(map(str.isspace, text)):
            raise Invalid("with white space in it")
        if not text.isascii():
            raise Invalid("with characters in it that no key has")
        if len(text) < self.minimum:
            raise Invalid("which is too short")
        return SecretStr(text)


class Keys(ListOf[SecretStr]):
    """Several of them, of which any is good, so that one can be changed without a gap."""

    secret = True


class HeaderValue(Kind[SecretStr]):
    """The value of an extra header; any may be a secret, so all are hidden."""

    secret = True

    def __init__(self) -> None:
        super().__init__(
            allowed="text without line breaks and other control characters, in latin-1",
            fix="Remove these characters, or encode the value as the receiver expects it.",
        )

    def read(self, text: str) -> SecretStr:
        """Return it hidden."""
        _check_header(text)
        return SecretStr(text)


class HeaderName(Word):
    """The name of an extra header, in lower case: names that differ only in case are the same."""

    # What we say ourselves about a message must stay true.
    _OURS = frozenset({
        "ce-datacontenttype", "ce-id", "ce-source", "ce-specversion", "ce-subject", "ce-time",
        "ce-type", "connection", "content-encoding", "content-length", "content-type", "host", "te",
        "traceparent", "trailer", "transfer-encoding", "upgrade", "webhook-id",
        "webhook-request-callback", "webhook-request-origin", "webhook-request-rate",
        "webhook-signature", "webhook-timestamp",
    })  # fmt: skip

    def __init__(self) -> None:
        super().__init__(
            r"[!#$%&'*+.^_`|~0-9a-z-]{1,100}",
            allowed="the name of a header that batchwatch does not set itself",
            fix="Use letters, digits and hyphens, as in x-api-key.",
        )

    def read(self, text: str) -> str:
        """Return it in lower case."""
        name = super().read(text.lower())
        if name in self._OURS:
            raise Invalid("which batchwatch sets itself", fix="Remove this header.")
        return name


class Login(Kind[SecretStr]):
    """A user and a password for basic authentication."""

    secret = True

    def __init__(self) -> None:
        super().__init__(
            allowed="user:password, without control characters",
            fix="Write user and password as they are, with a colon between them.",
        )

    def read(self, text: str) -> SecretStr:
        """Return it hidden; the password may hold colons, the user cannot."""
        if _CONTROL.search(text):
            raise Invalid("with a line break or another control character in it")
        if not text.partition(":")[0] or ":" not in text:
            raise Invalid("which is no user, colon and password")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise Invalid("with bytes in it that are no text") from None
        return SecretStr(text)

    def schema(self) -> dict[str, object]:
        """Give the form."""
        return {"type": "string", "pattern": "^[^:]+:"}


def _check_header(text: str) -> None:
    if _CONTROL.search(text):
        raise Invalid("with a line break or another control character in it")
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        raise Invalid("with characters that no header can carry") from None
