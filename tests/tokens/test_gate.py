"""The gate as a whole, before a real Redis: every mode, every proof, every moment to interfere."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
import redis

from tests.support.asking import Asker, Steps, judged
from tests.support.gates import (
    CHECK,
    ELSEWHERE,
    RULES,
    Site,
    bringing,
    coming,
    digest_of,
    kid_of,
    returning,
)
from tests.support.records import GOOD, MISSPELT, NONCE, with_fields
from tests.support.redis import RedisServer
from tokens.check import Check, Decision
from tokens.outcome import Outcome
from tokens.policy import redeem
from tokens.policy.gate import Unanswered
from tokens.policy.redeem import ReplyMismatch
from tokens.policy.rule import AclRule, Bind, Mode
from tokens.policy.session import mint_session
from tokens.policy.sessionrecord import read_session
from tokens.question import Fence, Reply
from tokens.record import Record, write_record
from tokens.token import mint

StartRedis = Callable[..., RedisServer]

MODES = ("strict", "session", "grant", "ip", "ip-token")


@pytest.fixture
def site(client: redis.Redis) -> Site:
    return Site(client)


def outcomes(decisions: list[Decision]) -> list[Outcome]:
    return [decision.outcome for decision in decisions]


def session_key(session: bytes) -> bytes:
    return b"kat:s:" + digest_of(session)


# What needs no Redis.


@pytest.mark.parametrize("acl", [b"other", b"", b"WIKI", b"\xff"])
def test_an_unknown_acl_is_told_first(site: Site, acl: bytes) -> None:
    """A wrong ACL is our fault: it is told before any word about token or session."""
    for check in (
        replace(CHECK, acl=acl),
        replace(CHECK, acl=acl, token=b"x"),
        replace(CHECK, acl=acl, token=mint().encode(), session=mint_session(None)),
    ):
        assert site.gate.look(check) is Outcome.UNKNOWN_ACL
        assert site.gate.look_logout(check) is Outcome.UNKNOWN_ACL


def test_every_reason_is_said_once() -> None:
    """No two outcomes have one reason, HAProxy gets one of four classes, and three open."""
    assert len({outcome.reason for outcome in Outcome}) == len(Outcome)
    assert {outcome.verdict for outcome in Outcome} == {b"allow", b"missing", b"denied", b"broken"}
    opening = {outcome for outcome in Outcome if outcome.verdict == b"allow"}
    assert opening == {Outcome.OK, Outcome.SESSION, Outcome.GRANT}


def test_a_batch_is_one_write(site: Site) -> None:
    """Tokens, sessions and grants of a batch are asked about together, and the cut behind them."""
    token = site.issue()
    steps = site.judging(
        bringing(token),
        returning(mint_session(None)),
        returning(mint_session(60_000)),
        coming("ip"),
        coming("grant"),
    )
    commands = [b"EVALSHA", b"MGET", b"EVALSHA", b"ZMSCORE", b"ZMSCORE", b"EVALSHA"]
    assert steps.commands == commands
    assert steps.questions[0].head[1] == redeem.SHA
    assert steps.questions[-1].key == b"kat:cut"
    steps.ask()
    steps.hear()
    assert steps.judgement


# The table of modes. Each cell is what the design says of it, written down by hand.

OK, BY_SESSION, BY_GRANT = Outcome.OK, Outcome.SESSION, Outcome.GRANT
MISSING, EXPIRED, NO_GRANT = Outcome.MISSING, Outcome.SESSION_EXPIRED, Outcome.NO_GRANT
MALFORMED, UNKNOWN, REPLAYED = Outcome.MALFORMED, Outcome.UNKNOWN, Outcome.REPLAYED

SESSIONS = ("stands", "expired", "malformed", "absent")
TABLE: dict[str, dict[str, dict[str, tuple[Outcome, ...]]]] = {
    # A token each time; nothing else is looked at.
    "strict": {
        "good": {"granted": (OK, OK, OK, OK), "not": (OK, OK, OK, OK)},
        "refused": {"granted": (REPLAYED,) * 4, "not": (REPLAYED,) * 4},
        "malformed": {"granted": (MALFORMED,) * 4, "not": (MALFORMED,) * 4},
        "absent": {"granted": (MISSING,) * 4, "not": (MISSING,) * 4},
    },
    # A token or a session; grants are not looked at.
    "session": {
        "good": {"granted": (OK, OK, OK, OK), "not": (OK, OK, OK, OK)},
        "refused": {
            "granted": (BY_SESSION, REPLAYED, REPLAYED, REPLAYED),
            "not": (BY_SESSION, REPLAYED, REPLAYED, REPLAYED),
        },
        "malformed": {
            "granted": (BY_SESSION, MALFORMED, MALFORMED, MALFORMED),
            "not": (BY_SESSION, MALFORMED, MALFORMED, MALFORMED),
        },
        "absent": {
            "granted": (BY_SESSION, EXPIRED, EXPIRED, MISSING),
            "not": (BY_SESSION, EXPIRED, EXPIRED, MISSING),
        },
    },
    # A token or a grant; sessions are not looked at.
    "grant": {
        "good": {"granted": (OK, OK, OK, OK), "not": (OK, OK, OK, OK)},
        "refused": {"granted": (BY_GRANT,) * 4, "not": (REPLAYED,) * 4},
        "malformed": {"granted": (BY_GRANT,) * 4, "not": (MALFORMED,) * 4},
        "absent": {"granted": (BY_GRANT,) * 4, "not": (NO_GRANT,) * 4},
    },
    # A grant, whatever else is brought.
    "ip": {
        "good": {"granted": (BY_GRANT,) * 4, "not": (NO_GRANT,) * 4},
        "refused": {"granted": (BY_GRANT,) * 4, "not": (NO_GRANT,) * 4},
        "malformed": {"granted": (BY_GRANT,) * 4, "not": (NO_GRANT,) * 4},
        "absent": {"granted": (BY_GRANT,) * 4, "not": (NO_GRANT,) * 4},
    },
    # A grant, and then a token each time.
    "ip-token": {
        "good": {"granted": (OK, OK, OK, OK), "not": (NO_GRANT,) * 4},
        "refused": {"granted": (REPLAYED,) * 4, "not": (NO_GRANT,) * 4},
        "malformed": {"granted": (MALFORMED,) * 4, "not": (MALFORMED,) * 4},
        "absent": {"granted": (MISSING,) * 4, "not": (MISSING,) * 4},
    },
}
CELLS = [
    pytest.param(mode, token, grant, session, outcome, id=f"{mode}-{token}-{grant}-{session}")
    for mode, by_token in TABLE.items()
    for token, by_grant in by_token.items()
    for grant, row in by_grant.items()
    for session, outcome in zip(SESSIONS, row, strict=True)
]


def test_the_table_is_whole() -> None:
    """Every mode with every token, session and grant: 5 x 4 x 4 x 2."""
    assert {*TABLE, "wiki"} == RULES.keys() == {*MODES, "wiki"}
    assert {rule.mode for rule in RULES.values()} == set(Mode)
    assert len(CELLS) == 5 * 4 * 4 * 2


def make_token(site: Site, kind: str) -> bytes:
    token = (
        {"malformed": b"kat_x", "absent": b""}.get(kind)
        if kind in {"malformed", "absent"}
        else site.issue()
    )
    assert token is not None
    if kind == "refused":
        assert site.outcome(bringing(token)) is Outcome.OK
    return token


def make_session(site: Site, kind: str, acl: str) -> bytes:
    if kind == "absent":
        return b""
    if kind == "malformed":
        return b"x" * 42
    session = site.log_in()
    if acl != "session":
        return session
    if kind == "expired":
        site.client.delete(session_key(session))
    return session


@pytest.mark.parametrize("per_call", [128, 1])
@pytest.mark.parametrize(("mode", "token", "grant", "session", "outcome"), CELLS)
def test_every_mode(  # noqa: PLR0917 - a row of the table
    client: redis.Redis,
    mode: str,
    token: str,
    grant: str,
    session: str,
    outcome: Outcome,
    per_call: int,
) -> None:
    """What is brought opens what the mode says, and a token is consumed for a yes by it alone.

    The same on one server and as for a cluster.
    """
    site = Site(client, keys_per_call=per_call)
    if grant == "granted":
        site.grant(mode)
    brought, kept = make_token(site, token), make_session(site, session, mode)
    check = bringing(brought, mode, session=kept)
    assert site.outcome(check) is outcome
    if token == "good":
        assert site.is_consumed(brought) == (outcome is Outcome.OK)


def test_a_batch_of_everything(site: Site) -> None:
    """All cells of the table in one batch: each gets its own answer, in its place."""
    for acl in MODES:
        site.grant(acl, "198.51.100.1", left_ms=10**9)
    checks, expected = [], []
    for mode, token, grant, session, outcome in (cell.values for cell in CELLS):
        source = ELSEWHERE if grant == "granted" else CHECK.source
        kept = make_session(site, str(session), str(mode))
        check = bringing(make_token(site, str(token)), str(mode), session=kept, source=source)
        if mode == "grant" and token == "good" and grant == "not":
            continue  # it opens the address for all that follow
        checks.append(check)
        expected.append(outcome)
    assert outcomes(site.visit(*checks)) == expected


# The token's own rules, through the gate.


def test_allowed_once(site: Site) -> None:
    """A good token opens its door; the second time it is a replay; a stranger is unknown."""
    check = bringing(site.issue(GOOD))
    assert site.visit(check) == [Decision(Outcome.OK, kid_of(check.token), b"user1")]
    again = site.visit(check, bringing(mint().encode()))
    assert outcomes(again) == [Outcome.REPLAYED, Outcome.UNKNOWN]


def test_one_token_many_times_in_a_batch(site: Site) -> None:
    """One token asked for 300 times in one batch, in three calls, is consumed once."""
    check = bringing(site.issue())
    assert outcomes(site.visit(*[check] * 300)) == [Outcome.OK] + [Outcome.REPLAYED] * 299


MAPPED = bytes(10) + b"\xff\xff"


@pytest.mark.parametrize(
    ("field", "changes", "outcome"),
    [
        ('"acl":["docs"]', {}, Outcome.WRONG_ACL),
        ('"src":["192.0.2.0/24"]', {}, Outcome.OK),
        ('"src":["192.0.2.7"]', {"source": MAPPED + CHECK.source}, Outcome.OK),
        ('"src":["192.0.3.0/24"]', {}, Outcome.WRONG_SRC),
        ('"src":["192.0.2.0/24"]', {"source": b""}, Outcome.WRONG_SRC),
        ('"src":["0.0.0.0/8"]', {"source": b""}, Outcome.WRONG_SRC),
        ('"host":["wiki.example"]', {}, Outcome.OK),
        ('"host":["wiki.example"]', {"host": b""}, Outcome.WRONG_HOST),
        ('"method":["GET"]', {"method": b"POST"}, Outcome.WRONG_METHOD),
        ('"path":["/x"]', {}, Outcome.OK),
        ('"path":["/x"]', {"path": b"/x/../y"}, Outcome.WRONG_PATH),
        ('"path":["/x"]', {"path": b""}, Outcome.WRONG_PATH),
        (f'"nonce":"{NONCE}"', {"nonce": NONCE.encode()}, Outcome.OK),
        (f'"nonce":"{NONCE}"', {}, Outcome.WRONG_NONCE),
        ('"nbf":9007199254740992', {}, Outcome.EARLY),
        ('"groups":["staff"]', {"room_bytes": 9}, Outcome.BAD_RECORD),
        ('"groups":["staff"]', {"room_bytes": 10}, Outcome.OK),
    ],
)
def test_each_argument_gets_to_its_rule(
    site: Site, field: str, changes: dict[str, Any], outcome: Outcome
) -> None:
    """What the gate writes is what the script reads; a wrong attempt consumes nothing.

    Either is told.
    """
    token = site.issue(with_fields(field))
    assert site.outcome(bringing(token, **changes)) is outcome
    assert site.is_consumed(token) == (outcome is Outcome.OK)
    (event,) = site.events()
    expected = ("consumed", None) if outcome is Outcome.OK else ("refused", outcome.reason.decode())
    assert (event["event"], event.get("reason")) == expected


@pytest.mark.parametrize("via", ["query", "form"])
def test_a_link_for_nobody_in_particular(client: redis.Redis, via: str) -> None:
    """Where a nonce is required, an unbound token opens no session, and stays whole."""
    site = Site(client, {"session": AclRule(Mode.SESSION, is_nonce_required=True)})
    browser = {"acl": "session", "via": via.encode(), "nonce": NONCE.encode()}
    unbound = site.issue(acl=["session"])
    assert site.outcome(bringing(unbound, **browser)) is Outcome.WRONG_NONCE
    assert not site.is_consumed(unbound)
    assert site.outcome(bringing(unbound, "session", via=b"header")) is Outcome.OK
    bound = site.issue(acl=["session"], nonce=NONCE)
    assert site.outcome(bringing(bound, **browser)) is Outcome.OK


@pytest.mark.parametrize("raw", MISSPELT.values(), ids=MISSPELT)
def test_what_only_python_refuses(site: Site, raw: bytes) -> None:
    """A record that Lua accepts and Python does not opens nothing; its neighbours are judged."""
    odd = bringing(site.issue(raw), nonce=NONCE.upper().encode())
    decisions = site.visit(bringing(site.issue()), odd, bringing(site.issue()))
    assert outcomes(decisions) == [Outcome.OK, Outcome.BAD_RECORD, Outcome.OK]


def test_before_the_fence(site: Site) -> None:
    """A token from before the fence is fenced; with the fence right before it, it is good."""
    check = bringing(site.issue())
    now_ms = site.now_ms()
    site.asker.fence = replace(site.asker.fence, since_ms=now_ms + 5000)
    assert site.outcome(check) is Outcome.FENCED
    site.asker.fence = replace(site.asker.fence, since_ms=now_ms - 5000)
    assert site.outcome(check) is Outcome.OK


def test_another_server_than_expected(site: Site) -> None:
    """With another replid nothing is consumed, and nothing at all is answered."""
    token = site.issue()
    right = site.asker.fence
    site.asker.fence = Fence(b"f" * 40, 0)
    for check in (bringing(token), returning(mint_session(None)), coming("ip")):
        with pytest.raises(Unanswered, match="KATFENCE"):
            site.visit(check)
    site.asker.fence = right
    assert site.outcome(bringing(token)) is Outcome.OK


def test_out_of_memory(start_redis: StartRedis) -> None:
    """A Redis that cannot write says so token by token, consumes nothing, reads on, and heals."""
    with start_redis().client() as client:
        site = Site(client)
        session, token = site.log_in(), site.issue()
        client.config_set("maxmemory", "1")
        judgement = site.judging(bringing(token), bringing(mint().encode()), returning(session))
        assert outcomes(judgement.finish().decisions) == [
            Outcome.STORE_UNAVAILABLE,
            Outcome.UNKNOWN,
            Outcome.SESSION,
        ]
        assert judgement.judgement is not None
        assert judgement.judgement.faults == {"OOM"}
        client.config_set("maxmemory", "0")
        assert site.outcome(bringing(token)) is Outcome.OK


# Sessions.


def test_one_token_loads_a_whole_page(site: Site) -> None:
    """The session that a token opened lets all that follows through, and names its user."""
    token = site.issue(groups=["staff"])
    (first,) = site.visit(bringing(token, "session"))
    assert first == Decision(Outcome.OK, kid_of(token), b"user1", b"staff", first.session)
    page = site.visit(*[returning(first.session, path=b"/%d" % n) for n in range(20)])
    assert page == [Decision(Outcome.SESSION, kid_of(token), b"user1", b"staff")] * 20
    consumed, opened = site.events()
    assert (consumed["event"], opened["event"]) == ("consumed", "session")
    assert opened["sid"] == sha256(first.session).hexdigest()[:12]


@pytest.mark.parametrize(
    ("fields", "changes"),
    [({}, {"via": b"header"}), ({"session": False}, {}), ({"session": False}, {"via": b"form"})],
)
def test_a_token_that_opens_none(
    site: Site, fields: dict[str, Any], changes: dict[str, Any]
) -> None:
    """In a header, or with `session: false`, a token lets one request through and that is all."""
    (decision,) = site.visit(bringing(site.issue(**fields), "session", **changes))
    assert (decision.outcome, decision.session) == (Outcome.OK, b"")
    assert not site.client.keys("kat:s:*")
    assert not site.client.keys("kat:sub:*")


@pytest.mark.parametrize("mode", ["strict", "grant", "ip-token", "ip"])
def test_other_modes_open_none(site: Site, mode: str) -> None:
    """Only an ACL in `session` mode opens sessions."""
    site.grant(mode)
    (decision,) = site.visit(bringing(site.issue(), mode))
    assert (decision.outcome.verdict, decision.session) == (b"allow", b"")
    assert not site.client.keys("kat:s:*")


def set_exp(site: Site, session: bytes, exp_ms: int) -> None:
    """Rewrite when a session ends, and leave its key alone."""
    key = session_key(session)
    raw = site.client.get(key)
    assert isinstance(raw, bytes)
    old = read_session(raw).expires_ms
    site.client.set(key, raw.replace(b'"exp":%d' % old, b'"exp":%d' % exp_ms), keepttl=True)


@pytest.mark.parametrize("idle_s", [None, 600])
def test_no_session_outlives_its_exp(client: redis.Redis, idle_s: int | None) -> None:
    """Past exp a session is over, however long its key lives and GETEX keeps it alive."""
    idle_ms = idle_s * 1000 if idle_s else None
    site = Site(client, {"session": AclRule(Mode.SESSION, session_idle_ms=idle_ms)})
    session = site.log_in(token=site.issue(acl=["session"]))
    assert site.outcome(returning(session)) is Outcome.SESSION
    set_exp(site, session, site.now_ms())
    for _ in range(3):
        assert site.outcome(returning(session)) is Outcome.SESSION_EXPIRED
    assert client.exists(session_key(session))


def test_a_session_that_lay_idle_is_over(client: redis.Redis) -> None:
    """Each hit keeps it for its idle time and no longer; the token's own shortens the ACL's."""
    rule = AclRule(Mode.SESSION, session_idle_ms=600_000)
    site = Site(client, {"session": rule})
    for fields, idle_ms in (({}, 600_000), ({"session": {"idle": 60}}, 60_000)):
        session = site.log_in(token=site.issue(acl=["session"], **fields))
        client.pexpire(session_key(session), 30_000)
        assert site.outcome(returning(session)) is Outcome.SESSION
        assert idle_ms - 30_000 < client.pttl(session_key(session)) <= idle_ms


def test_an_acl_that_was_shortened_counts_for_open_sessions(client: redis.Redis) -> None:
    """A shorter idle time and a closer binding hold for what is open; a longer idle does not."""
    token = Site(client).issue(acl=["session"], session={"idle": 60})
    session = Site(client).log_in(token=token)
    for acl_ms, kept_ms in ((10_000, 10_000), (600_000, 60_000)):
        rule = AclRule(Mode.SESSION, session_idle_ms=acl_ms, session_bind=Bind.EXACT)
        site = Site(client, {"session": rule})
        assert site.outcome(returning(session)) is Outcome.SESSION
        assert kept_ms - 5000 < client.pttl(session_key(session)) <= kept_ms
        assert site.outcome(returning(session, source=ELSEWHERE)) is Outcome.WRONG_SRC


def test_an_id_without_its_idle_time_is_no_id(site: Site) -> None:
    """Who cuts the idle time off his cookie, or lengthens it, has no session."""
    session = site.log_in(token=site.issue(session={"idle": 60}))
    secret = session.partition(b".")[0]
    for forged in (secret, secret + b".3600"):
        assert site.outcome(returning(forged)) is Outcome.SESSION_EXPIRED


def test_a_session_of_another_acl_or_host(client: redis.Redis) -> None:
    """A session opens exactly its ACL on exactly its host."""
    site = Site(client, {"session": RULES["session"], "other": RULES["session"]})
    session = site.log_in(token=site.issue(acl=["session", "other"]))
    assert site.outcome(returning(session, "other")) is Outcome.WRONG_ACL
    for host in (b"", b"wiki.example.org", b"WIKI.example"):
        assert site.outcome(returning(session, host=host)) is Outcome.WRONG_HOST
    assert site.outcome(returning(session)) is Outcome.SESSION


def test_a_session_opens_no_more_than_its_token(site: Site) -> None:
    """What the token was bound to, its session is bound to, on every hit."""
    bound = site.issue(src=["192.0.2.0/24"], method=["GET"], path=["/x"])
    session = site.log_in(token=bound)
    assert site.outcome(returning(session)) is Outcome.SESSION
    assert site.outcome(returning(session, source=ELSEWHERE)) is Outcome.WRONG_SRC
    assert site.outcome(returning(session, method=b"POST")) is Outcome.WRONG_METHOD
    assert site.outcome(returning(session, path=b"/")) is Outcome.WRONG_PATH
    assert site.outcome(returning(session, path=b"/x/../y")) is Outcome.WRONG_PATH


def test_a_session_of_whatever_a_token_may_ask(site: Site) -> None:
    """The longest idle time of the contract opens a session that the next request finds."""
    session = site.log_in(token=site.issue(session={"idle": 2**53}))
    assert site.outcome(returning(session)) is Outcome.SESSION


def test_leaving(site: Site) -> None:
    """Who leaves has no session any more, nor is it listed; who leaves twice is out as well."""
    session = site.log_in()
    check = returning(session)
    assert site.gate.look_logout(check) is None
    for user in (b"user1", b""):
        judgement = Steps(site.asker, judged(site.gate, [check])).finish()
        assert judgement.decisions[0].outcome is Outcome.LOGGED_OUT
        assert judgement.decisions[0].user == user
    assert site.client.zcard("kat:sub:user1") == 1
    site.asker.answer(site.gate.take_notes(0.0))
    assert site.client.zcard("kat:sub:user1") == 0
    assert site.outcome(returning(session)) is Outcome.SESSION_EXPIRED


BAD_SESSIONS = [b"", b"{", b"[" * 10_000, GOOD, b'{"v":1}', b" " * 2**20]


@pytest.mark.parametrize("place", [0, 63, 127])
@pytest.mark.parametrize("idle_ms", [None, 60_000])
@pytest.mark.parametrize("raw", BAD_SESSIONS, ids=range(len(BAD_SESSIONS)))
def test_a_bad_session_harms_no_neighbour(
    site: Site, raw: bytes, idle_ms: int | None, place: int
) -> None:
    """Anywhere in a full batch a record that no agent wrote is refused; the others are let in."""
    good = returning(site.log_in())
    bad = returning(mint_session(idle_ms))
    site.client.set(session_key(bad.session), raw)
    checks = [good] * place + [bad] + [good] * (127 - place)
    expected = [BY_SESSION] * place + [Outcome.BAD_RECORD] + [BY_SESSION] * (127 - place)
    assert outcomes(site.visit(*checks)) == expected


def test_keys_of_another_type_harm_no_neighbour(site: Site) -> None:
    """A hash under a session, a text under the grants of an ACL: their own checks are refused."""
    idle = returning(mint_session(60_000))
    plain = returning(mint_session(None))
    for check in (idle, plain):
        site.client.hset(session_key(check.session), "v", 1)
    site.client.set("kat:grants:{ip}", b"1")
    site.client.set("kat:grants:{ip-token}", b"1")
    site.grant("grant")
    token = site.issue()
    batch = (
        idle,
        plain,
        coming("ip"),
        bringing(token, "ip-token"),
        coming("grant"),
        returning(site.log_in()),
        bringing(site.issue()),
    )
    steps = site.judging(*batch)
    assert outcomes(steps.finish().decisions) == [
        Outcome.BAD_RECORD,
        EXPIRED,  # MGET does not tell a hash from nothing
        Outcome.BAD_RECORD,
        Outcome.BAD_RECORD,
        BY_GRANT,
        BY_SESSION,
        OK,
    ]
    assert not site.is_consumed(token)
    assert steps.judgement is not None
    assert steps.judgement.faults == set()


# Whose reply is whose.


def mixed_batch(site: Site) -> tuple[list[Check], list[bytes]]:
    """Make a batch in which every kind of question is asked at least twice; and whose is what."""
    site.grant("ip")
    idle = [{}, {}, *({"session": {"idle": 60 + n}} for n in range(3))]
    openers = [site.issue(**fields) for fields in idle]
    checks = [returning(site.log_in(token=token)) for token in openers]
    tokens = [site.issue() for _ in range(2)]
    checks += [bringing(token) for token in tokens]
    checks += [coming("ip"), coming("grant", source=ELSEWHERE)]
    return checks, [*map(kid_of, (*openers, *tokens)), b"", b""]


Spoil = Callable[[list[Reply]], list[Reply]]


def exchanged(one: int, other: int) -> Spoil:
    def spoil(replies: list[Reply]) -> list[Reply]:
        replies[one], replies[other] = replies[other], replies[one]
        return replies

    return spoil


def lost(at: int) -> Spoil:
    """All behind it move up."""
    return lambda replies: [*replies[:at], *replies[at + 1 :], replies[0]]


def doubled(at: int) -> Spoil:
    """All behind it move down."""
    return lambda replies: [*replies[:at], replies[at], *replies[at:-1]]


@pytest.mark.parametrize("per_call", [128, 1])
def test_moved_replies_open_nothing_of_a_neighbour(client: redis.Redis, per_call: int) -> None:
    """Any two replies of a batch exchanged, any one lost or doubled: nobody gets what is not his.

    Mostly the whole batch is a mismatch; what is not has a reply that would fit either question.
    """
    checks, kids = mixed_batch(Site(client))
    number = len(next(looked(client, checks, per_call)))
    spoils = [exchanged(*pair) for pair in itertools.combinations(range(number), 2)]
    spoils += [make(at) for make in (lost, doubled) for at in range(number - 1)]
    assert len(spoils) > 20
    believed = 0
    for spoil in spoils:
        asking = looked(client, checks, per_call)
        replies = spoil(Asker(client).answer(next(asking)))
        try:
            asking.send(replies)
        except (ReplyMismatch, Unanswered):
            continue
        except StopIteration as end:
            believed += 1
            assert_own(checks, kids, end.value.decisions)
    assert believed < len(spoils) // 4


def looked(client: redis.Redis, checks: list[Check], per_call: int) -> Any:
    """Begin to judge copies of these checks at a gate of their own."""
    site = Site(client, keys_per_call=per_call)
    copies = [replace(check) for check in checks]
    assert {site.gate.look(check) for check in copies} == {None}
    return judged(site.gate, copies)


def assert_own(checks: list[Check], kids: list[bytes], decisions: list[Decision]) -> None:
    """See that nobody is known by another one's token, and that only the granted are let in."""
    for check, kid, decision in zip(checks, kids, decisions, strict=True):
        assert decision.kid in {b"", kid}
        if decision.outcome.verdict == b"allow":
            assert decision.kid == kid
            assert check.acl != b"grant"


