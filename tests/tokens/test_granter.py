"""Granting on a real Redis, for admins and other programs."""

import json

import pytest
import redis

from tests.support.holdings import HOUR_MS, Holdings
from tokens.admin.admin import Admin
from tokens.admin.granter import Granter
from tokens.record import MAX_GRANT_TTL_S, MAX_INTEGER


@pytest.fixture(params=["kat:", "a*[b]:"])
def held(request: pytest.FixtureRequest, client: redis.Redis) -> Holdings:
    return Holdings(client, request.param)


@pytest.fixture
def granter(held: Holdings) -> Granter:
    return Granter(Admin(held.client, held.prefix, by="alice"))


def test_a_grant_is_found_by_agents(held: Holdings, granter: Granter) -> None:
    """It stands under its one spelling, until the moment that the answer names."""
    before = held.now_ms()
    granted = granter.grant("tcp", "::ffff:192.0.2.7", "user1", 3600)
    assert granted.member == "192.0.2.7"
    assert before + HOUR_MS <= granted.ends_ms <= held.now_ms() + HOUR_MS
    assert held.client.zscore(held.keys.grants(b"tcp"), "192.0.2.7") == granted.ends_ms


def test_nothing_is_shortened(held: Holdings, granter: Granter) -> None:
    """A shorter grant of the same answers the longer one's end."""
    first = granter.grant("tcp", "192.0.2.7", "user1", 3600)
    assert granter.grant("tcp", "192.0.2.7", "user2", 60).ends_ms == first.ends_ms
    assert [it.user for it in granter.grants()] == ["user2", "user1"]
    assert held.has_grant("192.0.2.7", "tcp")


def test_it_is_listed_under_its_user(held: Holdings, granter: Granter) -> None:
    """The user's list has it, as agents write it, and what is over is trimmed from it."""
    index = held.keys.sub(b"user1")
    held.client.zadd(index, {"g:old 10.0.0.1": 1})
    granted = granter.grant("tcp", "192.0.2.7", "user1", 3600)
    ((member, score),) = held.client.zrange(index, 0, -1, withscores=True)
    assert member == b"g:tcp 192.0.2.7"
    assert abs(score - granted.ends_ms) < 60_000
    assert 0 < held.client.ttl(index) <= MAX_GRANT_TTL_S


def test_the_audit_tells_of_it(held: Holdings, granter: Granter) -> None:
    """Who granted what to whom, and until when."""
    granted = granter.grant("tcp", "192.0.2.7", "user1", 60)
    assert granted.is_audited
    assert held.events() == [
        {
            "event": "granted",
            "acl": "tcp",
            "user": "user1",
            "src": "192.0.2.7",
            "until": granted.ends_ms,
            "by": "alice",
        }
    ]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("a b", "192.0.2.7", "user1", 60), "^acl: 'a b' is not"),
        (("tcp", "192.0.2.7", "", 60), "^user: '' is not"),
        (("tcp", "192.0.2.7", "user1", 0), "a grant of 0 s: 1 to 2592000 s are allowed"),
        (("tcp", "192.0.2.7", "user1", MAX_GRANT_TTL_S + 1), "a grant of 2592001 s"),
        (("tcp", "127.0.0.1", "user1", 60), "127.0.0.1 is never granted"),
        (("tcp", "nowhere", "user1", 60), "'nowhere' is neither an address"),
    ],
)
def test_what_cannot_be_granted_is_a_sentence(
    held: Holdings, granter: Granter, words: tuple[str, str, str, int], sentence: str
) -> None:
    """Nothing is written, not even to the list."""
    with pytest.raises(ValueError, match=sentence):
        granter.grant(*words)
    assert held.client.keys() == []


