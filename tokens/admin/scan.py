"""A sorted set or a hash, read whole: in small steps, and all of it from one server."""

from typing import Any, Final, Generic, NamedTuple, TypeVar

import redis
from redis.exceptions import AskError, MovedError, ReadOnlyError, RedisClusterException

from tokens.store.client import Client

T = TypeVar("T", float, bytes)

PER_STEP: Final = 1000
"""Entries per command: 0.8 ms of Redis's time, during which it serves nobody else."""

# A slot on its way to another node asks for two, a failover in the middle of it for one more.
_MAX_STARTS: Final = 5

_Words = tuple[bytes | str | int, ...]


class Scan(NamedTuple, Generic[T]):
    """All that a key had."""

    server: str
    """The master_replid of who told it: every restart and every promotion draws another one."""
    now_ms: int
    """By that server's clock, before any of it was read."""
    found: dict[bytes, T]


class Scanner:
    """Reads keys of one server, of what Sentinels lead to, or of a cluster.

    By ZSCAN and HSCAN, with a COUNT: what is there from the first step to the last is found; what
    comes or goes meanwhile may be. One command for 100,000 grants would hold up Redis for 25 ms. To
    page by score or rank would miss what moves while it stands: an entry whose end is brought
    forward, or one that moves up because another is gone.

    Raises redis.RedisError when Redis does not answer, refuses, or is a replica.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    def scores(self, key: bytes) -> Scan[float]:
        """Read a sorted set."""
        return self._scan(key, ("ZSCAN", key), ("COUNT", PER_STEP))

    def fields(self, key: bytes, pattern: bytes) -> Scan[bytes]:
        """Read the fields of a hash whose names match."""
        return self._scan(key, ("HSCAN", key), ("MATCH", pattern, "COUNT", PER_STEP))

    def home(self, key: bytes) -> redis.Redis:
        """Return a client of the server that has a key."""
        if not isinstance(self._client, redis.RedisCluster):
            return self._client
        try:
            node = self._client.get_node_from_key(key)  # type: ignore[no-untyped-call]
        except RedisClusterException as error:  # which is no RedisError: nobody has the slot
            raise redis.ConnectionError(str(error)) from None
        return self._client.get_redis_connection(node)

    def look_again(self) -> None:
        """Learn anew who has what. Whoever cannot reach a server of a cluster has to."""
        if isinstance(self._client, redis.RedisCluster):
            try:
                self._client.nodes_manager.initialize()
            except RedisClusterException as error:
                raise redis.ConnectionError(str(error)) from None

    def _scan(self, key: bytes, head: _Words, tail: _Words) -> Scan[Any]:
        server, is_asking = self.home(key), False
        for _ in range(_MAX_STARTS):
            try:
                scan = _read(server, head, tail, is_asking=is_asking)
            except MovedError:  # an AskError too, to redis-py
                if not isinstance(self._client, redis.RedisCluster):
                    raise
                self.look_again()
                server, is_asking = self.home(key), False
            except AskError as elsewhere:
                server, is_asking = self._named(f"{elsewhere.host}:{elsewhere.port}"), True
            else:
                if scan:
                    return scan
        raise redis.ResponseError("keys are being moved between servers: try again")

    def _named(self, name: str) -> redis.Redis:
        """Return a client of a node that the cluster has named."""
        assert isinstance(self._client, redis.RedisCluster)  # nobody else is sent elsewhere
        node = self._client.get_node(node_name=name)  # type: ignore[no-untyped-call]
        if node is None:
            self.look_again()
            node = self._client.get_node(node_name=name)  # type: ignore[no-untyped-call]
        if node is None:
            raise redis.ConnectionError(f"the cluster names {name} and does not list it")
        return self._client.get_redis_connection(node)


def _read(server: redis.Redis, head: _Words, tail: _Words, *, is_asking: bool) -> Scan[Any] | None:
    """Scan from beginning to end; None if not all of it was told by the same server.

    A cursor is a place in a server's own hash table, and anywhere in that of another one, which
    may be there after any step: a client connects anew, slots move.
    """
    first, cursor, found = _step(server, (*head, 0, *tail), is_asking=is_asking)
    while cursor:
        scan, cursor, more = _step(server, (*head, cursor, *tail), is_asking=is_asking)
        if scan.server != first.server:
            return None
        found.update(more)
    return first._replace(found=found)


def _step(
    server: redis.Redis, command: _Words, *, is_asking: bool
) -> tuple[Scan[Any], int, dict[bytes, Any]]:
    """Run one command; return who answers and when, where to go on, and what was found."""
    with server.pipeline(transaction=False) as pipeline:
        pipeline.execute_command("INFO", "replication")  # type: ignore[no-untyped-call]
        pipeline.execute_command("TIME")  # type: ignore[no-untyped-call]
        if is_asking:
            # It holds for the next command alone.
            pipeline.execute_command("ASKING")  # type: ignore[no-untyped-call]
        pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
        replies: list[Any] = pipeline.execute(raise_on_error=False)
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    info, (seconds, micros), *_, (cursor, found) = replies
    if info["role"] != "master":
        # It does not lead us to another one while we stay.
        server.connection_pool.disconnect(inuse_connections=False)
        raise ReadOnlyError("this server is a read only replica")
    now_ms = seconds * 1000 + micros // 1000
    return Scan(info["master_replid"], now_ms, {}), cursor, dict(found)
