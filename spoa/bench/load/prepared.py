"""What a round sends and what must come back, as bytes, before the clock starts.

The expected ACKs come from one real answer. A probe is decoded and judged by meaning (`allow`,
`class`, `reason`, `acl`, `user`, `kid`, `session`); only if it is right does it become the template
of all others, which differ in ids, user and kid alone. The round then compares bytes. The id of a
new session is nobody's to foresee: it is blanked before it is compared, and kept for Redis.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar

from spoa.bench.fault import Fault
from spoa.bench.load.corpus import HOST, METHOD, PATH, Issued, client_address
from spoa.bench.load.frames import (
    HEAD_BYTES,
    IDS_BYTES,
    decode_actions,
    encode_ids,
    encode_notify,
)
from spoa.bench.scenario import Case, Proof
from spoa.spop.value import Address, Value
from tokens.policy.session import is_session_id

PATHS = 64

T = TypeVar("T")


class UnexpectedAnswer(Fault):
    """The agent's answer to a probe is not the one this scenario is about."""


class Span(NamedTuple):
    """From where to where in an ACK stands what nobody can foresee."""

    start: int
    stop: int


NOWHERE: Final = Span(0, 0)


@dataclass(frozen=True, slots=True)
class Template:
    """One ACK for all of a scenario."""

    text: bytes
    fresh: Span


@dataclass(frozen=True, slots=True)
class Load:
    """Requests in sending order, and the ACK that each must get, blank where it is fresh."""

    frames: list[bytes]
    acks: list[bytes]
    fresh: Span = NOWHERE
    is_mixed: bool = False
    """ACKs of several kinds, and so of several lengths; nothing in them is fresh."""


def build_load(tokens: Iterable[Issued], case: Case, template: Template) -> Load:
    """Encode one request per token, and its ACK."""
    frames = []
    acks = []
    for index, token in enumerate(tokens):
        ids = encode_ids(index)
        frames.append(encode_request(index, ids, token, case))
        acks.append(expected_ack(ids, token, template))
    return Load(frames, acks, template.fresh)


def expected_ack(ids: bytes, token: Issued, template: Template) -> bytes:
    return template.text % {b"ids": ids, b"user": token.user, b"kid": token.kid}


def spread(shares: Mapping[T, int], count: int) -> list[T]:
    """Lay out so many of several kinds, evenly: wherever one looks, each has had its share."""
    whole = sum(shares.values())
    had = Counter[T]()
    pattern = []
    for turn in range(1, whole + 1):
        most_due = max(shares, key=lambda kind: shares[kind] * turn - whole * had[kind])
        had[most_due] += 1
        pattern.append(most_due)
    return (pattern * -(-count // whole))[:count]


def encode_request(index: int, ids: bytes, token: Issued, case: Case) -> bytes:
    """Encode what HAProxy asks for one request: all arguments but `at`, absent ones as NULL."""
    return encode_notify(
        ids,
        {
            b"acl": case.acl,
            b"token": token.text if case.proof is Proof.TOKEN else None,
            b"via": case.via,
            b"session": token.session if case.proof is Proof.SESSION else None,
            b"nonce": None,
            b"src": Address(client_address(index)),
            b"host": HOST,
            b"method": METHOD,
            b"path": PATH + b"/content/%d" % (index % PATHS),
            b"id": b"00000000-0000-4000-8000-%012x" % index,
        },
    )


def template_of(ack: bytes, token: Issued, case: Case) -> Template:
    """Turn a right answer into the template of all. Raises UnexpectedAnswer for a wrong one."""
    expected = case.expected
    try:
        answer = decode_actions(ack)
        fault = _fault(answer, token, case)
    except ValueError as error:
        fault = str(error)
    if fault:
        raise UnexpectedAnswer(f"the agent does not answer {expected.reason.decode()}: {fault}")
    fresh = NOWHERE
    session = answer.get(b"session")
    if isinstance(session, bytes):
        start = ack.index(session)
        fresh = Span(start, start + len(session))
        ack = blanked(ack, fresh)
    actions = ack[HEAD_BYTES + IDS_BYTES :].replace(b"%", b"%%")
    actions = actions.replace(token.user, b"%(user)b").replace(token.kid, b"%(kid)b")
    return Template(ack[:HEAD_BYTES] + b"%(ids)b" + actions, fresh)


def blanked(ack: bytes, fresh: Span) -> bytes:
    """Take out of an ACK what nobody can foresee."""
    return ack[: fresh.start] + bytes(fresh.stop - fresh.start) + ack[fresh.stop :]


def _fault(answer: dict[bytes, Value], token: Issued, case: Case) -> str | None:
    """Say what is wrong with an answer, or None."""
    expected = case.expected
    wanted: dict[bytes, Value] = {
        b"reason": expected.reason,
        b"class": expected.verdict,
        b"acl": expected.acl,
    }
    if expected.verdict == b"allow":
        wanted |= {b"allow": True}
        if case.proof is not Proof.ADDRESS:
            wanted |= {b"user": token.user, b"kid": token.kid}
    elif answer.get(b"allow"):
        return "allow instead of a refusal"
    if _is_opened(answer.get(b"session")) is not expected.opens_session:
        return "no new session" if expected.opens_session else "a new session"
    return fault_between(wanted, answer)


def _is_opened(session: Value) -> bool:
    return isinstance(session, bytes) and is_session_id(session) is not None


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
