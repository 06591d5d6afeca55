"""One real worker process: how it stops, stands still, loses Redis, breaks; on both loops."""

import json
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from spoa.config.acl import Acl
from spoa.listen import is_answered
from spoa.spop.constants import StatusCode
from spoa.worker.worker import BOOT_FAILURE
from tests.support import frames
from tests.support.eventually import eventually
from tests.support.redis import RedisServer, running_redis
from tests.support.redis_proxy import RedisProxy, Step
from tests.support.running_worker import LOOPS, RunningWorker, WorkerEnded, running_worker
from tests.support.spop_client import SpopClient, check_http, notify
from tokens.issue import Issuer
from tokens.policy.rule import Mode
from tokens.record import Keys
from tokens.token import mint

PATIENT_MS = 10_000
DEADLINE_MS = 300

Start = Callable[..., RunningWorker]


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> str:
    """Run the test on each kind of event loop, unless it says `any_loop`."""
    return str(request.param)


any_loop = pytest.mark.parametrize("loop", LOOPS[:1])


@pytest.fixture
def start(loop: str, place: Path, redis_server: RedisServer) -> Iterator[Start]:
    """Give what starts the test's worker, with limits as said and the shared Redis."""
    with ExitStack() as stack:

        def start(
            *, redis: Path | str = redis_server.socket, deadline_ms: int = PATIENT_MS, **more: Any
        ) -> RunningWorker:
            return stack.enter_context(
                running_worker(place, str(redis), loop, deadline_ms=deadline_ms, **more)
            )

        yield start


@pytest.fixture
def own_redis(start_redis: Callable[..., RedisServer]) -> RedisServer:
    """Give a server of the test's own, to be frozen and killed."""
    return start_redis()


def issue(server: RedisServer) -> str:
    with server.client() as client:
        return Issuer(client).issue("user1", "demo", 60).token


def ask_later(client: SpopClient, token: str) -> bytes:
    """Send a NOTIFY and do not wait."""
    ids = client.next_ids()
    client.send(notify(ids, check_http(token=token)))
    return ids


def wait_taken(worker: RunningWorker, number: int) -> None:
    eventually(lambda: worker.in_flight == number, f"{number} in flight")


def wait_tried(worker: RunningWorker) -> None:
    """Wait until the worker has looked for Redis in vain so often that it pauses in between."""
    eventually(lambda: worker.store_errors("connect") >= 3, "three tries")


# --- Listening -----------------------------------------------------------------------------------


