"""Revoking on a real Redis: what is found is deleted, what is not is cut."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
import redis

from tests.support.holdings import HOUR_MS, Holdings, kid_of, sid_of
from tokens.admin.admin import Admin
from tokens.admin.revoke import Revoker
from tokens.admin.revoked import Revoked
from tokens.token import mint

if TYPE_CHECKING:
    from tokens.policy.cut import Cut

Act = Callable[[Revoker], Revoked]

ACTS: dict[str, tuple[Act, str]] = {
    "kid": (lambda revoker: revoker.revoke_kid("0123456789ab"), "kid:0123456789ab"),
    "user": (lambda revoker: revoker.revoke_user("user1"), "sub:user1"),
    "group": (lambda revoker: revoker.revoke_group("staff"), "group:staff"),
    "acl": (lambda revoker: revoker.revoke_acl("wiki"), "acl:wiki"),
    "all": (lambda revoker: revoker.revoke_all(), "all"),
}
"""What writes a cut, and its field."""


@pytest.fixture(params=["kat:", "a*[b]?\\^:"])
def held(request: pytest.FixtureRequest, client: redis.Redis) -> Holdings:
    """Under the usual prefix, then under one that SCAN could take for a pattern."""
    return Holdings(client, request.param)


@pytest.fixture
def revoker(held: Holdings) -> Revoker:
    return Revoker(Admin(held.client, held.prefix, by="alice"))


@pytest.mark.parametrize("act", ACTS)
def test_a_cut_is_now_and_is_seen(held: Holdings, revoker: Revoker, act: str) -> None:
    """The field is Redis's time, `v` is another than before, and both are in the answer."""
    revoke, field = ACTS[act]
    before = held.now_ms()
    done = revoke(revoker)
    assert done.cut_ms is not None
    assert before <= done.cut_ms <= held.now_ms()
    fields = held.client.hgetall(held.keys.cut)
    assert fields.pop(b"v")
    assert fields == {field.encode(): str(done.cut_ms).encode()}
    version = held.version()
    again = revoke(revoker)
    assert again.cut_ms is not None
    assert again.cut_ms >= done.cut_ms
    assert held.version() > version


@pytest.mark.parametrize("act", ACTS)
def test_what_does_not_exist_is_no_mistake(held: Holdings, revoker: Revoker, act: str) -> None:
    """Nothing is found, nothing fails, and nothing but the cut and the audit is written."""
    revoke, _ = ACTS[act]
    assert revoke(revoker).total == 0
    assert set(held.client.keys()) == {held.keys.cut, held.keys.audit}


@pytest.mark.parametrize("act", ACTS)
def test_a_cut_never_moves_back(held: Holdings, revoker: Revoker, act: str) -> None:
    """A clock that is behind, as after a failover, revokes nothing less than before."""
    revoke, field = ACTS[act]
    later = held.now_ms() + HOUR_MS
    held.client.hset(held.keys.cut, field, later)
    assert revoke(revoker).cut_ms == later
    assert held.client.hget(held.keys.cut, field) == str(later).encode()


@pytest.mark.parametrize("value", ["", "never", "1e3", "-1", "9" * 17, "nan"])
def test_a_cut_that_nobody_can_read_stays(held: Holdings, revoker: Revoker, value: str) -> None:
    """To agents it is a no without end; a revocation does not turn it into less."""
    held.client.hset(held.keys.cut, mapping={"sub:user1": value, "acl:old": value, "v": value})
    revoker.revoke_user("user1")
    fields = held.client.hgetall(held.keys.cut)
    assert fields[b"sub:user1"] == fields[b"acl:old"] == value.encode()
    assert int(fields[b"v"]) > 0


def test_every_change_has_a_number_of_its_own(held: Holdings, revoker: Revoker) -> None:
    """After a failover that lost a change, the next one has another `v` than the lost one."""
    revoker.revoke_user("user1")
    kept = held.client.hgetall(held.keys.cut)
    revoker.revoke_user("user2")
    lost = held.version()
    held.client.delete(held.keys.cut)
    held.client.hset(held.keys.cut, mapping=kept)
    revoker.revoke_user("user3")
    assert held.version() != lost
    by_hand = held.version()
    held.client.hincrby(held.keys.cut, "v", 1)
    revoker.revoke_user("user4")
    assert held.version() > by_hand + 1


