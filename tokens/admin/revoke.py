"""Take back what was issued: by token, session, user, group, ACL, or all of it.

The cut is written first: from then on agents refuse, whatever is found after it. Then what can be
found is deleted. An agent that is opening something meanwhile writes it first and looks at the cut
after it, so one of the two always sees the other.
"""

import contextlib
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

import redis

from tokens.admin.admin import Admin, check_name
from tokens.admin.fault import is_full, plain
from tokens.admin.granter import Ended, Granter
from tokens.admin.revoked import Act, Revoked, Undone
from tokens.policy.cut import CLOCK_GRAIN_MS
from tokens.policy.grant import read_member
from tokens.policy.session import session_digest
from tokens.policy.sessionrecord import Session, read_session
from tokens.record import BadRecord
from tokens.token import KID_CHARS, digest, kid

_DIGEST_CHARS: Final = 64
_NO_GRANTS: Final = Ended(0, ())
_is_kid = re.compile(r"[0-9a-f]{12}", re.ASCII).fullmatch

# Atomic, so that no tombstone is taken for a token: it tells a replay from a typing error.
_UNISSUE: Final = b"""
local start = redis.pcall('GETRANGE', KEYS[1], 0, 8)
if start == 'consumed ' then return -1 end
return redis.call('UNLINK', KEYS[1])
"""


