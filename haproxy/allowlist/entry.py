"""What an entry of ours looks like in an ACL of HAProxy. Pure.

An entry has no owner there, and an ACL may have others who write to it. Ours are known by their
spelling: a zero before the length of the prefix, `192.0.2.7/032`, `2001:db8::7/0128`. HAProxy keeps
an entry as it was written, reads the length as a decimal number, and deletes what is spelled
exactly so. Hence there is no list of what is ours that could be lost or grow old: whoever looks
sees it, after a restart of either side too. And where others have the same address, theirs stays.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Final

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

# By 300 bytes each. Whoever has more grants pays 10 us for each of the others, each time that
# something changes.
_REMEMBERED: Final = 200_000

_looks_own = re.compile(r"[0-9a-f.:]{2,45}/0[0-9]{1,3}").fullmatch


def is_own(entry: str) -> bool:
    """Tell whether we wrote it: exactly so, for anybody may pad a length with zeros."""
    return _looks_own(entry) is not None and _is_canonical(entry)


def write_entry(network: Network) -> str:
    """Spell an entry of ours."""
    return f"{network.network_address}/0{network.prefixlen}"


@lru_cache(_REMEMBERED)
def entry_of(member: str) -> str:
    """Spell a granted address or network, canonical as in Redis, as an entry of ours."""
    return write_entry(ip_network(member))


def read_entry(entry: str) -> Network:
    """Read an entry of ours. Raises ValueError for what is none."""
    address, _, length = entry.partition("/")
    return ip_network((address, int(length)))


@lru_cache(_REMEMBERED)
def _is_canonical(entry: str) -> bool:
    try:
        return write_entry(read_entry(entry)) == entry
    except ValueError:
        return False


class Networks:
    """Tells whether an address is in one of many entries of ours."""

    def __init__(self, entries: Iterable[str]) -> None:
        self._by_length: dict[tuple[int, int], set[int]] = {}
        for network in map(read_entry, entries):
            first = int(network.network_address)
            self._by_length.setdefault((network.version, network.prefixlen), set()).add(first)

    def __contains__(self, address: Address) -> bool:
        bits, value = address.max_prefixlen, int(address)
        return any(
            version == address.version and value >> bits - length << bits - length in firsts
            for (version, length), firsts in self._by_length.items()
        )
