"""The whole thing: tokens issued in Redis, consumed by the agent, asked for by HAProxy."""

import os
import signal
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.scene import Gate, until
from tests.support.haproxy import fresh_source, read_answer
from tokens.record import Keys
from tokens.token import digest, mint

PARALLEL = 64
TOKENS = 50


def test_a_token_opens_one_request(gate: Gate) -> None:
    """The first request with a token is forwarded as its user's, the second is refused."""
    token = gate.issue()
    assert gate.ask(f"X-KAT: {token}").status == 200
    (received,) = gate.application.take()
    assert received.header("X-KAT-User") == ["user1"]
    assert received.header("X-KAT-Groups") == ["staff,red"]
    assert gate.ask(f"X-KAT: {token}").status == 403
    assert gate.ask(f"Authorization: KAT {token}").status == 403
    assert gate.application.take() == []


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "OPTIONS", "DELETE"])
def test_any_method_consumes(gate: Gate, method: str) -> None:
    """A token in a header is consumed on any method, and then refused on every other."""
    token = gate.issue()
    assert gate.ask(f"Authorization: KAT {token}", "Content-Length: 0", method=method).status == 200
    assert gate.ask(f"X-KAT: {token}").status == 403
    assert len(gate.application.take()) == 1


def test_no_token_opens_nothing(gate: Gate) -> None:
    """Without a token people get a 403 and programs a 401."""
    assert gate.ask().status == 403
    assert gate.ask("Accept: application/json").status == 401
    assert gate.application.take() == []


def test_a_token_that_was_never_issued_opens_nothing(gate: Gate) -> None:
    """A perfect token that Redis does not know is a 403."""
    assert gate.ask(f"X-KAT: {mint()}").status == 403
    assert gate.application.take() == []


@pytest.mark.parametrize("token", ["", "x", "kat_" + "0" * 38, "kat_" + "a" * 37, "KAT", "kat_%00"])
def test_a_malformed_token_opens_nothing(gate: Gate, token: str) -> None:
    """What is no token is a 403 too, checksum included."""
    assert gate.ask(f"X-KAT: {token}").status == 403
    assert gate.application.take() == []


def test_an_expired_token_opens_nothing(gate: Gate) -> None:
    """After its lifetime a token is as good as none."""
    token = gate.issue(ttl_s=1)
    until(lambda: not gate.agent.client.exists(_key(token)))
    assert gate.ask(f"X-KAT: {token}").status == 403
    assert gate.application.take() == []


def test_two_tokens_open_nothing_and_stay_whole(gate: Gate) -> None:
    """Of two good tokens in one request neither is consumed."""
    one, other = gate.issue(), gate.issue()
    assert gate.ask(f"X-KAT: {one}", f"X-KAT: {other}").status == 403
    assert gate.ask(f"X-KAT: {one}", f"Authorization: KAT {other}").status == 403
    assert gate.application.take() == []
    assert gate.ask(f"X-KAT: {one}").status == 200
    assert gate.ask(f"X-KAT: {other}").status == 200


def test_a_token_for_another_application_stays_whole(gate: Gate) -> None:
    """A token for another ACL is refused, and not consumed by the attempt."""
    token = gate.issue(acl="confluence")
    before = gate.agent.client.get(_key(token))
    assert gate.ask(f"X-KAT: {token}").status == 403
    assert gate.application.take() == []
    assert gate.agent.client.get(_key(token)) == before


@pytest.mark.parametrize(
    ("headers", "method", "target"),
    [
        (["Upgrade: foo", "Connection: x-kat-user"], "GET", "/"),
        ([], "CONNECT", "localhost:80"),
        ([], "TRACE", "/"),
        ([], "GET", "/#"),
    ],
)
def test_what_is_refused_before_the_gate_consumes_nothing(
    gate: Gate, headers: list[str], method: str, target: str
) -> None:
    """A request that HAProxy itself refuses leaves its token whole."""
    token = gate.issue()
    assert gate.ask(f"X-KAT: {token}", *headers, method=method, target=target).status in {400, 405}
    assert gate.application.take() == []
    assert gate.ask(f"X-KAT: {token}").status == 200