class Revoker:
    """Takes back. What it says is done holds on the very next request.

    Raises ValueError with a sentence for what nothing can be called, redis.RedisError when Redis
    did not confirm. Once a cut is written nothing is raised: what could not be done after it is in
    the answer. Everything may be asked for a second time.
    """

    def __init__(self, admin: Admin) -> None:
        self._admin = admin
        self._nodes = admin.nodes
        self._keys = admin.keys
        self._granter = Granter(admin)

    def revoke_token(self, token: bytes) -> Revoked:
        """Take back one token by its text, and what it opened. Looks at all keys, for sessions."""
        name = digest(token)
        return self._revoke_token(kid(name), [self._keys.token(name)])

    def revoke_kid(self, name: str) -> Revoked:
        """Take back one token by its kid, and what it opened. Looks at all keys."""
        _check_hex("kid", name)
        pattern = self._admin.patterns.token(name.encode() + b"*")
        return self._revoke_token(name.encode(), self._nodes.scan(pattern, self._admin.progress))

    def revoke_session(self, session_id: bytes) -> Revoked:
        """End one session by its id."""
        return self._end_sessions([self._keys.session(session_digest(session_id))])

    def revoke_sid(self, sid: str) -> Revoked:
        """End one session by the name that it has in logs. Looks at all keys."""
        _check_hex("sid", sid)
        pattern = self._admin.patterns.session(sid.encode() + b"*")
        return self._end_sessions(self._nodes.scan(pattern, self._admin.progress))

    def revoke_user(self, user: str) -> Revoked:
        """Take back whatever a user has. Looks at all keys, for grants."""
        check_name("sub", user)
        act = self._cut(f"sub:{user}", reason="user", user=user)
        sessions = act.do("sessions", lambda: self._end_listed(user.encode(), act.cut_ms), 0)
        ended = act.do("grants", lambda: self._granter.end_of("sub", user), _NO_GRANTS)
        return act.done(sessions=sessions, grants=ended.claims, still=ended.still)

    def revoke_group(self, group: str) -> Revoked:
        """Take back whatever was issued to members of a group; not IP grants, which name none."""
        check_name("groups", group)
        return self._cut(f"group:{group}", reason="group", group=group).done()

    def revoke_acl(self, acl: str) -> Revoked:
        """Take back whatever opens an ACL."""
        check_name("acl", acl)
        act = self._cut(f"acl:{acl}", reason="acl", acl=acl)
        return act.done(grants=act.do("grants", lambda: self._granter.end_acl(acl), 0))

    def revoke_all(self) -> Revoked:
        """Take back everything. Looks at all keys, for grants."""
        act = self._cut("all", reason="all")
        return act.done(grants=act.do("grants", self._granter.end_all, 0))

    def end_grant(self, member: str, acl: str | None = None) -> Revoked:
        """End the grants of exactly this address or network, of one ACL or of all."""
        done = Revoked(grants=self._granter.end(member, acl))
        facts = {"acl": acl} if acl else {}
        return self._tell(done, "grant_ended", src=read_member(member), **facts)

    def _cut(self, field: str, **facts: str) -> Act:
        """Begin to revoke: what a field names is refused from now on, and the audit tells so.

        What is found after it is deleted. That Redis may refuse, or be gone, and the search may
        be given up after a minute: what is refused is told by then.
        """
        try:
            cut_ms = self._admin.cut(field)
        except redis.ResponseError as error:
            if not is_full(error):
                raise  # nothing was done
            act = Act(self._admin, None, self._nodes.now_ms(), facts)
            act.undone.append(Undone("cut", plain(error)))
            return act
        return Act(self._admin, cut_ms, cut_ms, facts)

    def _revoke_token(self, name: bytes, keys: Iterable[bytes]) -> Revoked:
        # Also when no token is found: its session may live for hours after it.
        kid = name.decode()
        act = self._cut(f"kid:{kid}", reason="kid", kid=kid)
        none: list[int] = []
        found = act.do("tokens", lambda: [self._unissue(key) for key in keys], none)
        sessions = act.do("sessions", lambda: self._end_opened_by(name), 0)
        ended = act.do("grants", lambda: self._granter.end_of("by", f"kid:{kid}"), _NO_GRANTS)
        return act.done(
            tokens=found.count(1),
            consumed=found.count(-1),
            sessions=sessions,
            grants=ended.claims,
            still=ended.still,
        )

    def _unissue(self, key: bytes) -> int:
        return int(self._nodes.write(key, "EVAL", _UNISSUE, 1, key))

    def _end_opened_by(self, name: bytes) -> int:
        return sum(self._end_session(*opened) for opened in self._opened_by(name))

    def _opened_by(self, name: bytes) -> Iterable[tuple[bytes, Session]]:
        pattern = self._admin.patterns.session(b"*")
        for key, raw in self._nodes.values(pattern, self._admin.progress):
            session = _read(raw) if name in raw else None
            if session and session.kid == name:
                yield key, session

    def _end_sessions(self, keys: Iterable[bytes]) -> Revoked:
        ended = 0
        facts = {}
        for key in keys:
            session = _read(self._nodes.run(key, "GET", key))
            ended += self._end_session(key, session)
            if session:
                facts = {"acl": session.acl.decode(), "user": session.user.decode()}
        return self._tell(Revoked(sessions=ended), "revoked", reason="session", **facts)

    def _end_listed(self, user: bytes, cut_ms: int) -> int:
        """End what is listed under a user, but nothing that a later token opened."""
        index = self._keys.sub(user)
        ended = 0
        for member in self._nodes.run(index, "ZRANGE", index, 0, -1):
            key = self._keys.session(member.removeprefix(b"s:"))
            session = _read(self._nodes.run(key, "GET", key)) if member[:2] == b"s:" else None
            if session and session.user == user and session.issued_ms <= cut_ms + CLOCK_GRAIN_MS:
                ended += self._end_session(key, session)
        return ended

    def _end_session(self, key: bytes, session: Session | None) -> int:
        ended = int(self._nodes.write(key, "UNLINK", key))
        if session:
            index = self._keys.sub(session.user)
            # Its end is done. A line too many in the list of a user is over one day.
            with contextlib.suppress(redis.ResponseError):
                self._nodes.run(index, "ZREM", index, b"s:" + key[-_DIGEST_CHARS:])
        return ended

    def _tell(self, done: Revoked, event: str, **facts: str) -> Revoked:
        """Tell the audit, and wait for replicas, if anything was done at all."""
        if not done.total:
            return done
        told = {**facts, "n": done.total} if done.total > 1 else facts
        return replace(done, kept=self._admin.keep(event, **told))


def _check_hex(field: str, text: str) -> None:
    """Refuse what would find more than was meant, or a secret; so it is not quoted."""
    if not _is_kid(text):
        raise ValueError(f"{field}: not {KID_CHARS} hexadecimal digits in small letters")


def _read(raw: bytes | None) -> Session | None:
    try:
        return read_session(raw) if raw else None
    except BadRecord:
        return None
