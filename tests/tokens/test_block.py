"""Blocking addresses on a real Redis."""

from collections.abc import Callable

import pytest
import redis
from redis.exceptions import NoPermissionError

from tests.support.eventually import DEADLINE_S
from tests.support.holdings import HOUR_MS, Holdings
from tests.support.redis import RedisServer
from tokens.admin.admin import Admin
from tokens.admin.block import MAX_BLOCK_TTL_S, Blocker
from tokens.admin.nodes import Confirmed
from tokens.record import MAX_INTEGER


@pytest.fixture(params=["kat:", "other:"])
def held(request: pytest.FixtureRequest, client: redis.Redis) -> Holdings:
    return Holdings(client, request.param)


@pytest.fixture
def blocker(held: Holdings) -> Blocker:
    return Blocker(Admin(held.client, held.prefix, by="alice"))


@pytest.mark.parametrize(
    ("asked", "member"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:DB8::1", "2001:db8::1"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("127.0.0.1", "127.0.0.1"),
    ],
)
def test_a_block_is_until_a_moment_of_redis(
    held: Holdings, blocker: Blocker, asked: str, member: str
) -> None:
    """An agent finds it under the address's one spelling until now + ttl, and `v` is another."""
    before = held.now_ms()
    block, kept = blocker.block(asked, 3600)
    assert (block.member, block.left_ms) == (member, HOUR_MS)
    assert before + HOUR_MS <= block.until_ms <= held.now_ms() + HOUR_MS
    assert held.cut().blocked_until(b"x " + member.encode()) == block.until_ms
    assert held.version() > 0
    assert kept == (Confirmed(0, 0), True, "", ())


def test_the_last_block_counts(held: Holdings, blocker: Blocker) -> None:
    """An admin may shorten a block, too: nobody but admins writes them."""
    blocker.block("192.0.2.7", 3600)
    block, _ = blocker.block("192.0.2.7", 60)
    assert held.cut().blocked_until(b"192.0.2.7") == block.until_ms < held.now_ms() + HOUR_MS


def test_a_lifted_block_is_gone(held: Holdings, blocker: Blocker) -> None:
    """Lifting says whether there was a block, and raises `v` only then."""
    blocker.block("192.0.2.7", 3600)
    blocker.block("192.0.2.0/24", 3600)
    version = held.version()
    assert blocker.unblock("::ffff:192.0.2.7")[0]
    assert held.cut().blocked_until(b"192.0.2.7") == 0
    assert held.cut().blocked_until(b"192.0.2.0/24") > 0
    lifted = held.version()
    assert lifted > version
    assert not blocker.unblock("192.0.2.7")[0]
    assert held.version() == lifted


def test_blocks_are_listed_while_they_last(held: Holdings, blocker: Blocker) -> None:
    """What ends first stands first; what is over or no block is not listed."""
    long, _ = blocker.block("192.0.2.7", 3600)
    short, _ = blocker.block("2001:db8::/32", 60)
    now_ms = held.now_ms()
    by_hand = {"addr:192.0.2.8": now_ms - 1, "addr:192.0.2.9": "never", "sub:user1": 2**50}
    held.client.hset(held.keys.cut, mapping=by_hand)
    listed = blocker.blocks()
    assert [block.member for block in listed] == ["2001:db8::/32", "192.0.2.7", "192.0.2.9"]
    assert [block.until_ms for block in listed] == [short.until_ms, long.until_ms, MAX_INTEGER]
    assert all(0 < block.left_ms <= block.until_ms - now_ms for block in listed)


def test_nothing_is_blocked_in_an_empty_store(blocker: Blocker) -> None:
    """No hash is no block."""
    assert blocker.blocks() == []


@pytest.mark.parametrize("ttl_s", [0, -1, MAX_BLOCK_TTL_S + 1])
def test_a_time_that_cannot_be_is_refused(held: Holdings, blocker: Blocker, ttl_s: int) -> None:
    """A second to a year."""
    with pytest.raises(ValueError, match=f"a block of {ttl_s} s: 1 to {MAX_BLOCK_TTL_S} s are"):
        blocker.block("192.0.2.7", ttl_s)
    assert held.client.keys() == []


@pytest.mark.parametrize("asked", ["", "all", "192.0.2.7/24", "0.0.0.0/0"])
def test_what_no_agent_looks_for_is_refused(held: Holdings, blocker: Blocker, asked: str) -> None:
    """A block that would hit nobody is a mistake, also to lift."""
    with pytest.raises(ValueError, match=r"address|size|host bits"):
        blocker.block(asked, 60)
    with pytest.raises(ValueError, match=r"address|size|host bits"):
        blocker.unblock(asked)
    assert held.client.keys() == []


def test_the_audit_tells_of_blocks(held: Holdings, blocker: Blocker) -> None:
    """A block and its end are told, with who did it; what was not blocked is not."""
    block, _ = blocker.block("192.0.2.7", 60)
    blocker.unblock("192.0.2.7")
    blocker.unblock("192.0.2.7")
    shared = {"src": "192.0.2.7", "by": "alice"}
    assert held.events() == [
        {"event": "blocked", **shared, "until": block.until_ms},
        {"event": "unblocked", **shared},
    ]


def test_who_mirrors_grants_is_told(held: Holdings, blocker: Blocker) -> None:
    """A block and its end concern every ACL; what changes no block is told to nobody."""
    with held.client.pubsub(ignore_subscribe_messages=True) as channel:
        channel.subscribe(held.keys.grants_channel)
        channel.get_message(timeout=DEADLINE_S)
        blocker.unblock("192.0.2.7")
        Admin(held.client, held.prefix, by="alice").cut("sub:user1")
        for change in (
            lambda: blocker.block("192.0.2.7", 60),
            lambda: blocker.block("192.0.2.7", 30),
            lambda: blocker.unblock("192.0.2.7"),
        ):
            assert channel.get_message() is None
            change()
            message = channel.get_message(timeout=DEADLINE_S)
            assert message is not None
            assert message["data"] == b"*"


def test_who_may_not_tell_blocks_all_the_same(start_redis: Callable[..., RedisServer]) -> None:
    """A user without the right to publish has blocked and lifted, and is told so."""
    server = start_redis()
    with server.client() as owner:
        owner.acl_setuser(
            "mute", enabled=True, nopass=True, keys=["*"], reset_channels=True, commands=["+@all"]
        )
        with redis.Redis(unix_socket_path=server.socket, username="mute", protocol=2) as client:
            held = Holdings(client)
            with pytest.raises(NoPermissionError):
                client.publish(held.keys.grants_channel, "*")
            blocker = Blocker(Admin(client, by="alice"))
            block, _ = blocker.block("192.0.2.7", 60)
            assert held.cut().blocked_until(b"192.0.2.7") == block.until_ms
            assert blocker.unblock("192.0.2.7")[0]
            assert held.cut().blocked_until(b"192.0.2.7") == 0
