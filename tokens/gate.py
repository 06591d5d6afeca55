r"""The policy: what is asked, what Redis must be asked, what the answer is. No I/O.

    Check --> refuse without Redis?  --> Decision
          \-> redeem(checks) --> Redis --> decide(replies) --> Decision

Deny unless a positive yes: the only way to OK is Redis saying `ok` for this very digest with a
record that reads strictly.
"""

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from hashlib import sha1
from importlib.resources import files
from itertools import count

from tokens.address import candidates
from tokens.record import BadRecord, Keys, read_identity
from tokens.token import digest, is_well_formed, kid

MAX_TOKENS_PER_CALL = 128
"""One script call judges so many: Redis serves nobody else meanwhile (1 ms), and the costs of a
call (INFO, TIME, its set-up: 6 us) are spread thin enough."""

Reply = None | int | bytes | list["Reply"] | Exception
"""What Redis answers to one command; its error replies are values here."""

Command = tuple[bytes | int, ...]


class Outcome(Enum):
    """Every possible end of a request: the class HAProxy acts upon, the reason people read."""

    OK = (b"allow", b"ok")
    MISSING = (b"missing", b"missing")
    MALFORMED = (b"denied", b"malformed")
    UNKNOWN = (b"denied", b"unknown")
    REPLAYED = (b"denied", b"replayed")
    FENCED = (b"denied", b"fenced")
    EARLY = (b"denied", b"early")
    WRONG_ACL = (b"denied", b"wrong_acl")
    WRONG_HOST = (b"denied", b"wrong_host")
    WRONG_METHOD = (b"denied", b"wrong_method")
    WRONG_PATH = (b"denied", b"wrong_path")
    WRONG_SRC = (b"denied", b"wrong_src")
    WRONG_NONCE = (b"denied", b"wrong_nonce")
    BAD_RECORD = (b"denied", b"bad_record")
    OVERLOADED = (b"broken", b"overloaded")
    DEADLINE = (b"broken", b"deadline")
    STORE_UNAVAILABLE = (b"broken", b"store_unavailable")
    UNKNOWN_ACL = (b"broken", b"unknown_acl")
    UNKNOWN_MESSAGE = (b"broken", b"unknown_message")

    def __init__(self, verdict: bytes, reason: bytes) -> None:
        self.verdict = verdict
        self.reason = reason


_REFUSALS = {
    outcome.reason: outcome
    for outcome in Outcome
    if outcome.verdict == b"denied" and outcome is not Outcome.MALFORMED  # never gets to Redis
}
"""What redeem.lua may answer besides `ok` and `store_error`."""


@dataclass(slots=True)
class Check:
    """One request to be judged. Bytes as HAProxy sent them: believed by nobody yet."""

    acl: bytes
    token: bytes
    host: bytes
    method: bytes
    path: bytes
    nonce: bytes
    source: bytes
    room_bytes: int
    """How long user and groups together may be, for the answer to fit."""


@dataclass(slots=True)
class Decision:
    """The answer to one Check. `kid` names the token, when one was looked up."""

    outcome: Outcome
    kid: bytes = b""
    user: bytes = b""
    groups: bytes = b""


class ReplyMismatch(Exception):
    """Redis's replies do not belong to these checks: none may be used, the connection must go."""


@dataclass(frozen=True, slots=True)
class Fence:
    """From when on this store is known to have forgotten nothing (Unix ms), and its identity."""

    replid: bytes
    since_ms: int


