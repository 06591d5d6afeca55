import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.peers.subjects import subjects
from tests.support.eventually import eventually

ROOT = Path(__file__).parents[2]


@pytest.fixture
def directory() -> Iterator[Path]:
    """Make a folder whose name is short: sockets lie below it."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def bench(*arguments: str, directory: Path) -> "subprocess.Popen[str]":
    """Start it with a temporary directory that we can look into.

    Our agent may take its time: on a busy machine `deadline` would be a right answer, too.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "bench", *arguments],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(directory), "KAT_LIMITS__DEADLINE_MS": "10000"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def processes_of(directory: Path) -> list[int]:
    """Name all processes of this temporary directory.

    They have it in their environment; Redis writes over that, but its title names its socket.
    """
    mark = f"{directory}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(mark in (process / name).read_bytes() for name in ("environ", "cmdline")):
                found.append(int(process.name))
        except OSError:
            continue  # it has ended, or is not ours to read
    return found


def test_ours_and_theirs_are_measured(directory: Path) -> None:
    """Tables, ratios and both files; every answer was right, and nothing is left."""
    names = ("kat consume", "asyncio")
    only = [word for name in names for word in ("--only", name)]
    data, page = directory / "out.json", directory / "out.html"
    quick = ("--rounds", "1", "--seconds", "0.1", "--json", str(data), "--html", str(page))
    with bench(*quick, *only, directory=directory) as process:
        output, errors = process.communicate(timeout=100)
    assert process.returncode == 0, output + errors
    assert "kat consume / asyncio" in output
    results = json.loads(data.read_text())["results"]
    assert [(one["part"], one["name"], one["wrong"]) for one in results] == [
        ("peers", name, {}) for name in names for _ in range(2)
    ]
    assert "kat consume" in page.read_text()
    assert processes_of(directory) == []
    assert {entry.name for entry in directory.iterdir()} == {"out.json", "out.html"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_nothing_behind(directory: Path, number: signal.Signals) -> None:
    """Ctrl-C in the middle stops Redis and the agents, and removes the files."""
    with bench("--only", "asyncio", "--seconds", "60", directory=directory) as process:
        # Itself, Redis, an agent; or it has ended.
        eventually(lambda: len(processes_of(directory)) > 2 or process.poll(), "an agent")
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, ""), output
    # What was just being started is ended by the kernel, which takes its time.
    eventually(lambda: not processes_of(directory), "nothing left")
    assert list(directory.iterdir()) == []


def test_a_name_that_nobody_has_is_told(directory: Path) -> None:
    """All names are told, before anything is started."""
    with bench("--only", "nginx", directory=directory) as process:
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (2, "")
    sentence = errors.splitlines()[-1]
    assert "--only: invalid choice: 'nginx'" in sentence
    assert all(subject.name in sentence for subject in subjects())


def test_a_full_disk_names_the_file(directory: Path) -> None:
    """The system's error has no name then: the sentence has that of what was being written."""
    files = ("--json", "/dev/full")
    with bench(
        "--quick", "--seconds", "0.01", "--only", "asyncio", *files, directory=directory
    ) as it:
        _, errors = it.communicate(timeout=60)
    assert it.returncode == 1
    assert errors == "/dev/full cannot be written: No space left on device\n"


def test_a_reader_who_leaves_is_no_fault(directory: Path) -> None:
    """A stdout that nobody reads any more ends it quietly, and nothing is left."""
    with bench("--quick", "--only", "asyncio", directory=directory) as process:
        assert process.stdout
        process.stdout.close()
        assert process.wait(60) == 1
        assert process.stderr
        assert process.stderr.read() == ""
    assert processes_of(directory) == []
