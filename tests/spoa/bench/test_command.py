import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

import pytest

from spoa.bench.options import Options, Part
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
        [sys.executable, "-m", "spoa.cli", "bench", *arguments],
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


def is_deserted(directory: Path) -> bool:
    """Wait for those that end when they see that we have; tell whether that was all."""
    deadline = time.monotonic() + 10
    while (left := processes_of(directory)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not left


@pytest.fixture(scope="module")
def lines() -> Iterator[list[Line]]:
    """Run the benchmark once, as short as it can be, against the real agent."""
    with tempfile.TemporaryDirectory(prefix="kat-") as name:
        directory = Path(name)
        path, page = directory / "out.json", directory / "out.html"
        short = ("--quick", "--seconds", "0.01", "--rate", "2000", "--connections", "4")
        files = ("--json", str(path), "--html", str(page))
        with bench(*short, *files, directory=directory) as process:
            output, errors = process.communicate(timeout=110)
        assert (process.returncode, errors) == (0, "")
        assert "Not measured" in output
        assert "KAT_LIMITS__DEADLINE_MS=10000" in output
        assert "<html" in page.read_text()
        assert is_deserted(directory)
        assert sorted(entry.name for entry in directory.iterdir()) == ["out.html", "out.json"]
        results: list[Line] = json.loads(path.read_text())["results"]
        yield results


def test_every_answer_of_the_real_agent_is_right(lines: list[Line]) -> None:
    """In every scenario each request got the answer that it must get; Redis agrees."""
    assert [(one["name"], one["wrong"]) for one in lines] == [(name, {}) for name in Scenario]


def test_every_figure_of_the_table_was_measured(lines: list[Line]) -> None:
    """Rates, CPU and percentiles are there, positive and in order; nobody judges how large."""
    for one in lines:
        median = one["median"]
        measured = {"requests", "requests_per_s", "generator_us", "p50_ms", "p99_ms", "p99.9_ms"}
        if one["name"] != "ceiling":
            measured |= {"agent_us", "per_agent_core"}
        if one["name"] not in {"ceiling", "malformed"}:  # Redis is not asked about these
            measured.add("redis_us")
        assert all(median[name] > 0 for name in measured)
        assert median["p50_ms"] <= median["p99_ms"] <= median["p99.9_ms"] <= median["max_ms"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_nothing_behind(place: Path, number: signal.Signals) -> None:
    """Ctrl-C in the middle stops Redis, the agent and the generators, and removes the files."""
    with bench("latency", "--scenario", "open", "--rate", "100", directory=place) as process:
        assert process.stdout
        while not process.stdout.readline().startswith("load"):
            pass
        while len(processes_of(place)) < 4:  # itself, Redis, the agent, a generator
            assert process.poll() is None
        process.send_signal(number)
        process.send_signal(number)  # somebody is impatient
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "")
    assert "Traceback" not in output
    assert is_deserted(place)
    assert list(place.iterdir()) == []


def kat(*arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "spoa.cli", "bench", *arguments],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_names_what_there_is() -> None:
    """All parts are named, and the defaults that it promises are those that are used."""
    text = " ".join(kat("--help").stdout.split())
    usual = Options()
    assert all(part in text for part in Part)
    for option, value in (
        ("--rounds", usual.rounds),
        ("--seconds", usual.seconds),
        ("--connections", usual.connections),
        ("--in-flight", usual.in_flight),
        ("--workers", usual.workers),
        ("--generators", usual.generators),
        ("--transport", usual.transport),
        ("--redis", usual.redis),
        ("--rate", " and ".join(f"{rate:.0f}" for rate in usual.rates)),
    ):
        assert f"Default: {value}." in text.partition(f"{option} ")[2].partition(" --")[0]


def test_nonsense_is_a_sentence_and_a_code() -> None:
    """A mistake is told before anything is printed or started, as other commands do."""
    done = kat("everything")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("kat: part 'everything': must be one of capacity, latency")
    assert done.stderr.count("\n") == 1


def test_an_empty_build_is_no_build() -> None:
    """An unset variable in a script does not become the current directory."""
    done = kat("--against=")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "kat: --against '': must be a directory\n"


@pytest.mark.parametrize(
    ("part", "name", "sentence"),
    [
        ("disturbed", "KAT_BENCH_MINUTES", "must be a number above 0"),
        ("growth", "KAT_BENCH_LARGE", "must be 0 or 1"),
    ],
)
def test_a_mistake_in_the_environment_is_told_first(part: str, name: str, sentence: str) -> None:
    """It is told before a part begins, and only to who asks for the part that reads it."""
    done = kat("latency", part, **{name: "ten"})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"kat: {name} is 'ten': {sentence}\n"
    assert name in kat("--help").stdout


_HALF = """
from collections import Counter
from spoa.bench import fault
from spoa.bench import plan
from spoa.bench import result

def run(*_):
    played = result.Round({"requests_per_s": 7e4}, Counter())
    yield result.Result("capacity", "consume", {}, [played])
    raise fault.Fault("latency: the agent ended in the middle")

plan.run = run
from spoa.cli import main
main()
"""


def test_what_was_measured_before_a_fault_is_told(place: Path) -> None:
    """Minutes of work are printed and written, though the end is a failure."""
    path = place / "out.json"
    done = subprocess.run(
        [sys.executable, "-c", _HALF, "bench", "--json", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "kat: latency: the agent ended in the middle\n")
    assert "70,000" in done.stdout
    assert [one["name"] for one in json.loads(path.read_text())["results"]] == ["consume"]


def test_a_full_disk_names_the_file(place: Path) -> None:
    """The system's error has no name then; the other file and the other fault are not lost."""
    page = place / "out.html"
    done = subprocess.run(
        [sys.executable, "-c", _HALF, "bench", "--json", "/dev/full", "--html", str(page)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "kat: latency: the agent ended in the middle",
        "kat: /dev/full cannot be written: No space left on device",
    ]
    assert "<html" in page.read_text()


def test_without_redis_one_is_asked_for(place: Path) -> None:
    """Who has no Redis is told what to install, and nothing is left."""
    hidden = (
        "import shutil; shutil.which = lambda *_, **__: None; from spoa.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", hidden, "bench", "--quick", "--scenario", "consume"],
        env={**os.environ, "TMPDIR": str(place)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("kat: neither redis-server nor valkey-server is installed: `apt")
    assert done.stderr.count("\n") == 1
    assert list(place.iterdir()) == []
