"""scripts/haproxy-versions: what it says when it cannot help."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.haproxy import ROOT, binary

TOOLS = ["bash", "cat", "dirname", "flock", "head", "mkdir", "mktemp", "rm"]


def provide(into: Path, *versions: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "scripts" / "haproxy-versions", "--into", into, *versions],
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def sentence(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one line that a failure says."""
    assert done.returncode == 1
    assert done.stdout == ""
    *_, line = done.stderr.splitlines()
    assert line.startswith("haproxy-versions: ")
    return line


def test_the_binary_is_of_the_version_asked_for(haproxy_binary: Path) -> None:
    """What is printed runs, from where it was put, and says its version."""
    version = haproxy_binary.parent.name
    words = subprocess.run(
        [haproxy_binary, "-v"], capture_output=True, text=True, check=True
    ).stdout
    assert words.startswith(f"HAProxy version {version}.")
    assert binary(version) == haproxy_binary


def test_an_unknown_version_is_refused(tmp_path: Path) -> None:
    """HAProxy 1.8 is not among those that the project is tested with."""
    assert "HAProxy 1.8 is not among" in sentence(provide(tmp_path, "1.8"))


def test_a_missing_tool_is_named(tmp_path: Path) -> None:
    """Without apt-get the sentence says that, and what it is for."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in TOOLS:
        (tools / tool).symlink_to(shutil.which(tool) or tool)
    done = provide(tmp_path / "with space", _not_of_the_system(), PATH=str(tools))
    assert "apt-get is missing: HAProxy" in sentence(done)


def test_a_missing_mirror_is_named(tmp_path: Path) -> None:
    """Without a mirror the sentence names the setting."""
    done = provide(tmp_path, _not_of_the_system(), KAT_DEBIAN_MIRROR="")
    assert "set KAT_DEBIAN_MIRROR" in sentence(done)


def test_an_unreachable_mirror_leaves_nothing_behind(tmp_path: Path) -> None:
    """A failed fetch names the mirror, and no half of a HAProxy stays."""
    version = _not_of_the_system()
    done = provide(tmp_path, version, KAT_DEBIAN_MIRROR="file:///nowhere")
    assert "could not be fetched from file:///nowhere" in sentence(done)
    assert not list(tmp_path.glob("[0-9]*"))


def _not_of_the_system() -> str:
    """Return a version that this machine would have to fetch."""
    if not Path("/usr/bin/apt-get").exists():
        pytest.skip("apt-get is not here")
    system = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/sbin:/bin")
    words = (
        subprocess.run([system, "-v"], capture_output=True, text=True, check=True).stdout
        if system
        else ""
    )
    return "3.0" if "version 3.2." in words else "3.2"
