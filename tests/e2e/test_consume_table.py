"""The consume table of docs/redis-contract.md, row by row, from the visitor to Redis and back.

One agent with one worker for all versions of HAProxy; between it and its Redis stands a proxy that
can lose a reply.
"""

import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.scene import Agent, Gate, until
from tests.support.application import Application
from tests.support.haproxy import fresh_source, running
from tests.support.leaks import assert_no_leaks
from tests.support.redis import running_redis
from tests.support.redis_proxy import RedisProxy, Step
from tokens.admin.admin import Admin
from tokens.admin.block import Blocker
from tokens.admin.revoke import Revoker
from tokens.record import Keys
from tokens.store.line import AT_ONCE, AT_ONCE_WINDOW_S
from tokens.token import digest, mint

KEYS = Keys()
HOUR_MS = 3_600_000
REFUSED = 403


@pytest.fixture(scope="module")
def proxy() -> Iterator[RedisProxy]:
    with (
        running_redis() as server,
        tempfile.TemporaryDirectory(prefix="kat-") as place,
        RedisProxy(server.socket, Path(place)) as proxy,
    ):
        yield proxy


@pytest.fixture(scope="module")
def _agent(proxy: RedisProxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    settings = {
        "KAT_STORE__URL": proxy.url,
        "KAT_LISTEN__WORKERS": "1",
        "KAT_LIMITS__DEADLINE_MS": "1000",  # a second asking fits into it, however busy the machine
    }
    agent = Agent(tmp_path_factory.mktemp("agent"), settings, redis_socket=proxy.upstream)
    yield agent
    agent.stop()


@pytest.fixture(scope="module")
def _table(
    haproxy_binary: Path, _agent: Agent, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gate]:
    with ExitStack() as stack:
        application = stack.enter_context(Application())
        settings = {
            "KAT_AGENT": f"unix@{_agent.socket}",
            "KAT_APP": application.address,
            "KAT_HOSTS": "localhost other.example",
            "KAT_PROCESSING": "1200ms",
        }
        folder = tmp_path_factory.mktemp("table")
        haproxy = stack.enter_context(running(haproxy_binary, folder, settings))
        gate = Gate(haproxy, _agent, application)
        yield gate
        assert_no_leaks(gate.traces(), [*gate.secrets, mint()])


@pytest.fixture
def table(_table: Gate) -> Gate:
    """Return the gate once Redis is asked."""
    until(lambda: _table.ask(f"X-KAT: {mint()}").status == REFUSED)
    return _table


@pytest.fixture
def admin(table: Gate) -> Admin:
    return Admin(table.agent.client, by="test")


def refuse(table: Gate, token: str, reason: str, **request: str) -> None:
    """See a token refused for this reason; nothing comes through, and it is left as it was."""
    before = table.value(token)
    visit = table.visit(f"X-KAT: {token}", **request)  # type: ignore[arg-type]
    assert visit.said == (REFUSED, reason)
    assert visit.facts["class"] == "denied"
    assert visit.facts["kid"] == digest(token.encode()).decode()[:12]
    assert visit.received == []
    assert table.value(token) == before


def admit(table: Gate, token: str, **request: str) -> None:
    """See a token open one request, and consumed."""
    visit = table.visit(f"X-KAT: {token}", **request)  # type: ignore[arg-type]
    assert visit.said == (200, "ok")
    assert len(visit.received) == 1
    assert table.is_consumed(token)


def test_ok(table: Gate) -> None:
    """All matches: one request gets through, as its user, and the token is consumed."""
    token = table.issue()
    left_ms = table.agent.client.pttl(KEYS.token(digest(token.encode())))
    visit = table.visit(f"X-KAT: {token}")
    assert visit.said == (200, "ok")
    assert visit.facts["user"] == '"user1"'
    (received,) = visit.received
    assert received.header("X-KAT-User") == ["user1"]
    assert received.header("X-KAT-Groups") == ["staff,red"]
    assert table.is_consumed(token)
    assert 0 < table.agent.client.pttl(KEYS.token(digest(token.encode()))) <= left_ms


def test_unknown(table: Gate) -> None:
    """A token that was never issued is refused, and there is still nothing under its name."""
    token = mint()
    refuse(table, token, "unknown")
    assert table.value(token) is None


def test_unknown_once_expired(table: Gate) -> None:
    """A token whose time is over is as good as none."""
    token = table.issue()
    table.agent.client.pexpire(KEYS.token(digest(token.encode())), 1)
    until(lambda: table.value(token) is None)
    refuse(table, token, "unknown")


def test_replayed(table: Gate) -> None:
    """A consumed token opens nothing more, from anywhere, and its tombstone stays as it is."""
    token = table.issue()
    admit(table, token)
    refuse(table, token, "replayed")
    refuse(table, token, "replayed", source=fresh_source())


_FEW = AT_ONCE // 3
"""So many tests of lost replies in a second: each may cost more than one connection."""
_lost_at: deque[float] = deque(maxlen=_FEW)


@pytest.mark.parametrize("step", [Step.CUT, Step.DROP, Step.HALF])
def test_the_same_claim(table: Gate, proxy: RedisProxy, step: Step) -> None:
    """Redis consumed and only its reply was lost: the visitor gets in, once."""
    # More than AT_ONCE lost connections in a second are another story: then nobody is kept waiting.
    until(lambda: len(_lost_at) < _FEW or time.monotonic() - _lost_at[0] > AT_ONCE_WINDOW_S)
    _lost_at.append(time.monotonic())
    token = table.issue()
    proxy.plan(b"EVALSHA", step)
    try:
        admit(table, token)
    finally:
        proxy.forget()
    refuse(table, token, "replayed")


BAD = {
    "a misspelt binding": b'{"v":1,"sub":"u","acl":["demo"],"ttl":60,"scr":["127.0.0.1"]}',
    "an empty list": b'{"v":1,"sub":"u","acl":["demo"],"ttl":60,"host":[]}',
    "no JSON": b"user1",
    "another version": b'{"v":2,"sub":"u","acl":["demo"],"ttl":60}',
}


@pytest.mark.parametrize("raw", BAD.values(), ids=BAD)
def test_bad_record(table: Gate, raw: bytes) -> None:
    """A record that breaks the contract opens nothing, and is not consumed."""
    token = mint()
    table.agent.client.set(KEYS.token(digest(token.encode())), raw, ex=60)
    refuse(table, token, "bad_record")


def test_bad_record_without_an_end(table: Gate) -> None:
    """A record that would live for ever opens nothing."""
    token, raw = mint(), b'{"v":1,"sub":"u","acl":["demo"],"ttl":60}'
    table.agent.client.set(KEYS.token(digest(token.encode())), raw)
    refuse(table, token, "bad_record")


def test_bad_record_of_another_type(table: Gate) -> None:
    """A hash where a record belongs opens nothing, and stays."""
    token = mint()
    key = KEYS.token(digest(token.encode()))
    table.agent.client.hset(key, "sub", "user1")
    visit = table.visit(f"X-KAT: {token}")
    assert (*visit.said, visit.received) == (REFUSED, "bad_record", [])
    assert table.agent.client.hgetall(key) == {b"sub": b"user1"}


def test_fenced(table: Gate) -> None:
    """What was issued before the server's fence is refused and stays whole; newer ones open."""
    client, token = table.agent.client, table.issue()
    replid = client.info("replication")["master_replid"]
    client.hset(KEYS.fence.decode(), replid, now_ms(table) + 1)
    until(lambda: now_ms(table) > int(client.hget(KEYS.fence.decode(), replid) or 0))
    client.client_kill_filter(_type="normal", skipme=True)  # agents read it when they connect
    until(lambda: table.ask(f"X-KAT: {mint()}").status == REFUSED)
    refuse(table, token, "fenced")
    admit(table, table.issue())


def test_early(table: Gate) -> None:
    """A token whose time has not come is refused and stays whole."""
    refuse(table, table.issue(nbf_ms=now_ms(table) + HOUR_MS), "early")
    admit(table, table.issue(nbf_ms=now_ms(table)))


def test_wrong_acl(table: Gate) -> None:
    """A token for another application is refused and stays whole."""
    refuse(table, table.issue(acl="another"), "wrong_acl")


def test_wrong_host(table: Gate) -> None:
    """A token for one host is refused at another, and then opens the right one."""
    token = table.issue(host="other.example")
    refuse(table, token, "wrong_host")
    admit(table, token, host="other.example")


def test_wrong_method(table: Gate) -> None:
    """A token for one method is refused with another, and then opens the right one."""
    token = table.issue(method="PUT")
    refuse(table, token, "wrong_method")
    admit(table, token, method="PUT")


@pytest.mark.parametrize("target", ["/wikileaks", "/", "/wiki/../admin", "/wiki/%2e%2e", "/wiki//"])
def test_wrong_path(table: Gate, target: str) -> None:
    """A token for one path is refused beside it and on crooked ways, and then opens the path."""
    token = table.issue(path="/wiki")
    refuse(table, token, "wrong_path", target=f"{target}/x")
    admit(table, token, target="/wiki")


def test_wrong_src(table: Gate) -> None:
    """A token for one address is refused from another, and then opens to the right one."""
    source = fresh_source()
    token = table.issue(src=source)
    refuse(table, token, "wrong_src")
    admit(table, token, source=source)


def test_wrong_nonce(table: Gate) -> None:
    """A token for one browser is refused without that browser's cookie, and stays whole."""
    refuse(table, table.issue(nonce=digest(b"cookie").decode()), "wrong_nonce")


def test_store_error(table: Gate) -> None:
    """A Redis without memory for the tombstone: 503, nothing comes through, the token stays whole.

    Given memory, it opens the same token.
    """
    client, token = table.agent.client, table.issue()
    before = table.value(token)
    client.config_set("maxmemory", 1)
    try:
        visit = table.visit(f"X-KAT: {token}")
    finally:
        client.config_set("maxmemory", 0)
    assert visit.said == (503, "store_unavailable")
    assert visit.facts["class"] == "broken"
    assert visit.facts["kid"] == digest(token.encode()).decode()[:12]  # the script did look at it
    assert visit.received == []
    assert table.value(token) == before
    until(lambda: table.ask(f"X-KAT: {mint()}").status == REFUSED)
    admit(table, token)


def test_revoked(table: Gate, admin: Admin) -> None:
    """What its user had before a revocation opens nothing on the very next request; newer does."""
    token = table.issue(user="leaver")
    Revoker(admin).revoke_user("leaver")
    visit = table.visit(f"X-KAT: {token}")
    assert (*visit.said, visit.received) == (REFUSED, "revoked", [])
    assert table.is_consumed(token)
    cut_ms = now_ms(table)
    until(lambda: now_ms(table) > cut_ms + 1)
    admit(table, table.issue(user="leaver"))


def test_revoked_by_its_text(table: Gate, admin: Admin) -> None:
    """One token alone is taken back: it is gone, and its visitor is told apart from a guesser."""
    token, other = table.issue(), table.issue()
    Revoker(admin).revoke_token(token.encode())
    assert table.value(token) is None
    refuse(table, token, "revoked")
    admit(table, other)


def test_blocked(table: Gate, admin: Admin) -> None:
    """From a blocked address nothing opens and nothing is consumed; when it is lifted it does."""
    source = fresh_source()
    Blocker(admin).block(source, 60)
    # In the very moment of the block a token may be consumed: the agent has not heard of it yet.
    assert table.visit(f"X-KAT: {table.issue()}", source=source).said == (REFUSED, "blocked")
    token = table.issue()
    before = table.value(token)
    visit = table.visit(f"X-KAT: {token}", source=source)
    assert (*visit.said, visit.received) == (REFUSED, "blocked", [])
    assert table.value(token) == before
    Blocker(admin).unblock(source)
    admit(table, token, source=source)


def now_ms(table: Gate) -> int:
    """Tell the time by the only clock that counts."""
    seconds, microseconds = table.agent.client.time()
    return int(seconds) * 1000 + int(microseconds) // 1000
