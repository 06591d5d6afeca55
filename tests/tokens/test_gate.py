"""The policy: what is refused without Redis, what Redis is asked, what its replies may mean."""

import itertools
import re
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
import redis
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.records import ACCEPTED, GOOD, MISSHAPEN, MISSPELT, NONCE, with_fields
from tests.support.redis import RedisServer
from tests.support.strategies import records
from tokens.gate import (
    MAX_TOKENS_PER_CALL,
    Check,
    Decision,
    Fence,
    Gate,
    Outcome,
    Redemption,
    ReplyMismatch,
)
from tokens.record import BadRecord, Keys, Record, read_record, write_record
from tokens.token import mint

CLIENT = bytes((192, 0, 2, 7))
TOKEN = mint().encode()
KID = sha256(TOKEN).hexdigest()[:12].encode()
CHECK = Check(
    acl=b"wiki",
    token=TOKEN,
    source=CLIENT,
    host=b"wiki.example",
    method=b"GET",
    path=b"/x/y",
    nonce=b"",
    room_bytes=8000,
)
FENCE = Fence(b"f" * 40, 1234)
DEADLINE_MS = 80

# Codes that redeem.lua has, written out here once more: the two lists must agree.
REFUSALS = ["unknown", "replayed", "fenced", "early", "bad_record"] + [
    f"wrong_{binding}" for binding in ("acl", "host", "method", "path", "src", "nonce")
]


def make_gate() -> Gate:
    return Gate(["wiki", "docs"], Keys(), DEADLINE_MS)


def fresh(**changes: Any) -> Check:
    """Return a check for a token of its own."""
    return replace(CHECK, token=mint().encode(), **changes)


def digest_of(check: Check) -> bytes:
    return sha256(check.token).hexdigest().encode()


def key_of(check: Check) -> bytes:
    return b"kat:t:" + digest_of(check)


def kid_of(check: Check) -> bytes:
    return digest_of(check)[:12]


# What needs no Redis.


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({}, None),
        ({"acl": b"docs"}, None),
        ({"acl": b"other"}, Outcome.UNKNOWN_ACL),
        ({"acl": b""}, Outcome.UNKNOWN_ACL),
        ({"acl": b"WIKI"}, Outcome.UNKNOWN_ACL),
        ({"acl": b"\xff"}, Outcome.UNKNOWN_ACL),
        ({"acl": b"other", "token": b""}, Outcome.UNKNOWN_ACL),
        ({"token": b""}, Outcome.MISSING),
        ({"token": b"kat_"}, Outcome.MALFORMED),
        ({"token": TOKEN[:-1]}, Outcome.MALFORMED),
        ({"token": TOKEN + b"0"}, Outcome.MALFORMED),
        ({"token": TOKEN + b"\n"}, Outcome.MALFORMED),
        ({"token": TOKEN.lower()}, Outcome.MALFORMED),
        ({"token": TOKEN + b"," + TOKEN}, Outcome.MALFORMED),
        ({"source": b"", "host": b"", "method": b"", "path": b""}, None),
    ],
)
def test_refused_without_redis(changes: dict[str, Any], outcome: Outcome | None) -> None:
    """A wrong ACL is our fault and told first; then no token; then one that cannot be one."""
    assert make_gate().refuse(replace(CHECK, **changes)) is outcome


@given(st.binary() | st.binary(min_size=38, max_size=38).map(b"kat_".__add__))
def test_no_junk_gets_to_redis(token: bytes) -> None:
    """Any byte string as a token is refused at once, unless its shape and checksum are right."""
    assert make_gate().refuse(replace(CHECK, token=token)) in (Outcome.MISSING, Outcome.MALFORMED)


def test_every_reason_is_said_once() -> None:
    """No two outcomes have one reason, and HAProxy gets one of four classes."""
    assert len({outcome.reason for outcome in Outcome}) == len(Outcome)
    assert {outcome.verdict for outcome in Outcome} == {b"allow", b"missing", b"denied", b"broken"}
    assert [outcome for outcome in Outcome if outcome.verdict == b"allow"] == [Outcome.OK]


# What Redis is asked.


