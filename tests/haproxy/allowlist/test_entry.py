"""haproxy/allowlist/entry.py: how an entry of ours is told from those of others."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haproxy.allowlist.entry import Networks, entry_of, is_own, read_entry, write_entry

networks = st.builds(
    lambda address, length: ip_network((address, min(length, address.max_prefixlen)), strict=False),
    st.ip_addresses(),
    st.integers(0, 128),
)


@pytest.mark.parametrize(
    ("member", "entry"),
    [
        ("192.0.2.7", "192.0.2.7/032"),
        ("198.51.100.0/24", "198.51.100.0/024"),
        ("10.0.0.0/8", "10.0.0.0/08"),
        ("2001:db8::7", "2001:db8::7/0128"),
        ("2001:db8::/32", "2001:db8::/032"),
    ],
)
def test_a_grant_is_spelled_with_a_zero_before_its_length(member: str, entry: str) -> None:
    """What Redis calls an address or a network is spelled so in HAProxy, and known again."""
    assert entry_of(member) == entry
    assert is_own(entry)


@given(networks)
def test_an_entry_says_which_network_it_is(network: object) -> None:
    """Every network comes back from its entry."""
    entry = write_entry(network)  # type: ignore[arg-type]
    assert is_own(entry)
    assert read_entry(entry) == network


@pytest.mark.parametrize(
    "entry",
    [
        *("192.0.2.7", "192.0.2.7/32", "192.0.2.0/24", "192.0.2.7/0", "0.0.0.0/0", "::/0"),
        *("2001:db8::7", "2001:db8::7/128", "192.0.2.7/255.255.255.255", "/032", "wiki/032"),
        *("192.0.2.7/032 ", " 192.0.2.7/032", "192.0.2.7/032\n", "192.0.2.7/00032", ""),
        *(
            "10.0.0.1/08",
            "192.0.2.7/033",
            "2001:DB8::7/0128",
            "2001:db8:0::7/0128",
            "1" * 50 + "/032",
        ),
    ],
)
def test_what_others_write_is_theirs(entry: str) -> None:
    """No usual spelling of an address is taken for ours."""
    assert not is_own(entry)


@given(st.lists(networks, max_size=5), st.ip_addresses())
def test_an_address_is_in_the_entries_that_hold_it(some: list, address: object) -> None:
    """`Networks` says what the networks themselves say."""
    expected = any(it.version == address.version and address in it for it in some)
    assert (address in Networks(map(write_entry, some))) is expected


def test_the_edges_of_a_network_are_in_it() -> None:
    """The first and the last address of a network are in it, their neighbours are not."""
    held = Networks(["192.0.2.64/026", "2001:db8::/064"])
    for inside in ("192.0.2.64", "192.0.2.127", "2001:db8::", "2001:db8::ffff:ffff:ffff:ffff"):
        assert ip_address(inside) in held
    for outside in ("192.0.2.63", "192.0.2.128", "2001:db8:0:1::", "2001:db7:ffff::"):
        assert ip_address(outside) not in held