# ip+token.


@pytest.mark.parametrize("left_ms", [-1, 0])
def test_without_a_grant_the_token_is_whole(site: Site, left_ms: int) -> None:
    """A grant that is over, or of another address or ACL, leaves the token to its owner."""
    token = site.issue()
    site.grant("ip-token", left_ms=left_ms)
    site.grant("ip-token", "192.0.3.0/24")
    site.grant("ip")
    assert site.outcome(bringing(token, "ip-token")) is Outcome.NO_GRANT
    assert not site.is_consumed(token)
    site.grant("ip-token", "192.0.2.0/24")
    assert site.outcome(bringing(token, "ip-token")) is Outcome.OK
    assert site.is_consumed(token)


def test_the_grant_is_asked_before_the_token(site: Site) -> None:
    """Nothing is consumed before the grant is known to stand; others of the batch need not wait."""
    site.grant("ip-token", "198.51.100.1")
    held, cleared, plain = (site.issue() for _ in range(3))
    steps = site.judging(
        bringing(held, "ip-token"),
        bringing(cleared, "ip-token", source=ELSEWHERE),
        bringing(plain),
    )
    steps.ask()
    assert [site.is_consumed(token) for token in (held, cleared, plain)] == [False, False, True]
    steps.hear()
    assert outcomes(steps.finish().decisions) == [NO_GRANT, OK, OK]
    assert [site.is_consumed(token) for token in (held, cleared, plain)] == [False, True, True]


