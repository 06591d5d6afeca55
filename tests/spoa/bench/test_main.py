import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TypedDict

import pytest

from spoa.bench.scenario import Scenario

ROOT = Path(__file__).parents[3]


class Line(TypedDict):
    """What the file holds for each line of the table."""

    name: str
    median: dict[str, float]
    wrong: dict[str, int]


def bench(*arguments: str, directory: Path) -> "subprocess.Popen[str]":
    """Start the benchmark with a temporary directory that we can look into.

    Its agent may take its time: on a busy machine `deadline` would be a right answer, too.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "spoa.bench", *arguments],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(directory), "KAT_LIMITS__DEADLINE_MS": "10000"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def processes_of(directory: Path) -> list[int]:
    """Name all processes that were started with this temporary directory."""
    mark = f"TMPDIR={directory}\0".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue  # it has ended, or is not ours to read
    return found


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[Line]:
    """Run the benchmark once, quickly, against the real agent."""
    directory = tmp_path_factory.mktemp("bench")
    path = directory / "out.json"
    with bench(
        "--quick", "--connections", "4", "--json", str(path), directory=directory
    ) as process:
        output, errors = process.communicate(timeout=200)
    assert process.returncode == 0, output + errors
    assert "Not measured" in output
    assert "KAT_LIMITS__DEADLINE_MS=10000" in output
    assert processes_of(directory) == []
    assert [entry.name for entry in directory.iterdir()] == ["out.json"]
    results: list[Line] = json.loads(path.read_text())["results"]
    return results


def test_every_answer_of_the_real_agent_is_right(lines: list[Line]) -> None:
    """In every scenario each request got the answer that it must get; Redis agrees."""
    assert [(one["name"], one["wrong"]) for one in lines] == [(name, {}) for name in Scenario]


def test_every_figure_of_the_table_was_measured(lines: list[Line]) -> None:
    """Rates, CPU and percentiles are there, positive and in order; nobody judges how large."""
    for one in lines:
        median = one["median"]
        measured = {"requests", "requests_per_s", "generator_us", "p50_ms", "p99_ms", "p99.9_ms"}
        if one["name"] != "ceiling":
            measured |= {"agent_us", "redis_us", "per_agent_core"}
        assert all(median[name] > 0 for name in measured)
        assert median["p50_ms"] <= median["p99_ms"] <= median["p99.9_ms"] <= median["max_ms"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C in the middle stops Redis, the agent and the generators, and removes the files."""
    with bench("--scenario", "open", "--rate", "100", directory=tmp_path) as process:
        assert process.stdout
        while not process.stdout.readline().startswith("load"):
            pass
        while len(processes_of(tmp_path)) < 4:  # itself, Redis, the agent, a generator
            assert process.poll() is None
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "")
    assert "Traceback" not in output
    assert processes_of(tmp_path) == []
    assert list(tmp_path.iterdir()) == []
