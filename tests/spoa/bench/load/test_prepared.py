import re

import pytest

from haproxy import FILES
from spoa.bench.load.corpus import ACL, GROUPS, Issued, mint
from spoa.bench.load.frames import encode_at, encode_ids
from spoa.bench.load.prepared import (
    NOWHERE,
    UnexpectedAnswer,
    blanked,
    build_load,
    encode_request,
    fault_of,
    spread,
    template_of,
)
from spoa.bench.scenario import Proof, Scenario
from spoa.spop.codec import decode_notify, encode_ack, encode_set_var
from spoa.spop.constants import Scope
from spoa.spop.value import Value
from tokens.policy.session import mint_session

CONSUMED = Scenario.CONSUME.case
REPLAYED = Scenario.REPLAY.case
OPENED = Scenario.SESSION_OPEN.case


def ack_of(token: Issued, index: int = 0, changes: dict[str, Value] | None = None) -> bytes:
    """Encode a right answer, but for the changes."""
    variables: dict[str, Value] = {
        "class": b"allow",
        "reason": b"ok",
        "acl": ACL,
        "user": token.user,
        "groups": b"100%," + b",".join(GROUPS),
        "kid": token.kid,
        "allow": True,
    }
    return encode_ack(
        encode_ids(index),
        b"".join(
            encode_set_var(Scope.TRANSACTION, name.encode(), value)
            for name, value in (variables | (changes or {})).items()
        ),
    )


PROBE, *TOKENS = mint(6)


@pytest.mark.parametrize("scenario", Scenario)
def test_every_request_has_all_arguments(scenario: Scenario) -> None:
    """A request carries what kat.spoe.conf sends, in its order, `at` last; NULL for what is not."""
    conf = (FILES / "kat.spoe.conf").read_text()
    message = conf.partition("spoe-message check-http\n")[2]
    (line, *_) = re.findall(r"^ +args (.+)$", message, re.MULTILINE)
    names = [arg.partition("=")[0].encode() for arg in line.split()]
    case = scenario.case
    token = TOKENS[0]._replace(session=mint_session(None))
    frame = encode_request(3, encode_ids(3), token, case) + encode_at(1.7e9)
    (asked,) = decode_notify(frame[9:]).messages
    assert (asked.name, list(asked.args)) == (b"check-http", names)
    proofs = {name: asked.args[name] for name in (b"token", b"session", b"nonce")}
    assert proofs == {
        b"token": token.text if case.proof is Proof.TOKEN else None,
        b"session": token.session if case.proof is Proof.SESSION else None,
        b"nonce": None,
    }


def test_the_template_of_one_answer_foresees_all_others() -> None:
    """The ACKs built from a probe's are those that a right agent gives, byte for byte."""
    load = build_load(TOKENS, CONSUMED, template_of(ack_of(PROBE), PROBE, CONSUMED))
    assert load.acks == [ack_of(token, i) for i, token in enumerate(TOKENS)]
    assert len(load.frames) == len(TOKENS)
    assert load.fresh == NOWHERE


def opened_ack(token: Issued, index: int = 0) -> bytes:
    changes: dict[str, Value] = {"acl": OPENED.acl, "session": mint_session(None), "allow": True}
    return ack_of(token, index, changes)


def test_a_new_session_is_all_that_is_not_foreseen() -> None:
    """Where its id stands the ACKs are blank, and they differ from the agent's nowhere else."""
    load = build_load(TOKENS, OPENED, template_of(opened_ack(PROBE), PROBE, OPENED))
    come = [opened_ack(token, i) for i, token in enumerate(TOKENS)]
    assert load.acks == [blanked(ack, load.fresh) for ack in come]
    assert load.acks != come


def test_a_session_is_opened_where_one_belongs() -> None:
    """A token in a query opens one, and none in a header does."""
    with pytest.raises(UnexpectedAnswer, match="no new session"):
        template_of(ack_of(PROBE, changes={"acl": OPENED.acl}), PROBE, OPENED)
    with pytest.raises(UnexpectedAnswer, match="a new session"):
        template_of(ack_of(PROBE, changes={"session": mint_session(None)}), PROBE, CONSUMED)


def test_a_grant_names_nobody() -> None:
    """The answer to an address has no user and no kid, and is right without."""
    case = Scenario.GRANT.case
    values: dict[bytes, Value] = {b"class": b"allow", b"reason": b"grant", b"acl": case.acl}
    pairs = {**values, b"allow": True}.items()
    actions = b"".join(encode_set_var(Scope.TRANSACTION, *pair) for pair in pairs)
    load = build_load(TOKENS, case, template_of(encode_ack(encode_ids(0), actions), PROBE, case))
    assert load.acks == [encode_ack(encode_ids(i), actions) for i in range(len(TOKENS))]


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("reason", b"deadline", "reason b'deadline'"),
        ("class", b"denied", "class b'denied'"),
        ("allow", False, "allow False"),
        ("allow", 1, "allow 1"),
        ("acl", b"other", "acl b'other'"),
        ("user", b"someoneelse", "user"),
        ("kid", b"0" * 12, "kid"),
    ],
)
def test_a_wrong_probe_is_no_template(name: str, value: Value, fault: str) -> None:
    """No round starts from an answer that means something else than the scenario says."""
    changed = ack_of(PROBE, changes={name: value})
    with pytest.raises(UnexpectedAnswer, match=fault):
        template_of(changed, PROBE, CONSUMED)
    assert fault_of(changed, ack_of(PROBE)) == fault


def test_a_refusal_must_not_allow() -> None:
    """`allow` in an answer that should be a refusal is a fault, whatever the reason says."""
    answer = ack_of(PROBE, changes={"class": b"denied", "reason": b"replayed"})
    with pytest.raises(UnexpectedAnswer, match="allow instead of a refusal"):
        template_of(answer, PROBE, REPLAYED)


def test_an_answer_in_another_order_is_right() -> None:
    """Meaning counts: the order of actions is the agent's affair."""
    actions = [encode_set_var(Scope.TRANSACTION, *pair) for pair in ((b"a", b"1"), (b"b", b"2"))]
    one, other = (encode_ack(encode_ids(0), b"".join(order)) for order in (actions, actions[::-1]))
    assert one != other
    assert fault_of(one, other) is None


def test_a_fault_names_no_token_and_no_user() -> None:
    """Faults are counted by their text, so they hold none of what differs by request."""
    fault = fault_of(ack_of(TOKENS[1]), ack_of(TOKENS[0]))
    assert fault in ("user", "kid")


def test_kinds_are_spread_evenly() -> None:
    """At every point each kind has had its share, to less than one request; every time."""
    shares = {"a": 75, "b": 15, "c": 5, "d": 3, "e": 2}
    order = spread(shares, 1050)
    assert order == spread(shares, 2000)[:1050]
    for kind, share in shares.items():
        had = [order[:count].count(kind) for count in range(1, 1051)]
        assert all(abs(n - count * share / 100) < 1 for count, n in enumerate(had, start=1))
    assert spread({"a": 1}, 3) == ["a", "a", "a"]
