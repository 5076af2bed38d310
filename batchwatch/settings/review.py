"""The settings in force, for ``batchwatch check``: what they are, where from, what is doubtful."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from pydantic import SecretStr

from batchwatch.settings.model import INHERITED, Settings
from batchwatch.settings.names import key, variable
from batchwatch.settings.parts import WebhookSettings
from batchwatch.settings.problems import Problem
from batchwatch.settings.table import settings
from batchwatch.settings.urls import is_loopback

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from batchwatch.settings.names import Path
    from batchwatch.settings.parts import WatchSettings
    from batchwatch.settings.signing import SigningSecret

# Which shortcut sets what of which endpoint.
_SHORTCUTS: dict[Path, Path] = {
    ("endpoints", "webhook", "url"): ("webhook_url",),
    ("endpoints", "webhook", "secret"): ("webhook_secret",),
    ("endpoints", "slack", "url"): ("slack_webhook_url",),
}

_VERIFIED = frozenset({"verify-ca", "verify-full"})  # sslmode of who asks servers for proof


class Line(NamedTuple):
    """One setting: its key, its value with secrets hidden, and where that came from.

    ``was_set`` is false for a default, and for what is inherited from a
    setting that has a line of its own.
    """

    key: str
    value: str
    origin: str
    was_set: bool

    def __str__(self) -> str:
        return f"{self.key} = {self.value} ({self.origin})"


def describe(given: Settings) -> tuple[Line, ...]:
    """Return every setting that is in force, in the order of the documentation."""
    return tuple(
        Line(
            key(path),
            _shown(setting.kind.show, value),
            _origin(given, path),
            was_set=path in given.origins,
        )
        for pattern, setting in settings().items()
        for path, value in _values(given, pattern)
    )


def warnings(given: Settings) -> tuple[str, ...]:
    """Return what is allowed but probably not meant, each with the way out."""
    return (
        *_about_watches(given),
        *_about_overlaps(given),
        *_about_endpoints(given),
        *_about_heartbeats(given),
        *_about_access(given),
        *_about_database(given),
    )


def overlaps(given: Settings) -> Iterator[tuple[str, str]]:
    """Yield each watch that sees batches of one before it, by what is set, with the first such."""
    names = list(given.watches)
    for number, name in enumerate(names):
        for other in names[:number]:
            if _overlap(given.watches[other], given.watches[name]):
                yield other, name
                break


def expired(given: Settings, *, now: datetime) -> Iterator[Problem]:
    """Yield each endpoint that has secrets of which none signs any more at ``now``.

    Such a daemon must not start: whoever is at hand then can mend it, while
    the first message may be owed in the night.
    """
    for name, endpoint in given.endpoints.items():
        secrets = endpoint.secret if isinstance(endpoint, WebhookSettings) else ()
        last = _last(secrets) if secrets else None
        if last is not None and last <= now:
            path: Path = ("endpoints", name, "secret")
            if path not in given.origins:
                path = _SHORTCUTS.get(path, path)
            yield Problem(
                str(given.origins.get(path, variable(path))),
                given=f"{len(secrets)} expired, the last at {last:%Y-%m-%dT%H:%M:%SZ}",
                expected="at least one that still signs",
                fix="Put a new one in front, from: batchwatch secret new",
                path=path,
            )


def _values(given: object, pattern: Path, path: Path = ()) -> Iterator[tuple[Path, object]]:
    """Yield what ``pattern`` leads to, once for each name that its ``<NAME>`` stands for."""
    if not pattern:
        yield path, given
    elif isinstance(given, Mapping):
        for name, value in given.items():
            yield from _values(value, pattern[1:], (*path, name))
    elif hasattr(given, pattern[0]):  # not every endpoint has all settings of endpoints
        yield from _values(getattr(given, pattern[0]), pattern[1:], (*path, pattern[0]))


def _shown(show: Callable[[Any], str], value: object) -> str:
    is_unset = value in (None, ()) or (isinstance(value, SecretStr) and not value)
    return "not set" if is_unset else show(value)


def _origin(given: Settings, path: Path) -> str:
    if path not in given.origins:
        if general := INHERITED.get(path[0], {}).get(path[-1]):
            path = (general,)
        path = _SHORTCUTS.get(path, path)
    origin = given.origins.get(path)
    if origin is None:
        return "default"
    return origin.place if origin.name == key(path) else str(origin)


def _about_watches(given: Settings) -> Iterator[str]:
    covered = {name for route in given.routes.values() for name in route.watches}
    routed = {name for route in given.routes.values() for name in route.endpoints}
    if routed != set(given.endpoints):
        covered.add("*")  # an endpoint without a route of its own hears of every watch
    for name, watch in given.watches.items():
        if _is_open(watch.base_url):
            yield (
                f"watches.{name} sends its API key unencrypted to {watch.base_url}. "
                f"Use https:// unless the way there is safe."
            )
        if given.endpoints and not covered & {"*", name}:
            yield f"No route takes the events of watches.{name}. Add one, or nobody is notified."


def _about_overlaps(given: Settings) -> Iterator[str]:
    for one, other in overlaps(given):
        yield (
            f"watches.{one} and watches.{other} see the same batches, so each event about those is "
            f"made twice. Remove one of them, or give each a directory of its own."
        )


def _overlap(one: WatchSettings, other: WatchSettings) -> bool:
    """Whether one of them asks for all that the other asks for, or for a part of it.

    A key belongs to one project, and so does what it may ask for.
    """
    keys = [watch.api_key.get_secret_value() for watch in (one, other)]
    project = one.project_id is not None and one.project_id == other.project_id
    if one.base_url != other.base_url or not (project or (all(keys) and keys[0] == keys[1])):
        return False
    scopes = [
        (watch.organization_id, watch.project_id, watch.source_directory_id)
        for watch in (one, other)
    ]
    return any(
        all(whole in (None, part) for whole, part in zip(wide, narrow, strict=True))
        for wide, narrow in (scopes, reversed(scopes))
    )


def _about_heartbeats(given: Settings) -> Iterator[str]:
    if given.heartbeat_url and _is_open(given.heartbeat_url.get_secret_value()):
        yield (
            f"heartbeat_url is asked unencrypted at {given.heartbeat_url.shown}. Use https://, or "
            f"whoever is on the way can keep the switch from its alarm."
        )


def _about_access(given: Settings) -> Iterator[str]:
    allowed, token = variable(("allow_anyone",)), variable(("api_token",))
    if given.allow_anyone:
        if given.api_token or given.read_token:
            yield f"{allowed} has no effect beside a token. Remove one of them."
        else:
            yield (
                f"{allowed}: whoever reaches {given.listen} may read everything, and have messages "
                f"sent again and endpoints disabled. Set {token} instead."
            )
    if any(not network.prefixlen for network in given.trusted_proxies):
        yield (
            f"{variable(('trusted_proxies',))} has every address in it, so whoever asks can claim "
            f"to be anybody. Name the proxies alone."
        )


def _about_database(given: Settings) -> Iterator[str]:
    url = given.database_url
    far = [host for host in url.hosts if not (host.startswith("/") or is_loopback(host))]
    # As the driver does, which knows no settings: the URL first, then the environment.
    if far and (url.sslmode or os.environ.get("PGSSLMODE")) not in _VERIFIED:
        proof = "proves itself" if len(far) == 1 else "prove themselves"
        yield (
            f"{variable(('database_url',))}: nobody sees to it that {', '.join(far)} {proof}, so "
            f"whoever is on the way can read the password and all else. Set sslmode=verify-full "
            f"in it, and its authority as sslrootcert, unless the way there is safe."
        )


def _about_endpoints(given: Settings) -> Iterator[str]:
    for name, endpoint in given.endpoints.items():
        if _is_open(endpoint.url.get_secret_value()):
            yield (
                f"endpoints.{name} is notified unencrypted at {endpoint.url.shown}. "
                f"Use https:// unless the way there is safe."
            )
        if isinstance(endpoint, WebhookSettings):
            yield from _about_secrets(given, name, endpoint.secret)
        if not endpoint.tls_verify:
            yield (
                f"endpoints.{name} has tls_verify set to false: whoever is on the way can pose as "
                f"{endpoint.url.shown} and read along. Better give its authority as tls_ca."
            )
        if endpoint.proxy and endpoint.public_only:
            yield (
                f"endpoints.{name} goes through a proxy, which resolves the name itself: what is "
                f"not public must be refused there, too."
            )
    if given.webhook_secret and not given.webhook_url:
        secret, url = variable(("webhook_secret",)), variable(("webhook_url",))
        yield f"{secret} has no effect without {url}; other endpoints have their own."


def _about_secrets(given: Settings, name: str, secrets: Sequence[SigningSecret]) -> Iterator[str]:
    if not secrets:
        yield (
            f"endpoints.{name} has no secret, so its receiver cannot tell our messages "
            f"from others'. Set {_secret_of(given, name)}."
        )
    elif last := _last(secrets):
        yield (
            f"endpoints.{name} has no secret that stays: from {last:%Y-%m-%dT%H:%M:%SZ} on, its "
            f"messages fail. Put one without @ in front of the others."
        )


def _last(secrets: Sequence[SigningSecret]) -> datetime | None:
    """Return when the last of ``secrets`` expires, or None if one never does."""
    ends = [one.expires_at for one in secrets]
    return None if None in ends else max(end for end in ends if end is not None)


def _secret_of(given: Settings, endpoint: str) -> str:
    """How the secret of ``endpoint`` is set: by its shortcut, its variable, or in the file."""
    path: Path = ("endpoints", endpoint, "secret")
    if endpoint == "webhook" and given.webhook_url:
        path = ("webhook_secret",)
    # No shell sets a variable with a hyphen, and two underscores would part the name.
    return key(path) if "-" in endpoint or "__" in endpoint else variable(path)


def _is_open(url: str) -> bool:
    """Whether what goes to ``url`` leaves this machine unencrypted."""
    parts = urlsplit(url)
    return parts.scheme == "http" and not is_loopback(parts.hostname or "")
