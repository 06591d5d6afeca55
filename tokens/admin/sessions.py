"""The sessions that stand, for people to look at: an agent asks Redis itself, each time."""

from collections.abc import Iterator
from itertools import islice
from typing import Final

from tokens.admin.admin import Admin
from tokens.policy.cut import Cut
from tokens.policy.sessionrecord import Session, read_session
from tokens.record import BadRecord

MAX_LISTED: Final = 1000
"""Nobody reads more of them, and each has a kilobyte."""


def standing_sessions(admin: Admin, limit: int = MAX_LISTED) -> list[Session]:
    """Return the sessions that open something now, those of the latest tokens first.

    Looks at all keys until it has found so many; which, if there are more, is Redis's choice.
    None of them holds what a visitor would show: `sid` names it for `Revoker.revoke_sid`.
    """
    found = list(islice(_standing(admin), limit))
    return sorted(found, key=lambda session: session.issued_ms, reverse=True)


def _standing(admin: Admin) -> Iterator[Session]:
    # Most of what is revoked lies in Redis until it ends by itself: the cut alone says so.
    cut, now_ms = _read_cut(admin), admin.nodes.now_ms()
    for _, raw in admin.nodes.values(admin.patterns.session(b"*"), admin.progress):
        session = _read(raw)
        if session and session.expires_ms > now_ms and not _is_revoked(session, cut):
            yield session


def _read_cut(admin: Admin) -> Cut:
    fields = admin.nodes.run(admin.keys.cut, "HGETALL", admin.keys.cut)
    return Cut(b"", [part for pair in fields.items() for part in pair])


def _read(raw: bytes) -> Session | None:
    """Read what an agent would; what it could not opens nothing."""
    try:
        return read_session(raw)
    except BadRecord:
        return None


def _is_revoked(session: Session, cut: Cut) -> bool:
    return cut.is_revoked(session.acl, session.kid, session.user, session.groups, session.issued_ms)
