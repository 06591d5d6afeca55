"""`kat demo` as a newcomer meets it: real HAProxy, real Redis, the real agent."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest

from spoa.demo.gate import find_haproxy
from spoa.demo.programs import free_address
from spoa.listen import is_answered
from spoa.supervisor.embedded import ping
from tests.support.haproxy import binary, versions

KAT = [sys.executable, "-c", "from spoa.cli import main; main()"]
PATIENCE_S = 60


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Give an environment with a place and ports of the test's own."""
    ours = {"KAT_STATE_DIR": str(tmp_path / "s"), "KAT_LISTEN__WORKERS": "1"}
    # Two demos that start at once would both find the usual ports free.
    ours |= {name: free_address("127.0.0.1:0") for name in ("KAT_HTTP", "KAT_LISTEN__METRICS")}
    others = {name: value for name, value in os.environ.items() if not name.startswith("KAT_")}
    return {**others, **ours}


@contextmanager
def demo(environment: dict[str, str], *arguments: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [*KAT, "demo", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def read_until(process: subprocess.Popen[str], words: str) -> str:
    """Read what it prints up to the line with these words."""
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if words in line:
            return seen
    raise AssertionError(f"{words!r} never came, but:\n{seen}{process.communicate()[1]}")


def leftovers(environment: dict[str, str]) -> list[str]:
    """Name what still answers."""
    state = Path(environment["KAT_STATE_DIR"])
    agent = is_answered(str(state / "run/spoa.sock"))
    return [
        name
        for name, is_there in (("agent", agent), ("redis", ping(state / "redis/redis.sock")))
        if is_there
    ]


@pytest.mark.parametrize("version", versions())
def test_the_walk_goes_as_expected_and_leaves_nothing(
    environment: dict[str, str], version: str
) -> None:
    """A newcomer sees each step end as expected, exit code 0, and nothing left running."""
    with demo(environment, "--once", "--haproxy", str(binary(version))) as process:
        printed, errors = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, errors) == (0, ""), printed
    assert "All 7 steps went as expected" in printed
    assert "kat_" not in printed, "a token was printed"
    assert leftovers(environment) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_stays_to_be_tried_and_ends_cleanly(
    environment: dict[str, str], number: signal.Signals
) -> None:
    """The command it prints issues a token that opens once; a signal then ends everything."""
    with demo(environment) as process:
        printed = read_until(process, "curl -i http")
        url = printed.rpartition("curl -i ")[2].split()[0]
        kat = [*KAT, "issue", "--acl", "demo", "--user", "user1"]
        token = subprocess.run(kat, env=environment, capture_output=True, text=True, check=True)
        assert [ask(url, token.stdout.strip()) for _ in range(2)] == [200, 403]
        process.send_signal(number)
        _, errors = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, errors) == (0, "")
    assert leftovers(environment) == []


def ask(url: str, token: str) -> int:
    client = HTTPConnection(url.split("/")[2], timeout=10)
    client.request("GET", "/", headers={"X-KAT": token})
    status = client.getresponse().status
    client.close()
    return status


def test_a_signal_on_the_way_ends_everything(environment: dict[str, str]) -> None:
    """Ctrl-C in the middle of the walk leaves nothing running either."""
    with demo(environment) as process:
        read_until(process, "the same token again")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, errors) == (130, "")
    assert leftovers(environment) == []


def test_a_running_agent_is_not_disturbed(environment: dict[str, str]) -> None:
    """Where an agent runs, the demo says so and touches nothing."""
    with demo(environment) as first:
        read_until(first, "Ctrl-C")
        with demo(environment, "--once") as second:
            _, errors = second.communicate(timeout=PATIENCE_S)
        assert second.returncode == 1
        assert errors.startswith("kat: an agent is running at unix:")
        assert errors.count("\n") == 1
        assert leftovers(environment) == ["agent", "redis"]


def test_a_step_that_goes_wrong_is_told(environment: dict[str, str], tmp_path: Path) -> None:
    """A HAProxy that lets everybody in makes the demo fail, and say where the logs are."""
    config = "defaults\n mode http\nlisten l\n bind ${KAT_HTTP}\n server a ${KAT_APP}\n"
    (tmp_path / "open.cfg").write_text(config)
    real = find_haproxy(None)
    version = f"[ $1 != -v ] || exec {real} -v\n"
    open_door = fake(tmp_path, f"{version}exec {real} -db -f '{tmp_path}/open.cfg'")
    with demo(environment, "--once", "--haproxy", str(open_door)) as process:
        printed, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert "5 of 7 steps went wrong. Logs: " in printed
    assert leftovers(environment) == []


def test_a_program_that_fails_is_quoted(environment: dict[str, str], tmp_path: Path) -> None:
    """When HAProxy does not start, its own words and the path of its log are shown."""
    version = "[ $1 != -v ] || exec echo HAProxy version 2.8.1\n"
    broken = fake(tmp_path, f"{version}echo no such luck; exit 1")
    with demo(environment, "--once", "--haproxy", str(broken)) as process:
        _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert "no such luck" in errors
    assert f"{environment['KAT_STATE_DIR']}/demo/haproxy.log" in errors
    assert leftovers(environment) == []


def fake(folder: Path, script: str) -> Path:
    path = folder / "haproxy"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path
