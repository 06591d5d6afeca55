"""Changing a store by hand: replicas that confirm, and clusters whose slots move."""

import signal
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.eventually import eventually
from tests.support.holdings import Holdings, kid_of, sid_of
from tests.support.topologies import Node, RunningCluster, running_cluster, running_node
from tokens.admin.admin import Admin
from tokens.admin.block import Blocker
from tokens.admin.granter import Granter
from tokens.admin.nodes import SCAN_STEP, Confirmed, Nodes
from tokens.admin.revoke import Revoker

KEY = b"kat:cut"
QUICK_MS = 1
"""For a wait that is known to be in vain."""

LONG_MS = 30_000
"""For one that is known to end."""


@pytest.fixture(scope="module")
def replicated() -> Iterator[tuple[Node, Node]]:
    """Give a primary and its replica."""
    with running_node("--repl-diskless-sync-delay", "0") as primary:
        follow = ("--replicaof", f"127.0.0.1 {primary.port}")
        with running_node(*follow) as replica:
            eventually(partial(_is_linked, primary, replica), "the replica has its copy")
            yield primary, replica


def _is_linked(primary: Node, replica: Node) -> bool:
    is_up = replica.info()["master_link_status"] == "up"
    return is_up and primary.info()["connected_slaves"] == 1


@pytest.fixture
def primary(replicated: tuple[Node, Node]) -> Iterator[redis.Redis]:
    """Give a client of an empty primary with one replica."""
    with replicated[0].client() as client:
        client.flushall()
        yield client


@pytest.fixture
def stopped(replicated: tuple[Node, Node], primary: redis.Redis) -> Iterator[redis.Redis]:
    """Give the same while the replica is there and reads nothing."""
    process = replicated[1].server.process
    process.send_signal(signal.SIGSTOP)
    try:
        yield primary
    finally:
        process.send_signal(signal.SIGCONT)


def test_a_lone_redis_has_nobody_to_ask(client: redis.Redis) -> None:
    """Where there are no replicas none is asked, unless somebody insists."""
    nodes = Nodes(client)
    nodes.write(KEY, "SET", KEY, 1)
    assert nodes.wait(None, LONG_MS) == Confirmed(0, 0)
    nodes.write(KEY, "SET", KEY, 1)
    confirmed = nodes.wait(1, QUICK_MS)
    assert confirmed == Confirmed(1, 0)
    assert not confirmed.is_enough


def test_a_replica_confirms(primary: redis.Redis, replicated: tuple[Node, Node]) -> None:
    """One is asked by default, and when it has confirmed it has what was written."""
    nodes = Nodes(primary)
    nodes.write(KEY, "SET", KEY, "x")
    assert nodes.wait(None, LONG_MS) == Confirmed(1, 1)
    with replicated[1].client() as replica:
        assert replica.get(KEY) == b"x"


def test_fewer_than_asked_is_not_enough(primary: redis.Redis) -> None:
    """The number is that of those who confirmed, not of those who were asked."""
    nodes = Nodes(primary)
    nodes.write(KEY, "SET", KEY, "x")
    nodes.wait(1, LONG_MS)
    nodes.write(KEY, "SET", KEY, "y")
    assert nodes.wait(2, QUICK_MS).asked == 2
    assert not Confirmed(2, 1).is_enough


def test_a_replica_that_reads_nothing_does_not_confirm(stopped: redis.Redis) -> None:
    """Being connected is not enough."""
    nodes = Nodes(stopped)
    nodes.write(KEY, "SET", KEY, "x")
    assert nodes.wait(None, QUICK_MS) == Confirmed(1, 0)


