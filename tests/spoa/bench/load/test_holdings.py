from pathlib import Path

import pytest
import redis

from spoa.bench.load.corpus import CLIENTS, Issued, client_address, mint
from spoa.bench.load.holdings import (
    FIRST_TTL_MS,
    GRANT_TTL_MS,
    IDLE_MS,
    audited,
    end_sessions,
    grant_all,
    open_sessions,
    standing_grants,
    unlist_sessions,
)
from spoa.bench.servers import private_redis
from tokens.address import candidates
from tokens.audit import entry
from tokens.policy.session import idle_ms, session_digest
from tokens.policy.sessionrecord import read_session


def key(token: Issued) -> bytes:
    return b"kat:s:" + session_digest(token.session)


@pytest.mark.parametrize("idle", [None, IDLE_MS])
def test_sessions_are_written_as_agents_write_them(tmp_path: Path, idle: int | None) -> None:
    """Each reads strictly, is its user's, and its id says for how long it may lie idle."""
    tokens = mint(1100)
    with private_redis(tmp_path) as store, redis.Redis(unix_socket_path=store.socket) as client:
        opened = open_sessions(store.socket, tokens, b"session", idle)
        raws = client.mget(map(key, opened))
        left_ms = client.pttl(key(opened[0]))
    for index, (token, session) in enumerate(zip(opened, map(read_session, raws), strict=True)):
        assert (session.user, session.kid, session.acl) == (token.user, token.kid, b"session")
        assert session.src == candidates(client_address(index)).split()[0]
    assert {idle_ms(token.session, None) for token in opened} == {idle}
    assert 0 < left_ms <= FIRST_TTL_MS


def test_ending_sessions_counts_those_that_stood(tmp_path: Path) -> None:
    """A session that is gone, or another user's, does not count; none is left."""
    with private_redis(tmp_path) as store, redis.Redis(unix_socket_path=store.socket) as client:
        opened = open_sessions(store.socket, mint(1200), b"session", None)
        client.delete(key(opened[0]))
        client.set(key(opened[1]), b'{"sub":"somebody"}', keepttl=True)
        client.pexpire(key(opened[1100]), 2 * FIRST_TTL_MS)
        assert end_sessions(store.socket, opened) == (1198, 1)
        assert client.dbsize() == 0


def test_unlisting_counts_what_was_listed(tmp_path: Path) -> None:
    """A session that its user's list does not name is not counted; no list is left."""
    tokens = [token._replace(session=b"%043d" % n) for n, token in enumerate(mint(1200, users=7))]
    with private_redis(tmp_path) as store, redis.Redis(unix_socket_path=store.socket) as client:
        for token in tokens[:1150]:
            client.zadd(b"kat:sub:" + token.user, {b"s:" + session_digest(token.session): 1})
        assert unlist_sessions(store.socket, tokens) == 1150
        assert client.dbsize() == 0


def test_every_client_is_granted(tmp_path: Path) -> None:
    """So many grants stand as there are clients, for an hour; one that is over does not count."""
    with private_redis(tmp_path) as store, redis.Redis(unix_socket_path=store.socket) as client:
        grant_all(store.socket, b"ip")
        assert standing_grants(store.socket, b"ip") == CLIENTS
        member = candidates(client_address(CLIENTS - 1)).split()[0]
        assert client.zscore(b"kat:grants:{ip}", member) > GRANT_TTL_MS
        client.zadd(b"kat:grants:{ip}", {member: 1})
        assert standing_grants(store.socket, b"ip") == CLIENTS - 1


def test_the_audit_is_searched_for_kids(tmp_path: Path) -> None:
    """Those whom an entry names are counted, once each; the others are not."""
    tokens = mint(5)
    events = [{"event": what, "kid": tokens[0].kid.decode()} for what in ("consumed", "session")]
    with private_redis(tmp_path) as store, redis.Redis(unix_socket_path=store.socket) as client:
        assert audited(store.socket, tokens) == 0
        client.execute_command(*entry(b"kat:audit", events, 10))
        assert audited(store.socket, tokens) == 1
