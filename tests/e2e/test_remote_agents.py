"""Agents on other machines, over TLS with certificates on both sides."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from haproxy import CONFIGURATION
from tests.e2e.scene import Gate, until
from tests.support.haproxy import read_answer
from tests.support.leaks import assert_no_leaks
from tests.support.redis import RedisServer, running_redis
from tests.support.remote_agents import RemoteAgent, by_tls, gated
from tests.support.tls_peers import DOCS, Authority, make_authority
from tokens.token import mint

REFUSED = 503
BURST = 60


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest.fixture(scope="module")
def agents(
    authority: Authority, redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[RemoteAgent]]:
    """Give two agents with one Redis, as two machines have it."""
    agents = [RemoteAgent(tmp_path_factory.mktemp("agent"), redis, authority) for _ in range(2)]
    yield agents
    for agent in agents:
        agent.stop()


@pytest.fixture
def gate(
    haproxy_binary: Path, agents: list[RemoteAgent], authority: Authority, tmp_path: Path
) -> Iterator[Gate]:
    """Give a gate before both of them."""
    with gated(haproxy_binary, tmp_path, agents[0], by_tls(authority, *agents)) as gate:
        until(lambda: is_asking_redis(gate))
        yield gate
        assert_no_leaks(gate.traces(), gate.secrets)


def is_asking_redis(gate: Gate) -> bool:
    """Tell whether a token that nobody issued is refused by Redis: an agent alone would say 503."""
    return gate.ask(f"X-KAT: {mint()}").status == 403


def test_a_token_opens_once(gate: Gate) -> None:
    """Over TLS a token is consumed, its user is named, and a second time it opens nothing."""
    token = gate.issue()
    visit = gate.visit(f"X-KAT: {token}")
    assert visit.said == (200, "ok")
    assert [one.header("X-KAT-User") for one in visit.received] == [["user1"]]
    assert gate.visit(f"X-KAT: {token}").said == (403, "replayed")


def test_both_agents_are_asked(gate: Gate, agents: list[RemoteAgent]) -> None:
    """Requests are spread over both; a token that one consumed is consumed for the other."""
    before = [agent.asked() for agent in agents]
    tokens = [gate.issue() for _ in range(10)]
    assert [gate.ask(f"X-KAT: {token}").status for token in tokens] == [200] * 10
    assert [gate.ask(f"X-KAT: {token}").status for token in tokens] == [403] * 10
    assert all(agent.asked() > was for agent, was in zip(agents, before, strict=True))


def test_one_agent_is_enough(gate: Gate, agents: list[RemoteAgent]) -> None:
    """While one is stopped the other answers everything; the check finds both ends of it."""
    agents[1].stop()
    try:
        until(lambda: "Server kat_agents/agent2 is DOWN" in gate.haproxy.log())
        tokens = [gate.issue() for _ in range(10)]
        assert [gate.ask(f"X-KAT: {token}").status for token in tokens] == [200] * 10
    finally:
        agents[1].start()
    until(lambda: "Server kat_agents/agent2 is UP" in gate.haproxy.log())


def test_no_agent_is_a_503(
    haproxy_binary: Path, agents: list[RemoteAgent], authority: Authority, tmp_path: Path
) -> None:
    """A stopped agent lets nobody in and costs no token; started again, it is found by itself."""
    with gated(haproxy_binary, tmp_path, agents[0], by_tls(authority, agents[1])) as gate:
        until(lambda: is_asking_redis(gate))
        token = gate.issue()
        agents[1].stop()
        try:
            assert gate.ask(f"X-KAT: {token}").status == REFUSED
            assert gate.application.received == []
        finally:
            agents[1].start()
        until(lambda: is_asking_redis(gate))
        assert gate.ask(f"X-KAT: {token}").status == 200


def test_a_name_is_as_good_as_an_address(
    haproxy_binary: Path, agents: list[RemoteAgent], authority: Authority, tmp_path: Path
) -> None:
    """What is verified is the name in the certificate, however HAProxy finds the machine."""
    by_name = agents[0].address.replace("127.0.0.1", "localhost")
    settings = {**by_tls(authority, agents[0]), "KAT_AGENT": by_name}
    with gated(haproxy_binary, tmp_path, agents[0], settings) as gate:
        until(lambda: is_asking_redis(gate))
        assert gate.ask(f"X-KAT: {gate.issue()}").status == 200


def test_a_cold_burst_marks_no_agent_down(
    haproxy_binary: Path, agents: list[RemoteAgent], authority: Authority, tmp_path: Path
) -> None:
    """Who is busy with many handshakes at once is not taken for dead, and serves on."""
    with gated(haproxy_binary, tmp_path, agents[0], by_tls(authority, agents[0])) as gate:
        until(lambda: is_asking_redis(gate))
        with ExitStack() as stack:
            crowd = [stack.enter_context(gate.haproxy.connect()) for _ in range(BURST)]
            for visitor in crowd:
                visitor.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answers = [read_answer(visitor).status for visitor in crowd]
        # Those that the gate gave up on, on a machine with too much to do, are broken, not denied.
        assert set(answers) <= {403, REFUSED}
        assert 403 in answers
        until(lambda: is_asking_redis(gate))
        assert "is DOWN" not in gate.haproxy.log()


WRONG = {
    "the agent's CA": ("SSL handshake failure", "it refuses us: unknown ca"),
    "the agent's name": (
        "Server presented an SSL certificate different from the configured one",
        "it refuses us: internal error",
    ),
    "HAProxy's certificate": ("SSL fatal error", "its certificate is refused: "),
    "no certificate": ("SSL fatal error", "it shows no certificate"),
    "no TLS": ("TCPCHK got an empty response", "it speaks no TLS"),
}
"""What the logs of HAProxy and of the agent say of it: the table of docs/remote-agents.md."""


@pytest.mark.parametrize("words", WRONG.values(), ids=WRONG)
def test_the_table_of_the_documentation_is_true(words: tuple[str, str]) -> None:
    """What the next test finds in the logs stands in one row of it."""
    assert any(all(word in line for word in words) for line in DOCS.read_text().splitlines())


@pytest.mark.parametrize("what", WRONG)
def test_where_one_side_is_wrong_nobody_gets_in(
    haproxy_binary: Path,
    agents: list[RemoteAgent],
    authority: Authority,
    tmp_path: Path,
    what: str,
) -> None:
    """Another CA on either side, another name, no certificate or no TLS: 503, no token is lost."""
    settings = by_tls(authority, agents[0])
    configuration = CONFIGURATION
    stranger = make_authority(tmp_path / "other-ca")
    known = agents[0].log()
    match what:
        case "the agent's CA":
            settings["KAT_AGENT_CA"] = str(stranger.ca)
        case "the agent's name":
            settings["KAT_AGENT_NAME"] = "another-agent"
        case "HAProxy's certificate":
            settings["KAT_AGENT_CERT"] = str(stranger.haproxy)
        case "no certificate":
            configuration = tmp_path / "haproxy.cfg"
            text, times = re.subn(r' crt "\$\{KAT_AGENT_CERT-[^"]*"', "", CONFIGURATION.read_text())
            assert times == 1
            configuration.write_text(text)
        case _:
            settings = {"KAT_AGENT": agents[0].address}
    with gated(haproxy_binary, tmp_path, agents[0], settings, configuration) as gate:
        until(lambda: "Server kat_agents/agent1 is DOWN" in gate.haproxy.log())
        token = gate.issue()
        before, before_all = gate.value(token), agents[0].asked()
        assert [gate.ask(f"X-KAT: {token}").status for _ in range(5)] == [REFUSED] * 5
        assert gate.application.received == []
        assert gate.value(token) == before
        assert agents[0].asked() == before_all
        in_haproxy, in_agent = WRONG[what]
        assert f'info: "{in_haproxy}' in gate.haproxy.log()
        # HAProxy's checks go on, and of all complaints one a second is written down.
        until(lambda: f"TLS with 127.0.0.1: {in_agent}" in agents[0].log().removeprefix(known))


def test_an_agent_without_tls_is_not_asked(
    haproxy_binary: Path,
    authority: Authority,
    redis: RedisServer,
    tmp_path: Path,
) -> None:
    """A HAProxy that is told to speak TLS speaks nothing else, whoever answers."""
    (tmp_path / "plain").mkdir()
    agent = RemoteAgent(tmp_path / "plain", redis, None)
    try:
        with gated(haproxy_binary, tmp_path, agent, by_tls(authority, agent)) as gate:
            until(lambda: "Server kat_agents/agent1 is DOWN" in gate.haproxy.log())
            token = gate.issue()
            assert gate.ask(f"X-KAT: {token}").status == REFUSED
            assert agent.asked() == 0
        # The same agent over plain TCP, which it allows: it was TLS that kept HAProxy away.
        folder = tmp_path / "without"
        folder.mkdir()
        with gated(haproxy_binary, folder, agent, {"KAT_AGENT": agent.address}) as gate:
            until(lambda: gate.ask(f"X-KAT: {token}").status == 200)
    finally:
        agent.stop()
