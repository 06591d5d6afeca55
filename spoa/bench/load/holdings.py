"""What Redis holds beside tokens: sessions and grants, written beforehand; looked at afterwards.

They are written as the agents write them, and by their own words: a session by `write_session`, a
grant by grant.lua.
"""

import re
import time
from collections.abc import Iterable, Sequence
from typing import Final

import redis

from spoa.bench.load.corpus import CLIENTS, GROUPS, HOST, Issued, chunks, client_address
from tokens.address import candidates
from tokens.audit import FIELD
from tokens.policy import grant
from tokens.policy.grant import open_grant
from tokens.policy.session import mint_session, session_digest, sid_of
from tokens.policy.sessionrecord import Session, write_session
from tokens.record import Keys

SESSION_TTL_MS = 8 * 3600 * 1000
IDLE_MS = 1800 * 1000
"""That of the ACL, and of the ids."""

FIRST_TTL_MS = 900 * 1000
"""How long a session has when a round begins. A hit must prolong it with an idle time, and must not
without one."""

GRANT_TTL_MS = 3600 * 1000

_KEYS: Final = Keys()
_LATEST: Final = 200
_kids = re.compile(rb'"kid":"([0-9a-f]{12})"').findall

# Both count what is as it should be, and take it away.
_END_SESSIONS = """
local standing, prolonged = 0, 0
for i, key in ipairs(KEYS) do
  local value = redis.call('GET', key)
  if value and string.find(value, '"sub":"' .. ARGV[i + 1] .. '"', 1, true) then
    standing = standing + 1
    if redis.call('PTTL', key) > tonumber(ARGV[1]) then prolonged = prolonged + 1 end
  end
  redis.call('UNLINK', key)
end
return {standing, prolonged}
"""
_UNLIST = """
local listed = 0
for i, key in ipairs(KEYS) do listed = listed + redis.call('ZREM', key, ARGV[i]) end
return listed
"""


def open_sessions(
    redis_socket: str, tokens: Iterable[Issued], acl: bytes, idle_ms: int | None
) -> list[Issued]:
    """Open a session for each token, as if it had been consumed; return them with its id."""
    opened = [token._replace(session=mint_session(idle_ms)) for token in tokens]
    now_ms = int(time.time() * 1000)
    with redis.Redis(unix_socket_path=redis_socket) as client:
        for chunk in chunks(enumerate(opened)):
            pipeline = client.pipeline(transaction=False)
            for index, token in chunk:
                digest = session_digest(token.session)
                session = Session(
                    user=token.user,
                    groups=b",".join(GROUPS),
                    acl=acl,
                    host=HOST,
                    src=_text(client_address(index)),
                    issued_ms=now_ms,
                    expires_ms=now_ms + SESSION_TTL_MS,
                    kid=token.kid,
                    sid=sid_of(digest),
                )
                pipeline.set(_KEYS.session(digest), write_session(session), px=FIRST_TTL_MS)
            pipeline.execute()
    return opened


def end_sessions(redis_socket: str, tokens: Iterable[Issued]) -> tuple[int, int]:
    """End the sessions of a round: (how many stood for their user, of how many the end moved)."""
    standing = prolonged = 0
    with redis.Redis(unix_socket_path=redis_socket) as client:
        script = client.register_script(_END_SESSIONS)
        for chunk in chunks(tokens):
            keys = [_KEYS.session(session_digest(token.session)) for token in chunk]
            counts = script(keys=keys, args=[FIRST_TTL_MS, *(token.user for token in chunk)])
            standing, prolonged = standing + counts[0], prolonged + counts[1]
    return standing, prolonged


def unlist_sessions(redis_socket: str, tokens: Iterable[Issued]) -> int:
    """Take sessions off the lists of their users, and count how many stood there."""
    with redis.Redis(unix_socket_path=redis_socket) as client:
        script = client.register_script(_UNLIST)
        return sum(
            int(
                script(
                    keys=[_KEYS.sub(token.user) for token in chunk],
                    args=[b"s:" + session_digest(token.session) for token in chunk],
                )
            )
            for chunk in chunks(tokens)
        )


def grant_all(redis_socket: str, acl: bytes) -> None:
    """Grant every client's address, each by itself."""
    with redis.Redis(unix_socket_path=redis_socket) as client:
        client.script_load(grant.SCRIPT)
        pipeline = client.pipeline(transaction=False)
        for index in range(CLIENTS):
            member = _text(client_address(index))
            question = open_grant(_KEYS, acl, member, b"admin", b"bench", GRANT_TTL_MS)
            pipeline.execute_command(*question.head)
        pipeline.execute()


def standing_grants(redis_socket: str, acl: bytes) -> int:
    """Count the grants that stand."""
    with redis.Redis(unix_socket_path=redis_socket) as client:
        return int(client.zcount(_KEYS.grants(acl), time.time() * 1000, "+inf"))


def audited(redis_socket: str, tokens: Sequence[Issued]) -> int:
    """Count how many of these are named by the latest entries of the audit."""
    with redis.Redis(unix_socket_path=redis_socket) as client:
        entries = client.xrevrange(_KEYS.audit, count=_LATEST)
    told = {kid for _, fields in entries for kid in _kids(fields[FIELD])}
    return len(told.intersection(token.kid for token in tokens))


def _text(address: bytes) -> bytes:
    return candidates(address).partition(b" ")[0]