def test_old_fields_are_trimmed(held: Holdings, revoker: Revoker) -> None:
    """A cut that nothing alive is older than goes, a block that is over too, and nothing else."""
    now_ms, day_ms = held.now_ms(), 24 * HOUR_MS
    fields = {
        "sub:old": now_ms - 31 * day_ms - 1000,
        "kid:000000000000": 1,
        "sub:young": now_ms - 31 * day_ms + 60_000,
        "addr:192.0.2.7": now_ms - 1000,
        "addr:192.0.2.8": now_ms + 60_000,
    }
    held.client.hset(held.keys.cut, mapping=fields)
    revoker.revoke_user("user1")
    left = {b"sub:young", b"addr:192.0.2.8", b"sub:user1", b"v"}
    assert set(held.client.hkeys(held.keys.cut)) == left


def test_a_token_is_revoked_by_its_text_or_its_kid(held: Holdings, revoker: Revoker) -> None:
    """A token that is not consumed is deleted, its neighbours are not, and its kid is cut."""
    one, two, other = held.token(), held.token(), held.token()
    assert revoker.revoke_token(one.encode()).tokens == 1
    assert revoker.revoke_kid(kid_of(two)).tokens == 1
    assert [held.has_token(token) for token in (one, two, other)] == [False, False, True]
    named = [held.cut().names_token(kid_of(token).encode()) for token in (one, two, other)]
    assert named == [True, True, False]


@pytest.mark.parametrize("by_text", [True, False])
def test_a_tombstone_stays(held: Holdings, revoker: Revoker, *, by_text: bool) -> None:
    """A consumed token is found so, and its replays stay replays."""
    token = held.token(is_consumed=True)
    revoke = revoker.revoke_token if by_text else revoker.revoke_kid
    done = revoke(token.encode() if by_text else kid_of(token))  # type: ignore[operator]
    assert (done.tokens, done.consumed, done.total) == (0, 1, 0)
    assert held.has_token(token)


def test_a_record_of_another_type_is_deleted(held: Holdings, revoker: Revoker) -> None:
    """What is under a token's name opens nothing after its revocation, whatever it is."""
    name = "0123456789ab" + "0" * 52
    held.client.hset(held.keys.token(name.encode()), "x", "y")
    assert revoker.revoke_kid("0123456789ab").tokens == 1
    assert not held.client.exists(held.keys.token(name.encode()))


@pytest.mark.parametrize("is_found", [True, False])
def test_a_token_takes_with_it_what_it_opened(
    held: Holdings, revoker: Revoker, *, is_found: bool
) -> None:
    """Its sessions and grants end, also when its tombstone is long gone; others' stay."""
    token = held.token(is_consumed=True) if is_found else mint()
    mine = held.session(kid=kid_of(token))
    other = held.session(kid_of(token), kid="ffffffffffff")
    held.grant("10.0.0.1", by=f"kid:{kid_of(token)}")
    held.grant("10.0.0.2", by="kid:ffffffffffff")
    done = revoker.revoke_token(token.encode())
    assert (done.sessions, done.grants, done.consumed) == (1, 1, int(is_found))
    assert (held.has_session(mine), held.has_session(other)) == (False, True)
    assert (held.has_grant("10.0.0.1"), held.has_grant("10.0.0.2")) == (False, True)


def test_a_session_is_ended_by_its_id_or_its_sid(held: Holdings, revoker: Revoker) -> None:
    """Its key is gone and it is listed no longer; nothing is cut; its neighbour stands."""
    one, two, other = held.session(), held.session(), held.session()
    assert revoker.revoke_session(one.encode()) == Revoked(sessions=1)
    assert revoker.revoke_sid(sid_of(two)) == Revoked(sessions=1)
    assert [held.has_session(session) for session in (one, two, other)] == [False, False, True]
    assert held.client.zcard(held.keys.sub(b"user1")) == 1
    assert not held.client.exists(held.keys.cut)


