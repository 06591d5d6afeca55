"""What a mirror shows is what agents would say, on one Redis, behind Sentinels and in a cluster."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from random import Random

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.crc import key_slot

from tests.support.asking import Asker, judged
from tests.support.eventually import eventually
from tests.support.holdings import Holdings
from tests.support.redis import RedisServer
from tests.support.redis_proxy import RedisProxy
from tests.support.topologies import (
    SERVICE,
    RunningCluster,
    Watched,
    await_replicas,
    running_cluster,
    running_node,
    running_sentinels,
)
from tokens.admin.admin import Admin
from tokens.admin.block import Blocker
from tokens.admin.mirror import MAX_UNREAD, Mirror, Snapshot
from tokens.admin.revoke import Revoker
from tokens.audit import Journal
from tokens.check import Check
from tokens.outcome import Outcome
from tokens.policy.gate import Gate
from tokens.policy.rule import AclRule, Mode
from tokens.record import MAX_INTEGER, Keys
from tokens.store.client import Client, open_client
from tokens.store.tls import TlsFiles

LONG_S = 30.0
"""For a wait that is known to end."""

SHORT_S = 0.05
"""For one that is known to be in vain."""

FOREVER = float("inf")
CLIENTS = [
    ip_address(text).packed
    for text in ("192.0.2.7", "192.0.2.8", "198.51.100.9", "::ffff:192.0.2.7", "2001:db8::1")
]


@contextmanager
def mirroring(client: Client, *acls: str, prefix: str = "kat:") -> Iterator[Mirror]:
    mirror = Mirror(client, prefix, acls or ["tcp"])
    try:
        yield mirror
    finally:
        mirror.close()


@pytest.fixture(params=["kat:", "a*[b]:"])
def held(request: pytest.FixtureRequest, client: redis.Redis) -> Holdings:
    return Holdings(client, request.param)


@pytest.fixture
def mirror(held: Holdings) -> Iterator[Mirror]:
    """Give one that has read, and so hears what changes from now on."""
    with mirroring(held.client, "tcp", "wiki", prefix=held.prefix) as mirror:
        mirror.read()
        yield mirror


def granted(mirror: Mirror, acl: str = "tcp") -> set[str]:
    return set(mirror.read().grants[acl])


# What is read.


def test_a_snapshot_shows_what_stands(held: Holdings, mirror: Mirror) -> None:
    """Every ACL that was asked for is there, with its own grants; what nobody asked for is not."""
    before = held.now_ms()
    held.grant("192.0.2.7", "tcp")
    held.grant("2001:db8::/64", "tcp")
    held.grant("192.0.2.9", "other")
    shown = mirror.read()
    assert before <= shown.now_ms <= held.now_ms()
    assert shown.grants.keys() == {"tcp", "wiki"}
    assert shown.grants["tcp"].keys() == {"192.0.2.7", "2001:db8::/64"}
    score = held.client.zscore(held.keys.grants(b"tcp"), "192.0.2.7")
    assert shown.grants["tcp"]["192.0.2.7"] == score
    assert shown.grants["wiki"] == shown.blocks == shown.unread == {}


@pytest.mark.parametrize(
    ("score", "end"),
    [
        (FOREVER, MAX_INTEGER),
        (1e300, MAX_INTEGER),
        (2.0**53, MAX_INTEGER),
        (2.0**53 - 1, MAX_INTEGER - 1),
        (4e12 + 0.25, 4 * 10**12 + 1),
        (1.0, None),
        (0.0, None),
        (-FOREVER, None),
    ],
)
def test_a_score_may_be_anything(
    held: Holdings, mirror: Mirror, score: float, end: int | None
) -> None:
    """What is not over has an end that agents, who compare, would find over at the same ms."""
    held.client.zadd(held.keys.grants(b"tcp"), {"192.0.2.7": score})
    assert mirror.read().grants["tcp"].get("192.0.2.7") == end


def test_what_nobody_can_read_is_shown_apart(held: Holdings, mirror: Mirror) -> None:
    """Misspelt members are shown in ASCII, cut, some of many, and only while they stand."""
    odd = {"192.0.2.7/32": FOREVER, "::FFFF:192.0.2.7": FOREVER, "10.0.0.0/9": FOREVER, "x": 1}
    held.client.zadd(held.keys.grants(b"tcp"), {**odd, "192.0.2.7": FOREVER})
    shown = mirror.read()
    assert shown.unread == {"tcp": ["'10.0.0.0/9'", "'192.0.2.7/32'", "'::FFFF:192.0.2.7'"]}
    assert shown.grants["tcp"].keys() == {"192.0.2.7"}
    many = {b"%02d\xff\n" % number + b"\x1b" * 100: FOREVER for number in range(3 * MAX_UNREAD)}
    held.client.zadd(held.keys.grants(b"wiki"), many)  # type: ignore[arg-type]
    *some, rest = mirror.read().unread["wiki"]
    assert [text[1:3] for text in some] == [f"{number:02}" for number in range(MAX_UNREAD)]
    assert rest == f"and {2 * MAX_UNREAD} more"
    assert all(len(text) < 100 and text.isascii() and text.isprintable() for text in some)


def test_a_key_of_another_type_has_no_grants(held: Holdings, mirror: Mirror) -> None:
    """To agents nothing of that ACL stands, and all of the others."""
    key = held.keys.grants(b"tcp")
    held.client.set(key, "x")
    held.grant("192.0.2.7", "wiki")
    shown = mirror.read()
    assert shown.grants["tcp"] == {}
    assert shown.unread == {"tcp": [f"{key.decode()!r} is no sorted set"]}
    assert shown.grants["wiki"].keys() == {"192.0.2.7"}
    held.client.delete(key)
    held.client.set(held.keys.cut, "x")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        mirror.read()


def test_blocks_are_read_as_agents_read_them(held: Holdings, mirror: Mirror) -> None:
    """What cannot be read is for ever; what is over, or misspelt, blocks nobody."""
    block, _ = Blocker(Admin(held.client, held.prefix, by="alice")).block("10.0.0.0/8", 60)
    by_hand = {
        "addr:192.0.2.7": "never",
        "addr:192.0.2.8": "1" + "0" * 16,
        "addr:192.0.2.9": "9" * 16,
        "addr:192.0.2.1": held.now_ms() - 1,
        "addr:192.0.2.2": "0",
        "addr:192.0.2.7/32": FOREVER,
        "addr:": 2**50,
        "sub:192.0.2.3": 2**50,
    }
    held.client.hset(held.keys.cut, mapping=by_hand)
    assert mirror.read().blocks == {
        "10.0.0.0/8": block.until_ms,
        **dict.fromkeys(("192.0.2.7", "192.0.2.8", "192.0.2.9"), MAX_INTEGER),
    }


_names = st.sampled_from(
    [
        *("192.0.2.7", "192.0.2.8", "192.0.2.0/24", "192.0.0.0/16", "2001:db8::1"),
        *("2001:db8::/64", "2001:db8::/32", "::ffff:192.0.2.7", "192.0.2.7/32", "2001:DB8::1"),
        *("192.0.2.7/24", "0.0.0.0/0", "192.0.2.07", " 192.0.2.7", "", "::/64", "\xff"),
    ]
)
_scores = st.sampled_from([-FOREVER, 0, 1, 1e12 + 0.5, 4e12, 4e12 + 0.5, 2**53, 1e300, FOREVER])
_moments = st.sampled_from(["", "0", "1", "-1", "1e3", "x", "4000000000000", "9" * 16, "9" * 17])


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    grants=st.dictionaries(_names, _scores, max_size=6),
    blocks=st.dictionaries(_names, _moments, max_size=4),
    cuts=st.sets(st.sampled_from(["all", "acl:tcp", "sub:user1"])),
)
def test_a_mirror_says_what_an_agent_says(
    client: redis.Redis, grants: dict[str, float], blocks: dict[str, str], cuts: set[str]
) -> None:
    """Whoever wrote what: a client gets in by the snapshot exactly if a gate lets it in."""
    client.flushdb()
    if grants:
        client.zadd("kat:grants:{tcp}", grants)
    fields = {f"addr:{name}": until for name, until in blocks.items()}
    now_ms = int(time.time() * 1000)
    client.hset("kat:cut", mapping={**fields, **dict.fromkeys(cuts, now_ms), "v": 1})
    with mirroring(client) as mirror:
        shown = mirror.read()
    gate = Gate({"tcp": AclRule(Mode.IP)}, Keys(), 80, Journal(Keys().audit, 1000))
    checks = [Check(b"tcp", b"", b"h", b"GET", b"/", b"", source, 8000) for source in CLIENTS]
    assert [gate.look(check) for check in checks] == [None] * len(checks)
    decisions = Asker(client).run(judged(gate, checks)).decisions
    for source, decision in zip(CLIENTS, decisions, strict=True):
        assert (decision.outcome is Outcome.GRANT) == _lets_in(shown, source), source


def _lets_in(shown: Snapshot, source: bytes) -> bool:
    names = _all_names(source)
    return bool(names & shown.grants["tcp"].keys()) and not names & shown.blocks.keys()


def _all_names(source: bytes) -> set[str]:
    """Name a client as the contract does, without the code that agents use."""
    address = ip_address(source)
    address = getattr(address, "ipv4_mapped", None) or address
    sizes = (8, 16, 24) if address.version == 4 else (32, 48, 56, 64)
    bits = int(address)
    width = address.max_prefixlen
    networks = {
        f"{type(address)(bits >> (width - size) << (width - size))}/{size}" for size in sizes
    }
    return {str(address), *networks}


# What is heard.


def test_changes_are_heard(held: Holdings, mirror: Mirror) -> None:
    """A grant, its end, a block, its end, and a revocation of grants: each ends a wait."""
    admin = Admin(held.client, held.prefix, by="alice")
    revoker, blocker = Revoker(admin), Blocker(admin)
    changes = [
        lambda: held.grant("192.0.2.7", "tcp"),
        lambda: revoker.end_grant("192.0.2.7", "tcp"),
        lambda: blocker.block("192.0.2.8", 60),
        lambda: blocker.unblock("192.0.2.8"),
        lambda: held.grant("192.0.2.7", "wiki", user="user2"),
        lambda: revoker.revoke_user("user2"),
    ]
    for change in changes:
        before = mirror.read()
        change()
        assert mirror.wait(LONG_S)
        after = mirror.read()
        assert (before.grants, before.blocks) != (after.grants, after.blocks)
        assert not mirror.wait(0)


def test_what_changes_nothing_here_is_not_heard(held: Holdings, mirror: Mirror) -> None:
    """Neither grants of another ACL nor what is revoked of tokens wake anybody."""
    held.grant("192.0.2.7", "other")
    Revoker(Admin(held.client, held.prefix, by="alice")).revoke_user("user2")
    assert not mirror.wait(SHORT_S)


def test_no_change_slips_through(redis_server: RedisServer, client: redis.Redis) -> None:
    """At whatever moment of a reading a grant comes: it is in it, or ends the wait after it."""
    names = [f"10.0.0.{number}" for number in range(200)]
    together = threading.Barrier(2)

    def grant_each() -> None:
        chance = Random(1)
        with redis_server.client() as other, suppress(threading.BrokenBarrierError):
            for name in names:
                together.wait(LONG_S)
                time.sleep(chance.uniform(0, 0.003))
                Holdings(other).grant(name, "tcp")

    writer = threading.Thread(target=grant_each)
    with mirroring(client) as mirror:
        mirror.read()
        writer.start()
        try:
            for name in names:
                together.wait(LONG_S)
                while name not in granted(mirror):
                    assert mirror.wait(LONG_S), f"nobody was told of {name}"
        finally:
            together.abort()
            writer.join()


# What goes wrong.


def test_a_redis_that_is_away_is_an_error_until_it_is_back(
    held: Holdings, proxy: RedisProxy
) -> None:
    """Reading raises, waiting takes its time; afterwards all is as before, changes are heard."""
    with open_client(proxy.url) as through, mirroring(through, prefix=held.prefix) as mirror:
        held.grant("192.0.2.7", "tcp")
        assert granted(mirror) == {"192.0.2.7"}
        proxy.vanish()
        for _ in range(3):
            with pytest.raises(redis.ConnectionError):
                mirror.read()
            assert not mirror.wait(SHORT_S)
        proxy.listen()
        assert granted(mirror) == {"192.0.2.7"}
        held.grant("192.0.2.8", "tcp")
        assert mirror.wait(LONG_S)
        assert granted(mirror) == {"192.0.2.7", "192.0.2.8"}


def test_connections_that_are_cut_are_mended_by_the_next_reading(
    held: Holdings, proxy: RedisProxy
) -> None:
    """Redis is there again at once, as after a restart: nothing is raised, changes are heard."""
    with open_client(proxy.url) as through, mirroring(through, prefix=held.prefix) as mirror:
        for name in ("192.0.2.7", "192.0.2.8", "192.0.2.9"):
            mirror.read()
            held.grant(name, "tcp")
            assert mirror.wait(LONG_S)
            assert name in granted(mirror)
            proxy.cut()


def test_a_mirror_leaves_nothing(held: Holdings, redis_server: RedisServer) -> None:
    """Closed, it listens no more, and its owner's client goes on."""
    with redis_server.client() as client:
        with mirroring(client, prefix=held.prefix) as mirror:
            mirror.read()
            assert _listeners(held.client, held.prefix) == 1
        eventually(lambda: not _listeners(held.client, held.prefix), "nobody listens")
        assert client.ping()


