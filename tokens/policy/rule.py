"""What opens an ACL, as its operator configured it. Pure."""

from dataclasses import dataclass
from enum import Enum


class Mode(Enum):
    """Which proof an ACL asks for."""

    STRICT = "strict"
    """A fresh token for each request."""
    SESSION = "session"
    """A token once, then the session that it opened."""
    GRANT = "grant"
    """A token once, then the client's address for a while."""
    IP = "ip"
    """An address that was granted; tokens are not looked at."""
    IP_TOKEN = "ip+token"  # noqa: S105 - the name of a mode
    """An address that was granted, and a fresh token for each request."""


class Bind(Enum):
    """How closely a session is tied to the address that opened it."""

    OFF = "off"
    EXACT = "exact"
    NETWORK = "network"
    """The address for IPv4, its /64 for IPv6."""


@dataclass(frozen=True, slots=True)
class AclRule:
    """One ACL. Each mode reads what it needs."""

    mode: Mode = Mode.STRICT
    session_ttl_ms: int = 8 * 3600 * 1000
    session_idle_ms: int | None = None
    session_bind: Bind = Bind.OFF
    grant_ttl_ms: int = 3600 * 1000
    is_nonce_required: bool = False
    """A token that comes by a link or a form must be bound to a browser."""
