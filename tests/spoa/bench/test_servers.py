import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
import redis

from spoa.bench.fault import Fault
from spoa.bench.load.channel import Transport, connect
from spoa.bench.scenario import ACLS
from spoa.bench.servers import NotStarted, Server, child, private_redis, real_agent


def test_a_server_runs_as_long_as_its_block(tmp_path: Path) -> None:
    """The process uses CPU while the block runs, and is gone after it."""
    with private_redis(tmp_path) as server:
        assert server.process.poll() is None
        assert server.cpu_s() > 0
    assert server.process.poll() is not None


def test_a_pinned_server_stays_on_its_cores(tmp_path: Path) -> None:
    """All threads of Redis move to the one core that they are given."""
    core = min(os.sched_getaffinity(0))
    with private_redis(tmp_path) as server:
        server.pin([core])
        tasks = list(Path(f"/proc/{server.process.pid}/task").iterdir())
        assert [os.sched_getaffinity(int(task.name)) for task in tasks] == [{core}] * len(tasks)


def test_what_has_ended_is_pinned_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that ends while its family is named keeps nobody from the cores; nor a thread."""
    cores = sorted(os.sched_getaffinity(0))
    gone = subprocess.Popen(["true"])
    gone.wait()
    monkeypatch.setattr("spoa.bench.servers.family", lambda _: (gone.pid, os.getpid()))
    pinned: list[int] = []

    def ended(task: int, _: object) -> None:
        pinned.append(task)
        raise ProcessLookupError

    monkeypatch.setattr(os, "sched_setaffinity", ended)
    Server("agent", gone, "", tmp_path).pin(cores)
    assert os.getpid() in pinned
    assert gone.pid not in pinned


def test_a_missing_program_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has no Redis is told what to install, in one sentence."""
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    missing = pytest.raises(NotStarted, match=r"neither redis-server nor valkey-server .*apt")
    with missing, private_redis(tmp_path):
        pass


def test_what_a_failed_server_said_is_told(tmp_path: Path) -> None:
    """An agent that ends at once is not waited for, and its own words are in the message."""
    failure = pytest.raises(NotStarted, match=r"agent ended at once\n.*limits\.deadline_ms")
    with failure, real_agent(tmp_path, "/nobody.sock", 1, {"KAT_LIMITS__DEADLINE_MS": "0"}):
        pass


def test_a_server_that_ended_is_told_of(tmp_path: Path) -> None:
    """A Redis that died while it was measured is named, with what it said last."""
    with private_redis(tmp_path) as server:
        server.check()
        server.process.terminate()
        server.process.wait()
        with pytest.raises(Fault, match=r"(?s)redis ended in the middle\n.*bye"):
            server.check()


def test_redis_is_reached_by_tcp_where_wanted(tmp_path: Path) -> None:
    """One Redis is at a unix socket and, only when asked for, at a loopback port."""
    with private_redis(tmp_path, is_tcp=True) as server:
        port = int(server.tcp.rpartition(":")[2])
        with redis.Redis(port=port) as one, redis.Redis(unix_socket_path=server.socket) as other:
            one.set("a", "b")
            assert other.get("a") == b"b"
            assert other.config_get("bind") == {"bind": "127.0.0.1"}


def test_without_tcp_no_port_is_open(tmp_path: Path) -> None:
    """Nobody else on the machine finds a Redis that is measured on its unix socket."""
    with private_redis(tmp_path) as server, redis.Redis(unix_socket_path=server.socket) as client:
        assert server.tcp == ""
        assert client.config_get("port") == {"port": "0"}


@pytest.fixture
def other_build(place: Path) -> Path:
    """Another build of the packages: ours, with another name of the release."""
    for package in ("spoa", "tokens", "haproxy"):
        shutil.copytree(Path(__file__).parents[3] / package, place / "other" / package)
    return place / "other"


def test_the_agent_of_another_build_is_that_one(
    place: Path, other_build: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs from its directory, though we are started where ours is; over TCP, too."""
    monkeypatch.chdir(Path(__file__).parents[3])
    (other_build / "spoa/cli/__main__.py").write_text("raise SystemExit('the other one')")
    failure = pytest.raises(NotStarted, match="the other one")
    with private_redis(place) as store:
        starting = real_agent(place / "a", store.socket, 1, ACLS, packages=other_build)
        with failure, starting:
            pass
        starting = real_agent(place / "b", store.socket, 1, ACLS, transport=Transport.TCP)
        with starting as agent:
            assert agent.socket.startswith("127.0.0.1:")
            connect(agent.socket).sock.close()


@pytest.mark.parametrize(
    ("module", "text", "sentence"),
    [
        ("spoa/worker/agent.py", "raise ImportError('broken')", "cannot be imported\n.*broken"),
        ("tokens/__init__.py", None, "would be taken from"),
    ],
)
def test_a_build_that_is_not_used_is_refused(
    place: Path, other_build: Path, module: str, text: str | None, sentence: str
) -> None:
    """No figure is told of a build that Python does not load, or does not load wholly."""
    if text is None:
        shutil.rmtree((other_build / module).parent)
    else:
        (other_build / module).write_text(text)
    with pytest.raises(NotStarted, match=f"(?s){sentence}"):
        real_agent(place / "a", "/nobody.sock", 1, ACLS, packages=other_build).__enter__()


def _greet(listener: socket.socket, word: bytes) -> None:
    while True:
        peer, _ = listener.accept()
        with peer:
            peer.sendall(word)


def test_a_child_serves_as_long_as_its_block(tmp_path: Path) -> None:
    """A process of ours answers at the address it is said to have, uses CPU, and ends."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        with child(listener, _greet, b"hello") as running:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(running.address)
                assert client.recv(10) == b"hello"
            assert running.cpu_s() > 0
        assert not Path(f"/proc/{running.pid}").exists()
