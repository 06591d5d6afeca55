"""`kat serve` as it is run: a supervisor, its workers, a real Redis, and what befalls them."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import pytest

from spoa.spop.constants import StatusCode
from tests.support.eventually import eventually
from tests.support.leaks import assert_no_leaks
from tests.support.redis import RedisServer, running_redis
from tests.support.running_worker import LOOPS
from tests.support.spop_client import SpopClient, check_http, logout, notify
from tokens.issue import Issuer, connect
from tokens.token import mint

EXIT_DEADLINE_S = 20
PASSWORD = "correct-horse-battery"
SERVE = ("spoa.cli", "serve")
SERVE_WITH_FAULT = ("tests.support.planted", "read")


def store_url(redis: RedisServer) -> str:
    return f"unix://:{PASSWORD}@{redis.socket}"


@dataclass
class Service:
    """A running `kat serve` with two workers."""

    process: subprocess.Popen[bytes]
    place: Path
    redis: RedisServer

    @property
    def log(self) -> str:
        return (self.place / "log").read_text()

    @property
    def workers(self) -> list[int]:
        """The pids of the supervisor's workers that live now."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(child) for child in children if b"spawn_main" in _command_line(int(child))]

    def greeted(self) -> SpopClient:
        client = SpopClient(self.place / "run" / "spoa.sock")
        client.hello()
        return client

    def issue(self) -> str:
        with connect(store_url(self.redis)) as client:
            return Issuer(client).issue("user1", "demo", 60).token

    def metrics(self) -> str:
        port = int(self.log.partition("http=127.0.0.1:")[2].split()[0])
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/metrics")
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def metric(self, name: str) -> float:
        (value,) = re.findall(rf"^{re.escape(name)} (\S+)$", self.metrics(), re.MULTILINE)
        return float(value)

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(EXIT_DEADLINE_S)


def _command_line(pid: int) -> bytes:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


@pytest.fixture(scope="module")
def locked_redis() -> Iterator[RedisServer]:
    """Run a Redis that wants a password."""
    with running_redis() as server:
        with server.client() as client:
            client.config_set("requirepass", PASSWORD)
        yield server


@contextmanager
def running_service(
    redis: RedisServer, loop: str = "uvloop", program: tuple[str, ...] = SERVE, **limits: int
) -> Iterator[Service]:
    """Run until the block ends. `loop` asyncio: where uvloop cannot be imported."""
    with tempfile.TemporaryDirectory(prefix="kat-") as directory:
        place = Path(directory)
        (place / "no-uvloop").mkdir()
        (place / "no-uvloop" / "uvloop.py").write_text("raise ImportError\n")
        settings = {
            "PYTHONPATH": str(place / "no-uvloop") if loop == "asyncio" else "",
            "KAT_STATE_DIR": directory,
            "KAT_CONFIG": os.devnull,
            "KAT_LISTEN__METRICS": "127.0.0.1:0",
            "KAT_LISTEN__WORKERS": "2",
            "KAT_STORE__URL": store_url(redis),
            "KAT_LOG__LEVEL": "debug",
            # Not the default: a busy machine must not fail what is no test of deadlines.
            "KAT_LIMITS__DEADLINE_MS": "10000",
            **{f"KAT_LIMITS__{name.upper()}": str(value) for name, value in limits.items()},
        }
        with (place / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *program],
                env={**os.environ, **settings},
                stdout=log,
                stderr=log,
            )
        service = Service(process, place, redis)
        try:
            eventually(lambda: "msg=ready" in service.log or _has_ended(service), "ready")
            eventually(lambda: service.log.count("store ready") == 2, "both have Redis")
            yield service
        finally:
            process.kill()  # its workers end with it
            process.wait()


def _has_ended(service: Service) -> bool:
    assert service.process.poll() is None, service.log
    return False


@pytest.fixture(scope="module", params=LOOPS)
def service(request: pytest.FixtureRequest, locked_redis: RedisServer) -> Iterator[Service]:
    """Run `kat serve` on each kind of loop, for the tests that leave it as they found it."""
    with running_service(locked_redis, request.param) as running:
        yield running


def is_alive(pid: int) -> bool:
    with suppress(FileNotFoundError, ProcessLookupError):
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return False


def test_it_runs_on_either_loop(service: Service, request: pytest.FixtureRequest) -> None:
    """Where uvloop can be imported workers use it, elsewhere asyncio; both consume a token once."""
    expects_uvloop = "uvloop" in request.node.callspec.id
    maps = [Path(f"/proc/{pid}/maps").read_text() for pid in service.workers]
    assert [("uvloop" in text) for text in maps] == [expects_uvloop] * 2
    token = service.issue()
    with service.greeted() as one, service.greeted() as other:
        assert one.ask(token).is_ok
        assert other.ask(token).reason == "replayed"


def test_64_clients_with_one_token_let_one_through(service: Service) -> None:
    """Over all workers together a token is consumed once, however many ask at the same time."""
    tokens = [service.issue() for _ in range(10)]
    start = threading.Barrier(64)

    def ask(_: int) -> list[bool]:
        with service.greeted() as client:
            start.wait(EXIT_DEADLINE_S)
            return [answer.is_ok for answer in client.ask_all(tokens)]

    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(ask, range(64)))
    assert [sum(column) for column in zip(*answers, strict=True)] == [1] * 10


