"""Private Redis servers for tests: a unix socket, no persistence, gone with the test."""

import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

START_DEADLINE_S = 10
STOP_DEADLINE_S = 10
LOOK_AGAIN_S = 0.005

_SETTINGS = ("--port", "0", "--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction")


@dataclass(frozen=True)
class RedisServer:
    """One running server. Its process may be stopped, killed or frozen by the test."""

    process: subprocess.Popen[bytes]
    directory: Path

    @property
    def socket(self) -> str:
        return str(self.directory / "redis.sock")

    @property
    def log(self) -> str:
        return (self.directory / "redis.log").read_text()

    def client(self) -> redis.Redis:
        """Open a client that sends no command twice."""
        return redis.Redis(unix_socket_path=self.socket, retry=Retry(NoBackoff(), 0), protocol=2)


@contextlib.contextmanager
def running_redis(*settings: str, binary: str | Path | None = None) -> Iterator[RedisServer]:
    """Run a server, with more settings as on redis-server's command line, until the block ends.

    It is the system's, unless `binary` is another one.
    """
    # Not pytest's tmp_path: a unix socket's path has 107 bytes, and those are long.
    with tempfile.TemporaryDirectory(prefix="kat-") as directory:
        server = _start(binary or system_binary(), Path(directory), settings)
        try:
            _wait_until_it_answers(server)
            yield server
        finally:
            server.process.kill()
            server.process.wait(STOP_DEADLINE_S)


def system_binary() -> str:
    binary = shutil.which("redis-server") or shutil.which("valkey-server")
    assert binary, "the tests need redis-server or valkey-server"
    return binary


def _start(binary: str | Path, directory: Path, settings: tuple[str, ...]) -> RedisServer:
    where = ("--dir", str(directory), "--unixsocket", str(directory / "redis.sock"))
    log = ("--logfile", str(directory / "redis.log"))
    process = subprocess.Popen((binary, *_SETTINGS, *where, *log, *settings))
    return RedisServer(process, directory)


def _wait_until_it_answers(server: RedisServer) -> None:
    deadline = time.monotonic() + START_DEADLINE_S
    while not _answers(server):
        assert server.process.poll() is None, f"redis-server ended at once: {server.log}"
        assert time.monotonic() < deadline, f"redis-server is silent: {server.log}"
        time.sleep(LOOK_AGAIN_S)


def _answers(server: RedisServer) -> bool:
    with contextlib.suppress(redis.ConnectionError), server.client() as client:
        return bool(client.ping())
    return False
