"""What servers say of themselves, and what would make them unsafe."""

import time
from collections.abc import Callable

import pytest

from tests.support.redis import RedisServer, running_redis
from tests.support.topologies import RunningCluster, running_node, running_sentinels, valkey
from tokens.admin.facts import ServerFacts, describe_store


def facts_of(version: str = "7.0", eviction: str = "noeviction") -> ServerFacts:
    return ServerFacts(
        "redis", version, "master", eviction, is_full=False, is_append_only=True, refusal=""
    )


def beside_snapshots(warnings: list[str]) -> list[str]:
    """Leave out what the tests' servers, which keep nothing, are all warned of."""
    return [warning for warning in warnings if "appendonly" not in warning]


def test_a_store_that_may_forget_revocations_is_warned_of(
    start_redis: Callable[..., RedisServer],
) -> None:
    """A restart from a snapshot brings back what was revoked since: one that may do so is told."""
    forgetful = describe_store(f"unix://{start_redis().socket}").warnings
    assert ["appendonly is off" in warning for warning in forgetful] == [True]
    assert describe_store(f"unix://{start_redis('--appendonly', 'yes').socket}").warnings == []


def test_a_store_says_what_it_is(start_redis: Callable[..., RedisServer]) -> None:
    """The facts come from the server itself."""
    facts = describe_store(f"unix://{start_redis('--appendonly', 'yes').socket}")
    [server] = facts.servers.values()
    assert (server.role, server.eviction, facts.warnings) == ("master", "noeviction", [])
    assert facts.faults() == []
    assert str(facts) == f"{server.server} {server.version}, master, noeviction"


@pytest.mark.parametrize(
    ("version", "is_old"), [("6.0.16", True), ("6.2.0", False), ("7.0", False), ("10.1.2", False)]
)
def test_an_old_server_is_a_fault(version: str, is_old: bool) -> None:  # noqa: FBT001 - a case
    """The scripts need Redis 6.2."""
    facts = ServerFacts(
        "redis", version, "master", "noeviction", is_full=False, is_append_only=True, refusal=""
    )
    assert bool(facts.faults()) is is_old


def test_a_store_that_evicts_is_a_fault() -> None:
    """What is evicted is gone: nothing comes back to life, and honest users are refused."""
    facts = ServerFacts(
        "redis", "7.0", "master", "allkeys-lru", is_full=False, is_append_only=True, refusal=""
    )
    [fault] = facts.faults()
    assert "who has a token that is evicted is refused" in fault
    assert fault.endswith("set noeviction")


def test_a_full_store_is_a_fault(start_redis: Callable[..., RedisServer]) -> None:
    """A Redis at its maxmemory stores nothing."""
    server = start_redis("--maxmemory", "1")
    [fault] = describe_store(f"unix://{server.socket}").faults()
    assert fault.startswith("it is full")


def test_a_store_that_cannot_save_is_a_fault(start_redis: Callable[..., RedisServer]) -> None:
    """A Redis that refuses writes until it can save says so, though it still answers INFO."""
    server = start_redis("--save", "3600 1")
    (server.directory / "dump.rdb").mkdir()  # in the way of the snapshot, also of root's
    with server.client() as client:
        client.bgsave()
        deadline = time.monotonic() + 10
        while client.info("persistence")["rdb_last_bgsave_status"] != "err":
            assert time.monotonic() < deadline
    [fault] = describe_store(f"unix://{server.socket}").faults()
    assert "snapshot" in fault


def test_a_port_without_password_is_open() -> None:
    """Over TCP, a server that asks for nothing lets everybody issue; a unix socket has an owner."""
    with running_node() as node:
        [warning] = beside_snapshots(describe_store(f"redis://127.0.0.1:{node.port}").warnings)
        assert warning.startswith("no password")
        assert not beside_snapshots(describe_store(f"unix://{node.server.socket}").warnings)
        with node.client() as client:
            client.config_set("requirepass", "x")
        closed = describe_store(f"redis://:x@127.0.0.1:{node.port}")
        assert not beside_snapshots(closed.warnings)


def test_a_valkey_is_called_by_its_name() -> None:
    """Valkey, which says that it is a Redis 7, too, is a store as good."""
    with running_redis(binary=valkey()) as server:
        facts = describe_store(f"unix://{server.socket}")
    assert str(facts).startswith("valkey 7.")
    assert facts.faults() == []


def test_every_primary_of_a_cluster_is_looked_at(shared_cluster: RunningCluster) -> None:
    """A fault of one primary is told with its address, and none of the others'."""
    ill = shared_cluster.primaries[1]
    with ill.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            facts = describe_store(shared_cluster.url)
        finally:
            client.config_set("maxmemory-policy", "noeviction")
    assert facts.servers.keys() == {node.host for node in shared_cluster.primaries}
    [fault] = facts.faults()
    assert fault.startswith(f"{ill.host}: maxmemory-policy is allkeys-lru")


def test_sentinels_and_their_primary_are_looked_at() -> None:
    """The primary is told by its address, and a Sentinel that is missing by its own."""
    with running_sentinels(replicas=0) as watched:
        password = watched.url.replace("//", "//:unneeded@")
        with watched.primary.client() as client:
            client.config_set("requirepass", "unneeded")
        facts = describe_store(password)
        assert list(facts.servers) == [watched.primary.host]
        assert (facts.faults(), beside_snapshots(facts.warnings)) == ([], [])
        watched.sentinels[1].kill()
        [warning] = beside_snapshots(describe_store(password).warnings)
    assert warning == f"Sentinel {watched.sentinels[1].host}: Connection refused"
