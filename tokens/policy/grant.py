"""IP grants: the words that open and end one, and what must never be granted. Pure.

An address, or one of the few networks that a client belongs to, is let through one ACL until a
moment. grant.lua is the one writer; agents ask by one ZMSCORE. For programs and commands there is
granter.py.
"""

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_interface, ip_network
from typing import Final

from tokens.address import (
    IPV4_PREFIXES,
    IPV6_PREFIXES,
    candidates,
    is_loopback,
    is_unspecified,
)
from tokens.policy.script import load_script
from tokens.question import Command, Question
from tokens.record import Keys
from tokens.spelling import shown

SCRIPT, SHA = load_script("grant.lua")

_MAPPED: Final = IPv6Network("::ffff:0:0/96")


def open_grant(  # noqa: PLR0917 - in the order of the contract, and called twice
    keys: Keys, acl: bytes, member: bytes, user: bytes, by: bytes, ttl_ms: int
) -> Question:
    """Ask to let `member` through `acl` for so long. The reply is the ms at which that ends.

    `by`: who opened it; `kid:<kid>` for a token, so that revoking the token ends what it opened.
    """
    _, _, *words = write_open(keys, acl, member, user=user, by=by, ttl_ms=ttl_ms)
    return Question(keys.grants(acl), (b"EVALSHA", SHA, *words))


def write_open(
    keys: Keys, acl: bytes, member: bytes, *, user: bytes, by: bytes, ttl_ms: int
) -> Command:
    """Word what `open_grant` asks, for a Redis that may not know the script yet."""
    return _words(keys, acl, b"open", (member, b"%d" % ttl_ms, user, by))


def write_end(
    keys: Keys, acl: bytes, field: bytes, value: bytes, members: Iterable[bytes]
) -> Command:
    """Word the end of several grants: of those whose meta has this value; no field: of each.

    The reply is how many stood and do no longer.
    """
    return _words(keys, acl, b"end", (field, value, *members))


def write_end_of_all(keys: Keys, acl: bytes) -> Command:
    """Word the end of all grants of an ACL."""
    return _words(keys, acl, b"end", (b"", b""))


def read_member(text: str) -> str:
    """Spell an address or a network as agents look for it.

    Raises ValueError with a sentence for what no agent would ever look for.
    """
    try:
        asked = ip_interface(text)
    except ValueError:
        raise ValueError(f"{shown(text)} is neither an address nor a network") from None
    network = _unmapped(asked.network)
    if "%" in text:
        raise ValueError(f"{shown(text)} has a zone: an agent sees addresses without one")
    if network.prefixlen == network.max_prefixlen:
        return str(network.network_address)
    prefixes = IPV4_PREFIXES if isinstance(network, IPv4Network) else IPV6_PREFIXES
    if network.prefixlen not in prefixes:
        allowed = ", ".join(f"/{prefix}" for prefix in sorted(prefixes))
        raise ValueError(f"{shown(text)} has a size that no agent looks for: {allowed} are right")
    if asked.ip != asked.network.network_address:
        raise ValueError(f"{shown(text)} has host bits: {network} is the whole network")
    return str(network)


def read_grantable(text: str) -> str:
    """Spell an address or a network that may be granted. Raises ValueError with a sentence."""
    member = read_member(text)
    for is_wrong, what in _NEVER_GRANTED:
        if is_wrong(member):
            raise ValueError(f"{member} is never granted: it is {what}")
    return member


def networks_around(member: str) -> frozenset[str]:
    """Name the networks that hold a member and may be granted or blocked on their own."""
    network = ip_network(read_member(member))
    names = candidates(network.network_address.packed).decode().split()[1:]
    return frozenset(name for name in names if ip_network(name).prefixlen < network.prefixlen)


def _is_multicast(member: str) -> bool:
    return ip_network(member).is_multicast


_NEVER_GRANTED: Final = (
    (is_loopback, "this machine's own, and may stand for every visitor of a proxy on it"),
    (is_unspecified, "no address that a client has"),
    (_is_multicast, "for multicast, and no client has it"),
)


def _unmapped(network: IPv4Network | IPv6Network) -> IPv4Network | IPv6Network:
    """Take an IPv4-mapped IPv6 network for the IPv4 one, as agents do with addresses."""
    if isinstance(network, IPv4Network) or not network.subnet_of(_MAPPED):
        return network
    packed = network.network_address.packed[-4:]
    return IPv4Network((packed, network.prefixlen - _MAPPED.prefixlen))


def _words(keys: Keys, acl: bytes, verb: bytes, args: Command) -> Command:
    names = (keys.grants(acl), keys.grants_meta(acl))
    return (b"EVAL", SCRIPT, b"%d" % len(names), *names, verb, keys.grants_channel, acl, *args)
