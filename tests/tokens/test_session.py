"""Sessions alone: how long they live, and which requests one lets through."""

from dataclasses import replace
from hashlib import sha256
from ipaddress import ip_address
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.gates import CHECK
from tests.support.records import with_fields
from tests.support.redeem import Ask, Redeemer
from tokens.outcome import Outcome
from tokens.policy.rule import AclRule, Bind, Mode
from tokens.policy.session import (
    idle_ms,
    is_session_id,
    judge_session,
    mint_session,
    opened_idle_ms,
    opened_ttl_ms,
    opens_path,
    session_digest,
    sid_of,
)
from tokens.policy.sessionrecord import Only, Session
from tokens.record import MAX_INTEGER, MAX_SESSION_TTL_S, Record, SessionTerms

NOW_MS = 1_760_000_000_000
SESSION = Session(
    user=b"user1",
    groups=b"",
    acl=b"wiki",
    host=b"wiki.example",
    src=b"192.0.2.7",
    issued_ms=NOW_MS - 1000,
    expires_ms=NOW_MS + 1000,
    kid=b"0" * 12,
    sid=b"1" * 12,
)
MAPPED = bytes(10) + b"\xff\xff"


def packed(address: str) -> bytes:
    return ip_address(address).packed


def rule(**changes: Any) -> AclRule:
    return AclRule(mode=Mode.SESSION, **changes)


def token_with(ttl_s: int | None = None, idle_s: int | None = None) -> Record:
    terms = SessionTerms(ttl_s, idle_s)
    return Record("user1", ("wiki",), 60, session=None if terms == (None, None) else terms)


# The id.


@pytest.mark.parametrize("idle", [None, 1000, 1_800_000, MAX_SESSION_TTL_S * 1000])
def test_an_id_says_its_idle_time(idle: int | None) -> None:
    """A fresh id is well formed, holds 256 random bits, and its idle time and no other."""
    ids = {mint_session(idle) for _ in range(100)}
    assert len(ids) == 100
    assert all(is_session_id(session_id) for session_id in ids)
    assert {idle_ms(session_id, rule().session_idle_ms) for session_id in ids} == {idle}


def test_an_id_is_kept_by_its_digest() -> None:
    """Redis knows the SHA-256 of all of the id: whoever changes its idle time has another id."""
    session_id = mint_session(60_000)
    assert session_digest(session_id) == sha256(session_id).hexdigest().encode()
    others = [session_id.partition(b".")[0], session_id + b"0", session_id.replace(b".60", b".61")]
    assert session_digest(session_id) not in map(session_digest, others)
    assert sid_of(session_digest(session_id)) == session_digest(session_id)[:12]


times_s = st.none() | st.integers(1, MAX_INTEGER)
acl_idle_s = st.none() | st.integers(1, MAX_SESSION_TTL_S)


@given(times_s, times_s, st.integers(1, MAX_SESSION_TTL_S), acl_idle_s)
@example(None, MAX_INTEGER, MAX_SESSION_TTL_S, None)
@example(None, 10_000_000, MAX_SESSION_TTL_S, None)
def test_a_token_may_shorten_and_never_lengthen(
    ttl_s: int | None, idle_s: int | None, acl_ttl_s: int, acl_idle: int | None
) -> None:
    """A session lives as long as the shorter says; its id is well formed, whatever a token asks."""
    of_acl = rule(
        session_ttl_ms=acl_ttl_s * 1000, session_idle_ms=acl_idle * 1000 if acl_idle else None
    )
    token = token_with(ttl_s, idle_s)
    ttl_ms, idle = opened_ttl_ms(token, of_acl), opened_idle_ms(token, of_acl)
    assert ttl_ms == min(acl_ttl_s, ttl_s or acl_ttl_s) * 1000
    # None: as long as it lives.
    shortest_s = min(acl_idle or MAX_INTEGER, idle_s or MAX_INTEGER)
    assert min(idle or ttl_ms, ttl_ms) == min(shortest_s * 1000, ttl_ms)
    assert is_session_id(mint_session(idle))


