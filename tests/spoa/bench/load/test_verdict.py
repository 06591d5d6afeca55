from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from spoa.bench.load.corpus import CLIENTS, Issued, issue, mint
from spoa.bench.load.generator import Tally
from spoa.bench.load.holdings import IDLE_MS, grant_all, open_sessions
from spoa.bench.load.verdict import verify
from spoa.bench.scenario import Scenario
from spoa.bench.servers import Server, private_redis
from tokens.audit import entry
from tokens.policy.session import session_digest

Wrong = dict[str, int]


def consume(store: Server, tokens: list[Issued]) -> None:
    with redis.Redis(unix_socket_path=store.socket) as client:
        for token in tokens:
            client.set(b"kat:t:" + token.digest, b"consumed claim 1 - {}", xx=True, keepttl=True)


def tell(store: Server, tokens: list[Issued]) -> None:
    events = [{"event": "consumed", "kid": token.kid.decode()} for token in tokens]
    with redis.Redis(unix_socket_path=store.socket) as client:
        client.execute_command(*entry(b"kat:audit", events, 10))


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spoa.bench.load.verdict._PATIENCE_S", 0.02)


@pytest.mark.parametrize(
    ("consumed", "answered_ok", "wrong"),
    [
        (9, 9, {}),
        (7, 9, {"7 consumed in Redis, 9 answered ok": 2}),
        (9, 8, {"9 consumed in Redis, 8 answered ok": 1}),
    ],
)
def test_redis_has_the_last_word(
    tmp_path: Path, consumed: int, answered_ok: int, wrong: Wrong
) -> None:
    """A yes without a consumed token, and a consumed token without a yes, are both wrong."""
    tokens = mint(9)
    tally = Tally(right=answered_ok)
    with private_redis(tmp_path) as store:
        issue(store.socket, tokens)
        consume(store, tokens[:consumed])
        tell(store, tokens[:consumed])
        verify(Scenario.CONSUME, store.socket, tokens, tally)
    assert tally.wrong == wrong


@pytest.mark.parametrize(
    ("scenario", "told", "wrong"),
    [
        (Scenario.CONSUME, 9, {}),
        (Scenario.CONSUME, 6, {"6 in the audit, 9 should be": 3}),
        (Scenario.UNAUDITED, 0, {}),
        (Scenario.UNAUDITED, 9, {"9 in the audit, 0 should be": 9}),
    ],
)
def test_the_audit_is_on_or_off(
    tmp_path: Path, scenario: Scenario, told: int, wrong: Wrong
) -> None:
    """What the audit costs is told by two agents that differ in it: each is looked at."""
    tokens = mint(9)
    tally = Tally(right=9)
    with private_redis(tmp_path) as store:
        issue(store.socket, tokens)
        consume(store, tokens)
        tell(store, tokens[:told])
        verify(scenario, store.socket, tokens, tally)
    assert tally.wrong == wrong


def _end(client: "redis.Redis", key: bytes) -> None:
    client.delete(key)


def _prolong(client: "redis.Redis", key: bytes) -> None:
    client.pexpire(key, IDLE_MS)


@pytest.mark.parametrize(
    ("scenario", "do", "wrong"),
    [
        (Scenario.SESSION, [], {}),
        (Scenario.SESSION, [_end], {"8 sessions stand, 9 were asked for": 1}),
        (Scenario.SESSION, [_prolong], {"1 were prolonged, 0 should be": 1}),
        (Scenario.SESSION_IDLE, [_prolong] * 9, {}),
        (Scenario.SESSION_IDLE, [_prolong] * 8, {"8 were prolonged, 9 should be": 1}),
    ],
)
def test_sessions_stand_after_a_round(
    tmp_path: Path,
    scenario: Scenario,
    do: list[Callable[["redis.Redis", bytes], None]],
    wrong: Wrong,
) -> None:
    """A hit leaves a session there, and its end alone, unless it may lie idle only so long."""
    tally = Tally(right=9)
    with private_redis(tmp_path) as store, redis.Redis(unix_socket_path=store.socket) as client:
        tokens = open_sessions(store.socket, mint(9), b"session", None)
        for act, token in zip(do, tokens, strict=False):
            act(client, b"kat:s:" + session_digest(token.session))
        verify(scenario, store.socket, tokens, tally)
    assert tally.wrong == wrong


