"""A real supervisor over stand-in workers: it starts, restarts and drains them."""

import grp
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import pytest

from spoa.worker.worker import BOOT_FAILURE
from tests.support.eventually import eventually

EXIT_DEADLINE_S = 30
SLEEP_S = 0.5


@dataclass
class Running:
    """One supervisor process, its directory and what it logs."""

    process: subprocess.Popen[bytes]
    place: Path
    log: Path

    @property
    def socket(self) -> Path:
        return self.place / "run" / "spoa.sock"

    def ask(self) -> tuple[int, int] | None:
        """Connect. Returns the index and pid of the worker that answers."""
        with socket.socket(socket.AF_UNIX) as client, suppress(OSError, ValueError):
            client.settimeout(2)
            client.connect(str(self.socket))
            index, pid = client.recv(100).split()
            return int(index), int(pid)
        return None

    def http(self, path: str) -> tuple[int, str]:
        port = int(self.log.read_text().partition("http=127.0.0.1:")[2].split()[0])
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def has_said(self, text: str) -> bool:
        return text in self.log.read_text()

    def wait_ready(self) -> None:
        eventually(lambda: self.has_said("msg=ready"), "ready")

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(EXIT_DEADLINE_S)


Start = Callable[..., Running]


@pytest.fixture
def start(place: Path) -> Iterator[Start]:
    """Start supervisors whose workers behave as said; kill what is left in the end."""
    with ExitStack() as stack:

        def start(how: str = "serve", **environ: str) -> Running:
            log = place / f"log{time.monotonic_ns()}"
            settings = {
                "KAT_STATE_DIR": str(place),
                "KAT_LISTEN__METRICS": "127.0.0.1:0",
                "KAT_LISTEN__WORKERS": "1",
                "KAT_STORE__URL": "redis://127.0.0.1:1",
                "KAT_CONFIG": os.devnull,
                **environ,
            }
            with log.open("wb") as stream:
                process = subprocess.Popen(
                    [sys.executable, "-m", "tests.support.supervised", how],
                    env={**os.environ, **settings},
                    stderr=stream,
                    start_new_session=True,
                )
            stack.callback(process.wait)
            stack.callback(process.kill)
            return Running(process, place, log)

        yield start


def _is_alive(pid: int) -> bool:
    with suppress(ProcessLookupError):
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return False


def _has_ended(pid: int) -> bool:
    try:
        return not _is_alive(pid)
    except FileNotFoundError:
        return True


def test_sigterm_ends_everything_and_leaves_nothing(start: Start) -> None:
    """After SIGTERM the exit code is 0, no worker is left and no socket."""
    running = start()
    running.wait_ready()
    answer = running.ask()
    assert answer
    assert running.stop() == 0
    assert not running.socket.exists()
    assert _has_ended(answer[1])


def test_ctrl_c_reaches_the_supervisor_alone(start: Start) -> None:
    """SIGINT to the whole group drains as SIGTERM does, without a traceback."""
    running = start()
    running.wait_ready()
    os.killpg(running.process.pid, signal.SIGINT)
    assert running.process.wait(EXIT_DEADLINE_S) == 0
    assert not running.has_said("Traceback")
    assert not running.has_said("worker died")


def test_sigquit_ends_everything(start: Start) -> None:
    """Ctrl-Backslash drains as Ctrl-C does."""
    running = start()
    running.wait_ready()
    os.killpg(running.process.pid, signal.SIGQUIT)
    assert running.process.wait(EXIT_DEADLINE_S) == 0
    assert not running.has_said("worker died")
    assert not running.socket.exists()


@pytest.mark.parametrize("name", ["SIGHUP", "SIGUSR1", "SIGUSR2"])
def test_a_signal_without_meaning_changes_nothing(start: Start, name: str) -> None:
    """Who sends one to all our processes is told what to do instead; the worker lives on."""
    running = start()
    running.wait_ready()
    before = running.ask()
    os.killpg(running.process.pid, signal.Signals[name])
    eventually(lambda: running.has_said(f"signal={name}"), "the answer")
    assert running.has_said("restart to change it")
    assert running.ask() == before
    assert running.stop() == 0
    assert not running.has_said("worker died")


