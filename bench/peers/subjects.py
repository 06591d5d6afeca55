"""Who is measured, and how each of them is started."""

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from bench.peers.hello import says_hello
from bench.peers.task import Ours, Plain, Task
from spoa.bench.options import THIS
from spoa.bench.scenario import ACLS, Scenario
from spoa.bench.servers import Server, real_agent
from spoa.deathsig import dying_with_us

_ROOT: Final = Path(__file__).parents[2]
_STOP_TIMEOUT_S: Final = 5.0

Start = Callable[[Path, str], AbstractContextManager[Server]]
"""Run a subject in a directory, against the Redis behind a socket."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Somebody who answers NOTIFYs, and what he is asked."""

    name: str
    start: Start
    task: Task
    package: str | None = None
    """What must be installed for it."""
    remark: str = ""
    """What a reader of its figures must know."""
    build: str = ""
    """Which of several, if there are several."""

    @property
    def version(self) -> str | None:
        """The version of its package, or None where that is not installed."""
        try:
            return version(self.package) if self.package else ""
        except PackageNotFoundError:
            return None

    def __str__(self) -> str:
        return f"{self.name}, {self.build}" if self.build else self.name


def subjects(against: Path | None = None) -> list[Subject]:
    """Name everybody: the ceiling, ours, ours of another build, the peers."""
    builds = [(THIS, None), (against.name, against)] if against else [("", None)]
    ours = [
        Subject(f"kat {scenario}", partial(_kat, packages), Ours(scenario), build=build)
        for build, packages in builds
        for scenario in (Scenario.CONSUME, Scenario.SESSION)
    ]
    echo = Subject("echo agent", _beside("echo_agent"), Ours(Scenario.CEILING))
    return [echo, *ours, *PEERS]


def _kat(
    packages: Path | None, directory: Path, redis_socket: str
) -> AbstractContextManager[Server]:
    return real_agent(directory, redis_socket, 1, ACLS, packages=packages)


def _beside(module: str) -> Start:
    """Run one of the programs beside this file."""
    return partial(program, ("-m", f"bench.peers.{module}"))


@contextmanager
def program(python: Sequence[str], directory: Path, redis_socket: str) -> Iterator[Server]:
    """Let Python run an agent until the block ends. Raises NotStarted.

    `python` is its command line, which gets two paths more: of its own socket, of that of Redis.
    """
    directory.mkdir()
    path, log = directory / "spoa.sock", directory / "log"
    command = [sys.executable, *python, str(path), redis_socket]
    with log.open("wb") as output:
        # A session of its own: Ctrl-C is for us, and we stop the servers in our order.
        process = subprocess.Popen(
            dying_with_us(command),
            cwd=_ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    server = Server(python[-1], process, str(path), log)
    try:
        server.wait_until(lambda: says_hello(server.socket))
        yield server
    finally:
        process.terminate()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


PEERS: Final = (
    Subject("asyncio", _beside("asyncio_baseline"), Plain()),
    Subject(
        "haproxyspoa",
        _beside("haproxyspoa_agent"),
        Plain(yes=1),
        "haproxyspoa",
        "cannot answer a bool: True arrives as the integer 1",
    ),
    Subject("spoe-forge", _beside("spoe_forge_agent"), Plain(), "spoe-forge"),
)
