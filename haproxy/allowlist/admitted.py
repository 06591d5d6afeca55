"""Which entries the ACLs ought to have: what is granted, less what is blocked. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

from haproxy.allowlist.entry import entry_of, write_entry
from tokens.admin.mirror import Snapshot
from tokens.policy.grant import networks_around

MAX_PIECES: Final = 10_000
"""Of one network that is cut up: 400 blocks in a /8, 100 in an IPv6 /32. Then it is left out."""

_REMEMBERED: Final = 50_000
_REMEMBERED_CUTS: Final = 64

# HAProxy looks up an IPv4 client as ::ffff:a.b.c.d, too, where there are IPv6 entries. No client
# has another address of ::/8 (RFC 4291).
_HOLDS_IPV4: Final = IPv6Network("::/8")

_around = lru_cache(_REMEMBERED)(networks_around)


def admitted(snapshot: Snapshot, acl: str, now_ms: int) -> frozenset[str]:
    """Spell what may come in through an ACL at this moment of Redis's clock.

    A network that is granted with a blocked one inside is cut up around it: an agent would refuse
    that part, and HAProxy is to admit nobody whom an agent would refuse. For the same reason what
    would stand for IPv4 clients, too, is left out, and a network that holds too many blocks.
    """
    blocked = frozenset(_standing(snapshot.blocks, now_ms))
    granted = frozenset(filter(_is_plain, _standing(snapshot.grants[acl], now_ms)))
    if not blocked:
        return frozenset(map(entry_of, granted))
    free = granted - blocked
    if any("/" in block for block in blocked):
        free = frozenset(member for member in free if not _around(member) & blocked)
    holes: dict[str, set[str]] = {}
    for block in blocked:
        for member in _around(block) & free:
            holes.setdefault(member, set()).add(block)
    whole = map(entry_of, free - holes.keys())
    pieces = (entry for member, it in holes.items() for entry in _cut_up(member, frozenset(it)))
    return frozenset((*whole, *pieces))


def blocked(snapshot: Snapshot, now_ms: int) -> frozenset[str]:
    """Spell what is blocked at this moment."""
    return frozenset(map(entry_of, _standing(snapshot.blocks, now_ms)))


def next_end_ms(snapshot: Snapshot, now_ms: int) -> int | None:
    """Say when the next grant or block ends; None, if none does."""
    every = (*snapshot.grants.values(), snapshot.blocks)
    return min((end for ends in every for end in ends.values() if end > now_ms), default=None)


def _standing(ends: Mapping[str, int], now_ms: int) -> Iterable[str]:
    return (member for member, end_ms in ends.items() if end_ms > now_ms)


@lru_cache(_REMEMBERED)
def _is_plain(member: str) -> bool:
    network = ip_network(member)
    return isinstance(network, IPv4Network) or not network.overlaps(_HOLDS_IPV4)


@lru_cache(_REMEMBERED_CUTS)
def _cut_up(member: str, holes: frozenset[str]) -> tuple[str, ...]:
    """Spell what is left of a network: for each hole at most one piece per bit.

    Remembered, because of thousands of pieces none changes when something else does.
    """
    network = ip_network(member)
    bits = network.max_prefixlen
    cut = sorted((int(it.network_address), it.prefixlen) for it in map(ip_network, holes))
    kind = type(network)
    pieces: list[str] = []
    for first, length in _left(int(network.network_address), network.prefixlen, bits, cut):
        if len(pieces) == MAX_PIECES:
            return ()
        pieces.append(write_entry(kind((first, length))))
    return tuple(pieces)


def _left(
    first: int, length: int, bits: int, holes: list[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """Halve a network until each half is free of holes, or is one."""
    if not holes:
        yield first, length
        return
    if any(size <= length for _, size in holes):
        return
    middle = first + (1 << (bits - length - 1))
    below = [hole for hole in holes if hole[0] < middle]
    above = [hole for hole in holes if hole[0] >= middle]
    yield from _left(first, length + 1, bits, below)
    yield from _left(middle, length + 1, bits, above)