def test_the_shape_of_the_call() -> None:
    """The script is called as its head says: keys, three shared arguments, eight for each key."""
    other = fresh(source=b"", nonce=NONCE.encode(), room_bytes=5)
    (command,) = make_gate().redeem([CHECK, other], FENCE).commands
    assert command[:3] == (b"EVALSHA", Gate.script_sha, 2)
    assert command[3:5] == (key_of(CHECK), key_of(other))
    assert command[5:8] == (FENCE.replid, FENCE.since_ms, DEADLINE_MS)
    networks = b"192.0.2.7 192.0.2.0/24 192.0.0.0/16 192.0.0.0/8"
    first, second = command[8:16], command[16:]
    assert first[1:] == (b"wiki", networks, b"wiki.example", b"GET", b"/x/y", b"", 8000)
    assert second[1:] == (b"wiki", b"", b"wiki.example", b"GET", b"/x/y", NONCE.encode(), 5)


def test_neither_token_nor_its_text_leaves_the_gate() -> None:
    """Redis is told digests; a token stands in no argument of a command."""
    checks = [fresh() for _ in range(3)]
    (command,) = make_gate().redeem(checks, FENCE).commands
    said = b" ".join(part for part in command if isinstance(part, bytes))
    assert not any(check.token in said or check.token[4:36] in said for check in checks)


@pytest.mark.parametrize(
    ("number", "sizes"),
    [
        (0, []),
        (1, [1]),
        (MAX_TOKENS_PER_CALL, [128]),
        (MAX_TOKENS_PER_CALL + 1, [128, 1]),
        (3 * MAX_TOKENS_PER_CALL, [128, 128, 128]),
    ],
)
def test_a_call_holds_at_most_128_tokens(number: int, sizes: list[int]) -> None:
    """A large batch is cut into calls of 128, in order, and none is lost at an edge."""
    checks = [fresh() for _ in range(number)]
    redemption = make_gate().redeem(checks, FENCE)
    assert [command[2] for command in redemption.commands] == sizes
    assert [len(command) for command in redemption.commands] == [6 + 9 * size for size in sizes]
    keys = [key for command in redemption.commands for key in command[3 : 3 + int(command[2])]]
    assert keys == [key_of(check) for check in checks]
    assert [len(kids) for kids in redemption.kids] == sizes
    assert [kid for kids in redemption.kids for kid in kids] == [kid_of(check) for check in checks]


def claims_of(redemption: Redemption) -> list[bytes]:
    """Return the first of the eight arguments of every token."""
    claims = []
    for command in redemption.commands:
        claims += command[6 + int(command[2]) :: 8]
    return [claim for claim in claims if isinstance(claim, bytes)]


def test_claims_are_unique_and_the_gates_own() -> None:
    """No two attempts share a claim: not of one token, not of two calls, not of two agents."""
    gates = [make_gate() for _ in range(3)]
    claims = [claim for gate in gates * 2 for claim in claims_of(gate.redeem([CHECK] * 200, FENCE))]
    assert len(set(claims)) == len(claims) == 3 * 2 * 200
    assert all(re.fullmatch(rb"[0-9a-f]{32}\.[0-9a-f]+", claim) for claim in claims)
    assert len({claim.partition(b".")[0] for claim in claims}) == 3  # 128 random bits each


@given(st.binary(min_size=6), st.binary(min_size=6))
def test_nothing_of_a_request_is_in_its_claim(path: bytes, nonce: bytes) -> None:
    """A client cannot choose a claim, so it cannot make its replay look like our second try."""
    gate = make_gate()
    check = replace(CHECK, path=path, nonce=nonce, acl=path, host=nonce, method=path)
    (with_it,) = claims_of(gate.redeem([check], FENCE))
    (without,) = claims_of(gate.redeem([CHECK], FENCE))
    assert with_it.partition(b".")[0] == without.partition(b".")[0]
    assert int(without.partition(b".")[2], 16) == int(with_it.partition(b".")[2], 16) + 1


# What the replies may mean.

SPOILERS = [
    b"",
    b" ",
    b"0",
    b",",
    b'"',
    b"\\",
    b"\\u0041",
    b"[",
    b"]",
    b"}",
    b"\n",
    b"\x7f",
    b"\xff",
]


def redemption_of(*kids: bytes) -> Redemption:
    return Redemption([(b"EVALSHA",)], [list(kids)])


@pytest.mark.parametrize("code", REFUSALS)
def test_every_refusal_of_the_script(code: str) -> None:
    """A code of redeem.lua is the outcome of the same reason, with its kid and nothing more."""
    (decision,) = redemption_of(KID).decide([[1, KID, code.encode(), b"whatever"]])
    assert decision == Decision(Outcome((b"denied", code.encode())), KID)


