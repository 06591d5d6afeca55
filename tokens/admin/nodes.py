"""The primaries of a store, for those who change it by hand: one connection to each, kept.

Kept, because WAIT speaks of what its own connection has written, and of nothing else. A single
Redis and what Sentinel leads to are one node; a cluster has several.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import redis
from redis.exceptions import AskError, MovedError, NoPermissionError

from tokens.store.client import Client

Progress = Callable[[int, int], None]
"""Told after each step of a search: how many keys were looked at, and of how many; 0: not known."""

SCAN_STEP = 1000
"""Keys per step: 0.2 ms of Redis's time, during which it serves nobody else."""

# Shorter than the time-out of any connection: a WAIT in its full length would look like a dead one.
_WAIT_STEP_MS = 500

# A slot on its way to another node asks for one, a stale map of the cluster for one more.
_MAX_REDIRECTIONS = 5


class Confirmed(NamedTuple):
    """How many replicas were asked to confirm, and did, at the primary where it is worst."""

    asked: int = 0
    replicas: int = 0

    @property
    def is_enough(self) -> bool:
        return self.replicas >= self.asked


class Nodes:
    """The primaries behind a client of the caller's, who closes it."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._links: dict[str, _Link] = {}
        self._written: dict[str, _Link] = {}
        self.silent: set[str] = set()
        """Primaries of a cluster that did not answer, while others did."""

    def run(self, key: bytes, *command: bytes | str | float) -> Any:
        """Ask the primary that has a key. What it answers is redis-py's to say."""
        reply, _ = self._run(key, command)
        return reply

    def write(self, key: bytes, *command: bytes | str | float) -> Any:
        """Do the same for a command that changes something, unless it answers 0 or nothing."""
        reply, name = self._run(key, command)
        if reply and name not in self._written:
            self._written[name] = self._links[name]
            self._links[name].is_the_same = True
        return reply

    def now_ms(self) -> int:
        """Tell the time: of several clocks the one that is ahead.

        A primary that is down dates nothing, and must not keep anybody from revoking. When it is
        back with a clock that is ahead, a token that it dated before may outlive the cut.
        """
        clocks: list[tuple[int, int]] = [reply for _, reply in self._each("TIME")]
        return max(seconds * 1000 + micros // 1000 for seconds, micros in clocks)

    def scan(self, pattern: bytes, progress: Progress) -> Iterator[bytes]:
        """Find all keys that match, on all primaries, each once."""
        for _, keys in self._pages(pattern, progress):
            yield from keys

    def values(self, pattern: bytes, progress: Progress) -> Iterator[tuple[bytes, bytes]]:
        """Find all texts whose keys match, on all primaries."""
        for link, keys in self._pages(pattern, progress):
            found = zip(keys, link.get_each(keys), strict=True)
            yield from ((key, raw) for key, raw in found if isinstance(raw, bytes))

    def wait(self, replicas: int | None, timeout_ms: int) -> Confirmed:
        """Wait until so many replicas have what was written; None: one, where there are any."""
        answers = [link.wait(replicas, timeout_ms) for link in self._written.values()]
        self._written.clear()
        return max(answers, key=lambda answer: answer.asked - answer.replicas, default=Confirmed())

    def _pages(self, pattern: bytes, progress: Progress) -> Iterator[tuple["_Link", list[bytes]]]:
        total = self._size()
        looked = 0
        seen: set[bytes] = set()
        for link in self._primaries():
            cursor = -1
            while cursor:
                step = ("SCAN", max(cursor, 0), "MATCH", pattern, "COUNT", SCAN_STEP)
                cursor, found = link.run(*step)
                looked += SCAN_STEP
                progress(min(looked, total) if total else looked, total)
                fresh = set(found) - seen
                seen |= fresh
                yield link, sorted(fresh)

    def _size(self) -> int:
        """Count the keys, for those who wait; 0 for a user who may not."""
        try:
            return sum(size for _, size in self._each("DBSIZE"))
        except NoPermissionError:
            return 0

    def _each(self, *command: str) -> list[tuple["_Link", Any]]:
        """Ask every primary that answers. Raises what the last one did, when none does."""
        replies, last = [], None
        for name in self._names():
            try:
                link = self._link(name)
                replies.append((link, link.run(*command)))
            except (redis.ConnectionError, redis.TimeoutError) as error:
                self.silent.add(name)
                last = error
        if last and not replies:
            raise last
        return replies

    def _run(self, key: bytes, command: tuple[bytes | str | float, ...]) -> tuple[Any, str]:
        """Run a command; return its reply, and the name of the node that gave it."""
        name = self._home(key)
        for _ in range(_MAX_REDIRECTIONS):
            try:
                return self._links[name].run(*command), name
            except MovedError:  # an AskError too, to redis-py
                if not isinstance(self._client, redis.RedisCluster):
                    raise
                self._look_again()
                name = self._home(key)
            except AskError as elsewhere:
                name = self._named(f"{elsewhere.host}:{elsewhere.port}")
                self._links[name].run("ASKING")
        raise redis.ResponseError("the cluster is being moved about: try again")

    def _home(self, key: bytes) -> str:
        """Name the node of a key, with a connection to it in place."""
        if not isinstance(self._client, redis.RedisCluster):
            return self._linked("", self._client)
        return self._named(self._client.get_node_from_key(key).name)  # type: ignore[no-untyped-call]

    def _named(self, name: str) -> str:
        assert isinstance(self._client, redis.RedisCluster)  # nobody else has names
        if name not in self._links and self._client.get_node(node_name=name) is None:  # type: ignore[no-untyped-call]
            self._look_again()
        node = self._client.get_node(node_name=name)  # type: ignore[no-untyped-call]
        if node is None:
            raise redis.ResponseError(f"the cluster names {name} and does not list it: try again")
        return self._linked(name, self._client.get_redis_connection(node))

    def _look_again(self) -> None:
        assert isinstance(self._client, redis.RedisCluster)
        self._client.nodes_manager.initialize()

    def _primaries(self) -> list["_Link"]:
        """Return those that answer. A search of what is left finds what is left."""
        return [link for link, _ in self._each("TIME")]

    def _names(self) -> list[str]:
        if isinstance(self._client, redis.RedisCluster):
            return [node.name for node in self._client.get_primaries()]  # type: ignore[no-untyped-call]
        return [""]

    def _link(self, name: str) -> "_Link":
        if isinstance(self._client, redis.RedisCluster):
            return self._links[self._named(name)]
        return self._links[self._linked(name, self._client)]

    def _linked(self, name: str, client: redis.Redis) -> str:
        if name not in self._links:
            self._links[name] = _Link(client)
        return name


class _Link:
    """One connection to one primary, which knows whether it is still the one that wrote.

    A client that retries connects anew without a word, to whoever is there by then; a WAIT on that
    connection would tell how many replicas have nothing.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client.client()  # type: ignore[no-untyped-call]
        self.is_the_same = True
        assert self._client.connection is not None  # a client of one connection
        self._client.connection.register_connect_callback(self._connected)

    def run(self, *command: bytes | str | float) -> Any:
        return self._client.execute_command(*command)

    def get_each(self, keys: list[bytes]) -> list[object]:
        """Read several keys in one go; what is no text is an error in its place."""
        with self._client.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.execute_command("GET", key)
            found: list[object] = pipeline.execute(raise_on_error=False)
            return found

    def wait(self, replicas: int | None, timeout_ms: int) -> Confirmed:
        """Wait, in steps, for what was written since the last time."""
        if replicas is None:
            replicas = min(1, self.run("INFO", "replication")["connected_slaves"])
        if not replicas:
            return Confirmed()  # and no permission needed
        confirmed = 0
        while timeout_ms > 0:
            # Never 0, which to Redis is for ever.
            confirmed = self.run("WAIT", replicas, min(timeout_ms, _WAIT_STEP_MS))
            if confirmed >= replicas:
                break
            timeout_ms -= _WAIT_STEP_MS
        return Confirmed(replicas, confirmed if self.is_the_same else 0)

    def _connected(self, _: object) -> None:
        self.is_the_same = False
