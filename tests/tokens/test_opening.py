"""What a consumed token opens, as it is written to Redis."""

import json
from dataclasses import replace
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.asking import Asker
from tests.support.gates import CHECK, CLIENT, digest_of
from tests.support.records import GOOD
from tests.support.strategies import records
from tokens.check import Check, Decision
from tokens.outcome import Outcome
from tokens.policy.opening import Consumed, Opening, open_address, open_session
from tokens.policy.rule import AclRule, Mode
from tokens.policy.session import is_session_id, session_digest
from tokens.policy.sessionrecord import Only, read_session
from tokens.record import MAX_SESSION_TTL_S, Keys, Record, write_record

NOW_MS = 1_760_000_000_000
ISSUED_MS = NOW_MS - 5000
KID = b"0123456789ab"
OK = Decision(Outcome.OK, KID, b"user1", b"staff")
IN_SESSION = AclRule(Mode.SESSION, session_ttl_ms=3_600_000)
IN_GRANT = AclRule(Mode.GRANT, grant_ttl_ms=600_000)


def consumed(
    raw: bytes = GOOD, rule: AclRule = IN_SESSION, now_ms: int = NOW_MS, **changes: Any
) -> Consumed:
    check = replace(CHECK, **changes)
    return Consumed(check, rule, OK, ISSUED_MS, raw, now_ms)


def opened(raw: bytes = GOOD, rule: AclRule = IN_SESSION, **changes: Any) -> Opening:
    opening = open_session(consumed(raw, rule, **changes), Keys())
    assert opening
    return opening


def record(**fields: Any) -> bytes:
    return json.dumps(json.loads(GOOD) | fields).encode()


@pytest.mark.parametrize("via", [b"header", b"", b"cookie", b"Query", b"query "])
def test_only_a_browsers_token_opens_a_session(via: bytes) -> None:
    """A token in a header, or that came in a way nobody knows, lets its one request through."""
    assert open_session(consumed(via=via), Keys()) is None


@pytest.mark.parametrize("via", [b"query", b"form"])
def test_a_browsers_token_opens_a_session(via: bytes) -> None:
    """In a query or in a form it does."""
    assert opened(via=via).decision.outcome is Outcome.OK


def test_a_token_may_forbid_its_session() -> None:
    """`session: false` lets one request through and opens nothing."""
    assert open_session(consumed(record(session=False)), Keys()) is None


def test_what_is_written_for_a_session() -> None:
    """First it is listed under its user, then it stands; the ACK alone has its id."""
    opening = opened(source=CLIENT)
    session_id = opening.decision.session
    digest = digest_of(session_id)
    *listing, setting = [question.head for question in opening.questions]
    expires_ms = NOW_MS + 3_600_000
    assert listing == [
        (b"ZADD", b"kat:sub:user1", b"%d" % expires_ms, b"s:" + digest),
        (b"ZREMRANGEBYSCORE", b"kat:sub:user1", b"-inf", b"%d" % NOW_MS),
        (b"EXPIRE", b"kat:sub:user1", b"%d" % MAX_SESSION_TTL_S),
    ]
    assert setting[:2] == (b"SET", b"kat:s:" + digest)
    assert setting[3:] == (b"PX", b"3600000")
    session = read_session(setting[2])
    assert session.sid == digest[:12]
    assert session._replace(sid=b"") == (
        *(b"user1", b"staff", b"wiki", b"wiki.example", b"192.0.2.7"),
        *(ISSUED_MS, expires_ms, KID, b"", None),
    )
    assert opening.undo.head == (b"DEL", b"kat:s:" + digest)
    assert (opening.what, opening.issued_ms) == (b"session", ISSUED_MS)
    assert replace(opening.decision, session=b"") == OK


def test_the_id_is_written_nowhere() -> None:
    """Neither the id nor a part of it is in any command or repr."""
    opening = opened()
    session_id = opening.decision.session
    assert is_session_id(session_id)
    said = repr([question.head for question in (*opening.questions, opening.undo)])
    for part in (session_id[:20], session_id[20:43]):
        assert part.decode() not in said
        assert part.decode() not in repr(opening)


def test_no_two_sessions_have_one_id() -> None:
    """Each opening draws afresh, also for the very same token."""
    one = consumed()
    ids = {opening.decision.session for _ in range(100) if (opening := open_session(one, Keys()))}
    assert len(ids) == 100


@pytest.mark.parametrize(
    ("terms", "idle_of_acl", "ends_in_s", "lasts_s", "tail"),
    [
        (None, None, 3600, 3600, b""),
        (None, 600, 3600, 600, b".600"),
        ({"ttl": 60}, None, 60, 60, b""),
        ({"ttl": 60}, 600, 60, 60, b""),
        ({"ttl": 7200}, None, 3600, 3600, b""),
        ({"idle": 30}, None, 3600, 30, b".30"),
        ({"idle": 30}, 600, 3600, 30, b".30"),
        ({"idle": 1200}, 600, 3600, 600, b".600"),
        ({"ttl": 60, "idle": 30}, None, 60, 30, b".30"),
        ({"idle": 9007199254740992}, None, 3600, 3600, b""),
        ({"idle": 3600}, None, 3600, 3600, b""),
        ({"idle": 1}, None, 3600, 1, b".1"),
    ],
)
def test_how_long_a_session_lives(
    terms: dict[str, int] | None,
    idle_of_acl: int | None,
    ends_in_s: int,
    lasts_s: int,
    tail: bytes,
) -> None:
    """The token shortens what the ACL allows and never lengthens it; the key ends with the idle."""
    rule = replace(IN_SESSION, session_idle_ms=idle_of_acl * 1000 if idle_of_acl else None)
    opening = opened(record(session=terms) if terms else GOOD, rule)
    setting = opening.questions[-1].head
    assert isinstance(setting[2], bytes)
    assert read_session(setting[2]).expires_ms == NOW_MS + ends_in_s * 1000
    assert setting[-1] == b"%d" % (lasts_s * 1000)
    assert opening.decision.session[43:] == tail