def test_ready_says_when_redis_was_not_reached(start: Start) -> None:
    """Workers serve without Redis, and say no; the line that calls them ready says why."""
    running = start("without-redis")
    running.wait_ready()
    [line] = [line for line in running.log.read_text().splitlines() if "msg=ready" in line]
    assert 'store="not reached yet: see /readyz"' in line


def test_a_dead_worker_is_replaced(start: Start) -> None:
    """A worker killed with SIGKILL is started again at once, counted, and the counts go on."""
    running = start()
    running.wait_ready()
    first = running.ask()
    assert first
    os.kill(first[1], signal.SIGKILL)
    second = eventually(running.ask, "an answer of the new worker")
    assert second[0] == first[0]
    assert second[1] != first[1]
    status, metrics = running.http("/metrics")
    assert status == 200
    assert "kat_worker_restarts_total 1.0\n" in metrics
    assert 'kat_requests_total{acl="demo",reason="ok"} 2.0\n' in metrics
    assert "exit=-9" in running.log.read_text()


def test_health_follows_the_workers(start: Start) -> None:
    """Ready means that a worker serves."""
    running = start()
    running.wait_ready()
    assert running.http("/livez") == (200, "ok\n")
    assert running.http("/readyz") == (200, "ok\n")


def test_readiness_sees_that_the_socket_is_gone(start: Start) -> None:
    """A run directory removed under us makes us unready, and says what to do."""
    running = start()
    running.wait_ready()
    shutil.rmtree(running.place / "run")
    status, why = running.http("/readyz")
    assert status == 503
    assert "spoa.sock was removed or replaced: restart" in why
    assert running.stop() == 0


def test_the_group_may_pass_what_we_make(start: Start, place: Path) -> None:
    """Every directory that is made for the socket lets the group pass; no other is changed."""
    group = grp.getgrgid(os.getegid()).gr_name
    running = start(KAT_STATE_DIR=str(place / "a" / "b"), KAT_LISTEN__GROUP=group)
    running.wait_ready()
    modes = [stat.S_IMODE((place / one).stat().st_mode) for one in ("", "a", "a/b", "a/b/run")]
    assert modes == [0o700, 0o710, 0o710, 0o750]
    assert running.has_said(f'does not let it pass" group={group} dir={place} ')
    assert running.stop() == 0


def test_the_private_redis_leaves_the_way_open(start: Start, place: Path) -> None:
    """The state directory is made for the socket too, although Redis starts first."""
    place.chmod(0o711)
    group = grp.getgrgid(os.getegid()).gr_name
    running = start(
        KAT_STATE_DIR=str(place / "a"), KAT_LISTEN__GROUP=group, KAT_STORE__URL="embedded"
    )
    running.wait_ready()
    assert not running.has_said("does not let it pass")
    assert stat.S_IMODE((place / "a" / "redis").stat().st_mode) == 0o700
    assert running.stop() == 0


@pytest.mark.parametrize("how", ["boot-failure", "dies-at-boot"])
def test_workers_that_cannot_start_end_it_all(start: Start, how: str) -> None:
    """If no worker can boot the exit code says so, and the socket is gone."""
    running = start(how)
    assert running.process.wait(EXIT_DEADLINE_S) == BOOT_FAILURE
    assert running.has_said("no worker can start")
    assert not running.socket.exists()


def test_a_stuck_worker_is_killed(start: Start) -> None:
    """A worker that ignores SIGTERM lives `drain_s` and a little longer."""
    running = start("stuck", KAT_LIMITS__DRAIN_S="0.1")
    running.wait_ready()
    answer = running.ask()
    assert answer
    assert running.stop() == 0
    assert running.has_said("worker killed")
    assert _has_ended(answer[1])


