"""Sessions: what a consumed token of an ACL in `session` mode opens, for that ACL and host. Pure.

The id is 256 random bits, sent once, as a cookie; Redis knows its SHA-256 alone. It may end in its
own idle time (".1800"): the hash covers that too, so nobody can change it, and one GETEX keeps
alive what it finds without looking at the record first.
"""

import re
import secrets
from functools import lru_cache
from ipaddress import ip_address
from typing import Final

from tokens.address import candidates
from tokens.check import Check
from tokens.outcome import Outcome
from tokens.policy.rule import AclRule, Bind
from tokens.policy.sessionrecord import Only, Session
from tokens.record import Record
from tokens.token import digest, kid

OPENING_WAYS: Final = frozenset({b"query", b"form"})
"""How a browser's token travels. One in a header is a program's: it opens no session."""

_SESSION: Final = Outcome.SESSION
_OFF: Final = Bind.OFF

_SECRET_BYTES: Final = 32
SECRET_CHARS: Final = 43
"""Of an id that says no idle time."""

_LETTERS: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_is_timed: Final = re.compile(rb"[A-Za-z0-9_-]{43}\.[1-9][0-9]{0,6}").fullmatch

_REMEMBERED: Final = 4096


def mint_session(idle_ms: int | None) -> bytes:
    """Draw a fresh id, which says itself how long the session may lie idle."""
    secret = secrets.token_urlsafe(_SECRET_BYTES)
    return (f"{secret}.{idle_ms // 1000}" if idle_ms else secret).encode()


def is_session_id(text: bytes) -> bool:
    """Tell whether bytes could be a session's id. Raises for no bytes whatever."""
    if len(text) == SECRET_CHARS:
        return not text.translate(None, _LETTERS)
    return _is_timed(text) is not None


session_digest: Final = digest
"""Names a session as Redis knows it: by all of its id, as a token."""

sid_of: Final = kid
"""Names a session as logs and people may know it, by its digest."""


def idle_ms(session_id: bytes, acl_idle_ms: int | None) -> int | None:
    """Return how long this session may lie idle: the id's own time or the ACL's, the shorter."""
    _, _, own = session_id.partition(b".")
    times = [int(own) * 1000] if own else []
    if acl_idle_ms is not None:
        times.append(acl_idle_ms)
    return min(times, default=None)


def opened_idle_ms(record: Record, rule: AclRule) -> int | None:
    """Return the idle time of a session that this token opens: it may shorten the ACL's.

    None for one that would end earlier anyway: a token may ask for 2^53 seconds, which no id has
    room for.
    """
    times = [] if rule.session_idle_ms is None else [rule.session_idle_ms]
    if record.session and record.session.idle_s is not None:
        times.append(record.session.idle_s * 1000)
    idle = min(times, default=None)
    return idle if idle is not None and idle < opened_ttl_ms(record, rule) else None


def opened_ttl_ms(record: Record, rule: AclRule) -> int:
    """Return how long a session that this token opens lives at most."""
    if record.session and record.session.ttl_s is not None:
        return min(rule.session_ttl_ms, record.session.ttl_s * 1000)
    return rule.session_ttl_ms


def judge_session(session: Session, check: Check, rule: AclRule, now_ms: int) -> Outcome:
    """Say whether this session lets this request through: SESSION, or why not."""
    if session.acl != check.acl:
        return Outcome.WRONG_ACL
    if session.host != check.host:
        return Outcome.WRONG_HOST
    # Compared here on every hit: GETEX alone would let it outlive its end.
    if session.expires_ms <= now_ms:
        return Outcome.SESSION_EXPIRED
    if rule.session_bind is not _OFF and not _is_bound(session, check, rule.session_bind):
        return Outcome.WRONG_SRC
    if session.only:
        return _judge_bindings(session.only, check)
    return _SESSION


def _is_bound(session: Session, check: Check, bind: Bind) -> bool:
    names = candidates(check.source).split(b" ")
    if bind is Bind.EXACT or b":" not in session.src:
        return session.src == names[0] != b""
    return _network(session.src) in names


@lru_cache(_REMEMBERED)
def _network(address: bytes) -> bytes:
    """Return the /64 of an IPv6 address: the first of its networks."""
    return candidates(ip_address(address.decode()).packed).split(b" ")[1]


def _judge_bindings(only: Only, check: Check) -> Outcome:
    if only.method and check.method not in only.method:
        return Outcome.WRONG_METHOD
    if only.path and not opens_path(only.path, check.path):
        return Outcome.WRONG_PATH
    if only.src and only.src.isdisjoint(candidates(check.source).split(b" ")):
        return Outcome.WRONG_SRC
    return Outcome.SESSION


_AMBIGUOUS = re.compile(rb"\.\.|//|[\\;]|%2e|%2f|%5c|%00", re.IGNORECASE).search


def opens_path(prefixes: tuple[bytes, ...], path: bytes) -> bool:
    """Tell whether a prefix opens a path, as redeem.lua tells it: at a segment boundary.

    A path that the application might read as another one is opened by none.
    """
    if _AMBIGUOUS(path):
        return False
    return any(
        path == prefix or path.startswith(prefix if prefix.endswith(b"/") else prefix + b"/")
        for prefix in prefixes
    )
