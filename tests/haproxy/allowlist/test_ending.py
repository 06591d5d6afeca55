"""haproxy/allowlist/ending.py: which connections are to end."""

from collections.abc import Iterable
from ipaddress import ip_address

import pytest

from haproxy.allowlist.ending import Ending
from haproxy.runtime.client import Stream

NOBODY: frozenset[str] = frozenset()


def stream(source: str | None, frontend: str = "vpn") -> Stream:
    address = None if source is None else ip_address(source)
    return Stream(id=f"0x{frontend}", frontend=frontend, source=address, age_s=1)


def sources(streams: Iterable[Stream]) -> list[str]:
    return [str(it.source) for it in streams]


def test_a_block_ends_all_connections_of_its_address() -> None:
    """Whatever their frontend; nobody else's, and none whose source is not known."""
    ending = Ending({})
    block = frozenset({"192.0.2.7/032", "2001:db8::/064"})
    assert ending.is_due(block, {})
    streams = [
        stream("192.0.2.7"),
        stream("192.0.2.7", "web"),
        stream("2001:db8::1:2"),
        stream("192.0.2.8"),
        stream("2001:db8:0:1::"),
        stream(None),
    ]
    doomed = ending.doomed(streams, block, {})
    assert doomed == streams[:3]


def test_what_was_ended_is_not_ended_again() -> None:
    """A block that stood before ends nothing; a new one beside it does."""
    ending = Ending({})
    ending.settle(frozenset({"192.0.2.7/032"}), {})
    assert not ending.is_due(frozenset({"192.0.2.7/032"}), {})
    both = frozenset({"192.0.2.7/032", "192.0.2.8/032"})
    assert ending.is_due(both, {})
    doomed = ending.doomed([stream("192.0.2.7"), stream("192.0.2.8")], both, {})
    assert sources(doomed) == ["192.0.2.8"]


def test_a_block_that_was_lifted_and_made_again_ends_again() -> None:
    """Nothing is remembered of a block that is over."""
    ending = Ending({})
    block = frozenset({"192.0.2.7/032"})
    ending.settle(block, {})
    ending.settle(NOBODY, {})
    assert ending.is_due(block, {})


def test_a_grant_that_is_over_ends_connections_of_its_frontends() -> None:
    """Those that were named, and no others; and not those of addresses that stay granted."""
    ending = Ending({"mail": ["vpn"]})
    ending.settle(NOBODY, {"mail": frozenset({"192.0.2.7/032", "192.0.2.0/024"})})
    left = {"mail": frozenset({"192.0.2.8/032"})}
    assert ending.is_due(NOBODY, left)
    streams = [stream("192.0.2.7"), stream("192.0.2.8"), stream("192.0.2.9", "web")]
    assert sources(ending.doomed(streams, NOBODY, left)) == ["192.0.2.7"]


def test_who_is_not_granted_yet_is_left_alone() -> None:
    """A connection that an agent has just let in is not ended for a snapshot that is older."""
    ending = Ending({"mail": ["vpn"]})
    ending.settle(NOBODY, {"mail": frozenset({"192.0.2.7/032"})})
    streams = [stream("192.0.2.7"), stream("192.0.2.99")]
    assert sources(ending.doomed(streams, NOBODY, {"mail": NOBODY})) == ["192.0.2.7"]


@pytest.mark.parametrize("acl", ["mail", "other"])
def test_what_was_found_in_haproxy_counts_as_granted_before(acl: str) -> None:
    """An entry of ours that is over when we come ends connections as if we had seen it end."""
    ending = Ending({"mail": ["vpn"]})
    ending.remember(acl, ["192.0.2.7/032"])
    assert ending.is_due(NOBODY, {"mail": NOBODY}) is (acl == "mail")
    doomed = ending.doomed([stream("192.0.2.7")], NOBODY, {"mail": NOBODY})
    assert sources(doomed) == (["192.0.2.7"] if acl == "mail" else [])