def test_an_ok_has_user_and_groups() -> None:
    """A yes names who the visitor is, as the record says it."""
    raw = with_fields('"groups":["staff","wiki editors"]')
    (decision,) = redemption_of(KID).decide([[1, KID, b"ok", raw]])
    assert decision == Decision(Outcome.OK, KID, b"user1", b"staff,wiki editors")


@pytest.mark.parametrize(
    "raw", [*MISSHAPEN.values(), *MISSPELT.values()], ids=[*MISSHAPEN, *MISSPELT]
)
def test_an_ok_with_a_bad_record_is_no_yes(raw: bytes) -> None:
    """What Redis lets pass is read once more, strictly: a bad record admits nobody."""
    (decision,) = redemption_of(KID).decide([[1, KID, b"ok", raw]])
    assert decision == Decision(Outcome.BAD_RECORD, KID)


@given(records(), st.data())
def test_a_yes_agrees_with_the_strict_reading(record: Record, data: st.DataObject) -> None:
    """Any record of the contract is a yes for its user and groups; spoilt, it is read strictly."""
    raw = write_record(record)
    (decision,) = redemption_of(KID).decide([[1, KID, b"ok", raw]])
    user, groups = record.sub.encode(), ",".join(record.groups).encode()
    assert decision == Decision(Outcome.OK, KID, user, groups)
    at = data.draw(st.integers(0, len(raw)))
    size = data.draw(st.integers(0, 2))
    spoilt = raw[:at] + data.draw(st.sampled_from(SPOILERS)) + raw[at + size :]
    (decision,) = redemption_of(KID).decide([[1, KID, b"ok", spoilt]])
    assert (decision.outcome is Outcome.OK) == _is_strict(spoilt)


def test_an_error_reply_is_the_store_away() -> None:
    """An error reply makes each of its checks store_unavailable, and is kept for the caller."""
    redemption = Redemption([(b"EVALSHA",)] * 2, [[KID, b"b" * 12], [b"c" * 12]])
    decisions = redemption.decide(
        [redis.ResponseError("OOM command not allowed"), [1, b"c" * 12, b"unknown", b""]]
    )
    assert decisions == [
        Decision(Outcome.STORE_UNAVAILABLE, KID),
        Decision(Outcome.STORE_UNAVAILABLE, b"b" * 12),
        Decision(Outcome.UNKNOWN, b"c" * 12),
    ]
    assert redemption.faults == {"OOM command not allowed"}


def test_a_store_error_touches_no_neighbour() -> None:
    """An error met within the script is the fault of one check; the others are judged."""
    redemption = redemption_of(KID, b"b" * 12)
    decisions = redemption.decide([[1, KID, b"store_error", b"OOM", b"b" * 12, b"ok", GOOD]])
    assert decisions == [
        Decision(Outcome.STORE_UNAVAILABLE, KID),
        Decision(Outcome.OK, b"b" * 12, b"user1"),
    ]
    assert redemption.faults == {"OOM"}


OTHER = b"0" * 12
MISMATCHES: dict[str, Any] = {
    "another kid": [1, OTHER, b"ok", GOOD],
    "kids in another order": [1, OTHER, b"ok", GOOD, KID, b"ok", GOOD],
    "a kid as text": [1, KID.decode(), b"ok", GOOD],
    "nothing": [],
    "now only": [1],
    "cut short": [1, KID, b"ok"],
    "a hole": [1, KID, b"ok", None],
    "one more": [1, KID, b"ok", GOOD, b""],
    "one token more": [1, KID, b"ok", GOOD, OTHER, b"ok", GOOD],
    "the same kid twice": [1, KID, b"ok", GOOD, KID, b"ok", GOOD],
    "no list": b"ok",
    "null": None,
    "a number": 1,
    "a true": True,
    "code missing": [1, KID, None, GOOD],
    "code a number": [1, KID, 1, GOOD],
    "code a list": [1, KID, [b"ok"], GOOD],
    "code an error": [1, KID, redis.ResponseError("ok"), GOOD],
    "detail a number": [1, KID, b"unknown", 0],
    "detail a list": [1, KID, b"ok", [GOOD]],
    "detail an error": [1, KID, b"store_error", redis.ResponseError("OOM")],
    "a code nobody knows": [1, KID, b"fine", GOOD],
    "a code in capitals": [1, KID, b"OK", GOOD],
    "a code with more": [1, KID, b"ok ", GOOD],
    "no code": [1, KID, b"", GOOD],
    "a reason that is not the script's": [1, KID, b"missing", b""],
    "another one": [1, KID, b"malformed", b""],
    "our own broken": [1, KID, b"store_unavailable", b""],
}


