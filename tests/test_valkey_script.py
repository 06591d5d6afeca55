"""scripts/valkey: a Valkey for the tests, or one sentence why there is none."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.topologies import ROOT, valkey


def provide(into: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "scripts/valkey", "--into", into],
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_what_is_printed_is_a_valkey() -> None:
    """The path that is printed runs, and says what it is."""
    binary = valkey()
    assert binary.name == "valkey-server"
    said = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    assert said.startswith("Valkey server")


def test_the_systems_own_is_taken(tmp_path: Path) -> None:
    """Where there is a valkey-server in the PATH, nothing is fetched."""
    own = tmp_path / "bin" / "valkey-server"
    own.parent.mkdir()
    own.write_text('#!/bin/sh\necho "Valkey server v=0"\n')
    own.chmod(0o755)
    done = provide(tmp_path / "with space", PATH=f"{own.parent}:{os.environ['PATH']}")
    assert (done.returncode, done.stderr) == (0, "")
    assert Path(done.stdout.strip()).resolve() == own


@pytest.mark.skipif(not shutil.which("apt-get", path="/usr/bin"), reason="apt-get is not here")
@pytest.mark.skipif(
    bool(shutil.which("valkey-server", path="/usr/bin:/bin")), reason="nothing is fetched here"
)
@pytest.mark.parametrize(
    ("mirror", "sentence"),
    [("", "set KAT_DEBIAN_MIRROR"), ("file:///nowhere", "not be fetched from file:///nowhere")],
)
def test_a_failure_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, mirror: str, sentence: str
) -> None:
    """Without a mirror, or with one that is not there, no half of a Valkey stays."""
    done = provide(tmp_path, KAT_DEBIAN_MIRROR=mirror)
    assert (done.returncode, done.stdout) == (1, "")
    *_, line = done.stderr.splitlines()
    assert line.startswith("valkey: ")
    assert sentence in line
    assert not list(tmp_path.glob("valkey*"))
