"""Redis as it is run in earnest: a cluster, Sentinels, TLS; and a Valkey. All real processes."""

from tests.support.clusters import RunningCluster, running_cluster
from tests.support.ports import (
    ROOT,
    Node,
    await_replicas,
    falling_behind,
    free_port,
    running_node,
    valkey,
)
from tests.support.sentinels import SERVICE, Watched, Watcher, running_sentinels

__all__ = [
    "ROOT",
    "SERVICE",
    "Node",
    "RunningCluster",
    "Watched",
    "Watcher",
    "await_replicas",
    "falling_behind",
    "free_port",
    "running_cluster",
    "running_node",
    "running_sentinels",
    "valkey",
]