@pytest.mark.parametrize("reply", MISMATCHES.values(), ids=MISMATCHES)
def test_what_is_not_our_answer(reply: Any) -> None:
    """A reply that is not exactly the answer to its question decides nothing at all."""
    with pytest.raises(ReplyMismatch):
        redemption_of(KID).decide([reply])


def test_one_mismatch_spoils_the_whole_batch() -> None:
    """After a reply that does not fit, the replies before it are worth nothing, too."""
    redemption = Redemption([(b"EVALSHA",)] * 2, [[KID], [OTHER]])
    with pytest.raises(ReplyMismatch):
        redemption.decide([[1, KID, b"ok", GOOD], [1, KID, b"ok", GOOD]])


def test_a_mismatch_quotes_nothing_of_the_record() -> None:
    """What is said about a reply that does not fit holds no user and no whole digest."""
    for reply in MISMATCHES.values():
        with pytest.raises(ReplyMismatch) as caught:
            redemption_of(KID).decide([reply])
        assert "user1" not in str(caught.value)
        assert len(str(caught.value)) < 100


KIDS = [KID, b"1" * 12, b"2" * 12]
codes = st.sampled_from([b"ok", b"store_error", *(code.encode() for code in REFUSALS)])
record_texts = st.sampled_from([GOOD, *ACCEPTED.values(), *MISSHAPEN.values(), *MISSPELT.values()])
rubbish: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.integers()
    | st.binary()
    | st.sampled_from([*KIDS, b"ok", GOOD])
    | st.text(max_size=5).map(redis.ResponseError),
    lambda inner: st.lists(inner, max_size=4),
)


def answers(*kids: bytes) -> st.SearchStrategy[list[Any]]:
    """Draw replies of the right length, mostly about the right kids, with anything in them."""
    entries = [st.tuples(st.just(kid), codes | rubbish, record_texts | rubbish) for kid in kids]
    return st.tuples(*entries).map(lambda entry: [1, *itertools.chain.from_iterable(entry)])


@given(answers(KIDS[0]) | rubbish, answers(*KIDS[1:]) | answers(*KIDS[:2]) | rubbish)
@example(
    [1, KIDS[0], b"ok", GOOD], [1, KIDS[1], b"ok", GOOD, KIDS[2], b"ok", MISSPELT["meta null"]]
)
def test_only_a_clear_yes_is_a_yes(first: Any, second: Any) -> None:
    """Whatever Redis says: a mismatch, or one decision per check, OK only for a strict record."""
    redemption = Redemption([(b"EVALSHA",)] * 2, [KIDS[:1], KIDS[1:]])
    try:
        decisions = redemption.decide([first, second])
    except ReplyMismatch:
        return
    assert [decision.kid for decision in decisions] == KIDS
    assert [decision.outcome is Outcome.OK for decision in decisions] == [
        *_is_yes(first, 1),
        *_is_yes(second, 2),
    ]
    assert all(bool(decision.user) == (decision.outcome is Outcome.OK) for decision in decisions)


def _is_yes(reply: Any, number: int) -> list[bool]:
    if isinstance(reply, Exception):
        return [False] * number
    pairs = zip(reply[2::3], reply[3::3], strict=True)
    return [code == b"ok" and _is_strict(detail) for code, detail in pairs]


def _is_strict(raw: bytes) -> bool:
    try:
        read_record(raw)
    except BadRecord:
        return False
    return True


# Together, with a real Redis.


