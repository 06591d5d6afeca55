"""Agents and HAProxies that find each other through spiped, without TLS of their own."""

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from haproxy.runtime.client import Runtime
from haproxy.runtime.fault import Unreachable
from haproxy.runtime.place import UnixPlace
from tests.e2e.scene import Agent, Gate, until
from tests.support.clocks import faketime
from tests.support.haproxy import running
from tests.support.leaks import assert_no_leaks
from tests.support.redis import RedisServer, running_redis
from tests.support.remote_agents import gated
from tests.support.tunnels import make_key, tunnel
from tokens.token import mint

AHEAD_S = 5


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest.fixture(scope="module")
def agent(redis: RedisServer) -> Iterator[Agent]:
    """Give an agent whose clock is ahead of HAProxy's: it waits at a tunnel, and at a socket."""
    with tempfile.TemporaryDirectory(prefix="kat-") as folder:
        place = Path(folder)
        settings = {
            "KAT_LISTEN__SPOP": f"tunnel:{place}/run/tunnel.sock,unix:{place}/run/spoa.sock",
            "KAT_STORE__URL": f"unix://{redis.socket}",
            **faketime(f"+{AHEAD_S}s"),
        }
        agent = Agent(place, settings, str(redis.socket))
        yield agent
        agent.stop()


@pytest.fixture
def place() -> Iterator[Path]:
    """Make a folder with a short name, for sockets."""
    with tempfile.TemporaryDirectory(prefix="kat-") as folder:
        yield Path(folder)


def _first_visit(gate: Gate) -> tuple[str, tuple[int, str]]:
    """Come with a token as the very first that this HAProxy asks about."""
    token = gate.issue()
    return token, gate.visit(f"X-KAT: {token}").said


def test_a_token_opens_once_through_a_tunnel(
    haproxy_binary: Path, agent: Agent, place: Path
) -> None:
    """Through spiped all is as on one machine; the other clock costs not even the first visitor."""
    entry = place / "agent1.sock"
    with (
        tunnel(entry, agent.socket.with_name("tunnel.sock"), make_key(place)),
        gated(haproxy_binary, place, agent, {"KAT_AGENT": f"unix@{entry}"}) as gate,
    ):
        token, said = _first_visit(gate)
        assert said == (200, "ok")
        assert gate.visit(f"X-KAT: {token}").said == (403, "replayed")
        assert_no_leaks(gate.traces(), gate.secrets)


def test_who_is_said_to_be_local_has_our_clock(
    haproxy_binary: Path, agent: Agent, place: Path
) -> None:
    """Through a tunnel to a socket that is not called one, the first second is `deadline`."""
    entry = place / "agent1.sock"
    with (
        tunnel(entry, agent.socket, make_key(place)),
        gated(haproxy_binary, place, agent, {"KAT_AGENT": f"unix@{entry}"}) as gate,
    ):
        token, said = _first_visit(gate)
        assert said == (503, "deadline")
        until(lambda: gate.ask(f"X-KAT: {token}").status == 200)


def test_another_key_opens_nothing(haproxy_binary: Path, agent: Agent, place: Path) -> None:
    """A tunnel whose ends have different keys carries nothing: 503, and the token stays whole."""
    entry = place / "agent1.sock"
    (place / "far").mkdir()
    keys = make_key(place), make_key(place / "far")
    with (
        tunnel(entry, agent.socket.with_name("tunnel.sock"), *keys),
        gated(haproxy_binary, place, agent, {"KAT_AGENT": f"unix@{entry}"}) as gate,
    ):
        until(lambda: "Server kat_agents/agent1 is DOWN" in gate.haproxy.log())
        token = gate.issue()
        before = gate.value(token)
        assert gate.ask(f"X-KAT: {token}").status == 503
        assert gate.value(token) == before
        assert gate.application.received == []


def test_a_tunnel_that_ends_is_a_503_and_comes_back(
    haproxy_binary: Path, agent: Agent, place: Path
) -> None:
    """HAProxy finds the agent again when the tunnel is there again."""
    entry, key = place / "agent1.sock", make_key(place)
    target = agent.socket.with_name("tunnel.sock")
    with gated(haproxy_binary, place, agent, {"KAT_AGENT": f"unix@{entry}"}) as gate:
        token = gate.issue()
        assert gate.ask(f"X-KAT: {token}").status == 503
        for _ in range(2):
            with tunnel(entry, target, key):
                until(lambda: gate.ask(f"X-KAT: {mint()}").status == 403)
            until(lambda: gate.ask(f"X-KAT: {mint()}").status == 503)
        with tunnel(entry, target, key):
            until(lambda: gate.ask(f"X-KAT: {token}").status == 200)


def test_the_runtime_api_through_a_tunnel(haproxy_binary: Path, place: Path) -> None:
    """The other way round: from the agent's machine to the socket of HAProxy's Runtime API."""
    admin, entry = place / "admin.sock", place / "edge1.sock"

    async def pid() -> int:
        async with Runtime(UnixPlace(str(entry))).session() as session:
            await session.need_admin()
            return (await session.process()).pid

    with (
        running(haproxy_binary, place, {"KAT_RUNTIME": str(admin)}) as haproxy,
        tunnel(entry, admin, make_key(place)),
    ):
        until(admin.exists)
        assert asyncio.run(pid()) == haproxy.process.pid
    with pytest.raises(Unreachable):
        asyncio.run(pid())
