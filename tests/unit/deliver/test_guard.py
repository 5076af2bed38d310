"""Which addresses are refused: every form of the ones that nobody's receiver has."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchwatch.deliver.guard import Forbidden, Guard

if TYPE_CHECKING:
    from collections.abc import Callable

ALWAYS = Guard()
PUBLIC = Guard(public_only=True)


def allowing(*networks: str, public_only: bool = False) -> Guard:
    return Guard(public_only=public_only, allowed=tuple(ip_network(one) for one in networks))


# ------------------------------------------------------------------------- what each one is


@pytest.mark.parametrize(
    ("address", "what"),
    [
        *((one, "cloud metadata") for one in (
            "169.254.169.254", "169.254.170.2", "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254",
            "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:c1::a9fe:a9fe", "fd00:42::42",
        )),
        *((one, "link-local") for one in ("169.254.0.1", "169.254.255.255", "fe80::1", "febf::1",
                                          "fe80::1%eth0")),
        *((one, "unspecified") for one in ("0.0.0.0", "0.1.2.3", "::")),  # noqa: S104  # refused
        *((one, "multicast") for one in ("224.0.0.1", "239.255.255.255", "ff02::1")),
        *((one, "reserved") for one in ("240.0.0.1", "::2", "::1.2.3.4", "100::1", "4000::1",
                                        "::ffff:0:8.8.8.8")),
        ("255.255.255.255", "broadcast"),
    ],
)  # fmt: skip
def test_some_addresses_are_refused_whatever_is_set(address: str, what: str) -> None:
    """With what they are, and the setting that names exceptions."""
    for guard in (ALWAYS, PUBLIC, allowing("0.0.0.0/0", "::/0"), allowing("169.254.0.0/16")):
        refusal = guard.refusal(address) or ""
        assert f" is refused as {what}; allow_addresses can name it" in refusal
        assert refusal.startswith(str(ip_address(address.partition("%")[0])))


@pytest.mark.parametrize(
    ("address", "what"),
    [
        *((one, "loopback") for one in ("127.0.0.1", "127.255.255.255", "::1")),
        *((one, "private") for one in ("10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1")),
        *((one, "unique local") for one in ("fc00::1", "fd12:3456::7")),
        *((one, "shared by a provider's customers") for one in ("100.64.0.1", "100.127.255.255")),
        *((one, "for documentation") for one in ("192.0.2.1", "2001:db8::1", "3fff::1")),
        ("198.18.0.1", "for benchmarks"),
        ("192.0.0.8", "for protocols"),
        ("64:ff9b:1::8.8.8.8", "translated locally"),
    ],
)  # fmt: skip
def test_what_is_not_public_is_refused_where_only_the_public_is_wanted(
    address: str, what: str
) -> None:
    """And is where many a receiver is, otherwise."""
    assert None is ALWAYS.refusal(address)
    assert (
        f"{ip_address(address)} is refused as {what}, since public_only is set; "
        "add it to allow_addresses, or set public_only to false"
    ) == PUBLIC.refusal(address)


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "172.15.255.255", "172.32.0.1", "100.63.255.255", "100.128.0.1", "223.255.255.255",
     "2606:4700::1111", "64:ff9b::8.8.8.8", "2002:808:808::1", "::ffff:8.8.8.8"],
)  # fmt: skip
def test_what_is_public_is_never_refused(address: str) -> None:
    """Also through the translators that whole networks of phones and offices depend on."""
    assert (None, None) == (ALWAYS.refusal(address), PUBLIC.refusal(address))


# ------------------------------------------------------------------------------- exceptions


def test_a_network_lifts_what_is_private_and_an_address_alone_lifts_anything() -> None:
    """A network is easily drawn too wide; nobody names a metadata service by accident."""
    assert None is allowing("10.1.0.0/16", public_only=True).refusal("10.1.2.3")
    assert None is allowing("fd00::/8", public_only=True).refusal("fd12::1")
    assert None is not allowing("10.1.0.0/16", public_only=True).refusal("10.2.0.1")
    assert None is not allowing("169.254.0.0/16").refusal("169.254.10.10")
    assert None is not allowing("169.254.169.0/31").refusal("169.254.169.0")
    assert None is allowing("169.254.10.10").refusal("169.254.10.10")
    assert None is allowing("169.254.10.10").refusal("::ffff:169.254.10.10")
    assert None is allowing("fe80::7").refusal("fe80::7%eth0")


def test_what_an_address_stands_for_needs_an_exception_of_its_own() -> None:
    """A translator's whole prefix may be let through, and not with it what lies behind."""
    whole = allowing("64:ff9b:1::/48", "2001::/23", public_only=True)

    assert None is whole.refusal("64:ff9b:1::8.8.8.8")
    assert None is not whole.refusal("64:ff9b:1::10.0.0.1")
    assert None is not whole.refusal("64:ff9b:1::169.254.169.254")
    assert None is allowing("64:ff9b::a9fe:a9fe").refusal("64:ff9b::169.254.169.254")


# ------------------------------------------------------------------- forms that hold an IPv4


def in_the_last_bytes(prefix: str) -> Callable[[bytes], bytes]:
    return lambda four: IPv6Address(prefix).packed[:12] + four


