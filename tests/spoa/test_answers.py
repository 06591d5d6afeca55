"""What HAProxy is told: read back with the schema, byte for byte."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoa.spop.constants import MIN_MAX_FRAME_BYTES
from spoa.worker.answers import MAX_IDS_BYTES, Answers
from tests.support import frames
from tests.support.spop_client import Answer, read_answer
from tokens.check import Decision
from tokens.outcome import Outcome
from tokens.policy.session import mint_session

LONGEST_ACL = "a" * 64
LONGEST_IDS = frames.ids(2**64 - 1, 2**64 - 1)
KID = b"0123456789ab"
LONGEST_SESSION = mint_session(9_999_999_000)
YES = (Outcome.OK, Outcome.SESSION, Outcome.GRANT)
BY_NAME = (Outcome.OK, Outcome.SESSION)
"""An open address lets everybody in who comes from it: a yes without a name."""

every_outcome = pytest.mark.parametrize("outcome", list(Outcome), ids=lambda one: one.name)


def answer(decision: Decision, acl: bytes = b"wiki", ids: bytes = frames.ids(1, 1)) -> Answer:
    acls = ["demo", "wiki", LONGEST_ACL]
    return read_answer(Answers(acls).encode(ids, acl, decision))


def decision(outcome: Outcome) -> Decision:
    """Decide with everything that could be told, whether or not it should be."""
    return Decision(outcome, KID, b"user1", b"staff,editors", LONGEST_SESSION)


@every_outcome
def test_allow_comes_last_and_is_true_for_three_alone(outcome: Outcome) -> None:
    """HAProxy applies a broken list up to the fault: no other variable may follow the yes."""
    told = answer(decision(outcome)).variables
    assert list(told)[-1] == "allow"
    assert told["allow"] is (outcome in YES)


@every_outcome
def test_class_and_reason_are_the_decision_table(outcome: Outcome) -> None:
    """The class is what haproxy.cfg acts on, and only the three that allow have the class allow."""
    told = answer(decision(outcome)).variables
    assert (told["class"], told["reason"]) == (outcome.verdict, outcome.reason)
    assert (told["class"] == b"allow") is (outcome in YES)


@every_outcome
def test_a_refusal_names_nobody(outcome: Outcome) -> None:
    """User and groups are told with a yes to a person and never else; the kid if there is one."""
    told = answer(decision(outcome)).variables
    assert told["kid"] == KID
    named = {name: told[name] for name in ("user", "groups") if name in told}
    expected = {"user": b"user1", "groups": b"staff,editors"} if outcome in BY_NAME else {}
    assert named == expected


@every_outcome
def test_a_cookie_goes_with_a_yes_alone(outcome: Outcome) -> None:
    """The id of an opened session is told with a yes to a person, just as it is, and never else."""
    told = answer(decision(outcome)).variables
    assert told.get("session") == (LONGEST_SESSION if outcome in BY_NAME else None)


@every_outcome
def test_no_session_no_variable(outcome: Outcome) -> None:
    """Where nothing was opened, `session` is not set at all: HAProxy sends no cookie."""
    assert "session" not in answer(Decision(outcome, KID, b"user1")).variables


@every_outcome
def test_no_kid_no_variable(outcome: Outcome) -> None:
    """Without a token that was looked up, `kid` is not set at all."""
    assert "kid" not in answer(Decision(outcome)).variables


@pytest.mark.parametrize("kid", [b"0123456789a", b"0123456789abc", b"k" * 300])
@every_outcome
def test_a_kid_of_another_length_breaks_nothing(outcome: Outcome, kid: bytes) -> None:
    """What is no kid is not told, and what is told around it is read as before."""
    told = answer(Decision(outcome, kid, b"user1")).variables
    assert "kid" not in told
    assert told["reason"] == outcome.reason
    assert told["allow"] is (outcome in YES)


@every_outcome
def test_retry_after_is_asked_where_a_second_try_may_help(outcome: Outcome) -> None:
    """`retry_after` goes with the class broken and with no other."""
    told = answer(decision(outcome)).variables
    assert told.get("retry_after") == (1 if outcome.verdict == b"broken" else None)


@every_outcome
@pytest.mark.parametrize("acl", [b"demo", b"wiki", LONGEST_ACL.encode()], ids=len)
def test_the_judged_acl_is_told(outcome: Outcome, acl: bytes) -> None:
    """A gate admits only what names its own ACL, so every answer names the one that was judged."""
    assert answer(decision(outcome), acl).variables["acl"] == acl


@every_outcome
@pytest.mark.parametrize("acl", [b"", b"other", b"wiki\0", b"WIKI", b"x" * 20_000, b"\xff"])
def test_an_acl_that_is_not_configured_is_not_repeated(outcome: Outcome, acl: bytes) -> None:
    """What a request calls its ACL never comes back, unless the configuration knows it."""
    told = answer(decision(outcome), acl).variables
    assert "acl" not in told
    assert told["reason"] == outcome.reason


@pytest.mark.parametrize("frame_id", [0, 1])
@pytest.mark.parametrize("stream_id", [0, 1, 239, 240, 2288, 2**64 - 1])
@every_outcome
def test_the_ids_are_echoed(outcome: Outcome, stream_id: int, frame_id: int) -> None:
    """The ACK carries the very ids of its NOTIFY, 0 and 64 bits included."""
    ids = frames.ids(stream_id, frame_id)
    assert answer(decision(outcome), ids=ids).ids == ids


def test_the_longest_ids_are_as_long_as_said() -> None:
    """Two varints of 64 bits take MAX_IDS_BYTES."""
    assert len(LONGEST_IDS) == MAX_IDS_BYTES


@every_outcome
def test_every_answer_but_a_yes_fits_the_smallest_frame(outcome: Outcome) -> None:
    """With the longest ACL, ids and kid, no refusal exceeds the least frame size there is."""
    told = answer(Decision(outcome, KID), LONGEST_ACL.encode(), LONGEST_IDS)
    assert told.size_bytes <= MIN_MAX_FRAME_BYTES


@given(st.integers(MIN_MAX_FRAME_BYTES, 1 << 20), st.floats(0.0, 1.0))
def test_a_yes_that_keeps_to_its_room_fits(max_frame_bytes: int, share: float) -> None:
    """User and groups that fill `room_bytes`, however divided, fit a frame beside the cookie."""
    answers = Answers([LONGEST_ACL])
    room_bytes = answers.room_bytes(max_frame_bytes)
    user_bytes = int(room_bytes * share)
    user, groups = b"u" * user_bytes, b"g" * (room_bytes - user_bytes)
    for outcome in YES:
        yes = Decision(outcome, KID, user, groups, LONGEST_SESSION)
        told = read_answer(answers.encode(LONGEST_IDS, LONGEST_ACL.encode(), yes))
        assert told.size_bytes <= max_frame_bytes


@given(st.integers(MIN_MAX_FRAME_BYTES, 1 << 20))
def test_the_room_is_not_given_away(max_frame_bytes: int) -> None:
    """At most 12 bytes of a frame stay unused in the worst case."""
    answers = Answers([LONGEST_ACL])
    user = b"u" * answers.room_bytes(max_frame_bytes)
    yes = Decision(Outcome.SESSION, KID, user, session=LONGEST_SESSION)
    told = read_answer(answers.encode(LONGEST_IDS, LONGEST_ACL.encode(), yes))
    assert told.size_bytes >= max_frame_bytes - 12


@pytest.mark.parametrize("max_frame_bytes", [0, 1, 100])
def test_the_room_is_never_negative(max_frame_bytes: int) -> None:
    """redeem.lua is given a number that it can compare with."""
    assert Answers([]).room_bytes(max_frame_bytes) == 0


def test_hits_are_remembered_for_themselves() -> None:
    """However often a session is hit, and by how many, each answer is that of its own session."""
    answers = Answers(["wiki", "docs"])
    hits = [
        (acl, b"user%d" % n, Decision(Outcome.SESSION, b"%012x" % n, b"user%d" % n, b"g"))
        for n, acl in enumerate([b"wiki", b"docs"] * 50)
    ]
    for times in (1, 2):
        for acl, user, hit in hits:
            variables = read_answer(answers.encode(frames.ids(times), acl, hit)).variables
            assert (variables["user"], variables["acl"]) == (user, acl)


def test_only_hits_are_remembered() -> None:
    """A decision that is no hit may be given for any ACL: nothing is kept with it."""
    refusal = Decision(Outcome.MISSING)
    for acl in (b"wiki", b"docs"):
        told = Answers(["wiki", "docs"]).encode(frames.ids(1), acl, refusal)
        assert read_answer(told).variables["acl"] == acl
