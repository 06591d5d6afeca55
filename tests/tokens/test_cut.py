"""A worker's copy of `kat:cut`, and cut.lua, which says whether it still holds."""

from collections.abc import Callable
from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from tests.support.asking import Asker
from tests.support.gates import Site
from tests.support.redis import RedisServer
from tokens.policy import cut
from tokens.policy.cut import Cut
from tokens.policy.redeem import ReplyMismatch
from tokens.question import Fence

StartRedis = Callable[..., RedisServer]

KEY = b"kat:cut"
KID = b"0123456789ab"


def cuts(**fields: object) -> Cut:
    flat: list[Any] = []
    for name, value in fields.items():
        flat += [name.replace("_", ":", 1).encode(), str(value).encode()]
    return Cut(b"1", flat)


def is_revoked(copy: Cut, issued_ms: int, *, groups: bytes = b"staff,wiki editors") -> bool:
    return copy.is_revoked(b"wiki", KID, b"user1", groups, issued_ms)


@pytest.mark.parametrize(
    "field",
    ["all", "acl:wiki", "sub:user1", "group:staff", "group:wiki editors", f"kid:{KID.decode()}"],
)
def test_what_a_cut_hits(field: str) -> None:
    """What was issued before a cut, or in its ms, or the one after, is revoked; later is good.

    The one after: two roundings lie between a moment of issue and what PTTL tells of it.
    """
    copy = Cut(b"1", [b"v", b"1", field.encode(), b"1000"])
    assert [is_revoked(copy, issued) for issued in (0, 999, 1000, 1001, 1002, 10**15)] == [
        True,
        True,
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    "field",
    [
        "acl:Wiki",
        "acl:wik",
        "acl:",
        "sub:user",
        "sub:user12",
        "sub:",
        "group:wiki",
        "group:editors",
        "group:",
        "group:staff,wiki editors",
        "kid:",
        "kid:0123456789",
        "ALL",
        "",
        "sub",
        "addr:all",
    ],
)
def test_what_a_cut_leaves_alone(field: str) -> None:
    """No other name than its own is hit by a cut."""
    copy = Cut(b"1", [field.encode(), b"1000"])
    assert not is_revoked(copy, 0)
    assert not is_revoked(copy, 0, groups=b"")


def test_a_user_of_no_group_is_in_none() -> None:
    """A cut of the empty group hits nobody."""
    assert not cuts(group_=1000).is_revoked(b"wiki", KID, b"user1", b"", 0)


def test_the_latest_of_several_cuts_counts() -> None:
    """Cuts do not shadow each other."""
    copy = cuts(all=500, sub_user1=1000, acl_wiki=700)
    assert is_revoked(copy, 999)
    assert not is_revoked(copy, 1002)


@pytest.mark.parametrize(
    "value", [b"", b"x", b"-1", b"1.5", b"1e3", b" 1", b"9" * 17, b"\xff", None]
)
def test_an_unreadable_cut_is_the_end_of_time(value: bytes | None) -> None:
    """In doubt it is a no, for ever: of a revocation as of a block."""
    copy = Cut(b"1", [b"sub:user1", value, b"addr:192.0.2.7", value])
    assert is_revoked(copy, 2**53)
    assert copy.blocked_until(b"192.0.2.7") > 2**53


def test_which_tokens_a_cut_names() -> None:
    """A token is named by its own kid alone."""
    copy = cuts(kid_0123456789ab=1000, all=2000)
    assert copy.names_token(KID)
    assert not copy.names_token(KID[::-1])


@pytest.mark.parametrize(
    ("candidates", "until_ms"),
    [
        (b"192.0.2.7 192.0.2.0/24 192.0.0.0/16 192.0.0.0/8", 2000),
        (b"192.0.2.8 192.0.2.0/24 192.0.0.0/16 192.0.0.0/8", 1000),
        (b"192.0.3.7 192.0.3.0/24 192.0.0.0/16 192.0.0.0/8", 0),
        (b"2001:db8::1 2001:db8::/64", 3000),
        (b"", 0),
    ],
)
def test_blocks(candidates: bytes, until_ms: int) -> None:
    """A client is blocked by its address and by each network, for as long as the longest says."""
    copy = Cut(
        b"1",
        [b"addr:192.0.2.7", b"2000", b"addr:192.0.2.0/24", b"1000", b"addr:2001:db8::/64", b"3000"],
    )
    assert copy.has_blocks
    assert copy.is_empty
    assert copy.blocked_until(candidates) == until_ms


def test_a_copy_of_nothing() -> None:
    """Nothing revoked, nothing blocked; and it has no version that any server could have."""
    assert (Cut().is_empty, Cut().has_blocks, Cut().version) == (True, False, b"-")
    assert not is_revoked(Cut(), 0)
    assert Cut().blocked_until(b"192.0.2.7") == 0


# What is taken for an answer.


def test_an_unchanged_version_keeps_the_copy() -> None:
    """The very copy that was asked about is given back."""
    copy = Cut(b"f 7", [b"all", b"1"])
    assert cut.read([5, b"f 7"], copy) == (5, copy)


