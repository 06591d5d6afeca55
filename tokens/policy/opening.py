"""What a consumed token opens: a session, or the client's address. Pure.

Written after the consume and before the answer. What is listed for its user is written first: a
crash in between costs a login, never a session that nobody sees.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from tokens.address import address_of
from tokens.check import Check, Decision
from tokens.policy.grant import open_grant, write_end
from tokens.policy.listing import list_under
from tokens.policy.rule import AclRule
from tokens.policy.session import (
    OPENING_WAYS,
    mint_session,
    opened_idle_ms,
    opened_ttl_ms,
    session_digest,
    sid_of,
)
from tokens.policy.sessionrecord import Only, Session, write_session
from tokens.question import Question, Reply
from tokens.record import Keys, read_record


@dataclass(slots=True)
class Opening:
    """What is about to be opened, and for whom."""

    what: bytes
    """`session` or `grant`."""
    check: Check
    decision: Decision
    """The answer when it is open."""
    issued_ms: int
    """When its token was: a revocation between the two reaches what it opened."""
    questions: list[Question]
    undo: Question
    sid: bytes = b""
    """The session's own name for people."""

    def is_open(self, replies: Sequence[Reply]) -> bool:
        return not any(isinstance(reply, Exception) or reply is None for reply in replies)


class Consumed(NamedTuple):
    """A token that Redis has just consumed for a request, and the yes that it is worth."""

    check: Check
    rule: AclRule
    decision: Decision
    issued_ms: int
    raw: bytes
    now_ms: int


def open_session(consumed: Consumed, keys: Keys) -> Opening | None:
    """Open a session, unless the token came in a header or forbids one."""
    check, rule, decision, issued_ms, raw, now_ms = consumed
    record = read_record(raw)
    if check.via not in OPENING_WAYS or record.session is False:
        return None
    lies_idle_ms = opened_idle_ms(record, rule)
    session_id = mint_session(lies_idle_ms)
    digest = session_digest(session_id)
    ttl_ms = opened_ttl_ms(record, rule)
    session = Session(
        user=decision.user,
        groups=decision.groups,
        acl=check.acl,
        host=check.host,
        src=address_of(check.source),
        issued_ms=issued_ms,
        expires_ms=now_ms + ttl_ms,
        kid=decision.kid,
        sid=sid_of(digest),
        only=Only.of(record),
    )
    key = keys.session(digest)
    lasts_ms = min(ttl_ms, lies_idle_ms or ttl_ms)
    return Opening(
        what=b"session",
        check=check,
        decision=replace(decision, session=session_id),
        issued_ms=issued_ms,
        questions=[
            *list_under(keys, decision.user, b"s:" + digest, session.expires_ms, now_ms),
            Question(key, (b"SET", key, write_session(session), b"PX", b"%d" % lasts_ms)),
        ],
        undo=Question(key, (b"DEL", key)),
        sid=session.sid,
    )


def open_address(consumed: Consumed, keys: Keys) -> Opening | None:
    """Open the client's address for as long as the ACL grants one.

    Unless the token is good for some requests only: a grant could not tell them from others.
    """
    check, rule, decision, issued_ms, raw, now_ms = consumed
    record = read_record(raw)
    if record.host or record.method or record.path:
        return None
    member = address_of(check.source)
    ends_ms = now_ms + rule.grant_ttl_ms
    key = keys.grants(check.acl)
    by = b"kid:" + decision.kid  # revoking the token ends what it opened
    return Opening(
        what=b"grant",
        check=check,
        decision=decision,
        issued_ms=issued_ms,
        questions=[
            *list_under(keys, decision.user, b"g:%b %b" % (check.acl, member), ends_ms, now_ms),
            open_grant(keys, check.acl, member, decision.user, by, rule.grant_ttl_ms),
        ],
        # Only what this token opened: the same user, or another one, may have opened it before.
        undo=Question(key, write_end(keys, check.acl, b"by", by, [member])),
    )
