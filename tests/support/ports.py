"""Servers at TCP ports of this machine, with TLS or without; and a Valkey."""

import contextlib
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import redis

from tests.support.redis import STOP_DEADLINE_S, RedisServer, running_redis
from tokens.store.tls import TlsFiles

ROOT = Path(__file__).parents[2]

# A node of a cluster answers at its port and speaks to the others at another one.
_FROM_BUS_TO_PORT = 10_000

_TRIES = 5


@dataclass(frozen=True)
class Node:
    """A server at a TCP port of this machine. Its process may be stopped or killed by the test."""

    server: RedisServer
    port: int

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def client(self) -> redis.Redis:
        return self.server.client()

    def info(self, section: str = "replication") -> dict[str, object]:
        with self.client() as client:
            return dict(client.info(section))

    def kill(self) -> None:
        self.server.process.kill()
        self.server.process.wait(STOP_DEADLINE_S)


def await_replicas(primary: Node, count: int) -> None:
    """Wait until replicas have all that the primary has."""
    with primary.client() as client, client.client() as one:
        one.execute_command("PUBLISH", "nobody", "")  # WAIT is for what its connection has sent
        assert one.wait(count, 5000) == count


@contextlib.contextmanager
def falling_behind(primary: Node, *replicas: Node) -> Iterator[None]:
    """Let replicas miss what happens in the block, at whose end the primary must be dead."""
    await_replicas(primary, len(replicas))
    with primary.client() as client:
        for replica in replicas:
            replica.server.process.send_signal(signal.SIGSTOP)
        # Else they would read it later, from the buffers of their connections.
        client.client_kill_filter(_type="replica")
    try:
        yield
    finally:
        for replica in replicas:
            replica.server.process.send_signal(signal.SIGCONT)


def free_port() -> int:
    """Return a port that is free, as is the one that a cluster's node adds to it."""
    while True:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port: int = one.getsockname()[1]
            # Below 32768 the kernel gives no port to a client in the meantime.
            port = 10_000 + port % 20_000
            with contextlib.suppress(OSError):
                for test, number in ((one, port), (other, port + _FROM_BUS_TO_PORT)):
                    test.close()
                    with socket.create_server(("127.0.0.1", number)):
                        pass
                return port


def valkey() -> Path:
    """Return the path of a Valkey, fetched if need be. Raises: no skipping."""
    done = subprocess.run([ROOT / "scripts/valkey"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    return Path(done.stdout.strip())


@contextlib.contextmanager
def running_node(
    *settings: str, tls: TlsFiles | None = None, binary: str | Path | None = None
) -> Iterator[Node]:
    """Run a server at a free port until the block ends. With `tls` that port speaks TLS alone."""
    with contextlib.ExitStack() as stack:
        yield start_node(stack, settings, tls, binary)


def tls_settings(port: int, tls: TlsFiles) -> tuple[str, ...]:
    files = ("--tls-ca-cert-file", tls.ca_file, "--tls-cert-file", tls.cert_file)
    key = ("--tls-key-file", str(tls.key_file), "--tls-auth-clients", "no")
    among = ("--tls-replication", "yes", "--tls-cluster", "yes")
    return ("--port", "0", "--tls-port", str(port), *map(str, files), *key, *among)


def start_node(
    stack: contextlib.ExitStack,
    settings: Sequence[str],
    tls: TlsFiles | None,
    binary: str | Path | None,
) -> Node:
    """Start a server at a port that was free; another test may have been quicker."""
    for _ in range(_TRIES):
        port = free_port()
        at = ("--port", str(port)) if tls is None else tls_settings(port, tls)
        at = ("--bind", "127.0.0.1", *at)
        with contextlib.suppress(AssertionError):
            server = stack.enter_context(running_redis(*at, *settings, binary=binary))
            return Node(server, port)
    raise AssertionError("no server starts at any port: see redis.log above")
