"""The fence, over real servers that forget: each test shows who would be let in twice without it.

Two real workers do the same: one heeds the fence, the other one has `store.fence = false`. Where
the one refuses a token, the other one accepts it, and has accepted it before.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.eventually import eventually
from tests.support.redis_proxy import RedisProxy
from tests.support.topologies import Node, RunningCluster, running_cluster, running_node
from tests.support.turns import (
    FENCE,
    Twins,
    fenced_events,
    fences,
    follow,
    is_whole,
    issue,
    now_ms,
    part,
    promote,
    replid,
    restarted,
    running_twins,
)
from tokens.issue import Issuer
from tokens.record import Keys
from tokens.store.slots import key_slot
from tokens.token import digest, mint

ACCEPTED = ("ok", "ok")
REPLAYED = ("replayed", "replayed")
ACCEPTED_AGAIN_WITHOUT_THE_FENCE = ("fenced", "ok")


@pytest.fixture
def pair() -> Iterator[tuple[Node, Node]]:
    """Give a primary and its replica, which has all that the primary has."""
    quick = ("--repl-diskless-sync-delay", "0")
    with running_node(*quick) as primary, running_node(*quick) as replica:
        follow(replica, primary)
        yield primary, replica


@pytest.fixture
def address(place: Path, pair: tuple[Node, Node]) -> Iterator[RedisProxy]:
    """Give an address that leads to the primary, and can be made to lead elsewhere."""
    with RedisProxy(pair[0].server.socket, place) as proxy:
        yield proxy


@pytest.fixture
def twins(address: RedisProxy, place: Path) -> Iterator[Twins]:
    with running_twins(address.url, place) as twins:
        yield twins


def lead(address: RedisProxy, to: Node) -> None:
    """Let an address lead to another server, as a failover does."""
    address.upstream = to.server.socket
    address.cut()


def await_fence(node: Node) -> int:
    """Wait until a server is dated, and until its clock is past that; return the date."""
    since_ms = eventually(lambda: fences(node).get(replid(node), 0), "the fence is dated")
    eventually(lambda: now_ms(node) > since_ms + 1, "what is issued now is issued later")
    return since_ms


def see_honest_tokens_through(twins: Twins, node: Node) -> None:
    """See that a fence refuses nothing but what was issued before it."""
    since_ms = await_fence(node)
    tokens = issue(node, 2)
    assert twins.told(tokens) == ACCEPTED
    assert twins.told(tokens) == REPLAYED
    assert twins.told([mint(), mint()]) == ("unknown", "unknown")
    wrong = issue(node, 2, acl="other")
    assert twins.told(wrong) == ("wrong_acl", "wrong_acl")
    assert fences(node)[replid(node)] == since_ms, "it is dated once"


def test_a_promotion_without_the_last_consume(
    pair: tuple[Node, Node], address: RedisProxy, twins: Twins
) -> None:
    """A token whose consume was never replicated is refused by the promoted replica.

    So is one that nobody brought before: nobody can tell them apart. What was consumed in time
    stays `replayed`, what is issued later is good.
    """
    primary, replica = pair
    early, lost, unused = (issue(primary, 2) for _ in range(3))
    assert twins.told(early) == ACCEPTED
    part(primary, replica)
    assert twins.told(lost) == ACCEPTED
    promote(replica)
    lead(address, replica)
    with replica.client() as client:
        assert [is_whole(client, token) for token in (*early, *lost)] == [False] * 2 + [True] * 2
    assert twins.told(lost) == ACCEPTED_AGAIN_WITHOUT_THE_FENCE
    assert twins.told(unused) == ACCEPTED_AGAIN_WITHOUT_THE_FENCE
    assert twins.told(early) == REPLAYED
    see_honest_tokens_through(twins, replica)


def test_there_and_back_without_a_restart(
    pair: tuple[Node, Node], address: RedisProxy, twins: Twins
) -> None:
    """A server that was the primary before, and is again, is not taken for the one it was.

    It never ended, and its run_id never changed.
    """
    one, other = pair
    run_id, replids = one.info("server")["run_id"], [replid(one)]
    first = issue(one, 2)
    part(one, other)
    assert twins.told(first) == ACCEPTED
    promote(other)
    lead(address, other)
    assert twins.told(first) == ACCEPTED_AGAIN_WITHOUT_THE_FENCE
    replids.append(replid(other))

    await_fence(other)
    second = issue(other, 2)
    follow(one, other)
    part(other, one)
    assert twins.told(second) == ACCEPTED
    promote(one)
    lead(address, one)
    assert twins.told(second) == ACCEPTED_AGAIN_WITHOUT_THE_FENCE
    assert twins.told(first) == ("fenced", "replayed")
    see_honest_tokens_through(twins, one)
    replids.append(replid(one))
    assert one.info("server")["run_id"] == run_id
    assert list(fences(one)) == replids
    assert len(set(replids)) == 3


def test_an_older_copy_under_a_connection_that_stays(
    pair: tuple[Node, Node], address: RedisProxy, twins: Twins
) -> None:
    """A primary that took over a replica's older memory is a new one, on the same connection."""
    primary, replica = pair
    tokens = issue(primary, 2)
    part(primary, replica)
    assert twins.told(tokens) == ACCEPTED
    greetings = address.count(b"SCRIPT")
    promote(replica)
    follow(primary, replica)
    promote(primary)
    assert twins.told(tokens) == ACCEPTED_AGAIN_WITHOUT_THE_FENCE
    assert address.count(b"SCRIPT") > greetings, "they greeted it again"
    for agent in (twins.heedful, twins.heedless):
        assert agent.worker.store_errors("closed") == 0, "nobody closed the connection on them"
        assert agent.worker.store_errors("fence") + agent.worker.store_errors("readonly") > 0
    see_honest_tokens_through(twins, primary)


