"""Reading big keys whole from a real Redis, while they change, and while servers do."""

import threading
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import ReadOnlyError
from redis.retry import Retry

from tests.support.eventually import eventually
from tests.support.redis import RedisServer, running_redis
from tests.support.redis_proxy import RedisProxy, Step
from tests.support.topologies import RunningCluster, await_replicas, running_cluster, running_node
from tokens.admin.scan import Scan, Scanner
from tokens.store.client import open_client

KEY = b"kat:grants:{tcp}"
CUT = b"kat:cut"
MANY = 5000
"""What takes several steps."""


def members(number: int, start: int = 0) -> dict[bytes, float]:
    return {b"10.0.%d.%d" % divmod(at, 256): 1e15 + at for at in range(start, start + number)}


def replid(server: RedisServer) -> str:
    with server.client() as client:
        return str(client.info("replication")["master_replid"])


@pytest.mark.parametrize("number", [0, 1, 100, MANY])
def test_all_of_a_set_is_read(every_redis: RedisServer, number: int) -> None:
    """Members and scores, however many; with the server's name and its time before them."""
    with every_redis.client() as client:
        client.delete(KEY)
        if number:
            client.zadd(KEY, members(number))
        seconds, micros = client.time()
        scan = Scanner(client).scores(KEY)
        assert scan.found == members(number)
        assert scan.server == replid(every_redis)
        assert 0 <= scan.now_ms - (seconds * 1000 + micros // 1000) < 60_000


@pytest.mark.parametrize("number", [0, 1, MANY])
def test_of_a_hash_those_are_read_that_match(every_redis: RedisServer, number: int) -> None:
    """A field of another name is not among them."""
    fields = {b"addr:%d" % at: b"%d" % at for at in range(number)}
    with every_redis.client() as client:
        client.delete(CUT)
        client.hset(CUT, mapping={"v": 1, "sub:addr:": 2, **fields})  # type: ignore[dict-item]
        assert Scanner(client).fields(CUT, b"addr:*").found == fields


def test_it_is_read_in_steps(redis_server: RedisServer, client: redis.Redis) -> None:
    """No command gives much more than a step's worth: Redis serves others in between."""
    client.zadd(KEY, members(MANY))
    client.config_resetstat()
    Scanner(client).scores(KEY)
    with redis_server.client() as other:
        calls = other.info("commandstats")["cmdstat_zscan"]["calls"]
    assert MANY / 2000 <= calls <= MANY / 500


def test_what_stands_throughout_is_found(redis_server: RedisServer, client: redis.Redis) -> None:
    """Others come and go by the thousand, scores go up and down: none that stays is missed."""
    standing, over = members(MANY), threading.Event()
    client.zadd(KEY, standing)

    def disturb() -> None:
        with redis_server.client() as other:
            while not over.is_set():
                passing = members(4 * MANY, MANY)
                other.zadd(KEY, passing)
                other.zadd(KEY, dict.fromkeys(standing, 1e14))
                other.zrem(KEY, *passing)
                other.zadd(KEY, standing)

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        missed = [standing.keys() - Scanner(client).scores(KEY).found.keys() for _ in range(50)]
    finally:
        over.set()
        thread.join()
    assert not any(missed)


def test_a_cursor_is_used_where_it_was_given(redis_server: RedisServer, place: Path) -> None:
    """When a client connects anew to another server in the middle, all is read of that one."""
    with running_redis() as second, RedisProxy(redis_server.socket, place) as proxy:
        for server in (redis_server, second):
            with server.client() as client:
                client.zadd(KEY, members(MANY))
        again = Retry(NoBackoff(), 1)
        with redis.Redis(unix_socket_path=str(proxy.path), retry=again, protocol=2) as client:
            client.ping()
            proxy.upstream = second.socket
            proxy.plan(b"ZSCAN", Step.PASS, Step.CUT)
            scan = Scanner(client).scores(KEY)
        assert scan.found == members(MANY)
        assert scan.server == replid(second)


def test_a_replica_is_not_believed() -> None:
    """Its primary may know more. Once it is promoted, it is read."""
    with running_node() as primary, running_node() as node, node.client() as client:
        scanner = Scanner(client)
        assert scanner.scores(KEY).found == {}
        client.replicaof("127.0.0.1", primary.port)
        with pytest.raises(ReadOnlyError, match="this server is a read only replica"):
            scanner.scores(KEY)
        client.replicaof("NO", "ONE")
        assert scanner.scores(KEY).found == {}


def test_an_address_that_leads_elsewhere_is_followed() -> None:
    """Behind one address the primary becomes a replica of another: that one is read next."""
    with (
        running_node() as old,
        running_node() as new,
        RedisProxy(old.server.socket, None) as proxy,
        open_client(proxy.url) as client,
        old.client() as direct,
    ):
        scanner = Scanner(client)
        assert scanner.scores(KEY).server == replid(old.server)
        direct.replicaof("127.0.0.1", new.port)
        proxy.upstream = new.server.socket
        with pytest.raises(ReadOnlyError):
            scanner.scores(KEY)
        # Not at once: with its first replica a primary takes another name.
        eventually(lambda: scanner.scores(KEY).server == replid(new.server), "the new one")


def test_what_redis_refuses_is_raised(client: redis.Redis) -> None:
    """A key of another type is an error, not an empty set."""
    client.set(KEY, "x")
    with pytest.raises(redis.ResponseError, match=r"^WRONGTYPE"):
        Scanner(client).scores(KEY)


def test_a_node_of_a_cluster_leads_nowhere(shared_cluster: RunningCluster) -> None:
    """A client of one server says what the cluster says."""
    others = [
        node for node in shared_cluster.primaries if node is not shared_cluster.owner(key_slot(KEY))
    ]
    with others[0].client() as client, pytest.raises(redis.ResponseError):
        Scanner(client).scores(KEY)


def test_a_slot_that_moves_is_followed(shared_cluster: RunningCluster) -> None:
    """While its slot is on its way, the set is read whole, wherever it is just now."""
    with shared_cluster.client() as client:  # type: ignore[no-untyped-call]
        client.delete(KEY)
        client.zadd(KEY, members(MANY))
        owner = shared_cluster.owner(key_slot(KEY))
        target = next(node for node in shared_cluster.primaries if node is not owner)
        scanner = Scanner(client)
        steps = [scanner.scores(KEY)]
        steps += [scanner.scores(KEY) for _ in shared_cluster.move(key_slot(KEY), target)]
        assert all(scan.found == members(MANY) for scan in steps)
        assert steps[0].server == replid(owner.server)
        assert steps[-1].server == replid(target.server)


def test_a_promoted_replica_is_found() -> None:
    """The primary dies: that is an error, until somebody looks again and finds its replica."""
    with running_cluster(replicas=True) as cluster, cluster.client() as client:  # type: ignore[no-untyped-call]
        client.zadd(KEY, members(1))
        owner = cluster.owner(key_slot(KEY))
        replica = cluster.replicas[cluster.primaries.index(owner)]
        await_replicas(owner, 1)
        scanner = Scanner(client)
        scanner.scores(KEY)
        owner.kill()
        for _ in range(2):
            with pytest.raises(redis.ConnectionError):
                scanner.scores(KEY)
        with replica.client() as one:
            one.execute_command("CLUSTER", "FAILOVER", "TAKEOVER")  # type: ignore[no-untyped-call]
        assert eventually(partial(_read, scanner), "it is found").found == members(1)


def _read(scanner: Scanner) -> Scan[float] | None:
    with suppress(redis.RedisError):
        scanner.look_again()
        return scanner.scores(KEY)
    return None
