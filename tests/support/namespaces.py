"""Machines of a test's own: network namespaces, which end with the process that made them.

A holder's stdin is a pipe from us. When we are gone, however that came, it reads the end, and with
it, the first process of a PID namespace, the kernel ends all that was started inside.
"""

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

DEADLINE_S = 20

# A plain user is root in a user namespace; nothing else of root's is needed.
_IS_ROOT = os.geteuid() == 0
_BE_ROOT = () if _IS_ROOT else ("--user", "--map-root-user")
_AS_ROOT = () if _IS_ROOT else ("--user", "--preserve-credentials")


@dataclass(frozen=True)
class Machine:
    """A namespace with network devices, routes and packet filters of its own."""

    pid: str
    """Of its holder."""

    def run(self, *command: str | Path, says: str = "") -> str:
        """Run a command there; return what it printed. One that fails fails the test."""
        done = subprocess.run(
            [*self._enter(), *command],
            input=says,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(map(str, command))}: {done.stderr}"
        return done.stdout

    def start(
        self,
        *command: str | Path,
        env: Mapping[str, str] | None = None,
        stdin: int | None = None,
        stdout: IO[str] | int | None = None,
        stderr: int = subprocess.STDOUT,
    ) -> subprocess.Popen[bytes]:
        """Start a command, which ends with the machines at the latest."""
        return subprocess.Popen(
            [*self._enter(), "--pid", *command],
            env=None if env is None else dict(env),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
        )

    def status(self, process: subprocess.Popen[bytes]) -> str:
        """Return what the kernel knows about what was started."""
        (child,) = _children(process)
        return Path(f"/proc/{child}/status").read_text()

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """End what was started: `process` waits for the one that is inside."""
        if process.poll() is None:
            for child in _children(process):
                os.kill(int(child), signal.SIGKILL)
        process.wait(DEADLINE_S)

    def _enter(self) -> tuple[str, ...]:
        return ("nsenter", "--target", self.pid, *_AS_ROOT, "--net")


@contextmanager
def machines(number: int) -> Iterator[list[Machine]]:
    """Make so many machines, with nothing but a loopback that is up, until the block ends."""
    with ExitStack() as stack:
        first = _hold(stack, ["unshare", *_BE_ROOT, "--pid", "--fork", "--kill-child", "--net"])
        enter = ["nsenter", "--target", first.pid, *_AS_ROOT, "--pid"]
        made = [first, *(_hold(stack, [*enter, "unshare", "--net"]) for _ in range(number - 1))]
        for machine in made:
            machine.run("ip", "link", "set", "lo", "up")
        yield made


def _hold(stack: ExitStack, unshare: list[str]) -> Machine:
    """Start `cat` there, and wait until it answers."""
    holder = subprocess.Popen([*unshare, "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdin
    assert holder.stdout
    stack.callback(holder.wait, DEADLINE_S)
    stack.callback(holder.stdout.close)
    stack.callback(holder.stdin.close)
    holder.stdin.write(b"ready\n")
    holder.stdin.flush()
    assert holder.stdout.readline() == b"ready\n", "no namespace: this needs root"
    (inside,) = _children(holder)
    return Machine(inside)


def _children(process: subprocess.Popen[bytes]) -> list[str]:
    """Return the one that is inside: who enters a PID namespace forks."""
    return Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()


def joined(one: Machine, name: str, other: Machine, other_name: str) -> None:
    """Lay a cable between two machines; name its ends."""
    one.run("ip", "link", "add", name, "type", "veth", "peer", other_name, "netns", other.pid)
    one.run("ip", "link", "set", name, "up")
    other.run("ip", "link", "set", other_name, "up")


def addressed(machine: Machine, device: str, *addresses: str) -> None:
    """Give a device its addresses; an IPv6 one is good at once."""
    for address in addresses:
        more = ["nodad"] if ":" in address else []
        machine.run("ip", "address", "add", address, "dev", device, *more)
