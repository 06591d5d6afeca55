"""Where one Redis server is, and how to get in. Pure."""

from dataclasses import dataclass, field
from ssl import SSLContext


@dataclass(frozen=True, slots=True)
class Place:
    """The address of one server and the credentials for it, which no repr shows."""

    host: str = "localhost"
    port: int = 6379
    path: str | None = None
    """Of a unix socket; then host and port say nothing."""
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    db: int = 0
    ssl: SSLContext | None = field(default=None, repr=False)
    """For TLS: the host's name is verified against the certificate as this context says."""
