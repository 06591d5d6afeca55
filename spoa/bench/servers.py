"""The processes under measurement: a private Redis and the real agent, started and stopped here."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import redis

from spoa.bench.channel import Refused, connect

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 15.0
_POLL_S = 0.05

_LIMITS = "KAT_LIMITS__"
"""The settings of the environment that the agent keeps: what they cost can be measured."""


class NotStarted(Exception):
    """A server did not come up; the message ends with what it said."""


@dataclass(frozen=True, slots=True)
class Server:
    """A started process, its socket and its log."""

    name: str
    process: subprocess.Popen[bytes]
    socket: str
    log: Path

    def cpu_s(self) -> float:
        """Return the CPU time that the process and its descendants have used, to the nanosecond."""
        return sum(_cpu_s(pid) for pid in _family(self.process.pid))

    def pin(self, cores: Sequence[int]) -> None:
        """Keep all threads of the process and its descendants on these cores."""
        for pid in _family(self.process.pid):
            for task in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setaffinity(int(task.name), cores)

    def wait_until(self, is_ready: Callable[[], bool]) -> None:
        """Wait for the server to serve. Raises NotStarted."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while not is_ready():
            if self.process.poll() is not None:
                raise NotStarted(f"{self.name} ended at once\n{self._said()}")
            if time.monotonic() > deadline:
                message = f"{self.name} is not ready after {START_TIMEOUT_S:g} s"
                raise NotStarted(f"{message}\n{self._said()}")
            time.sleep(_POLL_S)

    def _said(self) -> str:
        return self.log.read_text(errors="replace")[-1000:]


@contextmanager
def private_redis(directory: Path) -> Iterator[Server]:
    """Run a Redis of our own on a unix socket, without persistence."""
    path = str(directory / "redis.sock")
    command = ["redis-server", "--port", "0", "--unixsocket", path, "--dir", str(directory)]
    command += ["--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction"]
    with _started("redis", command, path, os.environ) as server:
        server.wait_until(lambda: _answers_ping(path))
        yield server


@contextmanager
def real_agent(
    directory: Path, redis_socket: str, workers: int, settings: Mapping[str, str]
) -> Iterator[Server]:
    """Run `kat serve` with its defaults, but for places, Redis, workers, limits and `settings`."""
    directory.mkdir(exist_ok=True)
    metrics = f"127.0.0.1:{_free_port()}"
    foreign = {name: value for name, value in os.environ.items() if not name.startswith("KAT_")}
    environment = (
        foreign
        | limits()
        | dict(settings)
        | {
            "KAT_STATE_DIR": str(directory),
            "KAT_RUN_DIR": str(directory),
            "KAT_STORE__URL": f"unix://{redis_socket}",
            "KAT_LISTEN__WORKERS": str(workers),
            "KAT_LISTEN__METRICS": metrics,
        }
    )
    path = str(directory / "spoa.sock")
    command = [sys.executable, "-m", "spoa.cli", "serve"]
    with _started("agent", command, path, environment) as server:
        server.wait_until(lambda: _says_hello(path) and _is_ready(f"http://{metrics}/readyz"))
        yield server


def limits() -> dict[str, str]:
    """Return the limits that the environment sets for the agent."""
    return {name: value for name, value in os.environ.items() if name.startswith(_LIMITS)}


@contextmanager
def _started(
    name: str, command: Sequence[str], path: str, environment: Mapping[str, str]
) -> Iterator[Server]:
    log = Path(path).with_name(f"{name}.log")
    with log.open("wb") as output:
        try:
            # A session of its own: Ctrl-C is for us, and we stop the servers in our order.
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        except FileNotFoundError:
            raise NotStarted(f"{command[0]} is not installed") from None
    try:
        yield Server(name, process, path, log)
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    family = list(_family(process.pid))
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def _family(pid: int) -> Iterator[int]:
    """Name a process and all its descendants."""
    yield pid
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except FileNotFoundError:
        return
    for child in children.split():
        yield from _family(int(child))


def _cpu_s(pid: int) -> float:
    # clock_getcpuclockid(3), which Python lacks: ~pid in the upper bits, CPUCLOCK_SCHED below.
    # /proc/<pid>/stat says the same in steps of 10 ms.
    return time.clock_gettime((~pid << 3) | 2)


def _answers_ping(path: str) -> bool:
    try:
        with redis.Redis(unix_socket_path=path) as client:
            return bool(client.ping())
    except redis.ConnectionError:
        return False


def _says_hello(path: str) -> bool:
    try:
        connect(path).sock.close()
    except (OSError, Refused):
        return False
    return True


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1):
            return True
    except (OSError, urllib.error.URLError):
        return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
