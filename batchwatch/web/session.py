"""What a browser keeps of a login, signed, so that nothing has to be kept here.

The key of a signature is made from the token that was given: a token that is changed ends the
sessions that it began and no others, and all daemons with the same tokens agree. A session cannot
be ended before its time by anything else: to sign out forgets the cookie, and no more.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import msgspec

from batchwatch.web.route import Role

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchwatch.clock import Clock

IDLE: Final = int(timedelta(hours=12).total_seconds())  # so long without a request, and it is over
LONGEST: Final = int(timedelta(days=7).total_seconds())  # however much it is used
RENEW_AFTER: Final = int(
    timedelta(minutes=10).total_seconds()
)  # or each answer would have a cookie
_LARGEST: Final = 512  # characters; ours have about 200


@dataclass(frozen=True, slots=True)
class Session:
    """A login: whose it is, and how long it holds. Times are Unix times."""

    role: Role
    id: str
    began_at: int
    ends_at: int


class _Payload(msgspec.Struct):
    role: str
    iat: int
    exp: int
    id: str


class Tokens:
    """Which tokens there are, and what each lets one do."""

    def __init__(self, by_role: Mapping[Role, str]) -> None:
        self._digests = [(role, _digest(token)) for role, token in by_role.items()]

    def __len__(self) -> int:
        return len(self._digests)

    def role_of(self, given: str) -> Role:
        """What ``given`` lets one do.

        It is compared with every token, whichever it is, and by digests, so
        that the time it takes tells neither how much of it is right, nor how
        long a token is, nor which one it was.
        """
        digest = _digest(given)
        matches = [(role, hmac.compare_digest(digest, known)) for role, known in self._digests]
        return max((role for role, is_it in matches if is_it), default=Role.NONE)


class Sessions:
    """Makes them, and tells ours from others'."""

    def __init__(self, by_role: Mapping[Role, str], clock: Clock) -> None:
        self._clock = clock
        self._keys = {
            role: _mac(token.encode(), "batchwatch session v1") for role, token in by_role.items()
        }
        self._nobodys = secrets.token_bytes(32)  # for forms where nobody has to sign in

    def begin(self, role: Role) -> Session:
        """A new one, for whoever has given the token of ``role``."""
        now = self._now()
        return Session(role, secrets.token_urlsafe(16), now, now + IDLE)

    def renewed(self, session: Session) -> Session | None:
        """The same with more time, if it is due and there is any."""
        ends_at = min(self._now() + IDLE, session.began_at + LONGEST)
        if ends_at - session.ends_at < RENEW_AFTER:
            return None
        return replace(session, ends_at=ends_at)

    def seconds_left(self, session: Session) -> int:
        """How long it holds."""
        return session.ends_at - self._now()

    def write(self, session: Session) -> str:
        """What the browser keeps."""
        payload = _Payload(session.role.name.lower(), session.began_at, session.ends_at, session.id)
        text = urlsafe_b64encode(msgspec.json.encode(payload)).decode().rstrip("=")
        return f"{text}.{_mac(self._keys[session.role], text).hex()}"

    def read(self, text: str) -> Session | None:
        """The session that ``text`` is, if it is one of ours and still holds.

        The signature is of the text and is compared as text: what decodes to
        the same is not the same.
        """
        payload, _, signature = text.partition(".")
        if len(text) > _LARGEST or not text.isascii():
            return None
        matches = [
            (role, hmac.compare_digest(_mac(key, payload).hex(), signature))
            for role, key in self._keys.items()
        ]
        role = max((role for role, is_it in matches if is_it), default=Role.NONE)
        if role is Role.NONE:
            return None
        found = msgspec.json.decode(
            urlsafe_b64decode(payload + "=" * (-len(payload) % 4)), type=_Payload
        )
        session = Session(role, found.id, found.iat, found.exp)
        return session if self.seconds_left(session) > 0 else None

    def csrf(self, session: Session | None) -> str:
        """What a form of that session carries; without one, of a page that this process made."""
        if session is None:
            return _mac(self._nobodys, "csrf").hex()
        return _mac(self._keys[session.role], f"csrf {session.id}").hex()

    def _now(self) -> int:
        return int(self._clock.now().timestamp())


def _digest(text: str) -> bytes:
    # With surrogates, for what somebody else sent may be any text that Python can hold.
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()


def _mac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")
