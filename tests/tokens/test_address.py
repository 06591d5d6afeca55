"""The names under which a client's address may stand in a record."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokens.address import (
    IPV4_PREFIXES,
    IPV6_PREFIXES,
    address_of,
    candidates,
    is_loopback,
    is_unspecified,
)
from tokens.spelling import RULES

IPV4_MAPPED = bytes(10) + b"\xff\xff"


def packed(text: str) -> bytes:
    return ip_address(text).packed


CASES = {
    "192.0.2.7": b"192.0.2.7 192.0.2.0/24 192.0.0.0/16 192.0.0.0/8",
    "255.255.255.255": b"255.255.255.255 255.255.255.0/24 255.255.0.0/16 255.0.0.0/8",
    "0.0.0.0": b"0.0.0.0 0.0.0.0/24 0.0.0.0/16 0.0.0.0/8",
    "2001:db8:1:2:3:4:5:6": (
        b"2001:db8:1:2:3:4:5:6 2001:db8:1:2::/64 2001:db8:1::/56 2001:db8:1::/48 2001:db8::/32"
    ),
    "2001:db8:1:02ff::1": (
        b"2001:db8:1:2ff::1 2001:db8:1:2ff::/64 2001:db8:1:200::/56 2001:db8:1::/48 2001:db8::/32"
    ),
    "::1": b"::1 ::/64 ::/56 ::/48 ::/32",
}


@pytest.mark.parametrize("text", CASES)
def test_address_first_then_its_networks(text: str) -> None:
    """A client is known by its address in canonical form, and by each network it belongs to."""
    assert candidates(packed(text)) == CASES[text]


@pytest.mark.parametrize(
    ("source", "address"),
    [(packed("192.0.2.7"), b"192.0.2.7"), (packed("2001:db8::1"), b"2001:db8::1"), (b"junk!", b"")],
)
def test_an_address_alone(source: bytes, address: bytes) -> None:
    """A client is named without its networks; what is no client has no name."""
    assert address_of(source) == address


def test_an_ipv4_mapped_address_is_the_ipv4_one() -> None:
    """A dual-stack socket's ::ffff:192.0.2.7 has the names of 192.0.2.7, and no others."""
    assert candidates(IPV4_MAPPED + packed("192.0.2.7")) == CASES["192.0.2.7"]
    assert candidates(packed("::ffff:c000:207")) == CASES["192.0.2.7"]


@pytest.mark.parametrize("text", ["::c000:207", "64:ff9b::c000:207", "::fffe:c000:207"])
def test_only_a_mapped_address_is_the_ipv4_one(text: str) -> None:
    """IPv6 that holds an IPv4 address in some other way is not that client."""
    assert candidates(packed(text)).startswith(text.encode() + b" ")


@given(st.binary(max_size=40).filter(lambda junk: len(junk) not in (4, 16)))
def test_junk_names_nobody(junk: bytes) -> None:
    """Bytes of any other length have no name, so that nothing that is bound matches them."""
    assert candidates(junk) == b""


@pytest.mark.parametrize("size", [0, 3, 4, 8, 12, 16, 28])
def test_a_mapped_prefix_before_junk_names_nobody(size: int) -> None:
    """Only 16 bytes are an IPv4-mapped address, whatever follows its first twelve."""
    junk = IPV4_MAPPED + bytes(size)
    assert bool(candidates(junk)) == (len(junk) == 16)


@given(st.ip_addresses())
def test_every_name_is_right_and_may_stand_in_a_record(address: object) -> None:
    """Each candidate holds the client and is spelt as the contract wants it: both or nothing."""
    client = ip_address(str(address))
    is_spelt_right, _ = RULES["src"]
    first, *networks = candidates(client.packed).decode().split(" ")
    if client.version == 6 and client.ipv4_mapped:
        client = client.ipv4_mapped
    prefixes = IPV4_PREFIXES if client.version == 4 else IPV6_PREFIXES
    assert first == str(client)
    assert [ip_network(name).prefixlen for name in networks] == list(prefixes)
    assert all(client in ip_network(name) for name in networks)
    assert all(is_spelt_right(name) for name in (first, *networks))


@pytest.mark.parametrize(
    "text", ["127.0.0.1", "127.255.255.255", "127.0.0.0/8", "127.3.0.0/16", "::1", "::/64", "::/32"]
)
def test_loopback_is_known(text: str) -> None:
    """An address of this machine's own is loopback, and so is a network that holds one."""
    assert is_loopback(text)


@pytest.mark.parametrize("text", ["0.0.0.0", "0.1.2.3", "0.0.0.0/8", "0.0.0.0/16", "::", "::/56"])
def test_no_address_is_known(text: str) -> None:
    """An address that stands for no host is unspecified, and so is a network that holds one."""
    assert is_unspecified(text)


@pytest.mark.parametrize(
    "text",
    [
        *("126.255.255.255", "128.0.0.1", "1.0.0.0", "10.0.0.0/8", "192.0.2.7", "::2", "::7f00:1"),
        *("2001:db8::1", "2001:db8::/32", "0:0:0:1::/64", "", "localhost", "127.0.0.1/x"),
    ],
)
def test_a_client_is_neither(text: str) -> None:
    """Any other address may be a client's; and what is no address is judged elsewhere."""
    assert not is_loopback(text)
    assert not is_unspecified(text)


@given(st.ip_addresses(v=4) | st.ip_addresses(v=6))
def test_both_agree_with_the_library(address: IPv4Address | IPv6Address) -> None:
    """Of single addresses the library says the same, but for 0.0.0.0/8, which it splits."""
    assert is_loopback(str(address)) == (
        address.is_loopback if address.version == 4 else address == IPv6Address("::1")
    )
    if address.version == 6 or address.packed[0] != 0:
        assert is_unspecified(str(address)) == address.is_unspecified
