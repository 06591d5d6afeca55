"""A primary, its replicas and three Sentinels, of real processes.

Nothing is waited for that can be written down beforehand: Sentinels are told of each other, and of
the replicas, in their files.
"""

import contextlib
import secrets
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.eventually import eventually
from tests.support.ports import Node, free_port, start_node, tls_settings
from tests.support.redis import LOOK_AGAIN_S, START_DEADLINE_S, STOP_DEADLINE_S, system_binary
from tokens.store.tls import TlsFiles, client_options

SERVICE = "tokens"


@dataclass(frozen=True)
class Watcher:
    """One Sentinel."""

    process: subprocess.Popen[bytes]
    directory: Path
    port: int
    tls: TlsFiles | None

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def client(self) -> redis.Redis:
        settings: dict[str, Any] = client_options(self.tls) if self.tls else {}
        return redis.Redis(
            "127.0.0.1", self.port, retry=Retry(NoBackoff(), 0), protocol=2, **settings
        )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(STOP_DEADLINE_S)


@dataclass(frozen=True)
class Watched:
    """A primary, its replicas, and three Sentinels that know each other and all of them."""

    primary: Node
    replicas: list[Node]
    sentinels: list[Watcher]

    @property
    def url(self) -> str:
        hosts = ",".join(sentinel.host for sentinel in self.sentinels)
        scheme = "rediss" if self.sentinels[0].tls else "redis"
        return f"{scheme}+sentinel://{hosts}/{SERVICE}"

    @property
    def nodes(self) -> list[Node]:
        return [self.primary, *self.replicas]

    def fail_over(self) -> None:
        """Let the first Sentinel promote a replica, as it would when the primary is down."""
        with self.sentinels[0].client() as client:
            client.execute_command("SENTINEL", "FAILOVER", SERVICE)

    def named(self) -> int:
        """Return the port of the primary that the first Sentinel names."""
        with self.sentinels[0].client() as client:
            _, port = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        return int(port)


@contextlib.contextmanager
def running_sentinels(
    *settings: str,
    replicas: int = 2,
    tls: TlsFiles | None = None,
    binary: str | Path | None = None,
) -> Iterator[Watched]:
    """Run a primary, its replicas and three Sentinels, until the block ends."""
    with contextlib.ExitStack() as stack:
        quick = ("--repl-diskless-sync-delay", "0", *settings)
        primary = start_node(stack, quick, tls, binary)
        follow = (*quick, "--replicaof", f"127.0.0.1 {primary.port}")
        nodes = [start_node(stack, follow, tls, binary) for _ in range(replicas)]
        for node in nodes:
            eventually(partial(_is_copied, node), "the replica has its copy")
        watched = Watched(primary, nodes, [])
        known = {free_port(): secrets.token_hex(20) for _ in range(3)}
        for port in known:
            lines = _sentinel_lines(watched, port, known, tls)
            watched.sentinels.append(
                stack.enter_context(_running_sentinel(port, lines, tls, binary))
            )
        # Without the replicas' INFO no Sentinel promotes one of them.
        for sentinel in watched.sentinels:
            eventually(partial(_has_seen, sentinel, replicas), "the replicas are known")
        yield watched


def _is_copied(node: Node) -> bool:
    return node.info()["master_link_status"] == "up"


def _has_seen(sentinel: Watcher, count: int) -> bool:
    with sentinel.client() as client:
        replicas = client.sentinel_slaves(SERVICE)
    return sum(one["master-link-status"] == "ok" for one in replicas) == count


def _sentinel_lines(
    watched: Watched, port: int, known: dict[int, str], tls: TlsFiles | None
) -> list[str]:
    """Write a Sentinel's file, with all in it that it would find out in the first ten seconds."""
    others = [(at, name) for at, name in known.items() if at != port]
    settings = tls_settings(port, tls) if tls else ("--port", str(port))
    return [
        *[f"{name[2:]} {value}" for name, value in zip(settings[::2], settings[1::2], strict=True)],
        "bind 127.0.0.1",
        f"sentinel myid {known[port]}",
        f"sentinel monitor {SERVICE} 127.0.0.1 {watched.primary.port} 2",
        f"sentinel down-after-milliseconds {SERVICE} 600",
        f"sentinel failover-timeout {SERVICE} 20000",
        *[f"sentinel known-replica {SERVICE} 127.0.0.1 {one.port}" for one in watched.replicas],
        *[f"sentinel known-sentinel {SERVICE} 127.0.0.1 {at} {name}" for at, name in others],
    ]


@contextlib.contextmanager
def _running_sentinel(
    port: int, lines: list[str], tls: TlsFiles | None, binary: str | Path | None
) -> Iterator[Watcher]:
    with tempfile.TemporaryDirectory(prefix="kat-") as directory:
        file = Path(directory) / "sentinel.conf"
        log = Path(directory) / "sentinel.log"
        file.write_text("\n".join([*lines, f"dir {directory}", f"logfile {log}", ""]))
        process = subprocess.Popen([binary or system_binary(), file, "--sentinel"])
        watcher = Watcher(process, Path(directory), port, tls)
        try:
            _wait_until_it_watches(watcher, log)
            yield watcher
        finally:
            watcher.kill()


def _wait_until_it_watches(watcher: Watcher, log: Path) -> None:
    deadline = time.monotonic() + START_DEADLINE_S
    while True:
        with contextlib.suppress(redis.ConnectionError), watcher.client() as client:
            if client.ping():
                return
        said = log.read_text() if log.exists() else ""
        assert watcher.process.poll() is None, f"the Sentinel ended at once: {said}"
        assert time.monotonic() < deadline, f"the Sentinel is silent: {said}"
        time.sleep(LOOK_AGAIN_S)
