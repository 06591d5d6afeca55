"""What the servers of a store say of themselves, and why tokens would not be safe in them."""

from dataclasses import dataclass

import redis
from redis.exceptions import BusyLoadingError, NoPermissionError, ResponseError
from redis.sentinel import SentinelConnectionPool

from tokens.store.advice import CLUSTER_NODE, SENTINEL
from tokens.store.client import SYSTEM_CAS, Client, StoreFault, connect, open_sentinels, spoken
from tokens.store.tls import TlsFiles
from tokens.store.url import ClusterUrl, Host, SentinelUrl, ServerUrl, StoreUrl, parse_store_url

MIN_VERSION = (6, 2)
"""Redis of the contract. Valkey's INFO tells a redis_version of 7.2 or later."""


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What one server says of itself."""

    server: str
    version: str
    role: str
    eviction: str
    is_full: bool
    """Whether it has reached its maxmemory, and refuses to store more."""
    is_append_only: bool
    """Whether a restart brings back what was written last, and not some snapshot."""
    refusal: str
    """Why it takes no commands just now: it is loading, or its disk is full. Mostly empty."""

    def faults(self) -> list[str]:
        """Say why tokens would not be safe in this Redis, or not consumable at all."""
        faults = []
        if tuple(int(part) for part in self.version.split(".")[:2]) < MIN_VERSION:
            faults.append(f"version {self.version} is too old: 6.2 or later is needed")
        if self.role != "master":
            faults.append(f"it is a {self.role}: tokens can be consumed on a primary only")
        if self.eviction != "noeviction":
            faults.append(
                f"maxmemory-policy is {self.eviction}: who has a token that is evicted is refused, "
                "and a replay looks like a guess; set noeviction"
            )
        if self.is_full:
            faults.append("it is full: used_memory has reached maxmemory; raise maxmemory")
        if self.refusal:
            faults.append(f"it takes no commands: {self.refusal}")
        return faults

    def __str__(self) -> str:
        return f"{self.server} {self.version}, {self.role}, {self.eviction}"


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """What a store is made of: its primaries by their address, or the only one by no name."""

    servers: dict[str, ServerFacts]
    warnings: list[str]
    """What works today, and will be missed one day."""

    def faults(self) -> list[str]:
        return [
            f"{name}: {fault}" if name else fault
            for name, facts in self.servers.items()
            for fault in facts.faults()
        ]

    def __str__(self) -> str:
        return "; ".join(
            f"{name}: {facts}" if name else str(facts) for name, facts in self.servers.items()
        )


def describe_store(url: str, tls: TlsFiles = SYSTEM_CAS) -> StoreFacts:
    """Ask every primary what it is. Raises StoreFault when one does not answer."""
    place = parse_store_url(url)
    with connect(url, tls) as client:
        servers = {
            name: _describe(one, is_in_cluster=isinstance(place, ClusterUrl))
            for name, one in _primaries(client)
        }
    warnings = [*_open_ports(place), *_snapshots(servers), *_sentinel_warnings(place, tls)]
    return StoreFacts(servers, warnings)


def _snapshots(servers: dict[str, ServerFacts]) -> list[str]:
    names = [name for name, facts in servers.items() if not facts.is_append_only]
    if not names:
        return []
    whose = f"{', '.join(filter(None, names))}: " if any(names) else ""
    warning = (
        f"{whose}appendonly is off: a restart from a snapshot brings back sessions, grants and "
        "addresses that were revoked since; set appendonly yes"
    )
    return [warning]


def _primaries(client: Client) -> list[tuple[str, redis.Redis]]:
    if isinstance(client, redis.RedisCluster):
        nodes = client.get_primaries()  # type: ignore[no-untyped-call]
        return [(node.name, client.get_redis_connection(node)) for node in nodes]
    if isinstance(client.connection_pool, SentinelConnectionPool):
        pool = client.connection_pool
        host, port = pool.get_master_address()  # type: ignore[no-untyped-call]
        return [(str(Host(host, port)), client)]
    return [("", client)]


def _describe(client: redis.Redis, *, is_in_cluster: bool) -> ServerFacts:
    """Ask one server. Raises StoreFault for one that the URL is not made for."""
    info: dict[str, object] = client.info("everything")
    mode = info.get("redis_mode", info.get("server_mode"))
    if mode == "sentinel":
        raise StoreFault(f"Redis at {_at(client)}: {SENTINEL}")
    if mode == "cluster" and not is_in_cluster:
        raise StoreFault(f"Redis at {_at(client)}: {CLUSTER_NODE}")
    return ServerFacts(
        server="valkey" if "valkey_version" in info else "redis",
        version=str(info.get("redis_version", "0.0")),
        role=str(info.get("role", "unknown")),
        eviction=str(info.get("maxmemory_policy", "unknown")),
        is_full=0 < _number(info, "maxmemory") <= _number(info, "used_memory"),
        is_append_only=info.get("aof_enabled") == 1,
        refusal=_refusal(client),
    )


def _at(client: redis.Redis) -> str:
    settings = client.connection_pool.connection_kwargs
    return str(settings.get("path") or Host(settings["host"], settings["port"]))


def _number(info: dict[str, object], name: str) -> int:
    value = info.get(name)
    return value if isinstance(value, int) else 0


def _refusal(client: redis.Redis) -> str:
    """Ask for a PONG. Redis refuses it for what makes it refuse writes: MISCONF and the like.

    The server's own verdict, and so more than INFO's rdb_last_bgsave_status tells: what that
    leads to depends on `save`, `stop-writes-on-bgsave-error` and `appendonly`.
    """
    try:
        client.ping()
    except NoPermissionError:
        return ""  # a user of the contract need not have PING
    except (BusyLoadingError, ResponseError) as error:
        return str(error)
    return ""


def _open_ports(place: StoreUrl) -> list[str]:
    is_local = isinstance(place, ServerUrl) and place.path is not None
    if is_local or place.is_tls or place.login.password:
        return []
    return ["no password: whoever reaches its port can issue tokens"]


def _sentinel_warnings(place: StoreUrl, tls: TlsFiles) -> list[str]:
    """Ask each Sentinel alone: one that is missing is not noticed before it is needed."""
    if not isinstance(place, SentinelUrl):
        return []
    warnings = []
    clients = open_sentinels(place, tls=tls).sentinels
    for host, client in zip(place.sentinels, clients, strict=True):
        with client:
            try:
                client.sentinel_master(place.service)
            except redis.RedisError as error:
                warnings.append(f"Sentinel {host}: {spoken(error)}")
    return warnings