def test_a_session_that_is_not_there_is_no_mistake(held: Holdings, revoker: Revoker) -> None:
    """Nothing is written, not even to the audit."""
    assert revoker.revoke_session(b"x" * 43) == revoker.revoke_sid("0123456789ab") == Revoked()
    assert held.client.keys() == []


def test_an_unreadable_session_is_ended_too(held: Holdings, revoker: Revoker) -> None:
    """What agents refuse to read is deleted as well as anything."""
    key = held.keys.session(b"0123456789ab" + b"0" * 52)
    held.client.set(key, "junk")
    assert revoker.revoke_sid("0123456789ab").sessions == 1
    assert not held.client.exists(key)


@pytest.mark.parametrize(
    "name", ["", "*", "0123456789a", "0123456789abc", "0123456789AB", "?" * 12]
)
def test_a_name_never_finds_more_than_it_names(held: Holdings, revoker: Revoker, name: str) -> None:
    """Only a whole kid or sid is looked for; what else was given is not repeated."""
    token, session = held.token(), held.session()
    for revoke in (revoker.revoke_kid, revoker.revoke_sid):
        with pytest.raises(ValueError, match="not 12 hexadecimal digits") as caught:
            revoke(name)
        assert not name or name not in str(caught.value)
    assert held.has_token(token)
    assert held.has_session(session)
    assert not held.client.exists(held.keys.cut)


def test_a_user_loses_what_he_has(held: Holdings, revoker: Revoker) -> None:
    """His sessions and grants of all ACLs end and are counted; others keep theirs."""
    mine = [held.session(), held.session()]
    other = held.session("user2")
    held.grant("10.0.0.1")
    held.grant("10.0.0.2", "tcp")
    held.grant("10.0.0.3", user="user2")
    held.client.zadd(held.keys.grants(b"tcp"), {"10.0.0.4": 2**52})
    done = revoker.revoke_user("user1")
    assert (done.sessions, done.grants, done.total) == (2, 2, 4)
    assert not any(map(held.has_session, mine))
    assert held.has_session(other)
    assert not held.has_grant("10.0.0.1")
    assert not held.has_grant("10.0.0.2", "tcp")
    assert held.has_grant("10.0.0.3")
    assert held.has_grant("10.0.0.4", "tcp")


def test_a_cut_reaches_what_was_issued_before_it(held: Holdings, revoker: Revoker) -> None:
    """A token of the very moment of the cut is revoked; one of two ms later is not."""
    cut_ms = revoker.revoke_user("user1").cut_ms
    assert cut_ms is not None

    def is_revoked(issued_ms: int, user: bytes = b"user1") -> bool:
        return held.cut().is_revoked(b"wiki", b"0" * 12, user, b"", issued_ms)

    assert is_revoked(0)
    assert is_revoked(cut_ms)
    assert not is_revoked(cut_ms + 2)
    assert not is_revoked(0, b"user2")


def test_a_later_session_stays(held: Holdings, revoker: Revoker) -> None:
    """What a token opened that was issued after the cut is not deleted with the rest."""
    later = held.session(issued_ms=held.now_ms() + HOUR_MS)
    foreign = held.session("user2")
    name = held.client.zrange(held.keys.sub(b"user2"), 0, -1)[0]
    held.client.zadd(held.keys.sub(b"user1"), {name: 2**52, "s:junk": 2**52, "g:wiki x": 2**52})
    assert revoker.revoke_user("user1").total == 0
    assert held.has_session(later)
    assert held.has_session(foreign)


def test_the_cut_stands_before_anything_is_deleted(held: Holdings) -> None:
    """Who opens something while we look for it finds the cut when he has written."""
    held.token()
    seen: list[Cut] = []
    admin = Admin(held.client, held.prefix, by="a", progress=lambda *_: seen.append(held.cut()))
    Revoker(admin).revoke_user("user1")
    Revoker(admin).revoke_kid("0123456789ab")
    assert seen
    assert all(cut.is_revoked(b"wiki", b"0" * 12, b"user1", b"", 0) for cut in seen)
    assert seen[-1].names_token(b"0123456789ab")


