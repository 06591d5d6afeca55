"""Every possible end of a request. Pure."""

from enum import Enum


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
