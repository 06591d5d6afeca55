"""`kat demo` as a newcomer meets it: real HAProxy, real Redis, the real agent."""

import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPSConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from spoa.demo.gate import find_haproxy
from spoa.listen import is_answered
from spoa.supervisor.embedded import ping
from tests.support.haproxy import binary, versions

KAT = [sys.executable, "-c", "from spoa.cli import main; main()"]
INSTALLED = [sys.executable, "-P", *KAT[1:]]  # like bin/kat: not from the working directory
PATIENCE_S = 60


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Give an environment with a place of the test's own."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("KAT_")}
    return {**others, "KAT_STATE_DIR": str(tmp_path / "s")}


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
    return answering(Path(environment["KAT_STATE_DIR"]))


def answering(state: Path) -> list[str]:
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
    assert "All 12 steps went as expected" in printed
    assert "kat_" not in printed, "a token was printed"
    written = [path.read_text() for path in demo_folder(environment).glob("*.log")]
    assert len(written) == 3, "of the agent, HAProxy and the application"
    assert not re.search("kat_[0-9A-Za-z]{38}", "".join(written)), "a token was logged"
    assert leftovers(environment) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGQUIT])
def test_it_stays_to_be_tried_and_ends_cleanly(
    environment: dict[str, str], number: signal.Signals
) -> None:
    """The command it prints issues a token that opens once; a signal then ends everything."""
    with demo(environment) as process:
        url = url_in(read_until(process, "curl -i http"))
        kat = [*KAT, "issue", "--acl", "demo", "--user", "user1"]
        token = subprocess.run(kat, env=environment, capture_output=True, text=True, check=True)
        ca = demo_folder(environment) / "ca.pem"
        assert [ask(url, ca, token.stdout.strip()) for _ in range(2)] == [200, 403]
        process.send_signal(number)
        _, errors = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, errors) == (0, "")
    assert leftovers(environment) == []


def url_in(printed: str) -> str:
    return printed.rpartition("curl -i ")[2].split()[0]


def demo_folder(environment: dict[str, str]) -> Path:
    return Path(environment["KAT_STATE_DIR"]) / "demo"


def ask(url: str, ca: Path, token: str) -> int:
    """Ask at the address, whose name is in the certificate too: not all resolvers know the host."""
    tls = ssl.create_default_context(cafile=str(ca))
    client = HTTPSConnection("127.0.0.1", urlsplit(url).port, timeout=10, context=tls)
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


def test_a_running_demo_is_not_disturbed(environment: dict[str, str]) -> None:
    """Where a demo runs, the next one names it and touches nothing, not even the logs."""
    with demo(environment) as first:
        read_until(first, "Ctrl-C")
        with demo(environment, "--once") as second:
            _, errors = second.communicate(timeout=PATIENCE_S)
        assert second.returncode == 1
        assert errors.startswith("kat: a demo is running in ")
        assert f"(pid {first.pid})" in errors
        assert errors.count("\n") == 1
        assert (Path(environment["KAT_STATE_DIR"]) / "demo/agent.log").exists()
        assert leftovers(environment) == ["agent", "redis"]


def test_a_killed_demo_leaves_nothing(environment: dict[str, str]) -> None:
    """Even kill -9 takes HAProxy, the agent and Redis along."""
    with demo(environment) as process:
        url = url_in(read_until(process, "curl -i http"))
        process.kill()
        process.wait(PATIENCE_S)
    deadline = time.monotonic() + PATIENCE_S
    while leftovers(environment) or is_listening(url):
        assert time.monotonic() < deadline, leftovers(environment)
        time.sleep(0.05)


def is_listening(url: str) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", urlsplit(url).port or 0)) == 0