def test_what_stands_is_listed(held: Holdings, granter: Granter) -> None:
    """By ACL, what ends first at the top; what is over is not; whoever wrote it."""
    granter.grant("tcp", "192.0.2.7", "user1", 3600)
    granter.grant("tcp", "192.0.2.8", "user2", 60)
    granter.grant("other", "192.0.2.9", "user3", 60)
    by_hand = {"192.0.2.1": 1, "192.0.2.2": float("inf"), b"\xff": held.now_ms() + 30_000}
    held.client.zadd(held.keys.grants(b"tcp"), by_hand)  # type: ignore[arg-type]
    held.client.hset(held.keys.grants_meta(b"tcp"), "192.0.2.2", '{"sub":7,"by":"portal"}')
    listed = granter.grants()
    assert [(it.acl, it.member, it.user, it.by) for it in listed] == [
        ("other", "192.0.2.9", "user3", "alice"),
        ("tcp", "\ufffd", "", ""),
        ("tcp", "192.0.2.8", "user2", "alice"),
        ("tcp", "192.0.2.7", "user1", "alice"),
        ("tcp", "192.0.2.2", "", "portal"),
    ]
    assert listed[-1].ends_ms == MAX_INTEGER
    assert 59_000 < listed[2].left_ms <= 60_000
    assert [it.member for it in granter.grants("other")] == ["192.0.2.9"]
    assert granter.grants("none") == []


def test_every_owner_is_listed(held: Holdings, granter: Granter) -> None:
    """Each claim with its own end, none of which is over or beyond the grant's."""
    grants, meta = held.keys.grants(b"tcp"), held.keys.grants_meta(b"tcp")
    granter.grant("tcp", "192.0.2.7", "user1", 3600)
    granter.grant("tcp", "192.0.2.7", "user2", 60)
    ends = [it.ends_ms for it in granter.grants()]
    assert ends[1] - ends[0] == pytest.approx(3_540_000, abs=30_000)
    also = [{"sub": "over", "end": 1}, {"sub": "long", "by": "b", "end": 2**52}, 7, {"end": "x"}]
    also += [{"sub": "odd", "end": float("nan")}, {"sub": "no end"}, {"sub": 7, "end": 1e999}]
    held.client.hset(meta, "192.0.2.7", json.dumps({"sub": "user3", "by": "portal", "also": also}))
    score = held.client.zscore(grants, "192.0.2.7")
    assert [(it.user, it.by, it.ends_ms) for it in granter.grants()] == [
        ("user3", "portal", score),
        ("long", "b", score),
    ]


@pytest.mark.parametrize("also", [7, "x", {}, None])
def test_owners_that_nobody_can_read_are_none(
    held: Holdings, granter: Granter, also: object
) -> None:
    """Whatever another program wrote, the grant is listed once."""
    held.grant("192.0.2.7", "tcp")
    meta = json.dumps({"sub": "user1", "also": also})
    held.client.hset(held.keys.grants_meta(b"tcp"), "192.0.2.7", meta)
    assert [it.user for it in granter.grants()] == ["user1"]


def test_a_claim_among_others_is_found(held: Holdings, granter: Granter) -> None:
    """Who has a shorter claim than another loses it, and the other keeps the grant."""
    granter.grant("tcp", "192.0.2.7", "user1", 3600)
    granter.grant("tcp", "192.0.2.7", "user2", 60)
    claims, (still,) = granter.end_of("sub", "user2")
    assert (claims, still.member, still.user) == (1, "192.0.2.7", "user1")
    assert granter.end_of("sub", "user2") == (0, ())
    assert [it.user for it in granter.grants()] == ["user1"]
    assert granter.end("192.0.2.7") == 1
    assert not held.has_grant("192.0.2.7", "tcp")


def test_only_grants_are_taken_for_some(held: Holdings, granter: Granter) -> None:
    """Other keys under the prefix are left alone."""
    held.token()
    held.session()
    held.client.hset(held.keys.grants_meta(b"tcp"), "192.0.2.7", "{}")
    assert granter.grants() == []
    assert granter.end_all() == 0


def test_a_wrong_acl_is_a_sentence(granter: Granter) -> None:
    """A name that no ACL can have is refused before anything is asked."""
    for ask in (granter.grants, granter.end_acl):
        with pytest.raises(ValueError, match=r"^acl: '\*' is not"):
            ask("*")