def test_it_serves_tcp(start: Start) -> None:
    """A TCP address, which has to be asked for, is served like a unix socket."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = probe.getsockname()
    worker = start(spop=f"127.0.0.1:{address[1]}")
    with SpopClient(address) as client:
        client.hello()
        assert client.ask().reason == "missing"
        worker.process.terminate()
        assert client.farewell() == StatusCode.NORMAL
    assert worker.exit_code() == 0


def test_a_socket_of_its_own_comes_and_goes_with_it(start: Start, place: Path) -> None:
    """With `{worker}` in its name the worker binds the socket itself, and removes it at its end."""
    worker = start(spop=f"unix:{place}/spoa.{{worker}}.sock")
    path = place / "spoa.0.sock"
    with SpopClient(path) as client:
        client.hello()
        assert client.ask().reason == "missing"
    assert worker.stop() == 0
    assert not path.exists()


@any_loop
def test_a_socket_that_cannot_be_bound_is_a_boot_failure(start: Start, place: Path) -> None:
    """Where somebody else answers the worker ends with BOOT_FAILURE, and a sentence."""
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(place / "spoa.0.sock"))
        other.listen()
        with pytest.raises(WorkerEnded, match="another process listens there") as ended:
            start(spop=f"unix:{place}/spoa.{{worker}}.sock")
    assert ended.value.exit_code == BOOT_FAILURE


# --- Stopping ------------------------------------------------------------------------------------


def test_sigterm_says_goodbye_and_ends_with_0(start: Start) -> None:
    """Every HAProxy, greeted or not, hears AGENT-DISCONNECT 0; the exit code is 0; no complaint."""
    worker = start()
    with worker.greeted() as greeted, worker.connect() as silent:
        assert greeted.ask().reason == "missing"
        eventually(lambda: worker.connections == 2, "both are accepted")
        began = monotonic()
        worker.process.terminate()
        assert greeted.farewell() == StatusCode.NORMAL
        assert silent.farewell() == StatusCode.NORMAL
        assert worker.exit_code() == 0
        assert monotonic() - began < 0.9  # as soon as the last one has closed
    assert "Traceback" not in worker.log
    assert "level=error" not in worker.log
    assert not is_answered(str(worker.socket))


def test_sigterm_waits_for_nobody_forever(start: Start) -> None:
    """A HAProxy that neither reads nor closes keeps no worker alive."""
    worker = start()
    with worker.greeted() as slow:
        question = notify(frames.ids(1), check_http(token="kat_x"))
        slow.socket.settimeout(0.2)
        with suppress(TimeoutError):
            while True:
                slow.send(question * 100)
        began = monotonic()
        assert worker.stop() == 0
        assert monotonic() - began < 5
    assert "Traceback" not in worker.log


def test_what_is_in_flight_is_answered_first(start: Start, own_redis: RedisServer) -> None:
    """Requests that Redis has when SIGTERM comes get their answers, then the DISCONNECT."""
    worker = start(redis=own_redis.socket)
    tokens = [issue(own_redis) for _ in range(10)]
    with worker.greeted() as client:
        own_redis.process.send_signal(signal.SIGSTOP)
        asked = {ask_later(client, token) for token in tokens}
        wait_taken(worker, 10)
        worker.process.terminate()
        eventually(lambda: not is_answered(str(worker.socket)), "it accepts nobody any more")
        own_redis.process.send_signal(signal.SIGCONT)
        answers = client.answers(10)
        assert set(answers) == asked
        assert all(answer.is_ok for answer in answers.values())
        assert client.farewell() == StatusCode.NORMAL
    assert worker.exit_code() == 0


@any_loop
def test_new_requests_do_not_keep_it_from_stopping(start: Start, own_redis: RedisServer) -> None:
    """What is asked after SIGTERM is not taken: its token stays whole, HAProxy asks elsewhere."""
    worker = start(redis=own_redis.socket)
    early, late = issue(own_redis), issue(own_redis)
    with worker.greeted() as client:
        own_redis.process.send_signal(signal.SIGSTOP)
        asked = ask_later(client, early)
        wait_taken(worker, 1)
        worker.process.terminate()
        eventually(lambda: not is_answered(str(worker.socket)), "it accepts nobody any more")
        ask_later(client, late)
        eventually(lambda: _has_read_all(worker), "it has read the late request")
        own_redis.process.send_signal(signal.SIGCONT)
        assert client.answer().ids == asked
        assert client.farewell() == StatusCode.NORMAL
    assert worker.exit_code() == 0
    with own_redis.client() as redis:
        values = [redis.get(key) for key in redis.scan_iter("kat:t:*")]
    assert sorted(value.startswith(b"consumed ") for value in values) == [False, True]


def _has_read_all(worker: RunningWorker) -> bool:
    """Tell whether the worker sleeps, so that whatever was sent to it has been read."""
    stat = Path(f"/proc/{worker.pid}/stat").read_text()
    return stat.rpartition(")")[2].split()[0] == "S"


@any_loop
def test_draining_ends_at_the_deadline(start: Start, own_redis: RedisServer) -> None:
    """A Redis that never answers delays the end by one deadline, not by `drain_s`."""
    worker = start(redis=own_redis.socket, deadline_ms=DEADLINE_MS)
    with worker.greeted() as client:
        own_redis.process.send_signal(signal.SIGSTOP)
        ask_later(client, mint())
        wait_taken(worker, 1)
        began = monotonic()
        worker.process.terminate()
        assert client.answer().reason == "store_unavailable"
        assert client.farewell() == StatusCode.NORMAL
        assert worker.exit_code() == 0
        assert monotonic() - began < DEADLINE_MS / 1000 + 3


# --- Standing still ------------------------------------------------------------------------------


def test_a_frozen_worker_consumes_nothing_that_is_overdue(
    start: Start, redis_server: RedisServer
) -> None:
    """What waited past the deadline while it stood still is answered `deadline`, token whole."""
    worker = start(deadline_ms=DEADLINE_MS)
    tokens = [issue(redis_server) for _ in range(5)]
    with ExitStack() as stack:
        clients = [stack.enter_context(worker.greeted()) for _ in tokens]
        assert clients[0].ask(mint()).reason == "unknown"
        worker.freeze()
        frozen_at = monotonic()
        for client, token in zip(clients, tokens, strict=True):
            ask_later(client, token)
        eventually(lambda: monotonic() - frozen_at > 2 * DEADLINE_MS / 1000, "the deadline passes")
        worker.thaw()
        assert [client.answer().reason for client in clients] == ["deadline"] * 5
        answers = [client.ask(token) for client, token in zip(clients, tokens, strict=True)]
        assert [answer.reason for answer in answers] == ["ok"] * 5


# --- Redis in trouble ----------------------------------------------------------------------------


@any_loop
def test_a_frozen_redis_is_unavailable_in_time_and_heals(
    start: Start, own_redis: RedisServer
) -> None:
    """Every answer comes by the deadline, never later; when Redis goes on, so does the agent."""
    worker = start(redis=own_redis.socket, deadline_ms=DEADLINE_MS)
    with worker.greeted() as client:
        assert client.ask(issue(own_redis)).is_ok
        own_redis.process.send_signal(signal.SIGSTOP)
        began = monotonic()
        while monotonic() - began < 1.5:  # longer than tokens.store.wire.STALL_S
            asked_at = monotonic()
            answer = client.ask(mint())
            assert answer.reason == "store_unavailable"
            assert answer.variables["class"] == b"broken"
            assert monotonic() - asked_at < DEADLINE_MS / 1000 + 0.5
        own_redis.process.send_signal(signal.SIGCONT)
        eventually(lambda: client.ask(issue(own_redis)).is_ok, "it heals")
    assert worker.log.count("store unavailable") < 5


@any_loop
def test_a_killed_redis_is_unavailable_at_once_and_heals(start: Start, place: Path) -> None:
    """Without Redis nobody waits; with a new one at the same place tokens are consumed again."""
    path = place / "redis.sock"
    with running_redis() as first:
        path.symlink_to(first.socket)
        worker = start(redis=path, deadline_ms=PATIENT_MS)
        client = worker.greeted()
        assert client.ask(issue(first)).is_ok
        first.process.kill()
        first.process.wait()
        worker.wait_store(is_up=False)
        asked_at = monotonic()
        assert client.ask(mint()).reason == "store_unavailable"
        assert monotonic() - asked_at < 1
        wait_tried(worker)
        path.unlink()
    with running_redis() as second, client:
        path.symlink_to(second.socket)
        worker.wait_store()
        assert client.ask(issue(second)).is_ok


@any_loop
def test_requests_in_flight_at_the_death_of_redis_are_answered(
    start: Start, own_redis: RedisServer
) -> None:
    """Their answer is `store_unavailable` as soon as the connection is gone."""
    worker = start(redis=own_redis.socket)
    with worker.greeted() as client:
        own_redis.process.send_signal(signal.SIGSTOP)
        asked = {ask_later(client, mint()) for _ in range(3)}
        wait_taken(worker, 3)
        own_redis.process.kill()
        answers = client.answers(3)
        assert set(answers) == asked
        assert {answer.reason for answer in answers.values()} == {"store_unavailable"}
        assert client.is_silent()


@any_loop
def test_it_boots_without_redis(start: Start, place: Path) -> None:
    """A worker that finds no Redis serves, says `store_unavailable`, and uses one that comes."""
    path = place / "redis.sock"
    worker = start(redis=path, redis_is_up=False)
    with worker.greeted() as client, running_redis() as server:
        assert client.ask(mint()).reason == "store_unavailable"
        assert client.ask("kat_x").reason == "malformed"
        wait_tried(worker)
        path.symlink_to(server.socket)
        worker.wait_store()
        assert client.ask(issue(server)).is_ok


@any_loop
def test_overloaded_is_answered_at_once(start: Start, own_redis: RedisServer) -> None:
    """Above `in_flight` nobody waits for Redis; those below it get what Redis says."""
    worker = start(redis=own_redis.socket, in_flight=10)
    with worker.greeted() as client:
        own_redis.process.send_signal(signal.SIGSTOP)
        asked = [ask_later(client, mint()) for _ in range(25)]
        answers = client.answers(15)
        assert {answer.reason for answer in answers.values()} == {"overloaded"}
        own_redis.process.send_signal(signal.SIGCONT)
        answers |= client.answers(10)
        assert set(answers) == set(asked)
        assert [answers[ids].reason for ids in asked[:10]] == ["unknown"] * 10
        assert client.ask(mint()).reason == "unknown"


@pytest.mark.parametrize("mode", [Mode.SESSION, Mode.GRANT])
@any_loop
def test_an_opening_whose_reply_is_lost_is_taken_back(
    start: Start, redis_server: RedisServer, place: Path, mode: Mode
) -> None:
    """Who was not told that it is open gets `store_unavailable`, and finds nothing open."""
    with RedisProxy(redis_server.socket, place) as proxy:
        worker = start(redis=proxy.path, acl={"demo": Acl(mode=mode)})
        with worker.greeted() as client:
            proxy.plan(b"XADD", Step.CUT)  # the last but one: by then Redis has opened it
            answer = client.ask(issue(redis_server), via="query")
            assert answer.reason == "store_unavailable"
            assert "session" not in answer.variables
            eventually(lambda: not opened(redis_server), "it is taken back")
            assert client.ask(issue(redis_server), via="query").is_ok
            assert len(opened(redis_server)) == 1


def opened(server: RedisServer) -> list[bytes]:
    with server.client() as client:
        granted = client.zrange(Keys().grants(b"demo").decode(), 0, -1)
        return [*client.scan_iter("kat:s:*"), *granted]


# --- The audit -----------------------------------------------------------------------------------


def audited(server: RedisServer) -> list[dict[str, object]]:
    with server.client() as client:
        entries = client.xrange(Keys().audit)
    return [event for _, entry in entries for event in json.loads(entry[b"e"])]


@any_loop
def test_what_a_flood_leaves_is_told_without_another_request(
    start: Start, redis_server: RedisServer
) -> None:
    """Guesses that end are summed up a moment later, although nobody asks any more."""
    worker = start()
    with worker.greeted() as client:
        assert [client.ask(mint()).reason for _ in range(7)] == ["unknown"] * 7
        eventually(lambda: guesses(redis_server) == 7, "they are summed up")


def guesses(server: RedisServer) -> int:
    told = [event for event in audited(server) if event.get("reason") == "unknown"]
    return sum(int(str(event["n"])) for event in told)


@pytest.mark.parametrize("mode", [Mode.STRICT, Mode.SESSION])
@any_loop
def test_an_audit_that_redis_refuses_costs_nobody_anything(
    start: Start, own_redis: RedisServer, mode: Mode
) -> None:
    """For a user without XADD all is judged as ever, on one connection; what is lost is counted."""
    with own_redis.client() as admin:
        admin.execute_command("ACL", "SETUSER", "agent", "on", ">pw", "~*", "+@all", "-xadd")
    worker = start(redis=f"agent:pw@{own_redis.socket}", acl={"demo": Acl(mode=mode)})
    with worker.greeted() as client:
        answers = [client.ask(issue(own_redis), via="query") for _ in range(5)]
    assert [answer.reason for answer in answers] == ["ok"] * 5
    assert ["session" in answer.variables for answer in answers] == [mode is Mode.SESSION] * 5
    assert worker.store_errors("auth") == 0
    assert worker.log.count("store ready") == 1
    layout = worker.counters.layout
    # What opens a session is told with it; the others share an entry if they come soon enough.
    lost = range(5, 6) if mode is Mode.SESSION else range(1, 6)
    eventually(lambda: worker.counters.block(0)[0][layout.audit_lost] in lost, "counted")


# --- Faults of our own ---------------------------------------------------------------------------


def test_an_exception_ends_the_worker(start: Start) -> None:
    """What nobody caught is our fault: a traceback, a goodbye, an exit code that is not 0."""
    worker = start(fault="read")
    token = mint()
    with worker.greeted() as client, worker.greeted() as neighbour:
        assert client.ask(token).reason == "unknown"
        client.send(notify(client.next_ids(), check_http(token=token, path="/planted-fault")))
        assert neighbour.farewell() == StatusCode.NORMAL
        client.socket.close()
    assert worker.exit_code() == 1
    assert "PlantedFault" in worker.log
    assert token not in worker.log


@any_loop
def test_a_fault_that_loses_count_ends_it_too(start: Start) -> None:
    """Draining after a fault does not wait for requests that the fault has swallowed."""
    worker = start(fault="flush", deadline_ms=DEADLINE_MS)
    with worker.greeted() as client:
        client.send(notify(client.next_ids(), check_http(token=mint(), path="/planted-fault")))
        began = monotonic()
        assert client.farewell() == StatusCode.NORMAL
        assert monotonic() - began < 3
    assert worker.exit_code() == 1


@any_loop
def test_a_fault_over_a_reply_still_answers_at_the_deadline(start: Start) -> None:
    """Whose batch met a fault hears `store_unavailable` in time, then goodbye; nobody gets in."""
    worker = start(fault="replied", deadline_ms=DEADLINE_MS)
    with worker.greeted() as client:
        client.send(notify(client.next_ids(), check_http(token=mint(), path="/planted-fault")))
        assert client.answer().reason == "store_unavailable"
        assert client.farewell() == StatusCode.NORMAL
    assert worker.exit_code() == 1
    assert "PlantedFault" in worker.log


# --- Resources -----------------------------------------------------------------------------------


@any_loop
def test_it_asks_for_a_file_for_each_connection(start: Start) -> None:
    """A soft limit on open files, 1,024 by habit, is raised: 300 connections survive one of 64."""
    worker = start(soft_files=64)
    soft, hard = resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)
    assert soft == min(hard, 8192 + 64) or soft >= 8192
    with ExitStack() as stack:
        clients = [stack.enter_context(worker.greeted()) for _ in range(300)]
        assert {client.ask().reason for client in clients} == {"missing"}


def test_out_of_files_is_no_end(start: Start) -> None:
    """At the hard limit connections wait or go, with a line a second; the rest is served on."""
    worker = start()
    with worker.greeted() as client, ExitStack() as stack:
        before = len(worker.log.splitlines())
        resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (40, 40))
        crowd = [stack.enter_context(worker.connect()) for _ in range(100)]
        began = monotonic()
        for _ in range(20):
            assert client.ask(mint()).reason == "unknown"
        assert len(worker.log.splitlines()) - before <= monotonic() - began + 2
        for one in crowd:
            one.socket.close()
        eventually(lambda: worker.connections == 1, "the crowd is gone")

        def is_served() -> bool:
            with worker.connect() as newcomer, suppress(AssertionError, OSError):
                newcomer.hello()
                return newcomer.ask().reason == "missing"
            return False

        eventually(is_served, "newcomers are served again")
