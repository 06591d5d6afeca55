"""What proofs are worth, once Redis has shown them."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from tests.support.gates import CHECK, ELSEWHERE, RULES, coming, returning
from tests.support.records import ACCEPTED, GOOD, MISSHAPEN, MISSPELT, with_fields
from tests.support.strategies import records
from tokens.audit import Journal
from tokens.check import AFTER_GRANT, GRANT, LOGOUT, SESSION, TOKEN, Check, Decision
from tokens.outcome import Outcome
from tokens.policy.cut import Cut
from tokens.policy.judge import Found, Judge
from tokens.policy.redeem import Answer, ReplyMismatch
from tokens.policy.session import mint_session, session_digest
from tokens.policy.sessionrecord import Session, write_session
from tokens.record import BadRecord, Keys, Record, read_record, write_record

KID = b"0123456789ab"
NOW_MS = 1_760_000_000_000
ISSUED_MS = NOW_MS - 5000
TOKEN_CHECK = replace(CHECK, token=b"kat_", needs=TOKEN)
ID = mint_session(None)
DIGEST = session_digest(ID)
SESSION_CHECK = returning(ID, needs=SESSION, refusal=Outcome.SESSION_EXPIRED)
SESSION_OF_USER1 = Session(
    user=b"user1",
    groups=b"staff",
    acl=b"session",
    host=CHECK.host,
    src=b"192.0.2.7",
    issued_ms=ISSUED_MS,
    expires_ms=NOW_MS + 1000,
    kid=KID,
    sid=DIGEST[:12],
)
RAW_SESSION = write_session(SESSION_OF_USER1)

# Codes that redeem.lua has, written out here once more: the two lists must agree.
REFUSALS = ["unknown", "replayed", "fenced", "early", "bad_record"] + [
    f"wrong_{binding}" for binding in ("acl", "host", "method", "path", "src", "nonce")
]


class Court:
    """A judge, and what was found about one check."""

    def __init__(self, **cuts: int) -> None:
        self.told: list[dict[str, Any]] = []
        self.journal = Journal(b"kat:audit", 10, lambda told: self.told.extend(json.loads(told)))
        rules = {acl.encode(): rule for acl, rule in RULES.items()}
        self.judge = Judge(rules, Keys(), self.journal)
        self.judge.now_ms = NOW_MS
        self.faults: set[str] = set()
        self.cut(**cuts)

    def cut(self, **cuts: int) -> None:
        fields = [
            part
            for name, ms in cuts.items()
            for part in (name.replace("_", ":", 1).encode(), b"%d" % ms)
        ]
        self.judge.cut = Cut(b"1", fields)

    def decide(
        self,
        check: Check,
        *,
        answer: Any = None,
        raw: Any = None,
        end: Any = 0.0,
        digest: bytes = DIGEST,
    ) -> Decision:
        found = Found([check])
        found.answers[0], found.raws[0], found.digests[0], found.ends[0] = answer, raw, digest, end
        return self.judge.decide(found, 0, self.faults)

    def events(self) -> list[tuple[str, str]]:
        """Return what the audit was told: event and reason."""
        self.journal.take(0.0)
        return [(event["event"], event.get("reason", "")) for event in self.told]


def consumed(raw: Any = GOOD) -> Answer:
    return KID, ISSUED_MS, raw


# Tokens.


@pytest.mark.parametrize("code", REFUSALS)
def test_every_refusal_of_the_script(code: str) -> None:
    """A code of redeem.lua is the outcome of the same reason, with its kid and nothing more."""
    court = Court()
    decision = court.decide(TOKEN_CHECK, answer=(KID, code.encode(), b"1 192.0.2.7"))
    assert decision == Decision(Outcome((b"denied", code.encode())), KID)
    expected = ("replayed", "") if code == "replayed" else ("refused", code)
    assert court.events() == ([] if code == "unknown" else [expected])  # of those a summary


def test_a_consumed_token_has_user_and_groups() -> None:
    """A yes names who the visitor is, as the record says it."""
    court = Court()
    raw = with_fields('"groups":["staff","wiki editors"]')
    decision = court.decide(TOKEN_CHECK, answer=consumed(raw))
    assert decision == Decision(Outcome.OK, KID, b"user1", b"staff,wiki editors")
    assert court.events() == [("consumed", "")]


@pytest.mark.parametrize(
    "raw", [*MISSHAPEN.values(), *MISSPELT.values()], ids=[*MISSHAPEN, *MISSPELT]
)
def test_a_consumed_token_with_a_bad_record_is_no_yes(raw: bytes) -> None:
    """What Redis lets pass is read once more, strictly: a bad record admits nobody."""
    court = Court()
    assert court.decide(TOKEN_CHECK, answer=consumed(raw)) == Decision(Outcome.BAD_RECORD, KID)
    assert court.events() == [("refused", "bad_record")]


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


@given(records(), st.data())
def test_a_yes_agrees_with_the_strict_reading(record: Record, data: st.DataObject) -> None:
    """Any record of the contract is a yes for its user and groups; spoilt, it is read strictly."""
    raw = write_record(record)
    user, groups = record.sub.encode(), ",".join(record.groups).encode()
    court = Court()
    decision = court.decide(TOKEN_CHECK, answer=consumed(raw))
    assert decision == Decision(Outcome.OK, KID, user, groups)
    at, size = data.draw(st.integers(0, len(raw))), data.draw(st.integers(0, 2))
    spoilt = raw[:at] + data.draw(st.sampled_from(SPOILERS)) + raw[at + size :]
    decision = court.decide(TOKEN_CHECK, answer=consumed(spoilt))
    assert (decision.outcome is Outcome.OK) == _is_strict(spoilt)


def _is_strict(raw: bytes) -> bool:
    try:
        read_record(raw)
    except BadRecord:
        return False
    return True


def test_a_store_error_is_kept_for_the_caller() -> None:
    """An error met within the script makes this check store_unavailable, and is told."""
    court = Court()
    decision = court.decide(TOKEN_CHECK, answer=(KID, b"store_error", b"OOM"))
    assert decision == Decision(Outcome.STORE_UNAVAILABLE, KID)
    assert court.faults == {"OOM"}
    assert court.events() == []


NO_ANSWERS: dict[str, tuple[Any, Any]] = {
    "code missing": (None, GOOD),
    "code a list": ([1], GOOD),
    "code an error": (redis.ResponseError("1"), GOOD),
    "code a true": (True, GOOD),
    "code a text of the moment": (b"1760000000000", GOOD),
    "the code of old": (b"ok", GOOD),
    "a code nobody knows": (b"fine", GOOD),
    "a code in capitals": (b"UNKNOWN", b""),
    "a code with more": (b"unknown ", b""),
    "no code": (b"", GOOD),
    "detail missing": (1, None),
    "detail a number": (b"unknown", 0),
    "detail a list": (1, [GOOD]),
    "detail an error": (b"store_error", redis.ResponseError("OOM")),
    "a reason that is not the script's": (b"missing", b""),
    "another one": (b"malformed", b""),
    "ours for what is revoked": (b"revoked", b""),
    "ours for who is blocked": (b"blocked", b""),
    "our own broken": (b"store_unavailable", b""),
    "a session's yes": (b"session", GOOD),
}


@pytest.mark.parametrize(("code", "detail"), NO_ANSWERS.values(), ids=NO_ANSWERS)
def test_what_the_script_cannot_have_said(code: Any, detail: Any) -> None:
    """An answer that redeem.lua does not have decides nothing at all, and is not quoted."""
    with pytest.raises(ReplyMismatch) as caught:
        Court().decide(TOKEN_CHECK, answer=(KID, code, detail))
    assert "user1" not in str(caught.value)
    assert len(str(caught.value)) < 100


rubbish: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.integers() | st.binary() | st.text(max_size=5).map(redis.ResponseError),
    lambda inner: st.lists(inner, max_size=3),
)
codes = st.sampled_from([b"store_error", *(code.encode() for code in REFUSALS)])
texts = st.sampled_from([GOOD, *ACCEPTED.values(), *MISSHAPEN.values(), *MISSPELT.values()])


@given(st.integers() | codes | rubbish, texts | rubbish)
def test_only_a_clear_yes_is_a_yes(code: Any, detail: Any) -> None:
    """Whatever Redis says: a mismatch or a decision, OK only for a moment and a strict record."""
    try:
        decision = Court().decide(TOKEN_CHECK, answer=(KID, code, detail))
    except ReplyMismatch:
        return
    is_yes = type(code) is int and _is_strict(detail)
    assert (decision.outcome is Outcome.OK) == is_yes == (decision.outcome.verdict == b"allow")
    assert bool(decision.user) == is_yes


# Sessions.


def test_a_session_has_user_and_groups() -> None:
    """A session says who opened it and by which token, and the audit hears nothing of a hit."""
    court = Court()
    decision = court.decide(SESSION_CHECK, raw=RAW_SESSION)
    assert decision == Decision(Outcome.SESSION, KID, b"user1", b"staff")
    assert court.events() == []


def test_no_session_is_an_expired_one() -> None:
    """What is not there is over, and no event."""
    court = Court()
    assert court.decide(SESSION_CHECK).outcome is Outcome.SESSION_EXPIRED
    assert court.events() == []


@pytest.mark.parametrize("raw", [b"", b"{", GOOD, RAW_SESSION[:-1], RAW_SESSION + b" {}"])
def test_a_bad_session_is_a_bad_record(raw: bytes) -> None:
    """What no agent wrote is refused and told."""
    court = Court()
    assert court.decide(SESSION_CHECK, raw=raw) == Decision(Outcome.BAD_RECORD)
    assert court.events() == [("refused", "bad_record")]


def test_the_session_of_a_neighbour_is_a_mismatch() -> None:
    """A record that names another id of the batch shows that replies are mixed up."""
    neighbours = write_session(SESSION_OF_USER1._replace(sid=b"f" * 12))
    for needs in (SESSION, LOGOUT):
        check = replace(SESSION_CHECK, needs=needs)
        found = Found([check, check])
        found.raws[0] = neighbours
        found.digests = [session_digest(check.session), b"f" * 64]
        with pytest.raises(ReplyMismatch) as caught:
            Court().judge.decide(found, 0, set())
        assert "user1" not in str(caught.value)


def test_a_session_under_a_key_of_another_is_a_bad_record() -> None:
    """One that somebody copied opens nothing, and costs no neighbour his answer."""
    copied = write_session(SESSION_OF_USER1._replace(sid=b"f" * 12))
    court = Court()
    for needs in (SESSION, LOGOUT):
        check = replace(SESSION_CHECK, needs=needs)
        assert court.decide(check, raw=copied) == Decision(Outcome.BAD_RECORD)


@pytest.mark.parametrize("raw", [1, [RAW_SESSION], []])
def test_what_is_no_value_is_a_mismatch(raw: Any) -> None:
    """Redis keeps texts under keys: anything else is the reply to something else."""
    with pytest.raises(ReplyMismatch):
        Court().decide(SESSION_CHECK, raw=raw)


def test_an_answer_must_fit() -> None:
    """User and groups must fit into this HAProxy's ACK: another one may have opened the session."""
    room = len(b"user1") + len(b"staff")
    fits = replace(SESSION_CHECK, room_bytes=room)
    assert Court().decide(fits, raw=RAW_SESSION).outcome is Outcome.SESSION
    tight = replace(SESSION_CHECK, room_bytes=room - 1)
    assert Court().decide(tight, raw=RAW_SESSION).outcome is Outcome.BAD_RECORD


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({"acl": b"wiki"}, Outcome.WRONG_ACL),
        ({"host": b"other.example"}, Outcome.WRONG_HOST),
    ],
)
def test_a_session_elsewhere_is_told(changes: dict[str, Any], outcome: Outcome) -> None:
    """A session on another ACL or host opens nothing; who it is told of is its user."""
    court = Court()
    decision = court.decide(replace(SESSION_CHECK, **changes), raw=RAW_SESSION)
    assert decision.outcome is outcome
    assert court.events() == [("refused", outcome.reason.decode())]
    assert court.told[0]["user"] == "user1"