def _listeners(client: redis.Redis, prefix: str = "kat:") -> int:
    ((_, number),) = client.pubsub_numsub(Keys(prefix).grants_channel)
    return int(number)


def test_tls_is_no_hindrance(server_files: TlsFiles) -> None:
    """A change is heard through TLS, where a record may hold more than one message."""
    with running_node(tls=server_files) as node, node.client() as direct:
        held = Holdings(direct)
        with (
            open_client(f"rediss://{node.host}", tls=server_files) as client,
            mirroring(client) as mirror,
        ):
            mirror.read()
            with direct.pipeline(transaction=False) as pipeline:
                for name in ("other", "other", "tcp"):
                    pipeline.publish(held.keys.grants_channel, name)
                pipeline.execute()
            assert mirror.wait(LONG_S)
            held.grant("192.0.2.7", "tcp")
            assert granted(mirror) == {"192.0.2.7"}


# Sentinels.


@pytest.fixture
def watched() -> Iterator[Watched]:
    with running_sentinels(replicas=1) as watched:
        yield watched


def test_a_failover_is_followed(watched: Watched) -> None:
    """The promoted replica is read, and its changes are heard."""
    with open_client(watched.url) as client, mirroring(client) as mirror:
        held = Holdings(client)
        held.grant("192.0.2.7", "tcp")
        assert granted(mirror) == {"192.0.2.7"}
        await_replicas(watched.primary, 1)
        watched.fail_over()
        replica = watched.replicas[0]
        eventually(lambda: watched.named() == replica.port, "the replica is named")
        eventually(lambda: replica.info()["role"] == "master", "the replica is promoted")
        with replica.client() as one:
            _hear_a_grant(mirror, Holdings(one), one)


