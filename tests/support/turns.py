"""Servers that take turns as the primary, and two agents that follow: one heeds the fence.

Both agents are real workers, before the same servers. What the one refuses the other one shows to
be a token that would have been accepted twice.
"""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from tests.support.eventually import eventually
from tests.support.holdings import Holdings
from tests.support.redis import RedisServer
from tests.support.running_worker import RunningWorker, running_worker
from tests.support.spop_client import Argument, SpopClient
from tests.support.topologies import Node, await_replicas
from tokens.issue import Issuer
from tokens.record import Keys
from tokens.token import digest

KEYS = Keys()
FENCE = KEYS.fence

PATIENT_MS = 5_000
"""A deadline for agents: whoever asks while the servers change turns waits for the new one."""

SKEW_MS = 100
"""How far apart the clocks are that agents allow for. One clock, asked twice, seems to be 2 ms."""

# Servers.


def now_ms(node: Node) -> int:
    with node.client() as client:
        return Holdings(client).now_ms()


def replid(node: Node) -> str:
    return str(node.info()["master_replid"])


def follow(replica: Node, primary: Node) -> None:
    """Let a server become a copy of another one, and stay one."""
    with primary.client() as client:
        client.execute_command("ACL", "SETUSER", "default", "+psync", "+sync")
    with replica.client() as client:
        client.execute_command("REPLICAOF", "127.0.0.1", primary.port)
    eventually(lambda: replica.info()["master_link_status"] == "up", "the copy is made")


def part(primary: Node, replica: Node) -> None:
    """Let a replica miss all that happens from now on. Both live, and serve whoever asks."""
    await_replicas(primary, 1)
    with primary.client() as client:
        client.execute_command("ACL", "SETUSER", "default", "-psync", "-sync")
        client.client_kill_filter(_type="replica")
    eventually(lambda: replica.info()["master_link_status"] == "down", "the link is cut")


def promote(node: Node) -> None:
    with node.client() as client:
        client.execute_command("REPLICAOF", "NO", "ONE")


@contextmanager
def restarted(server: RedisServer, *more: str) -> Iterator[None]:
    """Start a killed server again where it was, with more settings, until the block ends."""
    server.process.wait()
    arguments = server.process.args
    assert isinstance(arguments, tuple)
    process = subprocess.Popen([*arguments, *more])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def fences(node: Node) -> dict[str, int]:
    """Return what a server has for the fences of all: its own, and those it was told of."""
    with node.client() as client:
        return {name.decode(): int(ms) for name, ms in client.hgetall(FENCE).items()}


def issue(node: Node, number: int = 1, *, acl: str = "demo") -> list[str]:
    with node.client() as client:
        return [Issuer(client).issue("user1", acl, 60).token for _ in range(number)]


def is_whole(client: redis.Redis | redis.RedisCluster, token: str) -> bool:
    value = client.get(KEYS.token(digest(token.encode())))
    assert isinstance(value, bytes), "the token is gone"
    return value.startswith(b"{")


# Agents.


@dataclass
class Agent:
    """A worker, and a connection to it."""

    worker: RunningWorker
    haproxy: SpopClient

    def told(self, token: str, **changes: Argument) -> str:
        """Return what a visitor is told, who comes again while the store is away."""
        return eventually(lambda: self._told(token, changes), "an answer from Redis")

    def _told(self, token: str, changes: dict[str, Argument]) -> str:
        reason = self.haproxy.ask(token, **changes).reason
        return "" if reason == "store_unavailable" else reason


@contextmanager
def running_agent(url: str, place: Path, name: str, **store: object) -> Iterator[Agent]:
    """Run a worker; `store` as in the configuration."""
    own = place / name
    own.mkdir()
    settings = {"url": url, "clock_skew_ms": SKEW_MS, **store}
    with (
        running_worker(own, store=settings, redis_is_up=False, deadline_ms=PATIENT_MS) as worker,
        worker.greeted() as haproxy,
    ):
        yield Agent(worker, haproxy)


@dataclass
class Twins:
    """Two agents that differ in nothing but `store.fence`."""

    heedful: Agent
    heedless: Agent

    def told(self, tokens: Sequence[str], **changes: Argument) -> tuple[str, str]:
        """Ask each about one of two tokens."""
        one, other = tokens
        return self.heedful.told(one, **changes), self.heedless.told(other, **changes)


@contextmanager
def running_twins(url: str, place: Path, **store: object) -> Iterator[Twins]:
    with ExitStack() as stack:
        agents = [
            stack.enter_context(running_agent(url, place, name, fence=fence, **store))
            for name, fence in (("heedful", True), ("heedless", False))
        ]
        for agent in agents:
            agent.worker.wait_store()
        yield Twins(*agents)


def fenced_events(client: redis.Redis | redis.RedisCluster) -> list[dict[str, Any]]:
    """Return what the audit tells of fences that moved."""
    return [event for event in Holdings(client).events() if event["event"] == "fenced"]