@pytest.mark.parametrize(
    ("opened", "listed", "wrong"),
    [
        (9, 9, {}),
        (8, 9, {"8 sessions stand, 9 answered ok": 1}),
        (9, 7, {"7 sessions listed, 9 answered ok": 2}),
    ],
)
def test_every_new_session_stands_and_is_listed(
    tmp_path: Path, opened: int, listed: int, wrong: Wrong
) -> None:
    """The ids that the ACKs brought are those of sessions in Redis, under their users."""
    tokens = mint(9)
    tally = Tally(right=9)
    with private_redis(tmp_path) as store, redis.Redis(unix_socket_path=store.socket) as client:
        issue(store.socket, tokens, b"session")
        consume(store, tokens)
        tell(store, tokens)
        sessions = open_sessions(store.socket, tokens, b"session", None)
        for token in sessions[opened:]:
            client.delete(b"kat:s:" + session_digest(token.session))
        for token in sessions[:listed]:
            client.zadd(b"kat:sub:" + token.user, {b"s:" + session_digest(token.session): 1})
        tally.fresh = [(index, token.session) for index, token in enumerate(sessions)]
        verify(Scenario.SESSION_OPEN, store.socket, tokens, tally)
        assert client.keys() == [b"kat:audit"]
    assert tally.wrong == wrong


def test_grants_stand_after_a_round(tmp_path: Path) -> None:
    """A grant that somebody ended meanwhile is missed."""
    tally = Tally(right=9)
    with private_redis(tmp_path) as store, redis.Redis(unix_socket_path=store.socket) as client:
        grant_all(store.socket, b"ip")
        verify(Scenario.GRANT, store.socket, mint(9), tally)
        assert tally.wrong == {}
        client.zpopmin(b"kat:grants:{ip}")
        verify(Scenario.GRANT, store.socket, mint(9), tally)
    assert tally.wrong == {f"{CLIENTS - 1} grants stand, {CLIENTS} were given": 1}


def test_what_was_to_be_replayed_had_been_consumed(tmp_path: Path) -> None:
    """A whole token that was answered `replayed` is wrong."""
    tokens = mint(9)
    tally = Tally(right=9)
    with private_redis(tmp_path) as store:
        issue(store.socket, tokens)
        consume(store, tokens[:8])
        verify(Scenario.REPLAY, store.socket, tokens, tally)
    assert tally.wrong == {
        "8 consumed in Redis, 9 should be": 1,
        "1 whole in Redis, 0 should be": 1,
    }


@pytest.mark.parametrize(
    ("scenario", "issued", "consumed", "wrong"),
    [
        (Scenario.WRONG_ACL, 9, 0, {}),
        (Scenario.WRONG_ACL, 8, 0, {"8 whole in Redis, 9 should be": 1}),
        (
            Scenario.WRONG_ACL,
            9,
            1,
            {"1 consumed in Redis, 0 should be": 1, "8 whole in Redis, 9 should be": 1},
        ),
        (Scenario.UNKNOWN, 0, 0, {}),
        (Scenario.UNKNOWN, 1, 0, {"1 whole in Redis, 0 should be": 1}),
        (Scenario.MALFORMED, 0, 0, {}),
        (Scenario.MALFORMED, 1, 1, {"1 consumed in Redis, 0 should be": 1}),
    ],
)
def test_a_refusal_leaves_tokens_as_they_were(
    tmp_path: Path, scenario: Scenario, issued: int, consumed: int, wrong: Wrong
) -> None:
    """A token of another ACL is whole afterwards, and what nobody issued is still unknown."""
    tokens = mint(9)
    tally = Tally(right=9)
    with private_redis(tmp_path) as store:
        issue(store.socket, tokens[:issued], b"elsewhere")
        consume(store, tokens[:consumed])
        verify(scenario, store.socket, tokens, tally)
    assert tally.wrong == wrong
