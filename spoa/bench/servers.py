"""The processes under measurement: a private Redis and the real agent, started and stopped here."""

import multiprocessing
import os
import shutil
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
from urllib.parse import quote

import redis

from spoa.bench.fault import Fault
from spoa.bench.load.channel import Refused, Transport, connect
from spoa.deathsig import dying_with_us

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 15.0
_POLL_S = 0.05

_LIMITS = "KAT_LIMITS__"
"""The settings of the environment that the agent keeps: what they cost can be measured."""


_REDIS_BINARIES = ("redis-server", "valkey-server")
_PACKAGES = Path(__file__).parents[2]
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""A proxy of the environment has no business on our own machine."""

"""Where `spoa` and `tokens` are, of which we are a part."""


class NotStarted(Fault):
    """A server did not come up; the message ends with what it said."""


@dataclass(frozen=True, slots=True)
class Server:
    """A started process, its log, and the address of what it listens on."""

    name: str
    process: subprocess.Popen[bytes]
    socket: str
    """The path of a unix socket, or host:port."""
    log: Path
    tcp: str = ""
    """host:port, where it listens at both."""

    def cpu_s(self) -> float:
        """Return the CPU time that the process and its descendants have used, to the nanosecond."""
        return sum(_cpu_s(pid) for pid in family(self.process.pid))

    def pin(self, cores: Sequence[int]) -> None:
        """Keep all threads of the process and its descendants on these cores."""
        for pid in family(self.process.pid):
            for task in _threads(pid):
                with suppress(ProcessLookupError):  # it has ended meanwhile
                    os.sched_setaffinity(task, cores)

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

    def check(self) -> None:
        """Raise Fault if the process has ended, with what it said last."""
        if self.process.poll() is not None:
            raise Fault(f"{self.name} ended in the middle\n{self._said()}")

    def _said(self) -> str:
        return self.log.read_text(errors="replace")[-1000:]


@contextmanager
def private_redis(directory: Path, *, is_tcp: bool = False) -> Iterator[Server]:
    """Run a Redis of our own on a unix socket, without persistence; on a loopback port as well."""
    path = str(directory / "redis.sock")
    tcp = f"127.0.0.1:{free_port()}" if is_tcp else ""
    command = [_find_redis(), "--port", tcp.rpartition(":")[2] or "0", "--bind", "127.0.0.1"]
    command += ["--unixsocket", path, "--dir", str(directory), "--save", "", "--appendonly", "no"]
    command += ["--maxmemory-policy", "noeviction", "--zset-max-ziplist-value", "128"]
    with _started(
        "redis", command, path, directory / "redis.log", dict(os.environ), tcp=tcp
    ) as server:
        server.wait_until(lambda: _answers_ping(path))
        yield server


def _find_redis() -> str:
    places = f"{os.environ.get('PATH') or os.defpath}:/usr/sbin:/sbin"
    for name in _REDIS_BINARIES:
        if found := shutil.which(name, path=places):
            return found
    raise NotStarted(
        f"neither {' nor '.join(_REDIS_BINARIES)} is installed: `apt install redis-server` or "
        "`dnf install valkey`"
    )


@contextmanager
def real_agent(
    directory: Path,
    redis_address: str,
    workers: int,
    settings: Mapping[str, str],
    *,
    transport: Transport = Transport.UNIX,
    packages: Path | None = None,
) -> Iterator[Server]:
    """Run `kat serve` with its defaults, but for places, Redis, workers, limits and `settings`.

    `packages` holds the agent's; without it they are our own.
    """
    directory.mkdir(exist_ok=True)
    metrics = f"127.0.0.1:{free_port()}"
    address = str(directory / "spoa.sock")
    listen = {}
    if transport is Transport.TCP:
        address = f"127.0.0.1:{free_port()}"
        listen = {"KAT_LISTEN__INSECURE": "true", "KAT_LISTEN__SPOP": address}
    environment = (
        _environment(packages)
        | limits()
        | dict(settings)
        | listen
        | {
            "KAT_STATE_DIR": str(directory),
            "KAT_RUN_DIR": str(directory),
            "KAT_STORE__URL": _url(redis_address),
            "KAT_LISTEN__WORKERS": str(workers),
            "KAT_LISTEN__METRICS": metrics,
        }
    )
    if packages:
        _check_packages(packages, environment)
    command = [sys.executable, "-m", "spoa.cli", "serve"]
    with _started("agent", command, address, directory / "agent.log", environment) as server:
        server.wait_until(lambda: _says_hello(address) and _is_ready(f"http://{metrics}/readyz"))
        yield server


def _environment(packages: Path | None) -> dict[str, str]:
    """Keep all but settings of ours, and let Python take the agent from `packages`.

    Without PYTHONSAFEPATH it would take it from wherever we are started, if there is one.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KAT_")}
    places = [str(packages or _PACKAGES), *filter(None, [os.environ.get("PYTHONPATH")])]
    return kept | {"PYTHONPATH": os.pathsep.join(places), "PYTHONSAFEPATH": "1"}


