"""How a request looks from outside: who asks, and by which name, whatever proxies stand between.

What a proxy says of a request is believed when it comes from the address of one that was named,
for anybody can say it. Of several words the last is taken: it is the nearest proxy's. RFC 7239's
``Forwarded`` is not read, for what proxies send by themselves are the older headers; nor is
``X-Forwarded-Prefix``, for links and cookies must not depend on what came with a request.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from aiohttp import web

_HOST: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?")
_FOUR: Final = re.compile(r"([0-9.]+):[0-9]{1,5}")
_SIX: Final = re.compile(r"\[([^\]]+)\](?::[0-9]{1,5})?")

IPAddress = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Outside:
    """A request as the one who asked would describe it."""

    client: IPAddress | None  # None where it has no address, as on a Unix socket
    scheme: str
    host: str  # with the port, if it is not the scheme's


class Proxies:
    """Those whose word is taken."""

    def __init__(self, networks: Sequence[IPv4Network | IPv6Network] = ()) -> None:
        self._networks = tuple(networks)

    def outside(self, request: web.BaseRequest) -> Outside:
        """How ``request`` looks beyond all proxies that are known."""
        peer = address_in(request.remote or "")
        if peer is None or not self._has(peer):
            return Outside(peer, request.scheme, request.host)
        scheme = _last(request, "X-Forwarded-Proto").lower()
        host = _last(request, "X-Forwarded-Host")
        return Outside(
            client=self._client(request, peer),
            scheme=scheme if scheme in {"http", "https"} else request.scheme,
            host=host if _HOST.fullmatch(host) else request.host,
        )

    def _client(self, request: web.BaseRequest, peer: IPAddress) -> IPAddress:
        """The rightmost address that is no known proxy's: what is left of it may be invented."""
        client = peer
        for text in _from_the_right(request, "X-Forwarded-For"):
            address = address_in(text)
            if address is None:
                break
            client = address
            if not self._has(address):
                break
        return client

    def _has(self, address: IPAddress) -> bool:
        return any(address in network for network in self._networks)


def is_loopback(host: str) -> bool:
    """Whether ``host``, with or without a port, can only mean this machine, by its text alone."""
    if not _HOST.fullmatch(host):
        return False
    six = _SIX.fullmatch(host)
    name = six[1] if six else host.partition(":")[0].lower()
    address = address_in(name)
    if address is not None:
        return address.is_loopback
    return name == "localhost" or name.endswith(".localhost")


def address_in(text: str) -> IPAddress | None:
    """The address that ``text`` is, with or without a port; IPv4 in IPv6 is IPv4."""
    port = _FOUR.fullmatch(text) or _SIX.fullmatch(text)
    try:
        address = ip_address((port[1] if port else text).partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _last(request: web.BaseRequest, header: str) -> str:
    return next(_from_the_right(request, header), "")


def _from_the_right(request: web.BaseRequest, header: str) -> Iterator[str]:
    for part in reversed(",".join(request.headers.getall(header, ())).split(",")):
        yield part.strip()
