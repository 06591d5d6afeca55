"""Where the tokens are, as a URL says it: one server, Sentinels that know it, or a cluster. Pure.

    redis://[user:password@]host[:6379][/db]             one server; rediss:// for TLS
    unix://[user:password@]/path[?db=0]                  one server on this machine
    redis+sentinel://[user:password@]host[:26379],.../service[/db]
                         [?sentinel_user=..&sentinel_password=..]
    redis+cluster://[user:password@]host[:6379],...      some of its nodes: they name the others

`rediss+sentinel` and `rediss+cluster` speak TLS to Sentinels and servers alike. User and password
are those of the servers that hold tokens. What is escaped with % is unescaped.

A URL may hold a password: what is said about one that cannot be read quotes no part of it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ssl import SSLContext
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote

from tokens.store.place import Place

REDIS_PORT = 6379
SENTINEL_PORT = 26379
MAX_PORT = 65_535

# Each is tried in turn before a store is given up; redis.io advises three to five Sentinels.
MAX_HOSTS = 32

# sockaddr_un: 108 bytes with the closing NUL. A longer path cannot be connected to.
MAX_UNIX_PATH_BYTES = 107

FORMS = (
    "redis://[user:password@]host[:port][/db], unix://[user:password@]/path[?db=0], "
    "redis+sentinel://[user:password@]host[:port],.../service[/db] "
    "or redis+cluster://[user:password@]host[:port],...; rediss for TLS"
)


class NoStoreUrl(ValueError):
    """It has not the form of any URL that names a store."""


class Host(NamedTuple):
    """A server's name or address, without the brackets of IPv6, and its port."""

    name: str
    port: int

    def __str__(self) -> str:
        return f"[{self.name}]:{self.port}" if ":" in self.name else f"{self.name}:{self.port}"


class Login(NamedTuple):
    """Who we are. Never shown: `Place` and the URLs below leave it out of their repr."""

    user: str | None = None
    password: str | None = None


@dataclass(frozen=True, slots=True)
class ServerUrl:
    """One server, at a TCP port or, with a path, at a unix socket."""

    host: Host
    path: str | None = None
    login: Login = field(default=Login(), repr=False)
    db: int = 0
    is_tls: bool = False

    def __str__(self) -> str:
        return self.path or str(self.host)

    def place(self, ssl: SSLContext | None) -> Place:
        return Place(*self.host, self.path, *self.login, self.db, ssl)


@dataclass(frozen=True, slots=True)
class SentinelUrl:
    """Sentinels, and the name under which they watch the primary we want."""

    sentinels: tuple[Host, ...]
    service: str
    login: Login = field(default=Login(), repr=False)
    sentinel_login: Login = field(default=Login(), repr=False)
    db: int = 0
    is_tls: bool = False

    def __str__(self) -> str:
        return f"{self.service} of the Sentinels {', '.join(map(str, self.sentinels))}"

    def place(self, host: Host, ssl: SSLContext | None) -> Place:
        return Place(*host, None, *self.login, self.db, ssl)


@dataclass(frozen=True, slots=True)
class ClusterUrl:
    """Some nodes of a cluster."""

    seeds: tuple[Host, ...]
    login: Login = field(default=Login(), repr=False)
    is_tls: bool = False

    def __str__(self) -> str:
        return f"the cluster {', '.join(map(str, self.seeds))}"

    def place(self, host: Host, ssl: SSLContext | None) -> Place:
        return Place(*host, None, *self.login, 0, ssl, is_in_cluster=True)


StoreUrl = ServerUrl | SentinelUrl | ClusterUrl


_OPTIONS = {
    "redis": (),
    "unix": ("db",),
    "redis+sentinel": ("sentinel_user", "sentinel_password"),
    "redis+cluster": (),
}


def parse_store_url(url: str) -> StoreUrl:
    """Read a URL. Raises ValueError with a sentence; NoStoreUrl if it has no known form at all."""
    scheme, _, rest = url.partition("://")
    is_tls = scheme.partition("+")[0] == "rediss"
    form = scheme.replace("rediss", "redis", 1)
    if form not in _OPTIONS:
        raise NoStoreUrl(f"must be {FORMS}")
    if "#" in rest:
        raise ValueError("has a #, which means nothing here: in a password write %23")
    rest, _, query = rest.partition("?")
    authority, slash, path = rest.partition("/")
    secret, at, hosts = authority.rpartition("@")
    login = _login(secret, is_given=bool(at))
    options = _options(query, _OPTIONS[form])
    match form:
        case "unix":
            return _unix(hosts, slash + path, login, options)
        case "redis":
            return _server(hosts, path, login, is_tls=is_tls)
        case "redis+sentinel":
            return _sentinel(hosts, path, login, options, is_tls=is_tls)
        case _:
            return _cluster(hosts, path, login, is_tls=is_tls)