def test_a_second_signal_hurries(start: Start) -> None:
    """Who asks twice does not wait for the drain."""
    running = start("stuck", KAT_LIMITS__DRAIN_S="300")
    running.wait_ready()
    running.process.send_signal(signal.SIGTERM)
    eventually(lambda: running.has_said("msg=stopping"), "the drain")
    assert not running.socket.exists()
    assert running.stop() == 0


def test_workers_end_when_the_supervisor_is_killed(start: Start) -> None:
    """No worker serves without its supervisor."""
    running = start()
    running.wait_ready()
    answer = running.ask()
    assert answer
    running.process.kill()
    eventually(lambda: _has_ended(answer[1]), "the worker's end")


def test_a_second_agent_leaves_the_first_alone(start: Start) -> None:
    """An address in use is refused before any worker starts."""
    first = start()
    first.wait_ready()
    second = start()
    assert second.process.wait(EXIT_DEADLINE_S) != 0
    assert second.has_said("another process listens there")
    assert first.ask()


def test_a_socket_left_behind_is_no_obstacle(start: Start) -> None:
    """After a SIGKILL the next start takes the stale socket over."""
    first = start()
    first.wait_ready()
    first.process.kill()
    first.process.wait()
    eventually(lambda: first.ask() is None, "the worker's end")
    assert first.socket.exists()
    second = start()
    second.wait_ready()
    assert second.ask()


def test_the_private_redis_is_restarted_and_goes_last(start: Start) -> None:
    """A private Redis that died comes back; after the end nothing answers."""
    running = start(KAT_STORE__URL="embedded")
    running.wait_ready()
    pid = int(running.log.read_text().partition('started" pid=')[2].split()[0])
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: running.has_said("the private Redis died"), "the report")
    report = running.log.read_text().partition("the private Redis died")[2].partition("\n")[0]
    assert "exit=-9" in report
    assert "eady to accept connections" in report
    assert f"log={running.place}/redis/redis.log" in report

    def answers() -> bool:
        with socket.socket(socket.AF_UNIX) as client, suppress(OSError):
            client.connect(str(running.place / "redis" / "redis.sock"))
            client.sendall(b"PING\r\n")
            return client.recv(100) == b"+PONG\r\n"
        return False

    eventually(answers, "the new Redis")
    assert running.stop() == 0
    assert not answers()


def test_a_redis_that_cannot_be_restarted_ends_nothing(start: Start) -> None:
    """The restart is tried until the obstacle has gone; the supervisor goes on meanwhile."""
    running = start(KAT_STORE__URL="embedded")
    running.wait_ready()
    pid = int(running.log.read_text().partition('started" pid=')[2].split()[0])
    directory = running.place / "redis"
    shutil.rmtree(directory)
    directory.touch()
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: running.has_said("redis cannot be used: File exists"), "the complaint")
    assert running.ask()
    directory.unlink()
    eventually(lambda: running.has_said("private Redis restarted"), "the restart")
    assert running.stop() == 0


def test_systemd_is_told(start: Start, place: Path) -> None:
    """READY comes when every worker serves, STOPPING when the drain begins."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.settimeout(EXIT_DEADLINE_S)
        systemd.bind(str(place / "notify"))
        running = start(NOTIFY_SOCKET=str(place / "notify"))
        assert systemd.recv(100) == b"READY=1"
        assert running.ask()
        running.process.send_signal(signal.SIGTERM)
        assert systemd.recv(100) == b"STOPPING=1"
        assert running.process.wait(EXIT_DEADLINE_S) == 0


def test_an_idle_supervisor_sleeps(start: Start) -> None:
    """Once every worker serves, the supervisor's main thread is not woken by time."""
    running = start(KAT_LISTEN__METRICS="")
    running.wait_ready()

    def switches() -> int:
        status = Path(f"/proc/{running.process.pid}/status").read_text()
        return int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])

    before = switches()
    began = time.monotonic()
    while time.monotonic() - began < SLEEP_S:
        assert running.ask()
    assert switches() - before <= 2