@pytest.mark.parametrize(
    ("own", "of_acl", "lies"),
    [
        (None, None, None),
        (60_000, None, 60_000),
        (None, 60_000, 60_000),
        (60_000, 30_000, 30_000),
        (60_000, 90_000, 60_000),
    ],
)
def test_the_shorter_idle_time_counts(
    own: int | None, of_acl: int | None, lies: int | None
) -> None:
    """An ACL that was shortened later counts for what is open; one that was lengthened does not."""
    assert idle_ms(mint_session(own), of_acl) == lies


# Which requests it lets through.


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({}, Outcome.SESSION),
        ({"acl": b"docs"}, Outcome.WRONG_ACL),
        ({"acl": b"Wiki"}, Outcome.WRONG_ACL),
        ({"host": b"other.example"}, Outcome.WRONG_HOST),
        ({"host": b"wiki.example.org"}, Outcome.WRONG_HOST),
        ({"host": b""}, Outcome.WRONG_HOST),
        ({"source": b"", "method": b"", "path": b""}, Outcome.SESSION),
        ({"source": packed("198.51.100.1")}, Outcome.SESSION),
        ({"path": b"/x//../y"}, Outcome.SESSION),
    ],
)
def test_an_unbound_session(changes: dict[str, Any], outcome: Outcome) -> None:
    """A session is good for its ACL and host alone, and else for every request."""
    assert judge_session(SESSION, replace(CHECK, **changes), rule(), NOW_MS) is outcome


@pytest.mark.parametrize(
    ("left_ms", "outcome"),
    [(1, Outcome.SESSION), (0, Outcome.SESSION_EXPIRED), (-1, Outcome.SESSION_EXPIRED)],
)
def test_a_session_ends_at_its_exp(left_ms: int, outcome: Outcome) -> None:
    """Valid before exp, never at it or past it, by the time that Redis tells."""
    assert judge_session(SESSION, CHECK, rule(), SESSION.expires_ms - left_ms) is outcome


SIX = "2001:db8:0:1::7"
BINDS = [
    # opened from, asked from, off, exact, network
    ("192.0.2.7", "192.0.2.7", True, True, True),
    ("192.0.2.7", "192.0.2.8", True, False, False),
    ("192.0.2.7", "::ffff:192.0.2.7", True, True, True),
    ("192.0.2.7", "::ffff:192.0.2.8", True, False, False),
    ("192.0.2.7", SIX, True, False, False),
    ("192.0.2.7", "", True, False, False),
    (SIX, SIX, True, True, True),
    (SIX, "2001:db8:0:1::8", True, False, True),
    (SIX, "2001:db8:0:1:ffff:ffff:ffff:ffff", True, False, True),
    (SIX, "2001:db8:0:2::7", True, False, False),
    (SIX, "192.0.2.7", True, False, False),
    (SIX, "", True, False, False),
    ("", "192.0.2.7", True, False, False),
    ("", "", True, False, False),
]


@pytest.mark.parametrize(("opened", "asked", "off", "exact", "network"), BINDS)
def test_binding_to_an_address(
    opened: str,
    asked: str,
    off: bool,  # noqa: FBT001
    exact: bool,  # noqa: FBT001
    network: bool,  # noqa: FBT001
) -> None:
    """Off: any; exact: the same; network: the same IPv4 address, or one of its /64.

    Whoever came or comes without an address is bound to nothing, and so is let through by nothing.
    """
    session = SESSION._replace(src=opened.encode())
    check = replace(CHECK, source=packed(asked) if asked else b"")
    expected = {Bind.OFF: off, Bind.EXACT: exact, Bind.NETWORK: network}
    for bind, is_open in expected.items():
        outcome = judge_session(session, check, rule(session_bind=bind), NOW_MS)
        assert outcome is (Outcome.SESSION if is_open else Outcome.WRONG_SRC), bind