class Gate:
    """Judges checks for the ACLs it knows; every one of them wants a fresh token (`strict`)."""

    script = files(__package__).joinpath("redeem.lua").read_bytes()
    script_sha = sha1(script, usedforsecurity=False).hexdigest().encode()

    def __init__(self, acls: Iterable[str], keys: Keys, deadline_ms: int) -> None:
        self._acls = frozenset(acl.encode() for acl in acls)
        self._keys = keys
        self._deadline_ms = deadline_ms
        # The agent's own name for each attempt: nothing of a request goes into it, so no client
        # can make its replay look like our second try.
        self._claims = map(f"{secrets.token_hex(16)}.%x".encode().__mod__, count())

    def refuse(self, check: Check) -> Outcome | None:
        """Return the refusal that needs no Redis, or None when Redis must be asked."""
        if check.acl not in self._acls:
            return Outcome.UNKNOWN_ACL
        if not check.token:
            return Outcome.MISSING
        if not is_well_formed(check.token):
            return Outcome.MALFORMED
        return None

    def redeem(self, checks: Sequence[Check], fence: Fence) -> "Redemption":
        """Write the commands that let Redis judge all checks, each one alone.

        One script call for up to MAX_TOKENS_PER_CALL of them: as many calls as tokens would
        cost Redis twice the CPU.
        """
        redemption = Redemption([], [])
        for start in range(0, len(checks), MAX_TOKENS_PER_CALL):
            digests: list[bytes] = []
            args: list[bytes | int] = []
            for check in checks[start : start + MAX_TOKENS_PER_CALL]:
                digests.append(digest(check.token))
                args += (
                    next(self._claims),
                    check.acl,
                    candidates(check.source),
                    check.host,
                    check.method,
                    check.path,
                    check.nonce,
                    check.room_bytes,
                )
            keys = map(self._keys.token, digests)
            shared = (fence.replid, fence.since_ms, self._deadline_ms)
            command = (b"EVALSHA", self.script_sha, len(digests), *keys, *shared, *args)
            redemption.commands.append(command)
            redemption.kids.append([kid(digest) for digest in digests])
        return redemption


@dataclass(slots=True)
class Redemption:
    """The commands that judge some checks, and the kids that their replies must name."""

    commands: list[Command]
    kids: list[list[bytes]]
    faults: set[str] = field(default_factory=set)
    """Error replies met while deciding, whole: each made its checks STORE_UNAVAILABLE."""

    def decide(self, replies: Sequence[Reply]) -> list[Decision]:
        """Read the replies, one per command: one decision per check, in order.

        Raises ReplyMismatch when a reply cannot be the answer to its command.
        """
        decisions: list[Decision] = []
        for kids, reply in zip(self.kids, replies, strict=True):
            if isinstance(reply, Exception):
                # Without the arguments that Redis may echo: they hold whole digests.
                self.faults.add(str(reply).partition(", with args")[0])
                decisions += [Decision(Outcome.STORE_UNAVAILABLE, name) for name in kids]
            elif isinstance(reply, list):
                decisions += self._decide_each(kids, reply)
            else:
                raise ReplyMismatch(f"{type(reply).__name__} in place of a list of answers")
        return decisions

    def _decide_each(self, kids: list[bytes], reply: list[Reply]) -> list[Decision]:
        """Read one script call's answer: now, and (kid, code, detail) per check."""
        # A Lua table with a hole is cut short, and a lost entry would move all that follow it.
        # The echoed kids make that visible: nobody is ever given a neighbour's answer.
        if len(reply) != 1 + 3 * len(kids) or reply[1::3] != kids:
            raise ReplyMismatch(f"{len(reply)} values for {len(kids)} tokens, or other kids")
        return list(map(self._decide, kids, reply[2::3], reply[3::3]))

    def _decide(self, name: bytes, code: Reply, detail: Reply) -> Decision:
        if not isinstance(code, bytes) or not isinstance(detail, bytes):
            raise ReplyMismatch(f"no code and detail for kid {name.decode()}")
        if code == b"ok":
            return _admit(name, detail)
        if code == b"store_error":
            self.faults.add(detail.decode("ascii", "replace"))
            return Decision(Outcome.STORE_UNAVAILABLE, name)
        if code not in _REFUSALS:
            raise ReplyMismatch(f"a code that redeem.lua does not have for kid {name.decode()}")
        return Decision(_REFUSALS[code], name)


def _admit(name: bytes, raw: bytes) -> Decision:
    """Say yes, if the consumed record reads strictly. Redis judged most of it; we judge it all."""
    try:
        user, groups = read_identity(raw)
    except BadRecord:
        return Decision(Outcome.BAD_RECORD, name)
    return Decision(Outcome.OK, name, user, groups)
