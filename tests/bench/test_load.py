import re

import pytest

from bench.corpus import ACL, Issued, mint
from bench.frames import encode_at, encode_ids
from bench.load import (
    CONSUMED,
    REPLAYED,
    UnexpectedAnswer,
    build_load,
    encode_request,
    fault_of,
    template_of,
)
from haproxy import FILES
from spoa.spop.codec import Value, decode_notify, encode_ack, encode_set_var
from spoa.spop.constants import Scope


def ack_of(token: Issued, index: int = 0, changes: dict[str, Value] | None = None) -> bytes:
    """Encode a right answer, but for the changes."""
    variables: dict[str, Value] = {
        "class": b"allow",
        "reason": b"ok",
        "acl": ACL,
        "user": token.user,
        "groups": b"100%,staff",
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


def test_every_request_has_all_arguments() -> None:
    """A request carries what kat.spoe.conf sends, in its order, `at` last."""
    (line,) = re.findall(r"^ +args (.+)$", (FILES / "kat.spoe.conf").read_text(), re.MULTILINE)
    names = [arg.partition("=")[0].encode() for arg in line.split()]
    frame = encode_request(3, encode_ids(3), TOKENS[0]) + encode_at(1.7e9)
    (message,) = decode_notify(frame[9:]).messages
    assert list(message.args) == names
    assert message.args[b"token"] == TOKENS[0].text


def test_the_template_of_one_answer_foresees_all_others() -> None:
    """The ACKs built from a probe's are those that a right agent gives, byte for byte."""
    load = build_load(TOKENS, template_of(ack_of(PROBE), PROBE, CONSUMED))
    assert load.acks == [ack_of(token, i) for i, token in enumerate(TOKENS)]
    assert len(load.frames) == len(TOKENS)


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
