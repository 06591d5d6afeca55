"""Which entries the ACLs ought to have: what is granted, less what is blocked. Pure."""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from ipaddress import ip_network
from typing import Final

from haproxy.allowlist.entry import Network, entry_of, write_entry
from tokens.admin.mirror import Snapshot
from tokens.policy.grant import networks_around

_REMEMBERED: Final = 10_000  # as many as entries

_around = lru_cache(_REMEMBERED)(networks_around)


def admitted(snapshot: Snapshot, acl: str, now_ms: int) -> frozenset[str]:
    """Spell what may come in through an ACL at this moment of Redis's clock.

    A network that is granted with a blocked one inside is cut up around it: an agent would refuse
    that part, and HAProxy is to admit nobody whom an agent would refuse.
    """
    blocked = frozenset(_standing(snapshot.blocks, now_ms))
    granted = frozenset(_standing(snapshot.grants[acl], now_ms))
    if not blocked:
        return frozenset(map(entry_of, granted))
    free = {member for member in granted - blocked if not _around(member) & blocked}
    holes: dict[str, list[str]] = {}
    for block in blocked:
        for member in _around(block) & free:
            holes.setdefault(member, []).append(block)
    whole = map(entry_of, free - holes.keys())
    return frozenset((*whole, *(entry for it in holes.items() for entry in _cut_up(*it))))


def blocked(snapshot: Snapshot, now_ms: int) -> frozenset[str]:
    """Spell what is blocked at this moment."""
    return frozenset(map(entry_of, _standing(snapshot.blocks, now_ms)))


def next_end_ms(snapshot: Snapshot, now_ms: int) -> int | None:
    """Say when the next grant or block ends; None, if none does."""
    every = (*snapshot.grants.values(), snapshot.blocks)
    return min((end for ends in every for end in ends.values() if end > now_ms), default=None)


def _standing(ends: Mapping[str, int], now_ms: int) -> Iterable[str]:
    return (member for member, end_ms in ends.items() if end_ms > now_ms)


def _cut_up(member: str, holes: Iterable[str]) -> Iterable[str]:
    """Spell what is left of a network: for each hole at most one piece more per bit."""
    pieces: list[Network] = [ip_network(member)]
    for hole in map(ip_network, holes):
        left: list[Network] = []
        for piece in pieces:
            left += _without(piece, hole)
        pieces = left
    return map(write_entry, pieces)


def _without(piece: Network, hole: Network) -> Iterable[Network]:
    if piece.version != hole.version or not piece.overlaps(hole):
        return (piece,)
    if piece.prefixlen >= hole.prefixlen:
        return ()
    return piece.address_exclude(hole)  # type: ignore[arg-type] # of the same version
