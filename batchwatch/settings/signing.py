"""The secrets that sign: one to ten in one text, the newest first, each until it expires.

``whsec_new, whsec_old@2026-12-01`` is how a secret is changed without a
message that its receiver cannot verify: for a while, both sign.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar

from pydantic import SecretStr

from batchwatch.settings.kinds import Kind, text_of
from batchwatch.settings.problems import Invalid

MOST = 10  # secrets; the header with all their signatures stays below 1 KiB

_SEPARATOR = re.compile(r"[\s,]+")
_FORM = r"wh(?:sec|sk)_[A-Za-z0-9+/]+=*(?:@[0-9TtZz:.+-]+)?"
_MOMENT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"(?:[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?(?:[Zz]|[+-][0-9]{2}:[0-9]{2}))?"
)


@dataclass(frozen=True, slots=True)
class SigningSecret:
    """One of them, prefix included."""

    text: SecretStr
    expires_at: datetime | None = None

    @property
    def version(self) -> str:
        """How the standard calls its signatures."""
        return "v1a" if self.text.get_secret_value().startswith("whsk_") else "v1"

    @property
    def shown(self) -> str:
        """What may be known of it."""
        if self.expires_at is None:
            return f"{self.version} without end"
        return f"{self.version} until {self.expires_at:%Y-%m-%dT%H:%M:%SZ}"


class SigningSecrets(Kind[tuple[SigningSecret, ...]]):
    """The secrets of one endpoint, in the forms that all libraries of the standard read.

    What is wrong is told by the place of the secret, for its text must not be
    shown.
    """

    secret = True

    _SHARED: ClassVar = range(24, 64 + 1)  # bytes, as the standard recommends
    _HALF: ClassVar = 32  # bytes of an Ed25519 key, which its public half may follow

    def __init__(self) -> None:
        super().__init__(
            allowed=f"1 to {MOST} secrets, the newest first, with commas or spaces between: "
            "whsec_ followed by 24 to 64 bytes in base64, or whsk_ followed by an Ed25519 key in "
            "base64; behind an @, the date or time at which one expires",
            fix="Make one with: batchwatch secret new",
        )

    def parse(self, given: object) -> tuple[SigningSecret, ...]:
        """Read one text, or a list of them."""
        if not isinstance(given, list | tuple):
            return super().parse(given)
        if isinstance(given, tuple) and all(isinstance(entry, SigningSecret) for entry in given):
            return given  # handed on by a shortcut, which has read them
        try:
            return super().parse(SecretStr(" ".join(map(text_of, given))))
        except Invalid as invalid:  # which an entry that is no text leaves incomplete
            invalid.expected = self.allowed
            raise

    def read(self, text: str) -> tuple[SigningSecret, ...]:
        """Return them in the order given."""
        texts = [one for one in _SEPARATOR.split(text) if one]
        if not texts:
            raise Invalid("which holds no secret")
        if len(texts) > MOST:
            raise Invalid(f"with {len(texts)} secrets in it", fix="Remove the oldest.")
        seen: dict[bytes, int] = {}
        return tuple(
            self._read_one(one, number, len(texts), seen) for number, one in enumerate(texts, 1)
        )

    def _read_one(
        self, text: str, number: int, count: int, seen: dict[bytes, int]
    ) -> SigningSecret:
        """Read one of several, and say which one it is if it is wrong."""
        secret, at, moment = text.partition("@")
        try:
            first = seen.setdefault(self._key(secret), number)
            expires_at = _moment(moment) if at else None
        except Invalid as invalid:
            raise Invalid(_which(number, count) + invalid.reason, fix=invalid.fix) from None
        if first != number:
            reason = f"is the same as secret {first}"
            raise Invalid(_which(number, count) + reason, fix="Remove one of them.")
        return SigningSecret(SecretStr(secret), expires_at)

    def _key(self, secret: str) -> bytes:
        if secret.startswith("whsk_"):
            return self._seed(secret)
        if secret.startswith("whpk_"):
            raise Invalid("is a public key", fix="Give the whsk_ that was made with it.")
        if not secret.startswith("whsec_"):
            raise Invalid("does not begin with whsec_")
        key = _decoded(secret, "whsec_")
        if len(key) not in self._SHARED:
            raise Invalid(f"is {len(key)} bytes after decoding")
        return key

    def _seed(self, secret: str) -> bytes:
        half = _decoded(secret, "whsk_")
        if len(half) not in {self._HALF, 2 * self._HALF}:
            raise Invalid(f"is {len(half)} bytes after decoding")
        try:
            # Large, and only those who have such a key pay for it.
            from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415
        except ImportError:
            raise Invalid(
                "needs a package that is not installed",
                fix="Install it with: pip install cryptography",
            ) from None
        seed, public = half[: self._HALF], half[self._HALF :]
        private = ed25519.Ed25519PrivateKey.from_private_bytes(seed)
        if public not in {b"", private.public_key().public_bytes_raw()}:
            raise Invalid(
                "holds two halves that do not belong together",
                fix="Make one with: batchwatch secret new --asymmetric",
            )
        return seed

    def show(self, value: tuple[SigningSecret, ...]) -> str:
        """Return what may be known of them."""
        return f"hidden ({', '.join(one.shown for one in value)})"

    def schema(self) -> dict[str, object]:
        """Allow both forms."""
        several = {"type": "string", "pattern": f"^[\\s,]*{_FORM}(?:[\\s,]+{_FORM})*[\\s,]*$"}
        each = {"type": "string", "pattern": f"^{_FORM}$"}
        many = {"type": "array", "items": each, "minItems": 1, "maxItems": MOST}
        return {"anyOf": [several, many]}


def _which(number: int, count: int) -> str:
    return "which " if count == 1 else f"whose secret {number} of {count} "


def _decoded(secret: str, prefix: str) -> bytes:
    try:
        return base64.b64decode(secret.removeprefix(prefix), validate=True)
    except ValueError:
        raise Invalid(f"is no base64 after {prefix}") from None


def _moment(text: str) -> datetime:
    """Return the moment that ``text`` means; a date means its beginning, in UTC."""
    try:
        if _MOMENT.fullmatch(text):
            moment = datetime.fromisoformat(text.upper())
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise Invalid(
        "has no date or time in UTC after its @",
        fix="Write it like @2026-12-01 or @2026-12-01T12:00:00Z.",
    )