def test_of_many_at_once_exactly_one_gets_in(gate: Gate) -> None:
    """64 requests in parallel with one token: one 200, 63 times 403. Fifty tokens in a row."""
    with ExitStack() as stack:
        source = fresh_source()
        clients = [stack.enter_context(gate.haproxy.connect(source)) for _ in range(PARALLEL)]
        for number in range(TOKENS):
            statuses = _all_at_once(clients, gate.issue(), f"/{number}")
            assert statuses == {200: 1, 403: PARALLEL - 1}, number
    targets = Counter(received.target for received in gate.application.take())
    assert targets == {f"/{number}": 1 for number in range(TOKENS)}


def test_no_log_holds_a_token(gate: Gate) -> None:
    """Neither HAProxy's log nor the agent's has a token's text, whatever became of it."""
    used, unknown, foreign = gate.issue(), mint(), gate.issue(acl="confluence")
    for token in (used, used, unknown, foreign, unknown[:-1]):
        gate.ask(f"X-KAT: {token}", target=f"/?kat={token}")
    gate.ask(target="/the-last-one")
    until(lambda: '"/the-last-one"' in gate.haproxy.log())
    log = gate.haproxy.log() + gate.agent.log()
    for token in (used, unknown, foreign):
        assert token[4:30] not in log
        assert digest(token.encode()).decode() not in log


def test_the_log_names_a_request_by_user_and_kid(gate: Gate) -> None:
    """HAProxy's log line says who, with which token's kid, why, and under which unique id."""
    token = gate.issue()
    gate.ask(f"X-KAT: {token}", target="/logged")
    until(lambda: '"/logged"' in gate.haproxy.log())
    (line,) = [line for line in gate.haproxy.log().splitlines() if '"/logged"' in line]
    assert f"kid={digest(token.encode())[:12].decode()} " in line
    assert "class=allow reason=ok error=- " in line
    assert 'user="user1"' in line


def test_a_frozen_agent_consumes_nothing_afterwards(gate: Gate) -> None:
    """What HAProxy gave up on while the agent was stopped is not consumed when it wakes."""
    token = gate.issue()
    workers = _workers(gate.agent.process.pid)
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    try:
        assert gate.ask(f"X-KAT: {token}").status == 503
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
    until(gate.is_judging)
    assert gate.application.take() == []
    assert gate.ask(f"X-KAT: {token}").status == 200


def test_a_killed_worker_lets_no_token_in_twice(gate: Gate) -> None:
    """A worker killed under load: each token opens at most one request, and service goes on."""
    tokens = [gate.issue() for _ in range(200)]
    victim = _workers(gate.agent.process.pid)[0]
    with ThreadPoolExecutor(8) as pool:
        first = [
            pool.submit(gate.ask, f"X-KAT: {token}", target=f"/{token[4:]}") for token in tokens
        ]
        until(lambda: len(gate.application.received) > 20)
        os.kill(victim, signal.SIGKILL)
        statuses = [future.result().status for future in first]
    assert set(statuses) <= {200, 503}
    until(gate.is_judging)
    for token in tokens:
        assert gate.ask(f"X-KAT: {token}", target=f"/{token[4:]}").status in {200, 403}
    targets = Counter(received.target for received in gate.application.take())
    assert max(targets.values()) == 1
    assert gate.ask(f"X-KAT: {gate.issue()}").status == 200


def test_a_stopped_agent_closes_the_gate_and_a_started_one_opens_it(gate: Gate) -> None:
    """Agent stopped: 503 and nothing consumed. Agent back: allowed."""
    token = gate.issue(ttl_s=600)
    gate.agent.stop()
    try:
        assert gate.ask(f"X-KAT: {token}").status == 503
        assert gate.application.take() == []
    finally:
        gate.agent.start()
    until(gate.is_judging)
    assert gate.ask(f"X-KAT: {gate.issue()}").status == 200
    assert len(gate.application.take()) == 1


def _key(token: str) -> bytes:
    return Keys().token(digest(token.encode()))


def _all_at_once(clients: list[socket.socket], token: str, target: str) -> Counter[int]:
    """Send one token over all connections before any answer is read; count the statuses."""
    request = f"GET {target} HTTP/1.1\r\nHost: localhost\r\nX-KAT: {token}\r\n\r\n".encode()
    for client in clients:
        client.sendall(request)
    return Counter(read_answer(client).status for client in clients)


def _workers(supervisor: int) -> list[int]:
    """Return the agent's worker processes: the children that are not its Redis."""
    pids = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    names = {int(pid): Path(f"/proc/{pid}/comm").read_text() for pid in pids}
    return [pid for pid, name in names.items() if "redis" not in name and "valkey" not in name]