def test_a_long_wait_is_no_dead_connection(
    stopped: redis.Redis, replicated: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waiting longer than the client's own time-out ends with a number, not with an error."""
    monkeypatch.setattr("tokens.admin.nodes._WAIT_STEP_MS", 50)
    path = replicated[0].server.socket
    once = Retry(NoBackoff(), 0)
    with redis.Redis(unix_socket_path=path, socket_timeout=0.5, retry=once, protocol=2) as client:
        nodes = Nodes(client)
        nodes.write(KEY, "SET", KEY, "x")
        assert nodes.wait(1, 700) == Confirmed(1, 0)
    assert stopped.ping()


def test_what_changed_nothing_is_not_waited_for(stopped: redis.Redis) -> None:
    """Without a change nobody is asked."""
    nodes = Nodes(stopped)
    nodes.write(KEY, "DEL", KEY)
    nodes.run(KEY, "SET", KEY, 1)
    assert nodes.wait(1, LONG_MS) == Confirmed(0, 0)


def test_each_wait_is_for_its_own_changes(primary: redis.Redis) -> None:
    """What was waited for once is not asked for again."""
    nodes = Nodes(primary)
    nodes.write(KEY, "SET", KEY, "x")
    assert nodes.wait(1, LONG_MS).is_enough
    assert nodes.wait(5, LONG_MS) == Confirmed(0, 0)


def test_a_new_connection_confirms_nothing(
    primary: redis.Redis, replicated: tuple[Node, Node]
) -> None:
    """Where a client connects anew without a word, its replicas' number says nothing."""
    path = replicated[0].server.socket
    with redis.Redis(unix_socket_path=path, retry=Retry(NoBackoff(), 3), protocol=2) as client:
        nodes = Nodes(client)
        nodes.write(KEY, "SET", KEY, "x")
        primary.client_kill_filter(_id=nodes.run(KEY, "CLIENT", "ID"))
        assert nodes.wait(1, QUICK_MS) == Confirmed(1, 0)
        nodes.write(KEY, "SET", KEY, "y")
        assert nodes.wait(1, LONG_MS) == Confirmed(1, 1)


def test_an_admins_changes_are_confirmed(primary: redis.Redis) -> None:
    """Every revocation and every block says how many replicas have it."""
    held = Holdings(primary)
    admin = Admin(primary, by="alice", wait_ms=LONG_MS)
    one = Confirmed(1, 1)
    session = held.session()
    held.grant("10.0.0.1")
    revoker, blocker = Revoker(admin), Blocker(admin)
    for done in (
        revoker.revoke_session(session.encode()),
        revoker.end_grant("10.0.0.1"),
        revoker.revoke_group("staff"),
        revoker.revoke_kid("0123456789ab"),
    ):
        assert done.kept.confirmed == one
    assert blocker.block("192.0.2.7", 60)[1].confirmed == one
    assert blocker.unblock("192.0.2.7")[1].confirmed == one


def test_nothing_done_is_nothing_to_confirm(stopped: redis.Redis) -> None:
    """Whoever insists on a replica is not kept waiting for what did not happen."""
    admin = Admin(stopped, by="alice", replicas=1, wait_ms=LONG_MS)
    assert Revoker(admin).revoke_session(b"x" * 43).kept.confirmed == Confirmed(0, 0)
    assert Revoker(admin).end_grant("192.0.2.7").kept.confirmed == Confirmed(0, 0)
    assert Blocker(admin).unblock("192.0.2.7")[1].confirmed == Confirmed(0, 0)


def test_a_search_finds_each_key_once_and_says_how_far_it_is(client: redis.Redis) -> None:
    """Thousands of keys in several steps; what is told never goes beyond the whole."""
    total = 5 * SCAN_STEP // 2
    names = {b"kat:t:%05d" % number for number in range(total)}
    client.mset(dict.fromkeys(names, b"x"))
    told: list[tuple[int, int]] = []
    nodes = Nodes(client)
    found = list(nodes.scan(b"kat:t:*", lambda *how_far: told.append(how_far)))
    assert len(found) == len(names)
    assert set(found) == names
    assert told == sorted(told)
    assert {of for _, of in told} == {total}
    assert told[-1] == (total, total)


def test_values_are_texts(client: redis.Redis) -> None:
    """What is of another type, or gone, is passed over."""
    client.set("kat:s:1", "x")
    client.hset("kat:s:2", "x", "y")
    assert list(Nodes(client).values(b"kat:s:*", _ignore)) == [(b"kat:s:1", b"x")]


# A cluster.


@pytest.fixture
def cluster(shared_cluster: RunningCluster) -> RunningCluster:
    """Give the cluster of all tests, without a key."""
    for node in shared_cluster.primaries:
        with node.client() as client:
            client.flushall()
    return shared_cluster


@pytest.fixture
def spread(cluster: RunningCluster) -> Iterator[Holdings]:
    """Give a client of it."""
    with cluster.client() as client:  # type: ignore[no-untyped-call]
        yield Holdings(client)


def test_a_cluster_is_searched_whole(spread: Holdings) -> None:
    """Tokens, sessions and grants are found on whichever primary they are."""
    token = spread.token()
    sessions = [spread.session(kid=kid_of(token)) for _ in range(20)]
    for acl in "abcdef":
        spread.grant("10.0.0.1", acl)
        spread.grant("10.0.0.2", acl, by=f"kid:{kid_of(token)}", user="user2")
    admin = Admin(spread.client, by="alice")
    revoker = Revoker(admin)
    assert len(Granter(admin).grants()) == 12
    assert revoker.revoke_sid(sid_of(sessions[0])).total == 1
    done = revoker.revoke_kid(kid_of(token))
    assert (done.tokens, done.sessions, done.grants) == (1, 19, 6)
    assert revoker.revoke_user("user1").grants == 6
    assert Granter(admin).grants() == []
    assert len(spread.events()) == 3


def test_the_clock_that_is_ahead_counts(spread: Holdings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cut is dated by the highest time of all primaries, as is whatever it is compared with."""
    hour = 3600
    ahead = iter((0, 2 * hour, hour))

    def shifted(link: Any, *command: Any) -> Any:
        reply = link._client.execute_command(*command)
        return (reply[0] + next(ahead), reply[1]) if command == ("TIME",) else reply

    now_ms = spread.now_ms()
    monkeypatch.setattr("tokens.admin.nodes._Link.run", shifted)
    done = Revoker(Admin(spread.client, by="alice")).revoke_group("staff")
    assert done.cut_ms is not None
    assert done.cut_ms >= now_ms + 2 * hour * 1000


def test_a_slot_that_moves_is_followed(cluster: RunningCluster, spread: Holdings) -> None:
    """While the slot of kat:cut is moved, a client that knows the old map revokes all the same."""
    slot = spread.client.keyslot("kat:cut")
    owner = cluster.owner(slot)
    target = next(node for node in cluster.primaries if node is not owner)
    admin = Admin(spread.client, by="alice")
    revoker = Revoker(admin)
    cuts = [revoker.revoke_user("user1").cut_ms]
    cuts += [revoker.revoke_user("user1").cut_ms for _ in cluster.move(slot, target)]
    assert spread.client.get_node_from_key("kat:cut").port == target.port
    assert cuts == sorted(cuts, key=lambda ms: ms or 0)
    assert spread.cut().is_revoked(b"", b"", b"user1", b"", cuts[-1] or 0)
    with target.client() as client:
        assert client.exists("kat:cut")


@pytest.fixture
def own_cluster() -> Iterator[RunningCluster]:
    """Give a cluster that the test may damage."""
    with running_cluster() as cluster:
        yield cluster


def test_a_primary_that_is_down_keeps_nobody_from_revoking(own_cluster: RunningCluster) -> None:
    """With that of kat:cut up it is revoked and blocked, the one that is down is named."""
    with own_cluster.client() as client:  # type: ignore[no-untyped-call]
        owner = own_cluster.owner(client.keyslot("kat:cut"))
        dead = next(node for node in own_cluster.primaries if node is not owner)
        held = Holdings(client)
        for acl in "abcdefgh":
            held.grant("10.0.0.1", acl)
        dead.server.process.kill()
        dead.server.process.wait()
        admin = Admin(client, by="alice")
        done = Revoker(admin).revoke_user("user1")
        _, kept = Blocker(admin).block("192.0.2.7", 60)
        assert done.cut_ms
        assert held.cut().is_revoked(b"", b"", b"user1", b"", done.cut_ms)
        assert 0 < done.grants < 8
        assert done.kept.silent == kept.silent == (f"127.0.0.1:{dead.port}",)


def test_a_cluster_without_the_node_of_the_cut_is_an_error(own_cluster: RunningCluster) -> None:
    """Nothing is said to be done that is not."""
    with own_cluster.client() as client:  # type: ignore[no-untyped-call]
        owner = own_cluster.owner(client.keyslot("kat:cut"))
        owner.server.process.kill()
        owner.server.process.wait()
        with pytest.raises(redis.ConnectionError):
            Revoker(Admin(client, by="alice")).revoke_user("user1")


def _ignore(looked: int, total: int) -> None:
    pass
