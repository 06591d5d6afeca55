"""A machine for units to run on: systemd, as process 1 of namespaces of its own.

It has the programs of this machine, a copy of its files that vanishes with it, no network but
loopback, and /opt/kat as the README makes it.
"""

import contextlib
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import spoa
from tests.support.eventually import eventually

ROOT = Path(__file__).parents[2]
CHECKOUT = "/run/checkout"
_TIMEOUT_S = 60
_NAMESPACES = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup")
# Namespaces with users of their own would not do: the units are about real users and groups.
_AS_ROOT = () if os.geteuid() == 0 else ("sudo", "-n")


@dataclass(frozen=True)
class Machine:
    """A booted systemd, by the pid that its process 1 has outside."""

    pid: int

    def run(self, *command: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        """Run a command there as root. Its failure is the test's to judge."""
        enter = ("nsenter", "--target", str(self.pid), *_NAMESPACES, "--")
        clean = ("env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        return subprocess.run(
            [*_AS_ROOT, *enter, *clean, "LC_ALL=C.UTF-8", "SYSTEMD_PAGER=", *command],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT_S,
            cwd="/",
        )

    def do(self, *command: str, stdin: str = "") -> str:
        """Run a command that must succeed, and return what it printed."""
        done = self.run(*command, stdin=stdin)
        said = f"{done.stdout}{done.stderr}"
        assert done.returncode == 0, (
            f"{shlex.join(command)}: {done.returncode}\n{said}\n{self.log()}"
        )
        return done.stdout.strip()

    def follow(self, commands: str) -> None:
        """Do what a page says, in the folder of the checkout."""
        self.do("sh", "-euc", f"cd {CHECKOUT}\n{commands}")

    def write(self, path: str, text: str) -> None:
        self.do("sh", "-euc", f"cat >{shlex.quote(path)}", stdin=text)

    def log(self) -> str:
        return self.run("journalctl", "--no-pager", "--quiet", "--lines=60").stdout

    def property(self, unit: str, name: str) -> str:
        return self.do("systemctl", "show", "--value", "--property", name, unit)


@contextlib.contextmanager
def running_machine(folder: Path) -> Iterator[Machine]:
    """Boot one, and end it with all that runs on it."""
    cgroup = _cgroups() / f"kat-tests-{os.getpid()}-{folder.name}"
    packages = Path(spoa.__file__).parents[1]
    boot = ("bash", str(ROOT / "tests/host/boot.sh"))
    with (
        (folder / "boot.log").open("w+") as log,
        subprocess.Popen(
            # However the tests end: the machine dies with them.
            [
                "setpriv",
                "--pdeathsig",
                "KILL",
                *_AS_ROOT,
                *boot,
                cgroup,
                ROOT,
                packages,
                sys.executable,
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        ) as unshare,
    ):
        try:
            machine = Machine(eventually(lambda: _process_1(unshare), "a systemd", 30))
            eventually(lambda: _is_up(machine), "a machine that is up", 30)
            yield machine
        except BaseException:
            log.seek(0)
            sys.stderr.write(log.read())
            raise
        finally:
            subprocess.run([*_AS_ROOT, "kill", "-KILL", *_family(unshare.pid)], check=False)
            unshare.wait(_TIMEOUT_S)
            eventually(lambda: _removed(cgroup), "an empty cgroup")


def _cgroups() -> Path:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mounted, _, kind = line.partition(" - ")
        if kind.startswith("cgroup2 "):
            return Path(mounted.split()[4])
    raise AssertionError("this machine has no cgroup2: systemd needs it")


def _process_1(unshare: "subprocess.Popen[bytes]") -> int | None:
    assert unshare.poll() is None, "the machine did not boot: see above"
    for pid in _family(unshare.pid):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text() == "systemd\n":
                return int(pid)
    return None


def _family(pid: int) -> list[str]:
    """Name a process and its descendants, the youngest first; of the machine, process 1 alone."""
    family = [str(pid)]
    for member in family:
        with contextlib.suppress(OSError):
            if Path(f"/proc/{member}/comm").read_text() != "systemd\n":
                family += Path(f"/proc/{member}/task/{member}/children").read_text().split()
    return family[::-1]


def _is_up(machine: Machine) -> bool:
    return machine.run("systemctl", "is-active", "machine.target").stdout == "active\n"


def _removed(cgroup: Path) -> bool:
    """Remove a cgroup and those below; the kernel lets it go when the last process is reaped."""
    remove = [*_AS_ROOT, "find", str(cgroup), "-depth", "-type", "d", "-exec", "rmdir", "{}", ";"]
    subprocess.run(remove, check=False, capture_output=True)
    return not cgroup.exists()