_WHERE = """
import spoa.worker.agent, tokens.policy.gate
print(spoa.worker.agent.__file__, tokens.policy.gate.__file__, sep='\\n')
"""


def _check_packages(packages: Path, environment: Mapping[str, str]) -> None:
    """Make sure that it is the agent of that directory. Raises NotStarted."""
    done = subprocess.run(
        [sys.executable, "-c", _WHERE], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise NotStarted(f"the agent of {packages} cannot be imported\n{done.stderr[-1000:]}")
    for file in done.stdout.splitlines():
        if not Path(file).resolve().is_relative_to(packages.resolve()):
            raise NotStarted(f"the agent of {packages} would be taken from {file}")


def _url(redis_address: str) -> str:
    is_unix = redis_address.startswith("/")
    return f"unix://{quote(redis_address)}" if is_unix else f"redis://{redis_address}"


def limits() -> dict[str, str]:
    """Return the limits that the environment sets for the agent."""
    return {name: value for name, value in os.environ.items() if name.startswith(_LIMITS)}


@contextmanager
def _started(  # noqa: PLR0917 - who, how, and where it is found
    name: str,
    command: Sequence[str],
    address: str,
    log: Path,
    environment: Mapping[str, str],
    tcp: str = "",
) -> Iterator[Server]:
    with log.open("wb") as output:
        # A session of its own: Ctrl-C is for us, and we stop the servers in our order. Should we be
        # killed, the kernel does.
        process = subprocess.Popen(
            dying_with_us(list(command)),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield Server(name, process, address, log, tcp)
    finally:
        _stop(process)


@dataclass(frozen=True, slots=True)
class Child:
    """A process of our own that others talk to, and its address."""

    pid: int
    address: str

    def cpu_s(self) -> float:
        """Return the CPU time that the process has used, to the nanosecond."""
        return _cpu_s(self.pid)


@contextmanager
def child(
    listener: socket.socket, serve: Callable[..., None], *arguments: object
) -> Iterator[Child]:
    """Serve a listening socket in a process of its own, as long as the block runs."""
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=serve, args=(listener, *arguments), daemon=True)
    process.start()
    assert process.pid
    try:
        yield Child(process.pid, address_of(listener))
    finally:
        process.terminate()
        process.join()


def address_of(listener: socket.socket) -> str:
    name = listener.getsockname()
    return name if isinstance(name, str) else f"{name[0]}:{name[1]}"


def _stop(process: subprocess.Popen[bytes]) -> None:
    members = list(family(process.pid))
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        for pid in members:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def family(pid: int) -> Iterator[int]:
    """Name a process and all its descendants."""
    yield pid
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except FileNotFoundError:
        return
    for child in children.split():
        yield from family(int(child))


def _threads(pid: int) -> list[int]:
    try:
        return [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]
    except FileNotFoundError:
        return []


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
        with _DIRECT.open(url, timeout=1):
            return True
    except (OSError, urllib.error.URLError):
        return False


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
