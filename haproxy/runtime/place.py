"""Where a HAProxy's Runtime API listens: a unix socket, or a TCP port with or without TLS. Pure."""

from dataclasses import dataclass, field
from ssl import SSLContext
from typing import Final

# The kernel's sockaddr_un has 108, one of them for the zero at the end.
_MAX_PATH_BYTES: Final = 107

_MAX_PORT: Final = 65535


@dataclass(frozen=True, slots=True)
class UnixPlace:
    """A `stats socket /path`."""

    path: str

    def __post_init__(self) -> None:
        """Raise ValueError for what can be no socket's path."""
        if not self.path.startswith("/") or not self.path.isprintable():
            raise ValueError(f"not an absolute path: {self.path!a}")
        size = len(self.path.encode(errors="surrogateescape"))
        if size > _MAX_PATH_BYTES:
            raise ValueError(f"a path of {size} bytes; the kernel's limit is {_MAX_PATH_BYTES}")

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class TcpPlace:
    """A `stats socket ipv4@host:port`; with `tls` that port speaks TLS, and has the host's name."""

    host: str
    port: int
    tls: SSLContext | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Raise ValueError for a port that there cannot be."""
        if not 1 <= self.port <= _MAX_PORT:
            raise ValueError(f"port {self.port}: the limits are 1 and {_MAX_PORT}")

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


RuntimePlace = UnixPlace | TcpPlace
