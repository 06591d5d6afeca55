import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from spoa.bench.report import facts
from spoa.bench.report.facts import environment
from spoa.version import version


def test_everything_that_a_number_depends_on_is_told() -> None:
    """Release, commit, machine, load and versions are there, each with a word."""
    told = environment()
    names = "date kat commit machine busy system python packages redis limits"
    assert list(told) == names.split()
    assert all(told.values())
    assert told["kat"].startswith(version())
    assert f"{len(os.sched_getaffinity(0))} " in told["machine"]
    assert told["python"].endswith(".".join(map(str, sys.version_info[:3])))


@pytest.mark.parametrize(
    ("file", "said"),
    [("codec.cpython-311-x86_64-linux-gnu.so", "compiled"), ("codec.py", "interpreted")],
)
def test_a_compiled_agent_is_called_so(
    monkeypatch: pytest.MonkeyPatch, file: str, said: str
) -> None:
    """Whether the hot modules are machine code decides what a figure means."""
    monkeypatch.setattr(facts, "codec", SimpleNamespace(__file__=f"site-packages/{file}"))
    assert environment()["kat"].endswith(f", {said}")


def test_a_haproxy_that_takes_part_is_told_with_its_release(tmp_path: Path) -> None:
    """One that was asked for is named; one that is not there costs nothing but its name."""
    program = tmp_path / "haproxy"
    program.write_text("#!/bin/sh\necho 'HAProxy version 3.2.26-1 2026/10/14 - more'\necho x\n")
    program.chmod(0o755)
    told = environment([program, tmp_path / "missing"])
    assert told["haproxy"] == "HAProxy version 3.2.26-1 2026/10/14"


def test_only_limits_are_told_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that is passed on holds no secret of the machine that it was made on."""
    monkeypatch.setenv("KAT_LIMITS__DEADLINE_MS", "1234")
    monkeypatch.setenv("KAT_STORE__URL", "redis://:hunter2@host")
    told = " ".join(environment().values())
    assert "KAT_LIMITS__DEADLINE_MS=1234" in told
    assert "hunter2" not in told


def test_a_wheel_has_no_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Below somebody else's repository their commit is not taken for ours."""
    (tmp_path / "site-packages").mkdir()
    (tmp_path / ".git").mkdir()
    monkeypatch.setattr(facts, "_ROOT", tmp_path / "site-packages")
    monkeypatch.setattr(facts, "_said", lambda _: "theirs")
    assert environment()["commit"] == "unknown"
