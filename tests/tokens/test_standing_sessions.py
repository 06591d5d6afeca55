"""The list of sessions that stand, on a real Redis."""

import json
from collections.abc import Callable, Iterator

import pytest
import redis

from tests.support.holdings import HOUR_MS, Holdings, sid_of
from tests.support.topologies import RunningCluster
from tokens.admin.admin import Admin
from tokens.admin.revoke import Revoker
from tokens.admin.sessions import standing_sessions
from tokens.store.client import connect
from tokens.token import digest


@pytest.fixture(params=["kat:", "a*[b]?\\^:"])
def held(request: pytest.FixtureRequest, client: redis.Redis) -> Holdings:
    """Under the usual prefix, then under one that SCAN could take for a pattern."""
    return Holdings(client, request.param)


@pytest.fixture
def admin(held: Holdings) -> Admin:
    return Admin(held.client, held.prefix, by="alice")


def listed(admin: Admin) -> list[str]:
    return [session.sid.decode() for session in standing_sessions(admin)]


def test_those_of_this_prefix_are_listed_latest_first(held: Holdings, admin: Admin) -> None:
    """All sessions under the prefix come, by the age of their tokens, and no other key."""
    now_ms = held.now_ms()
    ages = [5000, 1000, 3000]
    opened = [held.session(issued_ms=now_ms - age) for age in ages]
    held.token()
    Holdings(held.client, f"{held.prefix}other:").session()
    assert listed(admin) == [sid_of(opened[place]) for place in (1, 2, 0)]


def test_what_they_say_is_what_was_opened(held: Holdings, admin: Admin) -> None:
    """User, ACL, host, address, kid and end are those of the session's record."""
    held.session("user2", kid="ba9876543210")
    (session,) = standing_sessions(admin)
    assert (session.user, session.acl, session.host) == (b"user2", b"wiki", b"wiki.example")
    assert (session.src, session.kid) == (b"192.0.2.7", b"ba9876543210")
    assert 0 < session.expires_ms - held.now_ms() <= HOUR_MS


@pytest.mark.parametrize(
    "act",
    [
        lambda revoker: revoker.revoke_acl("wiki"),
        lambda revoker: revoker.revoke_all(),
        lambda revoker: revoker.revoke_user("user1"),
    ],
    ids=["acl", "all", "user"],
)
def test_what_is_revoked_stands_no_more(
    held: Holdings, admin: Admin, act: Callable[[Revoker], object]
) -> None:
    """A session that agents refuse is not listed, though its key may still be there."""
    held.session(issued_ms=held.now_ms() - 1000)
    assert listed(admin)
    act(Revoker(admin))
    assert listed(admin) == []


def test_a_revoked_group_stands_no_more(held: Holdings, admin: Admin) -> None:
    """A group that was revoked takes its members' sessions off the list."""
    name = held.session(issued_ms=held.now_ms() - 1000)
    rewrite(held, name, groups=["staff", "guests"])
    assert listed(admin) == [sid_of(name)]
    Revoker(admin).revoke_group("staff")
    assert listed(admin) == []


def rewrite(held: Holdings, session_id: str, **fields: object) -> None:
    key = held.keys.session(digest(session_id.encode()))
    record = json.loads(held.client.get(key))
    held.client.set(key, json.dumps({**record, **fields}))


def test_what_no_agent_would_read_is_left_out(held: Holdings, admin: Admin) -> None:
    """A foreign value, one of another type, and a session past its end are skipped."""
    for name, value in {b"a" * 64: "{}", b"b" * 64: "no JSON"}.items():
        held.client.set(held.keys.session(name), value)
    held.client.lpush(held.keys.session(b"c" * 64), "of another type")
    rewrite(held, held.session(), exp=held.now_ms() - 1)
    assert listed(admin) == []


def test_no_more_are_listed_than_asked_for(held: Holdings, admin: Admin) -> None:
    """The limit holds, however many stand."""
    for _ in range(5):
        held.session()
    assert len(standing_sessions(admin, limit=3)) == 3


@pytest.fixture
def spread(shared_cluster: RunningCluster) -> Iterator[Holdings]:
    with connect(shared_cluster.url) as client:
        yield Holdings(client, "standing:")


def test_those_of_all_primaries_are_listed(spread: Holdings) -> None:
    """In a cluster the sessions of every primary come."""
    opened = {sid_of(spread.session()) for _ in range(20)}
    assert set(listed(Admin(spread.client, spread.prefix, by="alice"))) == opened
