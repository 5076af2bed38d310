"""Say which addresses may be connected to, at the last moment before a socket is.

The guard makes the sockets, and is told the address that the kernel is about
to be given. So it does not matter how that came about: by a name that means
something else than a second ago, as one of several addresses, or by a literal
in whatever spelling.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from aiohttp import AddrInfoType

    Address = IPv4Address | IPv6Address
    Network = IPv4Network | IPv6Network


def _networks(table: Mapping[str, str]) -> tuple[tuple[Network, str], ...]:
    return tuple(
        (IPv6Network(one) if ":" in one else IPv4Network(one), what)
        for what, networks in table.items()
        for one in networks.split()
    )


# Nobody's receiver, whatever the network: the registries of IANA for special-purpose addresses,
# and where the clouds hand out the credentials of the machine.
_ALWAYS: Final = _networks({
    "cloud metadata": (
        "169.254.169.254 169.254.170.2 169.254.170.23 "  # most; the roles of containers on AWS
        "fd00:ec2::/32 fd20:ce::254 "  # AWS, Google Cloud
        "100.100.100.200 168.63.129.16 "  # Alibaba, Azure
        "192.0.0.192 fd00:c1::a9fe:a9fe fd00:42::42"  # Oracle, Oracle, Scaleway
    ),
    "link-local": "169.254.0.0/16 fe80::/10",
    "unspecified": "0.0.0.0/8 ::/128",
    "multicast": "224.0.0.0/4 ff00::/8",
    "broadcast": "255.255.255.255",
    "reserved": "240.0.0.0/4",
})  # fmt: skip
# Where a receiver may well be, unless all of them are out on the internet.
_NOT_PUBLIC: Final = _networks({
    "loopback": "127.0.0.0/8 ::1",
    "private": "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 fec0::/10",
    "shared by a provider's customers": "100.64.0.0/10",
    "unique local": "fc00::/7",
    "translated locally": "64:ff9b:1::/48",
    "for documentation": "192.0.2.0/24 198.51.100.0/24 203.0.113.0/24 2001:db8::/32 3fff::/20",
    "for benchmarks": "198.18.0.0/15",
    "for protocols": "192.0.0.0/24 192.88.99.0/24 2001::/23",
})  # fmt: skip
# All of IPv6 that anything can be in; the rest of it is reserved, IPv4-compatible forms included.
_ASSIGNED: Final = tuple(
    IPv6Network(one)
    for one in ("::1", "64:ff9b::/96", "64:ff9b:1::/48", "2000::/3", "fc00::/7", "fec0::/10")
)
_NAT64: Final = IPv6Network("64:ff9b::/96")
_LOCAL_NAT64: Final = IPv6Network("64:ff9b:1::/48")
_SIX_TO_FOUR: Final = IPv6Network("2002::/16")
_TEREDO: Final = IPv6Network("2001::/32")
_ISATAP: Final = (b"\x00\x00\x5e\xfe", b"\x02\x00\x5e\xfe")
_THIS_NETWORK: Final = IPv4Network("0.0.0.0/8")


class Forbidden(OSError):
    """No socket is made for this address; ``strerror`` says why, and what to set.

    An OSError, as whoever connects expects of an address that cannot be
    reached: it goes on to the next one. The number tells it apart where
    several errors have become one.
    """

    NUMBER: Final = 10_169  # of no system

    def __init__(self, why: str) -> None:
        super().__init__(self.NUMBER, why)

    def __str__(self) -> str:
        return str(self.strerror)


@dataclass(frozen=True, slots=True)
class Guard:
    """What is refused: some addresses always, and with ``public_only`` all that are not public.

    ``allowed`` lifts the latter for whole networks, but the former only for
    an address that has an entry of its own. A network is easily drawn too
    wide; nobody writes down the address of a metadata service by accident.
    """

    public_only: bool = False
    allowed: tuple[Network, ...] = ()

    def new_socket(self, info: AddrInfoType) -> socket.socket:
        """The socket that will be connected to this address, or `Forbidden`."""
        family, type_, protocol, _, address = info
        if why := self.refusal(str(address[0])):
            raise Forbidden(why)
        return socket.socket(family, type_, protocol)

    def refusal(self, address: str) -> str | None:
        """Why ``address`` is refused, and what to set if it should not be; None if it is not."""
        whole = _plain(ip_address(address.partition("%")[0]))
        if self._names(whole):
            return None
        for meant in _meanings(whole):
            what = _what(meant, _ALWAYS) or _reserved(meant)
            if what and not self._names(meant):
                return f"{_shown(whole, meant)} is refused as {what}; allow_addresses can name it"
            if not self.public_only or any(meant in network for network in self.allowed):
                continue
            if what := _what(meant, _NOT_PUBLIC):
                return (
                    f"{_shown(whole, meant)} is refused as {what}, since public_only is set; "
                    "add it to allow_addresses, or set public_only to false"
                )
        return None

    def refusal_of_literal(self, host: str) -> str | None:
        """As `refusal`, if ``host`` is an address in any spelling; None if it is a name."""
        try:
            return self.refusal(host)
        except ValueError:
            pass
        try:
            return self.refusal(socket.inet_ntoa(socket.inet_aton(host)))
        except OSError:
            return None

    def _names(self, address: Address) -> bool:
        return any(one.num_addresses == 1 and address in one for one in self.allowed)


def _shown(whole: Address, meant: Address) -> str:
    return str(whole) if meant == whole else f"{whole}, which stands for {meant},"


def _what(address: Address, table: tuple[tuple[Network, str], ...]) -> str | None:
    return next((what for network, what in table if address in network), None)


def _reserved(address: Address) -> str | None:
    if address.version == 4 or any(address in network for network in _ASSIGNED):
        return None
    return "reserved"


def _plain(address: Address) -> Address:
    """The address that is meant by an IPv4-mapped one: the kernel itself connects by IPv4."""
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


def _meanings(address: Address) -> Iterator[Address]:
    """The address, and each IPv4 address to which something on the way may translate it."""
    yield address
    if isinstance(address, IPv4Address):
        return
    raw = address.packed
    if address in _NAT64 or raw[8:12] in _ISATAP:
        yield IPv4Address(raw[12:])
    elif address in _LOCAL_NAT64:
        yield from _translated_locally(raw)
    elif address in _SIX_TO_FOUR:
        yield IPv4Address(raw[2:6])
    elif address in _TEREDO:
        yield IPv4Address(raw[4:8])
        yield IPv4Address(bytes(byte ^ 0xFF for byte in raw[12:]))


def _translated_locally(raw: bytes) -> Iterator[IPv4Address]:
    """Every IPv4 address that RFC 6052 may see in one of 64:ff9b:1::/48.

    Its length of the prefix is the network's own business, so all four that
    are possible count. Places that hold next to nothing are not the one.
    """
    places = (raw[6:8] + raw[9:11], raw[7:8] + raw[9:12], raw[9:13], raw[12:])
    found = [IPv4Address(place) for place in places]
    yield from [one for one in found if one not in _THIS_NETWORK] or found