FORMS: dict[str, Callable[[bytes], bytes]] = {
    "itself": lambda four: four,
    "mapped": in_the_last_bytes("::ffff:0:0"),
    "compatible": in_the_last_bytes("::"),
    "translated": in_the_last_bytes("::ffff:0:0:0"),
    "NAT64": in_the_last_bytes("64:ff9b::"),
    "local NAT64, /96": in_the_last_bytes("64:ff9b:1::"),
    "local NAT64, /96, of a subnet": in_the_last_bytes("64:ff9b:1:abcd::"),
    "local NAT64, /64": lambda four: bytes.fromhex("0064ff9b0001abcd00") + four + bytes(3),
    "local NAT64, /56": lambda four: (
        bytes.fromhex("0064ff9b0001ab") + four[:1] + b"\x00" + four[1:] + bytes(4)
    ),
    "local NAT64, /48": lambda four: (
        bytes.fromhex("0064ff9b0001") + four[:2] + b"\x00" + four[2:] + bytes(5)
    ),
    "6to4": lambda four: b"\x20\x02" + four + bytes(10),
    "Teredo's server": lambda four: bytes.fromhex("20010000") + four + bytes(4) + b"\xf7" * 4,
    "Teredo's client": lambda four: (
        bytes.fromhex("200100000808080800000000") + bytes(one ^ 0xFF for one in four)
    ),
    "ISATAP": lambda four: bytes.fromhex("26064700000000000000") + b"\x5e\xfe" + four,
    "ISATAP, global": lambda four: bytes.fromhex("26064700000000000200") + b"\x5e\xfe" + four,
}
ANY = st.integers(0, 2**32 - 1).map(IPv4Address)


def within(*networks: str) -> st.SearchStrategy[IPv4Address]:
    def addresses(text: str) -> st.SearchStrategy[IPv4Address]:
        network = ip_network(text)
        first, last = int(network.network_address), int(network.broadcast_address)
        return st.integers(first, last).map(IPv4Address)

    return st.one_of([addresses(one) for one in networks])


REFUSED = within(
    "169.254.0.0/16", "100.100.100.200/32", "192.0.0.192/32", "168.63.129.16/32", "224.0.0.0/4",
    "240.0.0.0/4",
)  # fmt: skip
NOT_PUBLIC = within(
    "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "100.64.0.0/10",
)  # fmt: skip


@given(form=st.sampled_from(sorted(FORMS)), address=REFUSED)
def test_every_form_of_a_refused_address_is_refused(form: str, address: IPv4Address) -> None:
    """Whatever translates it on the way, and whatever else is allowed."""
    held = str(ip_address(FORMS[form](address.packed)))

    assert ALWAYS.refusal(held)
    assert allowing("0.0.0.0/0", "::/0", public_only=True).refusal(held)


@given(form=st.sampled_from(sorted(FORMS)), address=NOT_PUBLIC)
def test_every_form_of_a_private_address_is_refused_where_only_the_public_is_wanted(
    form: str, address: IPv4Address
) -> None:
    """Else a name in the internet would be a way into the house."""
    assert PUBLIC.refusal(str(ip_address(FORMS[form](address.packed))))


@given(address=st.one_of(ANY, st.integers(0, 2**128 - 1).map(IPv6Address), NOT_PUBLIC, REFUSED))
def test_only_what_the_registries_call_global_is_public(
    address: IPv4Address | IPv6Address,
) -> None:
    """As Python's own table of them has it; ours may be stricter."""
    assert PUBLIC.refusal(str(address)) or (address.is_global and not address.is_multicast)


@given(form=st.sampled_from(sorted(FORMS)), address=ANY, public_only=st.booleans())
def test_what_is_named_alone_is_never_refused(
    form: str, address: IPv4Address, *, public_only: bool
) -> None:
    """It is the one way to have it after all."""
    held = str(ip_address(FORMS[form](address.packed)))
    named = str(address) if form == "mapped" else held

    assert None is allowing(named, public_only=public_only).refusal(held)


# ------------------------------------------------------------------------------- the socket


def test_no_socket_is_made_for_a_refused_address() -> None:
    """So nothing can be sent by mistake later on."""
    refused = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("169.254.1.1", 80))
    with pytest.raises(Forbidden, match=r"^169\.254\.1\.1 is refused as link-local"):
        ALWAYS.new_socket(refused)

    allowed = (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("::1", 80, 0, 0))
    with ALWAYS.new_socket(allowed) as made:
        assert (socket.AF_INET6, socket.SOCK_STREAM) == (made.family, made.type)


@pytest.mark.parametrize(
    ("host", "is_refused"),
    [
        *((one, True) for one in (
            "169.254.169.254", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.16689662",
            "::ffff:169.254.169.254", "fe80::1%eth0",
        )),
        *((one, False) for one in ("127.1", "8.8.8.8", "receiver.example", "", "metadata")),
    ],
)  # fmt: skip
def test_a_literal_is_known_in_any_spelling(host: str, is_refused: bool) -> None:  # noqa: FBT001
    """The C library reads them, and so may a proxy."""
    assert is_refused is bool(ALWAYS.refusal_of_literal(host))