def test_an_acl_or_everything_loses_its_grants(held: Holdings, revoker: Revoker) -> None:
    """Grants are ended and counted: an agent does not look for them in the cut."""
    for number in range(3):
        held.grant(f"10.0.0.{number}", "tcp")
        held.grant(f"10.0.0.{number}", "wiki")
    assert revoker.revoke_acl("tcp").grants == 3
    assert not held.has_grant("10.0.0.1", "tcp")
    assert held.has_grant("10.0.0.1", "wiki")
    assert revoker.revoke_all().grants == 3
    assert not held.has_grant("10.0.0.1", "wiki")


def test_a_group_keeps_its_grants(held: Holdings, revoker: Revoker) -> None:
    """A grant names no group, and none is guessed."""
    held.grant("10.0.0.1")
    assert revoker.revoke_group("staff").total == 0
    assert held.has_grant("10.0.0.1")


def test_a_grant_is_ended_at_one_acl_or_at_all(held: Holdings, revoker: Revoker) -> None:
    """Exactly this address, however it is spelt; nothing is cut."""
    for acl in ("tcp", "wiki", "other"):
        held.grant("192.0.2.7", acl)
    held.grant("192.0.2.0/24")
    assert revoker.end_grant("::ffff:192.0.2.7", "tcp") == Revoked(grants=1)
    assert [held.has_grant("192.0.2.7", acl) for acl in ("tcp", "wiki")] == [False, True]
    assert revoker.end_grant("192.0.2.7") == Revoked(grants=2)
    assert revoker.end_grant("192.0.2.7") == Revoked()
    assert held.has_grant("192.0.2.0/24")
    assert not held.client.exists(held.keys.cut)


def test_many_grants_of_a_user_end(held: Holdings, revoker: Revoker) -> None:
    """More than one call of the script can end."""
    for number in range(250):
        held.grant(f"10.0.{number}.1")
    held.grant("10.1.0.0/16", user="user2")
    assert revoker.revoke_user("user1").grants == 250
    assert held.client.zrange(held.keys.grants(b"wiki"), 0, -1) == [b"10.1.0.0/16"]


@pytest.mark.parametrize(
    ("act", "sentence"),
    [
        (lambda revoker: revoker.revoke_user(""), "^user: '' is not 1 to 128"),
        (lambda revoker: revoker.revoke_user("x" * 129), "^user: 'xxx"),
        (lambda revoker: revoker.revoke_user("a\n"), r"^user: 'a\\n' is not"),
        (lambda revoker: revoker.revoke_group("a,b"), "^group: 'a,b' is not"),
        (lambda revoker: revoker.revoke_acl("a b"), "^acl: 'a b' is not 1 to 64"),
        (lambda revoker: revoker.revoke_acl("*"), "^acl:"),
        (lambda revoker: revoker.end_grant("192.0.2.7", "*"), "^acl:"),
        (lambda revoker: revoker.end_grant("192.0.2.0/25"), "size that no agent looks for"),
    ],
)
def test_what_nothing_is_called_is_refused(
    held: Holdings, revoker: Revoker, act: Act, sentence: str
) -> None:
    """What no record can hold is a mistake, and nothing is written."""
    with pytest.raises(ValueError, match=sentence) as caught:
        act(revoker)
    assert len(str(caught.value)) < 200
    assert held.client.keys() == []


def test_the_audit_tells_what_was_done(held: Holdings, revoker: Revoker) -> None:
    """One event per act: by whom, what, how many; no token, no session id, no whole digest."""
    token, session = held.token(), held.session("user2")
    held.session()
    held.session()
    revoker.revoke_token(token.encode())
    revoker.revoke_session(session.encode())
    revoker.revoke_user("user1")
    revoker.revoke_group("staff")
    revoker.revoke_acl("wiki")
    revoker.revoke_all()
    held.grant("10.0.0.1")
    revoker.end_grant("10.0.0.1", "wiki")
    told = held.events()
    assert [event.pop("by") for event in told] == ["alice"] * 7
    assert told == [
        {"event": "revoked", "reason": "kid", "kid": kid_of(token)},
        {"event": "revoked", "reason": "session", "acl": "wiki", "user": "user2"},
        {"event": "revoked", "reason": "user", "user": "user1"},
        {"event": "revoked", "reason": "group", "group": "staff"},
        {"event": "revoked", "reason": "acl", "acl": "wiki"},
        {"event": "revoked", "reason": "all"},
        {"event": "grant_ended", "src": "10.0.0.1", "acl": "wiki"},
    ]
    raw = str(held.client.xrange(held.keys.audit))
    assert token not in raw
    assert session not in raw