def test_a_changed_version_brings_a_new_copy() -> None:
    """What the fields say now counts, and nothing of the old copy."""
    now_ms, copy = cut.read(
        [5, b"f 8", [b"v", b"8", b"sub:user1", b"9"]], Cut(b"f 7", [b"all", b"1"])
    )
    assert (now_ms, copy.version, copy.is_empty) == (5, b"f 8", False)
    assert not copy.is_revoked(b"wiki", KID, b"user2", b"", 0)


@pytest.mark.parametrize(
    "reply",
    [
        None,
        1,
        b"x",
        [],
        [5],
        [5, b"f 8"],
        [5, b"f 7", None],
        [5, b"f 7", [b"odd"]],
        [b"5", b"f 7"],
        [5, None],
        [5, b"f 7", [], []],
        [5, b"f 7", b"all"],
        [5, [b"f 7"]],
        redis.ResponseError("no"),
    ],
)
def test_what_is_not_our_answer(reply: Any) -> None:
    """A reply that tells no time, or neither confirms the copy nor brings another, is none."""
    with pytest.raises(ReplyMismatch):
        cut.read(reply, Cut(b"f 7"))


def replies() -> st.SearchStrategy[Any]:
    return st.recursive(
        st.none() | st.integers() | st.binary(max_size=4) | st.sampled_from([b"f 7", b"all"]),
        lambda inner: st.lists(inner, max_size=4),
    )


@given(replies() | st.tuples(st.integers(), replies(), replies()).map(list))
def test_no_reply_confuses(reply: Any) -> None:
    """Whatever Redis says is an answer or a mismatch; nothing else is raised."""
    try:
        _, copy = cut.read(reply, Cut(b"f 7"))
    except ReplyMismatch:
        return
    copy.is_revoked(b"wiki", KID, b"user1", b"staff", 0)
    copy.blocked_until(b"192.0.2.7 192.0.2.0/24")


# cut.lua.


def look(asker: Asker, copy: Cut) -> tuple[int, Cut]:
    (reply,) = asker.answer([cut.ask(KEY, copy)])
    return cut.read(reply, copy)


def test_every_change_is_seen(client: redis.Redis) -> None:
    """A copy holds until `v` changes, in whatever way; then the new one has what stands there."""
    site = Site(client)
    _, copy = look(site.asker, Cut())
    changes = [
        lambda: site.revoke("sub:user1"),
        lambda: site.block("192.0.2.7"),
        lambda: site.unblock("192.0.2.7"),
        lambda: client.hset(KEY, "v", 1),
        lambda: client.hset(KEY, "v", "odd"),
        lambda: client.delete(KEY),
        lambda: site.revoke("all"),
    ]
    for change in changes:
        assert look(site.asker, copy)[1] is copy
        change()
        _, newer = look(site.asker, copy)
        assert newer is not copy
        copy = newer
    assert not copy.is_empty


def test_the_time_is_redis_own(client: redis.Redis) -> None:
    """Now is what Redis's clock says, with a copy that holds and with one that does not."""
    site = Site(client)
    copy = Cut()
    for _ in range(2):
        before = site.now_ms()
        now_ms, copy = look(site.asker, copy)
        assert before <= now_ms <= site.now_ms()


def test_another_server_vouches_for_nothing(client: redis.Redis) -> None:
    """A server with another replid than expected says KATFENCE and no time."""
    asker = Asker(client)
    asker.fence = Fence(b"f" * 40, 0)
    (reply,) = asker.answer([cut.ask(KEY, Cut())])
    assert isinstance(reply, Exception)
    assert str(reply).startswith("KATFENCE")


def test_the_same_number_of_another_server_is_another_version(start_redis: StartRedis) -> None:
    """A promoted server lost the last change and counted another to the same number: it is read.

    Neither does the copy from before hold on it, nor its own on the first.
    """
    with start_redis().client() as client:
        site = Site(client)
        site.revoke("sub:lost")
        _, copy = look(site.asker, Cut())
        client.replicaof("127.0.0.1", 1)
        client.replicaof("NO", "ONE")
        site.asker.fence = Asker(client).fence
        client.hdel(KEY, "sub:lost")
        client.hset(KEY, mapping={"v": 1, "sub:user1": site.now_ms()})
        _, newer = look(site.asker, copy)
        assert is_revoked(newer, 0)
        assert newer.version != copy.version


def test_a_key_of_another_type_vouches_for_nothing(client: redis.Redis) -> None:
    """A string under kat:cut is an error, not an empty list of revocations."""
    client.set(KEY, b"1")
    (reply,) = Asker(client).answer([cut.ask(KEY, Cut())])
    assert isinstance(reply, Exception)


def test_a_replica_vouches_for_nothing(start_redis: StartRedis) -> None:
    """A primary that was made a replica answers no batch, not even one that only reads."""
    with start_redis().client() as client:
        asker = Asker(client)
        client.replicaof("127.0.0.1", 1)
        (reply,) = asker.answer([cut.ask(KEY, Cut())])
        assert str(reply).startswith("KATFENCE")