def test_leaving_takes_the_session_off_its_users_list() -> None:
    """A session that is gone already is taken off the list of its user, and told."""
    court = Court()
    decision = court.decide(replace(SESSION_CHECK, needs=LOGOUT), raw=RAW_SESSION)
    assert decision == Decision(Outcome.LOGGED_OUT, KID, b"user1")
    assert [note.head for note in court.judge.notes] == [
        (b"ZREM", b"kat:sub:user1", b"s:" + DIGEST)
    ]
    assert court.events() == [("logout", "")]
    assert court.told[0]["sid"] == SESSION_OF_USER1.sid.decode()


def test_leaving_twice_is_leaving() -> None:
    """A second time, or the same questions asked again, find nothing and say the same."""
    check = replace(SESSION_CHECK, needs=LOGOUT, refusal=Outcome.LOGGED_OUT)
    assert Court().decide(check) == Decision(Outcome.LOGGED_OUT)


# Grants.

GRANT_CHECK = coming("ip", needs=GRANT, refusal=Outcome.NO_GRANT)


@pytest.mark.parametrize(
    ("end", "outcome"),
    [
        (NOW_MS + 1.0, Outcome.GRANT),
        (math.inf, Outcome.GRANT),
        (float(NOW_MS), Outcome.NO_GRANT),
        (NOW_MS - 1.0, Outcome.NO_GRANT),
        (0.0, Outcome.NO_GRANT),
        (0, Outcome.NO_GRANT),
        (-math.inf, Outcome.NO_GRANT),
    ],
)
def test_a_grant_ends_at_its_score(end: float, outcome: Outcome) -> None:
    """A grant stands before its end, never at it or past it, by the time that Redis tells."""
    court = Court()
    assert court.decide(GRANT_CHECK, end=end) == Decision(outcome)
    assert court.events() == []