def test_a_primary_that_sentinels_left_is_left(watched: Watched) -> None:
    """It answers, and has hung up on nobody: its grants are not believed any more, nor missed."""
    with (
        running_node() as new,
        new.client() as direct,
        open_client(watched.url) as client,
        mirroring(client) as mirror,
    ):
        Holdings(client).grant("192.0.2.7", "tcp")
        assert granted(mirror) == {"192.0.2.7"}
        for sentinel in watched.sentinels:
            with sentinel.client() as one:
                one.execute_command("SENTINEL", "REMOVE", SERVICE)  # type: ignore[no-untyped-call]
                one.execute_command("SENTINEL", "MONITOR", SERVICE, "127.0.0.1", new.port, 2)  # type: ignore[no-untyped-call]
        eventually(lambda: granted(mirror) == set(), "the other one is read")
        _hear_a_grant(mirror, Holdings(direct), direct)


def test_without_sentinels_a_known_primary_is_read(watched: Watched) -> None:
    """Those who lead the way may all be down: agents go on too."""
    with open_client(watched.url) as client, mirroring(client) as mirror:
        mirror.read()
        for sentinel in watched.sentinels:
            sentinel.kill()
        Holdings(client).grant("192.0.2.7", "tcp")
        assert mirror.wait(LONG_S)
        begun = time.monotonic()
        assert granted(mirror) == {"192.0.2.7"}
        # Also when it is time to ask the Sentinels again.
        eventually(lambda: time.monotonic() > begun + 1.1, "the next time to ask")
        assert granted(mirror) == {"192.0.2.7"}


