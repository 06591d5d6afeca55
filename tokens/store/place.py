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
    is_in_cluster: bool = False
    """Whether it should be: a node of a cluster has some of the keys only."""

    def __str__(self) -> str:
        if self.path is not None:
            return self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
