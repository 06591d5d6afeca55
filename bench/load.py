"""What a round sends and what must come back, as bytes, before the clock starts.

The expected ACKs come from one real answer. A probe is decoded and judged by meaning (`allow`,
`class`, `reason`, `acl`, `user`, `kid`); only if it is right does it become the template of all
others, which differ in ids, user and kid alone. The round then compares bytes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.corpus import ACL, Issued
from bench.frames import (
    HEAD_BYTES,
    IDS_BYTES,
    decode_actions,
    encode_ids,
    encode_notify,
)
from spoa.spop.codec import Address, Value

PATHS = 64
CLIENTS = 4096
_HOST = b"app.example.com"


class UnexpectedAnswer(Exception):
    """The agent's answer to a probe is not the one this scenario is about."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """What every ACK of a scenario says besides the user and the kid."""

    verdict: bytes
    reason: bytes

    def fault(self, answer: dict[bytes, Value], token: Issued) -> str | None:
        """Say what is wrong with an answer, or None."""
        wanted: dict[bytes, Value] = {b"reason": self.reason, b"class": self.verdict, b"acl": ACL}
        if self.verdict == b"allow":
            wanted |= {b"allow": True, b"user": token.user, b"kid": token.kid}
        elif answer.get(b"allow"):
            return "allow instead of a refusal"
        return fault_between(wanted, answer)


CONSUMED = Expectation(b"allow", b"ok")
REPLAYED = Expectation(b"denied", b"replayed")
MALFORMED = Expectation(b"denied", b"malformed")


@dataclass(frozen=True, slots=True)
class Load:
    """Requests in sending order, and the ACK that each must get."""

    frames: list[bytes]
    acks: list[bytes]


def build_load(tokens: Iterable[Issued], ack_template: bytes) -> Load:
    """Encode one request per token, and its ACK."""
    frames = []
    acks = []
    for index, token in enumerate(tokens):
        ids = encode_ids(index)
        frames.append(encode_request(index, ids, token))
        acks.append(ack_template % {b"ids": ids, b"user": token.user, b"kid": token.kid})
    return Load(frames, acks)


def encode_request(index: int, ids: bytes, token: Issued) -> bytes:
    """Encode what HAProxy asks for one request of a program: all arguments but `at`."""
    return encode_notify(
        ids,
        {
            b"acl": ACL,
            b"token": token.text,
            b"via": b"header",
            b"src": Address(b"\x0a" + (index % CLIENTS).to_bytes(3, "big")),
            b"host": _HOST,
            b"method": b"GET",
            b"path": b"/rest/api/content/%d" % (index % PATHS),
            b"id": b"00000000-0000-4000-8000-%012x" % index,
        },
    )


def template_of(ack: bytes, token: Issued, expected: Expectation) -> bytes:
    """Turn a right answer into the template of all. Raises UnexpectedAnswer for a wrong one."""
    try:
        fault = expected.fault(decode_actions(ack), token)
    except ValueError as error:
        fault = str(error)
    if fault:
        raise UnexpectedAnswer(f"the agent does not answer {expected.reason.decode()}: {fault}")
    actions = ack[HEAD_BYTES + IDS_BYTES :].replace(b"%", b"%%")
    actions = actions.replace(token.user, b"%(user)b").replace(token.kid, b"%(kid)b")
    return ack[:HEAD_BYTES] + b"%(ids)b" + actions


def fault_of(got: bytes, expected: bytes) -> str | None:
    """Say how an ACK differs from the expected one in meaning, or None."""
    try:
        return fault_between(decode_actions(expected), decode_actions(got))
    except ValueError as error:
        return str(error)


def fault_between(wanted: dict[bytes, Value], got: dict[bytes, Value]) -> str | None:
    """Name the first variable of `wanted` that differs; `reason` first, it tells most.

    Values that name a token or a user are not repeated: there would be as many faults as requests.
    """
    for name in sorted(wanted, key=_telling):
        value = got.get(name)
        # By type, too: HAProxy's `-m bool` takes no integer 1 for a yes, Python would.
        if type(value) is not type(wanted[name]) or value != wanted[name]:
            shown = f" {value!r}" if name in _FEW_VALUES else ""
            return f"{name.decode()}{shown}"
    return None


_FEW_VALUES: Sequence[bytes] = (b"reason", b"class", b"allow", b"acl")


def _telling(name: bytes) -> int:
    return _FEW_VALUES.index(name) if name in _FEW_VALUES else len(_FEW_VALUES)
