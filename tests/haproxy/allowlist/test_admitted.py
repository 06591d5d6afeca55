"""haproxy/allowlist/admitted.py: what is granted, less what is blocked."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haproxy.allowlist.admitted import admitted, blocked, next_end_ms
from haproxy.allowlist.entry import Networks
from tokens.address import candidates
from tokens.admin.mirror import Snapshot

NOW = 1_000_000

# A small world, so that grants and blocks meet.
_ADDRESSES = [
    *(f"10.{a}.{b}.{c}" for a in (0, 1) for b in (0, 7) for c in (0, 1, 255)),
    *(f"2001:db8:{a:x}:{b:x}::{c:x}" for a in (0, 1, 0x100) for b in (0, 1) for c in (0, 1)),
]
_MEMBERS = sorted(
    {name for it in _ADDRESSES for name in candidates(ip_address(it).packed).decode().split()}
)
members = st.dictionaries(st.sampled_from(_MEMBERS), st.integers(NOW - 2, NOW + 2), max_size=6)


def snapshot(grants: dict[str, int], blocks: dict[str, int]) -> Snapshot:
    return Snapshot(now_ms=NOW, grants={"wiki": grants}, blocks=blocks, unread={})


@given(members, members)
def test_who_is_admitted_is_granted_and_not_blocked(
    grants: dict[str, int], blocks: dict[str, int]
) -> None:
    """Of every address the entries say what an agent would, whatever is granted and blocked."""
    held = Networks(admitted(snapshot(grants, blocks), "wiki", NOW))
    for text in _ADDRESSES:
        names = candidates(ip_address(text).packed).decode().split()
        is_granted = any(grants.get(name, 0) > NOW for name in names)
        is_blocked = any(blocks.get(name, 0) > NOW for name in names)
        assert (ip_address(text) in held) is (is_granted and not is_blocked), text


def test_a_network_is_cut_up_around_what_is_blocked_in_it() -> None:
    """All of a granted /24 but the one blocked address is admitted, by few entries."""
    entries = admitted(snapshot({"192.0.2.0/24": NOW + 9}, {"192.0.2.7": NOW + 9}), "wiki", NOW)
    held = Networks(entries)
    inside = [str(it) for it in ip_network("192.0.2.0/24") if it in held]
    assert len(inside) == 255
    assert "192.0.2.7" not in inside
    assert len(entries) == 8


def test_what_would_stand_for_ipv4_clients_is_left_out() -> None:
    """HAProxy looks up an IPv4 client among IPv6 networks, too; no agent does."""
    grants = dict.fromkeys(("::/32", "::/64", "::/48", "::1:0:0:0", "2001:db8::/32"), NOW + 9)
    assert admitted(snapshot(grants, {}), "wiki", NOW) == {"2001:db8::/032"}


def test_a_network_with_hundreds_of_holes_is_cut_up_and_one_with_more_is_left_out() -> None:
    """Every block counts, however many; what would fill HAProxy is denied as a whole."""
    blocks = {f"10.{number}.0.7": NOW + 9 for number in range(256)}
    held = Networks(admitted(snapshot({"10.0.0.0/8": NOW + 9}, blocks), "wiki", NOW))
    assert all(ip_address(block) not in held for block in blocks)
    assert all(ip_address(f"10.{number}.0.8") in held for number in range(256))
    many = {f"10.{a}.{b}.7": NOW + 9 for a in range(256) for b in range(0, 256, 16)}
    told = snapshot({"10.0.0.0/8": NOW + 9, "192.0.2.7": NOW + 9}, many)
    assert admitted(told, "wiki", NOW) == {"192.0.2.7/032"}


def test_a_grant_and_a_block_end_on_their_millisecond() -> None:
    """At the millisecond that Redis names neither holds any more, as for an agent."""
    told = snapshot({"192.0.2.7": NOW + 1}, {"192.0.2.8": NOW + 1})
    assert admitted(told, "wiki", NOW) == {"192.0.2.7/032"}
    assert admitted(told, "wiki", NOW + 1) == frozenset()
    assert blocked(told, NOW) == {"192.0.2.8/032"}
    assert blocked(told, NOW + 1) == frozenset()


@pytest.mark.parametrize(
    ("grants", "blocks", "expected"),
    [
        ({}, {}, None),
        ({"192.0.2.7": NOW}, {}, None),
        ({"192.0.2.7": NOW + 5, "192.0.2.8": NOW + 3}, {}, NOW + 3),
        ({"192.0.2.7": NOW + 5}, {"192.0.2.8": NOW + 4}, NOW + 4),
    ],
)
def test_the_next_end_is_the_first_of_all_that_stand(
    grants: dict[str, int], blocks: dict[str, int], expected: int | None
) -> None:
    """What is over already is no end to wait for; a block's end is one."""
    assert next_end_ms(snapshot(grants, blocks), NOW) == expected