def test_a_restart_from_an_old_snapshot(place: Path) -> None:
    """A server that comes back with an older memory refuses what was issued before it came."""
    with running_node() as node, RedisProxy(node.server.socket, place) as address:
        dump, old = (node.server.directory / name for name in ("dump.rdb", "old.rdb"))
        with running_twins(address.url, place) as twins:
            early, lost = issue(node, 2), issue(node, 2)
            assert twins.told(early) == ACCEPTED
            with node.client() as client:
                client.save()
                shutil.copy(dump, old)
                assert twins.told(lost) == ACCEPTED
                client.save()
            node.kill()
            shutil.copy(old, dump)
            with restarted(node.server):
                assert twins.told(lost) == ACCEPTED_AGAIN_WITHOUT_THE_FENCE
                assert twins.told(early) == REPLAYED
                see_honest_tokens_through(twins, node)


def test_a_moved_fence_is_told_and_counted_once(
    pair: tuple[Node, Node], address: RedisProxy, twins: Twins
) -> None:
    """The audit and a metric know of each move; of a new connection, or no fence, they do not."""
    primary, replica = pair
    address.cut()
    assert twins.told(issue(primary, 2)) == ACCEPTED
    assert [twins.heedful.worker.fence_moves, twins.heedless.worker.fence_moves] == [0, 0]
    part(primary, replica)
    promote(replica)
    lead(address, replica)
    since_ms = await_fence(replica)
    assert twins.told(issue(replica, 2)) == ACCEPTED
    with replica.client() as client:
        moves = eventually(lambda: fenced_events(client), "the audit is told")
        assert moves == [{"event": "fenced", "replid": replid(replica)[:12], "since": since_ms}]
    assert [twins.heedful.worker.fence_moves, twins.heedless.worker.fence_moves] == [1, 0]


# A cluster.


@pytest.fixture
def cluster() -> Iterator[RunningCluster]:
    with running_cluster(replicas=True) as cluster:
        yield cluster


def issue_in(cluster: RunningCluster, node: Node, *, is_in: bool) -> list[str]:
    """Issue a token for each of the twins, in slots that a primary has, or has not."""
    tokens: list[str] = []
    with cluster.client() as client:
        while len(tokens) < 2:
            token = Issuer(client).issue("user1", "demo", 60).token
            slot = key_slot(Keys().token(digest(token.encode())))
            if (cluster.owner(slot) is node) == is_in:
                tokens.append(token)
    return tokens


def take_over(replica: Node) -> None:
    """Let a replica take its primary's slots without asking, and everybody hear of it."""
    with replica.client() as client:
        client.execute_command("CLUSTER", "FAILOVER", "TAKEOVER")
    assert replica.info()["role"] == "master"


def follows(replica: Node, primary: Node) -> bool:
    said = replica.info()
    return said.get("master_port") == primary.port and said["master_link_status"] == "up"


def await_cluster_fence(cluster: RunningCluster, node: Node) -> None:
    """Wait until one of its primaries is dated, and until its clock is past that."""
    with cluster.client() as client:
        dated = eventually(lambda: client.hget(FENCE, replid(node)), "the fence is dated")
    eventually(lambda: now_ms(node) > int(dated) + 1, "what is issued now is issued later")


def test_a_cluster_failover_with_the_connections_kept(cluster: RunningCluster, place: Path) -> None:
    """A replica that takes over under an agent is no reason to believe it; nor is the way back.

    No server ends, and none closes a connection.
    """
    one, other = cluster.primaries[0], cluster.replicas[0]
    with running_twins(cluster.url, place) as twins:
        first, elsewhere = (issue_in(cluster, one, is_in=is_in) for is_in in (True, False))
        part(one, other)
        assert twins.told(first) == ACCEPTED
        take_over(other)
        assert twins.told(first) == ACCEPTED_AGAIN_WITHOUT_THE_FENCE
        assert twins.told(elsewhere) == ACCEPTED_AGAIN_WITHOUT_THE_FENCE
        eventually(lambda: follows(one, other), "the old primary follows the new one")

        await_cluster_fence(cluster, other)
        second = issue_in(cluster, other, is_in=True)
        part(other, one)
        assert twins.told(second) == ACCEPTED
        take_over(one)
        assert twins.told(second) == ACCEPTED_AGAIN_WITHOUT_THE_FENCE
        assert twins.told(first) == ("fenced", "replayed")

        await_cluster_fence(cluster, one)
        for is_in in (True, False):
            tokens = issue_in(cluster, one, is_in=is_in)
            assert twins.told(tokens) == ACCEPTED
            assert twins.told(tokens) == REPLAYED
        for agent in (twins.heedful, twins.heedless):
            assert agent.worker.store_errors("closed") == 0, "nobody closed a connection on them"
        moved = [replid(node)[:12] for node in (other, one)]
        with cluster.client() as client:
            assert [move["replid"] for move in fenced_events(client)][-2:] == moved