def test_a_session_is_bound_like_its_token() -> None:
    """Addresses, methods and paths of the token go into its session; its host is the one asked."""
    raw = record(src=["192.0.2.0/24"], method=["GET"], path=["/x"], host=["wiki.example", "b"])
    setting = opened(raw).questions[-1].head
    assert isinstance(setting[2], bytes)
    session = read_session(setting[2])
    assert session.only == Only(frozenset({b"192.0.2.0/24"}), frozenset({b"GET"}), (b"/x",))
    assert session.host == b"wiki.example"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(records().filter(lambda record: record.session is not False), st.binary(max_size=255))
def test_every_token_opens_a_session_that_reads(record: Record, host: bytes) -> None:
    """No token of the contract, from whatever host, opens what nobody can look up or read."""
    raw = write_record(record)
    user, groups = record.sub.encode(), ",".join(record.groups).encode()
    ok = replace(OK, user=user, groups=groups)
    opening = open_session(consumed(raw, host=host)._replace(decision=ok), Keys())
    assert opening
    assert is_session_id(opening.decision.session)
    setting = opening.questions[-1].head
    assert setting[1] == Keys().session(session_digest(opening.decision.session))
    assert isinstance(setting[2], bytes)
    session = read_session(setting[2])
    assert (session.user, session.groups, session.host) == (user, groups, host)
    assert 1 <= int(setting[-1]) <= IN_SESSION.session_ttl_ms


# Grants.


def grant(
    client: redis.Redis, check: Check = CHECK, kid: bytes = KID, user: bytes = b"user1"
) -> Any:
    decision = Decision(Outcome.OK, kid, user)
    seconds, micro = client.time()
    now_ms = seconds * 1000 + micro // 1000
    return open_address(Consumed(check, IN_GRANT, decision, now_ms, GOOD, now_ms), Keys())


def end_of(client: redis.Redis, member: str = "192.0.2.7") -> float | None:
    return client.zscore("kat:grants:{wiki}", member)


def holder(client: redis.Redis) -> dict[str, Any]:
    return json.loads(client.hget("kat:grants:{wiki}:meta", "192.0.2.7") or "null")


def test_what_is_written_for_a_grant(client: redis.Redis) -> None:
    """The address is listed under its user, then granted until the ACL's time is over."""
    opening = grant(client)
    replies = Asker(client).answer(opening.questions)
    assert opening.is_open(replies)
    end_ms = end_of(client)
    assert end_ms is not None
    seconds, _ = client.time()
    assert abs(end_ms - (seconds * 1000 + 600_000)) < 60_000
    assert client.zrange("kat:sub:user1", 0, -1) == [b"g:wiki 192.0.2.7"]
    assert holder(client)["by"] == "kid:0123456789ab"
    assert opening.what == b"grant"


def test_an_ipv4_mapped_client_is_granted_as_ipv4(client: redis.Redis) -> None:
    """As dual-stack sockets write it, so that it is found again by either way."""
    mapped = replace(CHECK, source=bytes(10) + b"\xff\xff" + CLIENT)
    Asker(client).answer(grant(client, mapped).questions)
    assert end_of(client) is not None


def test_a_grant_is_undone(client: redis.Redis) -> None:
    """What a token opened is closed again."""
    asker, opening = Asker(client), grant(client)
    asker.answer(opening.questions)
    asker.answer([opening.undo])
    assert end_of(client) is None


def test_undoing_leaves_what_somebody_else_opened(client: redis.Redis) -> None:
    """A grant that stood longer than the token's own remains, whoever holds it; so does a later."""
    asker = Asker(client)
    client.zadd("kat:grants:{wiki}", {"192.0.2.7": 10**14})
    client.hset("kat:grants:{wiki}:meta", "192.0.2.7", '{"sub":"user1","by":"admin","iat":1}')
    opening = grant(client)
    asker.answer([*opening.questions, opening.undo])
    assert end_of(client) == 10**14
    client.delete("kat:grants:{wiki}", "kat:grants:{wiki}:meta")
    first, second = grant(client), grant(client, kid=b"ba9876543210")
    asker.answer(first.questions)
    client.zincrby("kat:grants:{wiki}", -10, "192.0.2.7")
    asker.answer([*second.questions, first.undo])
    assert holder(client)["by"] == "kid:ba9876543210"


@pytest.mark.parametrize(
    ("replies", "is_open"),
    [
        ([1, 0, 1, b"OK"], True),
        ([0, 5, 1, 1_760_000_000_000], True),
        ([1, 0, 1, None], False),
        ([redis.ResponseError("WRONGTYPE"), 0, 1, b"OK"], False),
        ([1, 0, 1, redis.ResponseError("OOM")], False),
    ],
)
def test_what_is_open(replies: list[Any], is_open: bool) -> None:  # noqa: FBT001
    """Only when every single write was done is anything open."""
    assert opened().is_open(replies) is is_open