def keys_per_call(url: StoreUrl, most: int) -> int:
    """Tell how many keys one command may name: in a cluster they would be of several slots."""
    return 1 if isinstance(url, ClusterUrl) else most


def check_host(name: str) -> None:
    """Refuse what no resolver takes. Raises ValueError with a sentence that does not quote it."""
    try:
        # As socket.getaddrinfo does it, where the fault would be an exception nobody expects.
        name.encode("idna")
    except UnicodeError:
        raise ValueError(
            "is no host name: each part between dots must have 1 to 63 characters"
        ) from None
    if not name.isprintable() or " " in name:
        raise ValueError("is no host name: it must be printable, without blanks")


def _unix(hosts: str, path: str, login: Login, options: Mapping[str, str]) -> ServerUrl:
    if hosts or len(path) < 2:  # noqa: PLR2004 - a slash and a name
        raise NoStoreUrl(f"must be {FORMS}")
    path = unquote(path)
    if not path.isprintable() or len(path.encode()) > MAX_UNIX_PATH_BYTES:
        raise ValueError(f"has a path that is not printable, or longer than {MAX_UNIX_PATH_BYTES}")
    return ServerUrl(Host("localhost", 0), path, login, _db(options.get("db", "0")))


def _server(hosts: str, path: str, login: Login, *, is_tls: bool) -> ServerUrl:
    if "," in hosts:
        raise ValueError("names several hosts: only redis+sentinel:// and redis+cluster:// do")
    (host,) = _hosts(hosts, REDIS_PORT)
    return ServerUrl(host, None, login, _db(path), is_tls)


def _sentinel(
    hosts: str, path: str, login: Login, options: Mapping[str, str], *, is_tls: bool
) -> SentinelUrl:
    sentinels = _hosts(hosts, SENTINEL_PORT)
    service, _, db = path.partition("/")
    # sentinel.conf: "The valid charset is A-z 0-9 and the three characters ".-_"."
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,128}", service, re.ASCII):
        raise ValueError(
            "names no service of the Sentinels: redis+sentinel://host:26379/SERVICE, of letters, "
            "digits and .-_"
        )
    user, password = options.get("sentinel_user"), options.get("sentinel_password")
    if user and not password:
        raise ValueError("has a sentinel_user without a sentinel_password")
    return SentinelUrl(sentinels, service, login, Login(user, password), _db(db), is_tls)


def _cluster(hosts: str, path: str, login: Login, *, is_tls: bool) -> ClusterUrl:
    seeds = _hosts(hosts, REDIS_PORT)
    if path not in ("", "0"):
        raise ValueError("names a database: a cluster has none but 0")
    return ClusterUrl(seeds, login, is_tls)


def _login(secret: str, *, is_given: bool) -> Login:
    user, _, password = secret.partition(":")
    if is_given and not password:
        # Redis would take us for the user `default`, whoever is meant.
        raise ValueError("has a user without a password: write user:password@ or :password@")
    return Login(unquote(user) or None, unquote(password) or None)


def _hosts(text: str, default_port: int) -> tuple[Host, ...]:
    if not text:
        raise NoStoreUrl(f"must be {FORMS}")
    hosts = tuple(_host(part, default_port) for part in text.split(","))
    if len(hosts) > MAX_HOSTS:
        raise ValueError(f"names {len(hosts)} hosts, {MAX_HOSTS} are allowed")
    return hosts


def _host(text: str, default_port: int) -> Host:
    found = re.fullmatch(r"(\[[\da-fA-F:.]+\]|[^:\[\]]+)(?::(\d{1,5}))?", text, re.ASCII)
    if not found or int(found[2] or 0) > MAX_PORT:
        # A port that is no number is the password of a URL without its @.
        raise ValueError("is no URL: its host or its port cannot be read")
    name, port = unquote(found[1].strip("[]")), int(found[2] or default_port)
    check_host(name)
    if port == 0:
        raise ValueError(f"has the port 0: 1 to {MAX_PORT} are ports")
    return Host(name, port)


def _db(text: str) -> int:
    if not re.fullmatch(r"\d{0,4}", text, re.ASCII):
        raise ValueError("has a database that is no number of at most four digits")
    return int(text or 0)


def _options(query: str, known: tuple[str, ...]) -> dict[str, str]:
    pairs = parse_qsl(query, keep_blank_values=True)
    options = dict(pairs)
    if not options.keys() <= set(known) or len(options) < len(pairs):
        takes = " and ".join(known) or "none"
        raise ValueError(f"has an option that is not known, or one twice: this form takes {takes}")
    return options