def test_an_error_instead_of_the_grant(start_redis: StartRedis) -> None:
    """When Redis does not say whether a grant stands, the token is whole and the store is away."""
    with start_redis().client() as client:
        site = Site(client)
        site.grant("ip-token")
        token = site.issue()
        client.execute_command("ACL", "SETUSER", "default", "-zmscore")
        checks = [bringing(token, "ip-token"), coming("ip")]
        steps = site.judging(*checks)
        assert outcomes(steps.finish().decisions) == [Outcome.STORE_UNAVAILABLE] * 2
        assert steps.judgement is not None
        assert [fault.split()[0] for fault in steps.judgement.faults] == ["NOPERM"]
        assert not site.is_consumed(token)


# Blocks.


@pytest.mark.parametrize("mode", MODES)
def test_who_is_blocked_gets_nowhere(site: Site, mode: str) -> None:
    """From a blocked address no mode opens, and once the block is known, tokens stay whole."""
    site.grant(mode)
    session = site.log_in() if mode == "session" else b""
    site.block("192.0.2.0/24")
    site.visit(bringing(mint().encode()))  # now it is known
    token = site.issue()
    assert site.outcome(bringing(token, mode, session=session)) is Outcome.BLOCKED
    assert not site.is_consumed(token)
    elsewhere = bringing(site.issue(), mode, source=ELSEWHERE)
    assert site.outcome(elsewhere) is not Outcome.BLOCKED
    site.unblock("192.0.2.0/24")
    assert site.outcome(bringing(token, mode, session=session)).verdict == b"allow"


