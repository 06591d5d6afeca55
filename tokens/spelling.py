"""How the texts in a token's record are spelt: one rule per field, and its wording. Pure."""

import re
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

from tokens.address import IPV4_PREFIXES, IPV6_PREFIXES

_MAX_NAME_BYTES: Final = 128
_MAX_SHOWN_CHARS: Final = 80
_NETWORK_PREFIXES: Final = {4: IPV4_PREFIXES, 6: IPV6_PREFIXES}


def _is_name(text: str) -> bool:
    return (
        _NAME(text) is not None
        # HTTP trims a header's ends: "admin " would reach the application as "admin".
        and text == text.strip()
        and (text.isascii() or len(text.encode()) <= _MAX_NAME_BYTES)
    )


def _is_group(text: str) -> bool:
    return "," not in text and _is_name(text)


def _is_address(text: str) -> bool:
    """Accept the one spelling under which the agent looks for it, and no other."""
    try:
        address, slash, _ = text.partition("/")
        if slash:
            network = ip_network(text)
            allowed = _NETWORK_PREFIXES[network.version]
            return str(network) == text and network.prefixlen in allowed
        ip = ip_address(address)
    except ValueError:
        return False
    # The agent turns an IPv4-mapped client address into the IPv4 one: bound to it, none matches.
    is_mapped = isinstance(ip, IPv6Address) and (ip.ipv4_mapped or ip.scope_id) is not None
    return str(ip) == text and not is_mapped


def _is_path(text: str) -> bool:
    return _PATH(text) is not None and _AMBIGUOUS(text) is None


def _matches(pattern: str) -> Callable[[str], object]:
    return re.compile(pattern, re.ASCII).fullmatch


_NAME: Final = re.compile(r"[^\x00-\x1f\x7f-\x9f]{1,128}").fullmatch
_PATH: Final = re.compile(r"/[!-~]{0,1023}").fullmatch
_AMBIGUOUS: Final = re.compile(r"\.\.|//|[\\;?#]|%2e|%2f|%5c|%00", re.IGNORECASE).search

_NAME_RULE: Final = f"1 to {_MAX_NAME_BYTES} bytes without control characters or blanks at its ends"

RULES: Final[dict[str, tuple[Callable[[str], object], str]]] = {
    "sub": (_is_name, _NAME_RULE),
    "groups": (_is_group, _NAME_RULE + " or comma"),
    "acl": (_matches(r"[A-Za-z0-9_.-]{1,64}"), "1 to 64 of A-Z a-z 0-9 _ . -"),
    "src": (_is_address, "a canonical address, or network /8 /16 /24 or /32 /48 /56 /64 (IPv6)"),
    "host": (
        _matches(r"[a-z0-9_.-]{1,253}|\[[0-9a-f:.]{2,45}\]"),
        "a host name in lower case without a port",
    ),
    "method": (_matches(r"[A-Z][A-Z-]{0,31}"), "a method in upper case"),
    "path": (_is_path, r"a plain path prefix: / first, none of .. // \ ; ? # %2e %2f %5c %00"),
    "nonce": (_matches(r"[0-9a-f]{64}"), "64 lowercase hex digits"),
}
"""Field name -> what says whether a text is right for it, and the same for people."""


def shown(value: object) -> str:
    """Quote a value for a message: in ASCII and cut, because anybody may have written it."""
    quoted = ascii(value)
    return quoted if len(quoted) <= _MAX_SHOWN_CHARS else quoted[:_MAX_SHOWN_CHARS] + "..."