def _hear_a_grant(mirror: Mirror, held: Holdings, where: redis.Redis) -> None:
    """Read, as everybody does again and again, until it listens there; then it hears of grants."""
    eventually(lambda: _is_readable(mirror) and _listeners(where), "it listens there")
    held.grant("198.51.100.9", "tcp")
    assert mirror.wait(LONG_S)
    assert "198.51.100.9" in granted(mirror)


def _is_readable(mirror: Mirror) -> bool:
    with suppress(redis.RedisError):
        return bool(mirror.read())
    return False


# A cluster.


def test_a_cluster_is_heard_and_read_whole(shared_cluster: RunningCluster) -> None:
    """Grants of ACLs on all three nodes, blocks on one: every change reaches the mirror."""
    acls = [f"acl{number}" for number in range(9)]
    with shared_cluster.client() as client, mirroring(client, *acls) as mirror:  # type: ignore[no-untyped-call]
        for node in shared_cluster.primaries:
            with node.client() as one:
                one.flushall()
        held = Holdings(client)
        owners = {shared_cluster.owner(key_slot(held.keys.grants(acl.encode()))) for acl in acls}
        assert len(owners) == 3
        for acl in acls:
            mirror.read()
            held.grant("192.0.2.7", acl)
            assert mirror.wait(LONG_S)
            assert granted(mirror, acl) == {"192.0.2.7"}
        Blocker(Admin(client, by="alice")).block("192.0.2.7", 60)
        assert mirror.wait(LONG_S)
        assert mirror.read().blocks.keys() == {"192.0.2.7"}


def test_the_node_that_is_listened_to_may_die() -> None:
    """Its replica takes over, is read, and heard."""
    with (
        running_cluster(replicas=True) as cluster,
        cluster.client() as client,  # type: ignore[no-untyped-call]
        mirroring(client) as mirror,
    ):
        held = Holdings(client)
        held.grant("192.0.2.7", "tcp")
        assert granted(mirror) == {"192.0.2.7"}
        owner = cluster.owner(key_slot(held.keys.cut))
        replica = cluster.replicas[cluster.primaries.index(owner)]
        owner.kill()
        assert mirror.wait(SHORT_S)
        with pytest.raises(redis.RedisError):
            mirror.read()
        assert not mirror.wait(SHORT_S)
        with replica.client() as one:
            one.execute_command("CLUSTER", "FAILOVER", "TAKEOVER")  # type: ignore[no-untyped-call]
            _hear_a_grant(mirror, held, one)