def test_a_worker_killed_under_load_costs_no_second_consume(service: Service) -> None:
    """With the same tokens on 64 connections, each has at most one yes; the service goes on."""
    tokens = [service.issue() for _ in range(40)]
    restarts = service.metric("kat_worker_restarts_total")
    victim = service.workers[0]
    is_running = threading.Barrier(65)
    admitted: Counter[str] = Counter()

    def ask(index: int) -> None:
        """Ask for every token, each client in an order of its own; come back when cut off."""
        waiting = [*tokens[index % 40 :], *tokens[: index % 40]]
        client = service.greeted()
        is_running.wait(EXIT_DEADLINE_S)
        while waiting:
            try:
                answer = client.ask(waiting[-1])
            except (AssertionError, OSError):
                client.socket.close()
                client = service.greeted()
                waiting.pop()  # HAProxy would answer 503 and never ask again for this request
                continue
            if answer.is_ok:
                admitted[waiting[-1]] += 1
            waiting.pop()
        client.socket.close()

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(64)]
    for thread in threads:
        thread.start()
    is_running.wait(EXIT_DEADLINE_S)
    os.kill(victim, signal.SIGKILL)
    for thread in threads:
        thread.join(EXIT_DEADLINE_S)
        assert not thread.is_alive()
    assert set(admitted.values()) == {1}
    assert len(admitted) >= 30
    eventually(lambda: service.metric("kat_worker_restarts_total") == restarts + 1, "counted")
    eventually(lambda: len(service.workers) == 2, "replaced")
    assert victim not in service.workers
    token = service.issue()
    with service.greeted() as client:
        assert client.ask(token).is_ok


def test_no_secret_leaves_by_any_way_but_the_right_one(service: Service) -> None:
    """No token, digest or password is in a log line, a metric, or the process list.

    Tokens are sent in every place and every state, and to a peer's error messages; the log level
    is debug.
    """
    tokens = [service.issue() for _ in range(4)] + [mint() for _ in range(4)]
    consumed, *_ = tokens
    with service.greeted() as client:
        for token in (consumed, consumed, *tokens):
            client.ask(token)
            client.ask(token[:-1], path=f"/?kat={token}", host=token, id=token, via=token)
            client.ask(acl=token)
            client.ask(token, acl=token, session=token, nonce=token, method=token)
            client.send(notify(client.next_ids(), logout("demo", token, id=token)))
            assert client.answer().reason == "logged_out"
        client.send(notify(client.next_ids(), check_http(**{token: token for token in tokens})))
        assert client.answer().reason == "missing"
    for token in tokens:
        with service.greeted() as client:
            client.send(f"GET /?kat={token} HTTP/1.1\r\n\r\n".encode())
            client.farewell()
        with service.greeted() as client:
            client.send(notify(client.next_ids(), token.encode()))
            client.farewell()
    processes = [service.process.pid, *service.workers]
    seen = "\n".join([service.log, service.metrics(), *map(_process_list, processes)])
    assert "spop peer refused" in seen
    assert 'reason="replayed"' in seen
    assert "spawn_main" in seen
    assert PASSWORD not in seen
    assert_no_leaks({"what is seen": seen}, tokens)


def _process_list(pid: int) -> str:
    directory = Path(f"/proc/{pid}")
    return f"{_command_line(pid)!r} {(directory / 'comm').read_text()}"


@pytest.mark.parametrize("loop", LOOPS)
def test_an_exception_in_a_worker_costs_that_worker_alone(
    locked_redis: RedisServer, loop: str
) -> None:
    """It is replaced, its traceback logged once; the other one's connections notice nothing."""
    with running_service(locked_redis, loop, SERVE_WITH_FAULT) as service, ExitStack() as stack:
        before = service.workers
        victim, *others = [stack.enter_context(service.greeted()) for _ in range(16)]
        token = service.issue()
        victim.send(notify(victim.next_ids(), check_http(token=token, path="/planted-fault")))
        assert victim.is_at_end()
        eventually(lambda: service.metric("kat_worker_restarts_total") == 1, "counted")
        eventually(lambda: len(service.workers) == 2, "replaced")
        (survivor,) = set(before) & set(service.workers)
        assert is_alive(survivor)
        for other in others:
            assert _is_served(other) or other.farewell() == StatusCode.NORMAL
        with service.greeted() as client:
            assert client.ask(token).is_ok
        assert service.log.count("raise PlantedFault") == 1
        assert token not in service.log


def _is_served(client: SpopClient) -> bool:
    with suppress(OSError):
        return client.ask().reason == "missing"
    return False


@pytest.mark.parametrize("loop", LOOPS)
def test_sigterm_ends_all_in_order(locked_redis: RedisServer, loop: str) -> None:
    """Every connection hears AGENT-DISCONNECT 0, the exit code is 0, nobody is left."""
    with running_service(locked_redis, loop) as service, ExitStack() as stack:
        workers = service.workers
        clients = [stack.enter_context(service.greeted()) for _ in range(16)]
        token = service.issue()
        assert clients[0].ask(token).is_ok
        service.process.terminate()
        assert {client.farewell() for client in clients} == {StatusCode.NORMAL}
        assert service.process.wait(EXIT_DEADLINE_S) == 0
        assert not any(map(is_alive, workers))
        assert "Traceback" not in service.log


def test_workers_end_with_their_supervisor(locked_redis: RedisServer) -> None:
    """When the supervisor is killed its workers say goodbye and end; no orphan consumes a token."""
    with running_service(locked_redis) as service, ExitStack() as stack:
        workers = service.workers
        assert len(workers) == 2
        clients = [stack.enter_context(service.greeted()) for _ in range(8)]
        service.process.kill()
        assert {client.farewell() for client in clients} == {StatusCode.NORMAL}
        eventually(lambda: not any(map(is_alive, workers)), "no worker is left")
