"""A client's address as records, grants and logs write it. Pure."""

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final

IPV4_PREFIXES = (24, 16, 8)
IPV6_PREFIXES = (64, 56, 48, 32)
"""The networks a token may be bound to: few enough to name every one a client belongs to."""

_IPV4_MAPPED = bytes(10) + b"\xff\xff"

# RFC 6890: what no packet from elsewhere comes from.
_UNSPECIFIED: Final = (ip_network("0.0.0.0/8"), ip_network("::"))
_LOOPBACK: Final = (ip_network("127.0.0.0/8"), ip_network("::1"))

# Ten thousands of clients at 200 bytes each. A flood of new addresses costs 10 us apiece, as if
# there were no cache, and never more memory than this.
_REMEMBERED_CLIENTS = 32_768


def _candidates(packed: bytes) -> bytes:
    """List what a record may call this client: its address, then its networks, by spaces.

    `packed` is 4 or 16 bytes in network order; an IPv4-mapped IPv6 address is the IPv4 one, as
    dual-stack sockets write it. Anything else names nobody, so nothing that is bound matches.
    """
    if len(packed) not in (4, 16):
        return b""
    packed = packed.removeprefix(_IPV4_MAPPED)
    address = ip_address(packed)
    prefixes = IPV4_PREFIXES if address.version == 4 else IPV6_PREFIXES  # noqa: PLR2004
    networks = [ip_network((packed, prefix), strict=False) for prefix in prefixes]
    return " ".join((str(address), *map(_text, networks))).encode()


candidates: Final = lru_cache(_REMEMBERED_CLIENTS)(_candidates)


def address_of(packed: bytes) -> bytes:
    """Name this client by its address alone; empty for what names nobody."""
    return candidates(packed).partition(b" ")[0]


def is_unspecified(text: str) -> bool:
    """Tell whether an address, or one in a network, stands for no host at all: no client has it."""
    return _overlaps(text, _UNSPECIFIED)


def is_loopback(text: str) -> bool:
    """Tell whether an address, or one in a network, is this machine's own.

    A gate behind a proxy on its own machine sees all of its visitors come from there.
    """
    return _overlaps(text, _LOOPBACK)


def _overlaps(text: str, networks: Iterable[IPv4Network | IPv6Network]) -> bool:
    """Compare; false for what is no address: spelling is judged elsewhere."""
    try:
        asked = ip_network(text, strict=False)
    except ValueError:
        return False
    return any(asked.version == other.version and asked.overlaps(other) for other in networks)


def _text(network: IPv4Network | IPv6Network) -> str:
    return str(network)