class Redeemer:
    """Issues records, and asks for them as the agent would."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self.gate = make_gate()
        client.script_load(Gate.script.decode())
        self.fence = Fence(client.info("replication")["master_replid"].encode(), 0)

    def issue(self, raw: bytes = GOOD, **changes: Any) -> Check:
        check = fresh(**changes)
        self.client.set(key_of(check), raw, ex=60)
        return check

    def redeem(self, *checks: Check) -> tuple[list[Decision], set[str]]:
        redemption = self.gate.redeem(checks, self.fence)
        pipeline = self.client.pipeline(transaction=False)
        for command in redemption.commands:
            pipeline.execute_command(*command)
        return redemption.decide(pipeline.execute(raise_on_error=False)), redemption.faults


@pytest.fixture
def redeemer(client: redis.Redis) -> Redeemer:
    return Redeemer(client)


def test_allowed_once(redeemer: Redeemer) -> None:
    """A good token opens its door; the second time it is a replay; a stranger is unknown."""
    check = redeemer.issue()
    (first,), _ = redeemer.redeem(check)
    again, _ = redeemer.redeem(check, fresh())
    assert first == Decision(Outcome.OK, kid_of(check), b"user1", b"")
    assert [decision.outcome for decision in again] == [Outcome.REPLAYED, Outcome.UNKNOWN]


def test_one_token_many_times_in_a_batch(redeemer: Redeemer) -> None:
    """One token asked for 300 times in one batch, in three calls, is consumed once."""
    check = redeemer.issue()
    decisions, _ = redeemer.redeem(*[check] * 300)
    outcomes = [decision.outcome for decision in decisions]
    assert outcomes == [Outcome.OK] + [Outcome.REPLAYED] * 299


@pytest.mark.parametrize(
    ("field", "changes", "outcome"),
    [
        ('"acl":["docs"]', {}, Outcome.WRONG_ACL),
        ('"src":["192.0.2.0/24"]', {}, Outcome.OK),
        ('"src":["192.0.2.7"]', {"source": bytes(10) + b"\xff\xff" + CLIENT}, Outcome.OK),
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
    redeemer: Redeemer, field: str, changes: dict[str, Any], outcome: Outcome
) -> None:
    """What the gate writes is what the script reads: no argument stands in another's place."""
    check = redeemer.issue(with_fields(field), **changes)
    (decision,), _ = redeemer.redeem(check)
    assert decision.outcome is outcome


def test_before_the_fence(redeemer: Redeemer) -> None:
    """A token from before the fence is fenced; with the fence right before it, it is good."""
    check = redeemer.issue()
    seconds, _ = redeemer.client.time()
    redeemer.fence = replace(redeemer.fence, since_ms=seconds * 1000 + 5000)
    assert redeemer.redeem(check)[0][0].outcome is Outcome.FENCED
    redeemer.fence = replace(redeemer.fence, since_ms=seconds * 1000 - 5000)
    assert redeemer.redeem(check)[0][0].outcome is Outcome.OK


@pytest.mark.parametrize("raw", MISSPELT.values(), ids=MISSPELT)
def test_what_only_python_refuses(redeemer: Redeemer, raw: bytes) -> None:
    """A record that Lua accepts and Python does not opens nothing; its neighbours are judged."""
    odd = redeemer.issue(raw, nonce=NONCE.upper().encode())
    checks = redeemer.issue(), odd, redeemer.issue()
    decisions, faults = redeemer.redeem(*checks)
    outcomes = [decision.outcome for decision in decisions]
    assert outcomes == [Outcome.OK, Outcome.BAD_RECORD, Outcome.OK]
    assert not faults


def test_another_server_than_expected(redeemer: Redeemer) -> None:
    """With another replid nothing is consumed, and why is told to the caller."""
    check = redeemer.issue()
    right = redeemer.fence
    redeemer.fence = FENCE
    decisions, faults = redeemer.redeem(check)
    assert decisions == [Decision(Outcome.STORE_UNAVAILABLE, kid_of(check))]
    assert [fault.split()[0] for fault in faults] == ["KATFENCE"]
    redeemer.fence = right
    assert redeemer.redeem(check)[0][0].outcome is Outcome.OK


def test_out_of_memory(start_redis: Callable[..., RedisServer]) -> None:
    """A Redis that cannot write says so token by token, consumes nothing, and heals."""
    with start_redis().client() as client:
        redeemer = Redeemer(client)
        check = redeemer.issue()
        client.config_set("maxmemory", "1")
        decisions, faults = redeemer.redeem(check, fresh())
        outcomes = [decision.outcome for decision in decisions]
        assert outcomes == [Outcome.STORE_UNAVAILABLE, Outcome.UNKNOWN]
        assert faults == {"OOM"}
        client.config_set("maxmemory", "0")
        assert redeemer.redeem(check)[0][0].outcome is Outcome.OK
