"""URLs and addresses: where LlamaCloud is, where notifications go, where we listen, where we store.

The URL of an endpoint is a secret as a whole: whoever knows Slack's can post
with it, and others carry a token in their path or query. It is kept hidden,
and `shown` tells scheme and host, which is enough to recognise it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from socket import inet_aton
from typing import ClassVar, Final, Self
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from pydantic import Secret, SecretStr

from batchwatch.settings.kinds import Kind, text_of
from batchwatch.settings.problems import Invalid, looks_secret, shown, without_login

_LARGEST_PORT = 65_535
_SLACK_HOSTS = frozenset({"hooks.slack.com", "hooks.slack-gov.com"})


class SecretUrl(Secret[str]):
    """A URL that anything but ``get_secret_value()`` shows as ``https://hooks.slack.com/…``."""

    @property
    def shown(self) -> str:
        """Scheme and host, with ``…`` for the rest if there is any."""
        try:
            url = urlsplit(self.get_secret_value())
        except ValueError:
            return "…"
        more = url.path.strip("/") or url.query or url.fragment
        return f"{url.scheme}://{_without_login(url)}{'/…' if more else ''}"

    @property
    def host(self) -> str:
        """The host's name or address, in lower case, without brackets; empty if there is none."""
        try:
            return urlsplit(self.get_secret_value()).hostname or ""
        except ValueError:
            return ""

    @property
    def has_login(self) -> bool:
        """Whether a user or a password stands in it."""
        try:
            return "@" in urlsplit(self.get_secret_value()).netloc
        except ValueError:
            return False

    @property
    def is_slack(self) -> bool:
        """Whether it is one of Slack's incoming webhooks."""
        return self.host in _SLACK_HOSTS

    @classmethod
    def of(cls, given: object) -> Self:
        """Return what a source holds, unchecked; empty if that is no text."""
        return cls(text_of(given) if isinstance(given, str | SecretStr | Secret) else "")

    def _display(self) -> str:
        return self.shown


class DatabaseUrl(Secret[str]):
    """A database URL, ready for SQLAlchemy's asyncio engines; its password is never shown."""

    @property
    def shown(self) -> str:
        """The URL without driver, login and query, but for the hosts that stand in there."""
        if url := self._of_a_server():
            hosts = url["hosts"] or ",".join(_given(url, "host"))
            return f"postgresql://{'' if hosts.startswith('/') else hosts}/{url['name']}"
        scheme, separator, rest = self.get_secret_value().partition("?")[0].partition("://")
        return without_login(f"{scheme.partition('+')[0]}{separator}{rest}")

    @property
    def hosts(self) -> tuple[str, ...]:
        """The servers that it names, without their ports, and folders of sockets."""
        url = self._of_a_server()
        named = url and (unquote(url["hosts"]) or ",".join(_given(url, "host")))
        return tuple(
            one if one.startswith("/") else _HOST.sub(r"\1\2", one)
            for one in (named or "").split(",")
            if one
        )

    @property
    def sslmode(self) -> str | None:
        """As it is given for a server; None if it is not."""
        url = self._of_a_server()
        given = _given(url, "sslmode") if url else []
        return given[-1] if given else None

    def _of_a_server(self) -> re.Match[str] | None:
        scheme, _, rest = self.get_secret_value().partition("://")
        return _SERVER.fullmatch(rest) if scheme.startswith("postgresql") else None

    def _display(self) -> str:
        return self.shown


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens; port 0 lets the system choose."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return is_loopback(self.host)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class BaseUrl(Kind[str]):
    """The root of an API: a key is sent there, so nothing else may hide in it."""

    def __init__(self) -> None:
        super().__init__(
            allowed="an http:// or https:// URL without login, query and fragment",
            fix="Write it like https://api.cloud.llamaindex.ai.",
        )

    def read(self, text: str) -> str:
        """Return it without trailing slash; https:// is meant where no scheme is given."""
        if looks_secret(text):
            raise Invalid("which looks like a key", fix="Exchange it with the key.")
        url = _split(text if "://" in text else f"https://{text}")
        if "@" in text:
            raise Invalid("with a login in it", fix="Remove what stands before the @.")
        if url.query or url.fragment:
            raise Invalid("with a query or fragment", fix="Remove what follows the ? or #.")
        return f"{url.scheme}://{url.netloc.lower()}{url.path.rstrip('/')}"

    def show_wrong(self, text: str) -> str:
        """Return it without what is not wanted in it."""
        return super().show_wrong(re.sub(r"[?#].*", "…", text))


class EndpointUrl(Kind[SecretUrl]):
    """Where notifications are posted. A login in it is used for basic authentication."""

    secret = True

    def __init__(self) -> None:
        super().__init__(
            allowed="an http:// or https:// URL",
            fix="Copy the whole URL from the receiver again.",
        )

    def read(self, text: str) -> SecretUrl:
        """Return it as it was given: its path and query may be signed."""
        url = _split(text)
        if url.fragment:
            raise Invalid("with a fragment", fix="Remove what follows the #.")
        if _is_odd_ipv4(url.hostname or ""):
            # Some programs read 127.1 as an address, others as a name, and nobody means it well.
            raise Invalid(
                "whose host is an IPv4 address in an odd spelling",
                fix="Write it as four decimal numbers, as in 192.168.0.7.",
            )
        return SecretUrl(text)