def test_a_block_that_is_news_holds_at_once(site: Site) -> None:
    """A block that this gate had not heard of holds for the very batch that hears of it."""
    token, session = site.issue(), site.log_in()
    site.block("192.0.2.7")
    blocked = site.visit(bringing(token, "session"), returning(session))
    assert blocked == [Decision(Outcome.BLOCKED)] * 2
    assert not site.client.zcard("kat:sub:user1") > 1  # nothing was opened


def test_a_block_that_ended_is_over(site: Site) -> None:
    """A block until a moment that has passed blocks nobody, though it still stands there."""
    site.block("192.0.2.7", left_ms=-1)
    for _ in range(2):
        assert site.outcome(bringing(site.issue())) is Outcome.OK


@pytest.mark.parametrize("mode", ["strict", "session", "ip-token"])
def test_a_block_that_is_lifted_between_two_looks(site: Site, mode: str) -> None:
    """Whose token was left whole because of a block is told so, whatever happened since."""
    site.grant("ip-token")
    site.grant("ip-token", "198.51.100.1")
    site.block("192.0.2.7")
    site.visit(bringing(mint().encode()))  # now it is known
    token = site.issue()
    steps = site.judging(
        bringing(token, mode), bringing(site.issue(), "ip-token", source=ELSEWHERE)
    )
    steps.ask()
    steps.hear()
    site.unblock("192.0.2.7")
    assert outcomes(steps.finish().decisions) == [Outcome.BLOCKED, OK]
    assert not site.is_consumed(token)


