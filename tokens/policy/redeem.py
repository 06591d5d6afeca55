"""The words of redeem.lua: its calls, and its replies, each held against what was asked. Pure."""

import secrets
from collections.abc import Sequence
from itertools import count

from tokens.address import candidates
from tokens.check import Check
from tokens.policy.script import load_script
from tokens.question import Question, Reply, digits, without_arguments
from tokens.record import Keys
from tokens.token import digest, kid

MAX_TOKENS_PER_CALL = 128
"""One script call judges so many: Redis serves nobody else meanwhile (1 ms), and the costs of a
call (INFO, TIME, its set-up: 6 us) are spread thin enough."""

SCRIPT, SHA = load_script("redeem.lua")

_HEAD = 2
"""Before the answers of a reply: now, and the first claim."""


class ReplyMismatch(Exception):
    """Redis's replies do not belong to what was asked: none may be used, the connection must go."""


class Call:
    """One script call: the question, and what its reply must repeat."""

    __slots__ = ("claim", "kids", "question")

    def __init__(self, question: Question, claim: bytes, kids: list[bytes]) -> None:
        self.question = question
        self.claim = claim
        self.kids = kids


class Redeemer:
    """Writes the calls that let Redis judge tokens, each one alone."""

    def __init__(self, keys: Keys, deadline_ms: int, tokens_per_call: int) -> None:
        self._keys = keys
        self._deadline_ms = b"%d" % deadline_ms
        self._tokens_per_call = tokens_per_call
        # The agent's own name for each attempt: nothing of a request goes into it, so no client
        # can make its replay look like our second try.
        self._claims = map(f"{secrets.token_hex(16)}.%x".encode().__mod__, count())

    def calls(self, checks: Sequence[Check]) -> list[Call]:
        """Ask for all: as many calls as tokens would cost Redis twice the CPU."""
        step = self._tokens_per_call
        return [self._call(checks[start : start + step]) for start in range(0, len(checks), step)]

    def _call(self, checks: Sequence[Check]) -> Call:
        digests: list[bytes] = []
        args = [self._deadline_ms]
        for check in checks:
            digests.append(digest(check.token))
            args += (
                next(self._claims),
                check.acl,
                candidates(check.source),
                check.host,
                check.method,
                check.path,
                check.nonce,
                digits(check.room_bytes),
            )
        keys = list(map(self._keys.token, digests))
        question = Question(keys[0], (b"EVALSHA", SHA, b"%d" % len(keys), *keys), tuple(args))
        return Call(question, args[1], list(map(kid, digests)))


Answer = tuple[bytes, Reply, Reply]
"""kid, code, detail: see redeem.lua."""


def read_answers(call: Call, reply: Reply) -> list[Answer]:
    """Read what the script answers, one per token, in order.

    An error in place of an answer is `store_error` for each. Raises ReplyMismatch when the reply
    cannot be the one to this call.
    """
    kids = call.kids
    if isinstance(reply, Exception):
        fault = without_arguments(reply).encode()
        return [(kid, b"store_error", fault) for kid in kids]
    if not isinstance(reply, list):
        raise ReplyMismatch(f"{type(reply).__name__} in place of a list of answers")
    # A Lua table with a hole is cut short, and a lost entry would move all that follow it. The
    # echoed kids make that visible, and the echoed claim a reply that Redis gave to another call
    # with the same tokens: nobody is ever given a neighbour's answer.
    if len(reply) != _HEAD + 3 * len(kids) or reply[1] != call.claim or reply[2::3] != kids:
        raise ReplyMismatch(f"{len(reply)} values for {len(kids)} tokens, or of another call")
    return list(zip(kids, reply[3::3], reply[4::3], strict=True))