def test_a_grant_alone_is_no_yes_where_a_token_is_needed() -> None:
    """In mode ip+token a standing grant opens nothing by itself."""
    check = replace(GRANT_CHECK, needs=GRANT | TOKEN | AFTER_GRANT)
    assert Court().decide(check, end=NOW_MS + 1.0).outcome is Outcome.NO_GRANT


# Errors in place of what was asked about.

UNREADABLE = [
    (SESSION_CHECK, "raw"),
    (replace(SESSION_CHECK, needs=LOGOUT), "raw"),
    (GRANT_CHECK, "end"),
    (replace(GRANT_CHECK, needs=GRANT | TOKEN | AFTER_GRANT), "end"),
]


@pytest.mark.parametrize(("check", "where"), UNREADABLE)
def test_a_key_of_another_type_is_a_bad_record(check: Check, where: str) -> None:
    """One crooked key refuses those whose it is; the store itself is in order."""
    court = Court()
    wrong = redis.ResponseError("WRONGTYPE Operation against a key")
    assert court.decide(check, **{where: wrong}).outcome is Outcome.BAD_RECORD
    assert court.faults == set()
    assert court.events() == [("refused", "bad_record")]


@pytest.mark.parametrize(("check", "where"), UNREADABLE)
def test_any_other_error_is_the_store_away(check: Check, where: str) -> None:
    """An error is never taken for "there is none"; it is told without what Redis echoes."""
    court = Court()
    fault = redis.ResponseError("NOPERM no, with args beginning with: 'kat:s:0123'")
    assert court.decide(check, **{where: fault}).outcome is Outcome.STORE_UNAVAILABLE
    assert court.faults == {"NOPERM no"}
    assert court.events() == []


