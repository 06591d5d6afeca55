"""Clusters of real processes. Slots move step by step, and primaries fall when a test says so."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import redis
import redis.cluster
from redis.backoff import NoBackoff
from redis.crc import REDIS_CLUSTER_HASH_SLOTS
from redis.retry import Retry

from tests.support.eventually import eventually
from tests.support.ports import Node, running_node, start_node
from tokens.store.tls import TlsFiles

# Who is dead is the test's to say; who loses a slot goes on with the others.
_OF_CLUSTER = (
    *("--cluster-enabled", "yes", "--cluster-node-timeout", "60000"),
    *("--cluster-require-full-coverage", "no", "--repl-diskless-sync-delay", "0"),
)


@dataclass(frozen=True)
class RunningCluster:
    """Three primaries, and one replica of each if asked for."""

    primaries: list[Node]
    replicas: list[Node]
    is_tls: bool = False

    @property
    def url(self) -> str:
        scheme = "rediss" if self.is_tls else "redis"
        return f"{scheme}+cluster://" + ",".join(node.host for node in self.primaries)

    def client(self) -> redis.RedisCluster:
        """Open a client that sends no command twice."""
        seeds = [
            redis.cluster.ClusterNode("127.0.0.1", node.port)
            for node in [*self.primaries, *self.replicas]
        ]
        return redis.RedisCluster(startup_nodes=seeds, retry=Retry(NoBackoff(), 0), protocol=2)

    @contextlib.contextmanager
    def joined_by(self, *settings: str, binary: str | Path | None = None) -> Iterator[Node]:
        """Run one more primary, without slots, until the block ends."""
        with running_node(*_OF_CLUSTER, *settings, binary=binary) as node, node.client() as new:
            for other in self.primaries:
                new.execute_command("CLUSTER", "MEET", "127.0.0.1", other.port)
            for other in self.primaries:
                with other.client() as client:
                    eventually(partial(_knows, client, _id(new)), "the new node is known")
            self.primaries.append(node)
            eventually(partial(_is_ready, node, len(self.primaries)), "the new node is ready")
            yield node

    def owner(self, slot: int) -> Node:
        """Return the primary that has a slot, as that primary itself sees it."""
        for node in [*self.primaries, *self.replicas]:
            if node.server.process.poll() is None and slot in _slots(node):
                return node
        raise AssertionError(f"nobody has slot {slot}")

    def move(self, slot: int, to: Node) -> Iterator[str]:
        """Move a slot as redis-cli's reshard does, in steps: the name of each when it is done."""
        owner = self.owner(slot)
        with owner.client() as source, to.client() as target:
            ids = [_id(source), _id(target)]
            target.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", ids[0])
            yield "importing"
            source.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", ids[1])
            yield "migrating"
            while keys := source.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
                source.execute_command("MIGRATE", "127.0.0.1", to.port, "", 0, 5000, "KEYS", *keys)
                yield "migrated"
            for client in (target, source):
                client.execute_command("CLUSTER SETSLOT", slot, "NODE", ids[1])
                yield "settled"


def _id(client: redis.Redis) -> str:
    return str(client.execute_command("CLUSTER", "MYID"), "ascii")


def _slots(node: Node) -> set[int]:
    """Return the slots that a node says are its own."""
    with node.client() as client:
        lines = str(client.execute_command("CLUSTER", "NODES"), "ascii")
    (mine,) = [line.split() for line in lines.splitlines() if "myself" in line]
    ranges = [part.split("-") for part in mine[8:] if "[" not in part]
    return {slot for part in ranges for slot in range(int(part[0]), int(part[-1]) + 1)}


@contextlib.contextmanager
def running_cluster(
    *settings: str,
    replicas: bool = False,
    tls: TlsFiles | None = None,
    binary: str | Path | None = None,
) -> Iterator[RunningCluster]:
    """Run a cluster of three primaries until the block ends.

    Nobody is taken for dead by it: a test that kills a primary promotes the replica itself
    (CLUSTER FAILOVER TAKEOVER), and no slow machine does it unasked.
    """
    with contextlib.ExitStack() as stack:
        count = 6 if replicas else 3
        nodes = [start_node(stack, (*_OF_CLUSTER, *settings), tls, binary) for _ in range(count)]
        cluster = RunningCluster(nodes[:3], nodes[3:], tls is not None)
        _join(cluster)
        yield cluster


def _join(cluster: RunningCluster) -> None:
    nodes = [*cluster.primaries, *cluster.replicas]
    bounds = [0, 5461, 10923, REDIS_CLUSTER_HASH_SLOTS]
    for epoch, node in enumerate(nodes, start=1):
        with node.client() as client:
            client.execute_command("CLUSTER SET-CONFIG-EPOCH", epoch)
    for node, (start, end) in zip(cluster.primaries, pairwise(bounds), strict=True):
        with node.client() as client:
            client.execute_command("CLUSTER ADDSLOTS", *range(start, end))
    # Everybody meets everybody, so that nobody has to wait for gossip.
    for node in nodes:
        with node.client() as client:
            for other in nodes:
                if other is not node:
                    client.execute_command("CLUSTER MEET", "127.0.0.1", other.port)
    for primary, replica in zip(cluster.primaries, cluster.replicas, strict=False):
        with replica.client() as client, primary.client() as of_primary:
            name = _id(of_primary)
            eventually(partial(_knows, client, name), "the replica has met its primary")
            client.execute_command("CLUSTER REPLICATE", name)
    for node in nodes:
        eventually(partial(_is_ready, node, len(nodes)), f"the node {node.host} is ready")


def _knows(client: redis.Redis, name: str) -> bool:
    return name in str(client.execute_command("CLUSTER", "NODES"), "ascii")


def _is_ready(node: Node, count: int) -> bool:
    with node.client() as client:
        said = str(client.execute_command("CLUSTER", "INFO"), "ascii")
        info = dict(line.split(":") for line in said.split())
        replication = client.info("replication")
    is_whole = info["cluster_state"] == "ok" and info["cluster_known_nodes"] == str(count)
    is_linked = replication["role"] == "master" or replication["master_link_status"] == "up"
    return is_whole and info["cluster_slots_ok"] == str(REDIS_CLUSTER_HASH_SLOTS) and is_linked
