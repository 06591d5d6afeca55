"""What a subject is asked, what it must answer, and what Redis must say afterwards.

Every subject gets the same NOTIFY, the one that HAProxy sends to ours. What comes back is decoded
once and judged by meaning, then compared byte by byte, as in `spoa.bench.load.prepared`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import redis

from spoa.bench.load.corpus import Issued, chunks, issue, mint
from spoa.bench.load.frames import HEAD_BYTES, IDS_BYTES, decode_actions, encode_ids
from spoa.bench.load.generator import Tally
from spoa.bench.load.holdings import open_sessions
from spoa.bench.load.prepared import NOWHERE, Template, UnexpectedAnswer, fault_between, template_of
from spoa.bench.load.verdict import verify
from spoa.bench.scenario import Case, Proof, Scenario
from spoa.spop.constants import FRAME_LENGTH_BYTES, FrameType
from spoa.spop.value import Value


class Task(Protocol):
    """One way to ask, and to judge."""

    @property
    def case(self) -> Case: ...

    def prepare(self, redis_socket: str, count: int) -> list[Issued]:
        """Draw what `count` requests bring, and write what Redis must know of it."""

    def template(self, ack: bytes, probe: Issued) -> Template:
        """Turn a right answer into the template of all. Raises UnexpectedAnswer for a wrong one."""

    def verify(self, redis_socket: str, tokens: Sequence[Issued], tally: Tally) -> None:
        """Count as wrong what Redis knows otherwise. Takes away what the round has left there."""


@dataclass(frozen=True, slots=True)
class Ours:
    """A scenario of `kat bench`: full policy, the answers and the traces of it."""

    scenario: Scenario

    @property
    def case(self) -> Case:
        return self.scenario.case

    def prepare(self, redis_socket: str, count: int) -> list[Issued]:
        tokens = mint(count)
        match self.case.proof:
            case Proof.SESSION:
                return open_sessions(redis_socket, tokens, self.case.acl, None)
            case Proof.TOKEN if self.case.consumes:
                issue(redis_socket, tokens, self.case.acl)
        return tokens

    def template(self, ack: bytes, probe: Issued) -> Template:
        return template_of(ack, probe, self.case)

    def verify(self, redis_socket: str, tokens: Sequence[Issued], tally: Tally) -> None:
        verify(self.scenario, redis_socket, tokens, tally)


@dataclass(frozen=True, slots=True)
class Plain:
    """A key per token whose value is the user; consumed by one GETDEL."""

    yes: Value = True
    """How the subject says `allow`. One of them cannot say a bool."""

    @property
    def case(self) -> Case:
        return Scenario.CONSUME.case

    def prepare(self, redis_socket: str, count: int) -> list[Issued]:
        tokens = mint(count)
        with redis.Redis(unix_socket_path=redis_socket) as store:
            for chunk in chunks(tokens):
                store.mset({_key(token): token.user for token in chunk})
        return tokens

    def template(self, ack: bytes, probe: Issued) -> Template:
        head, ids = ack[:HEAD_BYTES], ack[HEAD_BYTES : HEAD_BYTES + IDS_BYTES]
        if (head[FRAME_LENGTH_BYTES], ids) != (FrameType.ACK, encode_ids(0)):
            raise UnexpectedAnswer(f"the agent answers with {ack[:40]!r} instead of an ACK")
        wanted: dict[bytes, Value] = {b"allow": self.yes, b"user": probe.user, b"reason": b"ok"}
        try:
            fault = fault_between(wanted, decode_actions(ack))
        except ValueError as error:
            fault = str(error)
        if fault:
            raise UnexpectedAnswer(f"the agent does not answer ok: {fault}")
        actions = ack[len(head + ids) :].replace(b"%", b"%%").replace(probe.user, b"%(user)b")
        return Template(head + b"%(ids)b" + actions, NOWHERE)

    def verify(self, redis_socket: str, tokens: Sequence[Issued], tally: Tally) -> None:
        with redis.Redis(unix_socket_path=redis_socket) as store:
            kept = sum(int(store.unlink(*map(_key, chunk))) for chunk in chunks(tokens))
        consumed = len(tokens) - kept
        if consumed != tally.right:
            fault = f"{consumed} consumed in Redis, {tally.right} answered ok"
            tally.wrong[fault] += abs(consumed - tally.right)


def _key(token: Issued) -> bytes:
    return b"token:" + token.text
