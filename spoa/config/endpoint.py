"""Where the agent listens, as the configuration writes it."""

from dataclasses import dataclass

from tokens.store.url import MAX_PORT, check_host

WORKER = "{worker}"
"""Stands for the worker's number in the path of a unix socket."""

# sockaddr_un: 108 bytes with the closing NUL. A longer path cannot be bound, only cut short.
MAX_UNIX_PATH_BYTES = 107


@dataclass(frozen=True, slots=True)
class UnixEndpoint:
    """A unix socket, shared by all workers or, with `{worker}` in its path, one for each."""

    path: str
    is_tunnel: bool = False
    """Who connects is a tunnel: HAProxy is on another machine, which has a clock of its own."""

    def __str__(self) -> str:
        return f"{'tunnel' if self.is_tunnel else 'unix'}:{self.path}"

    @property
    def is_local(self) -> bool:
        return not self.is_tunnel

    @property
    def is_per_worker(self) -> bool:
        return WORKER in self.path

    def for_worker(self, index: int) -> "UnixEndpoint":
        return UnixEndpoint(self.path.replace(WORKER, str(index)), self.is_tunnel)


@dataclass(frozen=True, slots=True)
class TcpEndpoint:
    """A TCP port. `host` is a name or an address, without the brackets of IPv6."""

    host: str
    port: int
    is_per_worker = False
    is_local = False  # loopback included: a tunnel may end there, too

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


Endpoint = UnixEndpoint | TcpEndpoint


def parse_endpoint(text: str) -> Endpoint:
    """Read `unix:/path`, `tunnel:/path` or `host:port`. Raises ValueError with a sentence."""
    kind, _, path = text.partition(":")
    if kind in {"unix", "tunnel"}:
        return _parse_unix(path, is_tunnel=kind == "tunnel")
    return _parse_tcp(text, "must be unix:/path, tunnel:/path, host:port or [ipv6]:port")


def parse_tcp(text: str) -> TcpEndpoint:
    """Read `host:port` or `[ipv6]:port`. Raises ValueError with a sentence."""
    return _parse_tcp(text, "must be host:port or [ipv6]:port")


def _parse_unix(path: str, *, is_tunnel: bool) -> UnixEndpoint:
    if not path.startswith("/"):
        raise ValueError(f"the path of a unix socket must be absolute, {path!r} is not")
    if not path.isprintable():
        raise ValueError("the path of a unix socket must be printable")
    size_bytes = len(path.replace(WORKER, "000").encode())
    if size_bytes > MAX_UNIX_PATH_BYTES:
        raise ValueError(
            f"the path of a unix socket has {size_bytes} bytes, {MAX_UNIX_PATH_BYTES} are allowed"
        )
    return UnixEndpoint(path, is_tunnel)


def _parse_tcp(text: str, allowed: str) -> TcpEndpoint:
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if not colon or not host or not port.isascii() or not port.isdigit():
        raise ValueError(allowed)
    if ":" in host and not text.startswith("["):
        raise ValueError("an IPv6 address needs brackets: [::1]:9100")
    if int(port) > MAX_PORT:
        raise ValueError(f"port {port} is above {MAX_PORT}")
    check_host(host)
    return TcpEndpoint(host, int(port))
