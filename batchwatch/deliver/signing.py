"""Sign what is sent, by Standard Webhooks v1, so that a receiver can tell it from a forgery.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import hmac
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_PREFIX: Final = "whsec_"


def key_of(secret: str) -> bytes:
    """The key inside ``whsec_…``. Raises ``ValueError`` if it is no base64."""
    return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)


def signed_headers(
    message_id: str, body: bytes, *, keys: Sequence[bytes], timestamp: int
) -> dict[str, str]:
    """The three headers of the standard; ``timestamp`` is the time of this try, in seconds.

    One signature for each key, so that a receiver that knows any of them can
    verify. Without a key the signature is left out: a receiver still gets the
    id that it deduplicates by.
    """
    headers = {"webhook-id": message_id, "webhook-timestamp": str(timestamp)}
    if keys:
        signed = b"%b.%d.%b" % (message_id.encode(), timestamp, body)
        headers["webhook-signature"] = " ".join(
            "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode() for key in keys
        )
    return headers