def test_two_demos_do_not_meet(environment: dict[str, str], tmp_path: Path) -> None:
    """In places of their own two demos run at once, each with ports of its own."""
    other = {**environment, "KAT_STATE_DIR": str(tmp_path / "t")}
    with demo(environment) as one, demo(other) as two:
        # Nothing is read from the second until the first is up: they start side by side.
        printed = [read_until(process, "Ctrl-C") for process in (one, two)]
        assert all("All 12 steps went as expected" in text for text in printed)
        ports = [set(re.findall(r"(?:localhost|127.0.0.1):(\d+)", text)) for text in printed]
        assert ports[0].isdisjoint(ports[1])


def test_production_is_left_alone(environment: dict[str, str], tmp_path: Path) -> None:
    """Where a real agent is configured, the demo uses nothing of it, nor do the lines it prints."""
    del environment["KAT_STATE_DIR"]
    (tmp_path / "kat.toml").write_text(
        f'state_dir = "{tmp_path}/real"\nrun_dir = "{tmp_path}/real-run"\n[acl.wiki]\n'
    )
    # Port 1 answers nobody; 127.0.0.2 is where this HAProxy would be found.
    environment |= {"KAT_CONFIG": str(tmp_path / "kat.toml"), "TMPDIR": str(tmp_path)}
    environment |= {"KAT_STORE__URL": "redis://127.0.0.1:1/0", "KAT_HTTP": "127.0.0.2:8080"}
    with demo(environment) as process:
        printed = read_until(process, "curl -i http")
        folder = tmp_path / f"kat-demo-{os.geteuid()}"
        assert f"  folder          {folder}\n" in printed
        issue = printed.rpartition("$(")[2].partition(")")[0]
        token = subprocess.run(
            ["sh", "-c", issue], env=environment, capture_output=True, text=True, check=True
        )
        ca = folder / "demo/ca.pem"
        assert f" --cacert {ca} " in printed
        assert ask(url_in(printed), ca, token.stdout.strip()) == 200
    assert answering(folder) == []
    assert not list(tmp_path.glob("real*"))


def test_a_folder_that_is_gone_does_not_matter(environment: dict[str, str], tmp_path: Path) -> None:
    """The demo runs in a working directory that somebody has deleted."""
    script = f'mkdir "{tmp_path}/w" && cd "{tmp_path}/w" && rmdir "{tmp_path}/w" && exec "$@"'
    done = subprocess.run(
        ["sh", "-c", script, "sh", *INSTALLED, "demo", "--once"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("redirection", "words"),
    [(">/dev/full", "No space left on device"), (">&-", "Bad file descriptor")],
)
def test_nowhere_to_print_to_is_a_sentence(
    environment: dict[str, str], redirection: str, words: str
) -> None:
    """A stdout that is full or closed ends the demo with one sentence, and leaves nothing."""
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", *KAT, "demo", "--once"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 1
    assert words in done.stderr
    assert done.stderr.startswith("kat: ")
    assert done.stderr.count("\n") == 1
    assert leftovers(environment) == []


def test_a_step_that_goes_wrong_is_told(environment: dict[str, str], tmp_path: Path) -> None:
    """A HAProxy that lets everybody in makes the demo fail, and say where the logs are."""
    config = (
        'defaults\n mode http\nfrontend f\n bind ${KAT_HTTPS} ssl crt "${KAT_CERT}"\n'
        " use_backend portal if { req.hdr(host) -m beg portal. }\n default_backend app\n"
        "backend app\n server a ${KAT_APP}\nbackend portal\n server p ${KAT_PORTAL_APP}\n"
    )
    (tmp_path / "open.cfg").write_text(config)
    real = find_haproxy(None)
    version = f"[ $1 != -v ] || exec {real} -v\n"
    open_door = fake(tmp_path, f"{version}exec {real} -db -f '{tmp_path}/open.cfg'")
    with demo(environment, "--once", "--haproxy", str(open_door)) as process:
        printed, errors = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, errors) == (1, "")
    assert "9 of 12 steps went wrong. Logs: " in printed
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
