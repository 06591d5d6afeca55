"""A Decision as the actions of an ACK: the variables that haproxy.cfg decides by.

HAProxy applies a broken list of actions up to the fault and calls that success, so `allow`, the
only variable that opens anything, is the last one.
"""

from collections.abc import Iterable
from typing import Final

from spoa.spop.codec import encode_ack, encode_set_var, encode_string
from spoa.spop.constants import DataType, Scope
from spoa.spop.value import Value
from tokens.check import Decision
from tokens.outcome import Outcome
from tokens.policy.session import mint_session
from tokens.record import MAX_SESSION_TTL_S
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
_SESSION_ID = _string_var(b"session")
_ALLOW = _set_var(b"allow", True)  # noqa: FBT003 - the value of a variable
_DENY = _set_var(b"allow", False)  # noqa: FBT003
_SESSION: Final = Outcome.SESSION
_GRANT: Final = Outcome.GRANT


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
        actions = decision.encoded
        if not actions:
            actions = self._actions(acl, decision)
            # A session says the same on every request of a page, by the same decision (judge.py),
            # and is one of a single ACL.
            if decision.outcome is _SESSION:
                decision.encoded = actions
        return encode_ack(ids, actions)

    def _actions(self, acl: bytes, decision: Decision) -> bytes:
        outcome = decision.outcome
        reason = outcome.reason
        actions = self._heads.get((acl, reason)) or self._heads[b"", reason]
        # Its length is written into the constant. One read from a session is only as good as that.
        if len(decision.kid) == KID_CHARS:
            actions += _KID + decision.kid
        if outcome.verdict != b"allow":
            return actions + _DENY
        if outcome is _GRANT:  # an address was let in, and nobody by name
            return actions + _ALLOW
        actions += _USER + encode_string(decision.user) + _GROUPS + encode_string(decision.groups)
        if decision.session:
            actions += _SESSION_ID + encode_string(decision.session)
        return actions + _ALLOW

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
    session = mint_session(MAX_SESSION_TTL_S * 1000)  # its idle time is part of it
    opened = Decision(Outcome.SESSION, b"k" * KID_CHARS, session=session)  # the longest reason
    return len(Answers([acl]).encode(ids, acl.encode(), opened)) + 2 * 3


_LONGEST_YES = _longest_yes()
