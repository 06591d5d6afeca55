"""A client's address as records, grants and logs write it. Pure."""

from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

IPV4_PREFIXES = (24, 16, 8)
IPV6_PREFIXES = (64, 56, 48, 32)
"""The networks a token may be bound to: few enough to name every one a client belongs to."""

_IPV4_MAPPED = bytes(10) + b"\xff\xff"

# Ten thousands of clients at 200 bytes each. A flood of new addresses costs 10 us apiece, as if
# there were no cache, and never more memory than this.
_REMEMBERED_CLIENTS = 32_768


@lru_cache(_REMEMBERED_CLIENTS)
def candidates(packed: bytes) -> bytes:
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


def _text(network: IPv4Network | IPv6Network) -> str:
    return str(network)