# Revocation and blocks.

AT = ISSUED_MS
CUTS = [
    ({"all": AT}, True),
    ({"acl_session": AT}, True),
    ({"sub_user1": AT}, True),
    ({"group_staff": AT}, True),
    ({"kid_0123456789ab": AT}, True),
    ({"sub_user1": AT - 2}, False),
    ({"sub_user2": AT}, False),
    ({"acl_wiki": AT}, False),
    ({"group_editors": AT}, False),
    ({}, False),
]


@pytest.mark.parametrize(("cuts", "is_revoked"), CUTS)
def test_what_is_revoked_is_no_yes(cuts: dict[str, int], is_revoked: bool) -> None:  # noqa: FBT001
    """A cut hits the consumed token and the session alike, by all that either is."""
    check = replace(TOKEN_CHECK, acl=b"session")
    raw = with_fields('"groups":["staff"]')
    for court, decision, good in (
        (it := Court(**cuts), it.decide(check, answer=consumed(raw)), Outcome.OK),
        (it := Court(**cuts), it.decide(SESSION_CHECK, raw=RAW_SESSION), Outcome.SESSION),
    ):
        assert decision.outcome is (Outcome.REVOKED if is_revoked else good)
        assert (("refused", "revoked") in court.events()) == is_revoked


def test_a_token_that_was_taken_back_is_not_just_unknown() -> None:
    """Its key is gone; the cut that names it says why. Another unknown token remains unknown."""
    court = Court(kid_0123456789ab=1)
    unknown = (KID, b"unknown", b"")
    assert court.decide(TOKEN_CHECK, answer=unknown).outcome is Outcome.REVOKED
    other = (KID[::-1], b"unknown", b"")
    assert court.decide(TOKEN_CHECK, answer=other).outcome is Outcome.UNKNOWN


