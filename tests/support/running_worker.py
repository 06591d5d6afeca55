"""One real worker process without a supervisor: its socket, its counters and its log at hand."""

import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from spoa.config.acl import Acl
from spoa.config.model import Config
from spoa.config.sections import Limits, Listen, ListenerFiles, Store
from spoa.counters import STORE_ERRORS, Counters
from spoa.listen import bind
from spoa.spop import schema
from spoa.spop.constants import StatusCode
from spoa.worker import worker
from spoa.worker.worker import Order
from tests.support.eventually import eventually
from tests.support.planted import plant
from tests.support.spop_client import SpopClient

EXIT_DEADLINE_S = 20

LOOPS = ("uvloop", "asyncio")

# In production a worker is spawned by the supervisor (test_faults.py). Here it is forked from a
# process that has imported everything: 30 ms instead of 500.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload([__name__])


class WorkerEnded(Exception):
    """It ended before it served. Holds its log."""

    def __init__(self, log: str, exit_code: int | None) -> None:
        super().__init__(log)
        self.exit_code = exit_code


@dataclass
class RunningWorker:
    """A worker and everything that can be seen of it from outside."""

    process: BaseProcess
    config: Config
    counters: Counters
    log_file: Path

    @property
    def socket(self) -> Path:
        """The default one."""
        return self.config.run_dir / "spoa.sock"

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    @property
    def pid(self) -> int:
        assert self.process.pid
        return self.process.pid

    def connect(self) -> SpopClient:
        """Connect without a word."""
        return SpopClient(self.socket)

    def greeted(self, **changes: schema.TypedData) -> SpopClient:
        """Connect and shake hands."""
        client = self.connect()
        client.hello(**changes)
        return client

    def decided(self, reason: str, acl: str = "demo") -> int:
        return self._cell(self.counters.layout.request(acl, reason))

    def protocol_errors(self, status: StatusCode) -> int:
        return self._cell(self.counters.layout.protocol_error(status))

    def ended(self, by: str, status: StatusCode = StatusCode.NORMAL) -> int:
        return self._cell(self.counters.layout.disconnect(status, by))

    def store_errors(self, kind: str) -> int:
        return self._cell(self.counters.layout.store_errors + STORE_ERRORS.index(kind))

    @property
    def asked_again(self) -> int:
        return self._cell(self.counters.layout.asked_again)

    @property
    def fence_moves(self) -> int:
        return self._cell(self.counters.layout.fence_moves)

    @property
    def connections(self) -> int:
        return self._cell(self.counters.layout.connections)

    @property
    def in_flight(self) -> int:
        return self._cell(self.counters.layout.in_flight)

    def wait_idle(self) -> None:
        """Wait until no connection is left."""
        eventually(lambda: not self.connections, "no connection is left")

    def wait_store(self, *, is_up: bool = True) -> None:
        eventually(lambda: self.counters.is_store_up(0) == is_up, f"store up: {is_up}")

    def freeze(self) -> None:
        """Stop it with SIGSTOP, as a swapped-out process stands still."""
        os.kill(self.pid, signal.SIGSTOP)
        eventually(self._is_frozen, "the worker stands still")

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def _is_frozen(self) -> bool:
        stat = Path(f"/proc/{self.pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[0] == "T"

    def stop(self) -> int | None:
        """Send SIGTERM; return the exit code."""
        self.process.terminate()
        return self.exit_code()

    def exit_code(self) -> int | None:
        self.process.join(EXIT_DEADLINE_S)
        return self.process.exitcode

    def _cell(self, index: int) -> int:
        return self.counters.block(0)[0][index]


@contextmanager
def running_worker(
    place: Path,
    redis_socket: str = "",
    loop: str = "uvloop",
    *,
    redis_is_up: bool = True,
    spop: str = "",
    fault: str = "",
    soft_files: int = 0,
    store: Mapping[str, object] | None = None,
    acl: Mapping[str, Acl] | None = None,
    tls: ListenerFiles | None = None,
    **limits: float,
) -> Iterator[RunningWorker]:
    """Run a worker until the block ends; `limits` as in the configuration's section.

    It listens on a unix socket in `place`, or where `spop` says. `store` as in the configuration,
    for a Redis that is not at `redis_socket`; `acl` in place of the strict `demo`; with `tls`
    its TCP addresses speak it.
    `fault` plants an error of our own in it (see planted.py), `soft_files` is how many files it
    may have open by its soft limit when it starts.
    """
    config = Config(
        state_dir=place,
        run_dir=place,
        listen=Listen(
            insecure=tls is None,
            spop=(spop or f"unix:{place}/spoa.sock",),
            **(asdict(tls) if tls else {}),
        ),
        store=Store.model_validate({"url": f"unix://{redis_socket}", **(store or {})}),
        limits=Limits.model_validate(limits),
        acl=dict(acl or {}),
    )
    counters = Counters(list(config.acl), 1)
    listeners = [bind(endpoint) for endpoint in config.shared_endpoints]
    order = Order(config, 0, [listener.socket for listener in listeners], counters)
    log = place / "log"
    process = _FORKS.Process(target=_run, args=(order, log, loop, fault, soft_files))
    process.start()
    for listener in listeners:
        listener.socket.close()
    running = RunningWorker(process, config, counters, log)
    try:
        eventually(lambda: counters.heartbeat(0) or _has_failed(running), "the worker's first beat")
        if redis_is_up:
            running.wait_store()
        yield running
    finally:
        if process.is_alive():
            process.kill()
        process.join()
        process.close()


def _has_failed(running: RunningWorker) -> bool:
    if not running.process.is_alive():
        raise WorkerEnded(running.log, running.exit_code())
    return False


def _run(order: Order, log: Path, loop: str, fault: str, soft_files: int) -> None:
    with log.open("ab", buffering=0) as stream:
        os.dup2(stream.fileno(), 2)
    if loop == "asyncio":
        sys.modules["uvloop"] = None  # type: ignore[assignment]  # makes `import uvloop` fail
    if fault:
        plant(fault)
    if soft_files:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft_files, hard))
    worker.run(order)