class ProxyUrl(Kind[SecretUrl]):
    """A forward proxy that makes the connections; https:// goes through it by CONNECT."""

    secret = True

    def __init__(self) -> None:
        super().__init__(
            allowed="http://host:port, with user:password@ before the host if the proxy asks",
            fix="Write it like http://proxy.example.com:3128.",
        )

    def read(self, text: str) -> SecretUrl:
        """Return it; a port must be there, for those of proxies are many."""
        url = _split(text)
        if url.scheme != "http":
            raise Invalid("which is not http://")
        if url.port is None:
            raise Invalid("without a port")
        if url.path.strip("/") or url.query or url.fragment:
            raise Invalid("with something behind the port", fix="Remove what follows the port.")
        try:
            unquote(url.netloc.rpartition("@")[0], errors="strict").encode("latin-1")
        except UnicodeError:
            raise Invalid("with a login that no header can carry") from None
        return SecretUrl(text)


class Network(Kind[IPv4Network | IPv6Network]):
    """An address, or a network of them."""

    def __init__(self) -> None:
        super().__init__(
            allowed="an IP address or a network, such as 10.1.2.3, 10.1.0.0/16 or fd12::/48",
            fix="Write an address, or a network as its first address and its length.",
        )

    def read(self, text: str) -> IPv4Network | IPv6Network:
        """Return the network; one of a single address for an address."""
        if "%" in text:
            raise Invalid("with a zone", fix="Remove what follows the %.")
        try:
            network = ip_network(text, strict=False)
            address = ip_address(text.partition("/")[0])
        except ValueError:
            raise Invalid from None
        if address != network.network_address:
            raise Invalid("which is no first address", fix=f"Write {network}, or one address.")
        if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped:
            raise Invalid("which is IPv4 in IPv6", fix="Write it as IPv4.")
        return network

    def show(self, value: IPv4Network | IPv6Network) -> str:
        """Return it as a user would write it."""
        single = value.num_addresses == 1
        return str(value.network_address if single else value)


class Listen(Kind[Address]):
    """Where our own server listens."""

    _FORM = re.compile(
        r"(?:\[(?P<six>[^\[\]\s]+)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>[0-9]{1,5})"
    )

    def __init__(self) -> None:
        super().__init__(
            allowed="host:port, an IPv6 address in brackets",
            fix="Write it like 127.0.0.1:8080, [::1]:8080, or 0.0.0.0:8080 for all interfaces.",
        )

    def read(self, text: str) -> Address:
        """Return host and port."""
        parts = self._FORM.fullmatch(text)
        if not parts or int(parts["port"]) > _LARGEST_PORT:
            raise Invalid
        if parts["six"]:
            try:
                ip_address(parts["six"])
            except ValueError:
                raise Invalid from None
        return Address(parts["six"] or parts["host"], int(parts["port"]))


class Database(Kind[DatabaseUrl]):
    """The store's database, by its plain URL or with the driver named."""

    secret = True

    _DRIVERS: ClassVar = {
        "sqlite": "sqlite+aiosqlite",
        "sqlite+aiosqlite": "sqlite+aiosqlite",
        "postgres": "postgresql+asyncpg",
        "postgresql": "postgresql+asyncpg",
        "postgresql+asyncpg": "postgresql+asyncpg",
    }

    def __init__(self) -> None:
        super().__init__(
            allowed="an SQLite file, as sqlite:////data/batchwatch.db, or a database of "
            "PostgreSQL, as postgresql://user:password@host/name",
            fix="Write it like one of these, or set only the data folder.",
        )

    def read(self, text: str) -> DatabaseUrl:
        """Return the URL with the asyncio driver in it."""
        scheme, _, rest = text.partition("://")
        driver = self._DRIVERS.get(scheme.lower())
        if driver is None:
            raise Invalid(fix=f"Did you mean sqlite:///{text}?" if _is_file(text) else "")
        if driver == "postgresql+asyncpg":
            return self._of_a_server(driver, rest)
        path = rest.removeprefix("/")
        if path == rest or not path.strip("/") or path.startswith((":memory:", "file:")):
            raise Invalid("which names no file", fix="Three slashes, then the path of a file.")
        if path.startswith("~"):
            path = str(Path(path).expanduser())
        return DatabaseUrl(f"{driver}:///{path}")

    def _of_a_server(self, driver: str, rest: str) -> DatabaseUrl:
        """Return it, or refuse it with a hint at what may have cut it in the wrong place."""
        try:
            return self._with_hosts(driver, rest)
        except Invalid as invalid:
            before, _, _ = rest.rpartition("@")
            if "@" in before or "/" in before:
                invalid.fix = "In user and password, percent-encode @ as %40, / as %2F, : as %3A."
            raise

    def _with_hosts(self, driver: str, rest: str) -> DatabaseUrl:
        """Return it with several hosts where SQLAlchemy takes them, too: behind the ?.

        Whatever that or the driver would stumble over is refused: their errors
        show it with its password.
        """
        if not unquote(rest).isprintable():
            raise Invalid("with a control character in it")
        url = _SERVER.fullmatch(rest)
        if url is None:
            _, slash, path = rest.partition("/")
            if not slash or not path.partition("?")[0]:
                raise Invalid("which names no database", fix="End it with a slash and its name.")
            raise Invalid(
                "with a /, @ or # in a place where it means something",
                fix="In user, password and name, write these as %2F, %40 and %23.",
            )
        hosts, named = url["hosts"], _given(url, "host")
        if len(named) > 1 or (hosts and named):
            raise Invalid("with hosts in two places", fix="Name all of them in one.")
        if text := hosts or ",".join(named):
            for host in text.split(","):
                _check_host(host)
        for port in ",".join(_given(url, "port") or ["0"]).split(","):
            _check_port(port)
        query = url["query"] or ""
        if "," in hosts:
            query = f"host={quote(hosts, safe='')}{query and '&'}{query}"
            hosts = ""
        # All of these may stand here, and SQLAlchemy would see an end or a login in them.
        login = (url["login"] or "").replace("?", "%3F").replace("#", "%23")
        query = query.replace("@", "%40")
        login, query = login and f"{login}@", query and f"?{query}"
        return DatabaseUrl(f"{driver}://{login}{hosts}/{url['name']}{query}")

    def show_wrong(self, text: str) -> str:
        """Return its scheme; where its password ends is anybody's guess. A file has none."""
        scheme, separator, _ = text.partition("://")
        if separator:
            return shown(f"{scheme}://…")
        return shown(text) if _is_file(text) else super().show_wrong(text)


