"""What is judged and what the judgement is: Check, Outcome, Decision. Pure."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Final


class Outcome(Enum):
    """Every possible end of a request: the class HAProxy acts upon, the reason people read."""

    OK = (b"allow", b"ok")
    SESSION = (b"allow", b"session")
    GRANT = (b"allow", b"grant")
    MISSING = (b"missing", b"missing")
    SESSION_EXPIRED = (b"missing", b"session_expired")
    NO_GRANT = (b"missing", b"no_grant")
    LOGGED_OUT = (b"missing", b"logged_out")
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
    REVOKED = (b"denied", b"revoked")
    BLOCKED = (b"denied", b"blocked")
    OVERLOADED = (b"broken", b"overloaded")
    DEADLINE = (b"broken", b"deadline")
    STORE_UNAVAILABLE = (b"broken", b"store_unavailable")
    UNKNOWN_ACL = (b"broken", b"unknown_acl")
    UNKNOWN_MESSAGE = (b"broken", b"unknown_message")

    def __init__(self, verdict: bytes, reason: bytes) -> None:
        self.verdict = verdict
        self.reason = reason


# What of a request Redis must be asked about. Plain integers: an IntFlag takes ten times as long.
TOKEN: Final = 1
SESSION: Final = 2
GRANT: Final = 4
AFTER_GRANT: Final = 8
"""The token, but only once the grant is known to stand."""
LOGOUT: Final = 16


@dataclass(slots=True)
class Check:
    """One request to be judged. Bytes as HAProxy sent them: believed by nobody yet."""

    acl: bytes
    token: bytes = field(repr=False)
    host: bytes
    method: bytes
    path: bytes
    nonce: bytes
    source: bytes
    room_bytes: int
    """How long user and groups together may be, for the answer to fit."""
    session: bytes = field(default=b"", repr=False)
    """The id of a session, as the visitor's cookie has it."""
    via: bytes = b""
    """How the token travelled: header, query or form."""
    unique_id: bytes = b""
    """HAProxy's name for the request. For logs and audit only."""
    needs: int = 0
    """What the gate wants to see of it in Redis: TOKEN, SESSION, ..."""
    refusal: Outcome = Outcome.MISSING
    """The answer, if nothing that it brings says yes."""


@dataclass(slots=True)
class Decision:
    """The answer to one Check. `kid` names the token, when one was looked up."""

    outcome: Outcome
    kid: bytes = b""
    user: bytes = b""
    groups: bytes = b""
    session: bytes = field(default=b"", repr=False)
    """The id of the session that was opened: for the cookie, and nothing else."""