ONLY = Only(frozenset({b"192.0.2.0/24", b"2001:db8::/64"}), frozenset({b"GET"}), (b"/x",))


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({}, Outcome.SESSION),
        ({"source": MAPPED + packed("192.0.2.200")}, Outcome.SESSION),
        ({"source": packed("2001:db8::9")}, Outcome.SESSION),
        ({"source": packed("2001:db8:0:1::9")}, Outcome.WRONG_SRC),
        ({"source": packed("192.0.3.7")}, Outcome.WRONG_SRC),
        ({"source": b""}, Outcome.WRONG_SRC),
        ({"method": b"POST"}, Outcome.WRONG_METHOD),
        ({"method": b"get"}, Outcome.WRONG_METHOD),
        ({"method": b""}, Outcome.WRONG_METHOD),
        ({"path": b"/x"}, Outcome.SESSION),
        ({"path": b"/xy"}, Outcome.WRONG_PATH),
        ({"path": b"/x/../y"}, Outcome.WRONG_PATH),
        ({"path": b""}, Outcome.WRONG_PATH),
    ],
)
def test_a_session_opens_no_more_than_its_token(changes: dict[str, Any], outcome: Outcome) -> None:
    """Addresses, methods and paths that the token was bound to bind the session, too."""
    session = SESSION._replace(only=ONLY)
    assert judge_session(session, replace(CHECK, **changes), rule(), NOW_MS) is outcome


def test_each_binding_of_a_token_is_kept() -> None:
    """No binding is lost on the way into the session; without any there is nothing to keep."""
    bound = Record("u", ("wiki",), 60, src=("192.0.2.7",), method=("GET", "HEAD"), path=("/x", "/"))
    assert Only.of(bound) == Only(
        frozenset({b"192.0.2.7"}), frozenset({b"GET", b"HEAD"}), (b"/x", b"/")
    )
    for name in ("src", "method", "path"):
        only = Only.of(Record("u", ("wiki",), 60, **{name: getattr(bound, name)}))
        assert only is not None
        assert [field for field in Only._fields if getattr(only, field)] == [name]
    assert Only.of(Record("u", ("wiki",), 60, host=("wiki.example",), groups=("staff",))) is None


paths = st.text(st.sampled_from("/x.;%25eEfF0\\c"), max_size=12).map(lambda text: "/" + text)
prefixes = st.from_regex(r"(/[x0e.]{0,2}){1,2}", fullmatch=True).filter(
    lambda prefix: "//" not in prefix and ".." not in prefix
)


@pytest.fixture
def redeemer(client: redis.Redis) -> Redeemer:
    return Redeemer(client)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(prefixes, st.lists(paths, min_size=20, max_size=20), st.booleans())
@example("/x", ["/x", "/x/", "/xx", "/x/..", "/x/%2E", "/x/;", "/x//", "/x/\\", "/x/%5C"], False)  # noqa: FBT003
def test_paths_are_judged_as_by_redeem_lua(
    redeemer: Redeemer,
    prefix: str,
    tails: list[str],
    is_below: bool,  # noqa: FBT001
) -> None:
    """What a token's path would open its session's path opens, and nothing else."""
    record = with_fields(f'"path":["{prefix}"]')
    asked = [prefix.rstrip("/") + tail if is_below else tail for tail in tails]
    answers = redeemer.redeem(*(Ask(redeemer.put(record), path=path) for path in asked))
    assert [answer.code == "ok" for answer in answers] == [
        opens_path((prefix.encode(),), path.encode()) for path in asked
    ]


def test_one_prefix_of_several_is_enough() -> None:
    """A path is opened by any of the prefixes."""
    assert opens_path((b"/a", b"/b/"), b"/b/c")
    assert not opens_path((b"/a", b"/b/"), b"/b")
    assert not opens_path((), b"/b")