@pytest.mark.parametrize(
    ("field", "left_ms", "is_blocked"),
    [
        ("addr_192.0.2.7", 1, True),
        ("addr_192.0.2.0/24", 1, True),
        ("addr_192.0.2.7", 0, False),
        ("addr_192.0.2.7", -1, False),
        ("addr_192.0.2.8", 1, False),
    ],
)
@pytest.mark.parametrize("proof", ["token", "session", "grant", "none"])
def test_who_is_blocked_has_no_proof(
    field: str,
    left_ms: int,
    is_blocked: bool,  # noqa: FBT001
    proof: str,
) -> None:
    """No token, session or grant is worth anything from a blocked address, until the block ends."""
    court = Court(**{field: NOW_MS + left_ms})
    decision = {
        "token": lambda: court.decide(TOKEN_CHECK, answer=consumed()),
        "session": lambda: court.decide(SESSION_CHECK, raw=RAW_SESSION),
        "grant": lambda: court.decide(GRANT_CHECK, end=NOW_MS + 1.0),
        "none": lambda: court.decide(SESSION_CHECK),
    }[proof]()
    assert (decision.outcome is Outcome.BLOCKED) == is_blocked
    assert (("refused", "blocked") in court.events()) == is_blocked


def test_a_block_is_of_one_address() -> None:
    """Everybody else is judged as ever."""
    court = Court(**{"addr_192.0.2.7": NOW_MS + 1})
    elsewhere = replace(TOKEN_CHECK, source=ELSEWHERE)
    assert court.decide(elsewhere, answer=consumed()).outcome is Outcome.OK


def test_whose_token_was_held_back_is_blocked() -> None:
    """A block that ended meanwhile is still the reason why the token was not looked at."""
    court = Court()
    found = Found([TOKEN_CHECK])
    found.blocked.add(0)
    assert court.judge.decide(found, 0, set()).outcome is Outcome.BLOCKED


# The first yes, else the first no.


@pytest.mark.parametrize(
    ("answer", "raw", "end", "outcome"),
    [
        (consumed(), RAW_SESSION, NOW_MS + 1.0, Outcome.OK),
        ((KID, b"replayed", b""), RAW_SESSION, 0.0, Outcome.SESSION),
        ((KID, b"replayed", b""), None, NOW_MS + 1.0, Outcome.GRANT),
        ((KID, b"replayed", b""), b"bad", 0.0, Outcome.REPLAYED),
        ((KID, b"store_error", b"OOM"), RAW_SESSION, 0.0, Outcome.SESSION),
        (consumed(b"bad"), RAW_SESSION, 0.0, Outcome.SESSION),
        (None, b"bad", NOW_MS + 1.0, Outcome.GRANT),
        (None, b"bad", 0.0, Outcome.BAD_RECORD),
        (None, None, 0.0, Outcome.SESSION_EXPIRED),
    ],
)
def test_the_first_yes_else_the_first_no(
    answer: Any,
    raw: Any,
    end: float,
    outcome: Outcome,
) -> None:
    """A token, a session, a grant: in this order, whichever says yes; else the first one's no."""
    check = replace(SESSION_CHECK, needs=TOKEN | SESSION | GRANT)
    assert Court().decide(check, answer=answer, raw=raw, end=end).outcome is outcome