@pytest.fixture
def limited(held: Holdings) -> Iterator[Callable[[str], Revoker]]:
    """Give a revoker whose user may do everything but one thing."""
    with ExitStack() as stack:

        def without(command: str) -> Revoker:
            words = ("on", "nopass", "~*", "&*", "+@all", f"-{command}")
            held.client.execute_command("ACL", "SETUSER", "limited", *words)
            path = held.client.connection_pool.connection_kwargs["path"]
            client = stack.enter_context(
                redis.Redis(unix_socket_path=path, username="limited", password="x", protocol=2)
            )
            return Revoker(Admin(client, held.prefix, by="alice"))

        yield without
    held.client.execute_command("ACL", "DELUSER", "limited")


@pytest.mark.parametrize(
    ("command", "undone"),
    [("unlink", "tokens"), ("unlink", "sessions"), ("scan", "sessions"), ("hscan", "grants")],
)
def test_a_step_that_is_refused_keeps_none_from_being_done(
    held: Holdings, limited: Callable[[str], Revoker], command: str, undone: str
) -> None:
    """The cut is written and told, the other steps are done, and the answer names this one."""
    token = held.token()
    held.session(kid=kid_of(token))
    held.grant("10.0.0.1", by=f"kid:{kid_of(token)}")
    done = limited(command).revoke_token(token.encode())
    assert held.cut().names_token(kid_of(token).encode())
    assert [event["event"] for event in held.events()] == ["revoked"]
    assert undone in {it.what for it in done.undone}
    assert (done.grants == 1) is ("grants" not in {it.what for it in done.undone})
    assert held.has_grant("10.0.0.1") is (done.grants == 0)


def test_the_audit_is_told_before_the_search(held: Holdings) -> None:
    """Who gives up a long search has revoked, and the audit says so."""

    def give_up(*_: int) -> None:
        raise KeyboardInterrupt

    admin = Admin(held.client, held.prefix, by="alice", progress=give_up)
    with pytest.raises(KeyboardInterrupt):
        Revoker(admin).revoke_user("user1")
    assert [event["user"] for event in held.events()] == ["user1"]


def test_a_session_ends_whoever_may_not_unlist_it(
    held: Holdings, limited: Callable[[str], Revoker]
) -> None:
    """A line too many in a user's list is no failure."""
    session = held.session()
    assert limited("zrem").revoke_session(session.encode()).sessions == 1
    assert not held.has_session(session)
    assert len(held.events()) == 1


def test_what_others_claim_is_named(held: Holdings, revoker: Revoker) -> None:
    """Revoking one of two who opened an address leaves it open for the other, and says so."""
    held.grant("10.0.0.1", user="user1")
    held.grant("10.0.0.1", user="user2", by="kid:0123456789ab")
    done = revoker.revoke_user("user1")
    assert (done.grants, [(it.member, it.user) for it in done.still]) == (
        1,
        [("10.0.0.1", "user2")],
    )
    assert held.has_grant("10.0.0.1")
    assert revoker.revoke_kid("0123456789ab").grants == 1
    assert not held.has_grant("10.0.0.1")


def test_what_the_audit_refuses_is_done(held: Holdings, revoker: Revoker) -> None:
    """A stream that cannot be written is told in the answer, and undoes nothing."""
    session = held.session()
    held.client.set(held.keys.audit, "no stream")
    done = revoker.revoke_user("user1")
    assert (done.sessions, done.kept.is_audited) == (1, False)
    assert not held.has_session(session)


def test_who_wants_no_audit_has_none(held: Holdings) -> None:
    """With 0 entries nothing is told, which is no fault."""
    admin = Admin(held.client, held.prefix, by="alice", max_audit_entries=0)
    assert Revoker(admin).revoke_all().kept.is_audited
    assert not held.client.exists(held.keys.audit)