def _is_file(text: str) -> bool:
    """Whether it is the path of a file, and so no secret that was put into the wrong place."""
    if shown(text) != repr(text):
        return False
    try:
        return _FILE.fullmatch(text) is not None or Path(text).expanduser().is_file()
    except (OSError, RuntimeError, ValueError):
        return False


_FILE: Final = re.compile(r"[\w~./ -]+\.(?:db|sqlite3?)")
# What stands behind the scheme of a server's URL, and one of its hosts.
_SERVER: Final = re.compile(
    r"(?:(?P<login>[^@/]*)@)?(?P<hosts>[^@/?#]*)/(?P<name>[^@/?#]+)(?:\?(?P<query>.*))?"
)
_HOST: Final = re.compile(r"(?:\[([^\[\]]+)\]|([^\[\]:@\s]+))(?::([^:]*))?")


def _given(url: re.Match[str], name: str) -> list[str]:
    """What a server's URL has as the parameter ``name``, each time that it has it."""
    return [value for key, value in parse_qsl(url["query"] or "") if key == name]


def _check_host(text: str) -> None:
    """Refuse what is neither a folder of sockets nor a host, be it with a port."""
    if text.startswith("/"):
        return
    host = _HOST.fullmatch(text)
    try:
        urlsplit(f"//{text}")
        if host is None or (host[1] and not isinstance(ip_address(host[1]), IPv6Address)):
            raise ValueError  # noqa: TRY301  # as the others do
    except ValueError:
        raise Invalid(
            "with a host that is none", fix="Write it as host:port or [IPv6 address]:port."
        ) from None
    if host[3] is not None:
        _check_port(host[3])


def _check_port(text: str) -> None:
    if not re.fullmatch("[0-9]{1,5}", text) or int(text) > _LARGEST_PORT:
        raise Invalid(f"with a port that is no number up to {_LARGEST_PORT}")


def is_loopback(host: str) -> bool:
    """Whether ``host`` can only be this machine, judged by its text alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _split(text: str) -> SplitResult:
    """Take a URL apart; raise `Invalid` with a reason that shows nothing of it."""
    # before urlsplit, which drops line breaks in silence
    if " " in text or not text.isprintable():
        raise Invalid("with white space or a control character in it")
    if "://" not in text:
        raise Invalid("without http:// or https:// before it", fix="Write https:// before it.")
    try:
        url = urlsplit(text)
    except ValueError:
        raise Invalid("with a host that is none") from None
    if url.scheme not in {"http", "https"}:
        raise Invalid("whose scheme is neither http nor https")
    try:
        url.port  # noqa: B018 - raises for a port that is none
    except ValueError:
        raise Invalid(f"with a port that is no number up to {_LARGEST_PORT}") from None
    if not url.hostname:
        raise Invalid("without a host")
    return url


def _is_odd_ipv4(host: str) -> bool:
    """Whether ``host`` is an IPv4 address for the C library, and not in the one usual spelling."""
    try:
        inet_aton(host)
    except (OSError, UnicodeError, ValueError):
        return False
    try:
        ip_address(host)
    except ValueError:
        return True
    return False


def _without_login(url: SplitResult) -> str:
    return url.netloc.rpartition("@")[2]
