"""What was measured, on what: without this the numbers mean nothing."""

import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from pathlib import Path

from spoa.bench.servers import limits
from spoa.spop import codec
from spoa.version import version

_ROOT = Path(__file__).parents[3]
_CPU_INFO = Path("/proc/cpuinfo")


def environment(haproxies: Iterable[Path] = ()) -> dict[str, str]:
    """Say what is measured, on what. `haproxies` are the programs that will take part.

    Of the settings only the limits are told: others may be secret.
    """
    facts = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "kat": f"{version()}, {_build()}",
        "commit": _commit(),
        "machine": f"{_cpu_model()}, {_cores()}",
        "busy": f"{os.getloadavg()[0]:.2f} processes on average in the last minute",
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": ", ".join(f"{name} {_version(name)}" for name in ("hiredis", "uvloop")),
        "redis": " ".join(_said(["redis-server", "--version"]).split()[:3]) or "not installed",
        "haproxy": "; ".join(filter(None, map(_haproxy, haproxies))),
        "limits": " ".join(f"{name}={value}" for name, value in limits().items()) or "defaults",
    }
    return {name: fact for name, fact in facts.items() if fact}


def _build() -> str:
    """Say whether the modules of the hot path are machine code. They are compiled together."""
    return "compiled" if str(codec.__file__).endswith(".so") else "interpreted"


def _commit() -> str:
    # A wheel may be installed below somebody else's repository.
    if not (_ROOT / ".git").exists():
        return "unknown"
    return _said(["git", "-C", str(_ROOT), "describe", "--always", "--dirty"]) or "unknown"


def _haproxy(program: Path) -> str:
    return _said([str(program), "-v"]).partition("\n")[0].partition(" - ")[0]


def _said(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip()


def _cpu_model() -> str:
    return _cpu_fact("model name") or platform.machine()


def _cores() -> str:
    """Count the cores that we may use; a guest shares them with others."""
    kind = "virtual cores" if "hypervisor" in _cpu_fact("flags").split() else "cores"
    return f"{len(os.sched_getaffinity(0))} {kind}"


def _cpu_fact(name: str) -> str:
    for line in _CPU_INFO.read_text().splitlines():
        if line.startswith(name):
            return line.partition(":")[2].strip()
    return ""


def _version(package: str) -> str:
    try:
        return version_of(package)
    except PackageNotFoundError:
        return "absent"