# Revocation, step by step.

FIELDS = ["all", "acl:{acl}", "sub:user1", "group:staff", "kid:{kid}"]
"""Every way to take a token back, and what it opened."""


@pytest.fixture(params=FIELDS)
def field(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def revoke(site: Site, field: str, token: bytes, acl: str = "session") -> None:
    site.revoke(field.format(acl=acl, kid=kid_of(token).decode()))


def staff_token(site: Site) -> bytes:
    return site.issue(groups=["staff"], left_ms=50_000)  # issued ten seconds ago


@pytest.mark.parametrize("is_known", [False, True])
def test_revoked_before_the_consume(site: Site, field: str, is_known: bool) -> None:  # noqa: FBT001
    """A token from before a cut opens nothing, at a gate that knows of older cuts or of none."""
    if is_known:
        site.revoke("sub:somebody")
        site.visit(bringing(mint().encode()))
    token = staff_token(site)
    revoke(site, field, token)
    (decision,) = site.visit(bringing(token, "session"))
    assert (decision.outcome, decision.session) == (Outcome.REVOKED, b"")
    assert not site.client.keys("kat:s:*")


def test_revoked_between_consume_and_look(site: Site, field: str) -> None:
    """A cut after the consume and before the look at the cuts behind it: refused."""
    token = staff_token(site)
    steps = site.judging(bringing(token, "session"))
    steps.ask(1)
    assert site.is_consumed(token)
    revoke(site, field, token)
    assert outcomes(steps.finish().decisions) == [Outcome.REVOKED]
    assert steps.judgement is not None
    assert steps.judgement.openings == []


def test_revoked_between_the_look_and_its_reply(site: Site, field: str) -> None:
    """A cut while the reply is on its way: what is opened meanwhile is seen, and taken back."""
    token = staff_token(site)
    steps = site.judging(bringing(token, "session"))
    steps.ask()
    revoke(site, field, token)
    steps.hear()
    opening = site.opening(steps.judgement)
    assert outcomes(opening.finish().decisions) == [Outcome.REVOKED]
    assert not site.client.keys("kat:s:*")


@pytest.mark.parametrize("per_call", [128, 1])
@pytest.mark.parametrize("written", [0, 1, 3, 4])
def test_revoked_while_a_session_is_written(
    client: redis.Redis, field: str, written: int, per_call: int
) -> None:
    """Whichever of the writes the cut falls between, the session is not given out, and is gone."""
    site = Site(client, keys_per_call=per_call)
    token = staff_token(site)
    opening = site.opening(site.judging(bringing(token, "session")).finish())
    opening.ask(written)
    revoke(site, field, token)
    (decision,) = opening.finish().decisions
    assert (decision.outcome, decision.session) == (Outcome.REVOKED, b"")
    assert not client.keys("kat:s:*")
    assert site.events()[-1]["reason"] == "revoked"


@pytest.mark.parametrize("per_call", [128, 1])
@pytest.mark.parametrize("written", [0, 1, 3, 4])
def test_revoked_while_a_grant_is_written(
    client: redis.Redis, field: str, written: int, per_call: int
) -> None:
    """The same for an address: no grant stands that the cut should have reached."""
    site = Site(client, keys_per_call=per_call)
    token = staff_token(site)
    opening = site.opening(site.judging(bringing(token, "grant")).finish())
    opening.ask(written)
    revoke(site, field, token, "grant")
    assert outcomes(opening.finish().decisions) == [Outcome.REVOKED]
    assert not site.is_granted("grant")


def test_revoked_behind_the_last_look(site: Site, field: str) -> None:
    """A cut after the opening's own look: the session is given out, and good for nothing."""
    token = staff_token(site)
    opening = site.opening(site.judging(bringing(token, "session")).finish())
    opening.ask()
    revoke(site, field, token)
    opening.hear()
    assert opening.judgement is not None
    (decision,) = opening.judgement.decisions
    assert decision.outcome is Outcome.OK
    assert site.outcome(returning(decision.session)) is Outcome.REVOKED


def test_a_session_that_stands_is_revoked(site: Site, field: str) -> None:
    """A cut reaches what a token opened before it, on the very next request, again and again."""
    token = staff_token(site)
    session = site.log_in(token=token)
    assert site.outcome(returning(session)) is Outcome.SESSION
    revoke(site, field, token)
    for _ in range(2):
        assert site.outcome(returning(session)) is Outcome.REVOKED


def test_a_session_is_revoked_between_read_and_look(site: Site, field: str) -> None:
    """A cut after the session was read and before the look behind it: refused."""
    token = staff_token(site)
    session = site.log_in(token=token)
    steps = site.judging(returning(session))
    steps.ask(1)
    revoke(site, field, token)
    assert outcomes(steps.finish().decisions) == [Outcome.REVOKED]


def test_a_session_that_was_deleted_is_over(site: Site) -> None:
    """By session: what is deleted is gone with the very next request."""
    session = site.log_in()
    site.client.delete(session_key(session))
    assert site.outcome(returning(session)) is Outcome.SESSION_EXPIRED


def test_a_token_whose_key_was_taken_back(site: Site) -> None:
    """By token: its key is gone, and the cut that names it says why."""
    token = site.issue()
    site.revoke(f"kid:{kid_of(token).decode()}")
    site.client.delete(b"kat:t:" + digest_of(token))
    assert site.outcome(bringing(token)) is Outcome.REVOKED


@pytest.mark.parametrize("kind", ["all", "acl:session", "sub:user1", "group:staff"])
def test_what_is_issued_after_a_revocation_is_good(site: Site, kind: str) -> None:
    """A cut reaches back, not forward: a token of later is consumed, and its session stands."""
    old = site.log_in(token=staff_token(site))
    site.change(kind, site.now_ms() - 2000)
    fresh = site.issue(groups=["staff"])
    session = site.log_in(token=fresh)
    assert site.outcome(returning(session)) is Outcome.SESSION
    assert site.outcome(returning(old)) is Outcome.REVOKED


def test_an_old_token_opens_no_session_that_is_new(site: Site) -> None:
    """A session is as old as its token: a token from before the cut is not washed by consuming."""
    token = staff_token(site)
    session = site.log_in(token=token)
    site.change("sub:user1", site.now_ms() - 5000)  # after the issue, before the log-in
    assert site.outcome(returning(session)) is Outcome.REVOKED


def test_grants_of_others_survive_an_undone_opening(site: Site) -> None:
    """Taking back what a revoked token opened leaves the grant that stood for longer."""
    site.grant("grant", left_ms=10**10)
    token = staff_token(site)
    opening = site.opening(site.judging(bringing(token, "grant")).finish())
    opening.ask(2)
    site.revoke(f"kid:{kid_of(token).decode()}")
    assert outcomes(opening.finish().decisions) == [Outcome.REVOKED]
    assert site.is_granted("grant")


# The worker's copy of the cuts.


def test_a_known_cut_is_not_read_again(site: Site) -> None:
    """As long as nothing changes, the cuts are read once; each change is read once more."""
    site.revoke("sub:somebody")
    reads = []
    for change in (None, None, "sub:another", None):
        if change:
            site.revoke(change)
        steps = site.judging(coming("ip"))
        steps.ask()
        reads.append(len(steps._replies[-1]) == 3)  # type: ignore[arg-type]
        steps.hear()
    assert reads == [True, False, True, False]


def test_the_copies_of_two_batches_cross(site: Site) -> None:
    """A batch that looked before the cut is answered after one that looked behind it.

    Neither the older reply nor the older copy hides the revocation from anybody who asks later.
    """
    token = staff_token(site)
    session = site.log_in(token=token)
    site.revoke("sub:somebody")
    assert site.outcome(returning(session)) is Outcome.SESSION  # from here on it has a copy
    early = site.judging(returning(session))
    early.ask()
    late = site.judging(returning(session))
    site.revoke("sub:user1")
    between = site.judging(returning(session))
    late.ask()
    late.hear()
    early.hear()
    assert early.judgement is not None
    assert late.judgement is not None
    assert outcomes(early.judgement.decisions) == [BY_SESSION]  # it was asked before
    assert outcomes(late.judgement.decisions) == [Outcome.REVOKED]
    assert outcomes(between.finish().decisions) == [Outcome.REVOKED]
    assert site.outcome(returning(session)) is Outcome.REVOKED


def test_a_batch_of_two_phases_is_crossed(site: Site) -> None:
    """A batch whose tokens must wait is judged by its second look, not by what others brought."""
    site.grant("ip-token")
    token = staff_token(site)
    waiting = site.judging(bringing(token, "ip-token"))
    waiting.ask()
    waiting.hear()
    other = site.judging(coming("ip"))
    other.ask()
    site.revoke("sub:user1")
    waiting.ask()
    other.hear()
    waiting.hear()
    assert waiting.judgement is not None
    assert outcomes(waiting.judgement.decisions) == [Outcome.REVOKED]


@pytest.mark.parametrize("reset", ["deleted", "v deleted", "v back", "v odd", "v empty"])
def test_a_reset_of_the_cuts_is_noticed(site: Site, reset: str) -> None:
    """Whatever becomes of `v`, a gate that read it before sees the next revocation."""
    token = staff_token(site)
    session = site.log_in(token=token)
    for name in ("one", "two"):
        site.revoke(f"sub:{name}")
    assert site.outcome(returning(session)) is Outcome.SESSION
    {
        "deleted": lambda: site.client.delete("kat:cut"),
        "v deleted": lambda: site.client.hdel("kat:cut", "v"),
        "v back": lambda: site.client.hset("kat:cut", "v", 0),
        "v odd": lambda: site.client.hset("kat:cut", "v", "odd"),
        "v empty": lambda: site.client.hset("kat:cut", "v", ""),
    }[reset]()
    assert site.outcome(returning(session)) is Outcome.SESSION
    with site.client.pipeline() as change:
        change.hset("kat:cut", mapping={"sub:user1": site.now_ms(), "v": 3})
        change.execute()
    assert site.outcome(returning(session)) is Outcome.REVOKED


def fail_over(site: Site) -> None:
    """Promote: another replid, the same data, the last change of the cuts lost."""
    site.client.replicaof("127.0.0.1", 1)
    site.client.replicaof("NO", "ONE")
    site.asker.fence = Asker(site.client).fence


@pytest.mark.parametrize("is_in_flight", [False, True])
def test_the_same_v_after_a_failover(start_redis: StartRedis, is_in_flight: bool) -> None:  # noqa: FBT001
    """A promoted server lost a cut and counts the next one with the same number: it is seen.

    Also by a batch that was asked about before, and is asked about once more.
    """
    with start_redis().client() as client:
        site = Site(client)
        session = site.log_in(token=staff_token(site))
        site.revoke("sub:lost")
        assert site.outcome(returning(session)) is Outcome.SESSION
        in_flight = site.judging(returning(session))
        fail_over(site)
        client.delete("kat:cut")
        site.revoke("sub:user1")
        if is_in_flight:
            assert outcomes(in_flight.finish().decisions) == [Outcome.REVOKED]
        assert site.outcome(returning(session)) is Outcome.REVOKED


def test_asked_again_after_a_revocation(site: Site, field: str) -> None:
    """A consume whose reply was lost is asked for again: a cut meanwhile counts."""
    token = staff_token(site)
    steps = site.judging(bringing(token, "session"))
    steps.ask()
    revoke(site, field, token)
    steps.again()
    assert outcomes(steps.finish().decisions) == [Outcome.REVOKED]


def test_cuts_that_cannot_be_read_open_nothing(site: Site) -> None:
    """Without the cuts nothing is decided: no token, no session, no grant is a yes."""
    session = site.log_in()
    site.grant("ip")
    site.client.set("kat:cut", "1")
    for check in (bringing(site.issue()), returning(session), coming("ip")):
        with pytest.raises(Unanswered):
            site.visit(check)


# Lost replies.


def test_a_lost_reply_is_asked_for_again(site: Site) -> None:
    """The same questions once more give the answers of the first time, of all that was asked."""
    site.grant("ip")
    session, idle = site.log_in(), site.log_in(token=site.issue(session={"idle": 60}))
    checks = (bringing(site.issue()), returning(session), returning(idle), coming("ip"))
    steps = site.judging(*checks)
    steps.ask()
    steps.again()
    assert outcomes(steps.finish().decisions) == [OK, BY_SESSION, BY_SESSION, BY_GRANT]


def test_a_replay_is_no_second_asking(site: Site) -> None:
    """The same request, with whatever id it chooses, is another attempt: replayed."""
    token = site.issue()
    check = bringing(token, unique_id=b"chosen")
    site.judging(replace(check)).ask()  # consumed, and nobody was told
    assert site.outcome(check) is Outcome.REPLAYED
    assert Site(site.client).outcome(check) is Outcome.REPLAYED


def test_a_second_asking_of_two_phases(site: Site) -> None:
    """A held token's consume may be asked for again, too."""
    site.grant("ip-token")
    steps = site.judging(bringing(site.issue(), "ip-token"))
    steps.ask()
    steps.again()
    steps.hear()
    steps.ask()
    steps.again()
    assert outcomes(steps.finish().decisions) == [OK]


# What is opened.


def test_nothing_is_open_before_it_is_written(site: Site) -> None:
    """The yes of a judgement that opens something has no session: the id comes with the write."""
    judgement = site.judging(bringing(site.issue(), "session")).finish()
    assert judgement.decisions[0].session == b""
    assert not site.client.keys("kat:s:*")
    assert not site.client.keys("kat:sub:*")


def test_what_is_opened_is_listed_first(site: Site) -> None:
    """At no moment does a session or a grant stand that is not on its user's list."""
    for acl, pattern in (("session", "kat:s:*"), ("grant", "kat:grants:*")):
        opening = site.opening(site.judging(bringing(site.issue(), acl)).finish())
        for _ in opening.questions:
            assert not site.client.keys(pattern) or site.client.zcard("kat:sub:user1")
            opening.ask(1)
        assert site.client.keys(pattern)
        site.client.flushdb()


def test_many_openings_in_one_write(site: Site) -> None:
    """Openings of a batch are one write with one audit entry, and each visitor gets his own."""
    checks = [bringing(site.issue(sub=f"user{n}"), "session") for n in range(3)]
    opening = site.opening(site.judging(*checks, bringing(site.issue(), "grant")).finish())
    assert opening.commands.count(b"XADD") == 1
    decisions = opening.finish().decisions
    assert [decision.user for decision in decisions] == [b"user0", b"user1", b"user2", b"user1"]
    assert len({decision.session for decision in decisions[:3]}) == 3
    for n, decision in enumerate(decisions[:3]):
        (back,) = site.visit(returning(decision.session))
        assert back.user == b"user%d" % n
    (entry,) = site.client.xrange("kat:audit")
    assert entry[1][b"e"].count(b'"event":"session"') == 3
    assert b"kat_" not in entry[1][b"e"]


@pytest.mark.parametrize("acl", ["session", "grant"])
def test_what_is_half_written_is_taken_back(site: Site, acl: str) -> None:
    """A user's list that cannot be written: nothing is given out, nothing stands unlisted.

    The neighbour's is open, and what went wrong is told.
    """
    site.client.set("kat:sub:user1", b"no list")
    half = site.issue()
    whole = bringing(site.issue(sub="user2"), acl, source=ELSEWHERE)
    judgement = site.judging(bringing(half, acl), whole).finish()
    assert outcomes(site.opened(judgement).decisions) == [Outcome.STORE_UNAVAILABLE, OK]
    assert [fault.split()[0] for fault in judgement.faults] == ["WRONGTYPE"]
    assert len(site.client.keys("kat:s:*")) == (acl == "session")
    assert not site.is_granted("grant")
    assert site.is_granted("grant", "198.51.100.1") == (acl == "grant")


def test_out_of_memory_while_opening(start_redis: StartRedis) -> None:
    """Consumed, and no session could be written: store_unavailable, and nothing is given out."""
    with start_redis().client() as client:
        site = Site(client)
        opening = site.opening(site.judging(bringing(site.issue(), "session")).finish())
        client.config_set("maxmemory", "1")
        judgement = opening.finish()
        assert judgement.decisions[0].outcome is Outcome.STORE_UNAVAILABLE
        assert judgement.decisions[0].session == b""
        assert {fault.split()[0] for fault in judgement.faults} == {"OOM"}
        client.config_set("maxmemory", "0")
        assert not client.keys("kat:s:*")


def test_a_token_opens_its_address(site: Site) -> None:
    """In `grant` mode the address is let through without a token from then on, and no other is."""
    assert site.outcome(bringing(site.issue(), "grant")) is Outcome.OK
    assert outcomes(site.visit(coming("grant"), coming("grant", source=ELSEWHERE))) == [
        BY_GRANT,
        NO_GRANT,
    ]


def test_no_token_opens_an_address_that_many_have(site: Site) -> None:
    """From loopback a token in `grant` mode is refused and whole, and the audit says so."""
    token = site.issue()
    site.events()
    check = bringing(token, "grant", source=bytes((127, 0, 0, 1)))
    assert site.outcome(check) is Outcome.WRONG_SRC
    assert not site.is_consumed(token)
    (event,) = site.events()
    assert (event["event"], event["reason"], event["kid"]) == (
        "refused",
        "wrong_src",
        kid_of(check.token).decode(),
    )


@pytest.mark.parametrize("binding", ["host", "method", "path"])
def test_a_token_for_some_requests_opens_no_address(site: Site, binding: str) -> None:
    """A grant cannot tell requests from one another: it would open more than the token did."""
    value = {"host": "wiki.example", "method": "GET", "path": "/x"}[binding]
    check = bringing(site.issue(**{binding: [value]}), "grant")
    assert site.outcome(check) is Outcome.OK
    assert site.outcome(coming("grant")) is Outcome.NO_GRANT


def test_brackets_in_a_name_open_a_session_or_nothing(site: Site) -> None:
    """What the strict reader refuses is refused before it could open anything."""
    groups = ["[" * 120 + str(number) for number in range(5)]
    record = Record("user1", ("session",), 60, groups=tuple(groups))
    raw = write_record(record)
    check = bringing(site.issue(raw=raw), "session", via=b"query")
    assert site.outcome(check) is Outcome.BAD_RECORD
