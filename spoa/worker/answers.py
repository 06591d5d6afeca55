"""A Decision as the actions of an ACK: the variables that haproxy.cfg decides by.

HAProxy applies a broken list of actions up to the fault and calls that success, so `allow`, the
only variable that opens anything, is the last one.
"""

from collections.abc import Iterable

from spoa.spop.codec import Value, encode_ack, encode_set_var, encode_string
from spoa.spop.constants import DataType, Scope
from tokens.gate import Decision, Outcome
from tokens.token import KID_CHARS

RETRY_AFTER_S = 1
"""What `broken` asks of programs: the store is reconnected within a second of its return."""

MAX_ACL_BYTES = 64
MAX_IDS_BYTES = 20
"""Two varints of 64 bits."""


def _set_var(name: bytes, value: Value) -> bytes:
    return encode_set_var(Scope.TRANSACTION, name, value)


def _string_var(name: bytes) -> bytes:
    """Encode a set-var up to its STRING's length: the constant part of what differs each time."""
    return _set_var(name, None)[:-1] + bytes((DataType.STRING,))


_KID = _string_var(b"kid") + bytes((KID_CHARS,))
_USER = _string_var(b"user")
_GROUPS = _string_var(b"groups")
_ALLOW = _set_var(b"allow", True)  # noqa: FBT003 - the value of a variable
_DENY = _set_var(b"allow", False)  # noqa: FBT003


class Answers:
    """Encodes decisions. What an ACL and an outcome always say is encoded once, at the start."""

    def __init__(self, acls: Iterable[str]) -> None:
        self._heads = {
            (acl, outcome.reason): _head(acl, outcome)
            for acl in (b"", *(acl.encode() for acl in acls))
            for outcome in Outcome
        }

    def encode(self, ids: bytes, acl: bytes, decision: Decision) -> bytes:
        """Encode the ACK. An ACL that is not configured is not repeated to HAProxy."""
        outcome = decision.outcome
        reason = outcome.reason
        actions = self._heads.get((acl, reason)) or self._heads[b"", reason]
        if decision.kid:
            actions += _KID + decision.kid
        if outcome is not Outcome.OK:
            return encode_ack(ids, actions + _DENY)
        user, groups = encode_string(decision.user), encode_string(decision.groups)
        return encode_ack(ids, actions + _USER + user + _GROUPS + groups + _ALLOW)

    def room_bytes(self, max_frame_bytes: int) -> int:
        """Return how long user and groups together may be, for a yes to fit into one frame."""
        return max(0, max_frame_bytes - _LONGEST_YES)


def _head(acl: bytes, outcome: Outcome) -> bytes:
    head = _set_var(b"class", outcome.verdict) + _set_var(b"reason", outcome.reason)
    if acl:
        head += _set_var(b"acl", acl)
    if outcome.verdict == b"broken":
        head += _set_var(b"retry_after", RETRY_AFTER_S)
    return head


def _longest_yes() -> int:
    """Measure a yes without user and groups, each of whose lengths may take three bytes more."""
    acl = "a" * MAX_ACL_BYTES
    ids = bytes(MAX_IDS_BYTES)
    yes = Answers([acl]).encode(ids, acl.encode(), Decision(Outcome.OK, kid=b"k" * KID_CHARS))
    return len(yes) + 2 * 3


_LONGEST_YES = _longest_yes()
