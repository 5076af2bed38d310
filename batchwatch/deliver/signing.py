"""Sign what is sent, by Standard Webhooks, so that a receiver can tell it from a forgery.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md

v1 is HMAC-SHA256 with a secret that both sides know (``whsec_…``), v1a is
Ed25519 with a key that is ours alone (``whsk_…``), whose other half
(``whpk_…``) anybody may have. The standard says of both halves that they are
base64 and no more. What its libraries exchange, and what is made here, is
libsodium's form: 64 bytes, the seed and the public key behind it, for the
one, and 32 bytes for the other. A seed alone is understood as well.
"""

from __future__ import annotations

import base64
import hmac
import secrets
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_SYMMETRIC: Final = "whsec_"
_PRIVATE: Final = "whsk_"
_PUBLIC: Final = "whpk_"
_SEED: Final = 32  # bytes of an Ed25519 key; the public key has as many
_FRESH: Final = 32  # bytes of a secret that is made here; the standard asks for 24 to 64


class ExtraMissing(Exception):
    """The package that asymmetric keys need is not installed; ``str()`` says how to mend that."""


@dataclass(frozen=True, slots=True)
class Key:
    """What one secret signs with, and until when."""

    version: str  # v1 or v1a: what a signature begins with
    sign: Callable[[bytes], bytes] = field(repr=False, compare=False)  # its parts are the secret
    public: str | None = None  # whpk_…, where there is a half that others may have
    expires_at: datetime | None = None

    def signs_at(self, now: datetime) -> bool:
        """Whether it has not expired yet; at the very moment it has."""
        return self.expires_at is None or now < self.expires_at


def key_of(secret: str, expires_at: datetime | None = None) -> Key:
    """The key inside ``whsk_…``, or ``whsec_…`` with or without its prefix.

    Raises ``ValueError`` if it is no base64 or no key, and
    :class:`ExtraMissing`.
    """
    if secret.startswith(_PRIVATE):
        half = base64.b64decode(secret.removeprefix(_PRIVATE), validate=True)
        if len(half) not in {_SEED, 2 * _SEED}:
            raise ValueError(f"an Ed25519 key has {_SEED} or {2 * _SEED} bytes, not {len(half)}")
        private = _ed25519().from_private_bytes(half[:_SEED])
        return Key("v1a", private.sign, _public_of(private), expires_at)
    shared = base64.b64decode(secret.removeprefix(_SYMMETRIC), validate=True)
    return Key("v1", partial(_hmac, hmac.new(shared, digestmod="sha256")), None, expires_at)


def _hmac(begun: hmac.HMAC, signed: bytes) -> bytes:
    """The digest of ``signed``; what depends on the key alone is done once, which halves it."""
    one = begun.copy()
    one.update(signed)
    return one.digest()


def signed_headers(
    message_id: str, body: bytes, *, keys: Sequence[Key], timestamp: int
) -> dict[str, str]:
    """The three headers of the standard; ``timestamp`` is the time of this try, in seconds.

    One signature for each key, in their order, so that a receiver that knows
    any of them can verify. Without a key the signature is left out: a
    receiver still gets the id that it deduplicates by.
    """
    headers = {"webhook-id": message_id, "webhook-timestamp": str(timestamp)}
    if keys:
        signed = b"%b.%d.%b" % (message_id.encode(), timestamp, body)
        headers["webhook-signature"] = " ".join(
            f"{key.version},{base64.b64encode(key.sign(signed)).decode()}" for key in keys
        )
    return headers


def new_secret() -> str:
    """A fresh ``whsec_…``."""
    return _SYMMETRIC + base64.b64encode(secrets.token_bytes(_FRESH)).decode()


def new_pair() -> tuple[str, str]:
    """A fresh ``whsk_…``, and the ``whpk_…`` for its receivers. Raises :class:`ExtraMissing`."""
    seed = secrets.token_bytes(_SEED)
    public = _public_of(_ed25519().from_private_bytes(seed))
    half = seed + base64.b64decode(public.removeprefix(_PUBLIC))
    return _PRIVATE + base64.b64encode(half).decode(), public


def _public_of(private: Ed25519PrivateKey) -> str:
    return _PUBLIC + base64.b64encode(private.public_key().public_bytes_raw()).decode()


def _ed25519() -> type[Ed25519PrivateKey]:
    try:
        # Large, and only those who have such a key pay for it.
        from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415
    except ImportError:
        raise ExtraMissing(
            "asymmetric keys need a package that is missing: pip install cryptography"
        ) from None
    return ed25519.Ed25519PrivateKey
